"""Periods of time as filings name them, and the columns that table headers make of them.

fiscal year     "2024", "Year Ended January 29, 2023", 2019 年
months          "Three Months Ended June 28, 2025", 第一季度
instant         "As of June 28, 2025", 2019 年末, 期末余额
"""

import re
from dataclasses import dataclass, replace
from typing import Literal

MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July"),
    *("August", "September", "October", "November", "December"),
)
_COUNTS = {"three": 3, "six": 6, "nine": 9, "twelve": 12, "3": 3, "6": 6, "9": 9, "12": 12}
_WORDS = {3: "three", 6: "six", 9: "nine", 12: "twelve"}
_WEEKS = {12: "twelve", 13: "thirteen", 16: "sixteen", 24: "twenty-four", 26: "twenty-six", 36: "thirty-six"}
_WEEKS |= {39: "thirty-nine", 40: "forty", 52: "fifty-two", 53: "fifty-three"}
_ZH_QUARTERS = "一二三四"


@dataclass(frozen=True, slots=True)
class Period:
    """A stretch of time or a day; months 12 with a fiscal year, months 0 for an instant.

    Example:
        Period(year=2025, months=3, month=6, day=28)        the three months ended June 28, 2025
    """

    year: int
    months: int = 12
    month: int = 0
    """Month of the last day, 0 where the text names only the year."""
    day: int = 0
    quarter: int = 0
    """1 to 4 where the text names a quarter rather than its last day."""
    weeks: int = 0
    """As the text counts them (13, 26, 39), where it counts weeks; `months` is then the nearest."""
    is_start: bool = False
    """The first day of the year rather than the last (期初)."""

    def in_english(self) -> str:
        """Return the phrase that places a verb in this period: `in fiscal 2024`, `as of June 28, 2025`."""
        date = f"{MONTHS[self.month - 1]} {self.day}, {self.year}" if self.month and self.day else ""
        if self.quarter:
            return f"in the {('first', 'second', 'third', 'fourth')[self.quarter - 1]} quarter of fiscal {self.year}"
        if self.months == 0:
            return f"as of {date}" if date else f"at the {'start' if self.is_start else 'end'} of fiscal {self.year}"
        if self.months == 12:
            # a year that ends early in the next one is named after either: only the date is safe
            return f"in the fiscal year ended {date}" if date and self.month <= 2 else f"in fiscal {self.year}"
        length = f"{_WEEKS[self.weeks]} weeks" if self.weeks else f"{_WORDS.get(self.months, self.months)} months"
        return f"in the {length} ended {date or self.year}"

    def in_chinese(self) -> str:
        """Return the phrase that stands before a metric: `2019年`, `2019年末`, `2025年1-6月`."""
        if self.quarter:
            return f"{self.year}年第{_ZH_QUARTERS[self.quarter - 1]}季度"
        if self.months == 0:
            if self.month and self.day and (self.month, self.day) != (12, 31):
                return f"截至{self.year}年{self.month}月{self.day}日"
            return f"{self.year}年{'初' if self.is_start else '末'}"
        if self.months == 12:
            return f"{self.year}年"
        return f"{self.year}年上半年" if self.months == 6 else f"{self.year}年1-{self.months}月"

    def fits(self, other: "Period") -> bool:
        """Can the two be compared: same length, same end within the year?"""
        return (self.months, self.quarter, self.is_start) == (other.months, other.quarter, other.is_start) and (
            self.month == other.month or self.months in (0, 12)
        )


@dataclass(frozen=True, slots=True)
class Column:
    """What a column of figures is about."""

    period: Period | None
    kind: Literal["amount", "change", "other"]
    rest: str = ""
    """What the header says besides the period: 金额, 占营业收入比重, a metric's name."""


