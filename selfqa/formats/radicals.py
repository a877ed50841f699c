"""Chinese characters that a PDF's font hands out as radicals: ⽣ for 生, ⻓ for 长.

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
_CHARACTERS = {**{ord(radical): character for radical, character in _SUPPLEMENT.items()}, **_KANGXI}


def unified(text: str) -> str:
    """Return `text` with its radicals as the characters that they stand for; its length stays."""
    return text.translate(_CHARACTERS)
