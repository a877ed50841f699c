"""The records: valid from birth, equal by content, the same after a file."""

import dataclasses
import inspect
import re
from pathlib import Path

import msgspec
import pytest

from finlm import jsonl, records
from finlm.records import (
    Candidates,
    ChoiceItem,
    Conversation,
    Derivation,
    Document,
    Message,
    PreferencePair,
    Prompt,
    Provenance,
    Ranking,
    Removal,
    Response,
    RolloutRecord,
    Verdict,
    Vote,
)

QUESTION = Message(role="user", content="What was Acme's revenue in 2024?")
ANSWER = Message(role="assistant", content="$412.6 million.")
SYSTEM = Message(role="system", content="Be brief.")
ORIGIN = Provenance(maker="rule:table-row", document_id="9f", start=3, end=40)
PROMPT = Prompt(messages=(QUESTION,), group="Acme")
RESPONSES = (Response(text="$412.6 million.", model="m"), Response(text="", model="m", ended=False))
PAIR = {"prompt": PROMPT, "chosen": "a", "rejected": "b", "strength": 2, "source": "test", "provenance": ORIGIN}

BORN = [
    ORIGIN,
    Document(text="Net sales rose.", source="a.html", sha256="00", language="en", entity="Acme"),
    QUESTION,
    Derivation(operation="growth", operands=("384.2", "412.6"), result="7.4%"),
    Conversation(messages=(SYSTEM, QUESTION, ANSWER), provenance=ORIGIN, also_from=(ORIGIN,)),
    Prompt(messages=(QUESTION, ANSWER, QUESTION), provenance=ORIGIN, reference="$412.6 million."),
    RESPONSES[0],
    Candidates(prompt=PROMPT, responses=RESPONSES),
    Vote(annotator="person:7", annotation_id="12", side="rejected", strength=0, flags=("long",)),
    PreferencePair(**PAIR),
    Ranking(prompt=PROMPT, responses=("a", "b", "c"), ranks=(1, 2, 1), annotator="person:7"),
    Verdict(prompt_id="9f", model="ppo", baseline="sft", verdict="good", judge="person:7"),
    ChoiceItem(benchmark="b", subject="s", question="Two and two?", choices=("4", "5"), answer=0),
    RolloutRecord(update=1, prompt_id="9f", prompt="q", response="a", score=0.5, kl_nats=-0.1, tokens=3, ended=True),
    Removal(record_id="9f", rule="too-long", reason="9 tokens, the limit is 8"),
]


def test_every_record_is_tried_here() -> None:
    kinds = {kind for _, kind in inspect.getmembers(records, dataclasses.is_dataclass)}
    assert kinds == {type(record) for record in BORN}


@pytest.mark.parametrize("record", BORN, ids=lambda record: type(record).__name__)
def test_record_is_the_same_after_a_file(record, tmp_path: Path) -> None:
    assert jsonl.write(tmp_path / "records.jsonl", [record, record]) == 2
    assert list(jsonl.read(tmp_path / "records.jsonl", type(record))) == [record, record]


@pytest.mark.parametrize("record", BORN, ids=lambda record: type(record).__name__)
def test_record_is_frozen_slotted_and_has_an_example(record) -> None:
    name = dataclasses.fields(record)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(record, name, getattr(record, name))
    assert not hasattr(record, "__dict__")
    assert "Example:" in (type(record).__doc__ or "")


def test_id_is_a_hash_of_the_content_alone() -> None:
    """printf '["Document","Net sales rose."]' | sha256sum"""
    document = Document(text="Net sales rose.", source="a.html", sha256="00")
    assert document.id == "72bc7555edb79f3e"
    assert Document(text="Net sales rose.", source="b.html", sha256="01", entity="Acme").id == document.id
    assert Document(text="Net sales fell.", source="a.html", sha256="00").id != document.id


def test_provenance_does_not_change_an_id_but_every_part_of_the_content_does() -> None:
    plain = Conversation(messages=(QUESTION, ANSWER))
    assert dataclasses.replace(plain, provenance=ORIGIN, category="finance", group="Acme").id == plain.id
    assert Conversation(messages=(SYSTEM, QUESTION, ANSWER)).id != plain.id
    pair = PreferencePair(**PAIR)
    ids = {pair.id}
    for change in ({"chosen": "c"}, {"rejected": "c"}, {"chosen_ended": False}, {"rejected_ended": False}):
        ids.add(dataclasses.replace(pair, **change).id)
    assert len(ids) == 5
    assert dataclasses.replace(pair, strength=3, provenance=Provenance(maker="person:1")).id == pair.id


