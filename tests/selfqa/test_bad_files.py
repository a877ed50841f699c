"""Files as they come: locked, scanned, mislabelled, bombs. Each is named with its rule, none ends the run."""

import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docx
import openpyxl
import pytest
from pypdf import PdfReader, PdfWriter
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen.canvas import Canvas

from finlm.errors import MissingInput, UserError
from finlm.runs import fingerprint
from selfqa.blocks import Source
from selfqa.corpus import corpus_files
from selfqa.formats.encodings import decode
from selfqa.reading import read_file
from selfqa.unread import Unread

ENGLISH = (
    "The Company’s net sales were £412.6 million — up 7.4% — in fiscal 2024, and its margin was 58½ basis points. " * 5
)
FRENCH = "Société Générale a réalisé un bénéfice de 4,2 milliards à Paris, où l'été fut déjà très chaud. " * 5
CHINESE = "报告期内，公司实现营业收入1,234.56万元，较上年同期增长12.3%，主要系产品销量增加所致。" * 5
HONG_KONG = "本集團截至二零二四年十二月三十一日止年度之收益為港幣一百二十億元，較去年上升百分之八。" * 5
JAPANESE = "当期の売上高は一千二百億円となり、前期比で八パーセント増加しました。" * 5


def read(folder: Path, name: str, raw: bytes, max_megabytes: float = 100.0) -> list[Source | Unread]:
    path = folder / name
    path.write_bytes(raw)
    return list(read_file(path, folder, max_megabytes))


def fault(folder: Path, name: str, raw: bytes, max_megabytes: float = 100.0) -> tuple[str, str]:
    """Rule and reason of the one thing that is said of a file."""
    (found,) = read(folder, name, raw, max_megabytes)
    assert isinstance(found, Unread)
    assert found.path == name
    assert found.reason.startswith(f"{name} ")
    return found.rule, found.reason


def text_of(folder: Path, name: str, raw: bytes) -> str:
    (found,) = read(folder, name, raw)
    assert isinstance(found, Source)
    return found.text.strip()


# ---------------------------------------------------------------------------------------------- encodings


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (ENGLISH, "utf-8"),
        (ENGLISH, "utf-8-sig"),
        (ENGLISH, "utf-16"),
        (ENGLISH, "utf-16-le"),
        (ENGLISH, "utf-16-be"),
        (ENGLISH, "utf-32"),
        (ENGLISH, "cp1252"),
        (FRENCH, "latin-1"),
        (CHINESE, "gb18030"),
        (CHINESE[:20], "gb18030"),
        (CHINESE, "utf-16"),
        (HONG_KONG, "big5"),
        (JAPANESE, "cp932"),
    ],
)
def test_decode(text: str, encoding: str) -> None:
    assert decode(text.encode(encoding)) == text


def test_a_few_broken_bytes_are_marked_and_the_rest_is_read() -> None:
    for encoding in ("utf-8", "gb18030"):
        before, after = (CHINESE * 50).encode(encoding), (CHINESE * 50).encode(encoding)
        broken = decode(before + b"\xff" + after)
        assert broken is not None
        assert broken.count("\ufffd") == 1
        assert broken.startswith(CHINESE * 50)
        assert broken.endswith(CHINESE * 49)


@pytest.mark.parametrize("raw", [bytes(range(256)) * 40, os.urandom(20_000), b"\0" * 5000, CHINESE.encode() + b"\0"])
def test_what_is_no_text(raw: bytes, tmp_path: Path) -> None:
    rule, _ = fault(tmp_path, "a.txt", raw)
    assert rule == "not-text"


@pytest.mark.parametrize(("label", "encoding"), [("utf-8", "gb18030"), ("gb2312", "utf-8"), ("iso-8859-1", "gb18030")])
def test_a_page_with_a_wrong_label_is_read_as_it_is(label: str, encoding: str, tmp_path: Path) -> None:
    page = f'<html><head><meta charset="{label}"></head><body><p>{CHINESE}</p></body></html>'
    assert text_of(tmp_path, "a.html", page.encode(encoding)) == CHINESE


# ---------------------------------------------------------------------------------------------- not what its name says


PNG = (
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x02\x00\x00\x00\x90wS\xde\x00\x00\x00"
    b"\x0cIDATx\x9cc\xf8\xff\xff?\x00\x05\xfe\x02\xfe\r\xefF\xb8\x00\x00\x00\x00IEND\xaeB`\x82"
)


