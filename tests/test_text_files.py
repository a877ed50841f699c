"""Text to train on: rows and whole files become documents with their place, or removals with their rule."""

import gzip
import json
import lzma
from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finlm import jsonl
from finlm.errors import MissingInput, UserError
from finlm.language import language_of
from finlm.records import Document, Removal
from finlm.row_files import Found
from finlm.text_files import documents


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path) -> tuple[list[Found[Document]], list[Removal]]:
    made = list(documents(path))
    return [one for one in made if isinstance(one, Found)], [one for one in made if isinstance(one, Removal)]


def test_rows_with_text_become_documents(tmp_path: Path) -> None:
    rows = [
        {"id": "sec/1", "lang": "en", "text": "Item 1.\r\n"},
        {"content": "营业收入增长。"},
        {"id": 7, "text": None, "content": "In English", "language": "zh-CN"},
        {"text": "Auf Deutsch", "lang": "de"},
    ]
    found, removals = read(lines(tmp_path / "a.jsonl", *rows))
    assert removals == []
    assert [(one.record.text, one.record.source, one.record.language, one.place) for one in found] == [
        ("Item 1.\r\n", "a.jsonl#sec/1", "en", "a.jsonl:1"),
        ("营业收入增长。", "a.jsonl", "zh", "a.jsonl:2"),
        ("In English", "a.jsonl#7", "zh", "a.jsonl:3"),
        ("Auf Deutsch", "a.jsonl", "en", "a.jsonl:4"),
    ]
    assert found[1].record.sha256 == sha256("营业收入增长。".encode()).hexdigest()


def test_our_own_records_keep_their_fields(tmp_path: Path) -> None:
    whole = Document(text="Item 1.", source="acme.html", sha256="ab", language="zh", entity="Acme")
    bare = Document(text="营业收入", source="b.txt", sha256="cd")
    jsonl.write(tmp_path / "a.jsonl", [whole, bare])
    (first, second), _ = read(tmp_path / "a.jsonl")
    assert first.record == whole
    assert (second.record.id, second.record.source, second.record.language) == (bare.id, "b.txt", "zh")


@pytest.mark.parametrize(
    ("row", "rule", "reason"),
    [
        ({"text": " \n"}, "empty", "'text' is blank"),
        ({"content": ""}, "empty", "'content' is blank"),
        ({"title": "a", "body": "b"}, "no-text", "neither 'text' nor 'content' among the keys title, body"),
        ({"text": ["a"]}, "no-text", "'text' is no text but list"),
        ({"text": "a", "source": "b", "sha256": "c", "entity": 7}, "no-text", "not a valid Document: Expected `str`"),
        ("text", "unknown-format", "str instead of an object"),
    ],
)
def test_row_that_cannot_be_used_is_named(tmp_path: Path, row: Any, rule: str, reason: str) -> None:
    path = lines(tmp_path / "a.jsonl", {"text": "good"}, row)
    found, (removal,) = read(path)
    assert len(found) == 1
    assert (removal.record_id, removal.rule) == ("a.jsonl:2", rule)
    assert removal.reason.startswith(f"{path}:2: {reason}")


def test_lines_that_are_no_json_or_no_utf8_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "a"}\n{"text": "b\n{"text": "\xff"}\n')
    found, removals = read(tmp_path / "a.jsonl")
    assert [(one.record_id, one.rule) for one in removals] == [("a.jsonl:2", "not-json"), ("a.jsonl:3", "not-utf8")]
    assert len(found) == 1


def test_arrays_and_parquet_hold_rows(tmp_path: Path) -> None:
    rows = [{"id": str(number), "text": f"text {number}"} for number in range(3000)]
    (tmp_path / "a.json").write_text(json.dumps(rows), encoding="utf-8")
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=1500)
    for name in ("a.json", "a.parquet"):
        found, removals = read(tmp_path / name)
        assert removals == []
        assert [one.record.text for one in found] == [row["text"] for row in rows]
        assert found[-1].place == f"{name}:row 3000"
        assert found[-1].record.source == f"{name}#2999"


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.txt.xz", "a.md.gz"])
def test_plain_text_is_one_document(tmp_path: Path, name: str) -> None:
    text = "# 年度报告\r\n\r\n营业收入增长。\n"
    pack = {".xz": lzma.compress, ".gz": gzip.compress}.get(Path(name).suffix, bytes)
    (tmp_path / name).write_bytes(pack(b"\xef\xbb\xbf" + text.encode()))
    (found,), removals = read(tmp_path / name)
    assert removals == []
    assert found.place == f"{name}:1"
    assert found.record == Document(text=text, source=name, sha256=sha256(text.encode()).hexdigest(), language="zh")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.txt", b" \n", r"a\.txt has no text\."),
        ("a.txt", "Item 记录".encode("gb18030"), r"a\.txt: not UTF-8 at byte 5 .*convert the file.*iconv"),
        ("a.md", "abc".encode("utf-16-le"), r"a\.md: character 1 is NUL, as in UTF-16"),
        ("a.md", "abc".encode("utf-16"), r"a\.md: not UTF-8 at byte 0 "),
        ("a.txt.xz", b"plain", r"a\.txt\.xz: the compressed file is damaged"),
        ("a.html", b"<p>", r"a\.html: the suffix '\.html' is none of \.jsonl .*; give rows .*\.txt or \.md"),
        ("a.jsonl", b'{"question": "a"}\n', r"no row can be used.*neither 'text' nor 'content'.*known are rows with"),
    ],
)
def test_file_that_cannot_be_used_is_named(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=message):
        read(tmp_path / name)


def test_missing_file_is_named(tmp_path: Path) -> None:
    for name in ("a.jsonl", "a.txt", "a.md.xz", "a.parquet"):
        with pytest.raises(MissingInput, match=rf"{name}: no such file\."):
            read(tmp_path / name)


def test_language_is_that_of_most_letters() -> None:
    assert [language_of(text) for text in ("营收 ABCD", "营收 ABCDEFGH", "营收 3.5%", "2024: 3.5%", "")] == [
        "zh", "en", "zh", "en", "en",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "rows", "language"),
    [
        ("fin_en_fed.jsonl", 706, "en"),
        ("fin_en_openstax.jsonl", 614, "en"),
        ("fin_en_sec.jsonl", 47, "en"),
        ("fin_zh_akshare.jsonl", 27, "zh"),
        ("fin_zh_laws.jsonl", 1492, "zh"),
        ("gen_en_books.jsonl", 7, "en"),
        ("gen_en_c4.jsonl", 300, "en"),
        ("gen_en_wikitext2_valid.txt", 1, "en"),
        ("gen_zh_classics.jsonl", 535, "zh"),
        ("gen_zh_docs.jsonl", 1378, "zh"),
        ("THUOCL_caijing.txt", 1, "zh"),
    ],
)
def test_published_corpus_loads(shared_data: Path, name: str, rows: int, language: str) -> None:
    (path,) = (path for path in (shared_data / "corpus").iterdir() if path.name.removesuffix(".xz") == name)
    found, removals = read(path)
    assert removals == []
    assert Counter(one.record.language for one in found) == {language: rows}
