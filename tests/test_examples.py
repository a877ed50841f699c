"""The examples are sound: every figure adds up, every record loads, every company is invented.

Nothing here knows how the files were made: tables are read back from what a reader sees.
"""

import html
import itertools
import re
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from ixbrlparse import IXBRL
from lxml import etree
from lxml import html as lxml_html

from finlm import jsonl
from finlm.records import ChoiceItem, Conversation, Prompt

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
FILINGS = sorted((EXAMPLES / "filings").iterdir())
INLINE = [path for path in FILINGS if path.suffix == ".html" and "<ix:header>" in path.read_text(encoding="utf-8")]
NAMES = [path.name for path in FILINGS]


# ------------------------------------------------------------------------------------------- what a reader sees


@dataclass(frozen=True, slots=True)
class Row:
    label: str
    values: tuple[float, ...]


FIGURE = re.compile(
    r"(?P<open>\(?-?)\s*\$?\s*(?P<digits>\d[\d,]*(?:\.\d+)?)\s*\)?\s*[%x]?|(?P<none>—|(?<=\s)-(?=\s|$))"
)


def figures(text: str) -> tuple[float, ...]:
    """The figures of a row of cells; a figure in brackets or after a minus is negative, a dash is zero."""
    values = []
    for match in FIGURE.finditer(text.replace("$(", "(")):
        if match["none"]:
            values.append(0.0)
        else:
            value = float(match["digits"].replace(",", ""))
            values.append(-value if match["open"] else value)
    return tuple(values)


GROWTH_LAST = [[digit, "%"] for digit in "0123456789"]
"""Endings of the last two cells of a row whose last column is a growth rate."""


def html_tables(text: str) -> list[list[Row]]:
    tree = lxml_html.fromstring(text.encode("utf-8"), parser=lxml_html.HTMLParser(encoding="utf-8"))
    tables = []
    for table in tree.iter("table"):
        rows = []
        for line in table.iter("tr"):
            cells = [" ".join("".join(cell.itertext()).split()) for cell in line.iter("td")]
            if len(cells) > 2 and (cells[-1].endswith("百分点") or [cell[-1:] for cell in cells[-2:]] in GROWTH_LAST):
                cells.pop()
            if cells and cells[0]:
                rows.append(Row(cells[0], figures(" " + " ".join(cells[1:]) + " ")))
        tables.append(rows)
    return tables


def markdown_tables(text: str) -> list[list[Row]]:
    tables: list[list[Row]] = []
    for block in re.split(r"\n\n", text):
        if block.startswith("|"):
            lines = [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in block.splitlines()[2:]]
            tables.append([Row(cells[0], figures(" " + " ".join(cells[1:]) + " ")) for cells in lines])
    return tables


def text_tables(text: str) -> list[list[Row]]:
    """Tables of aligned columns: lines that end in figures, after a gap or leading dots."""
    tables: list[list[Row]] = [[]]
    unfinished = ""
    for line in text.splitlines():
        match = re.match(r"(?P<label>\s*\S.*?)(?:\s\.{2,}|\s{2,})(?P<cells>[\s$(]*(?:-|\d)[\d,.%$()\s-]*)$", line)
        if match and not re.search(r"-{3,}|={3,}", line) and not match["label"].strip("-= ").isdigit():
            tables[-1].append(Row(f"{unfinished} {match['label']}".strip(), figures(match["cells"] + " ")))
            unfinished = ""
        elif not line.strip():
            tables.append([])
            unfinished = ""
        else:
            unfinished = line.strip() if re.match(r"\s*[A-Za-z]", line) else ""
    return [table for table in tables if len(table) > 1]


def tables_of(path: Path) -> list[list[Row]]:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".html":
        return html_tables(text)
    return markdown_tables(text) if path.suffix == ".md" else text_tables(text)


