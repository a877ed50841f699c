"""Tables as their readers mean them: which period each figure belongs to, what heads a row, which unit rules.

A `Table` is made of `Line`s: a label, the label that heads it, and values bound to columns. Where a column's period
cannot be told, the value is left out here and counted by the caller.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from finlm.figures import Figure, cell_figure, narrow
from selfqa.blocks import Block, Cell, Row, Source, Tag
from selfqa.periods import (
    Column,
    chinese_column,
    chinese_header_columns,
    header_columns,
    is_chinese_header,
    is_header,
)

CONTEXT_BLOCKS = 5
"""How many blocks above a table may name it."""


@dataclass(frozen=True, slots=True)
class Value:
    """A figure of a table, bound to its column and, in inline XBRL, to its tag."""

    cell: Cell
    figure: Figure
    column: Column
    tag: Tag | None


@dataclass(frozen=True, slots=True)
class Line:
    """A row with figures."""

    label: str
    parent: str
    """The label-only row above it, empty where there is none."""
    start: int
    end: int
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A table with its surroundings: `context` is the text above it and in its header, `title` its own heading."""

    number: int
    context: str
    title: str
    section: str
    lines: tuple[Line, ...]
    unread: int
    """Figures whose column could not be told."""


def read_tables(source: Source, language: str, fiscal_year: int, months: int) -> Iterator[Table]:
    """Yield the tables of a document that have figures, in order."""
    tags = {tag.start: tag for tag in source.tags}
    number = 0
    section = ""
    for position, block in enumerate(source.blocks):
        if block.kind == "heading":
            section = source.text[block.start : block.end]
        if block.kind != "table":
            continue
        above = _above(source, position)
        context = block.lead if block.lead else "\n".join(above)
        header, lines, unread = _read(block, context, language, fiscal_year, months, tags)
        if lines:
            number += 1
            title = _title(context.split("\n"))
            yield Table(number, f"{context}\n{header}", title, section, tuple(lines), unread)


def _above(source: Source, position: int) -> list[str]:
    """The headings and short paragraphs right above a table, nearest last."""
    texts: list[str] = []
    for block in reversed(source.blocks[max(0, position - CONTEXT_BLOCKS) : position]):
        text = source.text[block.start : block.end]
        if block.kind == "table" or (len(text) > 300 and texts):
            break
        texts.insert(0, text)
        if len(text) > 300:
            break
    return texts


def _title(context: list[str]) -> str:
    """The nearest line above that names the table: no unit note, no header, no sentence."""
    for line in reversed(context):
        bare = re.sub(r"[(（][^()（）]*[)）]|[*#]|^\s*\d+\s*$", "", line).strip()
        if (
            len(bare) > 3
            and len(bare) < 110
            and not is_header(line)
            and not re.search(r"单位|[.。:：]$|适用|币种", bare)
        ):
            return " ".join(bare.split())
    return ""


def _read(
    block: Block, context: str, language: str, fiscal_year: int, months: int, tags: dict[int, Tag]
) -> tuple[str, list[Line], int]:
    header: list[Row] = []
    header_open = True
    parent = ""
    lines: list[Line] = []
    unread = 0
    in_lead = _lead_columns(block.lead, language, fiscal_year, months) if block.lead else ()
    for row in block.rows:
        figures = _figures(row)
        if not figures or _is_header_row(row, language):
            if (
                len(row.cells) == 1
                and row.cells[0].left == 0
                and not is_header(row.cells[0].text)
                and (lines or header)
            ) or (len(row.cells) == 1 and row.cells[0].left == 0 and not _has_time(row.cells[0].text, language)):
                parent = row.cells[0].text
            else:
                if not header_open:
                    header, header_open = [], True
                header.append(row)
            continue
        header_open = False
        label = row.cells[0]
        if label.left > min(cell.left for cell in row.cells) or cell_figure(label.text) or not label.text.strip():
            continue
        columns = _columns(row, figures, header, in_lead, language, fiscal_year, months)
        values = []
        for (cell, figure), column in zip(figures, columns, strict=True):
            if column is None:
                unread += 1
                continue
            tag = next((tags[at] for at in range(cell.start, cell.end) if at in tags), None)
            values.append(Value(cell, figure, column, tag))
        if values:
            lines.append(Line(label.text, parent, row.start, row.end, tuple(values)))
        if re.match(r"\W*(?:total|net (?:income|sales|revenue)|合计|小计)", label.text, re.IGNORECASE):
            parent = ""
    text = "\n".join(" ".join(cell.text for cell in row.cells) for row in block.rows[:4] if not _figures(row))
    return text, lines, unread


def _figures(row: Row) -> list[tuple[Cell, Figure]]:
    """The cells after the label that hold one figure and nothing else; a dash is none."""
    found = []
    for cell in row.cells[1:]:
        body = re.sub(r"\s\(?[a-z0-9]\)$", "", cell.text) if "(" in cell.text[1:] else cell.text
        figure = cell_figure(re.sub(r"^(?:Up|Down)\s", "", body))
        if figure is not None:
            found.append((cell, figure))
    return found


def _is_header_row(row: Row, language: str) -> bool:
    """Are the row's cells after the label periods rather than amounts?"""
    others = row.cells[1:] if row.cells[0].left == 0 and len(row.cells) > 1 else row.cells
    if language == "zh":
        return all(not cell_figure(cell.text) or re.fullmatch(r"(?:19|20)\d\d年?", cell.text) for cell in others)
    return all(is_header(cell.text) for cell in others)


def _has_time(text: str, language: str) -> bool:
    return is_header(text) if language == "en" else bool(re.search(r"(?:19|20)\d\d年|期末|期初|本期|上期", text))


def _lead_columns(lead: str, language: str, fiscal_year: int, months: int) -> tuple[Column, ...]:
    """Columns of a plain-text table: the last run of header lines above it, unit notes among them allowed."""
    if language == "zh":
        heads = [line for line in lead.split("\n") if is_chinese_header(line)]
        return chinese_header_columns(heads[-1], fiscal_year, months) if heads else ()
    run: list[str] = []
    for line in reversed(lead.split("\n")):
        if is_header(line):
            run.insert(0, line)
        elif run and not re.fullmatch(r"[(（].*[)）]", line):
            break
    return header_columns("\n".join(run))


def _columns(
    row: Row,
    figures: list[tuple[Cell, Figure]],
    header: list[Row],
    in_lead: tuple[Column, ...],
    language: str,
    fiscal_year: int,
    months: int,
) -> list[Column | None]:
    if in_lead and not header:
        filled = list(row.cells[1:])
        if len(filled) == len(in_lead) + 1 and re.fullmatch(r"\(\w\)", filled[0].text):
            filled = filled[1:]  # a footnote mark, not a value
        if len(filled) != len(in_lead):
            return [None] * len(figures)
        return [in_lead[filled.index(cell)] if cell in filled else None for cell, _ in figures]
    columns: list[Column | None] = []
    for cell, _ in figures:
        above = " ".join(
            head.text for line in header for head in line.cells if head.left < cell.right and cell.left < head.right
        )
        if language == "zh":
            column = chinese_column(narrow(above), fiscal_year, months) if above else Column(None, "other")
            columns.append(column)
            continue
        found = header_columns(above)
        columns.append(found[0] if len(found) == 1 else None)
    if language == "en" and not any(columns) and header:
        whole = header_columns("\n".join(cell.text for line in header for cell in line.cells))
        if len(whole) == len(row.cells) - 1:
            return [whole[row.cells.index(cell) - 1] for cell, _ in figures]
    return columns
