"""The whole way through the real server: push, two people annotate, pull, edit, skip, delete, pull again."""

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from annotation_helpers import Person, Relay, Served, command, listening, prompt, response, result

from annotation.api import LabelStudio, Project, Task
from annotation.environment import VERSION
from annotation.eventlog import EventLog
from finlm import jsonl
from finlm.errors import UserError
from finlm.records import Candidates, PreferencePair, Prompt, Removal

GOOD, BAD = "The good answer: 7.4%.", "The bad answer: 12%."


def question(number: int) -> Prompt:
    return prompt(f"Question {number}?", category="finance", source="selfqa")


def candidates(count: int) -> list[Candidates]:
    """The good answer stands first in every second one."""
    answers = [response(GOOD), response(BAD, ended=False)]
    return [Candidates(prompt=question(n), responses=tuple(answers[:: 1 if n % 2 else -1])) for n in range(count)]


def by_question(tasks: list[Task]) -> dict[int, Task]:
    return {int(task.data["prompt_html"].split("Question ")[1].split("?")[0]): task for task in tasks}


def good(task: Task, strength: int) -> str:
    """What somebody presses who reads the page and likes the good answer."""
    return ("A" if "good" in task.data["a_html"] else "B") + str(strength)


def bad(task: Task, strength: int) -> str:
    return ("B" if "good" in task.data["a_html"] else "A") + str(strength)


