"""The line that says what a table's figures count: "(in millions, except per share amounts)", 单位：万元."""

import re
from dataclasses import dataclass, replace
from functools import lru_cache

from finlm.figure_grammar import CURRENCIES, SCALES
from finlm.figures import narrow

_CODES = "CHF|SEK|NOK|DKK|JPY|CAD|AUD|NZD|HKD|SGD|INR|KRW|TWD|BRL|ZAR|Euros?"
"""Currencies that are counted in thousands and millions, and written out."""
_SIGN = r"US\$|HK\$|A\$|C\$|RMB|USD|CNY|EUR|GBP|[$€£¥]"
_ENGLISH = re.compile(
    rf"""
    (?:(?P<before>{_SIGN})\s?)?(?:\bin\s+)?(?P<currency>{_SIGN})?\s?
    (?P<scale>\b(?:thousands|millions|billions)\b)(?:\s+of\s+(?P<of>(?:U\.?S\.?\s+)?dollars|euros?|yuan|RMB|pounds|yen|US\$))?
  | (?P<sign>{_SIGN}|\b(?:{_CODES})\b)\s?[’'‘]?(?P<zeros>000|m|mn|bn|million|thousand|billion)(?:[’']?s)?\b
  | \b(?P<glued>[kKMT])(?P<sign2>EUR|€|USD|GBP|CHF|SEK|NOK|DKK)(?!\w)
  | \bin\s+(?P<single>thousand|million|billion)\b
  | \(\s?(?:in\s)?[’'‘]?(?P<bare>1,000|000|mn)[’']?s?(?:\somitted)?\s?\)
  | \bin\s+[’'‘]?(?P<in000>000)[’']?s\b
    """,
    re.VERBOSE | re.IGNORECASE,
)
_CHINESE = re.compile(
    r"(?:单位|金额单位|币种)\s*[：:]?\s*(?:人民币)?\s*(?P<scale>千|百万|万|亿)?(?P<unit>元|美元|港元|股|吨)"
    r"|[（(](?:人民币)?(?P<scale2>千|百万|万|亿)?(?P<unit2>元|美元|股)[）)]"
)
_ALL = re.compile(
    r"\bin (?P<scale>thousand|million|billion)s?\b[^.;)]{0,120}\b(?:unless|except (?:as|where)) (?:otherwise )?"
    r"(?:stated|indicated|noted|specified)",
    re.IGNORECASE,
)
_HINT = re.compile(
    rf"thousand|million|billion|000|[$€£¥]\s?[’'‘]?[mb]|\b(?:USD|EUR|GBP|RMB|CNY|{_CODES})\s?[mb]|[kmt](?:EUR|€|USD|GBP|CHF|SEK|NOK|DKK)|\(mn"
    r"|单位|币种|[（(](?:人民币|[千百万亿美])?[万]?[元股]",
    re.IGNORECASE,
)
LOOKED_AT = 200_000
"""Characters of a document that are searched for its unit notes."""
_DOLLARS = {"us$": "USD", "a$": "AUD", "c$": "CAD"}


@dataclass(frozen=True, slots=True)
class UnitNote:
    """Scale and currency of a note; false where there is none.

    Example:
        UnitNote(power=6, currency="USD", is_said=True)        "(dollars in millions)"
    """

    power: int = 0
    """Power of ten that the figures are in."""
    currency: str = ""
    is_said: bool = False

    def __bool__(self) -> bool:
        return self.is_said

    def with_currency(self, currency: str) -> "UnitNote":
        """Return the same scale in a currency."""
        return replace(self, currency=currency)

    def or_currency(self, other: "UnitNote") -> "UnitNote":
        """Return this note, with the other's currency where it names none."""
        return self if self.currency else replace(self, currency=other.currency)


@lru_cache(maxsize=4096)
def unit_note(text: str) -> UnitNote:
    """Read the unit note of a table's surroundings: the last one."""
    found = _notes(text)
    if not found:
        return UnitNote()
    return found[-1] if re.search(r"[一-鿿]", text) else found[0]


@lru_cache(maxsize=4)
def document_note(text: str) -> UnitNote:
    """Read the unit note of a document: the most frequent one."""
    found = _notes(text[:LOOKED_AT])
    return max(set(found), key=lambda note: (found.count(note), note.power, note.currency), default=UnitNote())


def stated_power(text: str) -> int:
    """Return the power of ten that a document says of all its amounts: "in thousands, unless otherwise stated"."""
    found = _ALL.search(narrow(text[:LOOKED_AT]))
    return SCALES[found["scale"].lower()] if found else 0


def _notes(text: str) -> list[UnitNote]:
    plain = narrow(text)
    if not _HINT.search(plain):
        return []
    found = [note for note in (_english(match, plain) for match in _ENGLISH.finditer(plain)) if note]
    return found + [_chinese(match) for match in _CHINESE.finditer(plain)]


def _english(match: re.Match[str], text: str) -> UnitNote:
    scale = match["scale"] or match["zeros"] or match["glued"] or match["bare"] or match["in000"] or match["single"]
    words = text[match.end() : match.end() + 12].lower()
    before = text[max(0, match.start() - 30) : match.start()].lower()
    if match["scale"] and re.match(r"\s+of\s+(?:shares|barrels|units)", words):
        return UnitNote()
    if match["scale"] and re.search(r"\bshares?\s+(?:data\s+)?(?:are\s+)?(?:reflected\s+)?(?:in\s)?$", before):
        return UnitNote()  # "shares in thousands" beside money in millions
    is_sure = match["before"] or match["currency"] or re.match(r"in\b", match[0].strip(), re.IGNORECASE)
    if match["scale"] and not is_sure and not re.search(r"(?:\bin\s+|[(（|\n]|dollars\s+|^)\s*$", before):
        return UnitNote()  # "we sold millions of devices"
    word = (scale or "").lower().removesuffix("s")
    power = {"000": 3, "1,000": 3, "t": 3}.get(word) or SCALES.get(word, 0)
    sign = (match["before"] or match["currency"] or match["sign"] or match["sign2"] or match["of"] or "").lower()
    sign = "us$" if "dollar" in sign else sign
    if not sign and re.search(r"dollars\s*(?:are\s)?(?:in\s)?$", before):
        sign = "us$"
    return UnitNote(power, _DOLLARS.get(sign) or CURRENCIES.get(sign.rstrip("s"), CURRENCIES.get(sign, "")), True)


def _chinese(match: re.Match[str]) -> UnitNote:
    scale, unit = match["scale"] or match["scale2"] or "", match["unit"] or match["unit2"]
    return UnitNote(SCALES.get(scale, 0), CURRENCIES.get(unit, ""), True)
