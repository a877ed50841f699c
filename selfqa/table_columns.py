"""What stands above and before a figure of a table: the row's text with all that heads it, and its column."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from selfqa.blocks import Cell, Row
from selfqa.period_phrases import UNSAID, When
from selfqa.periods import Column, header_columns, is_chinese_header, is_header
from selfqa.rollforward import Movement
from selfqa.unit_notes import UnitNote


@dataclass(frozen=True, slots=True)
class RowText:
    """A row with figures and all that its table says about it."""

    row: Row
    label: str
    parents: list[str]
    head: list[Row]
    title: frozenset[str]
    caption: Sequence[When]
    note: UnitNote
    share_power: int
    """Power of ten of counts of shares, where a note says so apart ("shares in thousands")."""
    table: int
    lead: str
    is_rates: bool
    """Some figures of the table have a percent sign and nothing says what the others count."""
    movement: Movement | None = None
    """Where the row stands between two dated balances, the year between them."""


def column_text(cell: Cell, text: RowText) -> str:
    """What stands above a cell, top to bottom; a head's cell that spans nothing said holds until the next one."""
    pieces = []
    for row in text.head:
        above = [head for head in row.cells if head.left < cell.right and cell.left < head.right and head.left > 0]
        if not above and not any(head.right - head.left > 1 for head in row.cells):
            named = [head for head in row.cells if head.left > 0]
            before = [head for head in named if head.left <= cell.left]
            above = before[-1:] or named[:1]
        pieces += [_tidy(head.text) for head in above]
    return " ".join(pieces)


def _tidy(head: str) -> str:
    """A head's text as its reader takes it: "2 0 1 8" is a year, and "%" below "2019" no share of it."""
    joined = re.sub(r"(?<!\d)([12]) (\d) (\d) (\d)(?!\d)", r"\1\2\3\4", head)
    return "(%)" if joined.strip() == "%" else joined


@lru_cache(maxsize=256)
def _columns_of(lead: str) -> tuple[Column, ...]:
    """The columns that the last run of head lines above a plain-text table names, unit notes among them allowed."""
    run: list[str] = []
    for line in reversed(lead.split("\n")):
        if is_header(line) or is_chinese_header(line):
            run.insert(0, line)
        elif run and not re.fullmatch(r"[(（].*[)）]", line):
            break
    return header_columns("\n".join(run))


def lead_period(cell: Cell, text: RowText) -> list[When]:
    """The period of a column in a plain-text table, whose head is running text above it."""
    if text.head or not text.lead:
        return []
    columns = _columns_of(text.lead)
    cells = [one for one in text.row.cells[1:] if not re.fullmatch(r"\(\w\)", one.text)]
    if len(columns) != len(cells) or cell not in cells:
        return []
    period = columns[cells.index(cell)].period
    if period is None:
        return []
    is_bare = period.months == 12 and not period.month  # the head of a balance sheet may say no more than a year
    return [When(period.year, UNSAID if is_bare else period.months, period.month, period.day, period.quarter)]
