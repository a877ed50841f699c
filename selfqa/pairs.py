"""A question and its answer before they become records, and the words that build both: the templates.

Templates are deterministic: which wording a fact gets follows from a hash of the fact, so a run repeats itself.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache

from finlm.records import Derivation, Provenance
from selfqa.entities import Filing
from selfqa.facts import Fact
from selfqa.periods import MONTHS, Period

KINDS = (
    *("fact", "figure", "change", "cause", "definition", "comparison"),
    *("list", "risk", "summary", "yes-no", "unanswerable"),
)
"""Types of questions."""
DIFFICULTIES = ("easy", "medium", "hard")
"""easy: copied from one place; medium: two figures compared, or a statement understood; hard: computed, condensed, or
seen to be absent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A question, its answer and where the evidence stands.

    Example:
        Pair(question="What was Acme's revenue in fiscal 2024?", answer="Acme's revenue was $5 million in fiscal 2024.",
             kind="figure", start=812, end=861, rule="table-row", topic="revenue", place="table 3")
    """

    question: str
    answer: str
    kind: str
    """One of `KINDS`."""
    start: int
    end: int
    rule: str
    """What made it: becomes the provenance's `rule:…`."""
    topic: str
    """The metric, so that a selection can spread over metrics."""
    place: str
    """The table or section, so that a selection can spread over places."""
    passage: Callable[[], str] = str
    """Writes the open-book form's passage; called only for pairs that are kept."""
    derivation: Derivation | None = None
    beside: tuple[Provenance, ...] = ()
    """Where the rest of the evidence stands, if it needs other documents too."""
    is_open_only: bool = False
    """True where the question makes sense only behind its passage."""
    rank: int = 0
    """0 for what most readers of the filing look at, 1 for details, 2 for an older period."""

    @property
    def difficulty(self) -> str:
        """One of `DIFFICULTIES`."""
        if self.derivation is not None or self.beside or self.kind in {"summary", "unanswerable"}:
            return "hard"
        return "easy" if self.kind in {"figure", "fact", "definition"} or self.rule == "box" else "medium"


def hashed(*parts: object) -> int:
    """A number of 32 bits that depends on `parts` alone: the same on every machine and in every run."""
    digest = hashlib.sha256("\0".join(str(part) for part in parts).encode("utf-8")).digest()
    return int.from_bytes(digest[:4], "big")


def pick(options: Sequence[str], *parts: object) -> str:
    """Choose one of `options` by a hash of `parts`."""
    return options[hashed(*parts) % len(options)]


# ---------------------------------------------------------------------------------------------- English


def possessive(name: str) -> str:
    """`Apple Inc.` -> `Apple Inc.'s`, `Alder Foods` -> `Alder Foods'`."""
    return f"{name}'" if name.endswith("s") else f"{name}'s"


@lru_cache(maxsize=8192)
def head_of(metric: str) -> str:
    """Return the noun that a metric is: `expenses` of "selling, general and administrative expenses"."""
    metric = re.sub(r", (?:net|gross)$", "", metric)
    is_enumeration = re.search(r",.* and (?!other\b)\w+(?: \w+)?$", metric)  # its commas end nothing
    whole = metric if is_enumeration else metric.split(",")[0]
    head = re.split(
        r"\(|\s(?:of|from|for|in|by|to|on|at|per|before|after|attributable|generated|used|provided|held|including"
        r"|excluding|available|declared|paid|under|with|within|arising|outstanding|related to)\b",
        whole,
    )[0].strip()
    head = re.sub(r"\s(?:payable|receivable)$", "", head)  # accounts payable are several accounts
    return head.split(" ")[-1].lower() if head else ""


@lru_cache(maxsize=8192)
def verb(metric: str) -> str:
    """`was` or `were`, by the head of the metric."""
    last = head_of(metric)
    is_plural = bool(re.search(r"(?<![su])s$", last)) and last not in {"goodwill", "gross"}
    return "were" if is_plural or re.search(r"\band cash equivalents\b|liabilities and\b", metric) else "was"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _bare(period: Period) -> str:
    """A period as the end of a range: `fiscal 2024`, `December 31, 2024`, `the three months ended June 30, 2025`."""
    return re.sub(r"^(?:in|as of|at)\s", "", period.in_english())