def prose_of(path: Path) -> str:
    """The running text, without tables and without the hidden header."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".html":
        text = re.sub(r"<ix:header>.*?</ix:header>|<table.*?</table>", " ", text, flags=re.S)
        text = html.unescape(re.sub(r"<[^>]+>", " ", text))
    return " ".join(text.split())


# ----------------------------------------------------------------------------------------------- statements add up

TOTAL = re.compile(
    r"^\W*("
    r"total\b|gross (profit|margin)\b|net interest income\b|net (income|loss|earnings)\b(?!.*per)|shipping revenues$"
    r"|(operating|segment) (income|profit)\b(?! margin)|net operating income\b"
    r"|(income|loss|earnings) (\(loss\) )?(from|before)|net (loans|real estate|utility plant|oil)\b"
    r"|funds from operations$|combined ratio|stores open at end|end of year$"
    r")|(合计|总计)$|(^|、)(营业利润|利润总额|净利润)|^归属于母公司股东的净利润$",
    re.IGNORECASE,
)
LONGEST_SUM = 12


def is_sum(parts: list[Row], total: Row) -> bool:
    """True if some choice of signs makes every column of `parts` add up to `total`.

    Expenses are printed without a minus, so signs have to be found; that two or three columns agree by chance is as
    unlikely as their figures are long.
    """
    width = len(total.values)
    if any(len(part.values) < width for part in parts):
        return False
    for signs in itertools.product((1, -1), repeat=len(parts)):
        if all(
            abs(sum(sign * part.values[i] for sign, part in zip(signs, parts, strict=True)) - total.values[i]) < 0.006
            for i in range(width)
        ):
            return True
    return False


def check_totals(path: Path) -> tuple[int, list[str]]:
    """Count the totals that follow from the rows before them, and name those that do not."""
    explained, unexplained = 0, []
    seen: set[tuple[float, ...]] = set()
    for table in tables_of(path):
        pending: list[Row] = []
        rows = [row for row in table if row.values]
        for index, row in enumerate(rows):
            # Chinese statements name a total first and its parts, introduced by 其中 or indented, after it
            later = next((n for n in range(2, 9) if is_sum(rows[index + 1 : index + 1 + n], row)), 0)
            earlier = next((n for n in range(1, LONGEST_SUM) if n <= len(pending) and is_sum(pending[-n:], row)), 0)
            is_total, is_chinese = bool(TOTAL.search(row.label)), bool(re.search(r"[一-鿿]", row.label))
            if is_total and earlier:
                del pending[-earlier:]
            if (is_total and (earlier or row.values in seen)) or (is_chinese and later):
                explained += 1
            elif is_total:
                unexplained.append(f"{row.label}: {row.values}")
            pending.append(row)
            seen.add(row.values)
    return explained, unexplained


@pytest.mark.parametrize("path", FILINGS, ids=NAMES)
def test_totals_follow_from_their_parts(path: Path) -> None:
    explained, unexplained = check_totals(path)
    assert not unexplained
    assert explained >= 4


def test_enough_totals_are_checked() -> None:
    assert sum(check_totals(path)[0] for path in FILINGS) >= 300


def test_a_wrong_figure_is_found(tmp_path: Path) -> None:
    good = EXAMPLES / "filings" / "old-quarrymen-brewing-10-k-2024.md"
    bad = tmp_path / good.name
    bad.write_text(good.read_text(encoding="utf-8").replace("| 138,744 |", "| 138,745 |"), encoding="utf-8")
    assert any("Gross profit" in text for text in check_totals(bad)[1])


ASSETS = re.compile(r"^\W*(total assets|资产总计)$", re.IGNORECASE)
CLAIMS = re.compile(r"^\W*(total (liabilities|capitalization) and .*|负债和(股东|所有者)权益总计)$", re.IGNORECASE)


@pytest.mark.parametrize("path", FILINGS, ids=NAMES)
def test_balance_sheets_balance(path: Path) -> None:
    rows = [row for table in tables_of(path) for row in table]
    assets = [row.values for row in rows if ASSETS.match(row.label)]
    claims = [row.values for row in rows if CLAIMS.match(row.label)]
    if "业绩快报" in path.name:
        held, owed, own = (
            [row.values[:2] for row in rows if row.label == name] for name in ("总资产", "总负债", "所有者权益")
        )
        assert [round(owed[0][i] + own[0][i], 2) for i in range(2)] == list(held[0])
    else:
        assert len(assets) == 1
        assert assets == claims


@pytest.mark.parametrize("path", FILINGS, ids=NAMES)
def test_earnings_per_share_are_earnings_over_shares(path: Path) -> None:
    rows = [row for table in tables_of(path) for row in table if row.values]
    per_share = [
        row
        for row in rows
        if re.search(r"per (\w+ )*(common )?share|^net (income|loss).*per|每股收益", row.label, re.I)
    ]
    per_share = [row for row in per_share if not re.search("dividend|funds", row.label, re.I)]
    shares = [row for row in rows if re.search(r"\bshares\b|股本", row.label, re.I) and row not in per_share]
    earnings = [row for row in rows if re.match(r"\W*net (income|loss|earnings)|归属于.*净利润", row.label, re.I)]
    for row in per_share:
        fits = (
            all(
                round(e.values[i] / s.values[i], 2) == pytest.approx(row.values[i], abs=0.0051)
                for i in range(len(s.values))
            )
            for e, s in itertools.product(earnings, shares)
            if len(e.values) == len(s.values) == len(row.values)
        )
        assert not shares or any(fits), row


# ----------------------------------------------------------------------------------------- sentences follow tables

RISE = "rose|increased|grew|improved"
FALL = "fell|decreased|declined"
GROWTH = re.compile(
    rf"(?P<verb>{RISE}|{FALL}) (?P<percent>\d+\.\d)% to \$?(?P<now>[\d,]+(?:\.\d+)?)(?: (?P<unit>million|billion))?"
    r"(?:[^.;]{0,40}? from \$(?P<before>[\d,]+(?:\.\d+)?) (?:million|billion))?"
)
GROWTH_ZH = re.compile(
    r"(?P<now>\d[\d,]*\.\d\d)(?P<unit>亿元|万元)[，,](?:同比|比上年末|比期初)(?P<verb>增长|下降)(?P<percent>\d+\.\d\d)%"
)
SCALES = {
    "million": (1, 1e3, 1e6),
    "billion": (1, 1e3, 1e6, 1e9),
    "万元": (1, 10, 1e4),
    "亿元": (1e4, 1e5, 1e8),
    "": (1, 1e-3),
}


def follows(rows: list[Row], now: str, unit: str, percent: str, is_rise: bool) -> bool:
    """True if some row has two figures, the first of which is `now`, that differ by `percent`."""
    value, places = float(now.replace(",", "")), len(now.partition(".")[2])
    rate, rate_places = float(percent), len(percent.partition(".")[2])
    for row, scale in itertools.product(rows, SCALES[unit]):
        for one, other in itertools.pairwise(abs(figure) for figure in row.values):
            growth = 100 * (one / other - 1) if other else 0.0
            if (
                abs(one / scale - value) <= 0.5001 * 10**-places
                and abs(abs(growth) - rate) <= 0.5001 * 10**-rate_places
                and (growth > 0) == is_rise
            ):
                return True
    return False


@pytest.mark.parametrize("path", FILINGS, ids=NAMES)
def test_growth_rates_follow_from_the_tables(path: Path) -> None:
    rows = [row for table in tables_of(path) for row in table]
    text = prose_of(path)
    found = 0
    for match in itertools.chain(GROWTH.finditer(text), GROWTH_ZH.finditer(text)):
        is_rise = match["verb"] in {*RISE.split("|"), "增长"}
        assert follows(rows, match["now"], match["unit"] or "", match["percent"], is_rise), match[0]
        found += 1
    assert found >= 3


def test_enough_sentences_are_checked() -> None:
    found = sum(len(GROWTH.findall(prose_of(path))) + len(GROWTH_ZH.findall(prose_of(path))) for path in FILINGS)
    assert found >= 150


SHARE = re.compile(
    r"\$(?P<part>[\d,.]+) million, or (?P<percent>\d+\.\d)% of (?:total )?(?:revenues?|net (?:revenue|sales))"
)


def test_margins_follow_from_the_tables() -> None:
    found = 0
    for path in FILINGS:
        rows = [row for table in tables_of(path) for row in table]
        for match in SHARE.finditer(prose_of(path)):
            part, rate = float(match["part"].replace(",", "")), float(match["percent"])
            fits = (
                abs(100 * abs(a.values[0] / b.values[0]) - rate) <= 0.05001
                for a, b in itertools.product(rows, rows)
                if a.values and b.values and b.values[0]
                if min(abs(abs(a.values[0]) / scale - part) for scale in (1, 1000)) <= 0.05001
            )
            assert any(fits), (path.name, match[0])
            found += 1
    assert found >= 8


# ----------------------------------------------------------------------------------------------------- inline XBRL

IX = "{http://www.xbrl.org/2013/inlineXBRL}"
UNITS = {"thousands": 1_000, "millions": 1_000_000}


def test_formats_are_mixed() -> None:
    kinds = Counter(
        "zh" if re.search(r"[一-鿿]", path.name) else "ixbrl" if path in INLINE else path.suffix for path in FILINGS
    )
    assert kinds == {"ixbrl": 8, ".html": 4, ".txt": 7, ".md": 3, "zh": 6}


@pytest.mark.parametrize("path", INLINE, ids=[path.name for path in INLINE])
def test_facts_equal_the_visible_figures(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Format ixt:date-monthname-day-year-en not implemented")
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # ixbrlparse calls Beautiful Soup's old names
        parsed = IXBRL.open(path)
    assert not parsed.errors
    tree = etree.parse(path)
    elements = list(tree.iter(f"{IX}nonFraction"))
    assert len(elements) == len(parsed.numeric) >= 40
    facts: dict[tuple[str, str], float] = {}
    for element, fact in zip(elements, parsed.numeric, strict=True):
        shown = figures(f" {''.join(element.itertext())} ")
        factor = caption_of(element) if element.get("unitRef") in ("usd", "shares") else 1
        factor = 0.01 if element.get("scale") == "-2" else factor
        assert fact.value == pytest.approx((-1 if element.get("sign") else 1) * shown[0] * factor), element.get("id")
        known = facts.setdefault((element.get("name"), element.get("contextRef")), fact.value)
        assert known == fact.value, f"two values of {element.get('name')}"


def caption_of(element: etree._Element) -> int:
    """The unit in the caption above the element's table."""
    table = next(element.iterancestors("{http://www.w3.org/1999/xhtml}table"))
    for sibling in table.itersiblings(preceding=True):
        unit = re.search(r"in (thousands|millions)", "".join(sibling.itertext()).lower())
        if unit:
            return UNITS[unit[1]]
    raise AssertionError("a table of facts has no unit")


