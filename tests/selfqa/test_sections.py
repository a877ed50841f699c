"""Sections as the forms number them, boilerplate in both languages, and passages that lose no character."""

import random
from itertools import pairwise
from pathlib import Path

import pytest

from selfqa.background import backgrounds
from selfqa.blocks import Source
from selfqa.formats.triples import Triple, read_triples
from selfqa.markup import read_html
from selfqa.plain import read_markdown, read_text
from selfqa.reading import read_file
from selfqa.sections import Sections, is_section_title, outline_of, sections_of
from selfqa.zones import zones_of

# Form 10-K's items (SEC, instructions to Form 10-K); 1C came in with fiscal years that end after 15 December 2023
FORM_10K = "1 1A 1B 2 3 4 5 6 7 7A 8 9 9A 9B 9C 10 11 12 13 14 15 16"


def real(shared_data: Path, pattern: str) -> Source:
    (path,) = (shared_data / "filings").rglob(pattern)
    (source,) = read_file(path, path.parent)
    assert isinstance(source, Source)
    return source


def names(sections: Sections) -> list[str]:
    """The names of sections in their order, each once."""
    return list(dict.fromkeys(section.name for section in sections.all if section.name))


def kinds(sections: Sections) -> list[str]:
    found = [section.kind for section in sections.all]
    return [kind for at, kind in enumerate(found) if at == 0 or kind != found[at - 1]]


@pytest.mark.parametrize(("pattern", "items"), [("Nvidia*", FORM_10K), ("aapl-10-k*", FORM_10K.replace("1B", "1B 1C"))])
def test_every_item_of_a_10k(pattern: str, items: str, shared_data: Path) -> None:
    source = real(shared_data, pattern)
    sections = sections_of(source.text)
    found = [name.partition("Item ")[2].partition(".")[0] for name in names(sections) if "Item" in name]
    assert found == items.split()
    parts = {name.partition("Item ")[2].partition(".")[0]: name.partition(",")[0] for name in names(sections)}
    assert [parts[item] for item in ("1", "4", "5", "9C", "10", "14", "15", "16")] == [
        f"Part {part}" for part in ("I", "I", "II", "II", "III", "III", "IV", "IV")
    ]
    assert kinds(sections) == ["cover", "contents", "body", "exhibits", "body", "signatures"]
    for section in sections.all:
        title = section.name.partition("Item ")[2]
        if section.kind == "body" and title:
            assert source.text[section.start :].lstrip().lower().startswith(f"item {title[:12].lower()}")
    discussion = next(section for section in sections.all if "Item 7. " in section.name)
    assert "discussion and analysis" in discussion.name.lower()


@pytest.mark.parametrize(
    ("pattern", "first", "second"),
    [
        ("aapl-10-q*", "1 2 3 4", "1 1A 2 3 4 5 6"),
        ("ibm-10-q*", "1 2 4", "1 2 5 6"),
        ("xom-10-q*", "1 2 3 4", "1 2 5 6"),
    ],
)
def test_the_two_parts_of_a_10q(pattern: str, first: str, second: str, shared_data: Path) -> None:
    """As the table of contents of each filing lists them, read by eye."""
    sections = sections_of(real(shared_data, pattern).text)
    expected = [f"Part I, Item {item}" for item in first.split()] + [f"Part II, Item {item}" for item in second.split()]
    assert [name.partition(".")[0] for name in names(sections) if "Item" in name] == expected
    assert kinds(sections) == ["cover", "contents", "body", "exhibits", "signatures"]


def test_the_thirteen_chapters_of_an_annual_report(shared_data: Path) -> None:
    """The chapters that the CSRC's format of 2017 has (公开发行证券的公司信息披露内容与格式准则第2号)."""
    source = real(shared_data, "2020-01-21*")
    sections = sections_of(source.text)
    assert names(sections) == [
        "第一节 重要提示、目录和释义",
        "第二节 公司简介和主要财务指标",
        "第三节 公司业务概要",
        "第四节 经营情况讨论与分析",
        "第五节 重要事项",
        "第六节 股份变动及股东情况",
        "第七节 优先股相关情况",
        "第八节 可转换公司债券相关情况",
        "第九节 董事、监事、高级管理人员和员工情况",
        "第十节 公司治理",
        "第十一节 公司债券相关情况",
        "第十二节 财务报告",
        "第十三节 备查文件目录",
    ]
    assert kinds(sections) == ["cover", "notice", "contents", "body", "exhibits"]
    glossary = source.text.index("释义项 | 指")
    assert sections.at(glossary).kind == "body"