def english_figure(fact: Fact, filing: Filing) -> tuple[str, str]:
    """Return the question for a figure and its answer."""
    name, metric, when, was = possessive(filing.short), fact.metric, fact.period.in_english(), verb(fact.metric)
    options = [f"What {was} {name} {metric} {when}?", f"{_capital(when)}, what {was} {name} {metric}?"]
    if fact.unit == "currency" and fact.period.months and was == "was" and not metric.startswith("total"):
        options.append(f"How much {metric} did {filing.short} report {when}?")
    if fact.unit == "per-share":
        options.append(f"How high {was} {name} {metric} {when}?")
    options.append(f"State {name} {metric} {when}.")
    return pick(options, metric, when), f"{name} {metric} {was} {fact.amount} {when}."


def english_change(old: Fact, new: Fact, filing: Filing, *, relative: bool) -> tuple[str, str, Derivation] | None:
    """Return question, answer and derivation of a change between two periods; None where there is no change."""
    result = _change(old, new, relative=relative)
    if result is None:
        return None
    size, shown = result
    if old.unit == "percent":
        shown = shown.removesuffix("%") + " percentage points"
    derivation = Derivation(
        operation="growth" if relative else "difference", operands=(old.amount, new.amount), result=shown
    )
    name, since, until = possessive(filing.short), _bare(old.period), _bare(new.period)
    moved = "rose" if size > 0 else "fell"
    ask = "By what percentage" if relative else "By how much"
    span = f"from {since} to {until}" if new.period.months == 12 else f"between {since} and {until}"
    return (
        f"{ask} did {name} {new.metric} change {span}?",
        f"{name} {new.metric} {moved} by {shown} {span}.",
        derivation,
    )


def _change(old: Fact, new: Fact, *, relative: bool) -> tuple[Decimal, str] | None:
    """Return the signed change and its size as written, computed from the two cells' numbers."""
    if old.value <= 0 or new.value <= 0 or old.frame != new.frame or old.value == new.value:
        return None
    size = new.value - old.value
    if not relative:
        number = abs(size).quantize(min(Decimal(1).scaleb(_exponent(old)), Decimal(1).scaleb(_exponent(new))))
        return size, new.frame.format(f"{number:,f}")
    percent = (abs(size) / old.value * 100).quantize(Decimal("0.1"), rounding=ROUND_HALF_UP)
    if percent == 0 or percent >= 1000:
        return None  # nothing to tell, or so small a base that the share says little
    return size, f"{percent:f}%"


def _exponent(fact: Fact) -> int:
    exponent = fact.value.as_tuple().exponent
    return exponent if isinstance(exponent, int) else 0


def english_comparison(old: Fact, new: Fact, filing: Filing) -> tuple[str, str] | None:
    """Ask in which of two periods a metric was higher; the answer's digits stand in the question."""
    if old.value == new.value or old.frame != new.frame:
        return None
    name, was = possessive(filing.short), verb(new.metric)
    first, second = (old, new) if pick("ab", new.metric, "order") == "a" else (new, old)
    higher = new if new.value > old.value else old
    question = (
        f"{_capital(was)} {name} {new.metric} higher {first.period.in_english()} or {second.period.in_english()}?"
    )
    return question, f"{name} {new.metric} {was} higher {higher.period.in_english()}."


def english_larger(one: Fact, other: Fact, filing: Filing) -> tuple[str, str]:
    """Ask which of two metrics was higher in one period; the two must differ."""
    name, when = possessive(filing.short), one.period.in_english()
    high, low = (one, other) if one.value > other.value else (other, one)
    first, second = (one, other) if pick("ab", one.metric, other.metric, "order") == "a" else (other, one)
    question = f"Which {verb(first.metric)} higher {when}, {name} {first.metric} or its {second.metric}?"
    answer = (
        f"{name} {high.metric} {verb(high.metric)} higher {when}: {high.amount}, against {low.amount} of {low.metric}."
    )
    return question, answer


def english_statement(facts: Sequence[Fact], filing: Filing, *, named: bool) -> str:
    """A table row as a sentence: the entity is the subject, the columns its predicates (step 1 of Self-QA)."""
    first = facts[0]
    owner = possessive(filing.short) if named else "Its"
    told = " and ".join(f"{fact.amount} {fact.period.in_english()}" for fact in facts)
    return f"{owner} {first.metric} {verb(first.metric)} {told}."


