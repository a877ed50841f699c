"""A folder of filings, any depth: which files are read, how, and what is said about those that cannot be.

HTML and inline XBRL, PDF, Word, spreadsheets, plain text, Markdown, rows of texts, knowledge graphs. One bad file is
reported and the rest goes on.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from finlm.errors import MissingInput, UserError
from selfqa.blocks import Source
from selfqa.formats.encodings import decode
from selfqa.markup import read_html
from selfqa.plain import read_markdown, read_text
from selfqa.unread import Unread, Unreadable

READERS = {
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".txt": "text",
    ".text": "text",
    ".md": "markdown",
    ".markdown": "markdown",
    ".pdf": "pdf",
    ".docx": "docx",
    ".xlsx": "xlsx",
    ".xlsm": "xlsx",
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "rows",
    ".json": "rows",
    ".parquet": "rows",
}
"""Suffix -> kind."""
MIN_CHARACTERS = 40
"""A file with less text than this is empty for our purpose."""


def corpus_files(corpus: Path) -> tuple[list[Path], list[Unread]]:
    """Return the files below `corpus` that can be read, sorted by path, and those of an unknown kind.

    Files and folders whose name begins with a dot are passed over, and what Office locks a file with (`~$`).

    Raises:
        MissingInput: There is no such folder.
        UserError: It holds no file of a known kind.
    """
    if not corpus.exists():
        raise MissingInput(f"--corpus {corpus}: no such folder; name the folder that your filings lie in.")
    if corpus.is_file():
        raise UserError(f"--corpus {corpus} is a file; name the folder that it lies in.")
    known: list[Path] = []
    unread: list[Unread] = []
    for path in sorted(corpus.rglob("*")):
        name = path.relative_to(corpus).as_posix()
        if not path.is_file() or any(part.startswith((".", "~$")) for part in path.relative_to(corpus).parts):
            continue
        if path.suffix.lower() in READERS:
            known.append(path)
        else:
            unread.append(Unread(name, "unknown-kind", f"{name} is of no known kind; known are {', '.join(READERS)}"))
    if not known:
        raise UserError(f"--corpus {corpus} holds no filing: none of its files ends in {', '.join(READERS)}.")
    return known, unread


def read_file(path: Path, corpus: Path) -> Iterator[Source | Unread]:
    """Yield the document of a file, each row's document of a file of rows, or why there is none."""
    name = path.relative_to(corpus).as_posix()
    raw = path.read_bytes()
    digest = hashlib.sha256(raw).hexdigest()
    try:
        for position, found in enumerate(_read(path, raw), start=1):
            label = f"{name}#{position}" if READERS[path.suffix.lower()] == "rows" else name
            if isinstance(found, Unreadable):
                yield Unread(name, found.rule, f"{name} {found.reason}")
            elif len(found.text.strip()) < MIN_CHARACTERS:
                length = len(found.text.strip())
                yield Unread(name, "no-text", f"{name} holds {length} characters of text; a scan needs OCR")
            else:
                yield replace(found, path=label, sha256=digest)
    except Unreadable as fault:
        yield Unread(name, fault.rule, f"{name} {fault.reason}")


def _read(path: Path, raw: bytes) -> Iterator[Source | Unreadable]:
    """Yield what the reader of the file's kind makes of it."""
    if not raw.strip():
        raise Unreadable("empty-file", f"is empty ({len(raw)} bytes)")
    kind = READERS[path.suffix.lower()]
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
        yield _read_encoded(raw, kind)


def _read_encoded(raw: bytes, kind: str) -> Source:
    text = decode(raw)
    if text is None:
        raise Unreadable("not-text", "is neither UTF-8 nor GB18030; convert it to UTF-8")
    if kind == "html":
        return read_html(text)
    if kind == "csv":
        from selfqa.formats.sheets import read_csv

        return read_csv(text)
    return read_markdown(text) if kind == "markdown" else read_text(text)
