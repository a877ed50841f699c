"""Bytes to text, by what stands in them: a label inside a page is as often wrong as right, so none is believed.

UTF-8 first (a few broken bytes in a long text are marked, not the end of it), then GB18030 where it reads as Chinese,
then what charset-normalizer finds least odd among the encodings of filings.
"""

import codecs

from charset_normalizer import from_bytes

ENCODINGS = ["cp1252", "big5hkscs", "cp932", "euc_jp", "cp949", "cp1250", "cp1251", "cp1253", "cp1254"]
"""What filings are in besides UTF-8 and GB18030: West, Hong Kong and Taiwan, Japan, Korea, Middle and East Europe."""
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_BROKEN_SHARE = 0.001
"""A text is UTF-8 still if this share of its characters is broken."""


def decode(raw: bytes) -> str | None:
    """Return the text that bytes are, without a byte-order mark; None where they are no text.

    Broken bytes of a text that is UTF-8 otherwise become U+FFFD.
    """
    for mark, encoding in _MARKS:
        if raw.startswith(mark):
            return raw.decode(encoding, errors="replace").removeprefix("\ufeff")
    if b"\0" in raw:
        return _wide(raw)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        pass
    text = raw.decode("utf-8", errors="replace")
    broken = text.count("\ufffd")
    if broken <= _BROKEN_SHARE * len(text) and 10 * broken < sum(not char.isascii() for char in text):
        return text
    return _chinese(raw) or _least_odd(raw)


def _wide(raw: bytes) -> str | None:
    """UTF-16 that has lost its mark: every other byte of its Latin letters and spaces is zero."""
    for encoding, zeros in (("utf-16-le", raw[1::2]), ("utf-16-be", raw[::2])):
        if len(raw) % 2 == 0 and zeros.count(0) > 0.2 * len(zeros) and raw.count(0) < 1.1 * zeros.count(0):
            text = raw.decode(encoding, errors="replace")
            return text if "\ufffd" not in text else None
    return None


def _least_odd(raw: bytes) -> str | None:
    """What charset-normalizer thinks; most of the West's text is alike in all its encodings, so its own comes first."""
    found = from_bytes(raw, cp_isolation=ENCODINGS, preemptive_behaviour=False)
    best = found.best()
    if best is None:
        return None
    western = next((match for match in found if match.encoding == "cp1252"), best)
    return str(western if western.chaos <= best.chaos + 0.01 else best)


def _chinese(raw: bytes) -> str | None:
    """GB18030 accepts nearly any bytes, so what it gives must look like text.

    No private-use or control characters, mostly Chinese or ASCII, and nearly all of its characters usual ones.
    """
    text = raw.decode("gb18030", errors="replace")
    if text.count("\ufffd") > _BROKEN_SHARE * len(text):
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