# ---------------------------------------------------------------------------------------------- Chinese


def chinese_figure(fact: Fact, filing: Filing) -> tuple[str, str]:
    """给出一个数字的问题和答案。"""
    name, metric, when = filing.short, fact.metric, fact.period.in_chinese()
    comma = "，" if when.startswith("截至") else ""
    options = [
        f"{name}{when}{comma}的{metric}是多少？" if not comma else f"{when}，{name}的{metric}是多少？",
        f"{when}{comma}{name}的{metric}是多少？",
        f"请说明{name}{when}{comma}的{metric}。" if not comma else f"请说明{when}{name}的{metric}。",
        f"{name}{when}{metric}为多少？" if not comma else f"{when}，{name}{metric}为多少？",
    ]
    answer = f"{name}{when}{metric}为{fact.amount}。" if not comma else f"{when}，{name}{metric}为{fact.amount}。"
    return pick(options, metric, when), answer


def chinese_change(old: Fact, new: Fact, filing: Filing, *, relative: bool) -> tuple[str, str, Derivation] | None:
    """给出两个期间之间变化的问题、答案和算法。"""
    result = _change(old, new, relative=relative)
    if result is None:
        return None
    size, shown = result
    if old.unit == "percent":
        shown = shown.removesuffix("%") + "个百分点"
    derivation = Derivation(
        operation="growth" if relative else "difference", operands=(old.amount, new.amount), result=shown
    )
    name, since, until = filing.short, old.period.in_chinese(), new.period.in_chinese()
    moved = ("增长" if relative else "增加") if size > 0 else ("下降" if relative else "减少")
    asked = "变化了百分之几" if relative else "变化了多少"
    return (
        f"{name}{until}的{new.metric}比{since}{asked}？",
        f"{name}{until}{new.metric}比{since}{moved}{shown}。",
        derivation,
    )


def chinese_comparison(old: Fact, new: Fact, filing: Filing) -> tuple[str, str] | None:
    """问两个期间中哪个更高。"""
    if old.value == new.value or old.frame != new.frame:
        return None
    first, second = (old, new) if pick("ab", new.metric, "order") == "a" else (new, old)
    higher = new if new.value > old.value else old
    question = f"{filing.short}的{new.metric}在{first.period.in_chinese()}和{second.period.in_chinese()}中哪个更高？"
    return question, f"{filing.short}的{new.metric}在{higher.period.in_chinese()}更高。"


def beside(metric: str, first: str) -> str:
    """一个指标紧跟在另一个之后时的写法：同属“短期借款中的…”就不再重复。"""
    whole, found, part = metric.partition("中的")
    return part if found and first.startswith(f"{whole}中的") else metric


def chinese_larger(one: Fact, other: Fact, filing: Filing) -> tuple[str, str]:
    """问同一期间两个指标中哪个更高。"""
    high, low = (one, other) if one.value > other.value else (other, one)
    first, second = (one, other) if pick("ab", one.metric, other.metric, "order") == "a" else (other, one)
    when = one.period.in_chinese()
    question = f"{filing.short}{when}的{first.metric}和{beside(second.metric, first.metric)}哪个更高？"
    return (
        question,
        f"{filing.short}{when}的{high.metric}更高，为{high.amount}，{beside(low.metric, high.metric)}为{low.amount}。",
    )


def chinese_statement(facts: Sequence[Fact], filing: Filing, *, named: bool) -> str:
    """把表格的一行写成一句话。"""
    owner = f"{filing.short}的" if named else ""
    told = "，".join(f"{fact.period.in_chinese()}为{fact.amount}" for fact in facts)
    return f"{owner}{facts[0].metric}{told}。"


# ---------------------------------------------------------------------------------------------- table lines


def short_period(period: Period, language: str) -> str:
    """A period as a column's head."""
    if language == "zh":
        return period.in_chinese()
    if period.months == 12 or period.quarter:
        return _capital(_bare(period).removeprefix("the ").removeprefix("fiscal year ended").strip())
    date = f"{MONTHS[period.month - 1][:3]} {period.day}, {period.year}" if period.month else f"End of {period.year}"
    return date if period.months == 0 else f"{period.months} months ended {date}"
