"""Files of records: one JSON object a line, UTF-8, optionally compressed (.xz, .gz).

Written aside and renamed, so a file is whole or not there.
"""

import gzip
import lzma
import os
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from finlm.errors import MissingInput, UserError

T = TypeVar("T")


def _open(path: Path) -> BufferedReader | lzma.LZMAFile | gzip.GzipFile:
    if path.suffix == ".xz":
        return lzma.open(path, "rb")
    if path.suffix == ".gz":
        return gzip.open(path, "rb")
    return path.open("rb")


@contextmanager
def opened(path: Path) -> Iterator[BufferedReader | lzma.LZMAFile | gzip.GzipFile]:
    """Open a file for reading, decompressing by its suffix.

    Raises:
        MissingInput: There is no such file.
        UserError: What is read within the context turns out to be damaged.
    """
    if not path.is_file():
        raise MissingInput(f"{path}: no such file.")
    try:
        with _open(path) as content:
            yield content
    except (lzma.LZMAError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path}: the compressed file is damaged ({error}); fetch it again.") from error


def read(path: str | os.PathLike[str], record: type[T]) -> Iterator[T]:
    """Yield one `record` a line.

    Raises:
        MissingInput: There is no such file.
        UserError: A line is not a valid record; the message has the file, the line and the field.
    """
    path = Path(path)
    decoder = msgspec.json.Decoder(record)
    number = 0
    try:
        with opened(path) as lines:
            for line in lines:
                number += 1
                if line.strip():
                    # as text first, line by line, so that a byte that is not UTF-8 is found where it stands
                    yield decoder.decode(line.decode("utf-8"))
    except (msgspec.DecodeError, msgspec.ValidationError, ValueError) as error:
        if isinstance(error, UnicodeDecodeError):
            raise UserError(f"{path}: line {number} is not UTF-8 ({error.reason}); convert the file.") from error
        raise UserError(f"{path}:{number}: not a valid {record.__name__}: {error}.") from error


def encode(record: Any) -> bytes:
    """One line of JSON, without the newline; fields at their defaults are kept, so files explain themselves."""
    return msgspec.json.encode(record)


def write(path: str | os.PathLike[str], records: Iterable[Any]) -> int:
    """Write all records to `path` and return their number. The file appears only when it is whole."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    count = 0
    try:
        with aside.open("wb") as out:
            for record in records:
                out.write(encode(record) + b"\n")
                count += 1
            out.flush()
            os.fsync(out.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    return count


def read_whole(path: Path, kind: type[T]) -> T | None:
    """Return the one record that a JSON file is; None where there is no such file.

    Raises:
        UserError: The file is damaged.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind) if path.is_file() else None
    except (msgspec.DecodeError, ValueError) as error:
        raise UserError(f"{path}: not a valid {kind.__name__}: {error}.") from error