_MONTH = "|".join(month[:3] for month in MONTHS)
_WEEK_WORDS = "|".join([*sorted(_WEEKS.values(), key=len, reverse=True), r"\d\d"])
_TOKEN = re.compile(
    rf"""
    (?P<span>\b(?:for\s+the\s+)?(?P<count>three|six|nine|twelve|3|6|9|12)[-\s]months?(?:\s+ended)?)
  | (?P<weeks>\b(?:for\s+the\s+)?(?P<wcount>{_WEEK_WORDS})[-\s]weeks?(?:\s+ended)?)
  | (?P<quarter>\b(?:for\s+the\s+)?(?:fiscal\s+)?quarters?\s+ended)
  | (?P<nth>\b(?:Q(?P<q>[1-4])|(?P<ordinal>first|second|third|fourth)\s+quarter)(?:\s+of)?)
  | (?P<annual>\b(?:for\s+the\s+)?(?:fiscal\s+)?years?\s+ended)
  | (?P<asof>\b(?:as\s+of|at|as\s+at|balance\s+at)\b)
  | (?P<date>\b(?P<month>{_MONTH})[a-z]*\.?\s+(?P<day>\d{{1,2}})(?!\d),?(?:\s+(?P<dyear>(?:19|20)\d\d))?\b)
  | (?P<year>(?:\bfiscal\s+(?:year\s+)?|\bFY\s?)?\b(?P<number>(?:19|20)\d\d)\b)
  | (?P<change>(?:[$%]\s*|\bpercent(?:age)?\s+|\bpoint\s+)?
        \b(?:change|variance|increase|decrease|incr?\.?/\(decr?\.?\))\b(?:\s*/?\s*\(decrease\))?)
    """,
    re.VERBOSE | re.IGNORECASE,
)
_NOTE = re.compile(r"\([^()]*\)|\bunaudited\b|\byr\.?-to-yr\.?\b|[$%*,:|—–-]|\band\b|\bendeds?\b", re.IGNORECASE)


def is_header(line: str) -> bool:
    """Does a line hold nothing but periods, `change` and notes?"""
    without = _NOTE.sub(" ", _TOKEN.sub(" ", line))
    return bool(_TOKEN.search(line)) and not re.search(r"\w", without)


def header_columns(header: str) -> tuple[Column, ...]:
    """Read the columns that a header's running text names, left to right.

    "Three Months Ended June 30, Six Months Ended June 30, 2025 2024 2025 2024" is four: spans share the columns below
    them evenly. An empty tuple means that the text cannot be read.
    """
    spans: list[Period] = []
    leaves: list[Column] = []
    pending: Period | None = None  # a day without a year: the years that follow complete it
    tokens = list(_TOKEN.finditer(re.sub(r"\([^()]*\)", " ", header)))
    for number, match in enumerate(tokens):
        kind = match.lastgroup if match.lastgroup in {"change", "asof"} else _kind(match)
        following = _kind(tokens[number + 1]) if number + 1 < len(tokens) else ""
        if kind == "weeks":
            weeks = _week_count(match["wcount"])
            spans.append(Period(0, 12 if weeks > 50 else round(weeks / 13) * 3, weeks=0 if weeks > 50 else weeks))
            pending = None
        elif kind in {"span", "quarter", "annual"}:
            months = {"quarter": 3, "annual": 12}.get(kind) or _COUNTS[match["count"].lower()]
            spans.append(Period(0, months))
            pending = None
        elif kind == "nth":
            order = (
                int(match["q"])
                if match["q"]
                else ("first", "second", "third", "fourth").index(match["ordinal"].lower()) + 1
            )
            spans.append(Period(0, 3, quarter=order))
        elif kind == "date":
            month = 1 + next(i for i, name in enumerate(MONTHS) if name[:3].lower() == match["month"][:3].lower())
            day = Period(0, 0, month, int(match["day"]))
            if match["dyear"] and following != "year":
                leaves.append(Column(replace(day, year=int(match["dyear"])), "amount"))
                continue
            if spans and not spans[-1].month and not leaves:
                spans[-1] = replace(spans[-1], month=day.month, day=day.day)
            pending = day
            if match["dyear"]:
                leaves.append(Column(_with_year(pending, int(match["dyear"]), bool(spans)), "amount"))
        elif kind == "year":
            leaves.append(Column(_with_year(pending, int(match["number"]), bool(spans)), "amount"))
        elif kind == "change":
            leaves.append(Column(None, "change"))
    return _under_spans(spans, leaves)


def _week_count(text: str) -> int:
    words = {name: number for number, name in _WEEKS.items()}
    number = words[text.lower()] if text.lower() in words else int(text)
    return number if number in _WEEKS else 52


def _kind(match: re.Match[str]) -> str:
    return next(
        name for name in ("span", "weeks", "quarter", "nth", "annual", "asof", "date", "year", "change") if match[name]
    )


def _with_year(day: Period | None, year: int, has_span: bool) -> Period:
    return replace(day, year=year) if day and not has_span else Period(year, 12)