@pytest.mark.parametrize("path", INLINE, ids=[path.name for path in INLINE])
def test_contexts_match_the_column_heads(path: Path) -> None:
    tree = etree.parse(path)
    ends = {
        context.get("id"): context.findtext(".//{*}endDate") or context.findtext(".//{*}instant")
        for context in tree.iter("{*}context")
    }
    fiscal = "pellworth" in path.name  # its fiscal 2024 ends in 2025
    checked = 0
    for table in tree.iter("{*}table"):
        rows = [["".join(cell.itertext()) for cell in row.iter("{*}td")] for row in table.iter("{*}tr")]
        heads = next((row for row in rows if len(re.findall(r"\b20\d\d", " ".join(row))) >= 2), [])
        years = re.findall(r"\b20\d\d", " ".join(heads))
        for row in table.iter("{*}tr"):
            contexts = [fact.get("contextRef") for fact in row.iter(f"{IX}nonFraction")]
            if len(contexts) == len(years) and not (fiscal and "Fiscal" in " ".join(heads)):
                assert [str(ends[context])[:4] for context in contexts] == years
                checked += 1
    assert checked >= 10


def test_cover_pages_name_the_company() -> None:
    for path in INLINE:
        text = path.read_text(encoding="utf-8")
        names = re.findall(r'name="dei:EntityRegistrantName"[^>]*>([^<]+)<', text)
        ends = re.findall(r'name="dei:DocumentPeriodEndDate"[^>]*>([^<]+)<', text)
        assert len(names) == len(ends) == 1
        assert path.name.startswith(names[0].split()[0].lower())
        assert ends[0].split()[-1] in re.search(r"For the [^<]*(<[^>]+>)?[^<]*20\d\d", text)[0]  # type: ignore[index]


