"""Training rows: what is learned, in which shares, and that nothing is lost in silence."""

from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from finlm import chat_format, data, jsonl
from finlm.data import IGNORE, Row
from finlm.errors import MissingInput, UserError
from finlm.records import Conversation, Document, Message, Prompt
from finlm.tokenizer import load_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tiny: Any) -> PreTrainedTokenizerBase:
    return load_tokenizer(tiny.base)


def talk(*contents: str, group: str = "") -> Conversation:
    turns = tuple(Message(role="assistant" if n % 2 else "user", content=text) for n, text in enumerate(contents))
    return Conversation(messages=turns, group=group, language="en", kind="figure", form="closed-book")


def rows(stream: str, lengths: list[int]) -> list[Row]:
    return [
        Row(stream=stream, ids=tuple(range(length)), labels=tuple(range(length)), record_id=f"{stream} {n}")
        for n, length in enumerate(lengths)
    ]


def test_answers_are_learned_and_prompts_are_not(tokenizer: PreTrainedTokenizerBase) -> None:
    talks = [talk("What was it?", "It was 7."), talk("One?", "1", "Two?", "2")]
    encoded, removals = data.instruction_rows(talks, tokenizer, max_length=100)
    assert removals == []
    for row, wanted in zip(encoded, (" It was 7.</s>", " 1</s> 2</s>"), strict=True):
        learned = [label for label in row.labels if label != IGNORE]
        assert tokenizer.decode(learned) == wanted
        assert row.learned == len(learned)
        assert all(label in (IGNORE, token) for label, token in zip(row.labels, row.ids, strict=True))
    assert encoded[0].labels[: -encoded[0].learned] == (IGNORE,) * (len(encoded[0].ids) - encoded[0].learned)


def test_what_is_too_long_is_removed_and_counted_at_the_exact_limit(tokenizer: PreTrainedTokenizerBase) -> None:
    short, long = talk("Short?", "Yes."), talk("Long? " * 20, "Yes, it is long.")
    length = len(chat_format.encode(tokenizer, long.messages).ids)
    encoded, removals = data.instruction_rows([short, long], tokenizer, max_length=length)
    assert (len(encoded), len(removals)) == (2, 0)
    encoded, removals = data.instruction_rows([short, long], tokenizer, max_length=length - 1)
    assert [row.record_id for row in encoded] == [short.id]
    assert [(r.record_id, r.rule) for r in removals] == [(long.id, "too-long")]
    assert removals[0].reason == f"{length} tokens, the limit is {length - 1}"


@pytest.mark.parametrize("max_length", [4, 7, 1000])
def test_text_is_learned_whole_and_split_without_loss(tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
    paragraphs = ["Alder Inc. sells to many customers. Its backlog grew.", "Short.", "收入增长"]
    made = data.text_rows(paragraphs, tokenizer, max_length=max_length)
    assert all(row.labels == row.ids and 0 < len(row.ids) <= max_length for row in made)
    together = [token for row in made for token in row.ids]
    assert tokenizer.decode(together) == "".join(f"{text}</s>" for text in paragraphs)
    assert len({row.record_id for row in made}) == len(made)


def test_paragraphs_of_text_files_and_documents(tmp_path: Path) -> None:
    plain, documents = tmp_path / "text.txt", tmp_path / "documents.jsonl"
    plain.write_text("One\nline.\n\n\n\n  Two. \n", encoding="utf-8")
    assert data.read_text(plain) == ["One\nline.", "Two."]
    jsonl.write(
        documents, [Document(text="A\n\nB", source="a.txt", sha256="0"), Document(text="C", source="c", sha256="1")]
    )
    assert data.read_text(documents) == ["A", "B", "C"]
    with pytest.raises(MissingInput, match="no such text file"):
        data.read_text(tmp_path / "missing.txt")
    plain.write_bytes(b"ab\xff")
    with pytest.raises(UserError, match="not UTF-8 at byte 2"):
        data.read_text(plain)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.8, 1.0])
def test_the_share_of_text_is_kept_within_one_row(share: float) -> None:
    instructions, text = rows("instructions", [3, 9, 17, 30]), rows("text", [5, 40, 11])
    drawn = data.interleave(instructions, text, text_share=share, count=200, seed=4)
    assert len(drawn) == 200
    tokens = {"instructions": 0, "text": 0}
    for row in drawn:
        tokens[row.stream] += len(row.ids)
        assert abs(tokens["text"] - share * sum(tokens.values())) <= 40


