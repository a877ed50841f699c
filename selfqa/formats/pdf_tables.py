"""Tables of a PDF's page: by their rules, or by figures that stand below each other, with the heads above them."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from finlm.figures import cell_figure
from selfqa.formats.builder import Placed
from selfqa.formats.glyphs import unified
from selfqa.plain import ends_in_figures
from selfqa.signs import is_sign

MAX_HEADS = 5
"""Lines above a table that may be its head."""
SAME = 2
"""Points between two rules that are one."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a page, in points from its top and left."""

    text: str
    top: float
    bottom: float
    right: float
    size: float
    """Height of its letters, in points."""
    is_bold: bool
    words: tuple[tuple[float, float, str], ...] = ()
    """Left, right and text of what stands apart by a letter's height: the cells of a table without rules."""


@dataclass(frozen=True, slots=True)
class Grid:
    """A table: its rows, and where its columns end across the page."""

    rows: tuple[tuple[Placed, ...], ...]
    top: float
    bottom: float
    edges: tuple[int, ...]


Part = Line | Grid


def ruled_table(table: Any) -> Grid | None:
    """Read a table's cells by the rules beside them; a frame around text is none."""
    boxes = [[cell for cell in row.cells if cell is not None] for row in table.rows]
    edges = _apart(x for row in boxes for left, _, right, _ in row for x in (left, right))
    texts = table.extract()
    rows = []
    for row, written in zip(table.rows, texts, strict=True):
        placed = [
            Placed(_nearest(edges, cell[0]), _nearest(edges, cell[2]), unified(text))
            for cell, text in zip(row.cells, written, strict=True)
            if cell is not None and text and text.strip() and _nearest(edges, cell[0]) < _nearest(edges, cell[2])
        ]
        if placed:
            rows.append(tuple(placed))
    if len(rows) < 2 or max(len(row) for row in rows) < 2:
        return None
    return Grid(tuple(rows), table.bbox[1], table.bbox[3], tuple(edges))


def _apart(places: Iterable[float]) -> list[int]:
    """Places across the page, each once: rules of one column lie on each other by a point or so."""
    found: list[int] = []
    for place in sorted(map(round, places)):
        if not found or place - found[-1] > SAME:
            found.append(place)
    return found


def _nearest(edges: Sequence[int], place: float) -> int:
    return min(range(len(edges)), key=lambda at: abs(edges[at] - place))


def is_continued(above: Grid, below: Grid) -> bool:
    """Have two tables the same columns? The rules of a second page may lie a point beside those of the first."""
    return len(above.edges) == len(below.edges) and all(
        abs(one - other) <= SAME for one, other in zip(above.edges, below.edges, strict=True)
    )


def with_heads(parts: Sequence[Part]) -> list[Part]:
    """Give a table the lines right above it that stand over its columns: what is not ruled is often its head."""
    kept: list[Part] = []
    for part in parts:
        if isinstance(part, Grid):
            heads = _heads(kept, part)
            del kept[len(kept) - len(heads) :]
            part = replace(part, rows=tuple(_whole_labels((*heads, *part.rows))))
        kept.append(part)
    return kept


def _whole_labels(rows: Iterable[tuple[Placed, ...]]) -> list[tuple[Placed, ...]]:
    """Put a label of two lines together: the second one begins small, beside the figures."""
    kept: list[tuple[Placed, ...]] = []
    for row in rows:
        is_second = len(row) > 1 and row[0].left == 0 and row[0].text[:1].islower()
        if is_second and kept and len(kept[-1]) == 1 and kept[-1][0].left == 0 and not kept[-1][0].text.endswith(":"):
            (first,) = kept.pop()
            row = (row[0]._replace(text=f"{first.text} {row[0].text}"), *row[1:])
        kept.append(row)
    return kept


def _heads(above: Sequence[Part], table: Grid) -> list[tuple[Placed, ...]]:
    """The rows that the lines above a table are: its head, and labels between head and figures."""
    rows: list[tuple[Placed, ...]] = []
    top, found = table.top, 0
    for line in reversed(above[-MAX_HEADS:]):
        if not isinstance(line, Line) or top - line.bottom > line.size or is_note(line):
            break
        cells = _over(line, table.edges)
        is_label = len(line.words) == 1 and line.words[0][0] < table.edges[1]
        rows.insert(0, (Placed(0, 1, line.text),) if is_label else cells)
        top, found = line.top, found if is_label else len(rows)
    return rows[len(rows) - found :] if found else []


