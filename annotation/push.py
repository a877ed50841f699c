"""Puts pairs of answers, or four answers at a time, before the annotators.

Reads candidates (or pairs that something else judged), makes one pair or one set of four a prompt, as the project's
page asks, draws which answer stands where, and sends what is not on the server yet. Cut off anywhere, the same command
goes on: nothing is sent twice.
"""

import os
import sys

if not __package__:  # run as a file: import from this checkout, not from this folder or from an older install
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from annotation.answer_sets import AnswerSet, set_from_candidates
from annotation.connection import connect, labelling_link, require_project
from annotation.delivery import deliver
from annotation.eventlog import EventLog
from annotation.page import PageKind, kind_of
from annotation.pairing import Comparison, Strategy, from_candidates, from_preference
from finlm import jsonl
from finlm.config import default_runs, run
from finlm.errors import UserError
from finlm.records import Candidates, PreferencePair, Removal
from finlm.runs import require


@dataclass(frozen=True, kw_only=True)
class PushSettings:
    """Settings of `finlm annotate push`."""

    runs: str = field(default_factory=default_runs)
    """The run root."""
    candidates: str = "{runs}/candidates.jsonl"
    """Prompts with several answers each; one pair of each is pushed."""
    pairs: str = ""
    """Instead of candidates: pairs that something else judged (records like preferences.jsonl), for people."""
    strategy: Strategy = "different"
    """Which two candidates: the most `different` ones, or a `random` pair."""
    seed: int = 0
    """Seed of the random choice of pairs. Which answer stands left is drawn elsewhere."""
    limit: int = 0
    """At most this many pairs of the file, 0 for all."""
    server: str = "{runs}/annotation/server"
    """Folder of the server that `finlm annotate serve` started."""
    url: str = ""
    """A Label Studio elsewhere; its token is read from LABEL_STUDIO_API_KEY."""
    project: str = "Preferences"
    """Title of the project."""
    log: str = "{runs}/annotation/log.sqlite"
    """The local log, which alone knows what stood where."""
    rejected: str = "{runs}/annotation/push/rejected.jsonl"
    """What could not be pushed, with the reason."""

    def __post_init__(self) -> None:
        if self.limit < 0:
            raise UserError(f"--limit {self.limit} must be 0 (all) or more.")


def main(settings: PushSettings) -> None:
    """Read, choose, note, send, report."""
    console = Console()
    path = source(settings)
    with connect(settings.url, settings.server) as client, EventLog(settings.log) as log, log.only_one():
        project = require_project(client, settings.project)
        made = read_tasks(settings, path, kind_of(project.label_config))
        log.add_pairs(one for one in made if isinstance(one, Comparison))
        log.add_sets(one for one in made if isinstance(one, AnswerSet))
        removals = [one for one in made if isinstance(one, Removal)]
        ids = [one.id for one in made if not isinstance(one, Removal)]
        sent, there = deliver(client, project, log, ids, console)
        jsonl.write(settings.rejected, removals)
        console.print(f"{len(made)} read: {sent} pushed, {there} there already, {len(removals)} left out", end="")
        console.print(f" (see {settings.rejected})" if removals else "")
        console.print(f"Labelling: {labelling_link(client, project)}", soft_wrap=True, highlight=False)


def source(settings: PushSettings) -> Path:
    """Return the file that is read.

    Raises:
        MissingInput: It is not there.
    """
    if settings.pairs:
        return require(settings.pairs, what="Pairs", made_by="finlm annotate by-figures")
    return require(settings.candidates, what="Candidates", made_by="finlm respond")


def read_tasks(settings: PushSettings, path: Path, kind: PageKind) -> list[Comparison | AnswerSet | Removal]:
    """Make a task of every record, or a removal that says why there is none; repetitions are removals too.

    Raises:
        UserError: The file has no records, or pairs are to be put before people who are asked for ranks.
    """
    made: list[Comparison | AnswerSet | Removal] = []
    if settings.pairs and kind == "ranks":
        raise UserError(f"--pairs {path}: project {settings.project!r} asks for ranks of four; give it --candidates.")
    if settings.pairs:
        made += [from_preference(pair) for pair in jsonl.read(path, PreferencePair)]
    else:
        choose = set_from_candidates if kind == "ranks" else from_candidates
        made += [choose(one, settings.strategy, settings.seed) for one in jsonl.read(path, Candidates)]
    if not made:
        raise UserError(f"{path} has no records; there is nothing to push.")
    known: set[str] = set()
    for position, one in enumerate(made):
        if isinstance(one, Removal):
            continue
        if one.id in known:
            reason = "the same answers to the same prompt stand earlier in the file"
            made[position] = Removal(record_id=one.id, rule="repeated-pair", reason=reason)
        known.add(one.id)
    return made[: settings.limit] if settings.limit else made


if __name__ == "__main__":
    run(main, PushSettings, "Puts pairs of answers before the annotators.")
