"""The local log of everything that was pushed and pulled: one sqlite file, append-only where it matters.

    meta      the swap seed, drawn once, kept nowhere else; which project adjudicates which
    pair      what is compared, and which answer stood on the left; no server is told
    gold      pairs whose better answer is known; no server is told
    answer_set  four answers to put in order, and which of them stood where; no server is told
    delivery  which pair went to which project: `sending` until the server has confirmed it
    page      every labelling configuration that annotations were pulled under
    task      the newest state of each task: which annotations it had, whether it is gone
    event     append-only history: an annotation as it was seen, each edit, skip and deletion, with the server's JSON
    cursor    up to which moment of the server's clock a project has been pulled; moves with the events, or not at all

Losing this file loses which answer stood where: back it up with the server's database.
"""

import contextlib
import datetime as dt
import fcntl
import hashlib
import json
import secrets
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from annotation.answer_sets import AnswerSet, shown_order
from annotation.api import Task
from annotation.logged import Absorbed, Annotation, Kind, Pair, ShownSet
from annotation.pairing import Comparison, is_swapped
from annotation.vocabulary import guidelines_version, page_hash
from finlm.errors import UserError

OVERLAP = dt.timedelta(minutes=10)
"""Each pull looks this far back again: a transaction may be committed after a later one was read."""

SCHEMA_VERSION = 1

SCHEMA = """
CREATE TABLE IF NOT EXISTS meta(key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS pair(
    pair_id TEXT PRIMARY KEY, comparison TEXT NOT NULL, swapped INTEGER NOT NULL, made_at TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS gold(pair_id TEXT PRIMARY KEY, better INTEGER NOT NULL, made_at TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS answer_set(
    set_id TEXT PRIMARY KEY, answers TEXT NOT NULL, shown TEXT NOT NULL, made_at TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS delivery(
    project TEXT, pair_id TEXT, state TEXT NOT NULL CHECK(state IN ('sending', 'sent')), at TEXT NOT NULL,
    PRIMARY KEY(project, pair_id));
CREATE TABLE IF NOT EXISTS page(hash TEXT PRIMARY KEY, config TEXT NOT NULL, seen_at TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS task(
    project TEXT, task_id INTEGER, pair_id TEXT NOT NULL, updated_at TEXT NOT NULL, annotation_ids TEXT NOT NULL,
    gone_at TEXT, PRIMARY KEY(project, task_id));
CREATE TABLE IF NOT EXISTS event(
    seq INTEGER PRIMARY KEY AUTOINCREMENT, project TEXT NOT NULL, task_id INTEGER NOT NULL,
    annotation_id INTEGER NOT NULL, kind TEXT NOT NULL, annotator INTEGER, updated_at TEXT NOT NULL, page TEXT NOT NULL,
    content TEXT NOT NULL, raw TEXT NOT NULL, seen_at TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS event_of_annotation ON event(project, annotation_id, seq);
CREATE TABLE IF NOT EXISTS cursor(project TEXT PRIMARY KEY, since TEXT NOT NULL);
CREATE TRIGGER IF NOT EXISTS event_stays BEFORE DELETE ON event
    BEGIN SELECT RAISE(ABORT, 'the history of annotations is append-only'); END;
CREATE TRIGGER IF NOT EXISTS event_is_fixed BEFORE UPDATE ON event
    BEGIN SELECT RAISE(ABORT, 'the history of annotations is append-only'); END;
"""