REPORT = """Alder Foods, Inc.

Annual report 2024

TABLE OF CONTENTS

Item 1. Business 3
Item 1A. Risk Factors 5
Item 7. Discussion 9
Item 15. Exhibits and Schedules 20
Signatures 22

Item 1. Business

We sell cheese. Item 7. Discussion says how much of it.

Item 7 of this report has the figures, and so has Item 1A.

Item 1A. Risk Factors

Milk may become dear in the years to come.

See also

Item 1. Business

for what that means to us.

Item 7. Discussion

Sales of cheese rose by 7.4% in 2024.

Item 15. Exhibits and Schedules

The schedules follow.

Exhibit Number Description

3.1 Articles of incorporation

SIGNATURES

Pursuant to the requirements of the Securities Exchange Act of 1934, signed by Mary Fell.
"""


def test_references_are_no_sections() -> None:
    sections = sections_of(REPORT)
    assert names(sections) == [
        "Item 1. Business",
        "Item 1A. Risk Factors",
        "Item 7. Discussion",
        "Item 15. Exhibits and Schedules",
        "Signatures",
    ]
    assert kinds(sections) == ["cover", "contents", "body", "exhibits", "signatures"]
    assert REPORT[sections.all[2].start :].startswith("Item 1. Business\n\nWe sell")
    assert sections.at(REPORT.index("3.1 Articles")).kind == "exhibits"
    assert sections.at(REPORT.index("The schedules")).kind == "body"


@pytest.mark.parametrize(
    ("line", "is_title"),
    [
        ("Item 7. Management’s Discussion and Analysis", True),
        ("ITEM 1A.", True),
        ("Part II, Item 1A. Risk Factors", True),
        ("PART II — OTHER INFORMATION", True),
        ("Item 7. | Management’s Discussion", True),
        ("第十二节 财务报告", True),
        ("第二节公司简介和主要财务指标", True),
        ("Item 402 of Regulation S-K", False),
        ("Item 1A of this report describes what may happen", False),
        ("Items of interest", False),
        ("Part of the increase came from prices", False),
        ("第二季度 收入", False),
        ("第一节所述的风险，包括汇率。", False),
    ],
)
def test_titles(line: str, is_title: bool) -> None:
    assert is_section_title(line) is is_title


def test_a_place_is_told_by_section_and_heading() -> None:
    source = read_markdown(
        f"{REPORT}\n## Gross Margin\n\nIt rose to 41% in 2024.\n".replace("Sales of", "# Sales\n\nSales of")
    )
    outline = outline_of(source)
    assert outline.path(source.text.index("Sales of cheese")) == "Item 7. Discussion > Sales"
    assert outline.path(source.text.index("Milk may")) == "Item 1A. Risk Factors"
    assert outline.path(source.text.index("Annual report")) == "Annual report 2024"


def test_a_running_head_heads_nothing() -> None:
    page = "<h2>青禾食品2024年年度报告</h2><p>正文{}</p>"
    pages = "".join(page.format(number) for number in range(9))
    source = read_html(f"<html><body><h2>概述</h2>{pages}</body></html>")
    assert outline_of(source).path(len(source.text) - 3) == "概述"


# ---------------------------------------------------------------------------------------------- passages


WORDS = "net sales rose fell margin of the company in 2024 营业收入 增长 12.3% $1,234 。 . ( ) — ’"


def made_up(seed: int) -> Source:
    """A document of random headings, paragraphs and tables, in one of four formats."""
    draw = random.Random(seed)
    words = WORDS.split()

    def text(most: int) -> str:
        return " ".join(draw.choice(words) for _ in range(draw.randint(1, most)))

    parts: list[str] = []
    form = draw.choice(["html", "markdown", "text", "graph"])
    if form == "graph":
        return read_triples(Triple(text(3), text(2), text(40)) for _ in range(draw.randint(1, 30)))
    for _ in range(draw.randint(1, 40)):
        kind = draw.choice(["heading", "paragraph", "paragraph", "table", "long"])
        if kind == "table":
            rows = [[text(2), *(f"{draw.randint(1, 9999):,}" for _ in range(2))] for _ in range(draw.randint(1, 60))]
            if form == "html":
                cells = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
                parts.append(f"<table>{cells}</table>")
            else:
                bar = "| " if form == "markdown" else ""
                parts.append(
                    "\n".join(bar + (" | " if bar else "   ").join(row) + (" |" if bar else "") for row in rows)
                )
        else:
            body = text(600 if kind == "long" else 60)
            mark = {"html": "<h2>{}</h2>", "markdown": "# {}", "text": "{}"}[form] if kind == "heading" else "{}"
            parts.append(mark.format(body[:80] if kind == "heading" else f"<p>{body}</p>" if form == "html" else body))
    joined = "\n\n".join(parts)
    return {"html": read_html, "markdown": read_markdown, "text": read_text}[form](joined)


