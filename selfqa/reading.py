"""One file to its documents, or to why there are none: no fault of a file ends the run."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from selfqa.blocks import Source
from selfqa.formats.encodings import decode
from selfqa.formats.kinds import Kind, kind_of, unpacked_bytes
from selfqa.formats.submission import is_submission, read_submission
from selfqa.markup import read_html
from selfqa.plain import read_markdown, read_text
from selfqa.unread import Unread, Unreadable

MIN_CHARACTERS = 40
"""A file with less text than this is empty for our purpose."""
MAX_MEGABYTES = 100.0
"""A file larger than this, as it lies or unpacked, is left out."""


def read_file(path: Path, corpus: Path, max_megabytes: float = MAX_MEGABYTES) -> Iterator[Source | Unread]:
    """Yield the document of a file, each row's document of a file of rows, or why there is none.

    Args:
        path: A file of a known kind (`selfqa.corpus`).
        corpus: The folder that its name is told from.
        max_megabytes: Largest file, as it lies or unpacked.
    """
    name = path.relative_to(corpus).as_posix()
    try:
        raw = bytes_of(path, max_megabytes)
    except Unreadable as fault:
        yield unread(fault, name)
        return
    digest = hashlib.sha256(raw).hexdigest()
    for position, found in enumerate(parse(path, raw)):
        yield named(found, name, position, digest) if isinstance(found, Source) else unread(found, name)


def unread(fault: Unreadable, name: str) -> Unread:
    """Say which file it is that cannot be read."""
    return Unread(name, fault.rule, f"{name} {fault.reason}")


def named(source: Source, name: str, position: int, digest: str) -> Source:
    """Put the file's name and hash to what was read from it; rows are told apart by their number."""
    return replace(source, path=f"{name}#{position + 1}" if source.is_row else name, sha256=digest)


def bytes_of(path: Path, max_megabytes: float) -> bytes:
    """Return a file's content.

    Raises:
        Unreadable: It cannot be opened, is empty or too large, as it lies or unpacked.
    """
    limit = f"the limit (max_file_megabytes) is {max_megabytes:g}"
    try:
        size = path.stat().st_size
        if size > max_megabytes * 1e6:
            raise Unreadable("too-large", f"has {size / 1e6:.0f} MB, {limit}")
        raw = path.read_bytes()
    except OSError as error:
        raise Unreadable("no-permission", f"cannot be opened ({error.strerror})") from error
    if not raw.strip():
        raise Unreadable("empty-file", f"is empty ({len(raw)} bytes)")
    unpacked = unpacked_bytes(raw)
    if unpacked > max_megabytes * 1e6:
        raise Unreadable("too-large", f"has {size / 1e6:.1f} MB and unpacks to {unpacked / 1e6:.0f} MB, {limit}")
    return raw


def parse(path: Path, raw: bytes) -> Iterator[Source | Unreadable]:
    """Yield what the reader of the file's kind makes of it; whatever a library trips over is a fault of the file."""
    try:
        for found in _read(path, raw, kind_of(path, raw)):
            if isinstance(found, Source) and len(found.text.strip()) < MIN_CHARACTERS:
                yield Unreadable("no-text", f"holds {len(found.text.strip())} characters of text; a scan needs OCR")
            else:
                yield found
    except Unreadable as fault:
        yield fault
    except Exception as error:  # a library trips over a damaged file in its own way
        yield Unreadable("file-damaged", f"cannot be read ({type(error).__name__}: {error})")


def _read(path: Path, raw: bytes, kind: Kind) -> Iterator[Source | Unreadable]:
    if kind == "pdf":
        from selfqa.formats.pdf import read_pdf  # each library takes a while to import, and few folders need all

        yield from read_pdf(raw)
    elif kind == "docx":
        from selfqa.formats.word import read_docx

        yield read_docx(raw)
    elif kind == "xlsx":
        from selfqa.formats.sheets import read_xlsx

        yield read_xlsx(raw)
    elif kind == "rows":
        from selfqa.formats.rows import read_rows

        yield from read_rows(path)
    else:
        yield from _read_encoded(raw, kind)


def _read_encoded(raw: bytes, kind: Kind) -> Iterator[Source | Unreadable]:
    text = decode(raw)
    if text is None:
        raise Unreadable("not-text", "is in no encoding that filings come in; convert it to UTF-8")
    if kind == "html":
        yield read_html(text)
    elif kind == "csv":
        from selfqa.formats.sheets import read_csv

        yield read_csv(text)
    elif is_submission(text):
        yield from read_submission(text)
    else:
        yield read_markdown(text) if kind == "markdown" else read_text(text)
