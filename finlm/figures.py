"""The figure checker: what figures a text holds, and whether an answer is a right one.

    find_figures    every figure of an English or Chinese text, as records
    judge           is an answer right, where a right answer is known, and if not, what is the fault
    unsupported     digits of an answer that stand neither in its evidence nor in the question

It compares values, not spellings ("$412.6 million" is 4.126亿美元), is strict, and reads only the three texts it is
given. It never sees the passage: a wrong answer is told from a right one by the reference and the question alone.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Literal

Unit = Literal["currency", "per-share", "percent", "points", "plain"]
Fault = Literal["", "figure", "period", "metric", "entity", "missing", "extra", "run-on", "empty"]

SCALES = dict(
    **{"thousand": 3, "million": 6, "billion": 9, "trillion": 12, "mn": 6, "bn": 9, "m": 6, "b": 9, "k": 3},
    **{"万亿": 12, "千亿": 11, "百亿": 10, "十亿": 9, "亿": 8, "千万": 7, "百万": 6, "十万": 5, "万": 4, "千": 3},
)
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
    (?P<close>\s?\))?
    (?P<scale>\s?(?:万亿|千亿|百亿|十亿|亿|千万|百万|十万|万|千(?![瓦米克伏])
        |(?:thousand|million|billion|trillion|mn|bn|m|b|k)\b))?
    (?P<unit>\s?(?:%|个?百分点|个?基点|percentage\ points?\b|basis\ points?\b|p\.?p\.?s?\b|pts\b|bps\b
        |per\s?cent\b|{_AFTER}))?
    (?P<share>\s?(?:/股|每股|(?:/|per|a)\s?(?:\w+\s){0, 2}share\b))?
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
    r"(?:\b(?:note|item|section|rule|part|exhibit|page|level|table|form|footnote|no\.|number)s?\s|第\s?|附注[^，。]{0,3}|附表)$",
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


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether an answer is right, and if not, the first fault found."""

    is_right: bool
    fault: Fault = ""


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
    return _find_figures(text)


