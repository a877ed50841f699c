"""Published instruction formats: every row becomes a conversation with its place, or a removal with its rule."""

import gzip
import json
import lzma
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finlm import jsonl
from finlm.errors import MissingInput, UserError
from finlm.instruction_files import RULES, conversations
from finlm.records import Conversation, Message, Provenance, Removal, content_id
from finlm.row_files import Found

GOOD = {"question": "Why?", "answer": "Because."}


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path, category: str = "general") -> tuple[list[Found[Conversation]], list[Removal]]:
    made = list(conversations(path, category=category))
    return [one for one in made if isinstance(one, Found)], [one for one in made if isinstance(one, Removal)]


def turns(found: Found[Conversation]) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in found.record.messages]


U, A, S = "user", "assistant", "system"


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (
            {
                "messages": [
                    {"role": S, "content": "Be brief."},
                    {"role": U, "content": "Hi"},
                    {"role": A, "content": "Yo"},
                ]
            },
            [(S, "Be brief."), (U, "Hi"), (A, "Yo")],
        ),
        (
            {"conversations": [{"from": "human", "value": "1+1?"}, {"from": "gpt", "value": "2"}]},
            [(U, "1+1?"), (A, "2")],
        ),
        (
            {"system": "Sum.", "conversations": [{"from": "user", "value": "1+1?"}, {"from": "agent", "value": "2"}]},
            [(S, "Sum."), (U, "1+1?"), (A, "2")],
        ),
        ({"conversations": [{"role": U, "content": "Hi"}, {"role": A, "content": "Yo"}]}, [(U, "Hi"), (A, "Yo")]),
        ({"instruction": "Add.", "input": "1, 2", "output": "3"}, [(U, "Add.\n\n1, 2"), (A, "3")]),
        ({"instruction": "Add.", "input": "", "output": "3", "history": None}, [(U, "Add."), (A, "3")]),
        ({"instruction": "", "input": "1, 2", "output": "3"}, [(U, "1, 2"), (A, "3")]),
        (
            {"instruction": "And 3?", "output": "6", "history": [["1+2?", "3"], ["Sure?", "Yes"]], "system": "Add."},
            [(S, "Add."), (U, "1+2?"), (A, "3"), (U, "Sure?"), (A, "Yes"), (U, "And 3?"), (A, "6")],
        ),
        (GOOD, [(U, "Why?"), (A, "Because.")]),
        ({"prompt": "Why?", "response": "So."}, [(U, "Why?"), (A, "So.")]),
        ({"prompt": "Why?", "completion": "So."}, [(U, "Why?"), (A, "So.")]),
        (
            {
                "prompt": [{"role": S, "content": "Hm."}, {"role": U, "content": "Why?"}],
                "completion": [{"role": A, "content": "So."}],
            },
            [(S, "Hm."), (U, "Why?"), (A, "So.")],
        ),
        # who has no system prompt often leaves it blank
        (
            {"messages": [{"role": S, "content": " "}, {"role": U, "content": "Hi"}, {"role": A, "content": "Yo"}]},
            [(U, "Hi"), (A, "Yo")],
        ),
    ],
)
def test_format_is_told_by_its_keys(tmp_path: Path, row: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    (found,), removals = read(lines(tmp_path / "a.jsonl", row), "finance")
    assert removals == []
    assert turns(found) == expected
    assert found.place == "a.jsonl:1"
    assert (found.record.category, found.record.language, found.record.provenance) == ("finance", "en", None)
    first = next(text for role, text in expected if role == U)
    assert found.record.group == content_id(first)


def test_every_instance_is_a_conversation(tmp_path: Path) -> None:
    instances = [{"input": "1", "output": "2"}, {"input": "", "output": "one more"}, {"input": "3", "output": ""}, "x"]
    found, removals = read(lines(tmp_path / "a.jsonl", GOOD, {"instruction": "Add one.", "instances": instances}))
    assert [turns(one) for one in found[1:]] == [
        [(U, "Add one.\n\n1"), (A, "2")],
        [(U, "Add one."), (A, "one more")],
    ]
    assert [one.place for one in found] == ["a.jsonl:1", "a.jsonl:2", "a.jsonl:2"]
    assert [(one.record_id, one.rule) for one in removals] == [
        ("a.jsonl:2", "no-answer"),
        ("a.jsonl:2", "unknown-format"),
    ]
    assert removals[0].reason == f"{tmp_path / 'a.jsonl'}:2: instance 3: the answer is blank"


def test_our_own_records_keep_their_fields(tmp_path: Path, root: Path) -> None:
    whole = Conversation(
        messages=(Message(role="user", content="净利润是多少？"), Message(role="assistant", content="5亿元。")),
        category="safety", language="en", kind="fact", form="open-book", group="Acme",
        provenance=Provenance(maker="person:7", document_id="9f", end=3),
    )  # fmt: skip
    bare = Conversation(messages=whole.messages, category="finance")
    jsonl.write(tmp_path / "a.jsonl", [whole, bare])
    (first, second), removals = read(tmp_path / "a.jsonl")
    assert removals == []
    assert first.record == whole
    assert (second.record.category, second.record.language) == ("finance", "zh")
    assert second.record.group == content_id("净利润是多少？")
    assert second.record.id == bare.id

    example = root / "examples" / "instructions" / "general.jsonl"
    found, removals = read(example, "finance")
    assert removals == []
    assert [one.record.id for one in found] == [record.id for record in jsonl.read(example, Conversation)]
    assert {one.record.category for one in found} == {"general", "safety"}


def test_a_category_of_another_data_set_is_not_ours(tmp_path: Path) -> None:
    row = {"messages": [{"role": U, "content": "Hi"}, {"role": A, "content": "Yo"}], "category": "Coding", "kind": 7}
    (found,), _ = read(lines(tmp_path / "a.jsonl", row), "finance")
    assert (found.record.category, found.record.kind) == ("finance", "")


def said(*names: str) -> list[dict[str, str]]:
    return [{"role": name, "content": f"by {name}"} for name in names]


@pytest.mark.parametrize(
    ("row", "rule", "reason"),
    [
        ({"instruction": "Add.", "input": "", "output": ""}, "no-answer", "the answer is blank"),
        ({"instruction": "Add."}, "no-answer", "the answer is blank"),
        ({"question": "Why?", "answer": None}, "no-answer", "the answer is blank"),
        ({"prompt": "Why?", "chosen": "So.", "rejected": "No."}, "no-answer", "the answer is blank"),
        ({"messages": said(U, A, U)}, "no-answer", "the last turn is the user's"),
        ({"instruction": "Add.", "instances": []}, "no-answer", "'instances' is empty"),
        ({"messages": [*said(U), {"role": A, "content": "\u3000\n"}]}, "no-answer", "the answer is blank"),
        ({"question": " ", "answer": "So."}, "empty", "a turn by the user is blank"),
        ({"instruction": "", "input": "", "output": "So."}, "empty", "a turn by the user is blank"),
        ({"instruction": "And?", "output": "So.", "history": [["Hi", ""]]}, "empty", "a turn by the assistant is"),
        ({"messages": []}, "empty", "there is no turn"),
        ({"messages": said(S)}, "empty", "there is no turn"),
        ({"messages": said(A, U)}, "roles", "turn 1 is by 'assistant', expected the user"),
        ({"messages": said(U, U, A)}, "roles", "turn 2 is by 'user', expected the assistant"),
        ({"messages": said(U, A, S, U, A)}, "roles", "turn 3 is by 'system', expected the user"),
        ({"messages": said(U, "tool", A)}, "roles", "turn 2 is by 'tool', not by system, user or assistant"),
        ({"messages": [*said(U), {"role": A, "content": None, "tool_calls": [{}]}]}, "roles", "turn 2 calls a tool"),
        ({"messages": said(U, A, U), "category": "general"}, "no-answer", "the last turn is the user's"),
        ({"messages": said(U, A), "category": "general", "form": "oral"}, "unknown-format", "not a valid Conversation"),
        ({"messages": "Hi"}, "unknown-format", "'messages' is a text, not a list"),
        ({"conversations": ["Hi", "Yo"]}, "unknown-format", "turn 1 of 'conversations' has neither role and content"),
        ({"question": "Why?", "answer": ["So."]}, "unknown-format", "turn 2 is a list, not a text"),
        ({"instruction": "And?", "output": "So.", "history": [["Hi"]]}, "unknown-format", "'history' is not a list of"),
        ({"text": "No question."}, "unknown-format", "no known format has these keys: text"),
        ({}, "unknown-format", "no known format has these keys: none"),
        ([GOOD], "unknown-format", "list instead of an object"),
    ],
)  # fmt: skip
def test_row_that_cannot_be_used_is_named(tmp_path: Path, row: Any, rule: str, reason: str) -> None:
    path = lines(tmp_path / "a.jsonl", GOOD, row, GOOD)
    found, (removal,) = read(path)
    assert [one.place for one in found] == ["a.jsonl:1", "a.jsonl:3"]
    assert (removal.record_id, removal.rule) == ("a.jsonl:2", rule)
    assert removal.reason.startswith(f"{path}:2: {reason}")
    assert json.loads(removal.text) == row
    assert rule in RULES


def test_lines_that_are_no_json_or_no_utf8_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    good = json.dumps(GOOD).encode() + b"\n"
    chinese = json.dumps({"question": "净利润？", "answer": "5"}, ensure_ascii=False).encode("gb18030") + b"\n"
    path.write_bytes(
        b"\xef\xbb\xbf" + good + b"\n" + b"{'question': 1}\n" + chinese + b"[" * 9999 + b"\n" + good + good[:9]
    )
    found, removals = read(path)
    assert [one.place for one in found] == ["a.jsonl:1", "a.jsonl:6"]
    assert [(one.record_id, one.rule) for one in removals] == [
        ("a.jsonl:3", "not-json"), ("a.jsonl:4", "not-utf8"), ("a.jsonl:5", "not-json"), ("a.jsonl:7", "not-json"),
    ]  # fmt: skip
    byte = 3 + len(good) + 1 + len(b"{'question': 1}\n") + len(b'{"question": "')
    assert removals[1].reason.startswith(f"{path}:4: not UTF-8 at byte {byte} of the file")
    assert len(removals[2].text) == 2000


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.xz", "jsonl.gz", "json", "json.xz", "json.gz", "parquet"])
def test_containers_hold_the_same(tmp_path: Path, suffix: str) -> None:
    rows = [
        {"instruction": "Add.", "input": "1, 2", "output": "3", "history": [["Hi", "Yo"]]},
        {"instruction": "Add.", "input": "", "output": "", "history": []},
        {"instruction": "营业收入？", "input": None, "output": "四亿元", "history": None},
    ]
    path = tmp_path / f"a.{suffix}"
    text = "".join(json.dumps(row) + "\n" for row in rows) if "jsonl" in suffix else json.dumps(rows, indent=1)
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)
    else:
        pack = {".xz": lzma.compress, ".gz": gzip.compress}.get(path.suffix, bytes)
        path.write_bytes(pack(text.encode()))
    where = "" if "jsonl" in suffix else "row "
    found, (removal,) = read(path)
    assert [turns(one) for one in found] == [
        [(U, "Hi"), (A, "Yo"), (U, "Add.\n\n1, 2"), (A, "3")],
        [(U, "营业收入？"), (A, "四亿元")],
    ]
    assert [one.place for one in found] == [f"a.{suffix}:{where}1", f"a.{suffix}:{where}3"]
    assert [one.record.language for one in found] == ["en", "zh"]
    assert (removal.record_id, removal.rule) == (f"a.{suffix}:{where}2", "no-answer")
    assert removal.reason == f"{path}:{where}2: the answer is blank"


