"""Reading files: kinds, encodings, and one bad file among good ones."""

import json
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
from ixbrlparse import IXBRL

from selfqa.markup import read_html
from selfqa.plain import read_markdown, read_text

FILING = """# Northwind Bancorp

Annual report for the fiscal year ended December 31, 2024

**Consolidated Statements of Income** (in millions, except per share amounts)

|  | 2024 | 2023 |
|---|---|---|
| Net interest income | $412.6 | $384.2 |
| Provision for credit losses | 58.3 | 41.7 |
| Diluted earnings per share | $1.76 | $1.52 |
"""


def pdf(lines: list[str], encrypted: bool = False) -> bytes:
    """A PDF of one page, written by hand; the encrypted one has a password that nobody knows."""
    body = "BT /F1 11 Tf 50 750 Td " + " ".join(f"({line}) Tj 0 -16 Td" for line in lines) + " ET"
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R "
        "/Resources << /Font << /F1 5 0 R >> >> >>",
        f"<< /Length {len(body)} >>\nstream\n{body}\nendstream",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        f"<< /Filter /Standard /V 1 /R 2 /P -4 /O <{'11' * 32}> /U <{'22' * 32}> >>",
    ]
    out, offsets = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(out))
        out += f"{number} 0 obj\n{content}\nendobj\n".encode("latin-1")
    table = "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    secret = f" /Encrypt 6 0 R /ID [<{'33' * 16}> <{'33' * 16}>]" if encrypted else ""
    root = f"trailer\n<< /Size 7 /Root 1 0 R{secret} >>\n"
    trailer = f"xref\n0 7\n0000000000 65535 f \n{table}{root}startxref\n{len(out)}\n%%EOF"
    return out + trailer.encode("latin-1")


PDF_LINES = [
    "Alder Foods, Inc.",
    r"\(Exact name of registrant as specified in its charter\)",
    "For the fiscal year ended December 31, 2024",
    "CONSOLIDATED STATEMENTS OF INCOME",
    r"\(In millions\)",
    "2024 2023",
    "Net sales $ 812.4 $ 790.1",
    "Cost of sales 512.0 500.3",
    "Net income $ 61.5 $ 58.2",
]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mixed")
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "northwind.md").write_text(FILING, encoding="utf-8")
    (folder / "alder.pdf").write_bytes(pdf(PDF_LINES))
    (folder / "locked.pdf").write_bytes(pdf(PDF_LINES, encrypted=True))
    (folder / "broken.pdf").write_bytes(b"%PDF-1.7\nnot really a PDF")
    (folder / "scan.txt").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 3)
    (folder / "empty.html").write_bytes(b"")
    (folder / "blank.txt").write_bytes(b"  \n\n ")
    head = "青禾食品股份有限公司2024年年度报告\n\n合并利润表\n\n单位：万元\n\n项目 2024年 2023年\n"
    chinese = head + "营业收入 1,234.56 1,100.00\n营业成本 800.00 700.00\n"
    (folder / "青禾.txt").write_bytes(chinese.encode("gb18030"))
    (folder / "rows.jsonl").write_text(
        '{"text": "' + "Bramble Corp. Annual report 2024. " * 5 + '"}\nnot json\n', encoding="utf-8"
    )
    (folder / "notes.docx").write_bytes(b"PK")
    (folder / "old.doc").write_bytes(b"\xd0\xcf\x11\xe0")
    return folder


