"""One statement of income in every format, in both languages: the same facts, with unit, sign and period."""

import io
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import docx
import openpyxl
import pytest
from reportlab.lib import colors
from reportlab.lib.styles import ParagraphStyle
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from reportlab.platypus import Paragraph, SimpleDocTemplate, Table, TableStyle

from selfqa.background import backgrounds
from selfqa.blocks import Source
from selfqa.entities import read_filing
from selfqa.extractive import extract
from selfqa.reading import read_file

Rows = list[list[str]]

ENGLISH = (
    [
        "Alder Foods, Inc.",
        "Annual report for the fiscal year ended December 31, 2024",
        "Consolidated Statements of Income",
    ],
    "(In millions, except per share data)",
    [
        ["", "Year ended December 31,", ""],
        ["", "2024", "2023"],
        ["Net sales", "$812.4", "$790.1"],
        ["Operating loss", "(58.3)", "(41.7)"],
        ["Diluted earnings per share", "$1.76", "$1.52"],
    ],
)
ENGLISH_FACTS = {
    "Alder Foods, Inc.'s net sales were $812.4 million in fiscal 2024.",
    "Alder Foods, Inc.'s net sales were $790.1 million in fiscal 2023.",
    "Alder Foods, Inc.'s operating loss was $58.3 million in fiscal 2024.",
    "Alder Foods, Inc.'s operating loss was $41.7 million in fiscal 2023.",
    "Alder Foods, Inc.'s diluted earnings per share were $1.76 in fiscal 2024.",
    "Alder Foods, Inc.'s diluted earnings per share were $1.52 in fiscal 2023.",
}
CHINESE = (
    ["青禾食品股份有限公司2024年年度报告", "第十节 财务报告", "合并利润表"],
    "单位：万元",
    [
        ["项目", "2024年", "2023年"],
        ["营业收入", "1,234.56", "1,100.00"],
        ["营业成本", "800.00", "700.00"],
        ["投资收益", "-12.30", "4.50"],
    ],
)
CHINESE_FACTS = {
    "青禾食品股份有限公司2024年营业收入为1,234.56万元。",
    "青禾食品股份有限公司2023年营业收入为1,100.00万元。",
    "青禾食品股份有限公司2024年营业成本为800.00万元。",
    "青禾食品股份有限公司2023年营业成本为700.00万元。",
    "青禾食品股份有限公司2023年投资收益为4.50万元。",
}
Statement = tuple[list[str], str, Rows]


def html(statement: Statement) -> bytes:
    lines, unit, rows = statement
    table = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    table = table.replace("<td>Year ended December 31,</td><td></td>", "<td colspan=2>Year ended December 31,</td>")
    above = "".join(f"<p>{line}</p>" for line in [*lines, unit])
    return f"<html><body>{above}<table>{table}</table></body></html>".encode()


def markdown(statement: Statement) -> bytes:
    lines, unit, rows = statement
    bars = [f"| {' | '.join(row)} |" for row in rows if "Year ended" not in row[1]]
    return "\n\n".join([*lines, unit, "\n".join([bars[0], "|---|---|---|", *bars[1:]])]).encode()


def text(statement: Statement) -> bytes:
    lines, unit, rows = statement
    return "\n\n".join([*lines, unit, "\n".join("   ".join(row) for row in rows)]).encode()


def word(statement: Statement) -> bytes:
    lines, unit, rows = statement
    document = docx.Document()
    for line in [*lines, unit]:
        document.add_paragraph(line)
    table = document.add_table(len(rows), 3)
    for at, row in enumerate(rows):
        for column, cell in enumerate(row):
            table.cell(at, column).text = cell
    if "Year ended" in rows[0][1]:
        table.cell(0, 1).merge(table.cell(0, 2))
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


