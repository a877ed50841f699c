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
from annotation.choosing import AnswerKey, ScoredCandidates, Scores, Strategy, score_by, scores_of, worth_of
from annotation.connection import connect, labelling_link, require_project
from annotation.delivery import deliver
from annotation.eventlog import EventLog
from annotation.pairing import Comparison, from_candidates, from_preference
from annotation.selection import select, with_gold
from annotation.vocabulary import PageKind, kind_of
from finlm import jsonl
from finlm.config import default_runs, run
from finlm.errors import UserError
from finlm.prompt_mixture import Mixture, read_mixture
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
    """Which candidates: the most `different` ones, `random` ones, those the reward model is most `uncertain` of, or
    answers of different models (`between`), to compare the models."""
    scores: str = ""
    """For `uncertain`: the candidates as `finlm reward score` scored them, by one reward model or by several."""
    reward: str = ""
    """For `uncertain`, instead of scores: a reward model, or a folder of several."""
    seed: int = 0
    """Seed of `random`, of `between` and of the gold pairs. Which answer stands where is drawn elsewhere."""
    limit: int = 0
    """At most this many of the file, 0 for all; those first that the reward model is most uncertain of."""
    shares: str = ""
    """Shares by category (a YAML file like the mixture.yaml of `finlm prompts`); the limit is split by them."""
    gold: str = ""
    """Pairs of known answer (records like preferences.jsonl) to mix in; the annotators cannot tell them."""
    gold_share: float = 0.05
    """How much of what is pushed are gold pairs."""
    annotators: int = 0
    """How many people are asked about each task of the project from now on; 0 leaves it as it is."""
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
        if self.annotators < 0:
            raise UserError(f"--annotators {self.annotators} must be 1 or more, or 0 to leave it as it is.")
        if not 0 < self.gold_share < 1:
            raise UserError(f"--gold_share {self.gold_share} must lie between 0 and 1.")
        if self.shares and not self.limit:
            raise UserError(f"--shares {self.shares} needs a --limit, which the shares are of.")
        if (self.strategy == "uncertain") != bool(self.scores or self.reward) or (self.scores and self.reward):
            raise UserError("--strategy uncertain needs --scores (a scored file) or --reward (a model), no other does.")
        if self.strategy == "uncertain" and self.pairs:
            raise UserError(f"--pairs {self.pairs} are pairs already; --strategy uncertain chooses among --candidates.")


def main(settings: PushSettings) -> None:
    """Read, choose, note, send, report."""
    console = Console()
    path = source(settings)
    mixture = read_mixture(settings.shares) if settings.shares else Mixture({})
    gold, no_gold = read_gold(settings.gold)
    with connect(settings.url, settings.server) as client, EventLog(settings.log) as log, log.only_one():
        project = require_project(client, settings.project)
        kind = kind_of(project.label_config)
        if gold and kind == "ranks":
            raise UserError(f"--gold {settings.gold}: project {settings.project!r} asks for ranks; gold is for pairs.")
        scores = read_scores(settings, path)
        made = read_tasks(settings, path, kind, scores)
        asked = [one for one in made if not isinstance(one, Removal)]
        worth = {one.id: worth_of(one.prompt, one.shown, scores) for one in asked} if scores else {}
        selection = select(asked, settings.limit, mixture, worth)
        tasks, gold_count = with_gold(selection.tasks, gold, settings.gold_share, settings.seed)
        removals = [one for one in made if isinstance(one, Removal)] + [*selection.removals, *no_gold]
        log.add_pairs(one for one in tasks if isinstance(one, Comparison))
        log.add_sets(one for one in tasks if isinstance(one, AnswerSet))
        log.add_gold([one for one in gold if one.id in {task.id for task in tasks}])
        if settings.annotators:
            client.set_annotators(project.id, settings.annotators)
        sent, there = deliver(client, project, log, [task.id for task in tasks], console)
        jsonl.write(settings.rejected, removals)
        console.print(f"{len(made)} read: {sent} pushed, {there} there already, {len(removals)} left out", end="")
        console.print(f" (see {settings.rejected})" if removals else "")
        if gold:
            console.print(f"{gold_count} of the {len(tasks)} are gold pairs; the log alone knows which.")
        for cell, count in selection.short.items():
            console.print(f"Short of {cell}: {count} missing.")
        console.print(f"Labelling: {labelling_link(client, project)}", soft_wrap=True, highlight=False)


