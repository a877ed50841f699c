"""What is gathered while a document's figures are bound: the facts so far and the words of their lines."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from selfqa.binding import BoundFact
from selfqa.blocks import Source
from selfqa.concepts import tokens
from selfqa.entities import Filing
from selfqa.period_phrases import When, periods_said
from selfqa.unit_notes import UnitNote, document_note
from selfqa.word_index import Words


@dataclass(slots=True)
class Gathered:
    """Gathers the facts and words of a document's tables."""

    source: Source
    filing: Filing
    default: UnitNote
    is_of_shares: bool
    """Its bare figures may be percentages: it says "percentage" at its head and has no unit note."""
    facts: list[BoundFact] = field(default_factory=list)
    lines: list[Words] = field(default_factory=list)

    @property
    def own_period(self) -> list[When]:
        """What a Chinese table is of that says no period: the document's own. An English one has it in its text."""
        is_sure = self.filing.fiscal_year and self.filing.language == "zh"
        return [When(self.filing.fiscal_year)] if is_sure else []

    def periods(self, text: str) -> Sequence[When]:
        """Return the periods that a text of the document says."""
        return periods_said(text, self.filing.language, self.filing.fiscal_year, self.filing.months)

    def words(self, text: str) -> frozenset[str]:
        """Return what a text says besides figures, periods and empty words."""
        return tokens(text, self.filing.language)


def is_of_shares(source: Source) -> bool:
    """May bare figures be percentages? An exhibit that lists holdings says so once, at its head."""
    return "percent" in source.text[:3000].lower() and not document_note(source.text)


def line_of(reader: Gathered, words: Words) -> int:
    """Return the number of a line's words; the cells of a row mostly share them."""
    for number in range(len(reader.lines) - 1, max(-1, len(reader.lines) - 6), -1):
        if reader.lines[number] == words:
            return number
    reader.lines.append(words)
    return len(reader.lines) - 1
