"""Every kind of file, made by the library that people make it with: text, headings, tables, pages."""

import io
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import docx
import openpyxl
import pytest
from docx.enum.text import WD_BREAK
from docx.oxml import parse_xml
from docx.oxml.ns import nsdecls
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Flowable, PageBreak, Paragraph, SimpleDocTemplate, Table, TableStyle

from selfqa.blocks import Block, Source
from selfqa.formats.glyphs import unified
from selfqa.formats.number_formats import shown
from selfqa.formats.pdf import read_pdf
from selfqa.formats.sheets import read_csv, read_xlsx
from selfqa.formats.triples import Triple, read_triples
from selfqa.formats.word import read_docx
from selfqa.reading import read_file
from selfqa.unread import Unread

Cells = list[list[str]]


def cells(source: Source, block: Block) -> Cells:
    """A table's texts; every cell must stand where it says."""
    assert block.kind == "table"
    for row in block.rows:
        for cell in row.cells:
            assert source.text[cell.start : cell.end] == cell.text
    return [[cell.text for cell in row.cells] for row in block.rows]


def told(source: Source) -> list[tuple[str, str]]:
    """Kind and text of every block that is no table."""
    return [(block.kind, source.text[block.start : block.end]) for block in source.blocks if block.kind != "table"]


def tables(source: Source) -> list[Block]:
    return [block for block in source.blocks if block.kind == "table"]


# ---------------------------------------------------------------------------------------------- PDF


def chinese_report(rows: int) -> bytes:
    """An annual report of reportlab's: running head, page numbers, a ruled table with a merged head over pages."""
    pdfmetrics.registerFont(UnicodeCIDFont("STSong-Light"))
    body = ParagraphStyle("body", fontName="STSong-Light", fontSize=10, leading=14, wordWrap="CJK")
    head = ParagraphStyle("head", fontName="STSong-Light", fontSize=14, leading=20)
    grid = [("FONT", (0, 0), (-1, -1), "STSong-Light", 9), ("GRID", (0, 0), (-1, -1), 0.5, colors.black)]
    merged = [("SPAN", (1, 0), (2, 0)), ("SPAN", (0, 0), (0, 1))]
    content = [["产品", "营业收入", ""], ["", "2024年", "2023年"]]
    content += [
        [f"产品{number}", f"{1234 * number + 0.5:,.2f}", f"({987 * number + 0.25:,.2f})"] for number in range(rows)
    ]

    def margins(canvas: Any, document: Any) -> None:
        canvas.setFont("STSong-Light", 9)
        canvas.drawString(60, A4[1] - 40, "青禾食品股份有限公司2024年年度报告")
        canvas.drawCentredString(A4[0] / 2, 30, str(document.page))

    story: list[Flowable] = [
        Paragraph("第一节 重要提示", head),
        Paragraph("公司董事会保证年度报告内容的真实、准确、完整，不存在虚假记载、误导性陈述或重大遗漏。" * 3, body),
        Paragraph("第二节 主要产品", head),
        Paragraph("单位：万元", body),
        Table(content, repeatRows=2, style=TableStyle(grid + merged)),
        PageBreak(),
        Paragraph("第三节 管理层讨论与分析", head),
        Paragraph("报告期内，公司实现营业收入1,234.56万元，较上年同期增长12.3%，主要系销量增加所致。" * 3, body),
    ]
    out = io.BytesIO()
    SimpleDocTemplate(out, pagesize=A4).build(story, onFirstPage=margins, onLaterPages=margins)
    return out.getvalue()


def test_pdf_keeps_headings_pages_and_a_table_that_goes_on_over_three() -> None:
    (source,) = read_pdf(chinese_report(rows=90))
    assert isinstance(source, Source)
    assert [text for kind, text in told(source) if kind == "heading"] == [
        "第一节 重要提示",
        "第二节 主要产品",
        "第三节 管理层讨论与分析",
    ]
    (table,) = tables(source)
    texts = cells(source, table)
    assert texts[:3] == [["产品", "营业收入"], ["2024年", "2023年"], ["产品0", "0.50", "(0.25)"]]
    assert texts[-1] == ["产品89", "109,826.50", "(87,843.25)"]
    assert len(texts) == 92  # the head, repeated on each page, once
    assert [(cell.left, cell.right) for cell in table.rows[0].cells] == [(0, 1), (1, 3)]
    assert ("paragraph", "单位：万元") in told(source)
    assert len(source.pages) == 4
    pages = [source.page_of(table.start), source.page_of(table.rows[-1].start), source.page_of(len(source.text) - 1)]
    assert pages == [1, 3, 4]
    assert "年度报告内容的真实" in source.text
    assert "青禾食品股份有限公司2024年年度报告" not in source.text  # the running head
    assert "报告期内，公司实现营业收入1,234.56万元，较上年同期增长12.3%，主要系销量增加所致。" * 3 in source.text


