"""Files of records: whole or not there, and every fault of a line named with its place."""

import gzip
import json
import lzma
from collections.abc import Iterator
from pathlib import Path

import pytest

from finlm import jsonl
from finlm.errors import MissingInput, UserError
from finlm.records import Removal

GOOD = '{"record_id":"1","rule":"too-long","reason":"9 of 8"}\n'


def test_compressed_files_are_read_by_their_suffix(tmp_path: Path) -> None:
    for name, opener in (("a.jsonl.xz", lzma.open), ("a.jsonl.gz", gzip.open), ("a.jsonl", open)):
        with opener(tmp_path / name, "wt", encoding="utf-8") as out:
            out.write(GOOD + "\n" + GOOD)
        assert [removal.reason for removal in jsonl.read(tmp_path / name, Removal)] == ["9 of 8"] * 2


def test_text_of_any_script_survives(tmp_path: Path) -> None:
    text = "营业收入 \u2028 5,0 %\n\t\"'\\ \U0001f4c8"
    jsonl.write(tmp_path / "a.jsonl", [Removal(record_id="1", rule="r", reason=text)])
    assert (tmp_path / "a.jsonl").read_bytes().count(b"\n") == 1
    (read,) = jsonl.read(tmp_path / "a.jsonl", Removal)
    assert read.reason == text
    assert json.loads((tmp_path / "a.jsonl").read_text(encoding="utf-8"))["reason"] == text


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            '{"record_id": 1, "rule": "r", "reason": ""}\n',
            r"a\.jsonl:2: not a valid Removal: Expected `str`, got `int`",
        ),
        ('{"record_id": "1", "rule": "r"}\n', r"a\.jsonl:2: .*missing required field `reason`"),
        ('{"record_id": "1", "ru', r"a\.jsonl:2: .*truncated"),
        ("not json\n", r"a\.jsonl:2: .*malformed"),
    ],
)
def test_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "a.jsonl").write_text(GOOD + line, encoding="utf-8")
    rows = jsonl.read(tmp_path / "a.jsonl", Removal)
    assert next(rows).record_id == "1"
    with pytest.raises(UserError, match=message):
        next(rows)


def test_line_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(GOOD.encode() + '{"record_id":"净利润","rule":"r","reason":""}\n'.encode("gb18030"))
    with pytest.raises(UserError, match=r"a\.jsonl: line 2 is not UTF-8 .*; convert the file\."):
        list(jsonl.read(file, Removal))


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match=r"nowhere\.jsonl: no such file\."):
        list(jsonl.read(tmp_path / "nowhere.jsonl", Removal))


@pytest.mark.parametrize(("suffix", "pack"), [("xz", lzma.compress), ("gz", gzip.compress)])
def test_damaged_compressed_file_is_named(tmp_path: Path, suffix: str, pack) -> None:
    file = tmp_path / f"a.jsonl.{suffix}"
    packed = pack(GOOD.encode() * 50)
    middle = len(packed) // 2
    flipped = packed[:middle] + bytes([packed[middle] ^ 0xFF]) + packed[middle + 1 :]
    file.write_bytes(flipped)
    with pytest.raises(UserError, match=rf"a\.jsonl\.{suffix}.*(damaged|not a valid)"):
        list(jsonl.read(file, Removal))
    for content in (packed[:middle], b"nothing packed"):
        file.write_bytes(content)
        with pytest.raises(UserError, match=r"the compressed file is damaged .*; fetch it again\."):
            list(jsonl.read(file, Removal))


def test_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "a.jsonl"
    jsonl.write(file, [Removal(record_id="old", rule="r", reason="")])

    def interrupted() -> Iterator[Removal]:
        yield Removal(record_id="new", rule="r", reason="")
        assert "old" in file.read_text(encoding="utf-8")
        raise OSError("the source went away")

    with pytest.raises(OSError, match="went away"):
        jsonl.write(file, interrupted())
    assert [removal.record_id for removal in jsonl.read(file, Removal)] == ["old"]
    assert [path.name for path in file.parent.iterdir()] == ["a.jsonl"]
