"""Puts a document together from its parts; the text and the places of its blocks grow side by side.

A table row is one line with its cells joined by " | ", as in HTML, so every format looks alike to what reads it.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile
from typing import NamedTuple

from selfqa.blocks import Block, BlockKind, Cell, Row, Source
from selfqa.plain import text_blocks
from selfqa.signs import belong_together

_WIDE = r"[\u3000-\u30ff\u3400-\u9fff\uff00-\uffef]"
_WRAPPED = re.compile(rf"(?<={_WIDE})\s*\n\s*|\s*\n\s*(?={_WIDE})")


class Placed(NamedTuple):
    """A cell's text over the grid columns `left` to `right` (exclusive)."""

    left: int
    right: int
    text: str


def unwrapped(text: str) -> str:
    """Return `text` as one line; a line break inside Chinese text is no space."""
    return " ".join(_WRAPPED.sub("", text.strip()).split())


def is_wide(char: str) -> bool:
    """Is it a Chinese character or a mark of that width, which stand without spaces?"""
    return bool(re.match(_WIDE, char))


class _Plain(NamedTuple):
    """A stretch of plain text, not yet cut into blocks."""

    start: int
    end: int


def _joined(row: Sequence[Placed]) -> Iterator[Placed]:
    """Yield the cells with text, each in one line, signs put back to their numbers."""
    last: Placed | None = None
    for left, right, written in row:
        text = unwrapped(written)
        if last is not None and text and belong_together(last.text, text):
            last = Placed(last.left, right, last.text + text)
        elif text:
            if last is not None:
                yield last
            last = Placed(left, right, text)
    if last is not None:
        yield last


class Builder:
    """A document that grows from its first part to its last."""

    def __init__(self) -> None:
        self.out: list[str] = []
        self.length = 0
        self.parts: list[Block | _Plain] = []
        self.pages: list[int] = []

    def page(self) -> None:
        """Begin a page."""
        self.pages.append(self.length)

    def heading(self, text: str) -> None:
        """Add a heading."""
        self._line("heading", text)

    def paragraph(self, text: str) -> None:
        """Add a paragraph."""
        self._line("paragraph", text)

    def plain(self, text: str) -> None:
        """Add text whose lines are cut into blocks as those of a plain-text file are."""
        if text.strip():
            self.parts.append(_Plain(self.length, self.length + len(text)))
            self._write(f"{text}\n\n")

    def table(self, rows: Iterable[Sequence[Placed]]) -> None:
        """Add a table; cells and rows without text leave no trace, and a single column is read as paragraphs."""
        placed = list(self._rows(rows))
        if not placed:
            return
        if max(len(row.cells) for row in placed) == 1:
            self.parts += [Block("paragraph", row.start, row.end) for row in placed]
        else:
            self.parts.append(Block("table", placed[0].start, placed[-1].end, tuple(placed)))
        self._write("\n")

    def more_rows(self, rows: Sequence[Sequence[Placed]]) -> None:
        """Go on with the table that was added last, its head left out where the rows repeat it."""
        table = self.parts.pop()
        assert isinstance(table, Block)
        head = [[cell.text for cell in row.cells] for row in table.rows]
        new = [[cell.text for cell in _joined(row)] for row in rows]
        repeated = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(head, new, strict=False)))
        joined = (*table.rows, *self._rows(rows[repeated:]))
        self.parts.append(Block("table", table.start, joined[-1].end, joined))
        self._write("\n")

    def _rows(self, rows: Iterable[Sequence[Placed]]) -> Iterator[Row]:
        for row in rows:
            start = self.length
            cells: list[Cell] = []
            for left, right, text in _joined(row):
                if cells:
                    self._write(" | ")
                cells.append(Cell(self.length, self.length + len(text), left, right, text))
                self._write(text)
            if cells:
                yield Row(start, self.length, tuple(cells))
                self._write("\n")

    @property
    def ends_in_table(self) -> bool:
        """Was the last part a table?"""
        return bool(self.parts) and isinstance(self.parts[-1], Block) and self.parts[-1].kind == "table"

    def source(self, title: str = "") -> Source:
        """Return the document; `path` and `sha256` are the caller's to fill.

        Args:
            title: Its title, where the file names one; else its first heading is.
        """
        text = "".join(self.out)
        blocks: list[Block] = []
        for part in self.parts:
            blocks += [part] if isinstance(part, Block) else text_blocks(text, part.start, part.end)
        first = next((text[block.start : block.end] for block in blocks if block.kind == "heading"), "")
        return Source("", "", text, tuple(blocks), title=title or first, pages=tuple(self.pages))

    def _line(self, kind: BlockKind, text: str) -> None:
        text = unwrapped(text)
        if text:
            self.parts.append(Block(kind, self.length, self.length + len(text)))
            self._write(f"{text}\n\n")

    def _write(self, text: str) -> None:
        self.out.append(text)
        self.length += len(text)
