"""What a reader hands on: one linear text and the exact places of its parts.

Every start and end counts characters of `Source.text`; `text[start:end]` is what stands there.
"""

from bisect import bisect_right
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

BlockKind = Literal["heading", "paragraph", "table"]


@dataclass(frozen=True, slots=True)
class Cell:
    """A table cell with text in it. `left` and `right` are grid columns: a spanning cell covers several."""

    start: int
    end: int
    left: int
    right: int
    text: str


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a table, its cells from left to right; a row that starts with a figure has no label."""

    start: int
    end: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """A heading, a paragraph or a table; `lead` is the text above a plain-text table that names its columns.

    Example:
        Block("table", 812, 990, rows=(Row(…), Row(…)))
    """

    kind: BlockKind
    start: int
    end: int
    rows: tuple[Row, ...] = ()
    lead: str = ""


@dataclass(frozen=True, slots=True)
class Tag:
    """An inline-XBRL number: where it stands and what the filer says it is.

    Example:
        Tag(91, 96, "us-gaap:NetIncomeLoss", Decimal("23434000000"), "USD", "2025-03-30", "2025-06-28", ())
    """

    start: int
    end: int
    concept: str
    value: Decimal
    """Scale and sign applied, in units of `unit`."""
    unit: str
    """`USD`, `CNY`, `USD/shares`, `shares`, `pure`, …"""
    since: str
    """First day of the period (ISO date), empty for an instant."""
    until: str
    """Last day of the period, or the instant."""
    dimensions: tuple[str, ...]
    """Members that the number is broken down to, empty for the whole company."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file, read."""

    path: str
    """Relative to the corpus folder."""
    sha256: str
    text: str
    blocks: tuple[Block, ...]
    tags: tuple[Tag, ...] = ()
    title: str = ""
    names: dict[str, str] = field(default_factory=dict)
    """`dei:` facts of an inline-XBRL cover page: name -> text."""
    pages: tuple[int, ...] = ()
    """Where each page begins, if the format has pages."""
    is_row: bool = False
    """Is it one of many documents of a file?"""

    def page_of(self, at: int) -> int:
        """Return the page that character `at` stands on, from 1; 0 where the format has no pages."""
        return bisect_right(self.pages, at)
