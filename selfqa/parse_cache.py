"""What was read from a file, kept by the hash of its content, so that it is parsed once.

An entry is one file: a line for each document (what it is, length, SHA-256), then the documents, packed. It is whole or
not there; a damaged one counts as none. The reader's version is part of its place: it changes with the code that parses
and with the libraries below it, so no old entry is ever taken for a new one. The folder may be deleted at any time.
"""

import hashlib
import os
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import BinaryIO

import msgspec

from selfqa.blocks import Source
from selfqa.unread import Unreadable, UnreadRule

_READERS = (
    "blocks.py",
    "markup.py",
    "periods.py",
    "plain.py",
    "reading.py",
    "flow.py",
    "ixbrl.py",
    "sections.py",
    "formats/*.py",
)
"""Code that what is read depends on."""
_LIBRARIES = ("lxml", "pdfplumber", "pdfminer.six", "python-docx", "openpyxl", "pyarrow", "charset-normalizer")
_HEAD = struct.Struct(">4sI")
_LINE = struct.Struct(">?Q32s")
_MAGIC = b"SQA1"


@dataclass(frozen=True, slots=True)
class _Stored:
    """Either a document or why there is none."""

    source: Source | None = None
    rule: UnreadRule = "no-text"
    reason: str = ""


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(_Stored)


@cache
def reader_version() -> str:
    """Twelve hex digits that change with the code that parses and the versions of what it stands on."""
    digest = hashlib.sha256()
    here = Path(__file__).parent
    for pattern in _READERS:
        for file in sorted(here.glob(pattern)):
            digest.update(f"{file.name}\0".encode() + file.read_bytes())
    for library in _LIBRARIES:
        digest.update(f"{library} {metadata.version(library)}\n".encode())
    return digest.hexdigest()[:12]


class ParseCache:
    """A folder of parsed files, shared by runs and processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / reader_version()

    def contents(self, key: str) -> list[bool] | None:
        """Return of each thing that is kept under `key` if it is a fault; None if nothing is kept or not whole."""
        try:
            with self._path(key).open("rb") as file:
                lines = _lines(file)
                is_whole = all(hashlib.sha256(file.read(length)).digest() == digest for _, length, digest in lines)
        except (OSError, ValueError):
            return None
        return [is_fault for is_fault, _, _ in lines] if is_whole else None

    def load(self, key: str, position: int) -> Source | Unreadable | None:
        """Return what is kept at `position` under `key`, None where that is missing or damaged."""
        try:
            with self._path(key).open("rb") as file:
                lines = _lines(file)
                file.seek(sum(length for _, length, _ in lines[:position]), os.SEEK_CUR)
                _, length, digest = lines[position]
                packed = file.read(length)
            if hashlib.sha256(packed).digest() != digest:
                return None
            stored = _DECODER.decode(zlib.decompress(packed))
        except (OSError, ValueError, IndexError, zlib.error, msgspec.DecodeError):
            return None
        return stored.source if stored.source is not None else Unreadable(stored.rule, stored.reason)

    def keep(self, key: str, found: Iterable[Source | Unreadable]) -> None:
        """Keep what was read, whole or not at all.

        Raises:
            OSError: There is no room; nothing is left behind.
        """
        lines, packed = [], []
        for item in found:
            body = zlib.compress(_ENCODER.encode(_stored(item)), level=1)
            lines.append(_LINE.pack(isinstance(item, Unreadable), len(body), hashlib.sha256(body).digest()))
            packed.append(body)
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with aside.open("wb") as out:
                out.write(_HEAD.pack(_MAGIC, len(lines)))
                out.writelines(lines)
                out.writelines(packed)
            os.replace(aside, path)  # not synced: a power cut costs one more reading
        finally:
            aside.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / key


def _lines(file: BinaryIO) -> list[tuple[bool, int, bytes]]:
    """Read an entry's index.

    Raises:
        ValueError: It is damaged.
    """
    try:
        magic, count = _HEAD.unpack(file.read(_HEAD.size))
        if magic != _MAGIC:
            raise ValueError("no entry")
        read = [_LINE.unpack(file.read(_LINE.size)) for _ in range(count)]
    except struct.error as error:
        raise ValueError("the index is cut off") from error
    return read


def _stored(found: Source | Unreadable) -> _Stored:
    return _Stored(found) if isinstance(found, Source) else _Stored(None, found.rule, found.reason)