def ruled_pages(*pages: tuple[Sequence[float], Sequence[Sequence[str]]]) -> bytes:
    """Pages of one table each, its columns between the given rules."""
    out = io.BytesIO()
    canvas = Canvas(out, pagesize=A4)
    for rules, rows in pages:
        canvas.setFont("Helvetica", 9)
        for number, row in enumerate(rows):
            top = 800 - 20 * number
            for (left, right), text in zip(pairwise(rules), row, strict=True):
                canvas.rect(left, top - 20, right - left, 20)
                canvas.drawString(left + 4, top - 13, text)
        canvas.showPage()
    canvas.save()
    return out.getvalue()


def test_a_table_goes_on_where_the_next_pages_rules_lie_a_point_beside() -> None:
    head = [["Item", "2024", "2023"], ["Cash", "1,200", "1,100"], ["Goodwill", "50", "50"]]
    more = [["Inventories", "300", "280"], ["Total assets", "1,550", "1,430"]]
    (source,) = read_pdf(ruled_pages(((60, 200, 300, 400), head), ((61.2, 200.9, 299.2, 401), more)))
    assert isinstance(source, Source)
    (table,) = tables(source)
    assert cells(source, table) == head + more
    assert {(cell.left, cell.right) for row in table.rows for cell in row.cells} == {(0, 1), (1, 2), (2, 3)}
    (source,) = read_pdf(ruled_pages(((60, 200, 300, 400), head), ((60, 170, 300, 400), more)))
    assert isinstance(source, Source)
    assert [cells(source, table) for table in tables(source)] == [head, more]  # other columns: another table


def test_a_running_head_is_no_head_of_the_table_below_it_and_labels_of_two_lines_are_one() -> None:
    """Tables without rules at the top of their pages, right below what stands on every page."""
    out = io.BytesIO()
    canvas = Canvas(out, pagesize=A4)
    for page in range(1, 5):
        canvas.setFont("Helvetica", 10)
        rows = [["Printed 11/30/26", "acme.html"], ["", "2025", "2024"], ["Income tax benefit related to share-based"]]
        rows += [["compensation expense", f"1,{page}95", "764"], ["Deferred taxes:"], ["Assets", f"2,{page}70", "662"]]
        rows += [
            [],
            [["North", "South", "East", "West"][page - 1] + " wind turned"],
            [],
            [["Hay", "Rye", "Oat", "Fig"][page - 1]],
        ]
        for number, row in enumerate(rows):
            for text, right in zip(row, (0, 400, 500), strict=False):
                draw = canvas.drawRightString if right else canvas.drawString
                draw(right or 60, 800 - 11 * number, text)
        canvas.showPage()
    canvas.save()
    (source,) = read_pdf(out.getvalue())
    assert isinstance(source, Source)
    assert "acme.html" not in source.text
    found = [row for table in tables(source) for row in cells(source, table)]
    assert found[:4] == [
        ["2025", "2024"],
        ["Income tax benefit related to share-based compensation expense", "1,195", "764"],
        ["Deferred taxes:"],
        ["Assets", "2,170", "662"],
    ]


# ---------------------------------------------------------------------------------------------- Word


