"""Spreadsheets (.xlsx) and .csv: each sheet is a heading and its tables, cells as a reader of the sheet sees them."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence

import openpyxl
from openpyxl.worksheet.worksheet import Worksheet

from selfqa.blocks import Source
from selfqa.formats.builder import Builder, Placed
from selfqa.formats.number_formats import shown
from selfqa.formats.triples import Triple, read_triples, triple_columns
from selfqa.unread import Unreadable

DELIMITERS = ",;\t|"


def read_xlsx(raw: bytes) -> Source:
    """Read a workbook's visible sheets; a formula counts as the value that was last computed.

    Raises:
        Unreadable: It is no workbook, or a damaged one.
    """
    try:
        book = openpyxl.load_workbook(io.BytesIO(raw), data_only=True)
    except Exception as error:  # zipfile, lxml and openpyxl raise each their own for a damaged package
        reason = f"cannot be read as a workbook ({type(error).__name__}: {error})"
        raise Unreadable("file-damaged", reason) from error
    builder = Builder()
    for sheet in book.worksheets:
        if sheet.sheet_state != "visible":
            continue
        tables = list(_tables(_rows(sheet)))
        if tables:
            builder.heading(sheet.title)
        for table in tables:
            builder.table(table)
    return builder.source(book.properties.title or "")


def _rows(sheet: Worksheet) -> Iterator[list[Placed]]:
    """Yield each row's cells; a merged one spans its columns."""
    widths = {(merged.min_row, merged.min_col): merged.max_col for merged in sheet.merged_cells.ranges}
    for row in sheet.iter_rows():
        yield [
            Placed(
                cell.column - 1, widths.get((cell.row, cell.column), cell.column), shown(cell.value, cell.number_format)
            )
            for cell in row
            if cell.value is not None
        ]


def _tables(rows: Iterable[list[Placed]]) -> Iterator[list[list[Placed]]]:
    """Cut a sheet at its empty rows."""
    table: list[list[Placed]] = []
    for row in rows:
        if any(cell.text.strip() for cell in row):
            table.append(row)
        elif table:
            yield table
            table = []
    if table:
        yield table


def read_csv(text: str) -> Source:
    """Read separated values; columns named head, relation and tail make them a knowledge graph."""
    rows = csv_rows(text)
    columns = triple_columns(rows[0]) if rows else None
    if columns is not None:
        told = ([row[column].strip() for column in columns] for row in rows[1:] if len(row) > max(columns))
        return read_triples(Triple(*parts) for parts in told if all(parts))
    builder = Builder()
    for table in _tables([_placed(row) for row in rows]):
        builder.table(table)
    return builder.source()


def csv_rows(text: str) -> list[list[str]]:
    """Return the rows of separated values.

    Raises:
        Unreadable: A cell is longer than any real one: a quotation mark is never closed.
    """
    try:
        return list(csv.reader(io.StringIO(text, newline=""), _dialect(text)))
    except csv.Error as error:
        raise Unreadable("file-damaged", f"cannot be read as separated values ({error})") from error


def _dialect(text: str) -> type[csv.Dialect]:
    beginning = "\n".join(text.split("\n", 40)[:40])
    try:
        return csv.Sniffer().sniff(beginning, DELIMITERS)
    except csv.Error:  # one column, or too regular a table to tell quotes from
        best = max(DELIMITERS, key=beginning.count)
        return type("Guessed", (csv.excel,), {"delimiter": best})


def _placed(row: Sequence[str]) -> list[Placed]:
    return [Placed(column, column + 1, text) for column, text in enumerate(row)]
