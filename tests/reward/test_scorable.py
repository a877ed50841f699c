"""Rows of many formats: what is asked of the reward model, and where its answer is written."""

import json
import lzma
from pathlib import Path
from typing import Any

import pytest

from finlm import jsonl, records, row_files
from finlm.records import Candidates, Conversation, Message, PreferencePair, Prompt, Provenance, Ranking, Response
from finlm.row_files import Fault
from reward.scorable import FORMATS, Asked, Scorable, Score, parse

Q = (Message(role="user", content="Q?"),)
LONGER = (Message(role="user", content="Q?"), Message(role="assistant", content="A."), *Q)
USER = {"role": "user", "content": "Q?"}
ANSWER = {"role": "assistant", "content": "A."}
PROMPT = Prompt(messages=Q)


def row_of(record: Any) -> dict[str, Any]:
    """A record as it stands in a file."""
    row: dict[str, Any] = json.loads(jsonl.encode(record))
    return row


def only(row: dict[str, Any]) -> Scorable | Fault:
    (found,) = parse(row)
    return found


PAIR = PreferencePair(
    prompt=PROMPT,
    chosen="yes",
    rejected="no",
    rejected_ended=False,
    strength=1,
    source="x",
    provenance=Provenance(maker="rule:x"),
)
CANDIDATES = Candidates(
    prompt=PROMPT, responses=(Response(text="yes", model="m"), Response(text="", model="m", ended=False))
)
ROWS: dict[str, tuple[dict[str, Any], list[Asked]]] = {
    "prompt, response": ({"prompt": "Q?", "response": "A."}, [Asked(Q, "A.")]),
    "prompt, completion": ({"prompt": "Q?", "completion": "A."}, [Asked(Q, "A.")]),
    "cut off": ({"prompt": "Q?", "response": "A", "ended": False}, [Asked(Q, "A", False)]),
    "nothing said": ({"prompt": "Q?", "response": ""}, [Asked(Q, "")]),
    "turns as prompt": ({"prompt": [USER, ANSWER, USER], "response": "B"}, [Asked(LONGER, "B")]),
    "TRL's turns": ({"prompt": [USER], "completion": [ANSWER]}, [Asked(Q, "A.")]),
    "messages": ({"messages": [USER, ANSWER]}, [Asked(Q, "A.")]),
    "Conversation": (row_of(Conversation(messages=(*Q, Message(role="assistant", content="A.")))), [Asked(Q, "A.")]),
    "ShareGPT": (
        {"conversations": [{"from": "human", "value": "Q?"}, {"from": "gpt", "value": "A."}]},
        [Asked(Q, "A.")],
    ),
    "Alpaca": ({"instruction": "Q?", "input": "", "output": "A."}, [Asked(Q, "A.")]),
    "PreferencePair": (row_of(PAIR), [Asked(Q, "yes"), Asked(Q, "no", False)]),
    "texts of a pair": ({"prompt": "Q?", "chosen": "yes", "rejected": "no"}, [Asked(Q, "yes"), Asked(Q, "no")]),
    "turns of a pair": ({"chosen": [USER, ANSWER], "rejected": [USER, ANSWER]}, [Asked(Q, "A."), Asked(Q, "A.")]),
    "turns beside a prompt": (
        {"prompt": "Q?", "chosen": [USER, ANSWER], "rejected": [ANSWER]},
        [Asked(Q, "A."), Asked(Q, "A.")],
    ),
    "Candidates": (row_of(CANDIDATES), [Asked(Q, "yes"), Asked(Q, "", False)]),
    "Ranking": (
        row_of(Ranking(prompt=PROMPT, responses=("a", "b"), ranks=(1, 2), annotator="person:1")),
        [Asked(Q, "a"), Asked(Q, "b")],
    ),
    "self-instruct": (
        {"instruction": "Q?", "instances": [{"input": "", "output": "A."}, {"input": "", "output": "B."}]},
        [Asked(Q, "A."), Asked(Q, "B.")],
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_row_asks_for_its_answers(name: str) -> None:
    row, asked = ROWS[name]
    found = only(row)
    assert isinstance(found, Scorable), found
    assert list(found.asked) == asked
    scores = [Score(0.5 + number) for number in range(len(asked))]
    written = found.write(found.row, scores)
    assert {key: value for key, value in written.items() if key in row and key != "responses"} == {
        key: value for key, value in row.items() if key != "responses"
    }


def written(name: str, *scores: Score) -> dict[str, Any]:
    found = only(ROWS[name][0])
    assert isinstance(found, Scorable)
    return found.write(found.row, scores)


def test_scores_are_written_where_they_belong() -> None:
    one, two = Score(0.5, (0.25, 0.75)), Score(1.5)
    assert written("prompt, response", two)["score"] == 1.5
    assert "scores" not in written("prompt, response", two)
    assert written("messages", one)["scores"] == [0.25, 0.75]
    pair = written("PreferencePair", one, two)
    assert (pair["chosen_score"], pair["chosen_scores"], pair["rejected_score"]) == (0.5, [0.25, 0.75], 1.5)
    assert [each["score"] for each in written("Candidates", one, two)["responses"]] == [0.5, 1.5]
    assert written("Ranking", two, two)["score"] == [1.5, 1.5]
    assert written("self-instruct", two, two)["score"] == [1.5, 1.5]
    again = only({"prompt": "Q?", "response": "A.", "score": 9})
    assert isinstance(again, Scorable)
    assert again.write(again.row, [two])["score"] == 1.5


def test_scored_candidates_and_pairs_are_still_records(tmp_path: Path) -> None:
    for record, name in ((CANDIDATES, "Candidates"), (PAIR, "PreferencePair")):
        jsonl.write(tmp_path / "a.jsonl", [written(name, Score(0.5), Score(1.5))])
        assert list(jsonl.read(tmp_path / "a.jsonl", type(record))) == [record]


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"prompt": "Q?"}, "no-answer", "neither response nor completion"),
    ({"prompt": "Q?", "response": 7}, "unknown-format", "response is not a text"),
    ({"prompt": " ", "response": "A"}, "empty", "prompt is blank"),
    ({"prompt": 7, "response": "A"}, "unknown-format", "prompt is neither a text nor a list of messages"),
    ({"prompt": [], "response": "A"}, "unknown-format", "prompt is neither a text nor a list of messages"),
    ({"prompt": [USER, USER], "response": "A"}, "roles", "prompt: turn 2 is by 'user'"),
    ({"prompt": [{"role": "tool", "content": "x"}], "response": "A"}, "roles", r"prompt\[0\] is by 'tool'"),
    ({"prompt": [{"role": "user", "content": ""}], "response": "A"}, "empty", r"prompt\[0\] is blank"),
    ({"prompt": [{"role": "user"}], "response": "A"}, "unknown-format", r"prompt\[0\] is no object with role"),
    ({"prompt": "Q?", "response": [USER]}, "roles", "the turn behind the prompt is by 'user'"),
    ({"prompt": "Q?", "response": "A", "ended": "no"}, "unknown-format", "'ended' is 'no', neither true nor false"),
    ({"messages": [USER]}, "no-answer", "the last turn is the user's"),
    ({"chosen": "yes", "rejected": "no"}, "unknown-format", "chosen has no prompt"),
    ({"prompt": "Q?", "chosen": "yes"}, "unknown-format", "rejected is not a text"),
    ({"chosen": [ANSWER], "rejected": [ANSWER]}, "roles", "chosen: a conversation has no messages"),
    ({"chosen": [USER, ANSWER, USER], "rejected": [USER, ANSWER]}, "no-answer", "the last turn is by 'user'"),
    ({"prompt": "Q?", "responses": []}, "unknown-format", "'responses' is not a list of answers"),
    ({"prompt": "Q?", "responses": [{"text": 1}]}, "unknown-format", r"responses\[0\]\.text is not a text"),
    ({"responses": ["A"]}, "unknown-format", "prompt is neither a text nor a list of messages"),
    ({"text": "A"}, "unknown-format", "no known format has these keys: text"),
]


@pytest.mark.parametrize(("row", "rule", "reason"), BAD, ids=lambda part: str(part)[:40])
def test_what_is_wrong_with_a_row_is_said(row: dict[str, Any], rule: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.xz"
    path.write_bytes(lzma.compress(json.dumps({"prompt": "Q?", "response": "A."}).encode() + b"\n" + jsonl.encode(row)))
    good, bad = row_files.read(path, parse, formats=FORMATS)
    assert isinstance(good, row_files.Found)
    assert isinstance(bad, records.Removal)
    assert bad.rule == rule
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(bad.reason)
    assert bad.reason.startswith(f"{path}:2: ")


def test_a_rollout_is_not_taken_for_a_prompt() -> None:
    """Its prompt is the whole text with its turn marks; read as a question it would be marked twice."""
    rollout = records.RolloutRecord(
        update=1, prompt_id="x", prompt=" Human: Q? Assistant:", response="A.", score=0, kl_nats=0, tokens=2, ended=True
    )
    found = only(row_of(rollout))
    assert isinstance(found, Fault)
    assert "RolloutRecord" in found.reason