def test_json_file_of_lines_is_read_as_lines(tmp_path: Path) -> None:
    found, removals = read(lines(tmp_path / "a.json", GOOD, 7))
    assert [one.place for one in found] == ["a.json:1"]
    assert [one.record_id for one in removals] == ["a.json:2"]


def test_one_bad_row_of_an_array_is_one_removal(tmp_path: Path) -> None:
    bad = b'{"question": "\xff", "answer": "5"}'
    (tmp_path / "a.json").write_bytes(b'[{"question": "Why?", "answer": "So."},' + bad + b", 5]")
    found, removals = read(tmp_path / "a.json")
    assert len(found) == 1
    assert [(one.record_id, one.rule) for one in removals] == [
        ("a.json:row 2", "not-utf8"),
        ("a.json:row 3", "unknown-format"),
    ]
    assert "not UTF-8 at byte 14 of the row" in removals[0].reason


def test_parquet_row_that_is_no_utf8_is_one_removal(tmp_path: Path) -> None:
    def texts(*data: bytes) -> pa.Array:
        ends = [sum(map(len, data[:count])) for count in range(len(data) + 1)]
        buffers = [None, pa.array(ends, pa.int32()).buffers()[1], pa.py_buffer(b"".join(data))]
        return pa.StringArray.from_buffers(len(data), *buffers[1:])

    pq.write_table(
        pa.table({"question": texts(b"a", b"b\xff", b"c"), "answer": texts(b"1", b"2", b"3")}), tmp_path / "a.parquet"
    )
    found, (removal,) = read(tmp_path / "a.parquet")
    assert [one.place for one in found] == ["a.parquet:row 1", "a.parquet:row 3"]
    assert (removal.record_id, removal.rule) == ("a.parquet:row 2", "not-utf8")


