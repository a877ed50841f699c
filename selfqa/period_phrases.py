"""Periods as running text says them, and whether a figure of one period answers for another.

A text says less than a table's tag knows: "in 2019" names no day and leaves open whether a year or its end is meant.
So a `When` keeps what is not said as not said, and two agree where nothing that both say differs.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import lru_cache

from finlm.figures import narrow
from selfqa.periods import MONTHS

UNSAID = -1


@dataclass(frozen=True, slots=True)
class When:
    """A period or an instant, as far as it is said.

    Example:
        When(year=2025, months=3, month=6, day=28)        the three months ended June 28, 2025
    """

    year: int
    months: int = UNSAID
    """Length; 0 is an instant, `UNSAID` where the text leaves it open."""
    month: int = 0
    """Month of the last day, 0 where it is not said."""
    day: int = 0
    quarter: int = 0
    start: int = 0
    """Where the text says it."""
    end: int = 0

    def agrees(self, fact: "When") -> bool:
        """May a figure of `fact` be said of this period? False where the two say different things."""
        is_early = fact.month == 1 and 0 < fact.day <= 7 and self.is_bare_year  # fiscal 2019 may end on January 3, 2020
        if self.year != fact.year and not (is_early and self.year == fact.year - 1):
            return False
        if UNSAID not in (self.months, fact.months) and self.months != fact.months:
            return False
        if self.month and fact.month and self.month != fact.month:
            return False
        if self.day and fact.day and self.day != fact.day:
            return False
        return not (self.quarter and fact.quarter) or self.quarter == fact.quarter

    @property
    def is_bare_year(self) -> bool:
        """Does the text say a year and nothing else?"""
        return self.months in (UNSAID, 12) and not (self.month or self.quarter)


def of_dates(since: str, until: str) -> When:
    """Return the period between two ISO dates; without the first, the instant."""
    last = date.fromisoformat(until)
    months = round((last - date.fromisoformat(since)).days / 30.44) if since else 0
    return When(last.year, months, last.month, last.day)


_TO = re.compile(r"年?\s*(?:to|through|until|[-–—~至到])\s*(?:fiscal\s+)?", re.IGNORECASE)


def spread(text: str, said: Sequence[When], count: int) -> Sequence[When]:
    """Return each year of a range, in its order, where a text says one and tells a figure for each: "2019 to 2017".

    Args:
        text: What says the periods.
        said: Its periods.
        count: How many figures are told.
    """
    if len(said) != 2 or count < 3 or not _TO.fullmatch(text[said[0].end : said[1].start]):
        return said
    first, last = said
    step = 1 if last.year > first.year else -1
    years = range(first.year, last.year + step, step)
    if len(years) != count or first.is_bare_year != last.is_bare_year:
        return said
    return [*(replace(first, year=year) for year in years[:-1]), last]


_DUE = re.compile(
    r"\b(?:due|maturing|matur(?:es|ity)|expir(?:es|ing|y)|repayable)\b(?: (?:in|on|by|at|date|through))*"
    r"(?: [A-Z][a-z]+)?(?: \d{1,2},)? (?:19|20)\d\d"
)


def without_due(text: str) -> str:
    """Blank when something falls due ("notes due December 2024"): that is no period of its figures. Offsets stay."""
    return _DUE.sub(lambda found: " " * len(found[0]), text)


# ---------------------------------------------------------------------------------------------- English

_NUMBERS = {"three": 3, "six": 6, "nine": 9, "twelve": 12, "thirteen": 3, "twenty-six": 6, "thirty-nine": 9}
_WEEKS = {"13": 3, "26": 6, "39": 9, "52": 12, "53": 12}
_MONTH = "|".join(rf"{name[:3]}(?:{name[3:]}|t)?" for name in MONTHS)
_ORDINALS = ("first", "second", "third", "fourth")
_YEAR = r"(?:19|20)\d\d"
_ENGLISH = re.compile(
    rf"""
    (?P<span>\b(?P<count>three|six|nine|twelve|thirteen|twenty-six|thirty-nine|3|6|9|12)[-\s]months?\b)
  | (?P<weeks>\b(?P<wcount>13|26|39|52|53|thirteen|twenty-six|thirty-nine)[-\s]weeks?\b)
  | (?P<quarter>\b(?:Q(?P<q>[1-4])|(?P<nth>{"|".join(_ORDINALS)})[-\s](?:fiscal\s)?quarter)\b)
  | (?P<ended>\bquarter(?:ly\s+period)?s?\s+ended)
  | (?P<half>\b(?P<hnth>first|second)\s+half\b)
  | (?P<annual>\b(?:fiscal\s+)?years?\s+(?:ended|ending)\b)
  | (?P<asof>\b(?:as\s+(?:of|at)|at|on|ending|opening)\s+(?=(?:the\s)?(?:{_MONTH})\b|\d{{1,2}}\s(?:{_MONTH})\b))
  | (?P<date>\b(?P<month>{_MONTH})\.?\s+(?P<day>\d{{1,2}})(?![\d%])(?:st|nd|rd|th)?
        (?:\s*,\s*|\s+)?(?P<dyear>{_YEAR}\b)?)
  | (?P<dmy>(?<!\d)(?P<day2>\d{{1,2}})(?:st|nd|rd|th)?\s(?P<month2>{_MONTH})\b\.?,?(?:\s(?P<dyear2>{_YEAR})\b)?)
  | (?P<my>\b(?P<month3>{_MONTH})\.?,?\s+(?P<dyear3>{_YEAR})\b)
  | (?P<iso>(?<!\d)(?P<iy>{_YEAR})-(?P<im>\d\d)-(?P<id>\d\d)(?!\d))
  | (?P<split>(?<![\d,.$])(?P<first>{_YEAR})/(?P<second>\d\d(?:\d\d)?)(?![\d/]))
  | (?P<fy>\bFY\s?'?(?P<fyear>{_YEAR}|\d\d)\b)
  | (?P<year>(?:(?<![\d,.$€£¥/-])|(?<=(?:19|20)\d\d,))(?P<y>{_YEAR})
        (?![\d%]|,(?!{_YEAR}(?!\d))\d|\.\d|\s?%|\s(?:million|billion|thousand|shares|employees)\b))
  | (?P<dashed>(?<=\d[-–])(?P<y2>{_YEAR})(?![\d%]|[,.]\d))
    """,
    re.VERBOSE | re.IGNORECASE,
)
_JOINT = re.compile(
    r"(?:\s|,|;|/|[-–—]|and|or|to|from|the|through|until|between|compared|with|versus|vs\.?|than|respectively|ended|both)*",
    re.IGNORECASE,
)


def english_periods(text: str) -> list[When]:
    """Return the periods that an English text says, in order; "June 28, 2025 and 2024" is two days."""
    found: list[When] = []
    months, quarter = UNSAID, 0
    pending: tuple[int, int] | None = None  # a month and day whose years follow
    last_end = 0
    for match in _ENGLISH.finditer(text):
        kind = match.lastgroup or ""
        kind = next(name for name in _KINDS if match[name] is not None)
        is_joined = bool(_JOINT.fullmatch(text[last_end : match.start()]))
        if not is_joined:
            pending = None
            if not re.fullmatch(r"[\s\w,()]{0,24}", text[last_end : match.start()]):
                months, quarter = UNSAID, 0
        last_end = match.end()
        if kind in _LENGTHS:
            months, quarter, pending = *_length(match, kind), None
            continue
        if kind in {"year", "fy", "split", "dashed"}:
            inherited = found[-1] if found and is_joined else None
            when = _of_year(match, kind, months, quarter)
            if pending is not None:
                when = replace(when, months=months, month=pending[0], day=pending[1])
            elif inherited is not None and kind in {"year", "dashed"}:
                # "September 30, 2019 and 2018": the day holds for both
                when = replace(inherited, year=when.year, start=when.start, end=when.end)
            found.append(when)
            continue
        month, day, year = _date_parts(match, kind)
        if year:
            if pending is not None and is_joined:  # "at June 30 and December 31, 2019"
                found.append(When(year, months, *pending, quarter, *match.span()))
            pending = None
            length = months
            found.append(When(year, length, month, day, quarter, *match.span()))
        else:
            pending = (month, day)
    return found


_LENGTHS = ("span", "weeks", "quarter", "ended", "half", "annual", "asof")
_KINDS = (*_LENGTHS, "date", "dmy", "my", "iso", "split", "fy", "year", "dashed")


def _length(match: re.Match[str], kind: str) -> tuple[int, int]:
    """Months and quarter of what follows."""
    if kind == "span":
        count = match["count"].lower()
        return (_NUMBERS[count] if count in _NUMBERS else int(count)), 0
    if kind == "weeks":
        count = match["wcount"].lower()
        return (_NUMBERS[count] if count in _NUMBERS else _WEEKS[count]), 0
    if kind == "quarter":
        return 3, int(match["q"]) if match["q"] else 1 + _ORDINALS.index(match["nth"].lower())
    return {"ended": 3, "half": 6, "annual": 12, "asof": 0}[kind], 0


def _of_year(match: re.Match[str], kind: str, months: int, quarter: int) -> When:
    if kind == "split":
        second = match["second"]
        return When(
            int(second) if len(second) == 4 else int(match["first"][:2] + second), months, 0, 0, quarter, *match.span()
        )
    if kind == "fy":
        year = match["fyear"]
        return When(int(year) if len(year) == 4 else 2000 + int(year), months, 0, 0, quarter, *match.span())
    return When(int(match["y"] or match["y2"]), months if months else UNSAID, 0, 0, quarter, *match.span())


def _date_parts(match: re.Match[str], kind: str) -> tuple[int, int, int]:
    if kind == "iso":
        return int(match["im"]), int(match["id"]), int(match["iy"])
    name = match["month"] or match["month2"] or match["month3"]
    day = match["day"] or match["day2"] or "0"
    year = match["dyear"] or match["dyear2"] or match["dyear3"] or "0"
    month = 1 + next(at for at, full in enumerate(MONTHS) if full[:3].lower() == name[:3].lower())
    return month, int(day), int(year)


# ---------------------------------------------------------------------------------------------- Chinese

_QUARTERS = "一二三四"
_CHINESE = re.compile(
    rf"""
    (?P<date>(?<!\d)(?P<dy>{_YEAR})\s?(?:年\s?(?P<dm>\d{{1,2}})\s?月\s?(?P<dd>\d{{1,2}})\s?日?(?!\d)
        |[-./](?P<dm2>\d{{1,2}})[-./](?P<dd2>\d{{1,2}})(?!\d)))
  | (?P<quarter>(?<!\d)(?P<qy>{_YEAR})\s?年?第?(?P<q>[一二三四1-4])季度)
  | (?P<half>(?<!\d)(?P<hy>{_YEAR})\s?年?(?:上半年|半年度|1\s?[-—~至]\s?6\s?月))
  | (?P<nine>(?<!\d)(?P<ny>{_YEAR})\s?年?(?:前三季度|1\s?[-—~至]\s?9\s?月))
  | (?P<end>(?<!\d)(?P<ey>{_YEAR})\s?年?(?:年?末|年?底|期末))
  | (?P<begin>(?<!\d)(?P<by>{_YEAR})\s?年?(?:年?初|期初))
  | (?P<annual>(?<!\d)(?P<ay>{_YEAR})\s?年(?:度|全年))
  | (?P<year>(?<![\d,.])(?P<y>{_YEAR})(?=\s?年|\s?[、和与及至—~-]\s?{_YEAR}\s?年))
  | (?P<bare>第(?P<bq>[一二三四])季度)
  | (?P<this>报告期末|本期末|本年末|期末)
  | (?P<opening>报告期初|期初|年初)
  | (?P<last>上年同期|上年度?末?|上期|去年同期|去年)
  | (?P<current>报告期|本期|本年度?|当期|当年)
    """,
    re.VERBOSE,
)


def chinese_periods(text: str, fiscal_year: int = 0, months: int = 12) -> list[When]:
    """Return the periods that a Chinese text says, in order.

    Args:
        text: Half-width digits.
        fiscal_year: What 本期, 上年, 期末 and 期初 count from; 0: such words say nothing here.
        months: Length of the reported period.
    """
    return list(_chinese(text, fiscal_year, months))


def _chinese(text: str, fiscal_year: int, months: int) -> Iterator[When]:
    for match in _CHINESE.finditer(text):
        at = match.span()
        if match["date"]:
            is_range = text[max(0, match.start() - 1) : match.start()] in {"至", "-", "—", "~"}
            yield When(
                int(match["dy"]),
                UNSAID if is_range else 0,
                int(match["dm"] or match["dm2"]),
                int(match["dd"] or match["dd2"]),
                0,
                *at,
            )
        elif match["quarter"]:
            mark = match["q"]
            yield When(int(match["qy"]), 3, 0, 0, 1 + _QUARTERS.index(mark) if mark in _QUARTERS else int(mark), *at)
        elif match["half"]:
            yield When(int(match["hy"]), 6, 0, 0, 0, *at)
        elif match["nine"]:
            yield When(int(match["ny"]), 9, 0, 0, 0, *at)
        elif match["end"]:
            yield When(int(match["ey"]), 0, 12, 31, 0, *at)
        elif match["begin"]:
            yield When(int(match["by"]) - 1, 0, 12, 31, 0, *at)  # the year begins with what the last one ended with
        elif match["annual"]:
            yield When(int(match["ay"]), 12, 0, 0, 0, *at)
        elif match["year"]:
            yield When(int(match["y"]), UNSAID, 0, 0, 0, *at)
        elif fiscal_year:
            yield _relative(match, fiscal_year, months)


def _relative(match: re.Match[str], year: int, months: int) -> When:
    at = match.span()
    last = {3: (3, 31), 6: (6, 30), 9: (9, 30)}.get(months, (12, 31))
    if match["bare"]:
        return When(year, 3, 0, 0, 1 + _QUARTERS.index(match["bq"]), *at)
    if match["this"]:
        return When(year, 0, *last, 0, *at)
    if match["opening"]:
        return When(year - 1, 0, 12, 31, 0, *at)
    if match["last"]:
        return When(year - 1, 0 if match["last"].endswith("末") else months, 0, 0, 0, *at)
    return When(year, months, 0, 0, 0, *at)


@lru_cache(maxsize=8192)
def periods_said(text: str, language: str, fiscal_year: int = 0, months: int = 12) -> tuple[When, ...]:
    """Return the periods that a text says, in order."""
    if not re.search(r"\d\d", text) and not (language == "zh" and fiscal_year):
        return ()
    plain = narrow(text)
    return tuple(chinese_periods(plain, fiscal_year, months) if language == "zh" else english_periods(plain))
