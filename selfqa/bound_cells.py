"""The figures of a document's tables and tags as bound facts: label, column header and unit line of each."""

import re
from collections.abc import Sequence
from dataclasses import replace

from finlm.figures import Figure, amounts_in, cell_figure, narrow
from selfqa.binding import BoundFact
from selfqa.blocks import Block, Cell, Row, Source, Tag
from selfqa.bound_tags import loose_tags, tag_fact
from selfqa.cell_units import facts_of_cell, made
from selfqa.entities import Filing
from selfqa.gathered import Gathered, is_of_shares, line_of
from selfqa.period_phrases import When, periods_said, without_due
from selfqa.rollforward import movements_of_columns, movements_of_rows
from selfqa.table_columns import RowText, column_text, lead_period
from selfqa.unit_notes import document_note, unit_note
from selfqa.word_index import Words

_CHANGE = re.compile(
    r"\b(?:change|variance|increase|decrease|growth|vs\.?|\(decr|incr)\b|增减|变动|同比|环比|增长", re.IGNORECASE
)


MOST_ADDED = 30
"""Rows that are tried as the parts of a total without a label."""
TITLE = 240
"""Characters above a table, and of its section's heading, that count as its title."""


def cell_facts(source: Source, filing: Filing) -> tuple[list[BoundFact], list[Words]]:
    """Return the facts of a document's tables and of the tags in its text, and the words of their lines."""
    default = document_note(source.text)
    reader = Gathered(source, filing, default, is_of_shares(source))
    section = ""
    inside: set[int] = set()
    number = 0
    for position, block in enumerate(source.blocks):
        if block.kind == "heading":
            section = source.text[block.start : block.end]
        if block.kind == "table":
            number += 1
            inside |= _table(reader, block, _above(source, position), section, number)
    loose_tags(reader, inside, number)
    return reader.facts, reader.lines


def _above(source: Source, position: int) -> str:
    """The headings and short paragraphs right above a table."""
    texts: list[str] = []
    for block in reversed(source.blocks[max(0, position - 5) : position]):
        text = source.text[block.start : block.end]
        if block.kind == "table":
            break
        texts.insert(0, text[-400:])
        if len(text) > 300:
            break
    return "\n".join(texts)


# ---------------------------------------------------------------------------------------------- one table


def _table(reader: Gathered, block: Block, above: str, section: str, number: int) -> set[int]:
    """Bind the figures of a table; returns the places of the tags that were bound to its cells."""
    bound: set[int] = set()
    tags = {tag.start: tag for tag in reader.source.tags if block.start <= tag.start < block.end}
    context = f"{above}\n{block.lead}" if block.lead else above
    body = reader.source.text[block.start : block.end]
    head_text = "\n".join(" ".join(cell.text for cell in row.cells) for row in block.rows[:6] if not _figures(row))
    note = unit_note(head_text) or unit_note(_last_lines(context)) or reader.default
    if not note.currency:
        note = note.with_currency(unit_note(body).currency or _sign_in(body))
    share_power = _share_power(f"{context}\n{head_text}")
    title = reader.words(f"{_last_lines(context, 3)[-TITLE:]} {section[-TITLE:]}")
    caption = reader.periods(_last_lines(context))
    head: list[Row] = []
    head_is_open = True
    parents: list[str] = []
    previous = block.rows[0]
    labels = ["" if _fills(row.cells[0]) or row.cells[0].left else row.cells[0].text for row in block.rows]
    moved = movements_of_rows(labels, [reader.periods(label) for label in labels])
    is_of_words = False
    above_it: list[Sequence[tuple[Cell, Figure]]] = []
    for place, row in enumerate(block.rows):
        figures = _figures(row)
        if not figures or _is_head(row, reader):
            _loose_row(reader, row, previous, number)
            previous = row
            if len(row.cells) > 1 and all(re.fullmatch(r"[\s$—–‒-]+", cell.text) for cell in row.cells[1:]):
                continue  # a row of dashes is no head
            is_more = is_of_words and row.cells[0].left > 0  # the second line of such a row
            if not head_is_open and (row.cells[0].left == 0 or is_more) and len(row.cells) > 1:
                is_of_words = not _says_time(row, reader)
                if is_of_words:
                    continue  # nor is one of words
            if len(row.cells) == 1 and (
                row.cells[0].left == 0 or _is_subtitle(row, reader, is_inside=not head_is_open)
            ):
                parents = [row.cells[0].text] if not _is_unit_line(row.cells[0].text) else parents
            else:
                if not head_is_open:
                    head, head_is_open = [], True
                head.append(row)
            continue
        head_is_open = is_of_words = False
        previous = row
        label = "" if _fills(row.cells[0]) else row.cells[0].text
        if not label and not parents and _adds_up(figures, above_it):
            label = "合计" if reader.filing.language == "zh" else "Total"
        above_it.append(figures)
        is_rates = "%" in body and not note.is_said and _sign_in(body) == ""
        told = RowText(
            row, label, parents, head, title, caption, note, share_power, number, block.lead, is_rates, moved.get(place)
        )
        bound |= _row(reader, told, figures, tags)
        if re.match(r"\W*(?:total|合计|小计)", label, re.IGNORECASE):
            parents = []
    return bound


