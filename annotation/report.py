"""One page for who leads the work: how far it is, how people agree, whose work to look at, which pairs to discuss.

    finlm annotate report                                   the project that was pulled
    finlm annotate report --preferences runs/preferences.jsonl

It reads the local log, or a file of preferences with votes, and asks no server.
"""

import os
import sys

if not __package__:  # run as a file: import from this checkout, not from this folder or from an older install
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from dataclasses import dataclass, field
from pathlib import Path

from annotation.eventlog import EventLog, Pair
from annotation.judged import Work, from_log, from_preferences
from annotation.quality_page import page_of
from finlm import jsonl, report
from finlm.config import default_runs, run
from finlm.errors import MissingInput, UserError
from finlm.records import PreferencePair


@dataclass(frozen=True, kw_only=True)
class ReportSettings:
    """Settings of `finlm annotate report`."""

    runs: str = field(default_factory=default_runs)
    """The run root."""
    log: str = "{runs}/annotation/log.sqlite"
    """The local log of `finlm annotate pull`."""
    project: str = ""
    """Which project of the log, as its key says; not needed where there is one."""
    preferences: str = ""
    """A file of preferences with votes, instead of the log."""
    html: str = "{runs}/annotation/report.html"
    """Where the page goes."""
    least_gold: float = 0.8
    """Share of pairs of known answer that an attentive annotator gets right."""
    false_alarms: float = 0.05
    """Chance that the page names anybody where nobody is to blame."""

    def __post_init__(self) -> None:
        for name in ("least_gold", "false_alarms"):
            if not 0 < getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; it must lie between 0 and 1.")


def main(settings: ReportSettings) -> None:
    """Read, reckon, write the page."""
    title, work = read(settings)
    if not work.ratings:
        raise UserError(f"{title} has no rating yet; pull first: finlm annotate pull.")
    page = page_of(work, title, least_gold=settings.least_gold, false_alarms=settings.false_alarms)
    Path(settings.html).parent.mkdir(parents=True, exist_ok=True)
    report.write(page, settings.html)
    people = len({rating.annotator for rating in work.ratings})
    print(f"{len(work.ratings):,} ratings of {len(work.pairs):,} pairs by {people:,} people: {settings.html}")


def read(settings: ReportSettings) -> tuple[str, Work]:
    """Return the ratings and what they are of.

    Raises:
        MissingInput: There is no log or no such file.
        UserError: The log holds no such project, or several and none was named.
    """
    if settings.preferences:
        return settings.preferences, from_preferences(jsonl.read(settings.preferences, PreferencePair))
    title, work, _ = read_log(settings.log, settings.project)
    return title, work


def read_log(path: str, project: str) -> tuple[str, Work, dict[str, Pair]]:
    """Return what a project of a log is called, its ratings, and the log's pairs with who wrote their answers.

    Args:
        path: The log.
        project: The project's key; empty where the log has one.

    Raises:
        MissingInput: There is no log.
        UserError: The log holds no such project, or several and none was named.
    """
    if not Path(path).is_file():
        raise MissingInput(f"No annotation log at {path}; make it with: finlm annotate pull")
    with EventLog(path) as log:
        known = log.projects()
        chosen = [key for key in known if key == project or not project]
        if len(chosen) != 1:
            there = ", ".join(known) or "none"
            raise UserError(f"--project {project!r}: {path} holds {there}; name one of them.")
        pairs = dict(log.pairs())
        work = from_log(pairs, list(log.deliveries(chosen[0])), log.annotations(chosen[0]), log.gold())
    return f"project {chosen[0]}", work, pairs


if __name__ == "__main__":
    run(main, ReportSettings, "Shows how annotators agree and whose work to look at.")
