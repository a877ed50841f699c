"""The measurement of many people at work, small: its sums come out, and nothing is lost or doubled."""

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from annotation_helpers import ROOT, Served

from benchmarks.annotation_rows import Row, _moment, compare, database_rows
from benchmarks.annotation_writers import Step, shares


def test_200_annotations_of_eight_writers_while_they_are_pulled(label_studio: Served, tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    flags = ["--server", str(label_studio.server), "--title", "Small benchmark", "--pairs", "60"]
    flags += [
        "--annotations",
        "200",
        "--quiet-seconds",
        "0",
        "--pause-seconds",
        "2",
        "--rounds",
        "1",
        "--changes",
        "16",
    ]
    entry = [sys.executable, str(ROOT / "benchmarks" / "annotation_server.py"), *flags, "--out", str(out)]
    done = subprocess.run(entry, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    figures = json.loads(out.read_text(encoding="utf-8"))["figures"]
    assert (figures["lost"], figures["doubled"]) == (0, 0)
    assert figures["same_preferences_from_a_full_pull"] is True
    made, after = figures["confirmed_writes"], figures["after_the_burst"]
    if not figures["unconfirmed_writes"]:
        assert made["create"] + made["skip"] == 200
        assert after["rows"] == 200 - made["delete"]
    assert min(made.values()) > 0
    assert after["rows"] <= figures["full_pull"]["events"]
    assert "| lost | 0 |\n| doubled | 0 |" in out.with_suffix(".md").read_text(encoding="utf-8")


def test_every_kind_of_loss_and_double_is_counted(tmp_path: Path) -> None:
    """Two files made by hand: a row missing, one in another state, one deleted unseen, and a double of each kind."""
    at = "2026-11-29 10:00:00.000001"
    with closing(sqlite3.connect(tmp_path / "server.sqlite")) as db, db:
        db.execute("CREATE TABLE task(project_id, data)")
        db.execute(
            "CREATE TABLE task_completion(id, task_id, completed_by_id, was_cancelled, result, updated_at, project_id)"
        )
        db.executemany("INSERT INTO task VALUES(1, ?)", [(json.dumps({"pair_id": name}),) for name in "aab"])
        rows = [(n, 7, 2, 0, "[]", at, 1) for n in (1, 2, 3)]
        db.executemany("INSERT INTO task_completion VALUES(?, ?, ?, ?, ?, ?, ?)", rows)
    with closing(sqlite3.connect(tmp_path / "log.sqlite")) as db, db:
        db.execute(
            "CREATE TABLE event(seq INTEGER PRIMARY KEY, project, task_id, annotation_id, kind, annotator, updated_at, "
            "content, raw)"
        )
        same = "2026-11-29T10:00:00.000001Z"
        events = [
            (1, "annotation", same, '{"result": []}'),
            (1, "annotation", same, '{"result": []}'),  # the same again
            (2, "annotation", same, '{"result": [1]}'),  # another state than the server's
            (4, "annotation", same, '{"result": []}'),  # lives here and not there
        ]
        for number, kind, moment, raw in events:
            db.execute(
                "INSERT INTO event(project, task_id, annotation_id, kind, annotator, updated_at, content, raw) "
                "VALUES('1@x', 7, ?, ?, 2, ?, 'c', ?)",
                (number, kind, moment, raw),
            )
    ledger = [
        Step(annotation_id=9, task_id=7, does="create", updated_at=at),  # confirmed and gone
        Step(annotation_id=8, task_id=7, does="create", updated_at=at),
        Step(annotation_id=8, task_id=7, does="delete"),
    ]
    assert database_rows(tmp_path / "server.sqlite", 1)[1] == Row(7, 2, False, "[]", _moment(at))
    found = compare(tmp_path / "server.sqlite", tmp_path / "log.sqlite", 1, "1@x", ledger, ["5", "6", "5"])
    assert (found.missing, found.differing, found.vanished, found.lost) == (1, 1, 1, 3)
    assert (found.deletions_missed, found.repeated_events, found.repeated_votes, found.repeated_tasks) == (1, 1, 1, 1)
    assert found.doubled == 4


def test_tasks_are_dealt_evenly_and_never_twice_to_one_person() -> None:
    dealt = shares(list(range(10)), 25, 4, seed=1)
    assert sorted(map(len, dealt)) == [5, 6, 7, 7]  # dealt by hand
    assert all(len(set(its)) == len(its) for its in dealt)
    counts = [sum(task in its for its in dealt) for task in range(10)]
    assert counts == [3] * 5 + [2] * 5
    with pytest.raises(AssertionError, match="more annotations than tasks times writers"):
        shares([1], 3, 2, seed=1)