def test_word_keeps_styles_merged_cells_insertions_and_pages() -> None:
    document = docx.Document()
    document.add_heading("Item 7. Discussion", level=1)
    paragraph = document.add_paragraph("Net sales rose")
    paragraph.add_run("2").font.superscript = True
    changed = '<w:ins {0}><w:r><w:t xml:space="preserve"> to $812.4 million</w:t></w:r></w:ins>'
    paragraph._p.append(parse_xml(changed.format(nsdecls("w"))))
    paragraph._p.append(parse_xml(f"<w:del {nsdecls('w')}><w:r><w:delText>to $999 million</w:delText></w:r></w:del>"))
    table = document.add_table(4, 3)
    for row, texts in enumerate([("", "2024", ""), ("Segment", "Sales", "Margin"), ("Dairy", "812.4", "(3.1)%")]):
        for column, text in enumerate(texts):
            table.cell(row, column).text = text
    table.cell(0, 1).merge(table.cell(0, 2))
    table.cell(2, 0).merge(table.cell(3, 0))
    table.cell(3, 1).text = "790.1"
    document.add_paragraph().add_run().add_break(WD_BREAK.PAGE)
    document.add_heading("附注", level=2)
    document.add_paragraph("单位：万元")
    out = io.BytesIO()
    document.save(out)

    source = read_docx(out.getvalue())
    assert told(source) == [
        ("heading", "Item 7. Discussion"),
        ("paragraph", "Net sales rose 2 to $812.4 million"),
        ("heading", "附注"),
        ("paragraph", "单位：万元"),
    ]
    (found,) = tables(source)
    assert cells(source, found) == [["2024"], ["Segment", "Sales", "Margin"], ["Dairy", "812.4", "(3.1)%"], ["790.1"]]
    assert [(cell.left, cell.right) for cell in found.rows[0].cells] == [(1, 3)]
    assert [(cell.left, cell.right) for cell in found.rows[3].cells] == [(1, 2)]
    assert [source.page_of(block.start) for block in source.blocks] == [1, 1, 1, 2, 2]


# ---------------------------------------------------------------------------------------------- sheets


def test_workbook_shows_what_its_reader_sees() -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.title = "利润表"
    rows: list[list[object]] = [
        ["单位：万元"],
        [],
        ["项目", "2024年", None],
        ["", "金额", "占比"],
        ["营业收入", -1234.5, 0.123],
    ]
    for row in rows:
        sheet.append(row)
    sheet.merge_cells("B3:C3")
    sheet["B5"].number_format = "#,##0.00_);(#,##0.00)"
    sheet["C5"].number_format = "0.0%"
    hidden = book.create_sheet("working")
    hidden.append(["secret", 1])
    hidden.sheet_state = "hidden"
    out = io.BytesIO()
    book.save(out)

    source = read_xlsx(out.getvalue())
    assert told(source) == [("heading", "利润表"), ("paragraph", "单位：万元")]
    (table,) = tables(source)
    assert cells(source, table) == [["项目", "2024年"], ["金额", "占比"], ["营业收入", "(1,234.50)", "12.3%"]]
    assert [(cell.left, cell.right) for cell in table.rows[0].cells] == [(0, 1), (1, 3)]
    assert "secret" not in source.text


@pytest.mark.parametrize(
    ("value", "number_format", "text"),
    [  # what Excel and LibreOffice show
        (1234567, "General", "1234567"),
        (0.1, "General", "0.1"),
        (1234.5, "#,##0", "1,235"),
        (-1234.5, "#,##0.00;[Red]-#,##0.00", "-1,234.50"),
        (-5, '_($* #,##0_);_($* (#,##0);_($* "-"??_);_(@_)', "$(5)"),
        (0, '_($* #,##0_);_($* (#,##0);_($* "-"??_);_(@_)', "$-"),
        (0.0525, "0.00%", "5.25%"),
        (98765432, '#,##0.0,,"m"', "98.8m"),
        (12.5, "[$€-407]#,##0.00", "€12.50"),
        (True, "General", "TRUE"),
    ],
)
def test_number_formats(value: object, number_format: str, text: str) -> None:
    assert shown(value, number_format) == text


def test_separated_values_with_their_own_separator() -> None:
    source = read_csv('Company;Revenue;Note\nAlder;"1.234,50";"a ""big""\nyear"\nBirch;99;\n')
    (table,) = tables(source)
    assert cells(source, table) == [
        ["Company", "Revenue", "Note"],
        ["Alder", "1.234,50", 'a "big" year'],
        ["Birch", "99"],
    ]


# ---------------------------------------------------------------------------------------------- triples and rows


def test_triples_are_the_recipes_sentences_one_passage_per_head() -> None:
    source = read_triples(
        [
            Triple("Microsoft", "founder", "Bill Gates"),
            Triple("安靠智电", "证券代码", "300617"),
            Triple("Microsoft", "headOffice", "Redmond"),
            Triple("Microsoft", "founder", "Bill Gates"),
        ]
    )
    assert told(source) == [
        ("heading", "Microsoft"),
        ("paragraph", "The founder of Microsoft is Bill Gates. The head office of Microsoft is Redmond."),
        ("heading", "安靠智电"),
        ("paragraph", "安靠智电的证券代码是300617。"),
    ]