@lru_cache(maxsize=4096)
def _find_figures(text: str) -> tuple[Figure, ...]:
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
    is_bare = is_enclosed and not (before or match["percent"] or words) and re.fullmatch(r"\d{1,2}", match["number"])
    is_negative = bool(match["minus"] or match["minus2"]) or (
        is_enclosed and closes and not is_bare and (not scale or bool(match["open"] and match["close"]))
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


def unsupported(answer: str, evidence: str, question: str) -> tuple[str, ...]:
    """Return the numbers of `answer` that stand neither in `evidence` nor in `question`, digit for digit.

    A number counts as one piece with its separators: "412.6" is not supported by "412" and "6" in different places.
    """
    known = set(_numbers(evidence)) | set(_numbers(question))
    return tuple(dict.fromkeys(number for number in _numbers(answer) if number not in known))


def _numbers(text: str) -> list[str]:
    return re.findall(r"\d+(?:[.,]\d+)*", narrow(text))


# ---------------------------------------------------------------------------------------------- judging an answer

FINANCE_WORDS = frozenset(
    re.findall(
        r"\w+",
        """asset assets income loss losses revenue sale profit earning margin expense cost charge provision interest tax
    taxe cash debt equity deposit loan liability liabilitie capital dividend share inventory inventorie receivable
    payable goodwill depreciation amortization ebitda ratio rate yield return backlog employee store customer order
    gross net operating basic diluted total current noncurrent short long term investment security securitie
    comprehensive pretax spending expenditure flow""",
    )
)
"""Words of metric names, in `_stem`'s form; one that only the answer has means that it talks of another metric."""

_NEUTRAL = frozenset(
    re.findall(
        r"\w+",
        """a an the of in for to at by on as from with and or its it was were is are be been had has have that this which
    than compared company amounted came stood reached reported recorded generated posted totaled totalled total
    equaled equal fiscal year ended quarter period month day end during million billion thousand percent percentage
    point dollar yuan per about approximately roughly respectively up down rose fell increased decreased grew declined
    dropped rise fall increase decrease growth decline change higher lower more less s ended figure amount value
    answer yes no not between over only all also there""",
    )
)
_UP = re.compile(
    r"\b(?:rose|rise|risen|increas\w+|grew|grow\w*|up|gain\w*|higher|improv\w+|expand\w+|widen\w+)\b|增长|增加|上升|提高|提升|高于"
)
_DOWN = re.compile(
    r"\b(?:fell|fall\w*|decreas\w+|declin\w+|drop\w*|down|lower|shr[aiu]nk\w*|reduc\w+|narrow\w+)\b|下降|减少|降低|下滑|低于"
)
_NO = re.compile(r"\b(?:no|not|never|none|neither|nor)\b|n't\b|不|没有|未|无|否", re.IGNORECASE)
_HAN = re.compile(r"[一-鿿]")
_ZH_NEUTRAL = frozenset(
    "的为是在了于至到共约计达有其该为由从比较同年月日度末初期内公司实现金额合数额元万亿千百个点分美人民币与和及较上下升降增减长少加变动幅率各每，。、"
)
_ZH_METRICS = re.compile(
    r"净|总|毛|流动|归属|扣除|基本|稀释|营业|收入|利润|成本|费用|资产|负债|权益|现金|股利|税|存货|应收|应付|投资|筹资|经营|研发|销售|管理|财务|利息|手续费|存款|贷款|人数|员工"
)
_ROLE = re.compile(r"(?:^|\s)(?:Human|Assistant|User|Question|Answer|Q|A)\s?[:：]|(?:问题|回答|答案)：|<\|?\w+|```")
_DANGLING = re.compile(
    r"(?:\b(?:the|a|an|of|in|for|to|at|by|and|or|from|was|were|is|fiscal|ended|than|per|with|its|as|on)|[$,(，、]|为|的|在|从|至|和|与|较)$",
    re.I,
)


def judge(answer: str, reference: str, question: str) -> Judgement:
    """Say whether `answer` is a right answer to `question`, where `reference` is known to be one.

    Right means: one statement and nothing after it; every amount of the reference, equal in value and unit, and no
    other; no period, entity, metric or direction other than the reference's. A bare "$412.6 million" is right. Where
    the reference has no amount, its content words (or its year) must be there instead.

    Returns:
        The judgement; its fault is the first of empty, run-on, period, figure, missing, extra, entity, metric.
    """
    answer, reference, question = narrow(answer).strip(), narrow(reference).strip(), narrow(question).strip()
    fault = (
        _form_fault(answer, reference)
        or _period_fault(answer, reference, question)
        or _figure_fault(answer, reference, question)
        or _binding_fault(answer, reference)
        or _direction_fault(answer, reference)
        or _word_fault(answer, reference, question)
    )
    return Judgement(not fault, fault)


def _form_fault(answer: str, reference: str) -> Fault:
    if not re.search(r"\w", answer):
        return "empty"
    if _ROLE.search(answer) or len(_sentences(answer)) > len(_sentences(reference)):
        return "run-on"
    if _length(answer) > 1.7 * _length(reference) + 6 or _repeats(answer) - _repeats(reference):
        return "run-on"
    return ""


def _repeats(text: str) -> set[tuple[str, ...]]:
    """Return the pieces (three words, or six Chinese characters) that come more than once: a model that cannot stop."""
    words = [word.lower() for word in re.findall(r"[A-Za-z0-9.,'’$%-]+", text)]
    pieces: list[tuple[str, ...]] = list(zip(words, words[1:], words[2:], strict=False))
    han = re.findall(r"[一-鿿\d.,]", text)
    pieces += [tuple(han[at : at + 6]) for at in range(len(han) - 5)] if len(_HAN.findall(text)) > len(words) else []
    return {piece for piece, count in Counter(pieces).items() if count > 1}


def _sentences(text: str) -> list[str]:
    return [
        part for part in re.split(r"(?<=[.!?])\s+(?=[A-Z\"“(\d])|(?<=[。！？])|\n+", text) if re.search(r"\w", part)
    ]


def _length(text: str) -> int:
    return len(_HAN.findall(text)) + len(re.findall(r"[A-Za-z0-9.,]+", text))


def _amounts(text: str) -> list[Figure]:
    return [figure for figure in find_figures(text) if not (figure.is_date or figure.is_label)]


def _same(one: Figure, other: Figure) -> bool:
    """Equal value and unit; "$1.76" equals "$1.76 per share", where the metric already says so."""
    money = {"currency", "per-share"}
    is_same_unit = one.unit == other.unit or {one.unit, other.unit} <= money
    return is_same_unit and one.value == other.value and one.currency == other.currency


def _has(figure: Figure, others: Iterable[Figure]) -> bool:
    return any(_same(figure, other) for other in others)


def _periods(text: str) -> tuple[set[str], set[str]]:
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


def _period_fault(answer: str, reference: str, question: str) -> Fault:
    years, marks = _periods(answer)
    reference_years, reference_marks = _periods(reference)
    question_years, question_marks = _periods(question)
    allowed = reference_years or question_years
    if reference_years and not _amounts(reference) and _first_year(answer) in reference_years:
        allowed = allowed | question_years  # "higher in 2024 than in 2023" answers "which year?"
    if years - allowed or marks - reference_marks - question_marks:
        return "period"
    if reference_years - question_years - years or (reference_years and not _amounts(reference) and not years):
        return "missing"  # a year that is asked for, not one that the question gave
    return ""


def _first_year(text: str) -> str:
    found = re.search(r"(?:19|20)\d\d", text)
    return found[0] if found else ""


def _figure_fault(answer: str, reference: str, question: str) -> Fault:
    given, wanted = _amounts(answer), _amounts(reference)
    asked = _amounts(question)
    missing = [figure for figure in wanted if not _has(figure, given) and not _has(figure, asked)]
    foreign = [figure for figure in given if not _has(figure, wanted) and not _has(figure, asked)]
    if missing:
        return "figure" if foreign else "missing"
    if foreign:
        return "extra"
    return "extra" if len(given) > len(wanted) + len(asked) else ""


def _binding_fault(answer: str, reference: str) -> Fault:
    """A reference with several amounts and years: each amount must stand with the same year in the answer."""
    wanted, given = _bindings(reference), _bindings(answer)
    if len(set(wanted.values())) < 2:
        return ""
    return "period" if any(given.get(amount, year) != year for amount, year in wanted.items()) else ""


def _bindings(text: str) -> dict[tuple[Decimal, str], int]:
    figures = find_figures(text)
    years = [figure for figure in figures if figure.is_date and 1900 <= figure.value <= 2099]
    amounts = [figure for figure in figures if not (figure.is_date or figure.is_label)]
    if not years:
        return {}
    # Chinese names the period before its amount, English after it: the text's own first piece says which
    before = years[0].start < amounts[0].start if amounts else True
    bound: dict[tuple[Decimal, str], int] = {}
    for amount in amounts:
        side = [year for year in years if (year.start < amount.start) == before] or years
        nearest = min(side, key=lambda year: abs(year.start - amount.start))
        bound[(amount.value, amount.unit)] = int(nearest.value)
    return bound


def _direction_fault(answer: str, reference: str) -> Fault:
    for one, other in ((_UP, _DOWN), (_DOWN, _UP)):
        if one.search(reference) and not other.search(reference) and other.search(answer):
            return "figure" if _amounts(reference) else "metric"
    if bool(_NO.search(answer)) != bool(_NO.search(reference)):
        return "figure" if _amounts(reference) else "metric"
    return ""


def _stem(word: str) -> str:
    word = word.lower().removesuffix("'s").removesuffix("’s")
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def _words(text: str) -> list[str]:
    return re.findall(r"[A-Za-z][A-Za-z&]*(?:['’]s)?", text)


def _word_fault(answer: str, reference: str, question: str) -> Fault:
    if _HAN.search(reference):
        return _han_fault(answer, reference, question)
    if _DANGLING.search(answer):
        return "missing"
    known = {_stem(word) for word in (*_words(reference), *_words(question))} | {_stem(word) for word in _NEUTRAL}
    given = _words(answer)
    unknown = [word for word in given if _stem(word) not in known]
    if any(_stem(word) in FINANCE_WORDS for word in unknown):
        return "metric"
    if any(
        word[0].isupper() and not (position == 0 and word.lower() in _NEUTRAL)
        for position, word in ((given.index(word), word) for word in unknown)
    ):
        return "entity"
    if len(unknown) > max(2, len(given) // 5):
        return "extra"
    stems = {_stem(word) for word in given}
    if not _amounts(reference) and not _year_is_key(reference, question):
        return _content_fault(stems, reference, question)
    metric = {_stem(word) for word in _words(reference)} & FINANCE_WORDS
    return "metric" if metric & stems and metric - stems - {"total"} else ""


def _year_is_key(reference: str, question: str) -> bool:
    return bool(_periods(reference)[0])


def _content_fault(stems: set[str], reference: str, question: str) -> Fault:
    """No amount to check: the reference's own words, those that the question does not already give, must be there."""
    neutral = {_stem(word) for word in _NEUTRAL}
    wanted = {_stem(word) for word in _words(reference)} - neutral
    key = wanted - {_stem(word) for word in _words(question)} or wanted
    found = len(key & stems)
    if found == 0:
        return "metric"
    return "missing" if found < 0.8 * len(key) else ""


def _han_fault(answer: str, reference: str, question: str) -> Fault:
    if _DANGLING.search(answer):
        return "missing"
    bare = _without_figures(answer)
    known = set(_HAN.findall(reference + question)) | _ZH_NEUTRAL
    unknown = "".join(char for char in _HAN.findall(bare) if char not in known)
    foreign_metrics = set(_ZH_METRICS.findall(bare)) - set(_ZH_METRICS.findall(_without_figures(reference) + question))
    if foreign_metrics:
        return "metric"
    if len(unknown) >= 2:
        return (
            "entity"
            if re.search(r"[^，。]{2,}(?:公司|集团|银行|股份|科技)", bare) and unknown[0] in bare[:8]
            else "extra"
        )
    latin = {word.lower() for word in _words(bare)} - {word.lower() for word in _words(reference + " " + question)}
    if latin:
        return "extra"
    if _amounts(reference) or _periods(reference)[0]:
        metric, given = set(_ZH_METRICS.findall(_without_figures(reference))), set(_ZH_METRICS.findall(bare))
        return "metric" if metric & given and metric - given else ""
    key = set(_HAN.findall(reference)) - set(_HAN.findall(question)) - _ZH_NEUTRAL
    key = key or set(_HAN.findall(reference)) - _ZH_NEUTRAL
    found = len(key & set(_HAN.findall(answer)))
    if key and found == 0:
        return "metric"
    return "missing" if found < 0.8 * len(key) else ""


def _without_figures(text: str) -> str:
    for figure in reversed(find_figures(text)):
        text = text[: figure.start] + " " + text[figure.end :]
    return text
