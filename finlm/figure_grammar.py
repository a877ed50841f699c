"""How figures and periods are written in English and Chinese, and their reading into records."""

import re
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Literal

Unit = Literal["currency", "per-share", "percent", "points", "plain"]

SCALES = {"thousand": 3, "million": 6, "billion": 9, "trillion": 12, "mn": 6, "bn": 9, "m": 6, "b": 9, "k": 3}
SCALES |= {"万亿": 12, "千亿": 11, "百亿": 10, "十亿": 9, "亿": 8, "千万": 7, "百万": 6, "十万": 5, "万": 4, "千": 3}
"""Word or letter after a number -> power of ten."""

CURRENCIES = dict(
    **dict.fromkeys(("$", "us$", "usd", "dollar", "dollars", "美元"), "USD"),
    **dict.fromkeys(("¥", "rmb", "cny", "yuan", "元", "人民币", "人民币元", "元人民币"), "CNY"),
    **dict.fromkeys(("hk$", "hkd", "港元", "港币"), "HKD"),
    **dict.fromkeys(("€", "eur", "euro", "euros", "欧元"), "EUR"),
    **dict.fromkeys(("£", "gbp", "英镑"), "GBP"),
    **dict.fromkeys(("jpy", "yen", "日元"), "JPY"),
)
"""Sign or word before or after a number -> ISO code. ¥ stands for the yuan here, since the filings are Chinese."""