_OPENING = re.compile(
    r"\b(?:beginning|start) of (?:the )?(?:fiscal )?(?:period|year)\b|\bopening balance", re.IGNORECASE
)
"""A column of balances that are those of the end of the year before."""


def _row(reader: Gathered, text: RowText, figures: Sequence[tuple[Cell, Figure]], tags: dict[int, Tag]) -> set[int]:
    """Bind the figures of a row; returns the places of their tags."""
    bound: set[int] = set()
    # a sum without a label is that of what heads its rows
    own = reader.words(bare_label(text.label or " ".join(text.parents)))
    of_label = periods_said(without_due(text.label), reader.filing.language)  # 当期 in a label names no column
    of_parent = [when for parent in text.parents for when in reader.periods(parent)]
    of_corner = [
        when for row in text.head for cell in row.cells[:1] if not cell.left for when in reader.periods(cell.text)
    ]
    columns = {cell.start: column_text(cell, text) for cell in text.row.cells}
    of_row = [when for cell, _ in figures for when in reader.periods(columns[cell.start])]
    heads = [cell.start for cell in text.row.cells[1:]]
    moved = dict(zip(heads, movements_of_columns([reader.periods(columns[at]) for at in heads]), strict=True))
    for cell, figure in figures:
        column = columns[cell.start]
        movement = moved.get(cell.start) or text.movement
        of_column = reader.periods(column) or ([movement.year] if movement else lead_period(cell, text))
        tag = next((tags[at] for at in range(cell.start, cell.end) if at in tags), None)
        told_first = (
            of_column if len(own) > 2 else of_label
        )  # a label that is more than a period leaves that to its column
        periods = tuple(
            told_first or of_label or of_column or of_parent or of_corner or text.caption or reader.own_period
        )
        column_words = reader.words(column)
        around = column_words | text.title | frozenset().union(*(reader.words(parent) for parent in text.parents))
        if _OPENING.search(column) and reader.filing.language == "en":
            periods += tuple(replace(when, year=when.year - 1, months=0, month=0, day=0) for when in periods)
        if tag is not None:
            tag_fact(reader, tag, own, around, text.table, label=text.label, named=of_column)
            bound.add(tag.start)
            continue
        line = line_of(reader, Words((own or column_words, *_joined(own, column_words)), around, text.table))
        is_change = (bool(_CHANGE.search(column)) and not of_column) or bool(re.search(r"增减|同比|变动幅度", column))
        for fact in facts_of_cell(figure, cell, text, column, line, periods, may_be_share=reader.is_of_shares):
            fact = replace(fact, opening=movement.opening if movement else None)
            reader.facts.append(fact if not is_change else _changed(fact, of_column or of_row))
    _ranges(reader, text, own)
    return bound


_RANGE = re.compile(
    r"(\d[\d,]*(?:\.\d+)?\s?%?)\s*(?:-|–|—|to|至)\s*(?:(\d[\d,]*(?:\.\d+)?\s?%?)|indefinite)(?:\s+years?)?",
    re.IGNORECASE,
)


def _ranges(reader: Gathered, text: RowText, own: frozenset[str]) -> None:
    """Bind both ends of a row's ranges, "5 - 40" and "20 - Indefinite": what they count is their column's to say."""
    for cell in text.row.cells[1:]:
        found = _RANGE.fullmatch(narrow(cell.text).strip())
        ends = [cell_figure(end) for end in found.groups() if end] if found else []
        if not own or not ends:
            continue
        column = reader.words(column_text(cell, text))
        line = line_of(reader, Words((own, *_joined(own, column)), column | text.title, text.table))
        reader.facts += [made(end, cell, 0, end.unit, "", (), line) for end in ends if end is not None]


