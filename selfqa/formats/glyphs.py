"""Characters that a PDF's font hands out under another name: ⽣ for 生, ⻓ for 长, ﬁ for fi.

Fonts that draw a character and a radical with one glyph name it by the radical. The Kangxi radicals have their
character in Unicode's compatibility decomposition; of the supplement, which has none, those are here that are a
simplified character of their own. Nothing else is changed: normalising all would glue footnote marks to numbers.
"""

import unicodedata

_SUPPLEMENT = dict(
    zip(
        "⺟⺠⻁⻄⻅⻆⻉⻋⻓⻔⻘⻙⻚⻛⻜⻝⻢⻣⻤⻥⻦⻧⻨⻩⻬⻮⻰⻳",
        "母民虎西见角贝车长门青韦页风飞食马骨鬼鱼鸟卤麦黄齐齿龙龟",
        strict=True,
    )
)
_KANGXI = {code: unicodedata.normalize("NFKC", chr(code)) for code in range(0x2F00, 0x2FD6)}
_LIGATURES = {"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl"}
_CHARACTERS = {**str.maketrans(_SUPPLEMENT | _LIGATURES), **_KANGXI}


def unified(text: str) -> str:
    """Return `text` with radicals and ligatures as the characters that they stand for."""
    return text.translate(_CHARACTERS)
