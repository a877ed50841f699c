"""The same answer with another look: changes of formatting that leave every letter and digit where it was.

Each change takes a text and its language and returns the text changed, or the same text where it has nothing to change.
Code keeps its look, since there it is content.
"""

import re
from collections.abc import Callable

Change = Callable[[str, str], str]

_CODE = re.compile(r"```|^(?: {4}|\t)\S", re.MULTILINE)
_BULLET = re.compile(r"^([ \t]*)([-*•])(?=[ \t]+\S)", re.MULTILINE)
_SENTENCE = re.compile(r"(?<=[.!?])[ \t]+(?=[A-Z\"“(])|(?<=[。！？])[ \t]*(?=[^\s。！？”’」』）)])")
_NUMBER = re.compile(r"(?<!\d)\d{1,3}\.\n")
_FULL_TO_HALF = str.maketrans("，。！？：；（）", ",.!?:;()")
_HALF_TO_FULL = str.maketrans(",!?:;()", "，！？：；（）")
_HAN = r"[㐀-鿿]"
_AFTER_HAN = re.compile(rf"(?<={_HAN})[,!?:;]|(?<={_HAN})\.(?=\s|$|{_HAN})|\((?={_HAN})|(?<={_HAN})\)")


def line_breaks(text: str, language: str) -> str:
    """Close up paragraphs (a blank line becomes a line's end), or where there are none, open them.

    A text of one line gets each of its sentences on a line of its own.
    """
    if _CODE.search(text):
        return text
    if re.search(r"\n\s*\n", text):
        return re.sub(r"\n\s*\n", "\n", text)
    if "\n" in text:
        return text.replace("\n", "\n\n")
    broken = _SENTENCE.sub("\n", text)
    return text if _NUMBER.search(broken) else broken  # "1. First" is no sentence and one more


def bullets(text: str, language: str) -> str:
    """Change the sign of list items: `*` and `•` become `-`, and `-` becomes `*`."""
    if _CODE.search(text):
        return text
    return _BULLET.sub(lambda found: found[1] + ("*" if found[2] == "-" else "-"), text)


def full_stop(text: str, language: str) -> str:
    """Take the final full stop away, or where the text ends with a letter or digit, add one."""
    body = text.rstrip()
    if _CODE.search(text) or not body:
        return text
    if body.endswith(("...", "。。")):
        return text
    if body[-1] in ".。":
        return body[:-1] + text[len(body) :]
    if body[-1].isalnum():
        return body + ("。" if re.match(_HAN, body[-1]) else ".") + text[len(body) :]
    return text


def trailing_spaces(text: str, language: str) -> str:
    """Put two spaces behind every line."""
    return "\n".join(f"{line}  " for line in text.split("\n"))


def punctuation(text: str, language: str) -> str:
    """Chinese: change full-width punctuation to half-width, or where there is none, half-width behind Chinese to full.

    Other languages have one width.
    """
    if language != "zh" or _CODE.search(text):
        return text
    half = text.translate(_FULL_TO_HALF)
    if half != text:
        return half
    return _AFTER_HAN.sub(lambda found: "。" if found[0] == "." else found[0].translate(_HALF_TO_FULL), text)


CHANGES: dict[str, Change] = {
    "line breaks": line_breaks,
    "bullets": bullets,
    "full stop": full_stop,
    "trailing spaces": trailing_spaces,
    "punctuation width": punctuation,
}


def content(text: str) -> str:
    """Return the letters and digits of a text in their order: what no change of formatting may touch."""
    return "".join(char for char in text if char.isalnum())
