"""`finlm round` with people on the real server: it ends with the link, waits for the work, goes on, names who is to do
it again."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from annotation_helpers import ROOT, Person, Served
from chain import Chain
from on_policy import Runner, begin
from tiny import Tiny
from warm import ENVIRONMENT, Warm

from annotation.api import Task
from finlm import jsonl
from finlm.errors import UserError
from finlm.records import PreferencePair

WAITS = re.compile(
    r"Round 1 waits for people: (\d+) of (\d+) pairs are to be judged at "
    r"(http://127\.0\.0\.1:\d+/projects/\d+/data\?labeling=1); then the same command goes on\.\n"
)


def pushed(served: Served, title: str) -> list[Task]:
    with served.client() as client:
        project = client.find_project(title)
    assert project is not None
    return sorted(served.tasks(project), key=lambda one: one.id)


def waiting(said: str) -> tuple[int, int, str]:
    found = WAITS.search(said)
    assert found, said
    return int(found[1]), int(found[2]), found[3]


def test_a_round_waits_for_people_and_goes_on_to_its_page(
    label_studio: Served, anna: Person, bo: Person, chain: Chain, warm: Warm, tiny: Tiny, tmp_path: Path
) -> None:
    folder = begin(chain, tiny, tmp_path / "people")
    runner = Runner(warm, folder)
    # nine pairs: a test of a person needs ten votes, so that nobody is named by chance
    said = runner.round("--limit", "9", "--server", str(label_studio.server), "--project", "Asked", "--annotators", "2")
    assert runner.started == ["respond", "annotate_serve", "annotate_push", "annotate_pull"]
    tasks = pushed(label_studio, "Asked 1")
    assert waiting(said)[:2] == (len(tasks), len(tasks))
    assert waiting(said)[2].startswith(label_studio.url)

    for place, task in enumerate(tasks[:-1]):
        anna.annotate(task.id, "AB"[place % 2] + "2")
    said = runner.round()
    assert waiting(said)[:2] == (1, len(tasks))
    assert runner.started[4:] == ["annotate_pull", "annotate_check"]
    assert f"1 of {len(tasks)} pairs are not judged; --least_judged 1.0 allows fewer." in runner.said

    last = anna.annotate(tasks[-1].id, "A3")
    for place, task in enumerate(tasks[:4]):
        bo.annotate(task.id, ("AB" if place else "BA")[place % 2] + "2")  # of another opinion on the first
    said = runner.round()
    assert said.endswith("Round 1 is finished: runs/rounds/1/report.html; finlm round begins the next one.\n")
    expected = [
        "annotate_pull",
        "annotate_check",
        "annotate_report",
        "reward",
        "prompts",
        "ppo",
        "rollouts",
        "evaluate",
    ]
    assert runner.started[6:] == expected
    page = (folder / "runs" / "rounds" / "1" / "report.html").read_text(encoding="utf-8")
    words = " ".join(re.sub(r"<[^>]+>", " ", page).split())
    assert "compared by 2 people" in words
    assert "People agree 0.75 on the better answer, of 4 pairs judged by several" in words
    assert 'href="annotation/report.html"' in page

    pairs = list(jsonl.read(folder / "runs/rounds/1/preferences.jsonl", PreferencePair))
    (pair,) = [one for one in pairs if str(last) in {vote.annotation_id for vote in one.votes}]
    environment = os.environ | ENVIRONMENT | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "finlm", "trace", pair.id]
    told = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True).stdout
    words = " ".join(told.replace("│", " ").split())
    assert f"person:{anna.id} preferred the chosen answer, strength 3 of 3; annotation {last};" in words
    assert "made from candidates" in words
    assert words.count("rests on annual-report.txt, line") == 1  # the candidates' question is the preference's


def test_work_to_be_done_again_stops_a_round(
    label_studio: Served, anna: Person, chain: Chain, warm: Warm, tiny: Tiny, tmp_path: Path
) -> None:
    folder = begin(chain, tiny, tmp_path / "again")
    runner = Runner(warm, folder)
    runner.round("--limit", "20", "--server", str(label_studio.server), "--project", "Left", "--annotators", "1")
    tasks = pushed(label_studio, "Left 1")
    for task in tasks:
        anna.annotate(task.id, "A2")
    with pytest.raises(
        UserError, match=r"Round 1: some work is to be done again \(runs/rounds/1/annotation/redo\.jsonl\)"
    ):
        runner.round()
    assert f"person:{anna.id} should do {len(tasks)} pairs again: " in runner.said
    runner.kill_at = {"reward": 1}
    with pytest.raises(UserError, match="The stage 'reward' ended"):  # so it went on
        runner.round("--accept_as_is", "true")
    assert "annotate_check" not in runner.started[-3:]
