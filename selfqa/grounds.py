"""What an answer about a document is held against: its facts and its text."""

import re
from functools import cached_property

from selfqa.binding import FactBook
from selfqa.blocks import Source
from selfqa.bound_sentences import book_of
from selfqa.claims import claim_fault, claims_of, is_computed
from selfqa.entities import Filing
from selfqa.names import foreign_name
from selfqa.pairs import Pair
from selfqa.quotes import even


class Grounds:
    """A document's text and, once something is asked of them, its bound facts."""

    def __init__(self, source: Source, filing: Filing) -> None:
        self.source = source
        self.filing = filing

    @cached_property
    def book(self) -> FactBook:
        """Every figure of the document, bound to metric, period and unit."""
        return book_of(self.source, self.filing)

    def fault(self, pair: Pair, filing: Filing, evidence: str, expression: str = "") -> tuple[str, str] | None:
        """Return what is wrong with the names and figures of an answer, None if nothing is.

        A sentence that stands in the evidence word for word is a quotation: it needs no fact beside it.
        """
        name = foreign_name(pair.question, pair.answer, filing, self.source.text)
        if name:
            return "wrong-entity", f"the answer tells of {name!r}, the document is about {filing.short}"
        quoted = even(evidence, 0)[0]
        told = [piece for piece in re.split(r"(?<=[.!?])\s+(?=[A-Z])|(?<=[。！？])", pair.answer) if piece.strip()]
        own = [piece for piece in told if even(piece.rstrip(".。 "), 0)[0] not in quoted]
        return claim_fault(pair.question, " ".join(own), self.book, filing, expression) if own else None

    def computes(self, pair: Pair, filing: Filing, numbers: tuple[str, ...]) -> bool:
        """Do these numbers of an answer follow from facts of the document?"""
        claims = claims_of(pair.question, pair.answer, filing)
        told = [claim for claim in claims if any(number in claim.figure.text for number in numbers)]
        return len(told) >= len(numbers) and all(is_computed(claim, self.book) for claim in told)
