"""A folder of filings, any depth: which files are read, how, and what is said about those that cannot be.

HTML and inline XBRL, PDF, plain text, Markdown, JSON lines of `{"text": …}`. UTF-8 first, then GB18030 if the bytes
really are GB18030. One bad file is reported and the rest goes on.
"""

import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pdfplumber
from pdfplumber.utils.exceptions import PdfminerException

from finlm.errors import MissingInput, UserError
from selfqa.blocks import Source
from selfqa.markup import read_html
from selfqa.plain import read_markdown, read_text

READERS = {
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".txt": "text",
    ".text": "text",
    ".md": "markdown",
    ".markdown": "markdown",
    ".pdf": "pdf",
    ".jsonl": "jsonl",
}
MIN_CHARACTERS = 40
"""A file with less text than this is empty for our purpose."""


@dataclass(frozen=True, slots=True)
class Unread:
    """A file that gave no text, and why."""

    path: str
    rule: str
    """empty-file, not-text, pdf-locked, pdf-damaged, no-text, bad-json."""
    reason: str


def corpus_files(corpus: Path) -> list[Path]:
    """Return the files below `corpus` that can be read, sorted by path.

    Raises:
        MissingInput: There is no such folder.
        UserError: It holds no file of a known kind.
    """
    if not corpus.exists():
        raise MissingInput(f"--corpus {corpus}: no such folder; name the folder that your filings lie in.")
    if corpus.is_file():
        raise UserError(f"--corpus {corpus} is a file; name the folder that it lies in.")
    known = sorted(
        path
        for path in corpus.rglob("*")
        if path.is_file() and path.suffix.lower() in READERS and not path.name.startswith(".")
    )
    if not known:
        raise UserError(f"--corpus {corpus} holds no filing: none of its files ends in {', '.join(READERS)}.")
    return known


def read_file(path: Path, corpus: Path) -> Iterator[Source | Unread]:
    """Yield the document of a file, each line's document of a .jsonl file, or why there is none."""
    name = path.relative_to(corpus).as_posix()
    raw = path.read_bytes()
    digest = hashlib.sha256(raw).hexdigest()
    if not raw.strip():
        yield Unread(name, "empty-file", f"{name} is empty ({len(raw)} bytes)")
        return
    kind = READERS[path.suffix.lower()]
    found = _read_pdf(name, raw) if kind == "pdf" else _read_encoded(name, raw, kind)
    for position, source in enumerate(found):
        if isinstance(source, Unread):
            yield source
        elif len(source.text.strip()) < MIN_CHARACTERS:
            yield Unread(
                name, "no-text", f"{name} holds {len(source.text.strip())} characters of text; a scan needs OCR"
            )
        else:
            label = f"{name}#{position + 1}" if kind == "jsonl" else name
            yield replace(source, path=label, sha256=digest)


def _read_encoded(name: str, raw: bytes, kind: str) -> Iterator[Source | Unread]:
    text = decode(raw)
    if text is None:
        yield Unread(name, "not-text", f"{name} is neither UTF-8 nor GB18030; convert it to UTF-8")
    elif kind == "html":
        try:
            yield read_html(text)
        except ValueError as error:
            yield Unread(name, "no-text", f"{name}: {error}")
    elif kind == "jsonl":
        yield from _read_json_lines(name, text)
    else:
        yield read_markdown(text) if kind == "markdown" else read_text(text)


def _read_json_lines(name: str, text: str) -> Iterator[Source | Unread]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            body = json.loads(line)["text"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            yield Unread(name, "bad-json", f"{name}:{number} is no JSON object with a text ({error!r})")
            continue
        yield read_text(str(body))


def decode(raw: bytes) -> str | None:
    """Return the text of UTF-8 (a byte-order mark is dropped) or GB18030 bytes, None for anything else.

    GB18030 accepts nearly any bytes, so what it gives must look like text: no private-use or control characters and
    mostly Chinese or ASCII.
    """
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        try:
            return raw.decode("utf-16")
        except UnicodeDecodeError:
            return None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    try:
        text = raw.decode("gb18030")
    except UnicodeDecodeError:
        return None
    strange = sum(
        1
        for char in text
        if "\ue000" <= char <= "\uf8ff" or (char < " " and char not in "\t\n\r\f") or ord(char) > 0x2FFFF
    )
    common = sum(
        1
        for char in text
        if char < "\x7f" or "\u4e00" <= char <= "\u9fff" or "\u3000" <= char <= "\u303f" or "\uff00" <= char <= "\uffef"
    )
    usual = sum(1 for char in text if "\u4e00" <= char <= "\u9fff" and _is_usual(char))
    han = sum(1 for char in text if "\u4e00" <= char <= "\u9fff")
    is_text = strange == 0 and common >= 0.95 * len(text) and han > 0 and usual >= 0.9 * han
    return text if is_text else None


def _is_usual(char: str) -> bool:
    """Is the character in GB 2312, as nearly all of a Chinese filing is? Mis-read bytes rarely are."""
    try:
        char.encode("gb2312")
    except UnicodeEncodeError:
        return False
    return True


def _read_pdf(name: str, raw: bytes) -> Iterator[Source | Unread]:
    try:
        with pdfplumber.open(io.BytesIO(raw)) as pdf:
            pages = [page.extract_text() or "" for page in pdf.pages]
    except PdfminerException as error:
        inner = type(error.args[0]).__name__ if error.args else type(error).__name__
        if "Password" in inner or "Password" in repr(error):
            yield Unread(name, "pdf-locked", f"{name} is protected by a password; save a copy without it")
        else:
            yield Unread(name, "pdf-damaged", f"{name} cannot be read as PDF ({inner})")
        return
    except Exception as error:  # pdfminer raises whatever a damaged file makes it trip over
        yield Unread(name, "pdf-damaged", f"{name} cannot be read as PDF ({type(error).__name__}: {error})")
        return
    if not any(page.strip() for page in pages):
        yield Unread(name, "no-text", f"{name} has {len(pages)} pages without text; a scan needs OCR")
        return
    yield read_text("\n\n".join(pages))