def run(name: str, project: Project, served: Served, folder: Path, *flags: str, **environment: str) -> str:
    """Run push or pull as a user does, with a run root of its own."""
    place = () if "--url" in flags else ("--server", str(served.server))
    done = command(name, "--project", project.title, *place, *flags, cwd=folder, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def summary(folder: Path) -> Any:
    return json.loads((folder / "runs" / "annotation" / "summary.json").read_text(encoding="utf-8"))


def preferences(folder: Path) -> dict[int, PreferencePair]:
    pairs = list(jsonl.read(folder / "runs" / "preferences.jsonl", PreferencePair))
    return {int(pair.prompt.messages[0].content.split()[1][:-1]): pair for pair in pairs}


def rejected(folder: Path) -> list[str]:
    return sorted(removal.rule for removal in jsonl.read(folder / "runs" / "rejected.jsonl", Removal))


def count_events(folder: Path) -> int:
    with sqlite3.connect(folder / "runs" / "annotation" / "log.sqlite") as log:
        count: int = log.execute("SELECT count(*) FROM event").fetchone()[0]
    log.close()
    return count


def test_serve_prints_what_people_need(label_studio: Served) -> None:
    assert "/projects/1/data?labeling=1" in label_studio.output
    assert f"{label_studio.url}/user/signup/?token=" in label_studio.output
    assert "lead@finlm.local" in label_studio.output
    secrets = json.loads((label_studio.server / "secrets.json").read_text())
    assert not any(secrets[name] in label_studio.output for name in ("token", "password"))
    with label_studio.client() as client:
        assert client.version() == VERSION
    # nobody else on this machine can read the database, the log or the secrets
    modes = {}
    for path in label_studio.server.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # sqlite takes its shared memory away when nobody reads
            if path.is_file() and path.name != "server.json":
                modes[path.name] = path.stat().st_mode
    assert modes.keys() >= {"secrets.json", "label-studio.log", "label_studio.sqlite3"}
    assert [name for name, mode in modes.items() if mode & 0o077] == []


def test_serving_again_changes_nothing(label_studio: Served) -> None:
    first = label_studio.project("Preferences")
    assert label_studio.project("Preferences") == first
    assert "it is kept" not in command("serve", cwd=label_studio.folder).stdout
    done = command("serve", "--language", "en", cwd=label_studio.folder)
    assert "it is kept" in done.stdout
    assert label_studio.project("Preferences", "--language", "en", "--update_page", "true").label_config != (
        first.label_config
    )


def test_round_trip(label_studio: Served, anna: Person, bo: Person, tmp_path: Path) -> None:
    project = label_studio.project("Round trip", "--annotators", "2")
    made = candidates(12)
    jsonl.write(tmp_path / "runs" / "candidates.jsonl", made)
    assert "12 pushed, 0 there already, 0 left out" in run("push", project, label_studio, tmp_path)
    assert "0 pushed, 12 there already" in run("push", project, label_studio, tmp_path)
    tasks = by_question(label_studio.tasks(project))
    assert sorted(tasks) == list(range(12))
    visible = json.dumps([task.data for task in tasks.values()])
    assert "runs/sft" not in visible  # no model's name reaches the page

    for number in range(6):  # both agree that the good answer is better
        anna.annotate(tasks[number].id, good(tasks[number], 3))
        bo.annotate(tasks[number].id, good(tasks[number], 2))
    anna.annotate(tasks[6].id, good(tasks[6], 1))  # they disagree
    bo.annotate(tasks[6].id, bad(tasks[6], 3))
    bo.skip(tasks[7].id)  # one skips
    anna.annotate(tasks[7].id, bad(tasks[7], 2), flags=["both_bad"], reason="两个都不好")
    edited = anna.annotate(tasks[8].id, bad(tasks[8], 3))
    deleted = anna.annotate(tasks[9].id, good(tasks[9], 0))
    factual = "factual_" + bad(tasks[10], 0)[0].lower()
    anna.annotate(tasks[10].id, good(tasks[10], 1), flags=[factual])

    run("pull", project, label_studio, tmp_path)
    pairs = preferences(tmp_path)
    assert sorted(pairs) == [0, 1, 2, 3, 4, 5, 7, 8, 9, 10]
    for number in range(6):
        pair = pairs[number]
        assert (pair.chosen, pair.rejected, pair.strength) == (GOOD, BAD, 3)  # (3 + 2) / 2, half up
        assert (pair.chosen_ended, pair.rejected_ended) == (True, False)
        assert [(vote.annotator, vote.side, vote.strength) for vote in pair.votes] == [
            (f"person:{anna.id}", "chosen", 3),
            (f"person:{bo.id}", "chosen", 2),
        ]
        assert pair.provenance.maker == f"person:{anna.id},person:{bo.id}"
        assert pair.provenance.parents == (made[number].id,)
        assert (pair.source, pair.prompt) == ("label-studio", question(number))
    assert (pairs[7].chosen, pairs[7].strength) == (BAD, 2)
    assert (pairs[7].votes[0].flags, pairs[7].votes[0].reason) == (("both_bad",), "两个都不好")
    assert (pairs[8].chosen, pairs[8].strength) == (BAD, 3)
    assert (pairs[9].chosen, pairs[9].strength) == (GOOD, 0)
    assert pairs[10].votes[0].flags == ("factual_rejected",)
    assert rejected(tmp_path) == ["skipped", "tie"]
    assert summary(tmp_path) == {
        "annotations": 19,
        "votes": 18,
        "judged_pairs": 11,
        "waiting_pairs": 1,
        "preferences": 10,
        "strengths": {"0": 1, "1": 1, "2": 1, "3": 7},
        "removed": {"skipped": 1, "tie": 1},
        "link": f"{label_studio.url}/projects/{project.id}/data?labeling=1",
    }
    assert count_events(tmp_path) == 19

    # nothing new: nothing is added, the same files come out
    before = (tmp_path / "runs" / "preferences.jsonl").read_bytes()
    run("pull", project, label_studio, tmp_path)
    assert count_events(tmp_path) == 19
    assert (tmp_path / "runs" / "preferences.jsonl").read_bytes() == before

    # an edit and a deletion: the preferences follow, the history stays
    anna.edit(edited, good(tasks[8], 1))
    anna.delete(deleted)
    run("pull", project, label_studio, tmp_path)
    pairs = preferences(tmp_path)
    assert (pairs[8].chosen, pairs[8].strength) == (GOOD, 1)
    assert 9 not in pairs
    assert rejected(tmp_path) == ["deleted", "skipped", "tie"]
    assert count_events(tmp_path) == 21

    # a whole task goes: Label Studio keeps no trace of it, the log does
    authorization = {"Authorization": f"Token {label_studio.token}"}
    httpx.delete(f"{label_studio.url}/api/tasks/{tasks[7].id}/", headers=authorization, trust_env=False, timeout=60)
    told = run("pull", project, label_studio, tmp_path)
    assert "1 tasks were deleted on the server" in told
    assert 7 not in preferences(tmp_path)
    with EventLog(tmp_path / "runs" / "annotation" / "log.sqlite") as log:
        assert [kind for kind, _ in log.history(project.key, edited)] == ["annotation", "annotation"]
        first, last = log.history(project.key, deleted)
        assert (first[0], last[0]) == ("annotation", "deleted")
        assert json.loads(first[1])["result"] == result(good(tasks[9], 0))
        assert sum(one.kind == "deleted" for one in log.annotations(project.key)) == 3
    events = count_events(tmp_path)
    run("pull", project, label_studio, tmp_path)
    assert count_events(tmp_path) == events


def test_a_personal_access_token_and_a_url_do(label_studio: Served, anna: Person, tmp_path: Path) -> None:
    project = label_studio.project("By token")
    jsonl.write(tmp_path / "runs" / "candidates.jsonl", candidates(2))
    address = ("--url", label_studio.url)
    assert "2 pushed" in run("push", project, label_studio, tmp_path, *address, LABEL_STUDIO_API_KEY=label_studio.token)
    (task, *_) = label_studio.tasks(project)
    anna.annotate(task.id, good(task, 2))
    headers = {"Authorization": f"Token {label_studio.token}"}
    answer = httpx.post(f"{label_studio.url}/api/token/", headers=headers, trust_env=False).raise_for_status()
    personal = answer.json()["token"]
    assert personal.count(".") == 2
    run("pull", project, label_studio, tmp_path, *address, LABEL_STUDIO_API_KEY=personal)
    assert [pair.chosen for pair in preferences(tmp_path).values()] == [GOOD]
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert written
    assert not any(token.encode() in path.read_bytes() for path in written for token in (personal, label_studio.token))
    for wrong in ("0" * 40, personal[:-4] + "AAAA"):
        with LabelStudio(label_studio.url, wrong) as client, pytest.raises(UserError, match="refuses the"):
            client.whoami()


@contextmanager
def cutting_proxy(server: str, cuts: list[str]) -> Iterator[str]:
    """A proxy that cuts the next imports: `before` they reach the server, or `after`, when the answer is on its way."""

    class Handler(Relay):
        target = server

        def _forward(self) -> None:
            body = self.body()
            cut = cuts.pop(0) if cuts and "/import" in self.path else ""
            answer = None if cut == "before" else self.passed_on(body)
            if cut or answer is None:
                self.close_connection = True
                return
            self.reply(answer.status_code, answer.content)

        do_GET = do_POST = do_PATCH = _forward

    with listening(Handler) as url:
        yield url


@pytest.mark.parametrize("cuts", [["after"], ["before"], ["after", "before", "after"]])
def test_no_pair_arrives_twice(label_studio: Served, tmp_path: Path, cuts: list[str]) -> None:
    project = label_studio.project("Cut " + " ".join(cuts))
    jsonl.write(tmp_path / "runs" / "candidates.jsonl", candidates(120))  # two batches
    left = list(cuts)
    with cutting_proxy(label_studio.url, left) as url:
        for _ in range(4):
            flags = ("--project", project.title, "--url", url)
            done = command("push", *flags, cwd=tmp_path, LABEL_STUDIO_API_KEY=label_studio.token)
            if done.returncode == 0:
                break
            assert done.returncode == 2
            assert "run the same command again" in done.stderr
    assert done.returncode == 0
    assert left == []
    pairs = [task.data["pair_id"] for task in label_studio.tasks(project)]
    assert len(pairs) == len(set(pairs)) == 120


def test_a_killed_push_goes_on(label_studio: Served, tmp_path: Path) -> None:
    """The log says `sending` for a batch that arrived and for one that did not: both states a kill can leave."""
    project = label_studio.project("Killed")
    jsonl.write(tmp_path / "runs" / "candidates.jsonl", candidates(6))
    run("push", project, label_studio, tmp_path)
    pair_ids = [task.data["pair_id"] for task in label_studio.tasks(project)]
    with EventLog(tmp_path / "runs" / "annotation" / "log.sqlite") as log:
        log.mark(project.key, pair_ids[:3], "sending")
    httpx.delete(
        f"{label_studio.url}/api/tasks/{label_studio.tasks(project)[0].id}/",
        headers={"Authorization": f"Token {label_studio.token}"},
        trust_env=False,
        timeout=60,
    )
    assert "1 pushed, 5 there already" in run("push", project, label_studio, tmp_path)
    assert sorted(task.data["pair_id"] for task in label_studio.tasks(project)) == sorted(pair_ids)


def test_a_double_on_the_server_does_not_double_a_preference(
    label_studio: Served, anna: Person, bo: Person, tmp_path: Path
) -> None:
    project = label_studio.project("Doubled")
    jsonl.write(tmp_path / "runs" / "candidates.jsonl", candidates(1))
    run("push", project, label_studio, tmp_path)
    with label_studio.client() as client:
        (task,) = label_studio.tasks(project)
        client.import_tasks(project.id, [task.data, {**task.data, "pair_id": "ffffffffffffffff"}])
    one, other, stray = label_studio.tasks(project)
    anna.annotate(one.id, good(one, 1))
    bo.annotate(other.id, good(other, 3))
    bo.annotate(stray.id, "A3")
    bo.annotate(other.id, good(other, 1))  # again: the server lets one person answer twice
    run("pull", project, label_studio, tmp_path)
    (pair,) = preferences(tmp_path).values()
    assert [(vote.annotator, vote.strength) for vote in pair.votes] == [
        (f"person:{anna.id}", 1),
        (f"person:{bo.id}", 1),
    ]
    assert rejected(tmp_path) == ["judged-again", "unknown-pair"]


def test_more_tasks_than_a_page(label_studio: Served, anna: Person, tmp_path: Path) -> None:
    project = label_studio.project("Many")
    jsonl.write(tmp_path / "runs" / "candidates.jsonl", candidates(450))
    run("push", project, label_studio, tmp_path)
    tasks = label_studio.tasks(project)
    assert len({task.id for task in tasks}) == 450
    anna.annotate(tasks[0].id, good(tasks[0], 1))
    anna.annotate(tasks[449].id, good(tasks[449], 1))
    run("pull", project, label_studio, tmp_path)
    assert len(preferences(tmp_path)) == 2
    assert summary(tmp_path)["waiting_pairs"] == 448


def test_a_project_that_is_not_there(label_studio: Served, tmp_path: Path) -> None:
    done = command("pull", "--project", "Nowhere", "--server", str(label_studio.server), cwd=tmp_path)
    assert done.returncode == 2
    assert "has no project 'Nowhere'; make it with: finlm annotate serve --project 'Nowhere'" in done.stderr


def test_the_port_of_a_running_server_is_refused(label_studio: Served, tmp_path: Path) -> None:
    port = label_studio.url.rsplit(":", 1)[1]
    environment = {"FINLM_LABEL_STUDIO_ENV": os.environ.get("FINLM_LABEL_STUDIO_ENV", str(tmp_path / "none"))}
    done = command("serve", "--port", port, cwd=tmp_path, **environment)
    assert done.returncode == 2
    assert f"--port {port} of 127.0.0.1 cannot be used" in done.stderr
    assert not (tmp_path / "none").exists()