@pytest.mark.parametrize(
    ("name", "raw", "rule", "words"),
    [
        ("a.html", PNG, "wrong-kind", "is a PNG image by its first bytes, not what .html says"),
        ("a.txt", b"\x1f\x8b\x08\0" + b"x" * 99, "wrong-kind", "compressed (gzip)"),
        ("a.csv", b"MZ\x90\0" + b"x" * 99, "wrong-kind", "a program"),
        ("a.xlsx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600, "wrong-kind", "save it as .docx or .xlsx"),
        (
            "a.docx",
            b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "EncryptedPackage".encode("utf-16-le"),
            "file-locked",
            "save a copy without it",
        ),
        ("a.md", b"", "empty-file", "is empty (0 bytes)"),
        ("a.md", b" \n ", "empty-file", "is empty (3 bytes)"),
        ("a.md", b"# short", "no-text", "holds 7 characters"),
        ("a.html", b"<!-- -->", "no-text", "no element of HTML"),
        ("a.html", b"<div>" * 3000 + b"words", "file-damaged", "2,048 elements inside each other"),
        ("a.docx", b"PK\x03\x04 and no more of it", "file-damaged", "cannot be unpacked"),
        ("a.csv", b'a,"' + b"b" * 200_000, "file-damaged", "separated values"),
        ("a.json", b'[{"text": "never closed', "file-damaged", "not one array of JSON objects"),
    ],
)
def test_each_fault_has_its_rule(name: str, raw: bytes, rule: str, words: str, tmp_path: Path) -> None:
    found, reason = fault(tmp_path, name, raw)
    assert found == rule
    assert words in reason


def packed(entries: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as pack:
        for name, content in entries.items():
            pack.writestr(name, content)
    return out.getvalue()


def test_an_archive_and_hollow_office_files(tmp_path: Path) -> None:
    assert fault(tmp_path, "a.docx", packed({"photo.png": PNG}))[0] == "wrong-kind"
    for name, inside in (("a.docx", "word/document.xml"), ("a.xlsx", "xl/workbook.xml")):
        rule, reason = fault(tmp_path, name, packed({inside: b"<broken"}))
        assert rule == "file-damaged"
        assert "cannot be read as a wor" in reason.lower()


@pytest.mark.parametrize("name", ["bomb.docx", "bomb.xlsx"])
def test_a_zip_bomb_is_not_unpacked(name: str, tmp_path: Path) -> None:
    inside = "word/document.xml" if name.endswith("docx") else "xl/workbook.xml"
    raw = packed({inside: bytes(101_000_000)})
    assert len(raw) < 200_000
    rule, reason = fault(tmp_path, name, raw)
    assert rule == "too-large"
    assert "has 0.1 MB and unpacks to 101 MB, the limit (max_file_megabytes) is 100" in reason


def test_office_files_under_another_name_are_read_as_what_they_are(tmp_path: Path) -> None:
    document, book = docx.Document(), openpyxl.Workbook()
    document.add_paragraph(ENGLISH)
    sheet = book.active
    assert sheet is not None
    sheet.append(["Company", ENGLISH])
    for made, name in ((document, "a.pdf"), (book, "b.txt")):
        out = io.BytesIO()
        made.save(out)
        assert ENGLISH.strip() in text_of(tmp_path, name, out.getvalue())
    page = f"<!DOCTYPE html>\n<html><body><p>{ENGLISH}</p></body></html>"
    assert text_of(tmp_path, "c.txt", page.encode()) == ENGLISH.strip()


def test_a_file_of_200_megabytes(tmp_path: Path) -> None:
    path = tmp_path / "large.txt"
    with path.open("wb") as out:
        out.truncate(200_000_000)
    (found,) = read_file(path, tmp_path)
    assert isinstance(found, Unread)
    assert found.rule == "too-large"
    assert "has 200 MB, the limit (max_file_megabytes) is 100" in found.reason


# ---------------------------------------------------------------------------------------------- PDF


def pages(*texts: str) -> bytes:
    """A page for each text; one without is a scan."""
    out = io.BytesIO()
    canvas = Canvas(out)
    for text in texts:
        if text:
            canvas.drawString(72, 700, text)
        else:
            canvas.drawImage(ImageReader(io.BytesIO(PNG)), 0, 0, 500, 700)
        canvas.showPage()
    canvas.save()
    return out.getvalue()


LINE = "Net sales of Alder Foods were $812.4 million in 2024."


def test_a_scan_and_a_scanned_page(tmp_path: Path) -> None:
    assert fault(tmp_path, "scan.pdf", pages("", "", "")) == (
        "no-text",
        "scan.pdf has 3 pages without text; a scan needs OCR",
    )
    said, source = read(tmp_path, "part.pdf", pages(LINE, "", LINE.replace("2024", "2023")))
    assert isinstance(said, Unread)
    assert said.rule == "pages-without-text"
    assert "no text on 1 of 3 pages (2)" in said.reason
    assert isinstance(source, Source)
    assert source.page_of(source.text.index("2023")) == 3


@pytest.mark.parametrize("algorithm", ["RC4-128", "AES-256"])
def test_a_locked_pdf_and_one_that_only_forbids_printing(algorithm: str, tmp_path: Path) -> None:
    for password, rule in (("secret", "file-locked"), ("", None)):
        writer = PdfWriter(PdfReader(io.BytesIO(pages(LINE))))
        writer.encrypt(password, owner_password="owner", algorithm=algorithm)
        out = io.BytesIO()
        writer.write(out)
        if rule:
            assert fault(tmp_path, "locked.pdf", out.getvalue())[0] == rule
        else:
            assert text_of(tmp_path, "open.pdf", out.getvalue()) == LINE


def test_a_pdf_cut_off_anywhere_is_read_or_named(tmp_path: Path) -> None:
    whole = pages(LINE, LINE)
    for share in range(5, 100, 5):
        for found in read(tmp_path, "cut.pdf", whole[: len(whole) * share // 100]):
            assert isinstance(found, Source) or found.rule in {"file-damaged", "no-text", "pages-without-text"}


# ---------------------------------------------------------------------------------------------- HTML


def test_a_page_of_thirty_thousand_tables(tmp_path: Path) -> None:
    table = "<table><tr><td>Net sales</td><td>$</td><td>1,234</td></tr></table>"
    (found,) = read(tmp_path, "a.html", f"<html><body>{table * 30_000}</body></html>".encode())
    assert isinstance(found, Source)
    assert len(found.blocks) == 30_000
    assert found.text.count("Net sales | $1,234\n") == 30_000


def test_spans_that_cover_a_million_cells(tmp_path: Path) -> None:
    wide = "<td rowspan=1000 colspan=1000>5</td>" * 1000
    page = f"<html><body><table><tr>{wide}</tr>{'<tr><td>Net sales of a year</td></tr>' * 2000}</table></body></html>"
    (found,) = read(tmp_path, "a.html", page.encode())
    assert isinstance(found, Source)
    (table,) = found.blocks
    assert table.rows[999].cells[0].left == 1_000_000  # to the right of all that still cover it
    assert table.rows[1000].cells[0].left == 0


def test_a_paragraph_of_a_million_pieces(tmp_path: Path) -> None:
    page = f"<html><body><p>{'<span>word </span>' * 200_000}</p></body></html>"
    assert text_of(tmp_path, "a.html", page.encode()) == ("word " * 200_000).strip()


def test_deep_pages_lose_nothing_and_tables_in_a_layout_stay_tables(tmp_path: Path) -> None:
    inner = "<table><tr><td>Net sales</td><td>812.4</td></tr><tr><td>Cost</td><td>512.0</td></tr></table>"
    layout = f"<table><tr><td>{ENGLISH}</td><td>{inner}</td></tr></table>"
    page = f"<html><body>{'<div>' * 1500}{layout}{'</div>' * 1500}<p>The end of it.</p></body></html>"
    (found,) = read(tmp_path, "a.html", page.encode())
    assert isinstance(found, Source)
    assert [block.kind for block in found.blocks] == ["paragraph", "table", "paragraph"]
    assert [cell.text for row in found.blocks[1].rows for cell in row.cells] == ["Net sales", "812.4", "Cost", "512.0"]
    assert found.text.strip().endswith("The end of it.")


# ---------------------------------------------------------------------------------------------- folders


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that any user may enter."""
    made = Path(tempfile.mkdtemp(prefix="finlm-corpus-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def test_links_are_followed_but_not_in_circles(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b.txt").write_text(ENGLISH)
    (folder / "a" / "deep").mkdir(parents=True)
    (folder / "a" / "a.txt").write_text(ENGLISH)
    (folder / "a" / "deep" / "up").symlink_to(folder / "a")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "gone.txt").symlink_to(folder / "nowhere.txt")
    (folder / "self.txt").symlink_to(folder / "self.txt")
    (folder / "~$a.docx").write_bytes(b"x")
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "c.txt").write_text(ENGLISH)
    os.mkfifo(folder / "pipe.txt")
    (folder / "slides.pptx").write_bytes(b"x")
    known, unread = corpus_files(folder)
    assert [path.relative_to(folder).as_posix() for path in known] == ["a/a.txt", "linked/b.txt"]
    assert {item.path: item.rule for item in unread} == {
        "a/deep/up": "link-loop",
        "gone.txt": "broken-link",
        "pipe.txt": "unknown-kind",
        "self.txt": "broken-link",
        "slides.pptx": "unknown-kind",
    }


def test_what_may_not_be_opened_is_named(folder: Path) -> None:
    (folder / "good.txt").write_text(ENGLISH)
    (folder / "secret.txt").write_text(ENGLISH)
    (folder / "secret.txt").chmod(0)
    (folder / "closed").mkdir(mode=0o700)
    (folder / "closed" / "a.txt").write_text(ENGLISH)
    (folder / "closed").chmod(0)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        known, unread = corpus_files(folder)
        found = [item for path in known for item in read_file(path, folder)]
        hashed = fingerprint(folder)  # as a run does with its input
    finally:
        if is_root:
            os.seteuid(0)
        (folder / "closed").chmod(0o700)
    assert [(item.path, item.rule) for item in unread] == [("closed", "no-permission")]
    (good, secret) = found
    assert isinstance(good, Source)
    assert isinstance(secret, Unread)
    assert (secret.path, secret.rule) == ("secret.txt", "no-permission")
    assert "Permission denied" in secret.reason
    assert is_root is (hashed != fingerprint(folder))  # root reads what was closed


def test_a_folder_without_filings_says_what_it_holds(folder: Path) -> None:
    with pytest.raises(MissingInput, match="no such folder"):
        corpus_files(folder / "nowhere")
    (folder / "slides.pptx").write_bytes(b"x")
    with pytest.raises(UserError, match=r"holds no filing.*slides\.pptx is of no known kind"):
        corpus_files(folder)
    with pytest.raises(UserError, match="is a file; name the folder"):
        corpus_files(folder / "slides.pptx")


# ---------------------------------------------------------------------------------------------- a whole run


def test_a_run_over_bad_files_names_each_and_goes_on(folder: Path, generate: Any, tmp_path: Path) -> None:
    """What may not be opened included, also by the hash of the run's input."""
    (folder / "alder.pdf").write_bytes(pages("Alder Foods, Inc.", "", LINE))
    (folder / "photo.html").write_bytes(PNG)
    (folder / "bomb.docx").write_bytes(packed({"word/document.xml": bytes(101_000_000)}))
    (folder / "loop").symlink_to(folder)
    (folder / "slides.pptx").write_bytes(b"x")
    out = tmp_path / "out"
    done = generate("--corpus", str(folder), "--output", str(out), "--cache", str(tmp_path / "parsed"))
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (out / "rejected.jsonl").read_text(encoding="utf-8").splitlines()]
    named = {row["text"]: row["rule"] for row in rows}
    expected = {
        "alder.pdf": "pages-without-text",
        "photo.html": "wrong-kind",
        "bomb.docx": "too-large",
        "loop": "link-loop",
        "slides.pptx": "unknown-kind",
    }
    assert expected.items() <= named.items()
    for name in expected:
        assert name in done.stderr
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert (summary["files"], summary["files_unread"], summary["documents"]) == (5, 4, 1)


def test_a_full_disk_ends_a_run_in_one_sentence_and_the_next_goes_on(folder: Path, root: Path, tmp_path: Path) -> None:
    (folder / "alder.txt").write_text("Alder Foods, Inc.\n\n" + ENGLISH * 400, encoding="utf-8")
    (folder / "birch.txt").write_text("Birch Corp.\n\n" + ENGLISH, encoding="utf-8")
    command = [sys.executable, str(root / "selfqa" / "generate.py"), "--corpus", str(folder), "--runs", str(tmp_path)]
    limit = "import resource, signal, sys, os; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2); os.execv(sys.argv[2], sys.argv[2:])"

    def run(megabytes: float) -> subprocess.CompletedProcess[str]:
        limited = [sys.executable, "-c", limit, str(int(megabytes * 1e6)), *command]
        return subprocess.run(limited, capture_output=True, text=True, timeout=300, check=False)

    for megabytes in (0.005, 0.1):  # no room for what was parsed; none for the documents
        done = run(megabytes)
        assert done.returncode == 2, done.stderr
        assert done.stderr.count("error:") == 1
        assert "Traceback" not in done.stderr
        left = [path.name for path in (tmp_path / "selfqa").iterdir() if path.is_file()]
        assert not {"documents.jsonl", "instructions.jsonl", "rejected.jsonl"} & set(left)
        assert not [name for name in left if name.endswith(".tmp")]
    assert run(1000).returncode == 0
    rows = (tmp_path / "selfqa" / "documents.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(row)["source"] for row in rows] == ["alder.txt", "birch.txt"]
