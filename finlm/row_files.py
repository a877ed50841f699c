"""Rows of a file, whatever holds them, each with its place; what cannot be read is a Removal, never dropped in silence.

    .jsonl      one JSON object a line         also .jsonl.xz, .jsonl.gz
    .json       one array of objects           also .json.xz, .json.gz; one that does not begin with [ is read as lines
    .parquet    one object a row               read in batches of a row group

A place is `file.jsonl:17` (line 17) or `file.parquet:row 17`; both count from 1.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from finlm import jsonl
from finlm.errors import MissingInput, UserError
from finlm.records import Removal

R = TypeVar("R")
Row = dict[str, Any]

CONTAINERS = ".jsonl and .json (each also .xz or .gz) and .parquet"
_SHOWN = 2000
"""Characters of a row that its Removal shows."""
_BATCH = 1024
"""Rows of a parquet file that are in memory at a time."""


@dataclass(frozen=True, slots=True)
class Found(Generic[R]):
    """A record and where it was read.

    Example:
        Found(record=Conversation(…), place="alpaca_zh.jsonl.xz:17")
    """

    record: R
    place: str
    """File's name and line (or row), from 1. Two records of one row share it."""


class Fault(NamedTuple):
    """Why a row, or a part of it, gives no record."""

    rule: str
    reason: str


class _Content(NamedTuple):
    where: str
    """`17` for a line, `row 17` where a file has no lines."""
    row: Row | Fault
    source: bytes | Row
    """What stands there, for the Removal to show."""


def suffix_of(path: Path) -> str:
    """Return the file's suffix without that of a compression: `.jsonl` of `a.jsonl.xz`."""
    return (path.with_suffix("") if path.suffix in (".xz", ".gz") else path).suffix.lower()


def read(
    path: str | Path, parse: Callable[[Row], Iterable[R | Fault]], *, formats: str
) -> Iterator[Found[R] | Removal]:
    """Yield what `parse` makes of each row, in order: each record with its place, each fault as a Removal.

    Args:
        path: The file; its suffix says what holds the rows.
        parse: Gives one or more records or faults for a row.
        formats: What rows `parse` knows, for the error's sentence.

    Raises:
        MissingInput: There is no such file.
        UserError: The whole file cannot be used: an unknown suffix, damaged, in another encoding, or no row gave a
            record; in the last case all removals were yielded before.
    """
    path = Path(path)
    first: Removal | None = None
    is_any_used, is_any_decoded = False, False
    for where, row, source in _contents(path, formats):
        for made in (row,) if isinstance(row, Fault) else parse(row):
            if not isinstance(made, Fault):
                is_any_used = True
                yield Found(made, f"{path.name}:{where}")
                continue
            removal = set_aside(f"{path.name}:{where}", made.rule, f"{path}:{where}: {made.reason}", source)
            first = first or removal
            is_any_decoded = is_any_decoded or made.rule != "not-utf8"
            yield removal
    if is_any_used:
        return
    if first is None:
        raise UserError(f"{path} has no rows; give a file with {formats}.")
    if not is_any_decoded:
        raise UserError(
            f"{first.reason}, and no other row is UTF-8; convert the file, for example with iconv -f GB18030 -t UTF-8."
        )
    raise UserError(f"{path}: no row can be used, the first because of this: {first.reason}; known are {formats}.")


def set_aside(place: str, rule: str, reason: str, source: bytes | Row) -> Removal:
    """Return the Removal of a row that stands at `place`, with the beginning of its content."""
    return Removal(record_id=place, rule=rule, reason=reason, text=_shown(source))


def _shown(source: bytes | Row) -> str:
    if isinstance(source, bytes):
        text = source[: 4 * _SHOWN].decode("utf-8", errors="replace").strip()
    else:
        text = json.dumps(source, ensure_ascii=False, default=str)
    return text[:_SHOWN]