# ------------------------------------------------------------------------------------------------------- the rest

REAL = (
    "apple microsoft amazon alphabet google nvidia tesla exxon chevron jpmorgan citigroup walmart costco boeing delta "
    "pfizer merck intel ibm oracle netflix disney nike starbucks ford toyota samsung sony siemens nestle unilever "
    "茅台 农夫山泉 工商银行 建设银行 平安 腾讯 阿里巴巴 百度 华为 比亚迪 宁德时代 万科 格力 美的 中国石油 中国移动"
)


@pytest.mark.parametrize("path", FILINGS, ids=NAMES)
def test_no_real_company_is_named(path: Path) -> None:
    text = prose_of(path).lower()
    assert not [name for name in REAL.split(" ") if re.search(rf"\b{name}\b" if name.isascii() else name, text)]


def test_every_file_is_utf8_and_tidy() -> None:
    paths = [path for path in EXAMPLES.rglob("*") if path.is_file()]
    assert len(paths) >= 36
    for path in paths:
        text = path.read_bytes().decode("utf-8")
        assert "\r" not in text
        assert "\ufffd" not in text
        assert text.endswith("\n")
        assert not re.search(r"\{[a-z_]|=rev|TODO|None", text) or path.suffix == ".jsonl", path.name


def test_chinese_filings_are_chinese() -> None:
    chinese = [path for path in FILINGS if re.search(r"[一-鿿]", path.name)]
    assert len(chinese) == 6
    for path in chinese:
        assert len(re.findall(r"[一-鿿]", prose_of(path))) > 400