_BEFORE = r"US\$|HK\$|USD|HKD|RMB|CNY|EUR|GBP|JPY|人民币|港币|[$€£¥]"
_AFTER = (
    r"人民币元|元人民币|美元|港元|港币|欧元|英镑|日元|元|dollars?\b|yuan\b|euros?\b|yen\b|(?:USD|HKD|RMB|CNY|EUR)\b"
)
_FIGURE = re.compile(
    rf"""
    (?<![A-Za-z0-9_])(?<!\d[.,])
    (?P<outer>\(\s?)?
    (?P<minus>(?<![\w)%])[-−–]\s?|负)?
    (?P<before>(?:{_BEFORE})\s?)?
    (?P<open>\(\s?)?
    (?P<minus2>[-−–])?
    (?P<before2>(?:[$€£¥])\s?)?
    (?P<number>\d{{1,3}}(?:,\d{{3}})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(?![\d])
    (?P<percent>\s?%)?
    (?P<close>(?(outer)\s?\)|(?(open)\s?\)|(?!))))?
    (?P<scale>\s?(?:万亿|千亿|百亿|十亿|亿|千万|百万|十万|万|千(?![瓦米克伏])
        |(?:thousand|million|billion|trillion|mn|bn|m|b|k)\b))?
    (?P<unit>\s?(?:%|个?百分点|个?基点|percentage\ points?\b|basis\ points?\b|p\.?p\.?s?\b|pts\b|bps\b
        |per\s?cent\b|{_AFTER}))?
    (?P<share>\s?(?:/股|每股|(?:/|per|a)\s?(?:\w+\s){{0,2}}share\b))?
    """,
    re.VERBOSE | re.IGNORECASE,
)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = "(?:" + "|".join(_MONTHS) + ")[a-z]*"
_DATES = re.compile(
    rf"""
    (?P<iso>(?<!\d)(?P<iy>(?:19|20)\d\d)[-/.](?P<im>\d{{1,2}})[-/.](?P<id>\d{{1,2}})(?!\d))
  | (?P<zh>(?<!\d)(?P<zy>(?:19|20)\d\d)\s?年(?:度)?(?:\s?(?P<zm>\d{{1,2}})\s?月(?:份)?(?:\s?(?P<zd>\d{{1,2}})\s?日)?)?)
  | (?P<zmd>(?<!\d)(?P<zm2>\d{{1,2}})\s?月(?:\s?(?P<zd2>\d{{1,2}})\s?日)?)
  | (?P<mdy>\b(?P<em>{_MONTH})\.?\s(?P<ed>\d{{1,2}})(?!\d)(?:st|nd|rd|th)?(?:,?\s(?P<ey>(?:19|20)\d\d)\b)?)
  | (?P<dmy>(?<!\d)(?P<ed2>\d{{1,2}})\s(?P<em2>{_MONTH})\.?(?:,?\s(?P<ey2>(?:19|20)\d\d)\b)?)
  | (?P<fy>\bFY\s?'?(?P<fyy>(?:19|20)?\d\d)\b)
  | (?P<q>\bQ(?P<qn>[1-4])\b|\b(?P<qn2>[1-4])Q(?:\d\d)?\b|第?(?P<qn3>[1-4一二三四])季度?
        |\b(?P<qn4>first|second|third|fourth)[-\s]quarter\b)
  | (?P<span>\b(?P<sn>three|six|nine|twelve|3|6|9|12)[-\s]months?\b|(?P<half>上半年|下半年|前三季度))
  | (?P<year>(?<![\w.,$¥€£-])(?P<y>(?:19|20)\d\d)(?![\d%]|[.,]\d|\s?(?:%|[万亿元股人名家台套项件个吨]
        |million|billion|thousand|percent|shares|employees|people|dollars)))
    """,
    re.VERBOSE | re.IGNORECASE,
)
_LABEL = re.compile(
    r"(?:\b(?:note|item|section|rule|part|exhibit|page|level|tier|basel|phase|tranche|table|form|footnote|no\.|number)s?\s|第\s?|附注[^，。]{0,3}|附表)$",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of a text.

    Example:
        Figure(start=12, end=26, text="$412.6 million", value=Decimal("412600000"), unit="currency", currency="USD")
    """

    start: int
    end: int
    text: str
    value: Decimal
    """In whole units: scale applied; percent and points in hundredths ("7.4%" is 7.4); negative in parentheses."""
    unit: Unit
    currency: str = ""
    """ISO code where the text names a currency."""
    is_date: bool = False
    """A year or a part of a date or period, not an amount."""
    is_label: bool = False
    """A number that only names something: a note, a footnote mark, `10-K`."""


def narrow(text: str) -> str:
    """Full-width ASCII to ASCII, character by character, so that offsets stay.

    Never NFKC: it turns a footnote mark into a digit of the number before it. The comma stays, so that "100，200"
    does not become one number.
    """
    return text.translate(_NARROW)


_NARROW = {wide: wide - 0xFEE0 for wide in range(0xFF01, 0xFF5F) if wide != 0xFF0C} | {
    0x3000: 0x20,
    0xA0: 0x20,
    0x202F: 0x20,
    0xFFE5: 0xA5,
}


def find_figures(text: str) -> tuple[Figure, ...]:
    """Return every figure of `text`, in order, dates and labels among them and marked as such."""
    return _all_figures(text)


@lru_cache(maxsize=4096)
def _all_figures(text: str) -> tuple[Figure, ...]:
    plain = narrow(text)
    dates = [match.span() for match in _DATES.finditer(plain)]
    figures = []
    for match in _FIGURE.finditer(plain):
        at = match.start("number")
        date = next((span for span in dates if span[0] <= at < span[1]), None)
        figures.append(_as_date(text, match) if date else _as_figure(text, plain, match))
    return tuple(figures)


def _as_date(text: str, match: re.Match[str]) -> Figure:
    start, end = match.span("number")
    return Figure(start, end, text[start:end], Decimal(match["number"].replace(",", "")), "plain", is_date=True)


def _as_figure(text: str, plain: str, match: re.Match[str]) -> Figure:
    number = Decimal(match["number"].replace(",", ""))
    words = (match["unit"] or "").strip().lower()
    before = (match["before"] or match["before2"] or "").strip().lower()
    scale = (match["scale"] or "").strip().lower()
    if scale in {"m", "b", "k"} and not before:
        scale = ""  # "5 m" is a length; "$5m" is money
    value = number.scaleb(SCALES[scale]) if scale else number
    start, end = match.span()
    is_enclosed = bool(match["open"] or match["outer"])
    closes = bool(match["close"]) or plain[end : end + 1] == ")"
    is_bare = (
        is_enclosed and not (before or match["percent"] or words or scale) and re.fullmatch(r"\d{1,2}", match["number"])
    )
    is_negative = bool(match["minus"] or match["minus2"]) or (
        is_enclosed and closes and not is_bare and (not scale or bool(match["close"]))
    )
    if match["outer"]:
        if is_negative and not match["close"] and closes and not (match["minus"] or match["minus2"]):
            end += 1
        elif not match["close"]:
            start += len(match["outer"])
    unit: Unit = "plain"
    currency = CURRENCIES.get(words, "") or CURRENCIES.get(before, "")
    if match["percent"] or words in {"%", "percent", "per cent"}:
        unit = "percent"
    elif "基点" in words or words in {"bps", "basis point", "basis points"}:
        unit, value = "points", value / 100
    elif "百分点" in words or words.startswith(("percentage", "pp", "p.p", "pts")):
        unit = "points"
    elif currency:
        unit = (
            "per-share" if match["share"] or re.search(r"每\s?\d*\s?股[^，。,；]{0,12}$", plain[:start]) else "currency"
        )
    follows = plain[end : end + 3]
    is_label = (
        unit == "plain"
        and not scale
        and (
            bool(is_bare)
            or bool(re.match(r"-?[A-Za-z]", follows) and not re.match(r"x\b", follows))
            or bool(_LABEL.search(plain[max(0, start - 24) : start]))
            or bool(re.search(r"[A-Za-z][-–]$", plain[:start]))
        )
    )
    end -= len(plain[start:end]) - len(plain[start:end].rstrip())
    return Figure(start, end, text[start:end], -value if is_negative else value, unit, currency, is_label=is_label)


def cell_figure(cell: str) -> Figure | None:
    """Return the one figure that fills a table cell, or None: "(43)" is -43 here, and "2,019" no year."""
    body = narrow(cell).strip()
    match = _FIGURE.fullmatch(body)
    if match is None:
        return None
    figure = _as_figure(body, body, match)
    is_negative = figure.value < 0 or (body.startswith("(") and body.endswith((")", ")%", ") %"))) or "$(" in body
    return Figure(0, len(body), body, -abs(figure.value) if is_negative else figure.value, figure.unit, figure.currency)


def periods_in(text: str) -> tuple[set[str], set[str]]:
    """Return the years of a text, and its other marks of time (`06-30`, `q3`, `six`)."""
    years: set[str] = set()
    marks: set[str] = set()
    for match in _DATES.finditer(text):
        groups = {name: value.lower() for name, value in match.groupdict().items() if value}
        for name in ("iy", "zy", "ey", "ey2", "y"):
            if name in groups:
                years.add(groups[name])
        if "fyy" in groups:
            years.add(groups["fyy"] if len(groups["fyy"]) == 4 else "20" + groups["fyy"])
        month = next((groups[name] for name in ("im", "zm", "zm2", "em", "em2") if name in groups), "")
        day = next((groups[name] for name in ("id", "zd", "zd2", "ed", "ed2") if name in groups), "")
        if month:
            number = int(month) if month.isdigit() else 1 + next(i for i, m in enumerate(_MONTHS) if m == month[:3])
            marks.add(f"{number:02d}" + (f"-{int(day):02d}" if day else ""))
        quarter = next((groups[name] for name in ("qn", "qn2", "qn3", "qn4") if name in groups), "")
        if quarter:
            order = {
                "一": "1",
                "二": "2",
                "三": "3",
                "四": "4",
                "first": "1",
                "second": "2",
                "third": "3",
                "fourth": "4",
            }
            marks.add("q" + order.get(quarter, quarter))
        length = groups.get("sn") or groups.get("half")
        if length:
            marks.add({"3": "three", "6": "six", "9": "nine", "12": "twelve"}.get(length, length))
    return years, marks