def test_bad_files_are_reported_and_the_rest_goes_on(mixed: Path, generate: Any, tmp_path: Path) -> None:
    done = generate("--corpus", str(mixed), "--output", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    removals = [
        json.loads(line) for line in (tmp_path / "out" / "rejected.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    rules = {row["text"]: row["rule"] for row in removals if not row["text"].startswith(" ")}
    assert rules["locked.pdf"] == "file-locked"
    assert rules["broken.pdf"] == rules["notes.docx"] == "file-damaged"
    assert rules["old.doc"] == "unknown-kind"
    assert rules["scan.txt"] == "wrong-kind"
    assert rules["empty.html"] == rules["blank.txt"] == "empty-file"
    assert rules["rows.jsonl"] == "bad-row"
    for name in ("locked.pdf", "broken.pdf", "scan.txt", "empty.html", "blank.txt", "notes.docx", "old.doc"):
        assert name in done.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    assert summary["files"] == 11
    assert summary["files_unread"] == 7
    assert summary["documents"] == 4
    kept = (tmp_path / "out" / "instructions.jsonl").read_text(encoding="utf-8").splitlines()
    said = [json.loads(line)["messages"][-1]["content"] for line in kept]
    said += [row["text"] for row in removals if row["rule"] == "over-quota"]  # which of them is the selection's to say
    for answer in (
        "Alder Foods, Inc.'s net income was $61.5 million in fiscal 2024.",
        "Northwind Bancorp's net interest income was $412.6 million in fiscal 2024.",
        "Northwind Bancorp's diluted earnings per share were $1.52 in fiscal 2023.",
        "青禾食品股份有限公司2024年营业收入为1,234.56万元。",
    ):
        assert any(text.endswith(answer) for text in said)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--corpus", "nowhere"), "no such folder"),
        (("--corpus", "{empty}"), "holds no filing"),
        (("--corpus", "{hollow}"), "none of its 1 files gave any text"),
        (("--corpus", "{good}", "--max_pairs", "0"), "max_pairs is 0"),
        (("--corpus", "{good}", "--max_pears", "5"), "max_pairs"),
        (("--corpus", "{good}", "--backend", "openai"), "--model"),
        (
            ("--corpus", "{good}", "--backend", "openai", "--model", "m", "--endpoint", "https://example.org/v1"),
            "OPENAI_API_KEY",
        ),
    ],
)
def test_what_cannot_run_is_one_sentence_and_exit_2(
    flags: tuple[str, ...], words: str, generate: Any, tmp_path: Path
) -> None:
    for name in ("empty", "hollow", "good"):
        (tmp_path / name).mkdir()
    (tmp_path / "hollow" / "a.txt").write_bytes(b"")
    (tmp_path / "good" / "a.md").write_text(FILING, encoding="utf-8")
    filled = [flag.format(**{name: str(tmp_path / name) for name in ("empty", "hollow", "good")}) for flag in flags]
    done = generate(*filled, "--output", str(tmp_path / "out"), OPENAI_API_KEY="")
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert done.stderr.count("error:") == 1
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


PAGE = """<html><head><title>t</title><style>p{}</style></head><body><div style="display: none"><ix:header>
<xbrli:context id="c"><xbrli:period><xbrli:instant>2024-12-31</xbrli:instant></xbrli:period></xbrli:context>
<xbrli:unit id="u"><xbrli:measure>iso4217:USD</xbrli:measure></xbrli:unit></ix:header>secret 999</div>
<h2>Item 8</h2><p>Total&#160;assets<sup>1</sup> were
 $<ix:nonFraction name="us-gaap:Assets" contextRef="c" unitRef="u" scale="6"
 format="ixt:num-dot-decimal">1,234.5</ix:nonFraction> million.</p>
<p>公司实现营业
收入增长</p>
<table><tr><td></td><td colspan="2">2024</td></tr><tr><td>Loss</td><td>$</td><td>(58.3</td><td>)</td></tr>
<tr><td>Margin</td><td>5</td><td>%</td></tr></table>tail<br>end</body></html>"""


def test_html_walk_gives_text_and_exact_places() -> None:
    source = read_html(PAGE)
    assert "secret" not in source.text
    assert "Total assets 1 were $1,234.5 million." in source.text
    assert "公司实现营业收入增长" in source.text
    assert "Loss | $(58.3)" in source.text
    assert "Margin | 5%" in source.text
    (tag,) = source.tags
    assert source.text[tag.start : tag.end] == "1,234.5"
    assert (tag.value, tag.unit, tag.until, tag.since) == (1234500000, "USD", "2024-12-31", "")
    assert [block.kind for block in source.blocks] == [
        "heading",
        "paragraph",
        "paragraph",
        "table",
        "paragraph",
        "paragraph",
    ]
    for block in source.blocks:
        for row in block.rows:
            for cell in row.cells:
                assert source.text[cell.start : cell.end] == cell.text


def test_tags_agree_with_ixbrlparse_on_a_real_filing(shared_data: Path) -> None:
    """Every number of the page written in digits, with its scale, sign and last day; "two" and nil are no figures."""
    path = shared_data / "filings" / "en" / "aapl-10-q-2025-08-01.html"
    source = read_html(path.read_text(encoding="utf-8"))
    with path.open(encoding="utf-8") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of date formats that it does not know
        theirs = IXBRL(file, raise_on_error=False)

    def last_day(fact: Any) -> str:
        return str(fact.context.instant or fact.context.enddate)

    expected = sorted(
        (fact.name, round(float(fact.value), 4), last_day(fact))
        for fact in theirs.numeric
        if re.search(r"[0-9—–-]", str(fact.text))
    )
    found = sorted((tag.concept.split(":")[-1], round(float(tag.value), 4), tag.until) for tag in source.tags)
    assert len(found) > 650
    assert found == expected
    for tag in source.tags:
        assert re.fullmatch(r"[\d,.]+|[—–-]", source.text[tag.start : tag.end])


def test_aligned_table_with_leaders_and_wrapped_label() -> None:
    text = """STATEMENTS OF INCOME
(Thousands of Dollars)

                                   Year Ended December 31,
                                      2024          2023
OPERATING REVENUES
  Electric ..................    $ 1,842,615    $ 1,774,280
Allowance for equity funds used
  during construction .......         31,447         22,816
                                 -----------    -----------
Total operating revenues ....      2,261,517      2,276,897
"""
    source = read_text(text)
    (table,) = [block for block in source.blocks if block.kind == "table"]
    assert [[cell.text for cell in row.cells] for row in table.rows] == [
        ["OPERATING REVENUES"],
        ["Electric", "$ 1,842,615", "$ 1,774,280"],
        ["Allowance for equity funds used during construction", "31,447", "22,816"],
        ["Total operating revenues", "2,261,517", "2,276,897"],
    ]


def test_markdown_tables_and_headings() -> None:
    source = read_markdown(FILING)
    assert source.title == "Northwind Bancorp"
    (table,) = [block for block in source.blocks if block.kind == "table"]
    assert [cell.text for cell in table.rows[1].cells] == ["Net interest income", "$412.6", "$384.2"]
    assert source.text[table.rows[1].start : table.rows[1].end].startswith("| Net interest income")
