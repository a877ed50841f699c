"""The figure checker: what figures a text holds, and whether an answer is a right one.

    find_figures    every figure of an English or Chinese text, as records
    judge           is an answer right, where a right answer is known, and if not, what is the fault
    unsupported     digits of an answer that stand neither in its evidence nor in the question

It compares values, not spellings ("$412.6 million" is 4.126亿美元), is strict, and reads only the three texts it is
given. It never sees the passage: a wrong answer is told from a right one by the reference and the question alone.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from finlm.figure_grammar import Figure, Unit, cell_figure, find_figures, narrow, periods_in

__all__ = ["Fault", "Figure", "Judgement", "Unit", "cell_figure", "find_figures", "judge", "narrow", "unsupported"]

Fault = Literal["", "figure", "period", "metric", "entity", "missing", "extra", "run-on", "empty"]


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether an answer is right, and if not, the first fault found."""

    is_right: bool
    fault: Fault = ""


def unsupported(answer: str, evidence: str, question: str) -> tuple[str, ...]:
    """Return the numbers of `answer` that stand neither in `evidence` nor in `question`, digit for digit.

    A number counts as one piece with its separators: "412.6" is not supported by "412" and "6" in different places.
    """
    known = set(_numbers(evidence)) | set(_numbers(question))
    return tuple(dict.fromkeys(number for number in _numbers(answer) if number not in known))


def _numbers(text: str) -> list[str]:
    return re.findall(r"\d+(?:[.,]\d+)*", narrow(text))


# ---------------------------------------------------------------------------------------------- judging an answer

FINANCE_WORDS = frozenset(
    re.findall(
        r"\w+",
        """asset assets income loss losses revenue sale profit earning margin expense cost charge provision interest tax
    taxe cash debt equity deposit loan liability liabilitie capital dividend share inventory inventorie receivable
    payable goodwill depreciation amortization ebitda ratio rate yield return backlog employee store customer order
    gross net operating basic diluted total current noncurrent short long term investment security securitie
    comprehensive pretax spending expenditure flow""",
    )
)
"""Words of metric names, in `_stem`'s form; one that only the answer has means that it talks of another metric."""

_NEUTRAL = frozenset(
    re.findall(
        r"\w+",
        """a an the of in for to at by on as from with and or its it was were is are be been had has have that this
        which than compared company amounted came stood reached reported recorded generated posted
        totaled totalled total equaled equal fiscal year ended quarter period month day end during
        million billion thousand percent percentage point dollar yuan per about approximately roughly
        respectively up down rose fell increased decreased grew declined dropped rise fall increase
        decrease growth decline change higher lower more less s ended figure amount value answer yes no
        not between over only all also there""",
    )
)
_UP = re.compile(
    r"\b(?:rose|rise|risen|increas\w+|grew|grow\w*|up|gain\w*|higher|improv\w+|expand\w+|widen\w+)\b|增长|增加|上升|提高|提升|高于"
)
_DOWN = re.compile(
    r"\b(?:fell|fall\w*|decreas\w+|declin\w+|drop\w*|down|lower|shr[aiu]nk\w*|reduc\w+|narrow\w+)\b|下降|减少|降低|下滑|低于"
)
_NO = re.compile(r"\b(?:no|not|never|none|neither|nor)\b|n't\b|不|没有|未|无|否", re.IGNORECASE)
_HAN = re.compile(r"[一-鿿]")
_ZH_NEUTRAL = frozenset(
    "的为是在了于至到共约计达有其该为由从比较同年月日度末初期内公司实现金额合数额元万亿千百个点分美人民币与和及较上下升降增减长少加变动幅率各每，。、"
)
_ZH_METRICS = re.compile(
    r"净|总|毛|流动|归属|扣除|基本|稀释|营业|收入|利润|成本|费用|资产|负债|权益|现金|股利|税|存货|应收|应付|投资|筹资|经营|研发|销售|管理|财务|利息|手续费|存款|贷款|人数|员工"
)
_ROLE = re.compile(r"(?:^|\s)(?:Human|Assistant|User|Question|Answer|Q|A)\s?[:：]|(?:问题|回答|答案)：|<\|?\w+|```")
_DANGLING = re.compile(
    r"(?:\b(?:the|a|an|of|in|for|to|at|by|and|or|from|between|was|were|is|fiscal|ended|than|per|with|its|as|on)|[$,(，、]|为|的|在|从|至|和|与|较)$",
    re.I,
)


