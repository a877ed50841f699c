"""The log: nothing is lost, nothing doubled, nothing forgotten."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from annotation_helpers import prompt, response, result

from annotation.api import Task
from annotation.eventlog import EventLog
from annotation.pairing import Comparison
from finlm.errors import UserError

PROJECT = "1@2026-01-01T00:00:00Z"
COMPARISON = Comparison(prompt=prompt("Q"), first=response("one"), second=response("two"))


def annotation(number: int, level: str, at: str, *, skipped: bool = False, **fields: Any) -> dict[str, Any]:
    regions = [] if skipped else result(level)
    return {"id": number, "result": regions, "was_cancelled": skipped, "completed_by": 2, "updated_at": at, **fields}


def task(*annotations: dict[str, Any], at: str = "2026-01-01T00:00:09.000000Z", number: int = 1) -> Task:
    return Task(id=number, updated_at=at, data={"pair_id": COMPARISON.id}, annotations=annotations)


def test_a_life_of_an_annotation(tmp_path: Path) -> None:
    with EventLog(tmp_path / "log.sqlite") as log:
        first = annotation(5, "A3", "2026-01-01T00:00:01Z", created_ago="1 minute")
        assert log.absorb(PROJECT, "<View/>", [task(first)], ()).new == 1
        again = log.absorb(PROJECT, "<View/>", [task({**first, "created_ago": "2 minutes"})], ())
        assert again.events == 0
        edited = annotation(5, "B1", "2026-01-01T00:00:02Z", completed_by={"id": 2, "email": "x"})
        assert log.absorb(PROJECT, "<View/>", [task(edited)], ()).edited == 1
        skipped = annotation(5, "", "2026-01-01T00:00:03Z", skipped=True)
        assert log.absorb(PROJECT, "<View/>", [task(skipped)], ()).skipped == 1
        assert log.absorb(PROJECT, "<View/>", [task()], ()).deleted == 1
        assert log.absorb(PROJECT, "<View/>", [task()], ()).events == 0
        assert [kind for kind, _ in log.history(PROJECT, 5)] == ["annotation", "annotation", "skip", "deleted"]
        assert "1 minute" in log.history(PROJECT, 5)[0][1]  # the server's words as they were
        # a server restored from a backup brings it back
        assert log.absorb(PROJECT, "<View/>", [task(edited)], ()).edited == 1
        (newest,) = log.annotations(PROJECT)
        assert (newest.kind, newest.annotator, newest.pair_id) == ("annotation", 2, COMPARISON.id)
        # the task itself goes
        gone = log.absorb(PROJECT, "<View/>", [], {1})
        assert (gone.deleted, gone.vanished_tasks) == (1, 1)
        assert log.known_tasks(PROJECT) == {}
        (newest,) = log.annotations(PROJECT)
        assert (newest.kind, newest.pair_id) == ("deleted", COMPARISON.id)


def test_projects_do_not_mix(tmp_path: Path) -> None:
    other = "1@2026-02-02T00:00:00Z"  # a new server begins with id 1 again
    with EventLog(tmp_path / "log.sqlite") as log:
        log.absorb(PROJECT, "<View/>", [task(annotation(5, "A3", "2026-01-01T00:00:01Z"))], ())
        assert log.absorb(other, "<View/>", [task(annotation(5, "A3", "2026-01-01T00:00:01Z"))], ()).new == 1
        assert len(log.annotations(PROJECT)) == len(log.annotations(other)) == 1


def test_the_cursor_looks_back_and_never_goes_back(tmp_path: Path) -> None:
    with EventLog(tmp_path / "log.sqlite") as log:
        assert log.updated_after(PROJECT) == ""
        log.absorb(PROJECT, "<View/>", [task(at="2026-01-01T01:00:00.500000Z")], ())
        assert log.updated_after(PROJECT) == "2026-01-01T00:50:00.500000Z"
        log.absorb(PROJECT, "<View/>", [task(at="2025-12-31T23:00:00Z")], ())
        log.absorb(PROJECT, "<View/>", [], ())
        assert log.updated_after(PROJECT) == "2026-01-01T00:50:00.500000Z"


def test_a_pull_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    broken = {"id": 6, "result": [], "was_cancelled": False, "updated_at": "2026-01-01T00:00:01Z"}  # no completed_by
    with EventLog(tmp_path / "log.sqlite") as log:
        with pytest.raises(KeyError):
            log.absorb(PROJECT, "<View/>", [task(annotation(5, "A3", "2026-01-01T00:00:01Z")), task(broken)], ())
        assert log.annotations(PROJECT) == []
        assert log.updated_after(PROJECT) == ""


def test_the_history_cannot_be_changed(tmp_path: Path) -> None:
    with EventLog(tmp_path / "log.sqlite") as log:
        log.absorb(PROJECT, "<View/>", [task(annotation(5, "A3", "2026-01-01T00:00:01Z"))], ())
    connection = sqlite3.connect(tmp_path / "log.sqlite")
    for statement in ("DELETE FROM event", "UPDATE event SET raw='{}'"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            connection.execute(statement)
    connection.close()


def test_pairs_keep_their_side(tmp_path: Path) -> None:
    comparisons = [Comparison(prompt=prompt(f"Q{n}"), first=response("a"), second=response("b")) for n in range(64)]
    with EventLog(tmp_path / "log.sqlite") as log:
        assert log.add_pairs(comparisons) == 64
        sides = {pair_id: pair.swapped for pair_id, pair in log.pairs().items()}
        assert set(sides.values()) == {True, False}
    with EventLog(tmp_path / "log.sqlite") as log:
        assert log.add_pairs(comparisons) == 0
        assert {pair_id: pair.swapped for pair_id, pair in log.pairs().items()} == sides
        assert log.pairs()[comparisons[3].id].comparison == comparisons[3]


def test_one_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    with EventLog(path) as one, EventLog(path) as other, one.only_one(), pytest.raises(UserError, match="another push"):
        other.only_one().__enter__()


def test_a_damaged_log_is_named(tmp_path: Path) -> None:
    (tmp_path / "log.sqlite").write_bytes(b"not a database, but long enough to look like one" * 50)
    with pytest.raises(UserError, match="is no annotation log"):
        EventLog(tmp_path / "log.sqlite")
