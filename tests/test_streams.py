"""Streams out of files: what chat_format gives, pieces cut at sentences, splits by group, and nothing lost."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest

from finlm import chat_format, data, encoding, instruction_files, streams, text_files, token_store
from finlm.errors import UserError
from finlm.records import Conversation, Document, Message, Removal
from finlm.row_files import Found
from finlm.samples import Sample
from finlm.tokenizer import load_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tiny: Any) -> Any:
    return load_tokenizer(tiny.base)


def talk(*turns: str, form: Any = "", group: str = "") -> Conversation:
    roles = ("user", "assistant")
    messages = tuple(Message(role=roles[n % 2], content=text) for n, text in enumerate(turns))  # type: ignore[arg-type]
    return Conversation(messages=messages, form=form, group=group, language="en")


def found(*records: Any) -> list[Any]:
    return [Found(record, f"a.jsonl:{number}") for number, record in enumerate(records, 1)]


def test_conversations_are_encoded_as_chat_format_does(tokenizer: Any) -> None:
    talks = [talk("One?", "Two.", "Three </s> four?", "Five."), talk("六？", "七。"), talk("a", "b")] * 100
    made = list(encoding.conversations(found(*talks), tokenizer, "instructions-general", max_length=200, forms=[""]))
    assert len(made) == 300
    for one, record in zip(made, talks, strict=True):
        assert not isinstance(one, Removal)
        sample, _ = one
        wanted = chat_format.encode(tokenizer, record.messages)
        assert sample.ids.tolist() == list(wanted.ids)
        assert sample.is_learned.tolist() == list(wanted.is_answer)
        assert sample.learned > 0


def test_what_is_too_long_or_of_another_form_is_removed_with_its_line(tokenizer: Any) -> None:
    broken = Removal(record_id="a.jsonl:9", rule="roles", reason="a.jsonl:9: turn 1 is by the assistant")
    records = [*found(talk("a b c d e f g", "h"), talk("a", "b", form="open-book"), talk("a", "b")), broken]
    length = len(chat_format.encode(tokenizer, talk("a", "b").messages).ids)
    made = list(encoding.conversations(records, tokenizer, "instructions-general", max_length=length, forms=[""]))
    removals = {one.rule: one.reason for one in made if isinstance(one, Removal)}
    assert removals.keys() == {"too-long", "other-form", "roles"}
    assert removals["too-long"].startswith("a.jsonl:1: ")
    assert removals["other-form"].startswith("a.jsonl:2: its form is 'open-book'")
    assert sum(not isinstance(one, Removal) for one in made) == 1


def test_a_whole_batch_of_another_form_is_removed(tokenizer: Any) -> None:
    records = found(*[talk(f"a {number}", "b", form="open-book") for number in range(encoding.BATCH)], talk("a", "b"))
    made = list(encoding.conversations(records, tokenizer, "instructions-general", max_length=64, forms=[""]))
    assert [isinstance(one, Removal) for one in made] == [True] * encoding.BATCH + [False]


def test_a_long_document_continues_behind_a_sentence(tokenizer: Any) -> None:
    text = " ".join(f"Sentence {number} is here." for number in range(60)) + " 结束了。"
    document = Document(text=text, source="a#1", sha256="0" * 64, language="en", entity="Acme")
    made = list(encoding.documents(found(document), tokenizer, "text-finance", max_length=40))
    samples = [one[0] for one in made if not isinstance(one, Removal)]
    assert len(samples) > 5
    whole = [*chat_format.plain_ids(tokenizer, text), tokenizer.eos_token_id]
    assert np.concatenate([sample.ids for sample in samples]).tolist() == whole
    assert all(len(sample) <= 40 for sample in samples)
    assert all(sample.is_learned[1:].all() and not sample.is_learned[0] for sample in samples)
    assert {group for _, group in (one for one in made if not isinstance(one, Removal))} == {"Acme"}
    for sample in samples[:-1]:
        assert tokenizer.decode(sample.ids).rstrip().endswith(".")
    assert len({sample.record_id for sample in samples}) == len(samples)


def write(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def load(files: dict[Any, list[str]], tokenizer: Any, cache: Path, **changes: Any) -> streams.Streams:
    settings = {"max_length": 64, "forms": [""], "test_share": 0.3, "test_samples": 5} | changes
    return streams.load(files, tokenizer, cache=cache, **settings)


@pytest.fixture
def files(tmp_path: Path) -> dict[Any, list[str]]:
    alpaca = [{"instruction": f"Say {number}.", "input": "", "output": f"{number}."} for number in range(60)]
    bad = [{"instruction": "Say.", "input": "", "output": ""}]
    texts = [{"id": f"d{number}", "text": f"Text {number} is short."} for number in range(20)]
    return {
        "instructions-general": [write(tmp_path / "alpaca.jsonl", [*alpaca, *bad, alpaca[0]])],
        "text-finance": [write(tmp_path / "text.jsonl", texts)],
    }


def test_counts_add_up_and_groups_do_not_span_the_split(files: Any, tokenizer: Any, tmp_path: Path) -> None:
    made = load(files, tokenizer, tmp_path / "cache")
    rules = sorted(removal.rule for removal in made.removals)
    trained, tested = made.train["instructions-general"], made.held_out["instructions-general"]
    assert len(tested) == 5
    assert rules.count("no-answer") == rules.count("duplicate") == 1
    general = [one for one in made.removals if one.rule == "over-limit" and "instructions-general" in one.reason]
    assert len(trained) + len(tested) + len(general) == 60
    ids = {one.record_id for one in trained} & {one.record_id for one in tested}
    assert not ids
    # which are held out is decided by the group's name, as in every stage
    for record in instruction_files.conversations(files["instructions-general"][0], category="general"):
        if not isinstance(record, Removal):
            held = data.is_held_out(record.record, test_share=0.3)
            assert (record.record.id in {one.record_id for one in trained}) is not held
    assert len(made.train["text-general"]) == 0


def test_files_are_encoded_once_and_anew_when_they_change(
    files: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load(files, tokenizer, tmp_path / "cache")

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("encoded again")

    with monkeypatch.context() as patch:
        patch.setattr(encoding, "conversations", refuse)
        patch.setattr(encoding, "documents", refuse)
        again = load(files, tokenizer, tmp_path / "cache")
    for name, stream in first.train.items():
        assert [one.ids.tolist() for one in stream] == [one.ids.tolist() for one in again.train[name]]
    assert again.removals == first.removals
    write(Path(files["text-finance"][0]), [{"text": "Another text."}])
    changed = load(files, tokenizer, tmp_path / "cache", test_share=0.0)
    assert len(changed.train["text-finance"]) == 1
    shutil.rmtree(next(path for path in (tmp_path / "cache").iterdir() if path.is_dir()))
    load(files, tokenizer, tmp_path / "cache")


def test_runs_that_begin_together_encode_a_file_once(
    files: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight, written, together = token_store.write, [], Barrier(3)

    def write_counted(folder: Path, encoded: Any) -> None:
        written.append(folder)
        straight(folder, encoded)

    def load_with_others(number: int) -> streams.Streams:
        together.wait()
        return load(files, tokenizer, tmp_path / "cache")

    monkeypatch.setattr(token_store, "write", write_counted)
    with ThreadPoolExecutor(3) as pool:
        made = list(pool.map(load_with_others, range(3)))
    assert len(written) == len(set(written)) == 2
    assert [len(one.train["text-finance"]) for one in made] == [len(made[0].train["text-finance"])] * 3


def test_a_slice_of_a_stream_is_a_stream(files: Any, tokenizer: Any, tmp_path: Path) -> None:
    stream = load(files, tokenizer, tmp_path / "cache").train["instructions-general"]
    part = stream[3:6]
    assert isinstance(part, streams.Stream)
    assert [one.place for one in part] == [stream[n].place for n in (3, 4, 5)]
    assert isinstance(stream[0], Sample)


def test_shares_that_cannot_be_drawn_are_named(files: Any, tokenizer: Any, tmp_path: Path) -> None:
    for shares, words in (
        ({"text-finance": 0.5, "instructions-general": 0.4}, r"sum to 0\.9000, not 1"),
        ({"text-finance": -0.5, "instructions-general": 1.5}, r"the share of text-finance is -0\.5"),
        ({"text-general": 0.5, "instructions-general": 0.5}, r"text-general has a share of 0\.5 and no files"),
    ):
        with pytest.raises(ValueError, match=words):
            streams.check_shares(shares, files)
    streams.check_shares({"text-finance": 0.2, "instructions-general": 0.8}, files)
    made = load(files, tokenizer, tmp_path / "cache", test_share=1.0)
    with pytest.raises(UserError, match=r"text-finance has a share of 0\.2 and no samples to train on"):
        streams.require_samples({"text-finance": 0.2}, made)


def test_a_plain_text_file_is_split_piece_by_piece(tokenizer: Any, tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_text(" ".join(f"Sentence {number} is here." for number in range(200)), encoding="utf-8")
    found = text_files.documents(path)
    made = list(encoding.documents(found, tokenizer, "text-general", max_length=40, by_piece=True))
    groups = {one[1] for one in made if not isinstance(one, Removal)}
    assert len(groups) == len(made) > 20
    split = load({"text-general": [str(path)]}, tokenizer, tmp_path / "cache", max_length=40)
    assert len(split.train["text-general"]) > 0 < len(split.held_out["text-general"])