def bare_label(label: str) -> str:
    """A row's label without its number and without the note on signs: 一、营业收入, 投资收益（损失以“-”号填列）."""
    label = re.sub(r"[（(][^（）()]*填列[）)]", "", label)
    return re.sub(r"^\s*(?:[（(]?[一二三四五六七八九十\d]{1,3}[）)、.．]\s*|其中[：:]|[加减][：:])+(?=\D)", "", label)


def _joined(own: frozenset[str], column: frozenset[str]) -> tuple[frozenset[str], ...]:
    return (own | column,) if own and column - own else ()


def _changed(fact: BoundFact, periods: Sequence[When]) -> BoundFact:
    latest = sorted({when.year for when in periods})[-2:]  # of three years' columns the change is that of the last two
    kept = tuple(when for when in periods if when.year in latest)
    return replace(fact, moved="down" if fact.value < 0 else "up", periods=kept)


def _loose_row(reader: Gathered, row: Row, previous: Row, table: int) -> None:
    """Figures beside words in a cell ("7.50 Russia"): the row and the one before lend their words, no unit is sure."""
    text = " ".join(cell.text for cell in row.cells)
    amounts = amounts_in(text)
    if not amounts:
        return
    words = reader.words(f"{text} {' '.join(cell.text for cell in previous.cells)}")
    reader.lines.append(Words((words,), frozenset(), 0))
    for figure in amounts:
        cell = replace(row.cells[0], start=row.start, end=row.end)
        for unit in (figure.unit, *(("percent",) if figure.unit == "plain" and reader.is_of_shares else ())):
            fact = made(figure, cell, 0, unit, figure.currency, (), len(reader.lines) - 1)
            reader.facts.append(replace(fact, origin="sentence", written=abs(figure.value)))


# ---------------------------------------------------------------------------------------------- rows and columns


def _figures(row: Row) -> list[tuple[Cell, Figure]]:
    """The cells that hold one figure and nothing else but a footnote mark, those of the label's column apart."""
    found = []
    cells = row.cells if _fills(row.cells[0]) else row.cells[1:]
    for cell in cells:
        body = re.sub(r"(?<=\d)\s*\((?:[a-z]|\d)\)$", "", cell.text)
        figure = cell_figure(re.sub(r"^(?:Up|Down)\s", "", body))
        if figure is not None:
            found.append((cell, figure))
    return found


def _adds_up(figures: Sequence[tuple[Cell, Figure]], above: Sequence[Sequence[tuple[Cell, Figure]]]) -> bool:
    """Do rows right above a row, two at least, add up to it in each of its columns?"""
    missing = [figure.value for _, figure in figures]
    for count, row in enumerate(reversed(above[-MOST_ADDED:]), 1):
        for place, (cell, _) in enumerate(figures):
            missing[place] -= sum(part.value for at, part in row if at.left < cell.right and cell.left < at.right)
        if count > 1 and not any(missing):
            return True
    return False


def _fills(cell: Cell) -> bool:
    """Does a figure fill the first cell, so that the row has no label?"""
    return cell_figure(cell.text) is not None and not re.fullmatch(r"(?:19|20)\d\d", cell.text.strip())


def _is_head(row: Row, reader: Gathered) -> bool:
    """Are all figures of a row years: the head of a table?"""
    cells = [cell for cell in row.cells if cell_figure(cell.text)]
    return all(re.fullmatch(r"(?:19|20)\d\d\s?年?", narrow(cell.text).strip()) for cell in cells)


def _says_time(row: Row, reader: Gathered) -> bool:
    """Do the cells after the label say periods or units, so that a second head begins inside a table?"""
    return any(reader.periods(cell.text) or unit_note(cell.text) for cell in row.cells[1:])


def _is_subtitle(row: Row, reader: Gathered, *, is_inside: bool) -> bool:
    """Is a row's one cell, wherever it stands, a heading inside a table rather than a second head?"""
    return is_inside and not reader.periods(row.cells[0].text)


def _is_unit_line(text: str) -> bool:
    return bool(unit_note(text)) and len(text) < 60


def _share_power(text: str) -> int:
    found = re.search(r"\bshares?\b(?:\s+data)?[^()\n]{0,40}\bin\s+(thousands|millions)", text, re.IGNORECASE)
    return {"thousands": 3, "millions": 6}[found[1].lower()] if found else 0


def _last_lines(text: str, count: int = 6) -> str:
    return "\n".join(text.split("\n")[-count:])


def _sign_in(body: str) -> str:
    for sign, code in (("$", "USD"), ("€", "EUR"), ("£", "GBP"), ("元", "CNY"), ("¥", "CNY")):
        if sign in body:
            return code
    return ""
