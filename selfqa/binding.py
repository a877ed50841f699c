"""Every figure of a document bound to what it is a figure of, when, and in which unit: answers are held against it.

Three places give facts: inline-XBRL tags (concept, context, scale and sign are the filer's own), table cells (row
label, column header, unit line) and sentences. The templates' `Fact` takes only what can be worded well; a checker must
know every figure, or it calls a true answer false.
"""

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from math import log
from typing import Literal

from finlm.figures import Unit
from selfqa.concepts import likeness
from selfqa.period_phrases import When

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

    def agrees(self, when: When) -> bool:
        """May it be a figure of this period?"""
        return not self.periods or any(when.agrees(period) for period in self.periods)


@dataclass(frozen=True, slots=True)
class Words:
    """The words of a row or sentence: its own label in one or two wordings, and what stands around it."""

    own: tuple[frozenset[str], ...]
    around: frozenset[str]
    table: int
    """Number of the table, 0 for a sentence."""
    members: frozenset[str] = frozenset()
    """Tokens of the parts that a tag breaks its concept down to."""


class FactBook:
    """The bound facts of a document, found by value, by words and by period."""

    def __init__(self, facts: Sequence[BoundFact], lines: Sequence[Words], currency: str) -> None:
        self.facts = tuple(sorted(facts, key=lambda fact: abs(fact.value)))
        self.lines = tuple(lines)
        self.currency = currency
        """The document's own, for figures that name none."""
        self.of_line: dict[int, list[BoundFact]] = defaultdict(list)
        for fact in self.facts:
            self.of_line[fact.line].append(fact)
        self._sizes = [abs(fact.value) for fact in self.facts]
        self._others = [fact for fact in self.facts if fact.others]
        self._by_written: dict[Decimal, list[BoundFact]] = defaultdict(list)
        for fact in self.facts:
            self._by_written[fact.written.normalize()].append(fact)
        self._lines_of: dict[str, set[int]] = defaultdict(set)
        count: Counter[str] = Counter()
        for number, words in enumerate(self.lines):
            bag = frozenset().union(words.around, *words.own)
            for token in bag:
                self._lines_of[token].add(number)
            count.update(frozenset().union(*words.own) if words.table else ())
        total = sum(1 for words in self.lines if words.table) + 1
        self.rarity: Mapping[str, float] = {token: log(1 + total / times) for token, times in count.items()}

    def near(self, size: Decimal, tolerance: Decimal) -> list[BoundFact]:
        """Return the facts whose value is `size` within a tolerance, whatever the sign."""
        left = bisect_left(self._sizes, size - tolerance)
        right = bisect_right(self._sizes, size + tolerance)
        found = list(self.facts[left:right])
        seen = {id(fact) for fact in found}
        found += [
            fact
            for fact in self._others
            if id(fact) not in seen and any(abs(abs(other) - size) <= tolerance for other in fact.others)
        ]
        return found

    def written(self, number: Decimal) -> list[BoundFact]:
        """Return the facts that the document writes with this number, before any scale."""
        return self._by_written.get(abs(number).normalize(), [])

    def scores(self, claim: Mapping[str, float]) -> dict[int, float]:
        """Return how well each line's words answer for a claim's; lines that share no word are left out."""
        touched: set[int] = set()
        for token in claim:
            touched |= self._lines_of.get(token, set())
        return {number: self.score(claim, number) for number in touched}

    def score(self, claim: Mapping[str, float], line: int) -> float:
        """Return how well a line's words answer for a claim's, between 0 and 1."""
        words = self.lines[line]
        if not words.table:
            asked = sum(share * self.rarity.get(token, 3.0) for token, share in claim.items())
            bag = words.own[0]
            said = sum(share * self.rarity.get(token, 3.0) for token, share in claim.items() if token in bag)
            near = sum(
                share * self.rarity.get(token, 3.0)
                for token, share in claim.items()
                if token in words.around and token not in bag
            )
            return (said + 0.8 * near) / asked if asked else 0.0
        best = max(likeness(claim, own, words.around, self.rarity) for own in words.own)
        unsaid = words.members - set(claim)
        return best - 0.08 * (len(unsaid) > 0)  # a part of the company does not answer for the whole


def periods_of(facts: Iterable[BoundFact]) -> list[When]:
    """Return all periods of some facts."""
    return [when for fact in facts for when in fact.periods]