def judge(answer: str, reference: str, question: str) -> Judgement:
    """Say whether `answer` is a right answer to `question`, where `reference` is known to be one.

    Right means: one statement and nothing after it; every amount of the reference, equal in value and unit, and no
    other; no period, entity, metric or direction other than the reference's. A bare "$412.6 million" is right. Where
    the reference has no amount, its content words (or its year) must be there instead.

    Args:
        answer: What is judged, without an end token.
        reference: A right answer.
        question: The question; of an open-book message only what follows the last blank line is read.

    Returns:
        The judgement; its fault is the first of empty, run-on, period, figure, missing, extra, entity, metric.
    """
    answer, reference = narrow(answer).strip(), narrow(reference).strip()
    question = narrow(question).strip().rsplit("\n\n", 1)[-1]  # an open-book passage would let any of its figures pass
    fault = (
        _form_fault(answer, reference)
        or _period_fault(answer, reference, question)
        or _figure_fault(answer, reference, question)
        or _binding_fault(answer, reference)
        or _direction_fault(answer, reference)
        or _word_fault(answer, reference, question)
    )
    return Judgement(not fault, fault)


def _form_fault(answer: str, reference: str) -> Fault:
    if not re.search(r"\w", answer):
        return "empty"
    if _ROLE.search(answer) or len(_sentences(answer)) > len(_sentences(reference)):
        return "run-on"
    if re.search(r"[?？]", answer) and not re.search(r"[?？]", reference):
        return "extra"
    if _length(answer) > 1.7 * _length(reference) + 6 or _repeats(answer) - _repeats(reference):
        return "run-on"
    return ""


def _repeats(text: str) -> set[tuple[str, ...]]:
    """Return the pieces (three words, or six Chinese characters) that come more than once: a model that cannot stop."""
    words = [word.lower() for word in re.findall(r"[A-Za-z0-9.,'’$%-]+", text)]
    pieces: list[tuple[str, ...]] = list(zip(words, words[1:], words[2:], strict=False))
    han = re.findall(r"[一-鿿\d.,]", text)
    pieces += [tuple(han[at : at + 6]) for at in range(len(han) - 5)] if len(_HAN.findall(text)) > len(words) else []
    return {piece for piece, count in Counter(pieces).items() if count > 1}


def _sentences(text: str) -> list[str]:
    return [
        part for part in re.split(r"(?<=[.!?])\s+(?=[A-Z\"“(\d])|(?<=[。！？])|\n+", text) if re.search(r"\w", part)
    ]


def _length(text: str) -> int:
    return len(_HAN.findall(text)) + len(re.findall(r"[A-Za-z0-9.,]+", text))


def amounts_in(text: str) -> list[Figure]:
    """Return the figures of a text that are amounts: no dates, and no numbers that only name something."""
    return [figure for figure in find_figures(text) if not (figure.is_date or figure.is_label)]


def _same(one: Figure, other: Figure) -> bool:
    """Equal value and unit; "$1.76" equals "$1.76 per share", where the metric already says so."""
    money = {"currency", "per-share"}
    is_same_unit = one.unit == other.unit or {one.unit, other.unit} <= money
    return is_same_unit and one.value == other.value and one.currency == other.currency


def _has(figure: Figure, others: Iterable[Figure]) -> bool:
    return any(_same(figure, other) for other in others)


def _period_fault(answer: str, reference: str, question: str) -> Fault:
    years, marks = periods_in(answer)
    reference_years, reference_marks = periods_in(reference)
    question_years, question_marks = periods_in(question)
    allowed = reference_years or question_years
    if reference_years and not amounts_in(reference) and _first_year(answer) in reference_years:
        allowed = allowed | question_years  # "higher in 2024 than in 2023" answers "which year?"
    if years - allowed or marks - reference_marks - question_marks:
        return "period"
    if reference_years - question_years - years or (reference_years and not amounts_in(reference) and not years):
        return "missing"  # a year that is asked for, not one that the question gave
    return ""


def _first_year(text: str) -> str:
    found = re.search(r"(?:19|20)\d\d", text)
    return found[0] if found else ""


def _figure_fault(answer: str, reference: str, question: str) -> Fault:
    given, wanted = amounts_in(answer), amounts_in(reference)
    asked = amounts_in(question)
    missing = [figure for figure in wanted if not _has(figure, given) and not _has(figure, asked)]
    foreign = [figure for figure in given if not _has(figure, wanted) and not _has(figure, asked)]
    if missing:
        return "figure" if foreign else "missing"
    if foreign:
        return "extra"
    return "extra" if len(given) > len(wanted) + len(asked) else ""


def _binding_fault(answer: str, reference: str) -> Fault:
    """A reference with several amounts and years: each amount must stand with the same year in the answer."""
    wanted, given = _bindings(reference), _bindings(answer)
    if len(set(wanted.values())) < 2:
        return ""
    return "period" if any(given.get(amount, year) != year for amount, year in wanted.items()) else ""


