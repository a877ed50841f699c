"""Who a filing is about and which year it reports: cover page, `dei:` facts, title, in that order.

A company that only a sibling file names is found through what the two file names share (`ex21_xom.txt` beside
`xom-10-q.txt`), since an exhibit calls its company "the Registrant".
"""

import re
from dataclasses import dataclass
from pathlib import PurePath

from finlm.figures import narrow
from finlm.language import language_of
from selfqa.blocks import Source

_KEEP_UPPER = {
    "LLC",
    "PLC",
    "USA",
    "US",
    "NV",
    "AG",
    "SA",
    "SE",
    "AB",
    "II",
    "III",
    "IV",
    "NVIDIA",
    "IBM",
    "AMD",
    "HP",
    "UBS",
}
_LOWER = {"of", "and", "the", "for", "de"}
_KIND = (
    r"(?:Inc\.?|Incorporated|Corp\.?|Corporation|Company|Co\.|Ltd\.?|Limited|PLC|plc|Bancorp|Group|Holdings?|LLC"
    r"|L\.P\."
    r"|N\.V\.|S\.A\.|AG|Trust|Bank)"
)
_NAME = re.compile(rf"^([A-Z][\w&.,'’\- ]{{1,70}}?\b{_KIND})(?=$|[\s,.:;—–-])")
_ZH_NAME = re.compile(r"[\u4e00-\u9fffA-Za-z（）()]{2,40}?(?:股份有限公司|有限责任公司|有限公司|集团公司|银行)")


@dataclass(frozen=True, slots=True)
class Filing:
    """What every question about a document must name.

    Example:
        Filing(company="Apple Inc.", short="Apple Inc.", language="en", fiscal_year=2024, months=12)
    """

    company: str
    short: str
    """The name as questions use it: in Chinese the stock's short name where there is one."""
    language: str
    fiscal_year: int
    """0 where it could not be read."""
    months: int
    """Length of the reported period: 12, or 3, 6, 9 for an interim report."""


def read_filing(source: Source) -> Filing:
    """Read language, company and period of a document; `company` is empty where nothing names one."""
    language = language_of(source.text)
    head = narrow(source.text[:6000])
    company = source.names.get("dei:EntityRegistrantName", "") or (
        _chinese_company(source, head) if language == "zh" else _english_company(source, head)
    )
    short = _chinese_short(head, company) if language == "zh" else company
    year, months = _period(source, head, language)
    return Filing(company, short, language, year, months)


def _english_company(source: Source, head: str) -> str:
    exact = re.search(r"([^\n]+?)\s*\n+\s*\(?\s*Exact name of (?:the )?(?:registrant|company)", head, re.IGNORECASE)
    if exact:
        return _title_case(exact[1])
    named = re.search(r"^(?:Company|Registrant|Issuer|Company name)\s*[:|]\s*(.+)$", head, re.IGNORECASE | re.MULTILINE)
    if named:
        return _title_case(named[1])
    if re.search(r"of (?:the )?registrant\b", head[:600], re.IGNORECASE):
        return ""  # an exhibit: the first company in it is a subsidiary
    for line in [source.title, *head.split("\n")[:60]]:
        found = _NAME.match(line.strip("# *|").strip())
        if found:
            return _title_case(found[1])
    return ""


def _title_case(name: str) -> str:
    name = " ".join(name.split()).strip(" *#|")
    if name != name.upper():
        return name
    words = []
    for word in name.split():
        bare = word.strip(".,")
        if bare in _KEEP_UPPER or len(bare) == 1:
            words.append(word)
        else:
            words.append(word.lower() if words and word.lower() in _LOWER else word.capitalize())
    return " ".join(words)


def _chinese_company(source: Source, head: str) -> str:
    for pattern in (
        r"公司的?(?:中文)?名称\s*[|:]\s*([^\n|]+)",
        r"(?:公司|发行人|企业)(?:全称|名称)\s*[|:]\s*([^\n|]+)",
    ):
        found = re.search(pattern, narrow(source.text[:40000]))
        if found and _ZH_NAME.search(found[1]):
            return found[1].strip()
    found = _ZH_NAME.search(head)
    return found[0] if found else ""


def _chinese_short(head: str, company: str) -> str:
    found = re.search(r"(?:证券|股票|公司)的?(?:中文)?简称\s*[|:]\s*([\u4e00-\u9fffA-Za-z]{2,8})", head)
    return found[1] if found else company


def _period(source: Source, head: str, language: str) -> tuple[int, int]:
    focus = source.names.get("dei:DocumentFiscalYearFocus", "")
    quarter = source.names.get("dei:DocumentFiscalPeriodFocus", "FY")
    if focus.isdigit():
        return int(focus), {"Q1": 3, "Q2": 6, "Q3": 9}.get(quarter, 12)
    if language == "zh":
        found = re.search(r"((?:19|20)\d\d)\s*年?\s*(半年度|第?[一三]季度|年?度)?\s*报\s*告", head)
        months = {"半年度": 6, "第一季度": 3, "一季度": 3, "第三季度": 9, "三季度": 9}.get(
            (found[2] or "") if found else "", 12
        )
        return (int(found[1]), months) if found else (_first_year(head), 12)
    found = re.search(
        r"(fiscal\s+year|quarter(?:ly\s+period)?|year)\s+ended:?\s+[A-Za-z]+\s+\d{1,2},?\s+((?:19|20)\d\d)",
        head,
        re.IGNORECASE,
    )
    if found:
        return int(found[2]), 3 if found[1].lower().startswith("quarter") else 12
    annual = re.search(r"(?:annual report|fiscal(?: year)?|10-K)\D{0,20}((?:19|20)\d\d)", head, re.IGNORECASE)
    return (int(annual[1]) if annual else _first_year(head)), 12


def _first_year(head: str) -> int:
    found = re.search(r"(?<!\d)((?:19|20)\d\d)(?!\d)", head)
    return int(found[1]) if found else 0


def borrowed_name(path: str, named: dict[str, str]) -> str:
    """Return the company of the only sibling whose file name shares a telling word with `path`.

    Args:
        path: The nameless file.
        named: Path -> company of the other files.
    """
    words = _stem_words(path)
    found = {company for other, company in named.items() if words & _stem_words(other)}
    return found.pop() if len(found) == 1 else ""


def _stem_words(path: str) -> set[str]:
    common = {
        "txt",
        "html",
        "htm",
        "pdf",
        "md",
        "ex",
        "exhibit",
        "form",
        "report",
        "annual",
        "quarterly",
        "filing",
        "doc",
    }
    words = set(re.findall(r"[a-z]{3,}", PurePath(path).name.lower()))
    return words - common
