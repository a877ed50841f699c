"""Puts what people disagree on before one more judge, in a project of its own; the verdicts win.

finlm annotate adjudicate                  after a pull; run it as often as you like, a pair is asked once
finlm annotate pull                        fetches the verdicts with the rest

The judge sees pair or set as the annotators did, without their votes. In the preferences the verdict decides side and
strength, and stands among the votes, marked; of rankings it is the first of its set, marked.
"""

import os
import sys

if not __package__:  # run as a file: import from this checkout, not from this folder or from an older install
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from annotation.api import LabelStudio, Project
from annotation.connection import connect, labelling_link, require_project, verdicts_title
from annotation.delivery import deliver
from annotation.eventlog import EventLog
from annotation.judged import Work, from_log
from annotation.ranked import RankWork, disputed, rankings_from_log
from annotation.ratings import Rating, by_pair
from annotation.vocabulary import kind_of
from finlm.config import default_runs, run
from finlm.errors import MissingInput, UserError


@dataclass(frozen=True, kw_only=True)
class AdjudicateSettings:
    """Settings of `finlm annotate adjudicate`."""

    runs: str = field(default_factory=default_runs)
    """The run root."""
    server: str = "{runs}/annotation/server"
    """Folder of the server that `finlm annotate serve` started."""
    url: str = ""
    """A Label Studio elsewhere; its token is read from LABEL_STUDIO_API_KEY."""
    project: str = "Preferences"
    """Title of the project whose disagreements are settled."""
    log: str = "{runs}/annotation/log.sqlite"
    """The local log."""
    apart: int = 1
    """Votes for both answers must have this strength at least, 0 to 3; 0 takes "nearly the same" too."""
    ranks_apart: int = 2
    """Where people rank four answers: two of them must stand this many ranks apart one way and the other, 1 to 3."""

    def __post_init__(self) -> None:
        if not 0 <= self.apart <= 3:
            raise UserError(f"--apart {self.apart} must be 0 to 3.")
        if not 1 <= self.ranks_apart <= 3:
            raise UserError(f"--ranks_apart {self.ranks_apart} must be 1 to 3.")


def main(settings: AdjudicateSettings) -> None:
    """Read the log, choose, make the project, send."""
    console = Console()
    if not Path(settings.log).is_file():
        raise MissingInput(f"No annotation log at {settings.log}; pull first: finlm annotate pull")
    with connect(settings.url, settings.server) as client, EventLog(settings.log) as log, log.only_one():
        project = require_project(client, settings.project)
        work, chosen = disagreements(log, project, settings)
        there = log.verdict_projects(project.key)
        if not chosen and not there:
            console.print(
                f"Nobody disagrees on any of the {work.judged} judged {work.asked}; there is nothing to settle."
            )
            return
        verdicts = verdicts_project(client, project)
        log.note_verdicts(verdicts.key, project.key)
        sent, before = deliver(client, verdicts, log, chosen, console)
        console.print(f"{len(chosen)} of {work.judged} judged {work.asked}: {sent} pushed, {before} there already")
        console.print(f"Judging: {labelling_link(client, verdicts)}", soft_wrap=True, highlight=False)


def disagreements(log: EventLog, project: Project, settings: AdjudicateSettings) -> tuple[Work | RankWork, list[str]]:
    """Return a project's work and the pairs or sets of it that people disagree on, the furthest apart first."""
    pushed, annotations = list(log.deliveries(project.key)), log.annotations(project.key)
    if kind_of(project.label_config) == "ranks":
        ranks = rankings_from_log(log.sets(), pushed, annotations)
        return ranks, [name for _, name in disputed(ranks, settings.ranks_apart)]
    pairs = from_log(log.pairs(), pushed, annotations, log.gold())
    return pairs, opposed([one for one in pairs.ratings if one.gold is None], settings.apart)


def opposed(ratings: Sequence[Rating], apart: int) -> list[str]:
    """Return the pairs with votes of a strength of `apart` or more for both answers, the strongest opposition first."""
    found = []
    for pair_id, its in by_pair(ratings).items():
        strongest = [max((one.strength for one in its if one.side == side), default=-1) for side in (0, 1)]
        if min(strongest) >= apart:
            found.append((-min(strongest), pair_id))
    return [pair_id for _, pair_id in sorted(found)]


def verdicts_project(client: LabelStudio, project: Project) -> Project:
    """Find or make the project of the verdicts: the same page, one judge a pair."""
    title = verdicts_title(project.title)
    found = client.find_project(title)
    return found if found is not None else client.create_project(title, project.label_config, annotators=1)


if __name__ == "__main__":
    run(main, AdjudicateSettings, "Puts what people disagree on before one more judge.")
