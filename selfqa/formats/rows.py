"""Rows of .jsonl, .json and .parquet: a text a row is a document a row; triples make one document of all of them."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from finlm import row_files
from finlm.errors import UserError
from finlm.records import Removal
from finlm.row_files import Fault, Row
from selfqa.blocks import Source
from selfqa.formats.triples import Triple, read_triples, triple_columns
from selfqa.plain import read_text
from selfqa.unread import Unreadable

FORMATS = "rows with 'text' or 'content', or with 'head', 'relation' and 'tail'"


def read_rows(path: Path) -> Iterator[Source | Unreadable]:
    """Yield each row's document, or why it has none.

    Raises:
        Unreadable: No row can be used.
    """
    triples: list[Triple] = []
    try:
        for found in row_files.read(path, _parsed, formats=FORMATS):
            if isinstance(found, Removal):
                reason = found.reason.removeprefix(f"{path}:")
                yield Unreadable("bad-row", f"row {reason}")
            elif isinstance(found.record, str):
                yield replace(read_text(found.record), is_row=True)
            else:
                assert isinstance(found.record, Triple)
                triples.append(found.record)
    except UserError as error:
        raise Unreadable("file-damaged", f"cannot be read: {error}".replace(f"{path}: ", "")) from error
    if triples:
        yield read_triples(triples)


def _parsed(row: Row) -> tuple[str | Triple | Fault]:
    text = row.get("text", row.get("content"))
    if isinstance(text, str) and text.strip():
        return (text,)
    columns = triple_columns(list(row))
    parts = [str(list(row.values())[column]).strip() for column in columns] if columns else []
    if len(parts) == 3 and all(parts):
        return (Triple(*parts),)
    return (Fault("no-text", f"has neither a text nor a triple among its keys {', '.join(map(str, row)) or 'none'}"),)