def test_filings_have_a_readers_length() -> None:
    for path in FILINGS:
        letters = len(prose_of(path)) + sum(len(row.label) + 10 * len(row.values) for t in tables_of(path) for row in t)
        assert 1_200 <= letters <= 11_000, path.name


def test_instructions_load() -> None:
    rows = list(jsonl.read(EXAMPLES / "instructions" / "general.jsonl", Conversation))
    assert Counter(row.category for row in rows) == {"general": 80, "safety": 10}
    assert Counter(row.language for row in rows)["zh"] == 17
    assert len({row.id for row in rows}) == len(rows)
    assert all(len(row.messages[-1].content.split()) <= 40 for row in rows)
    assert all(row.provenance is not None for row in rows)


def test_prompts_load() -> None:
    rows = list(jsonl.read(EXAMPLES / "prompts" / "new.jsonl", Prompt))
    assert Counter(row.category for row in rows) == {"finance": 22, "general": 12, "safety": 6}
    assert {row.source for row in rows} == {"examples"}
    assert not any(row.reference for row in rows)
    asked = {row.messages[0].content for row in jsonl.read(EXAMPLES / "instructions" / "general.jsonl", Conversation)}
    assert not asked & {row.messages[0].content for row in rows}


def test_choice_items_load_and_are_balanced() -> None:
    rows = list(jsonl.read(EXAMPLES / "evaluation" / "basics.jsonl", ChoiceItem))
    assert len(rows) == len({row.id for row in rows}) == 60
    assert {row.benchmark for row in rows} == {"finlm-basics"}
    assert set(Counter(row.answer for row in rows).values()) == {15}
    assert {row.subject for row in rows} == {"accounting", "markets", "banking", "regulation", "general"}
    assert sum(row.subject != "general" for row in rows) >= 30
    for row in rows:
        assert len(set(row.choices)) == 4, row.question
    # neither the longest nor the shortest choice is a good guess: chance is 15 of 60
    longest = sum(max(row.choices, key=len) == row.choices[row.answer] for row in rows)
    assert longest <= 30


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("general_en", 12_000, 20_000),
        ("finance_en", 12_000, 20_000),
        ("general_zh", 6_000, 10_000),
        ("finance_zh", 6_000, 10_000),
    ],
)
def test_texts_have_paragraphs(name: str, least: int, most: int) -> None:
    text = (EXAMPLES / "text" / f"{name}.txt").read_text(encoding="utf-8")
    assert least <= len(text.encode("utf-8")) <= most
    paragraphs = text.strip().split("\n\n")
    assert len(paragraphs) >= 15
    assert all("\n" not in paragraph for paragraph in paragraphs)
    assert len(set(paragraphs)) == len(paragraphs)
