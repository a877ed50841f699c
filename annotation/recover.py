"""Reads Label Studio's own copies of annotations into the log: for a server whose database is lost, or a log that is.

finlm annotate recover                     every project of which the server's folder has copies

Label Studio writes each annotation into a file of its own when it is made, edited or skipped, and leaves the file when
it is deleted. What the log knows already, or knows to be deleted, stays as it is; the next pull settles the rest.
"""

import os
import sys

if not __package__:  # run as a file: import from this checkout, not from this folder or from an older install
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from annotation.api import Task
from annotation.eventlog import EventLog
from annotation.export import export
from annotation.server_folder import copies_of
from finlm import jsonl
from finlm.config import default_runs, run
from finlm.errors import MissingInput, UserError
from finlm.records import Removal

NEEDED = ("id", "result", "was_cancelled", "completed_by", "updated_at", "task")


@dataclass(frozen=True, kw_only=True)
class RecoverSettings:
    """Settings of `finlm annotate recover`."""

    runs: str = field(default_factory=default_runs)
    """The run root."""
    server: str = "{runs}/annotation/server"
    """Folder of the server, which has the copies; it need not run."""
    copies: str = ""
    """Folder of the copies, one folder a project; empty for the server's own."""
    log: str = "{runs}/annotation/log.sqlite"
    """The local log that takes them in."""
    output: str = "{runs}/preferences.jsonl"
    """Where the preferences go, if the copies are of one project with pairs; else pull writes them."""
    rejected: str = "{runs}/annotation/recover/rejected.jsonl"
    """Files that are no annotation, with the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """An annotation out of a file.

    Example:
        Copy(task_id=7, pair_id="9f…", task_updated_at="2026-…Z", annotation={"id": 12, "result": [], …})
    """

    task_id: int
    pair_id: str
    task_updated_at: str
    annotation: Mapping[str, Any]


def main(settings: RecoverSettings) -> None:
    """Find the copies, read them project by project, say what was new."""
    console = Console()
    folder = Path(settings.copies) if settings.copies else copies_of(Path(settings.server))
    numbers = sorted(int(path.name) for path in folder.glob("*") if path.is_dir() and path.name.isdigit())
    if not numbers:
        raise MissingInput(f"No copies in {folder}; they are made by a server of: finlm annotate serve")
    removals: list[Removal] = []
    with EventLog(settings.log) as log, log.only_one():
        for number in numbers:
            read = list(read_copies(folder / str(number)))
            copies = [one for one in read if isinstance(one, Copy)]
            removals += [one for one in read if isinstance(one, Removal)]
            keys = [key for key in log.known_projects() if key.partition("@")[0] == str(number)]
            if len(keys) != 1:
                there = ", ".join(keys) or "none"
                raise UserError(f"{folder / str(number)}: the log has to know one project {number}, it knows {there}.")
            absorbed = log.absorb_copies(keys[0], tasks_of(copies))
            console.print(
                f"project {keys[0]}: {len(copies)} copies, {absorbed.new} new annotations, {absorbed.edited} newer "
                f"states, {absorbed.skipped} skips",
                highlight=False,
            )
        written = [key for key in log.projects() if key.partition("@")[0] in map(str, numbers)]
        if len(written) == 1:
            pushed = list(log.deliveries(written[0]))
            annotations, verdicts = log.annotations(written[0]), log.verdicts(written[0])
            if any(pair_id in log.pairs() for pair_id in pushed):
                jsonl.write(settings.output, export(log.pairs(), pushed, annotations, log.gold(), verdicts).preferences)
                console.print(settings.output, soft_wrap=True, highlight=False)
    jsonl.write(settings.rejected, removals)
    if removals:
        console.print(f"{len(removals)} files are no annotation (see {settings.rejected})")


def read_copies(folder: Path) -> Iterator[Copy | Removal]:
    """Yield the annotation of each file, or what is wrong with it: one that was cut off while it was written, say."""
    for path in sorted(folder.iterdir()):
        try:
            told = json.loads(path.read_bytes())
            missing = [name for name in NEEDED if name not in told]
            if missing:
                yield Removal(record_id=path.name, rule="no-annotation", reason=f"it has no {', '.join(missing)}")
                continue
            task = told["task"]
            pair_id, updated_at = str(task["data"].get("pair_id", "")), str(task["updated_at"])
            yield Copy(task_id=int(task["id"]), pair_id=pair_id, task_updated_at=updated_at, annotation=told)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            yield Removal(record_id=path.name, rule="unreadable", reason=f"{type(error).__name__}: {error}")


def tasks_of(copies: list[Copy]) -> list[Task]:
    """Return the tasks of the copies with their annotations, in order of id."""
    tasks: dict[int, list[Copy]] = {}
    for one in copies:
        tasks.setdefault(one.task_id, []).append(one)
    return [
        Task(
            id=number,
            updated_at=max(one.task_updated_at for one in its),
            data={"pair_id": its[0].pair_id},
            annotations=tuple(one.annotation for one in its),
        )
        for number, its in sorted(tasks.items())
    ]


if __name__ == "__main__":
    run(main, RecoverSettings, "Reads Label Studio's own copies of annotations into the log.")
