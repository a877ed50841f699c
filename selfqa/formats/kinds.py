"""What a file is: by its first bytes where they say so, else by its name.

People name a scan `.html` and a PDF `.txt`, and EDGAR itself names HTML `.txt`.
"""

import io
import re
import zipfile
from pathlib import Path
from typing import Literal

from selfqa.unread import Unreadable

Kind = Literal["html", "text", "markdown", "pdf", "docx", "xlsx", "csv", "rows"]
KINDS: dict[str, Kind] = {
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".txt": "text",
    ".text": "text",
    ".md": "markdown",
    ".markdown": "markdown",
    ".pdf": "pdf",
    ".docx": "docx",
    ".docm": "docx",
    ".xlsx": "xlsx",
    ".xlsm": "xlsx",
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "rows",
    ".json": "rows",
    ".parquet": "rows",
}
"""Suffix -> kind."""
_PACKED = b"PK\x03\x04"
_FOREIGN = (
    (b"\x89PNG\r\n", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"II*\0", "a TIFF image"),
    (b"MM\0*", "a TIFF image"),
    (b"BM", "a BMP image"),
    (b"\x1f\x8b", "compressed (gzip)"),
    (b"\xfd7zXZ", "compressed (xz)"),
    (b"7z\xbc\xaf", "compressed (7z)"),
    (b"Rar!", "compressed (RAR)"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
)
_HTML = re.compile(rb"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html)\b", re.IGNORECASE | re.DOTALL)


def kind_of(path: Path, raw: bytes) -> Kind:
    """Return what the file is.

    Raises:
        Unreadable: It is an image, an archive, a program, or an Office file that is old or locked, whatever its name.
    """
    named = KINDS[path.suffix.lower()]
    head = raw[:1024]
    if b"%PDF-" in head:
        return "pdf"
    if head.startswith(b"PAR1"):
        return "rows"
    if head.startswith(_PACKED):
        return _packed(raw)
    if head.startswith(
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
    ):  # where Office keeps old files, and new ones under a password
        if "EncryptedPackage".encode("utf-16-le") in raw:
            raise Unreadable("file-locked", "is protected by a password; save a copy without it")
        raise Unreadable("wrong-kind", "is of the Office before 2007; save it as .docx or .xlsx")
    for magic, words in _FOREIGN:
        if head.startswith(magic) and not (len(magic) == 2 and b"\0" not in head):
            raise Unreadable("wrong-kind", f"is {words} by its first bytes, not what {path.suffix} says")
    return "html" if named == "text" and is_html(head) else named


def is_html(head: bytes) -> bool:
    """Do the first bytes say that it is a page?"""
    return bool(_HTML.match(head))


def _packed(raw: bytes) -> Kind:
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as pack:
            names = set(pack.namelist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise Unreadable("file-damaged", f"cannot be unpacked ({error})") from error
    if "xl/workbook.xml" in names:
        return "xlsx"
    if "word/document.xml" in names:
        return "docx"
    raise Unreadable("wrong-kind", "is a packed file, but neither a Word document nor a workbook; unpack it")


def unpacked_bytes(raw: bytes) -> int:
    """Return what a packed file says that it unpacks to (zipfile unpacks no more than that), 0 for any other file."""
    if not raw.startswith(_PACKED):
        return 0
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as pack:
            return sum(entry.file_size for entry in pack.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return 0
