"""What a lead does beside push and pull, on the real server: invite, back up, recover, settle, check, listen."""

import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from annotation_helpers import ROOT, Person, Served, command, prompt, response, result

from annotation.api import Project, Task
from annotation.eventlog import EventLog
from finlm import jsonl
from finlm.errors import UserError
from finlm.records import Candidates, PreferencePair, Removal, Vote

GOOD, BAD = "The good answer: 7.4%.", "The bad answer: 12%."


def push(served: Served, project: Project, folder: Path, count: int) -> list[Task]:
    answers = (response(GOOD), response(BAD))
    made = [Candidates(prompt=prompt(f"Question {n}?"), responses=answers) for n in range(count)]
    jsonl.write(folder / "runs" / "candidates.jsonl", made)
    annotate(served, project, folder, "push")
    return sorted(served.tasks(project), key=lambda task: task.data["prompt_html"])


def annotate(served: Served, project: Project, folder: Path, name: str, *flags: str) -> str:
    place = ("--server", str(served.server), "--project", project.title)
    done = command(name, *place, *flags, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def preferences(folder: Path) -> list[PreferencePair]:
    return list(jsonl.read(folder / "runs" / "preferences.jsonl", PreferencePair))


def votes_of(folder: Path) -> dict[str, tuple[Vote, ...]]:
    """Votes by pair; which page they were given on, the copies do not say."""
    blank = {"page": "", "guidelines": ""}
    return {pair.id: tuple(replace(vote, **blank) for vote in pair.votes) for pair in preferences(folder)}


def good(task: Task, strength: int) -> str:
    return ("A" if "good" in task.data["a_html"] else "B") + str(strength)


def bad(task: Task, strength: int) -> str:
    return ("B" if "good" in task.data["a_html"] else "A") + str(strength)


def log_of(folder: Path) -> Path:
    return folder / "runs" / "annotation" / "log.sqlite"


def until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < seconds
        time.sleep(0.1)


# ---------------------------------------------------------------------------------------------- invite


def test_an_invitation_makes_an_account_and_a_renewed_one_ends_it(label_studio: Served, tmp_path: Path) -> None:
    project = label_studio.project("Invited")
    told = annotate(label_studio, project, tmp_path, "invite")
    (link,) = [word for word in told.split() if "/user/signup/?token=" in word]
    assert f"/projects/{project.id}/data?labeling=1" in told
    renewed = annotate(label_studio, project, tmp_path, "invite", "--renew", "true")
    (other,) = [word for word in renewed.split() if "/user/signup/?token=" in word]
    assert other != link
    with pytest.raises(httpx.HTTPStatusError, match="403"):
        label_studio.sign_up("dee@example.com", link)
    label_studio.sign_up("dee@example.com")
    assert "dee@example.com" in annotate(label_studio, project, tmp_path, "invite")


# ---------------------------------------------------------------------------------------------- backup and copies


def test_a_backup_in_use_restores_log_and_server(label_studio: Served, anna: Person, tmp_path: Path) -> None:
    project = label_studio.project("Backed up")
    tasks = push(label_studio, project, tmp_path, 3)
    made = anna.annotate(tasks[0].id, good(tasks[0], 3))
    annotate(label_studio, project, tmp_path, "pull")
    later = anna.annotate(tasks[1].id, good(tasks[1], 2))  # on the server, not in the log yet
    done = command("backup", "--server", str(label_studio.server), "--output", "saved", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "events of the log: 1\n" in done.stdout
    saved = tmp_path / "saved"
    assert all(path.stat().st_mode & 0o077 == 0 for path in saved.rglob("*"))
    with closing(sqlite3.connect(saved / "server" / "data" / "label_studio.sqlite3")) as db:
        ids = [one for (one,) in db.execute("SELECT id FROM task_completion WHERE project_id = ?", (project.id,))]
    assert ids == [made, later]
    for name in ("secrets.json", "data/.env"):
        assert (saved / "server" / name).read_bytes() == (label_studio.server / name).read_bytes()
    again = command("backup", "--server", str(label_studio.server), "--output", "saved", cwd=tmp_path)
    assert again.returncode == 2
    assert "a backup is never replaced" in again.stderr
    # the log is lost and put back: the next pull brings what came since
    log_of(tmp_path).unlink()
    shutil.copyfile(saved / "log.sqlite", log_of(tmp_path))
    annotate(label_studio, project, tmp_path, "pull")
    assert len(preferences(tmp_path)) == 2
    damaged = tmp_path / "other" / "annotation"
    damaged.mkdir(parents=True)
    (damaged / "log.sqlite").write_bytes(b"no database at all, but long enough for a header of one" * 90)
    done = command("backup", "--runs", "other", "--output", "worse", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "cannot be copied" in done.stderr
    assert not (tmp_path / "worse").exists()


def test_label_studios_own_copies_stand_in_for_its_database(
    label_studio: Served, anna: Person, bo: Person, tmp_path: Path
) -> None:
    project = label_studio.project("Copied")
    tasks = push(label_studio, project, tmp_path, 4)
    unread = tmp_path / "unread.sqlite"
    shutil.copyfile(log_of(tmp_path), unread)
    edited = anna.annotate(tasks[0].id, bad(tasks[0], 3))
    anna.edit(edited, good(tasks[0], 2))
    bo.skip(tasks[0].id)
    anna.annotate(tasks[1].id, good(tasks[1], 1), reason="理由")
    deleted = anna.annotate(tasks[2].id, good(tasks[2], 3))
    anna.delete(deleted)
    annotate(label_studio, project, tmp_path, "pull")
    pulled = votes_of(tmp_path)
    copies = label_studio.server / "copies" / str(project.id)
    assert len(list(copies.iterdir())) == 4  # the deleted one as well
    (copies / "99999").write_text('{"id": 99999, "result"')  # cut off while it was written

    # the server is gone, the log knows the pairs alone
    shutil.copyfile(unread, log_of(tmp_path))
    only = tmp_path / "kept"
    shutil.copytree(copies, only / str(project.id))
    (copies / "99999").unlink()
    for new in (3, 0):  # twice: the second time there is nothing to add
        done = command("recover", "--copies", str(only), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert f"4 copies, {new} new annotations, 0 newer states, {new // 3} skips" in done.stdout
    recovered = votes_of(tmp_path)
    assert {name: votes for name, votes in recovered.items() if name in pulled} == pulled
    assert len(recovered) == len(pulled) + 1  # the deletion is known to the server alone
    rejected = jsonl.read(tmp_path / "runs" / "annotation" / "recover" / "rejected.jsonl", Removal)
    assert [(one.record_id, one.rule) for one in rejected] == [("99999", "unreadable")]

    # and the server is back: the pull settles what was deleted, and doubles nothing
    told = annotate(label_studio, project, tmp_path, "pull")
    assert re.search(r"new annotations +0 *\n", told) is not None
    assert votes_of(tmp_path) == pulled
    with EventLog(log_of(tmp_path)) as log:
        kinds = [kind for kind, _ in log.history(project.key, deleted)]
        assert kinds == ["annotation", "deleted"]
        assert len(log.history(project.key, edited)) == 1
    # a copy of what is known to be deleted brings nothing back
    assert "0 new annotations" in command("recover", "--copies", str(only), cwd=tmp_path).stdout
    assert votes_of(tmp_path) == pulled


def test_copies_of_nothing(tmp_path: Path) -> None:
    done = command("recover", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "No copies in" in done.stderr
    (tmp_path / "kept" / "7").mkdir(parents=True)
    (tmp_path / "kept" / "7" / "1").write_text('{"id": 1}')
    done = command("recover", "--copies", "kept", cwd=tmp_path)
    assert done.returncode == 2
    assert "the log has to know one project 7, it knows none" in done.stderr


# ---------------------------------------------------------------------------------------------- disagreement


def test_a_verdict_wins_and_the_votes_stay(label_studio: Served, anna: Person, bo: Person, tmp_path: Path) -> None:
    project = label_studio.project("Disputed", "--annotators", "2")
    tasks = push(label_studio, project, tmp_path, 4)
    anna.annotate(tasks[0].id, good(tasks[0], 3))  # they agree
    bo.annotate(tasks[0].id, good(tasks[0], 1))
    anna.annotate(tasks[1].id, good(tasks[1], 2))  # they do not
    bo.annotate(tasks[1].id, bad(tasks[1], 3))
    anna.annotate(tasks[2].id, good(tasks[2], 0))  # barely
    bo.annotate(tasks[2].id, bad(tasks[2], 2))
    done = command("adjudicate", "--server", str(label_studio.server), "--runs", "elsewhere", cwd=tmp_path)
    assert (done.returncode, "pull first" in done.stderr) == (2, True)
    annotate(label_studio, project, tmp_path, "pull")
    assert len(preferences(tmp_path)) == 1
    assert "1 of 3 judged pairs: 1 pushed, 0 there already" in annotate(label_studio, project, tmp_path, "adjudicate")
    for _ in range(2):
        told = annotate(label_studio, project, tmp_path, "adjudicate", "--apart", "0")
    assert "2 of 3 judged pairs: 0 pushed, 2 there already" in told
    with label_studio.client() as client:
        verdicts = client.find_project("Disputed verdicts")
    assert verdicts is not None
    asked = {task.data["pair_id"]: task for task in label_studio.tasks(verdicts)}
    assert asked.keys() == {tasks[1].data["pair_id"], tasks[2].data["pair_id"]}
    assert {name: task.data for name, task in asked.items()} == {
        task.data["pair_id"]: task.data for task in tasks[1:3]
    }  # as the annotators saw it, sides and all

    judge = label_studio.sign_up("judge@example.com")
    ruling = judge.annotate(asked[tasks[1].data["pair_id"]].id, bad(tasks[1], 1), reason="B's figure is right")
    annotate(label_studio, project, tmp_path, "pull")
    (settled,) = [pair for pair in preferences(tmp_path) if pair.prompt.messages[0].content == "Question 1?"]
    assert (settled.chosen, settled.strength) == (BAD, 1)
    assert [(vote.annotator, vote.side, vote.strength, vote.is_verdict) for vote in settled.votes] == [
        (f"person:{anna.id}", "rejected", 2, False),
        (f"person:{bo.id}", "chosen", 3, False),
        (f"person:{judge.id}", "chosen", 1, True),
    ]
    told = json.loads((tmp_path / "runs" / "annotation" / "summary.json").read_text())
    assert (told["annotations"], told["votes"], told["removed"]) == (7, 7, {"tie": 1})
    # the judge changes their mind, then takes it back
    judge.edit(ruling, good(tasks[1], 3))
    annotate(label_studio, project, tmp_path, "pull")
    assert {(pair.chosen, pair.strength) for pair in preferences(tmp_path)} == {(GOOD, 2), (GOOD, 3)}
    judge.delete(ruling)
    annotate(label_studio, project, tmp_path, "pull")
    assert len(preferences(tmp_path)) == 1
    # the report and the check look at the annotators' project, without being told which
    assert command("report", cwd=tmp_path).returncode == 0
    checked = command("check", cwd=tmp_path)
    assert checked.returncode == 1, checked.stdout + checked.stderr
    assert "1 of 4 pairs are not judged" in checked.stdout


def test_nothing_to_settle(label_studio: Served, anna: Person, tmp_path: Path) -> None:
    project = label_studio.project("Undisputed")
    (task,) = push(label_studio, project, tmp_path, 1)
    anna.annotate(task.id, good(task, 3))
    annotate(label_studio, project, tmp_path, "pull")
    assert "there is nothing to settle" in annotate(label_studio, project, tmp_path, "adjudicate")
    with label_studio.client() as client:
        assert client.find_project("Undisputed verdicts") is None
    assert "To be delivered" in command("check", cwd=tmp_path).stdout
    done = command("adjudicate", "--apart", "4", cwd=tmp_path)
    assert (done.returncode, "--apart 4 must be 0 to 3" in done.stderr) == (2, True)


# ---------------------------------------------------------------------------------------------- hints


def test_a_hint_leads_to_a_pull_and_a_forged_one_to_nothing(label_studio: Served, anna: Person, tmp_path: Path) -> None:
    project = label_studio.project("Hinted")
    tasks = push(label_studio, project, tmp_path, 2)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    flags = ("--server", str(label_studio.server), "--project", project.title, "--port", port)
    entry = [sys.executable, str(ROOT / "annotation" / "listen.py"), *flags, "--settle_seconds", "0.2"]
    inherited = {name: value for name, value in os.environ.items() if name != "FINLM_RUNS"}
    child = subprocess.Popen(entry, cwd=tmp_path, env=inherited, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        written = tmp_path / "runs" / "preferences.jsonl"
        until(written.is_file)
        assert preferences(tmp_path) == []
        anna.annotate(tasks[0].id, good(tasks[0], 3))
        until(lambda: len(preferences(tmp_path)) == 1)  # long before the 300 s without hints
        forged = {"action": "ANNOTATION_CREATED", "annotation": {"id": 1, "result": result("A3"), "task": tasks[1].id}}
        before = written.stat().st_mtime_ns
        for _ in range(3):
            assert httpx.post(f"http://127.0.0.1:{port}/", json=forged, trust_env=False).status_code == 204
        until(lambda: written.stat().st_mtime_ns != before)
        assert len(preferences(tmp_path)) == 1
        done = command("listen", *flags, cwd=tmp_path)
        assert (done.returncode, f"--port {port} of 127.0.0.1 cannot be used" in done.stderr) == (2, True)
        headers = {"Authorization": f"Token {label_studio.token}"}
        hooks = f"{label_studio.url}/api/webhooks/?project={project.id}"
        (hook,) = httpx.get(hooks, headers=headers, trust_env=False, timeout=60).json()
        assert (hook["url"], hook["send_payload"]) == (f"http://127.0.0.1:{port}", False)
    finally:
        child.send_signal(signal.SIGTERM)
        said = [stream.decode() for stream in child.communicate(timeout=60)]
    assert child.returncode == 0, said
    assert httpx.get(hooks, headers=headers, trust_env=False, timeout=60).json() == []
    # nobody listens: the annotation is kept, and the next pull has it
    anna.annotate(tasks[1].id, good(tasks[1], 1))
    annotate(label_studio, project, tmp_path, "pull")
    assert len(preferences(tmp_path)) == 2


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("listen", "--every_seconds", "0"), "--every_seconds 0.0 more"),
        (("check", "--least_judged", "2"), "least_judged is 2.0; it must be 0 to 1"),
        (("check", "--false_alarms", "0"), "false_alarms is 0.0; it must lie between 0 and 1"),
        (("check",), "No annotation log at runs/annotation/log.sqlite"),
        (("backup",), "No annotation log at runs/annotation/log.sqlite"),
        (("invite",), "No annotation server is known"),
    ],
)
def test_complaints_are_one_sentence(tmp_path: Path, arguments: tuple[str, ...], complaint: str) -> None:
    done = command(*arguments, cwd=tmp_path, LABEL_STUDIO_API_KEY="")
    assert done.returncode == 2, done.stderr
    assert complaint in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_check_of_a_log_without_ratings(tmp_path: Path) -> None:
    with EventLog(log_of(tmp_path)) as log:
        log.absorb("1@2026-01-01T00:00:00Z", "<View/>", [], ())
    done = command("check", cwd=tmp_path)
    assert (done.returncode, "has no rating yet" in done.stderr) == (2, True)


def test_damage_is_not_copied_as_if_it_were_whole(tmp_path: Path) -> None:
    from annotation.backup import copy_sqlite

    with closing(sqlite3.connect(tmp_path / "whole.sqlite")) as db, db:
        db.execute("CREATE TABLE t(a TEXT)")
        db.executemany("INSERT INTO t VALUES(?)", [("x" * 500,) for _ in range(200)])
        db.execute("CREATE INDEX i ON t(a)")
    content = bytearray((tmp_path / "whole.sqlite").read_bytes())
    content[3 * 4096 : 4 * 4096] = b"\xff" * 4096
    (tmp_path / "damaged.sqlite").write_bytes(content)
    with pytest.raises(UserError, match="an earlier backup has an older state"):
        copy_sqlite(tmp_path / "damaged.sqlite", tmp_path / "copy.sqlite")