def is_note(line: Line) -> bool:
    """Is it a note above a table, as on its unit, rather than a part of it or of a sentence?"""
    return line.text.startswith(("(", "（")) or "单位" in line.text


def _over(line: Line, edges: Sequence[int]) -> tuple[Placed, ...]:
    """The line's words as cells over the columns that they stand above."""
    cells = []
    for left, right, text in line.words:
        first = max(0, bisect_right(edges, left + 1) - 1)
        last = min(len(edges) - 1, max(first + 1, bisect_left(edges, right - 1)))
        cells.append(Placed(first, last, text))
    return tuple(cells)


def bare_tables(parts: Sequence[Part]) -> list[Part]:
    """Make tables of lines whose figures stand below each other: two rows of figures or more, labels between them."""
    kept: list[Part] = []
    run: list[Line] = []
    for part in [*parts, None]:
        if isinstance(part, Line) and (_is_figure_row(part) or (run and _is_label(part, run))):
            run.append(part)
            continue
        kept += _bare_table(run)
        run = []
        if part is not None:
            kept.append(part)
    return kept


def _is_figure_row(line: Line) -> bool:
    """A label, and apart from it nothing but figures."""
    first, *others = line.words or ((0.0, 0.0, ""),)
    has_label = any(char.isalpha() for char in first[2]) and not ends_in_figures(first[2])
    values = others if has_label else line.words
    has_digits = any(char.isdigit() for _, _, text in values for char in text)
    is_year_row = all(len(text) == 4 and text.isdigit() for _, _, text in values)
    return has_digits and not is_year_row and all(_is_value(text) for _, _, text in values)


def _is_value(text: str) -> bool:
    return cell_figure(text) is not None or is_sign(text) or set(text) <= set("—–-")


def _is_label(line: Line, run: Sequence[Line]) -> bool:
    """A line inside a table that heads the rows below it, or begins a label of two lines."""
    first = min(row.words[0][0] for row in run)
    labels = sum(len(row.words) == 1 for row in run[-2:])
    is_near = line.top - run[-1].bottom < 1.5 * line.size
    return len(line.words) == 1 and is_near and labels < 2 and line.words[0][0] < first + 4 * line.size


def _bare_table(run: Sequence[Line]) -> list[Part]:
    """Return the lines as a table, or as they are; label lines at the end are text again."""
    last = max((at for at, line in enumerate(run) if _is_figure_row(line)), default=-1)
    rows, after = run[: last + 1], run[last + 1 :]
    if sum(_is_figure_row(line) for line in rows) < 2:
        return list(run)
    values = sorted(word for line in rows for word in _values(line))
    columns: list[tuple[float, float]] = []  # from the leftmost letter to the right edge, which figures share
    for left, right, _ in sorted(values, key=lambda word: word[1]):
        if columns and right - columns[-1][1] < 0.8 * rows[0].size:
            columns[-1] = (min(columns[-1][0], left), right)
        else:
            columns.append((left, right))
    begin = min(line.words[0][0] for line in rows)
    bounds = [columns[0][0], *((one[1] + other[0]) / 2 for one, other in pairwise(columns)), columns[-1][1]]
    edges = [round(begin), *(round(bound) for bound in bounds)]
    if any(right <= left for left, right in pairwise(edges)):
        return list(run)  # figures of one row over those of another: no table
    grid = []
    for line in rows:
        own = _values(line)
        label = [Placed(0, 1, line.words[0][2])] if len(own) < len(line.words) else []
        at = [bisect_left(columns, right - 0.8 * line.size, key=lambda column: column[1]) for _, right, _ in own]
        grid.append(
            (*label, *(Placed(place + 1, place + 2, text) for place, (_, _, text) in zip(at, own, strict=True)))
        )
    return [Grid(tuple(grid), rows[0].top, rows[-1].bottom, tuple(edges)), *after]


def _values(line: Line) -> Sequence[tuple[float, float, str]]:
    return line.words if _is_value(line.words[0][2]) else line.words[1:]