def test_our_own_records_survive_parquet(tmp_path: Path) -> None:
    rows = [json.loads(jsonl.encode(record)) for record in OWN]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    found, removals = read(tmp_path / "a.parquet")
    assert removals == []
    assert [one.record for one in found] == OWN


OWN = [
    Conversation(
        messages=(Message(role="user", content="Hi"), Message(role="assistant", content="Yo")),
        category="finance", language="zh", group=group, provenance=provenance,
    )
    for group, provenance in (("Acme", Provenance(maker="person:7", parents=("9f",))), ("Bolt", None))
]  # fmt: skip


# ------------------------------------------------------------------------------------------------------ whole files


def test_missing_file_is_named(tmp_path: Path) -> None:
    for name in ("a.jsonl", "a.json.xz", "a.parquet"):
        with pytest.raises(MissingInput, match=rf"{name}: no such file\."):
            read(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.csv", b"question,answer\n", r"a\.csv: the suffix '\.csv' is none of \.jsonl and \.json"),
        ("a.jsonl", b"", r"a\.jsonl has no rows; give a file with our own .*Alpaca"),
        ("a.json", b"[]", r"a\.json has no rows"),
        ("a.json", b'[{"question": "a"', r"a\.json: not one array of JSON objects \(.*\); mend the file"),
        ("a.json", '[{"问": "\u8bb0\u4e4c"'.encode("gb18030"), r"a\.json: not UTF-8 at byte 3 .*convert the file"),
        ("a.jsonl", '{"问": "答"}\n'.encode("utf-16"), r"a\.jsonl is UTF-16 or UTF-32.*at byte 0\); convert it"),
        ("a.jsonl", '{"问": "答"}\n'.encode("utf-16-le"), r"a\.jsonl is UTF-16 or UTF-32"),
        ("a.jsonl.xz", lzma.compress(b"{}\n" * 99)[:-20], r"a\.jsonl\.xz: the compressed file is damaged"),
        ("a.jsonl.gz", b"nothing packed", r"a\.jsonl\.gz: the compressed file is damaged"),
        ("a.parquet", b"PAR1 and no more", r"a\.parquet: damaged behind row 0, or no parquet file"),
    ],
)
def test_file_that_cannot_be_used_is_named(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=message):
        read(tmp_path / name)