def check_passages(source: Source, limit: int) -> None:
    """Every character of a block that is no heading is in one passage, kept or dropped; none is in two."""
    kept, dropped = backgrounds(source, limit, 0)
    spans = sorted([(piece.start, piece.end) for piece in kept] + [(drop.start, drop.end) for drop in dropped])
    assert all(0 <= start < end <= len(source.text) for start, end in spans)
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    covered = bytearray(len(source.text))
    for start, end in spans:
        covered[start:end] = b"\1" * (end - start)
    for block in source.blocks:
        if block.kind != "heading":
            lost = [at for at in range(block.start, block.end) if not covered[at] and not source.text[at].isspace()]
            assert lost == []
    for drop in dropped:
        assert source.text[drop.start : drop.end].startswith(drop.text)
    longest = max((len(one) for one in source.text.split("\n")), default=0)
    assert all(piece.end - piece.start <= max(2 * limit, limit + longest) for piece in kept)


@pytest.mark.parametrize("seed", range(120))
def test_passages_of_any_document_lose_nothing(seed: int) -> None:
    source = made_up(seed)
    for block in source.blocks:
        assert source.text[block.start : block.end].strip()
        for row in block.rows:
            for cell in row.cells:
                assert source.text[cell.start : cell.end] == cell.text or "\n" in source.text[cell.start : cell.end]
    for limit in (120, 2400):
        check_passages(source, limit)


def test_passages_of_real_filings_lose_nothing_and_hold_no_boilerplate(shared_data: Path) -> None:
    for path in (shared_data / "filings").rglob("*.*"):
        (source,) = read_file(path, path.parent)
        assert isinstance(source, Source)
        check_passages(source, 2400)
        kept, _ = backgrounds(source, 2400, 0)
        text = "\n".join(source.text[piece.start : piece.end] for piece in kept)
        for boilerplate in (
            "Indicate by check mark",
            "duly caused this report to be signed",
            "Articles of Incorporation",
            "不存在虚假记载、误导性陈述或重大遗漏",
            "........",
        ):
            assert boilerplate not in text, f"{path.name}: {boilerplate}"


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("□ 适用 √ 不适用\n\n公司报告期无重大诉讼、仲裁事项。", "passage-not-applicable"),
        ("√ 适用 □ 不适用\n\n报告期内，公司前五名客户合计销售金额为206,860,533.40元，占年度销售总额的65.05%。", ""),
        (
            "The Company furnished the exhibit index below, incorporated by reference to its report.",
            "passage-boilerplate",
        ),
        ("Table of Contents\n\nNet sales of cheese rose by 7.4% in 2024, as prices rose in all markets.", ""),
    ],
)
def test_what_is_boilerplate(text: str, rule: str) -> None:
    kept, dropped = backgrounds(read_text(text), 2400, 0)
    assert [drop.rule for drop in dropped] == ([rule] if rule else [])
    assert len(kept) == (0 if rule else 1)


def test_an_index_of_the_statements_begins_no_notes() -> None:
    """A 10-K's Item 8 lists its statements and notes before they come."""
    page = "\n\n".join(
        [
            "# Item 8. Financial Statements and Supplementary Data",
            "Index to Consolidated Financial Statements",
            "Notes to Consolidated Financial Statements",
            "Report of the auditors. " * 100,
            "| Balance sheet | 2024 |\n|---|---|\n| Cash | 120 |",
            "# Notes to Consolidated Financial Statements",
            "Note 1 – Summary of policies",
        ]
    )
    source = read_markdown(page)
    zones = zones_of(source)
    assert zones.at(source.text.index("Cash")) == "statements"
    assert zones.at(source.text.index("Summary of policies")) == "notes"
