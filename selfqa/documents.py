"""A document of the corpus as a run carries it about: who it is about and where it is kept, not its text.

The texts of a thousand filings are most of a gigabyte; each is loaded from the parse cache when it is looked at.
"""

from dataclasses import dataclass
from functools import lru_cache

from finlm.records import Document
from selfqa.blocks import Source
from selfqa.entities import Filing
from selfqa.library import Place, Shelf, load


@dataclass(frozen=True, slots=True)
class Read:
    """A document with what its questions must name.

    Example:
        Read(shelf, place, filing=Filing("Apple Inc.", "Apple Inc.", "en", 2024, 12), id="9f…", path="en/aapl.txt")
    """

    shelf: Shelf
    place: Place
    filing: Filing
    id: str
    """Its record's: the hash of its text."""
    path: str
    """Relative to the corpus folder, as its record says it."""

    @property
    def source(self) -> Source:
        """Its blocks, loaded anew unless it is one of the last few."""
        return load(self.shelf, self.place)

    @property
    def record(self) -> Document:
        """Its record, made anew unless it is one of the last few."""
        return _record(self)


@lru_cache(maxsize=16)
def _record(read: Read) -> Document:
    return document_of(read.source, read.filing)


def document_of(source: Source, filing: Filing) -> Document:
    """Make the record of a parsed document."""
    return Document(
        text=source.text,
        source=source.path,
        sha256=source.sha256,
        language=filing.language,
        entity=filing.company,
    )