def test_equal_content_of_different_kinds_has_different_ids() -> None:
    messages = (QUESTION, ANSWER, QUESTION)
    assert Prompt(messages=messages).id != Conversation(messages=(*messages, ANSWER)).id


def test_id_in_a_file_is_ignored_so_that_an_edited_text_is_another_record(tmp_path: Path) -> None:
    document = Document(text="Net sales rose.", source="a.html", sha256="00")
    file = tmp_path / "documents.jsonl"
    file.write_bytes(jsonl.encode(document).replace(b"rose", b"fell") + b"\n")
    (read,) = jsonl.read(file, Document)
    assert read.text == "Net sales fell."
    assert read.id != document.id


REFUSED = {
    "maker 'me' must start with": lambda: Provenance(maker="me"),
    "span 5..3 must be 0 <= start <= end": lambda: Provenance(maker="rule:x", start=5, end=3),
    "span -1..3 must be": lambda: Provenance(maker="rule:x", start=-1, end=3),
    "document 'a.html' has no text": lambda: Document(text=" \n", source="a.html", sha256=""),
    "a user message is empty": lambda: Message(role="user", content=" "),
    "a conversation has no messages": lambda: Conversation(messages=()),
    "turn 1 is by 'assistant', expected 'user'": lambda: Conversation(messages=(ANSWER,)),
    "turn 2 is by 'user', expected 'assistant'": lambda: Conversation(messages=(QUESTION, QUESTION)),
    "the last turn must be by 'assistant'": lambda: Conversation(messages=(QUESTION,)),
    "the last turn must be by 'user'": lambda: Prompt(messages=(QUESTION, ANSWER)),
    "turn 2 is by 'system'": lambda: Prompt(messages=(QUESTION, SYSTEM)),
    "a sum needs two operands": lambda: Derivation(operation="sum", operands=("1",), result="1"),
    "has no responses": lambda: Candidates(prompt=PROMPT, responses=()),
    "strength 4 must be 0 to 3": lambda: PreferencePair(**{**PAIR, "strength": 4}),
    "strength -1 must be 0 to 3": lambda: Vote(annotator="person:1", annotation_id="", side="chosen", strength=-1),
    "annotator 'bo' must start with": lambda: Vote(annotator="bo", annotation_id="", side="chosen", strength=1),
    "are the same": lambda: PreferencePair(**{**PAIR, "rejected": "a"}),
    "a ranking needs two responses": lambda: Ranking(prompt=PROMPT, responses=("a",), ranks=(1,), annotator="person:1"),
    "3 ranks for 2 responses": lambda: Ranking(
        prompt=PROMPT, responses=("a", "b"), ranks=(1, 2, 3), annotator="person:1"
    ),
    "must be 1 or more": lambda: Ranking(prompt=PROMPT, responses=("a", "b"), ranks=(0, 1), annotator="person:1"),
    "'sft' is compared with itself": lambda: Verdict(
        prompt_id="", model="sft", baseline="sft", verdict="same", judge="person:1"
    ),
    "has 1 choices": lambda: ChoiceItem(benchmark="", subject="", question="?", choices=("a",), answer=0),
    "answer 2 of 2 choices": lambda: ChoiceItem(benchmark="", subject="", question="?", choices=("a", "b"), answer=2),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_not_valid_is_not_born(message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        REFUSED[message]()


def test_every_refusal_of_the_module_is_reached_here() -> None:
    source = inspect.getsource(records)
    assert source.count("_require(") - 1 <= len(REFUSED)


def test_answers_that_differ_only_in_their_end_are_two_answers() -> None:
    pair = PreferencePair(**{**PAIR, "rejected": "a", "rejected_ended": False})
    assert pair.chosen == pair.rejected


def test_question_and_passage_of_an_open_book_prompt() -> None:
    prompt = Prompt(messages=(Message(role="user", content="Sales.\n\nMore.\n\nHow much?"),))
    assert (prompt.passage, prompt.question) == ("Sales.\n\nMore.", "How much?")
    assert (PROMPT.passage, PROMPT.question) == ("", QUESTION.content)


def test_files_refuse_other_types() -> None:
    with pytest.raises(msgspec.ValidationError, match=r"Expected `int`, got `str` - at `\$.strength`"):
        msgspec.json.decode(b'{"annotator":"person:1","annotation_id":"","side":"chosen","strength":"2"}', type=Vote)