class EventLog:
    """The sqlite file of one run root. Use as a context manager."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(self.path, timeout=60.0, isolation_level=None)
        try:
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            found = self._db.execute("PRAGMA user_version").fetchone()[0]
            if found not in {0, SCHEMA_VERSION}:
                raise UserError(f"{self.path} was written by another version of this project (log format {found}).")
            self._db.executescript(SCHEMA)
            self._db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
            self._db.execute("INSERT OR IGNORE INTO meta VALUES('swap_seed', ?)", (secrets.token_hex(16),))
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise UserError(f"{self.path} is no annotation log ({error}); restore it from a backup.") from error
        except UserError:
            self._db.close()
            raise

    def __enter__(self) -> "EventLog":
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    @contextlib.contextmanager
    def only_one(self) -> Iterator[None]:
        """Keep a second push or pull away while this one runs; the system frees the lock when a process dies."""
        with self.path.with_name(f".{self.path.name}.lock").open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(f"{self.path}: another push or pull is at work on it; wait until it ends.") from None
            yield

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """All of what is written meanwhile, or nothing.

        Raises:
            UserError: There is no room for it, or the file cannot be written.
        """
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except sqlite3.OperationalError as error:
            self._roll_back()
            raise UserError(
                f"{self.path} could not be written ({error}) and is as it was before; free some disk, then run the "
                "same command again."
            ) from error
        except BaseException:
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        # a full disk has sqlite end the transaction by itself
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    # ------------------------------------------------------------------------------------------ pushing

    def add_pairs(self, comparisons: Iterable[Comparison]) -> int:
        """Note comparisons that are not known yet, toss their sides, and return how many were new."""
        seed = self._db.execute("SELECT value FROM meta WHERE key='swap_seed'").fetchone()[0]
        added = 0
        with self._transaction():
            for comparison in comparisons:
                row = (comparison.id, _json(comparison), is_swapped(seed, comparison.id), _now())
                added += self._db.execute("INSERT OR IGNORE INTO pair VALUES(?, ?, ?, ?)", row).rowcount
        return added

    def add_sets(self, answer_sets: Iterable[AnswerSet]) -> int:
        """Note sets that are not known yet, shuffle their answers, and return how many were new."""
        seed = self._db.execute("SELECT value FROM meta WHERE key='swap_seed'").fetchone()[0]
        added = 0
        with self._transaction():
            for one in answer_sets:
                row = (one.id, _json(one), json.dumps(shown_order(seed, one.id)), _now())
                added += self._db.execute("INSERT OR IGNORE INTO answer_set VALUES(?, ?, ?, ?)", row).rowcount
        return added

    def add_gold(self, comparisons: Sequence[Comparison]) -> None:
        """Note which answer of known pairs is the better one: the first of these."""
        known = self.pairs() if comparisons else {}
        with self._transaction():
            for one in comparisons:
                # a pair noted earlier may have its answers the other way round
                better = int(known[one.id].comparison.first.text != one.first.text)
                self._db.execute("INSERT OR REPLACE INTO gold VALUES(?, ?, ?)", (one.id, better, _now()))

    def gold(self) -> dict[str, int]:
        """The better answer of each gold pair by the pair's id: 0 for its first, 1 for its second."""
        return dict(self._db.execute("SELECT pair_id, better FROM gold").fetchall())

    def deliveries(self, project: str) -> dict[str, str]:
        """State of each pair that went to a project: `sending` or `sent`."""
        return dict(self._db.execute("SELECT pair_id, state FROM delivery WHERE project=?", (project,)).fetchall())

    def mark(self, project: str, pair_ids: Sequence[str], state: Literal["sending", "sent"]) -> None:
        """Set the delivery state of pairs."""
        with self._transaction():
            rows = [(project, pair_id, state, _now()) for pair_id in pair_ids]
            self._db.executemany("INSERT OR REPLACE INTO delivery VALUES(?, ?, ?, ?)", rows)

    def unmark(self, project: str, pair_ids: Sequence[str]) -> None:
        """Forget a delivery that turned out not to have happened."""
        with self._transaction():
            rows = [(project, pair_id) for pair_id in pair_ids]
            self._db.executemany("DELETE FROM delivery WHERE project=? AND pair_id=? AND state='sending'", rows)

    # ------------------------------------------------------------------------------------------ pulling

    def updated_after(self, project: str) -> str:
        """From where the next pull asks for changed tasks, the overlap included; empty for a first pull."""
        row = self._db.execute("SELECT since FROM cursor WHERE project=?", (project,)).fetchone()
        if row is None:
            return ""
        moment = dt.datetime.fromisoformat(row[0].replace("Z", "+00:00")) - OVERLAP
        return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def known_tasks(self, project: str) -> dict[int, str]:
        """The tasks that were there at the last pull, and the time of the change that they were read after."""
        query = "SELECT task_id, updated_at FROM task WHERE project=? AND gone_at IS NULL"
        return dict(self._db.execute(query, (project,)).fetchall())

    def absorb(self, project: str, label_config: str, tasks: Sequence[Task], vanished: Iterable[int]) -> Absorbed:
        """Write what a pull saw and move the cursor, in one transaction.

        Args:
            project: The project's key.
            label_config: The labelling page as it is now.
            tasks: The tasks that changed since the cursor.
            vanished: Ids of known tasks that are on the server no longer.
        """
        counts: dict[str, int] = dict.fromkeys(Absorbed.__dataclass_fields__, 0)
        page = page_hash(label_config)
        with self._transaction():
            self._db.execute("INSERT OR IGNORE INTO page VALUES(?, ?, ?)", (page, label_config, _now()))
            for task in tasks:
                self._absorb_task(project, page, task, counts)
            for task_id in vanished:
                counts["vanished_tasks"] += 1
                self._set_gone(project, page, task_id, counts)
            newest = max((task.updated_at for task in tasks), default="")
            self._db.execute(
                "INSERT INTO cursor VALUES(?, ?) ON CONFLICT(project) DO UPDATE SET since=max(since, excluded.since)",
                (project, newest or "1970-01-01T00:00:00.000000Z"),
            )
        return Absorbed(**counts)

    def absorb_copies(self, project: str, tasks: Iterable[Task]) -> Absorbed:
        """Write what a second copy of the annotations has and the log does not, as if it had been pulled.

        A copy is the newest state that its annotation had before it was deleted. One that is no newer than what the log
        has of the annotation, its deletion included, says nothing; an annotation without a copy is not taken for
        deleted. The cursor is taken away: the next pull reads everything and settles what the server still has.

        Args:
            project: The project's key.
            tasks: Tasks with the annotations that there are copies of; their page is the one last pulled under, if any.
        """
        counts: dict[str, int] = dict.fromkeys(Absorbed.__dataclass_fields__, 0)
        query = "SELECT page FROM event WHERE project=? ORDER BY seq DESC LIMIT 1"
        (page,) = self._db.execute(query, (project,)).fetchone() or ("",)
        with self._transaction():
            for task in tasks:
                taken = set()
                for annotation in task.annotations:
                    before = self._newest(project, annotation["id"])
                    if before is None or (before[0] != "deleted" and before[1] < annotation["updated_at"]):
                        self._absorb_annotation(project, page, task.id, annotation, counts)
                        taken.add(annotation["id"])
                if taken:
                    here = sorted(taken | set(self._annotations_of(project, task.id)))
                    self._db.execute(
                        "INSERT INTO task VALUES(?, ?, ?, ?, ?, NULL) ON CONFLICT(project, task_id) DO UPDATE SET "
                        "annotation_ids=excluded.annotation_ids",
                        (project, task.id, str(task.data.get("pair_id", "")), task.updated_at, json.dumps(here)),
                    )
            self._db.execute("DELETE FROM cursor WHERE project=?", (project,))
        return Absorbed(**counts)

    def _absorb_annotation(
        self, project: str, page: str, task_id: int, annotation: Mapping[str, Any], counts: dict[str, int]
    ) -> None:
        content = _content(annotation)
        kind: Kind = "skip" if annotation["was_cancelled"] else "annotation"
        before = self._newest(project, annotation["id"])
        if before == (kind, annotation["updated_at"], content):
            return
        counts["skipped" if kind == "skip" else "new" if before is None else "edited"] += 1
        row = (task_id, annotation["id"], kind, _user_id(annotation["completed_by"]), annotation["updated_at"])
        self._append(project, page, *row, content, json.dumps(annotation, ensure_ascii=False))

    def _absorb_task(self, project: str, page: str, task: Task, counts: dict[str, int]) -> None:
        for annotation in task.annotations:
            self._absorb_annotation(project, page, task.id, annotation, counts)
        here = sorted(annotation["id"] for annotation in task.annotations)
        self._bury(project, page, task.id, set(self._annotations_of(project, task.id)) - set(here), counts)
        self._db.execute(
            "INSERT OR REPLACE INTO task VALUES(?, ?, ?, ?, ?, NULL)",
            (project, task.id, str(task.data.get("pair_id", "")), task.updated_at, json.dumps(here)),
        )

    def _set_gone(self, project: str, page: str, task_id: int, counts: dict[str, int]) -> None:
        self._bury(project, page, task_id, set(self._annotations_of(project, task_id)), counts)
        changes = (_now(), project, task_id)
        self._db.execute("UPDATE task SET gone_at=?, annotation_ids='[]' WHERE project=? AND task_id=?", changes)

    def _bury(self, project: str, page: str, task_id: int, gone: set[int], counts: dict[str, int]) -> None:
        for annotation_id in sorted(gone):
            counts["deleted"] += 1
            self._append(project, page, task_id, annotation_id, "deleted", None, _now(), "", "{}")

    def _append(
        self,
        project: str,
        page: str,
        task_id: int,
        annotation_id: int,
        kind: Kind,
        annotator: int | None,
        updated_at: str,
        content: str,
        raw: str,
    ) -> None:
        columns = "project, page, task_id, annotation_id, kind, annotator, updated_at, content, raw, seen_at"
        row = (project, page, task_id, annotation_id, kind, annotator, updated_at, content, raw, _now())
        self._db.execute(f"INSERT INTO event({columns}) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)

    def _newest(self, project: str, annotation_id: int) -> tuple[str, str, str] | None:
        query = (
            "SELECT kind, updated_at, content FROM event WHERE project=? AND annotation_id=? ORDER BY seq DESC LIMIT 1"
        )
        row: tuple[str, str, str] | None = self._db.execute(query, (project, annotation_id)).fetchone()
        return row

    def _annotations_of(self, project: str, task_id: int) -> list[int]:
        query = "SELECT annotation_ids FROM task WHERE project=? AND task_id=?"
        row = self._db.execute(query, (project, task_id)).fetchone()
        return list(json.loads(row[0])) if row else []

    # ------------------------------------------------------------------------------------------ reading

    def pairs(self, only: Collection[str] | None = None) -> dict[str, Pair]:
        """Every pair that was ever pushed, by id; or those of the given ids that are known."""
        query, given = "SELECT pair_id, comparison, swapped FROM pair", _among("pair_id", only)
        decode = msgspec.json.Decoder(Comparison).decode
        return {
            pair_id: Pair(comparison=decode(comparison), swapped=bool(swapped))
            for pair_id, comparison, swapped in self._db.execute(query + given.clause("WHERE"), given.values)
        }

    def sets(self) -> dict[str, ShownSet]:
        """Every set of four answers that was ever pushed, by id."""
        rows = self._db.execute("SELECT set_id, answers, shown FROM answer_set")
        return {
            set_id: ShownSet(answers=msgspec.json.decode(answers, type=AnswerSet), order=tuple(json.loads(shown)))
            for set_id, answers, shown in rows
        }

    def annotations(self, project: str, only: Collection[str] | None = None) -> list[Annotation]:
        """The newest state of every annotation that a project ever had, deleted ones included, in order of id.

        Args:
            project: The project's key.
            only: Ids of pairs, as tasks name them; None for all.
        """
        given = _among("coalesce(t.pair_id, '')", only)
        query = f"SELECT {_STATE}, e.raw {_NEWEST} {given.clause('AND')} ORDER BY e.annotation_id"
        pages = self._db.execute("SELECT hash, config FROM page").fetchall()
        rows = self._db.execute(query, (project, *given.values))
        guidelines = {page: guidelines_version(config) for page, config in pages}
        return [
            Annotation(
                id=annotation_id,
                task_id=task_id,
                pair_id=pair_id,
                kind=kind,
                annotator=annotator,
                updated_at=updated_at,
                result=tuple(stored.result or ()),
                seconds=_seconds(stored.lead_time),
                page=page,
                guidelines=guidelines.get(page, ""),
            )
            for pair_id, annotation_id, task_id, kind, annotator, updated_at, page, _, raw in rows
            for stored in [_stored(raw)]
        ]

    def states(self, project: str) -> Iterator[tuple[str, tuple[object, ...]]]:
        """Yield, in order of id, the pair of each annotation and what `annotations` would be made of, as hashes."""
        for pair_id, *state in self._db.execute(f"SELECT {_STATE} {_NEWEST} ORDER BY e.annotation_id", (project,)):
            yield pair_id, tuple(state)

    def shown(self) -> dict[str, tuple[int, str]]:
        """Of every known pair whether it was swapped, and when it was noted: what a pair is never changes after it."""
        rows = self._db.execute("SELECT pair_id, swapped, made_at FROM pair")
        return {pair_id: (swapped, made_at) for pair_id, swapped, made_at in rows}

    def projects(self) -> list[str]:
        """Keys of the projects that have a history or were pulled, those of verdicts left out."""
        query = """
            SELECT project FROM (SELECT project FROM cursor UNION SELECT project FROM event)
            WHERE 'verdicts:' || project NOT IN (SELECT key FROM meta) ORDER BY project"""
        return [key for (key,) in self._db.execute(query)]

    def known_projects(self) -> list[str]:
        """Keys of all projects that something was sent to or fetched from."""
        query = """
            SELECT project FROM delivery UNION SELECT project FROM event UNION SELECT project FROM cursor ORDER BY 1"""
        return [key for (key,) in self._db.execute(query)]

    def note_verdicts(self, project: str, of_project: str) -> None:
        """Note that one project's annotations are verdicts on another's pairs."""
        with self._transaction():
            self._db.execute("INSERT OR IGNORE INTO meta VALUES(?, ?)", (f"verdicts:{project}", of_project))

    def verdict_projects(self, of_project: str) -> list[str]:
        """Keys of the projects whose annotations are verdicts on this one's pairs."""
        query = "SELECT substr(key, 10) FROM meta WHERE key LIKE 'verdicts:%' AND value=? ORDER BY key"
        return [key for (key,) in self._db.execute(query, (of_project,))]

    def verdicts(self, of_project: str, only: Collection[str] | None = None) -> list[Annotation]:
        """The newest state of every verdict on a project's pairs, or on those of the given ids."""
        return [one for key in self.verdict_projects(of_project) for one in self.annotations(key, only)]

    def history(self, project: str, annotation_id: int) -> list[tuple[str, str]]:
        """Kind and raw JSON of all that was ever seen of one annotation, oldest first."""
        query = "SELECT kind, raw FROM event WHERE project=? AND annotation_id=? ORDER BY seq"
        return [(kind, raw) for kind, raw in self._db.execute(query, (project, annotation_id))]


_STATE = """coalesce(t.pair_id, ''), e.annotation_id, e.task_id, e.kind, e.annotator, e.updated_at, e.page, e.content"""
_NEWEST = """
    FROM event e LEFT JOIN task t ON t.project = e.project AND t.task_id = e.task_id
    WHERE e.project = ? AND e.seq = (
        SELECT max(seq) FROM event WHERE project = e.project AND annotation_id = e.annotation_id)"""


class _Among(NamedTuple):
    """A condition that a column is one of some values; none where all will do."""

    condition: str
    values: tuple[str, ...]

    def clause(self, word: str) -> str:
        return f" {word} {self.condition}" if self.condition else ""


def _among(column: str, only: Collection[str] | None) -> _Among:
    if only is None:
        return _Among("", ())
    # one value however many they are: sqlite takes a limited number of them
    return _Among(f"{column} IN (SELECT value FROM json_each(?))", (json.dumps(sorted(only)),))


def _now() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _json(comparison: Comparison | AnswerSet) -> str:
    return msgspec.json.encode(comparison).decode("utf-8")


def _content(annotation: Mapping[str, Any]) -> str:
    """Hash of what a person decided; other fields, such as `created_ago`, change with every reading."""
    decided = [annotation["result"], annotation["was_cancelled"], _user_id(annotation["completed_by"])]
    return hashlib.sha256(json.dumps(decided, sort_keys=True).encode("utf-8")).hexdigest()[:16]


class _Stored(msgspec.Struct):
    """What is read of an annotation's JSON; the rest is kept for whoever asks later."""

    result: Any = None
    lead_time: Any = None


_STORED = msgspec.json.Decoder(_Stored)


def _stored(raw: str) -> _Stored:
    try:
        return _STORED.decode(raw)
    except msgspec.DecodeError:  # a number beyond a float's range, which the standard library takes for infinity
        told = json.loads(raw)
        return _Stored(result=told.get("result"), lead_time=told.get("lead_time"))


def _seconds(lead_time: Any) -> float | None:
    """Annotations made through the API have none."""
    return float(lead_time) if isinstance(lead_time, int | float) and lead_time > 0 else None


def _user_id(completed_by: Any) -> int | None:
    """Some answers of the server name a user by number, others by an object with an `id`."""
    if isinstance(completed_by, Mapping):
        completed_by = completed_by.get("id")
    return completed_by if isinstance(completed_by, int) else None