def parquet(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(
        pa.table({"subject": ["Alder Foods"], "predicate": ["chief executive"], "object": ["Mary Fell"]}), path
    )


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("graph.tsv", lambda path: path.write_text("head\trelation\ttail\nAlder Foods\tchief executive\tMary Fell\n")),
        (
            "graph.jsonl",
            lambda path: path.write_text('{"head": "Alder Foods", "relation": "chief executive", "tail": "Mary Fell"}'),
        ),
        ("graph.parquet", parquet),
    ],
)
def test_a_graph_is_one_wherever_it_stands(name: str, write: Callable[[Path], object], tmp_path: Path) -> None:
    write(tmp_path / name)
    (source,) = read_file(tmp_path / name, tmp_path)
    assert isinstance(source, Source)
    assert source.text.strip() == "Alder Foods\n\nThe chief executive of Alder Foods is Mary Fell."


def test_rows_are_documents_and_a_bad_row_is_named(tmp_path: Path) -> None:
    text = "Bramble Corp. reported net sales of $5 million in 2024."
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"text": "{text}"}}\nnot json\n{{"title": "x"}}\n{{"content": "{text} Again."}}\n')
    first, bad, keyless, last = read_file(path, tmp_path)
    assert isinstance(first, Source)
    assert isinstance(last, Source)
    assert (first.text, first.path, last.path) == (text, "rows.jsonl#1", "rows.jsonl#4")
    for found, words in ((bad, "row 2: not JSON"), (keyless, "row 3: has neither a text nor a triple")):
        assert isinstance(found, Unread)
        assert (found.path, found.rule) == ("rows.jsonl", "bad-row")
        assert words in found.reason


# ---------------------------------------------------------------------------------------------- EDGAR


SUBMISSION = """<SEC-DOCUMENT>0000000000-25-000001.txt : 20250201
<SEC-HEADER>0000000000-25-000001.hdr.sgml : 20250201
CONFORMED SUBMISSION TYPE:	10-K
</SEC-HEADER>
<DOCUMENT>
<TYPE>10-K
<SEQUENCE>1
<FILENAME>alder-20241231.htm
<TEXT>
<XBRL>
<?xml version='1.0' encoding='ASCII'?>
<html xmlns="http://www.w3.org/1999/xhtml"><body><p>Alder Foods, Inc. sold cheese for $812.4 million.</p></body></html>
</XBRL>
</TEXT>
</DOCUMENT>
<DOCUMENT>
<TYPE>EX-99.1
<TEXT>
Press release of Alder Foods, Inc.: net sales rose by 7.4% in 2024.
</TEXT>
</DOCUMENT>
<DOCUMENT>
<TYPE>GRAPHIC
<FILENAME>logo.jpg
<TEXT>
begin 644 logo.jpg
M_]C_X  02D9)
end
</TEXT>
</DOCUMENT>
<DOCUMENT>
<TYPE>EX-101.SCH
<TEXT>
<XBRL><schema/></XBRL>
</TEXT>
</DOCUMENT>
</SEC-DOCUMENT>
"""


def test_a_complete_submission_is_its_documents_of_prose(tmp_path: Path) -> None:
    path = tmp_path / "0000000000-25-000001.txt"
    path.write_text(SUBMISSION, encoding="utf-8")
    report, release, others = read_file(path, tmp_path)
    assert isinstance(report, Source)
    assert isinstance(release, Source)
    assert isinstance(others, Unread)
    assert report.text.strip() == "Alder Foods, Inc. sold cheese for $812.4 million."
    assert release.text.strip() == "Press release of Alder Foods, Inc.: net sales rose by 7.4% in 2024."
    assert [report.path, release.path] == [f"{path.name}#1", f"{path.name}#2"]
    assert "2 documents without prose besides (1 GRAPHIC, 1 EX-101.SCH)" in others.reason
    path.write_text(SUBMISSION[:300], encoding="utf-8")
    (cut,) = read_file(path, tmp_path)
    assert isinstance(cut, Unread)
    assert cut.rule == "file-damaged"


def test_characters_that_a_font_names_otherwise() -> None:
    assert unified("⽣产⻓期 beneﬁt ½ ①") == "生产长期 benefit ½ ①"