def test_each_stream_is_gone_through_before_it_begins_again() -> None:
    instructions, text = rows("instructions", [10] * 7), rows("text", [10] * 5)
    drawn = data.interleave(instructions, text, text_share=0.5, count=140, seed=0)
    for stream, size in (("instructions", 7), ("text", 5)):
        names = [row.record_id for row in drawn if row.stream == stream]
        rounds = [names[start : start + size] for start in range(0, len(names) - size + 1, size)]
        assert all(len(set(part)) == size for part in rounds)
        assert len({tuple(part) for part in rounds}) > 1, "each round has an order of its own"


def test_the_order_depends_on_the_seed_alone() -> None:
    instructions, text = rows("instructions", [3, 9, 17]), rows("text", [5, 40])

    def draw(seed: int, count: int = 50) -> list[Row]:
        return data.interleave(instructions, text, text_share=0.4, count=count, seed=seed)

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)
    assert draw(1, count=80)[:50] == draw(1)


def test_streams_that_are_missing_are_named() -> None:
    with pytest.raises(UserError, match="raise max_length"):
        data.interleave([], rows("text", [1]), text_share=0.5, count=1, seed=0)
    with pytest.raises(UserError, match=r"text_share is 0\.5"):
        data.interleave(rows("instructions", [1]), [], text_share=0.5, count=1, seed=0)
    assert len(data.interleave(rows("instructions", [1]), [], text_share=0.0, count=3, seed=0)) == 3


def test_a_group_is_held_out_or_not_in_every_stage() -> None:
    talks = [talk(f"Question {n}?", "Answer.", group=f"Company {n // 5}") for n in range(1000)]
    held = {one.group for one in talks if data.is_held_out(one, test_share=0.2)}
    for one in talks:
        prompt = data.as_prompt(one, source="selfqa")
        assert data.is_held_out(one, test_share=0.2) == (one.group in held)
        assert data.is_held_out(prompt, test_share=0.2) == (one.group in held)
    # 200 groups, share 0.2: 40 expected, standard deviation 5.7
    assert 40 - 23 <= len(held) <= 40 + 23
    assert not any(data.is_held_out(one, test_share=0.0) for one in talks)
    assert all(data.is_held_out(one, test_share=1.0) for one in talks)
    wider = {one.group for one in talks if data.is_held_out(one, test_share=0.4)}
    assert held < wider


def test_records_without_a_group_stand_for_themselves() -> None:
    alone = [talk(f"Question {n}?", "Answer.") for n in range(400)]
    held = sum(data.is_held_out(one, test_share=0.25) for one in alone)
    assert 100 - 35 <= held <= 100 + 35  # four standard deviations of 8.7


def test_a_draw_is_spread_over_groups() -> None:
    talks = [
        talk(f"Question {n}?", "A", group=name) for name, size in (("a", 90), ("b", 8), ("c", 2)) for n in range(size)
    ]
    talks = [talk(f"{one.group} {one.messages[0].content}", "A", group=one.group) for one in talks]
    drawn = data.spread(talks, 12, seed=0)
    counts = {name: sum(one.group == name for one in drawn) for name in "abc"}
    assert counts == {"a": 5, "b": 5, "c": 2}
    assert len({one.id for one in drawn}) == 12
    assert data.spread(talks, 12, seed=0) == drawn != data.spread(talks, 12, seed=1)
    assert sorted(one.id for one in data.spread(talks, 0, seed=0)) == sorted(one.id for one in talks)
    assert len(data.spread(talks, 1000, seed=0)) == 100
    rest = data.beyond(talks, drawn, rule="beyond-limit", reason="the limit is 12")
    assert len(rest) + len(drawn) == len(talks)


def test_questions_are_chosen_by_form_language_and_kind_and_equal_ones_are_read_once(tmp_path: Path) -> None:
    one, two = talk("Q?", "A.", group="g"), talk("Q2?", "A2.")
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    jsonl.write(first, [one, two])
    jsonl.write(second, [two])
    asked = data.questions([first, second], forms=["closed-book"], languages=["en"], kinds=[])
    assert [(p.messages[-1].content, p.reference, p.group) for p in asked] == [("Q?", "A.", "g"), ("Q2?", "A2.", "")]
    assert all(isinstance(prompt, Prompt) for prompt in asked)
    for other in ({"forms": ["open-book"]}, {"languages": ["zh"]}, {"kinds": ["change"]}):
        chosen = {"forms": ["closed-book"], "languages": ["en"], "kinds": ["figure"], **other}
        assert data.questions([first, second], **chosen) == []