def workbook(statement: Statement) -> bytes:
    lines, unit, rows = statement
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    for line in [*lines, unit]:
        sheet.append([line])
    sheet.append([])
    for row in rows:
        sheet.append(row)
        for cell in sheet[sheet.max_row][1:]:  # figures as figures, shown by their format
            bare = str(cell.value or "").strip("$()").replace(",", "")
            if "." in bare:
                cell.number_format = ("$" if str(cell.value).startswith("$") else "") + "#,##0.00;(#,##0.00)"
                if bare.count(".") and len(bare.split(".")[1]) == 1:
                    cell.number_format = cell.number_format.replace("0.00", "0.0")
                if bare.startswith("-"):
                    cell.number_format = "#,##0.00"
                cell.value = -float(bare) if str(cell.value).startswith("(") else float(bare)
    if "Year ended" in rows[0][1]:
        first = len(lines) + 3
        sheet.merge_cells(start_row=first, start_column=2, end_row=first, end_column=3)
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


def pdf(statement: Statement, look: str) -> bytes:
    lines, unit, rows = statement
    pdfmetrics.registerFont(UnicodeCIDFont("STSong-Light"))
    body = ParagraphStyle("body", fontName="STSong-Light", fontSize=10, leading=24)
    style = [("FONT", (0, 0), (-1, -1), "STSong-Light", 9)]
    first = 2 if "Year ended" in rows[0][1] else 1
    cells = [(column, row) for row in range(first, len(rows)) for column in range(3)]
    looks = {
        "ruled": [("GRID", (0, 0), (-1, -1), 0.5, colors.black)],
        "shaded": [("BACKGROUND", cell, cell, colors.lightgrey) for cell in cells],  # the head stands above it
        "bare": [],
    }
    merged = [("SPAN", (1, 0), (2, 0))] if "Year ended" in rows[0][1] else []
    table = Table(rows, colWidths=[200, 120, 120], style=TableStyle(style + looks[look] + merged))
    out = io.BytesIO()
    SimpleDocTemplate(out).build([*(Paragraph(line, body) for line in [*lines, unit]), table])
    return out.getvalue()


FORMATS: dict[str, tuple[str, Callable[[Statement], bytes]]] = {
    "html": ("a.html", html),
    "markdown": ("a.md", markdown),
    "text": ("a.txt", text),
    "word": ("a.docx", word),
    "workbook": ("a.xlsx", workbook),
    "ruled PDF": ("a.pdf", partial(pdf, look="ruled")),
    "shaded PDF": ("a.pdf", partial(pdf, look="shaded")),
    "bare PDF": ("a.pdf", partial(pdf, look="bare")),
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(("statement", "facts"), [(ENGLISH, ENGLISH_FACTS), (CHINESE, CHINESE_FACTS)], ids=["en", "zh"])
def test_a_statement_says_the_same_in_every_format(
    statement: Statement, facts: set[str], form: str, tmp_path: Path
) -> None:
    name, write = FORMATS[form]
    path = tmp_path / name
    path.write_bytes(write(statement))
    (source,) = read_file(path, tmp_path)
    assert isinstance(source, Source)
    kept, _ = backgrounds(source, 2400, 0)
    pairs = extract(source, read_filing(source), kept, 450).pairs
    assert facts <= {pair.answer for pair in pairs if pair.kind == "figure"}


def test_evidence_names_its_page_and_heading(generate: Any, tmp_path: Path) -> None:
    """From the file to the records of a run."""
    (tmp_path / "filings").mkdir()
    (tmp_path / "filings" / "a.pdf").write_bytes(pdf(ENGLISH, "ruled"))
    done = generate("--corpus", str(tmp_path / "filings"), "--runs", str(tmp_path))
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "selfqa" / "instructions.jsonl").read_text(encoding="utf-8").splitlines()
    places = [json.loads(line)["provenance"] for line in lines]
    assert len(places) > 10
    assert {(place["page"], place["section"]) for place in places} == {(1, "Consolidated Statements of Income")}
    (document,) = (tmp_path / "selfqa" / "documents.jsonl").read_text(encoding="utf-8").splitlines()
    text = json.loads(document)["text"]
    assert all(any(char.isdigit() for char in text[place["start"] : place["end"]]) for place in places)