def _under_spans(spans: list[Period], leaves: list[Column]) -> tuple[Column, ...]:
    if not spans:
        return tuple(leaves)
    if len(leaves) % len(spans):
        return ()
    share = len(leaves) // len(spans)
    columns = []
    for number, leaf in enumerate(leaves):
        span = spans[number // share] if share else spans[0]
        if leaf.period is None:
            columns.append(leaf)
            continue
        month, day = (leaf.period.month, leaf.period.day) if leaf.period.month else (span.month, span.day)
        columns.append(Column(Period(leaf.period.year, span.months, month, day, span.quarter, span.weeks), "amount"))
    return tuple(columns)


# ---------------------------------------------------------------------------------------------- Chinese headers

_ZH_YEAR = r"(?P<year>(?:19|20)\d\d)\s*年?(?:度)?"
_ZH_DATE = re.compile(r"(?P<year>(?:19|20)\d\d)\s*年\s*(?P<month>\d{1,2})\s*月\s*(?P<day>\d{1,2})\s*日")
_ZH_CHANGE = re.compile(r"增减|变动|同比|环比|差异|增长率")


def chinese_column(header: str, fiscal_year: int, months: int = 12) -> Column:
    """Read one column's header; `fiscal_year` and `months` resolve 本期, 上期, 期末 and 期初."""
    text = re.sub(r"\s+", "", header)
    if _ZH_CHANGE.search(text):
        return Column(None, "change", text)
    for pattern, build in _ZH_FORMS:
        found = pattern.search(text)
        if found:
            rest = (text[: found.start()] + text[found.end() :]).strip("（）() ：:")
            return Column(build(found, fiscal_year, months), "amount", rest)
    return Column(None, "other", text)


def is_chinese_header(line: str) -> bool:
    """Does a line hold nothing but Chinese periods and 增减, as the head of a plain-text table?"""
    if not re.search(r"[年期末初度增变同]", line):
        return False
    pieces = [piece for piece in re.split(r"[\s|]+", line.strip()) if piece not in {"项目", "指标", "科目"}]
    columns = [chinese_column(piece, 0) for piece in pieces]
    return any(column.period for column in columns) and all(
        column.kind == "change" or (column.period is not None and not column.rest) for column in columns
    )


def chinese_header_columns(line: str, fiscal_year: int, months: int) -> tuple[Column, ...]:
    """Read the columns of such a line, left to right."""
    pieces = [piece for piece in re.split(r"[\s|]+", line.strip()) if piece not in {"项目", "指标", "科目"}]
    return tuple(chinese_column(piece, fiscal_year, months) for piece in pieces)


def _date(found: re.Match[str], _: int, __: int) -> Period:
    return Period(int(found["year"]), 0, int(found["month"]), int(found["day"]))


_ZH_FORMS = (
    (_ZH_DATE, _date),
    (
        re.compile(r"(?P<year>(?:19|20)\d\d)年?(?P<q>第?[一二三四]季度)"),
        lambda m, y, n: Period(
            int(m["year"]), 3, quarter=1 + next(i for i, c in enumerate(_ZH_QUARTERS) if c in m["q"])
        ),
    ),
    (re.compile(r"第([一二三四])季度"), lambda m, y, n: Period(y, 3, quarter=1 + _ZH_QUARTERS.index(m[1]))),
    (
        re.compile(r"(?P<year>(?:19|20)\d\d)年?末|(?P<year2>(?:19|20)\d\d)年?年末"),
        lambda m, y, n: Period(int(m["year"] or m["year2"]), 0),
    ),
    (re.compile(r"(?P<year>(?:19|20)\d\d)年?初"), lambda m, y, n: Period(int(m["year"]), 0, is_start=True)),
    (re.compile(r"(?P<year>(?:19|20)\d\d)年(?:1-6月|上半年|半年度)"), lambda m, y, n: Period(int(m["year"]), 6, 6, 30)),
    (re.compile(_ZH_YEAR), lambda m, y, n: Period(int(m["year"]), 12)),
    (
        re.compile(r"(?:本报告|本)?期末(?:余额|数|金额)?|本年末"),
        lambda m, y, n: Period(y, 0, *((6, 30) if n == 6 else (0, 0))),
    ),
    (re.compile(r"(?:本报告|本)?期初(?:余额|数|金额)?|年初(?:余额)?"), lambda m, y, n: Period(y, 0, is_start=True)),
    (
        re.compile(r"(?:上年同期|上年度?末?|上期)(?:发生额|金额|数)?"),
        lambda m, y, n: Period(y - 1, 0 if "末" in m[0] else n),
    ),
    (re.compile(r"本(?:报告期|年度|期|年)(?:发生额|金额|数)?"), lambda m, y, n: Period(y, n)),
)