def _bindings(text: str) -> dict[tuple[Decimal, str], int]:
    figures = find_figures(text)
    years = [figure for figure in figures if figure.is_date and 1900 <= figure.value <= 2099]
    amounts = [figure for figure in figures if not (figure.is_date or figure.is_label)]
    if not years:
        return {}
    # Chinese names the period before its amount, English after it: the text's own first piece says which
    before = years[0].start < amounts[0].start if amounts else True
    bound: dict[tuple[Decimal, str], int] = {}
    for amount in amounts:
        side = [year for year in years if (year.start < amount.start) == before] or years
        nearest = min(side, key=lambda year: abs(year.start - amount.start))
        bound[(amount.value, amount.unit)] = int(nearest.value)
    return bound


def _direction_fault(answer: str, reference: str) -> Fault:
    for one, other in ((_UP, _DOWN), (_DOWN, _UP)):
        if one.search(reference) and not other.search(reference) and other.search(answer):
            return "figure" if amounts_in(reference) else "metric"
    if bool(_NO.search(answer)) != bool(_NO.search(reference)):
        return "figure" if amounts_in(reference) else "metric"
    return ""


def _stem(word: str) -> str:
    word = word.lower().removesuffix("'s").removesuffix("’s")
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def _words(text: str) -> list[str]:
    return re.findall(r"[A-Za-z][A-Za-z&]*(?:['’]s)?", text)


def _word_fault(answer: str, reference: str, question: str) -> Fault:
    if _HAN.search(reference):
        return _han_fault(answer, reference, question)
    if _DANGLING.search(answer):
        return "missing"
    known = {_stem(word) for word in (*_words(reference), *_words(question))} | {_stem(word) for word in _NEUTRAL}
    given = _words(answer)
    unknown = [word for word in given if _stem(word) not in known]
    if unknown and answer.endswith(unknown[-1]):
        return "missing"  # broken off in the middle of a word
    if any(_stem(word) in FINANCE_WORDS for word in unknown):
        return "metric"
    if any(
        word[0].isupper() and not (position == 0 and word.lower() in _NEUTRAL)
        for position, word in ((given.index(word), word) for word in unknown)
    ):
        return "entity"
    if len(unknown) > max(2, len(given) // 5):
        return "extra"
    if _surplus(given, _words(reference)) > max(4, len(_words(reference)) // 5):
        return "extra"
    stems = {_stem(word) for word in given}
    if not amounts_in(reference) and not periods_in(reference)[0]:
        return _content_fault(stems, reference, question)
    metric = {_stem(word) for word in _words(reference)} & FINANCE_WORDS
    return "metric" if metric & stems and metric - stems - {"total"} else ""


def _surplus(given: Sequence[str], wanted: Sequence[str]) -> int:
    """Words (or characters) that an answer has beyond the reference's, harmless ones too: a tail of them is babble."""
    return (Counter(piece.lower() for piece in given) - Counter(piece.lower() for piece in wanted)).total()


def _content_fault(stems: set[str], reference: str, question: str) -> Fault:
    """No amount to check: the reference's own words, those that the question does not already give, must be there."""
    neutral = {_stem(word) for word in _NEUTRAL}
    wanted = {_stem(word) for word in _words(reference)} - neutral
    key = wanted - {_stem(word) for word in _words(question)} or wanted
    found = len(key & stems)
    if found == 0:
        return "metric"
    return "missing" if found < 0.8 * len(key) else ""


def _han_fault(answer: str, reference: str, question: str) -> Fault:
    if _DANGLING.search(answer):
        return "missing"
    bare = _without_figures(answer)
    known = set(_HAN.findall(reference + question)) | _ZH_NEUTRAL
    unknown = "".join(char for char in _HAN.findall(bare) if char not in known)
    foreign_metrics = set(_ZH_METRICS.findall(bare)) - set(_ZH_METRICS.findall(_without_figures(reference) + question))
    if foreign_metrics:
        return "metric"
    if len(unknown) >= 2:
        return (
            "entity"
            if re.search(r"[^，。]{2,}(?:公司|集团|银行|股份|科技)", bare) and unknown[0] in bare[:8]
            else "extra"
        )
    if _surplus(_HAN.findall(answer), _HAN.findall(reference)) > max(6, len(_HAN.findall(reference)) // 4):
        return "extra"
    latin = {word.lower() for word in _words(bare)} - {word.lower() for word in _words(reference + " " + question)}
    if latin:
        return "extra"
    if amounts_in(reference) or periods_in(reference)[0]:
        metric, given = set(_ZH_METRICS.findall(_without_figures(reference))), set(_ZH_METRICS.findall(bare))
        return "metric" if metric & given and metric - given else ""
    key = set(_HAN.findall(reference)) - set(_HAN.findall(question)) - _ZH_NEUTRAL
    key = key or set(_HAN.findall(reference)) - _ZH_NEUTRAL
    found = len(key & set(_HAN.findall(answer)))
    if key and found == 0:
        return "metric"
    return "missing" if found < 0.8 * len(key) else ""


def _without_figures(text: str) -> str:
    for figure in reversed(find_figures(text)):
        text = text[: figure.start] + " " + text[figure.end :]
    return text
