"""Text to train on, as people publish it, to Documents.

    .jsonl, .json, .parquet     rows with a text under `text` or `content`, or our own Document records
    .txt, .md                   the whole file is one document; also .xz or .gz

What gives no document is a Removal whose rule is `empty` (a blank text), `no-text` (no text at all, or no text by its
type), `not-json`, `unknown-format` (no object) or `not-utf8`.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from finlm import jsonl, row_files
from finlm.errors import UserError
from finlm.language import language_of
from finlm.records import Document, Removal
from finlm.row_files import Fault, Found, Row

FORMATS = "rows with 'text' or 'content', our own Document records, or plain text as .txt or .md"
_PLAIN = (".txt", ".md")


def documents(path: str | Path) -> Iterator[Found[Document] | Removal]:
    """Yield every document of a file with its place, and a Removal for each row that gives none.

    Our own records keep their fields. Others get `file#id` as source (the file alone where the row has no id), their
    text's hash, and the language that the row names under `lang` or `language`, else that of their letters.

    Raises:
        MissingInput: There is no such file.
        UserError: The whole file cannot be used (`finlm.row_files.read`).
    """
    path = Path(path)
    if is_one_document(path):
        yield Found(_plain(path), f"{path.name}:1")
    else:
        yield from row_files.read(path, lambda row: (_parsed(row, path.name),), formats=FORMATS)


def is_one_document(path: str | Path) -> bool:
    """True of plain text, by its name."""
    return row_files.suffix_of(Path(path)) in _PLAIN


def _plain(path: Path) -> Document:
    with jsonl.opened(path) as content:
        data = content.read()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: not UTF-8 at byte {error.start} ({error.reason}); convert the file, "
            "for example with iconv -f GB18030 -t UTF-8."
        ) from error
    if "\0" in text:
        raise UserError(f"{path}: character {text.index(chr(0))} is NUL, as in UTF-16 or a binary file; convert it.")
    if not text.strip():
        raise UserError(f"{path} has no text.")
    return _made(text, path.name, language_of(text))


def _parsed(row: Row, name: str) -> Document | Fault:
    key = "content" if row.get("text") is None else "text"
    text = row.get(key)
    if text is None:
        return Fault("no-text", f"neither 'text' nor 'content' among the keys {', '.join(map(str, row)) or 'none'}")
    if not isinstance(text, str):
        return Fault("no-text", f"{key!r} is no text but {type(text).__name__}")
    if not text or text.isspace():
        return Fault("empty", f"{key!r} is blank")
    language = _named_language(row) or language_of(text)
    if isinstance(row.get("source"), str) and isinstance(row.get("sha256"), str):
        try:
            return msgspec.convert(row | {"text": text, "language": row.get("language") or language}, Document)
        except msgspec.ValidationError as error:
            return Fault("no-text", f"not a valid Document: {error}")
    own = row.get("id")
    return _made(text, name if own in (None, "") else f"{name}#{own}", language)


def _named_language(row: Row) -> str:
    """`en` or `zh` if the row names one of them (`zh-CN` is `zh`), else nothing."""
    named = str(row.get("lang") or row.get("language") or "").lower().replace("_", "-").partition("-")[0]
    return named if named in ("en", "zh") else ""


def _made(text: str, source: str, language: str) -> Document:
    return Document(
        text=text, source=source, sha256=hashlib.sha256(text.encode("utf-8")).hexdigest(), language=language
    )
