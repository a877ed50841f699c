"""Label Studio's database and our log, row by row: what is in one and not in the other.

The database is read as sqlite, past the server and past everything that the pull is made of.
"""

import contextlib
import datetime as dt
import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.annotation_writers import Step

ROWS = """
    SELECT id, task_id, completed_by_id, was_cancelled, result, updated_at FROM task_completion
    WHERE project_id = ?"""
NEWEST = """
    SELECT annotation_id, task_id, annotator, kind, raw, updated_at FROM event e WHERE project = ? AND seq =
    (SELECT max(seq) FROM event WHERE project = e.project AND annotation_id = e.annotation_id)"""


@dataclass(frozen=True, slots=True)
class Row:
    """An annotation that lives, as either side has it."""

    task_id: int
    annotator: int
    is_skipped: bool
    result: str
    """JSON with sorted keys."""
    updated_at: dt.datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What a comparison found; all but the first three lines should be 0.

    `lost` and `doubled` are sums of the parts below them.
    """

    rows: int
    """Annotations in Label Studio's database."""
    events: int
    """Rows of the log's history."""
    deleted: int
    """Annotations that the log has as deleted."""
    missing: int
    """Rows of the database that the log does not have."""
    differing: int
    """Rows that the log has in another state: person, task, skipped or not, result, time."""
    vanished: int
    """Annotations that the server confirmed and that it neither has nor was asked to delete."""
    deletions_missed: int
    """Annotations that live in the log and not in the database."""
    repeated_events: int
    """Events equal to an earlier one of the same annotation but for the moment of the pull."""
    repeated_votes: int
    """Votes of preferences.jsonl whose annotation has a vote already."""
    repeated_tasks: int
    """Tasks of the database whose pair has a task already."""

    @property
    def lost(self) -> int:
        """Whatever is not in the log as the server has it."""
        return self.missing + self.differing + self.vanished

    @property
    def doubled(self) -> int:
        """Whatever is there once more than it should be."""
        return self.deletions_missed + self.repeated_events + self.repeated_votes + self.repeated_tasks

    def told(self) -> dict[str, int]:
        """All of it, for a result file."""
        return asdict(self) | {"lost": self.lost, "doubled": self.doubled}


def database_rows(database: Path, project: int) -> dict[int, Row]:
    """Return the annotations of a project as Label Studio's own table has them, by id."""
    with contextlib.closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as db:
        found = db.execute(ROWS, (project,)).fetchall()
    return {
        one: Row(task, person, bool(cancelled), _plain(json.loads(result)), _moment(updated_at))
        for one, task, person, cancelled, result, updated_at in found
    }


def log_rows(log: Path, project: str) -> dict[int, Row | None]:
    """Return the newest state of each annotation that the log ever had; None for a deleted one."""
    found: dict[int, Row | None] = {}
    with contextlib.closing(sqlite3.connect(log)) as db:
        for one, task, person, kind, raw, updated_at in db.execute(NEWEST, (project,)):
            result = _plain(json.loads(raw).get("result"))
            is_there = kind != "deleted"
            found[one] = Row(task, person, kind == "skip", result, _moment(updated_at)) if is_there else None
    return found


def compare(
    database: Path, log: Path, project_id: int, project: str, ledger: Iterable[Step], votes: Sequence[str]
) -> Compared:
    """Hold the log against the database, the database against what writers were told, and look for doubles.

    Args:
        database: Label Studio's sqlite file.
        log: Ours.
        project_id: Number of the project in the database.
        project: Its key in the log.
        ledger: Every write that the server confirmed.
        votes: Annotation ids of the votes in preferences.jsonl.
    """
    there, ours = database_rows(database, project_id), log_rows(log, project)
    steps = list(ledger)
    confirmed = {step.annotation_id for step in steps} - {step.annotation_id for step in steps if step.does == "delete"}
    with contextlib.closing(sqlite3.connect(log)) as db:
        query = "SELECT annotation_id, kind, updated_at, content FROM event WHERE project = ?"
        events = db.execute(query, (project,)).fetchall()
    with contextlib.closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as db:
        tasks = [
            json.loads(data)["pair_id"]
            for (data,) in db.execute("SELECT data FROM task WHERE project_id = ?", (project_id,))
        ]
    return Compared(
        rows=len(there),
        events=len(events),
        deleted=sum(row is None for row in ours.values()),
        missing=len(there.keys() - ours.keys()),
        differing=sum(ours[one] != row for one, row in there.items() if one in ours),
        vanished=len(confirmed - there.keys()),
        deletions_missed=sum(row is not None and one not in there for one, row in ours.items()),
        repeated_events=_repeated(events),
        repeated_votes=_repeated(votes),
        repeated_tasks=_repeated(tasks),
    )


def unseen(log: Path, project: str, ledger: Iterable[Step]) -> dict[str, int]:
    """Count states that came and went between two pulls: Label Studio keeps the newest alone, nobody can read them."""
    with contextlib.closing(sqlite3.connect(log)) as db:
        seen = db.execute("SELECT annotation_id, updated_at FROM event WHERE project = ?", (project,)).fetchall()
    known: Mapping[int, set[dt.datetime]] = {one: set() for one, _ in seen}
    for one, updated_at in seen:
        known[one].add(_moment(updated_at))
    written = [step for step in ledger if step.does != "delete"]
    return {
        "states_overwritten_between_pulls": sum(
            step.annotation_id in known and _moment(step.updated_at) not in known[step.annotation_id]
            for step in written
        ),
        "made_and_deleted_between_pulls": len({step.annotation_id for step in written} - known.keys()),
    }


def _repeated(values: Sequence[Any]) -> int:
    return sum(count - 1 for count in Counter(values).values())


def _plain(result: Any) -> str:
    return json.dumps(result, sort_keys=True, ensure_ascii=False)


def _moment(text: str) -> dt.datetime:
    """The database writes `2026-11-29 20:31:02.123456`, the API `2026-11-29T20:31:02.123456Z`; both mean UTC."""
    moment = dt.datetime.fromisoformat(text.replace("Z", "+00:00"))
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
