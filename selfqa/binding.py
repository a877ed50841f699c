"""Every figure of a document bound to what it is a figure of, when, and in which unit: answers are held against it.

Three places give facts: inline-XBRL tags (concept, context, scale and sign are the filer's own), table cells (row
label, column header, unit line) and sentences. The templates' `Fact` takes only what can be worded well; a checker must
know every figure, or it calls a true answer false.
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from finlm.figures import Unit
from selfqa.period_phrases import When
from selfqa.word_index import Scores, WordIndex, Words

Origin = Literal["tag", "cell", "sentence"]
Moved = Literal["", "up", "down", "either"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundFact:
    """A figure of a document with its meaning.

    Example:
        BoundFact(value=Decimal("391035000000"), unit="currency", currency="USD", periods=(When(2024, 12),), line=7,
                  start=812, end=819, origin="cell", written=Decimal("391035"))
    """

    value: Decimal
    """In whole units, signed; percent in hundredths."""
    unit: Unit
    """`plain` where nothing says what is counted."""
    currency: str
    """Empty where nothing says it."""
    periods: tuple[When, ...]
    """Each may be meant; empty where nothing says a period."""
    line: int
    """Place of its words in `FactBook.lines`: the figures of one row or sentence share them."""
    start: int
    end: int
    origin: Origin
    written: Decimal
    """The number without its scale, unsigned."""
    others: tuple[Decimal, ...] = ()
    """What the value is as well if the unit line does not hold for this row (a count among amounts)."""
    moved: Moved = ""
    """Whether it tells a change, and which way: the sign of a cell under "Change", the verb of a sentence."""
    things: str = ""
    """`shares` where the figure counts them."""
    opening: When | None = None
    """The day of the balance that it moved from, in a table that leads from one balance to the next."""

    def agrees(self, when: When) -> bool:
        """May it be a figure of this period?"""
        return not self.periods or any(when.agrees(period) for period in self.periods)


class FactBook:
    """The bound facts of a document, found by value, by words and by period."""

    def __init__(self, facts: Sequence[BoundFact], lines: Sequence[Words], currency: str) -> None:
        self.facts = tuple(sorted(facts, key=lambda fact: abs(fact.value)))
        self.lines = tuple(lines)
        self.currency = currency
        """The document's own, for figures that name none."""
        self.words = WordIndex(self.lines)
        self._periods = frozenset(period for fact in self.facts for period in fact.periods)
        self.of_line: dict[int, list[BoundFact]] = defaultdict(list)
        self._of_row: dict[tuple[int, frozenset[str]], list[BoundFact]] = defaultdict(list)
        self._by_written: dict[Decimal, list[BoundFact]] = defaultdict(list)
        for fact in self.facts:
            self.of_line[fact.line].append(fact)
            self._of_row[self._row(fact)].append(fact)
            self._by_written[fact.written.normalize()].append(fact)
        self._sizes = [abs(fact.value) for fact in self.facts]
        others = sorted(
            ((abs(other), number) for number, fact in enumerate(self.facts) for other in fact.others),
            key=lambda pair: pair[0],
        )
        self._other_sizes = [size for size, _ in others]
        self._others = [number for _, number in others]

    def _row(self, fact: BoundFact) -> tuple[int, frozenset[str]]:
        words = self.lines[fact.line]
        return (words.table, words.own[0]) if words.table else (-1 - fact.line, frozenset())

    def row_of(self, fact: BoundFact) -> list[BoundFact]:
        """Return the facts of the same label in the same table, or of the same sentence."""
        return self._of_row[self._row(fact)]

    def near(self, size: Decimal, tolerance: Decimal) -> list[BoundFact]:
        """Return the facts whose value is `size` within a tolerance, whatever the sign."""
        left = bisect_left(self._sizes, size - tolerance)
        right = bisect_right(self._sizes, size + tolerance)
        low = bisect_left(self._other_sizes, size - tolerance)
        high = bisect_right(self._other_sizes, size + tolerance)
        places = [*range(left, right), *self._others[low:high]]
        return [self.facts[place] for place in dict.fromkeys(places)]

    def written(self, number: Decimal) -> list[BoundFact]:
        """Return the facts that the document writes with this number, before any scale."""
        return self._by_written.get(abs(number).normalize(), [])

    def has_period(self, when: When) -> bool:
        """Is any figure of the document said to be of this period?"""
        return any(when.agrees(period) for period in self._periods)

    def scores(self, claim: Mapping[str, float]) -> Scores:
        """Return how well each line's words answer for a claim's, between 0 and 1."""
        return self.words.scores(tuple(sorted(claim.items())))


def periods_of(facts: Iterable[BoundFact]) -> list[When]:
    """Return all periods of some facts."""
    return [when for fact in facts for when in fact.periods]
