"""One company's filings beside each other: a figure of this one compared with one that only an earlier one states.

Only periods that no single filing holds together are compared here: for the others the filing itself is asked. The
evidence is a span in each of the two filings; the later one owns the question.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from finlm.records import Derivation, Provenance
from selfqa import pairs as wording
from selfqa.entities import Filing
from selfqa.facts import Fact
from selfqa.pairs import Pair
from selfqa.prose import report_name
from selfqa.yes_no import chinese_direction, english_direction

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Told(Generic[T]):
    """What one filing states.

    Example:
        Told(owner=read, filing=read.filing, document_id="9f…", facts=(Fact(…),))
    """

    owner: T
    """The caller's document; a pair comes back with it."""
    filing: Filing
    document_id: str
    facts: tuple[Fact, ...]


def across_pairs(filings: Sequence[Told[T]]) -> Iterator[tuple[T, Pair]]:
    """Yield pairs that need two filings of one company, each with the later filing's owner."""
    stated: dict[tuple[str, str, str], list[tuple[Told[T], Fact]]] = defaultdict(list)
    for told in sorted(filings, key=lambda one: (one.filing.fiscal_year, one.filing.months, one.document_id)):
        for fact in told.facts:
            stated[fact.metric.lower(), fact.unit, fact.frame].append((told, fact))
    for places in stated.values():
        if len({told.document_id for told, _ in places}) > 1:
            yield from _metric(places)


def _metric(places: Sequence[tuple[Told[T], Fact]]) -> Iterator[tuple[T, Pair]]:
    """Compare each period with the nearest earlier one that no filing states beside it."""
    ordered = sorted(places, key=lambda place: (place[1].period.year, place[1].period.month, place[1].period.day))
    together = defaultdict(set)
    for told, fact in places:
        together[told.document_id].add(fact.period)
    done = set()
    for later, new in reversed(ordered):
        if new.period in done or new.period.is_start or new.value <= 0:
            continue
        done.add(new.period)
        for earlier, old in reversed(ordered):
            is_apart = not any({old.period, new.period} <= periods for periods in together.values())
            is_before = (old.period.year, old.period.month) < (new.period.year, new.period.month)
            if is_apart and is_before and old.period.fits(new.period) and old.value > 0 and not old.period.is_start:
                yield from ((later.owner, pair) for pair in _pairs(earlier, old, later, new))
                break


def _pairs(earlier: Told[T], old: Fact, later: Told[T], new: Fact) -> Iterator[Pair]:
    filing = later.filing
    is_chinese = filing.language == "zh"
    if old.value == new.value:
        return
    passage = partial(_passage, earlier, old, later, new)
    beside = Provenance(maker="rule:across-filings", document_id=earlier.document_id, start=old.start, end=old.end)

    def pair(question: str, answer: str, kind: str, rule: str, derivation: Derivation | None = None) -> Pair:
        return Pair(
            question=question,
            answer=answer,
            kind=kind,
            start=new.start,
            end=new.end,
            rule=rule,
            topic=new.metric,
            place="across filings",
            passage=passage,
            derivation=derivation,
            beside=(beside,),
        )

    relative = old.unit != "percent" and wording.pick("ab", new.metric, "across") == "a"
    moved = (wording.chinese_change if is_chinese else wording.english_change)(old, new, filing, relative=relative)
    if moved is not None:
        question, answer, derivation = moved
        yield pair(question, answer, "change", "across-change", derivation)
    compared = (wording.chinese_comparison if is_chinese else wording.english_comparison)(old, new, filing)
    if compared is not None:
        yield pair(*compared, "comparison", "across-comparison")
    direction = chinese_direction if is_chinese else english_direction
    yield pair(*direction(old, new, filing), "yes-no", "across-direction")


def _passage(earlier: Told[T], old: Fact, later: Told[T], new: Fact) -> str:
    """What either filing states of the metric, the asked periods and one more of each filing."""
    tell = wording.chinese_statement if later.filing.language == "zh" else wording.english_statement
    lines = []
    for told, fact in ((earlier, old), (later, new)):
        row = [one for one in told.facts if (one.metric, one.table, one.row) == (fact.metric, fact.table, fact.row)]
        others = [one for one in row if one is not fact][:1]
        shown = [one for one in row if one is fact or one in others]
        colon = "：" if told.filing.language == "zh" else ": "
        lines.append(
            f"{told.filing.short}{'' if colon == '：' else ', '}{report_name(told.filing)}{colon}"
            f"{tell(shown, told.filing, named=True)}"
        )
    return "\n".join(lines)