def test_file_without_a_usable_row_is_refused_after_its_removals(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", {"text": "a"}, {"question": "b"})
    made = conversations(path, category="general")
    assert [next(made).rule, next(made).rule] == ["unknown-format", "no-answer"]
    with pytest.raises(UserError, match=r"no row can be used.*a\.jsonl:1: no known format.*text; known are our own"):
        next(made)


def test_file_in_another_encoding_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes('{"question": "问", "answer": "答"}\n'.encode("gb18030") * 2)
    with pytest.raises(UserError, match=r"a\.jsonl:1: not UTF-8 at byte 14 of the file .*no other row.*iconv"):
        read(path)


# ---------------------------------------------------------------------------------------------------------- real data


@pytest.mark.parametrize(
    ("name", "rows", "usable", "languages"),
    [
        ("alpaca_zh", 16878, 16870, {"zh", "en"}),  # eight blank outputs
        ("fin_disc_zh", 400, 400, {"zh", "en"}),
        ("fin_pixiu_en", 7933, 7933, {"en"}),
        ("gsm8k_train", 7473, 7473, {"en"}),
        ("oasst_zh", 689, 689, {"zh", "en"}),
        ("self_instruct_en", 427, 427, {"en", "zh"}),
    ],
)
def test_published_set_loads(shared_data: Path, name: str, rows: int, usable: int, languages: set[str]) -> None:
    found, removals = read(shared_data / "instructions" / f"{name}.jsonl.xz")
    assert len(found) == usable
    assert len(found) + len(removals) == rows
    assert {removal.rule for removal in removals} <= {"no-answer"}
    counted = Counter(one.record.language for one in found)
    assert set(counted) == languages
    assert counted[name[-2:] if name[-2:] in languages else "en"] > 0.95 * usable
    if name == "oasst_zh":  # 390 of its rows have a history
        assert sum(len(one.record.messages) > 2 for one in found) == 390


def test_no_published_set_was_forgotten(shared_data: Path) -> None:
    assert {path.name.partition(".")[0] for path in (shared_data / "instructions").iterdir()} == {
        "alpaca_zh", "fin_disc_zh", "fin_pixiu_en", "gsm8k_train", "oasst_zh", "self_instruct_en",
    }  # fmt: skip