def _contents(path: Path, formats: str) -> Iterator[_Content]:
    suffix = suffix_of(path)
    if suffix == ".parquet" == path.suffix.lower():
        yield from _of_parquet(path)
    elif suffix in (".jsonl", ".json"):
        with jsonl.opened(path) as content:
            head = content.peek(4)
            if head.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in head[:4]:
                raise UserError(
                    f"{path} is UTF-16 or UTF-32, as its first bytes say ({head[:4].hex(' ')} at byte 0); "
                    "convert it, for example with iconv -f UTF-16 -t UTF-8."
                )
            is_array = suffix == ".json" and _unmarked(head).lstrip().startswith(b"[")
            yield from _of_array(path, content.read()) if is_array else _of_lines(content)
    else:
        raise UserError(f"{path}: the suffix {path.suffix!r} is none of {CONTAINERS}; give {formats}.")


def _unmarked(data: bytes) -> bytes:
    """Without the byte order mark that some programs put before UTF-8."""
    return data.removeprefix(b"\xef\xbb\xbf")


def _of_lines(lines: Iterable[bytes]) -> Iterator[_Content]:
    decode = msgspec.json.Decoder().decode
    passed = 0
    for number, line in enumerate(lines, 1):
        bare = _unmarked(line) if number == 1 else line
        if not bare.isspace() and bare:
            yield _Content(str(number), _decoded(bare, decode, passed + len(line) - len(bare), "the file"), line)
        passed += len(line)


def _of_array(path: Path, data: bytes) -> Iterator[_Content]:
    try:
        # each row by itself, so that one bad row is one removal
        rows = msgspec.json.decode(_unmarked(data), type=list[msgspec.Raw])
    except (msgspec.DecodeError, RecursionError) as error:
        try:
            data.decode("utf-8")
        except UnicodeDecodeError as wrong:
            raise UserError(f"{path}: not UTF-8 at byte {wrong.start} ({wrong.reason}); convert the file.") from wrong
        raise UserError(f"{path}: not one array of JSON objects ({error}); mend the file.") from error
    decode = msgspec.json.Decoder().decode
    for number, row in enumerate(map(bytes, rows), 1):
        yield _Content(f"row {number}", _decoded(row, decode, 0, "the row"), row)


def _decoded(data: bytes, decode: Callable[[str], Any], start: int, of: str) -> Row | Fault:
    """Decode one object, which stands `start` bytes behind the beginning of `of`."""
    try:
        # as text first, so that a byte that is not UTF-8 is found where it stands
        row = decode(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        return Fault("not-utf8", f"not UTF-8 at byte {start + error.start} of {of} ({error.reason})")
    except (msgspec.DecodeError, RecursionError) as error:
        return Fault("not-json", f"not JSON: {error}")
    return row if isinstance(row, dict) else Fault("unknown-format", f"{type(row).__name__} instead of an object")


def _of_parquet(path: Path) -> Iterator[_Content]:
    # only who reads parquet waits for it
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise MissingInput(f"{path}: no such file.")
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_BATCH):
                for row in _of_batch(batch):
                    number += 1
                    yield _Content(f"row {number}", row, {} if isinstance(row, Fault) else row)
    except (pa.ArrowException, OSError) as error:
        said = str(error).strip().rstrip(".")
        raise UserError(f"{path}: damaged behind row {number}, or no parquet file ({said}); fetch it again.") from error


def _of_batch(batch: Any) -> Iterator[Row | Fault]:
    try:
        rows = batch.to_pylist()
    except UnicodeDecodeError as error:
        if batch.num_rows == 1:
            yield Fault("not-utf8", f"not UTF-8 at byte {error.start} of a text ({error.reason})")
        else:
            for at in range(batch.num_rows):
                yield from _of_batch(batch.slice(at, 1))
        return
    for row in rows:
        # a column is in every row of the file, used or not
        yield {key: value for key, value in row.items() if value is not None}