def source(settings: PushSettings) -> Path:
    """Return the file that is read.

    Raises:
        MissingInput: It is not there.
        UserError: It has no records.
    """
    if settings.pairs:
        path = require(settings.pairs, what="Pairs", made_by="finlm annotate by-figures")
    else:
        path = require(settings.candidates, what="Candidates", made_by="finlm respond")
    if not any(True for _ in jsonl.read(path, PreferencePair if settings.pairs else Candidates)):
        raise UserError(f"{path} has no records; there is nothing to push.")
    return path


def read_gold(path: str) -> tuple[list[Comparison], list[Removal]]:
    """Return pairs whose better answer, the first, is known, and those that cannot serve.

    Raises:
        MissingInput: There is no such file.
        UserError: No pair of it can serve.
    """
    found: list[Comparison | Removal] = []
    for pair in jsonl.read(path, PreferencePair) if path else ():
        tied = Removal(record_id=pair.id, rule="gold-is-a-tie", reason="its strength is 0: neither answer is better")
        found.append(from_preference(pair) if pair.strength else tied)
    gold = {one.id: one for one in found if isinstance(one, Comparison)}
    if path and not gold:
        raise UserError(f"--gold {path} has no pair with two answers of which one is better.")
    return list(gold.values()), [one for one in found if isinstance(one, Removal)]


def read_scores(settings: PushSettings, path: Path) -> Scores | None:
    """Return the scores of the candidates; None where the strategy needs none.

    Raises:
        UserError: Some answers were scored by more reward models than others.
    """
    if settings.strategy != "uncertain":
        return None
    found: dict[AnswerKey, tuple[float, ...]]
    if settings.reward:
        found = score_by(settings.reward, list(jsonl.read(path, Candidates)))
    else:
        made_by = f"finlm reward score {path} --out {settings.scores}"
        scored = require(settings.scores, what="Scores", made_by=made_by)
        found = scores_of(jsonl.read(scored, ScoredCandidates))
    counts = {len(scores) for scores in found.values()}
    if len(counts) > 1:
        raise UserError(f"{settings.scores}: answers have {sorted(counts)} scores; all must be by the same models.")
    return found


def read_tasks(
    settings: PushSettings, path: Path, kind: PageKind, scores: Scores | None
) -> list[Comparison | AnswerSet | Removal]:
    """Make a task of every record, or a removal that says why there is none; repetitions are removals too.

    Raises:
        UserError: Pairs are to be put before people who are asked for ranks.
    """
    made: list[Comparison | AnswerSet | Removal] = []
    if settings.pairs and kind == "ranks":
        raise UserError(f"--pairs {path}: project {settings.project!r} asks for ranks of four; give it --candidates.")
    if settings.pairs:
        made += [from_preference(pair) for pair in jsonl.read(path, PreferencePair)]
    else:
        choose = set_from_candidates if kind == "ranks" else from_candidates
        made += [choose(one, settings.strategy, settings.seed, scores) for one in jsonl.read(path, Candidates)]
    known: set[str] = set()
    for position, one in enumerate(made):
        if isinstance(one, Removal):
            continue
        if one.id in known:
            reason = "the same answers to the same prompt stand earlier in the file"
            made[position] = Removal(record_id=one.id, rule="repeated-pair", reason=reason)
        known.add(one.id)
    return made


if __name__ == "__main__":
    run(main, PushSettings, "Puts pairs of answers before the annotators.")
