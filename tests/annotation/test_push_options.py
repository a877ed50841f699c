"""Gold pairs, the number of annotators and the reward model's doubts, against a real server and a real model."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from annotation_helpers import Person, Served, command, prompt, response
from drawn_rewards import CPU, drawn_reward

from annotation.choosing import score_by
from annotation.eventlog import EventLog
from finlm import jsonl
from finlm.errors import UserError
from finlm.records import Candidates, PreferencePair, Provenance, Removal
from finlm.scorer import Scorer


def next_task(served: Served, person: Person, project: int) -> str | None:
    """The pair that the label stream gives to somebody; None where it has none for them."""
    headers = {"Authorization": f"Token {person.token}"}
    url = f"{served.url}/api/projects/{project}/next"
    answer = httpx.get(url, headers=headers, timeout=60, trust_env=False)
    if answer.status_code == 404:
        return None
    return str(answer.raise_for_status().json()["data"]["pair_id"])


def test_gold_is_hidden_and_people_overlap(label_studio: Served, anna: Person, bo: Person, tmp_path: Path) -> None:
    project = label_studio.project("Gold", "--language", "en")
    answers = (response("right"), response("wrong"))
    asked = [Candidates(prompt=prompt(f"Question {number}"), responses=answers) for number in range(3)]
    known = PreferencePair(
        prompt=prompt("Known"), chosen="right", rejected="wrong", strength=3, source="rule:x",
        provenance=Provenance(maker="rule:x"),
    )  # fmt: skip
    jsonl.write(tmp_path / "candidates.jsonl", asked)
    jsonl.write(tmp_path / "gold.jsonl", [known])
    flags = ("--project", "Gold", "--server", str(label_studio.server))
    push = ("push", *flags, "--candidates", "candidates.jsonl", "--gold", "gold.jsonl", "--gold_share", "0.25")
    for sent in ("4 pushed, 0 there already", "0 pushed, 4 there already"):
        pushed = command(*push, "--annotators", "2", cwd=tmp_path)
        assert sent in pushed.stdout, pushed.stderr
        assert "1 of the 4 are gold pairs" in pushed.stdout
    tasks = label_studio.tasks(project)
    assert {frozenset(task.data) for task in tasks} == {frozenset({"pair_id", "prompt_html", "a_html", "b_html"})}
    raw = json.dumps([dict(task.data) for task in tasks])
    assert "gold" not in raw.lower()
    with EventLog(tmp_path / "runs/annotation/log.sqlite") as log:
        gold = set(log.gold())
    assert len(gold & {task.data["pair_id"] for task in tasks}) == 1

    # two people are given each task, a third nothing; everybody is right on the gold pair
    cleo = label_studio.sign_up("cleo@example.com")
    for person in (anna, bo):
        for task in tasks:
            assert next_task(label_studio, person, project.id) is not None
            person.annotate(task.id, "A2" if "right" in task.data["a_html"] else "B2")
        assert next_task(label_studio, person, project.id) is None
    assert next_task(label_studio, cleo, project.id) is None

    pulled = command("pull", *flags, cwd=tmp_path)
    assert pulled.returncode == 0, pulled.stderr
    preferences = list(jsonl.read(tmp_path / "runs/preferences.jsonl", PreferencePair))
    assert [(one.chosen, len(one.votes)) for one in preferences] == [("right", 2)] * 3
    assert {(len(vote.page), vote.guidelines) for one in preferences for vote in one.votes} == {(16, "1.0")}
    left_out = list(jsonl.read(tmp_path / "runs/rejected.jsonl", Removal))
    assert [(one.rule, one.record_id in gold) for one in left_out] == [("gold", True)]


def test_a_reward_model_says_what_it_doubts(tiny: Any, tmp_path: Path) -> None:
    folders = [drawn_reward(tiny.base, tmp_path / "rewards" / name, seed=seed) for seed, name in enumerate("ab", 1)]
    asked = Candidates(
        prompt=prompt("What was revenue?"),
        responses=(response("It was 7."), response("No"), response("Revenue was $1.2 million.", ended=False)),
    )
    found = score_by(str(tmp_path / "rewards"), [asked])
    for place, folder in enumerate(folders):
        rows = [(asked.prompt.messages, one.text, one.ended) for one in asked.responses]
        alone = Scorer.load(folder, dtype=torch.float32, device=CPU).score(rows, batch_size=1)
        together = [found[asked.prompt.id, one.text, one.ended][place] for one in asked.responses]
        assert together == pytest.approx(alone, abs=2e-2)  # the ensemble reads in bfloat16 where the machine has it
    long = Candidates(prompt=asked.prompt, responses=(response("word " * 5000), response("b")))
    with pytest.raises(UserError, match="tokens, the reward model in"):
        score_by(str(tmp_path / "rewards"), [long])
