"""Bytes to text, whatever a label says: UTF-8, UTF-16 by its mark, GB18030 where it reads as Chinese."""


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
