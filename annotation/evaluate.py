"""Which of two models people prefer, blind: their verdicts on pairs of answers, good / same / bad, by category.

    finlm respond --model runs/ppo --also '[{"model": "runs/sft"}]' --responses 2 --output runs/blind/candidates.jsonl
    finlm annotate push --candidates runs/blind/candidates.jsonl --strategy between --annotators 3 --project Blind
    finlm annotate pull --project Blind
    finlm annotate evaluate --project 1@http://127.0.0.1:8080 --first runs/ppo

The judges see two answers on a page like any other: which model wrote which, and which stands where, the local log
alone knows. "Nearly the same" counts as same, whichever side it leans to. It asks no server.
"""

import os
import sys

if not __package__:  # run as a file: import from this checkout, not from this folder or from an older install
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from annotation import reliability
from annotation.evaluation_page import ALL, HEAD, page_of, rows_of
from annotation.judged import Work
from annotation.log_reading import read_log
from annotation.logged import Pair
from annotation.ratings import Rating, by_pair
from finlm import report, runs
from finlm.config import default_runs, run
from finlm.errors import UserError
from finlm.verdicts import Tally, Verdict, tally


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """Settings of `finlm annotate evaluate`."""

    runs: str = field(default_factory=default_runs)
    """The run root."""
    log: str = "{runs}/annotation/log.sqlite"
    """The local log of `finlm annotate pull`."""
    project: str = ""
    """Which project of the log, as its key says; not needed where there is one."""
    first: str = ""
    """The model that verdicts are told of, as its answers name it; by default the first by name."""
    judges: int = 3
    """Verdicts that a prompt should have; those with fewer are counted and told."""
    output: str = "{runs}/annotation/evaluation.json"
    """Where the figures go; the page goes beside them."""
    seed: int = 0
    """Of the intervals' draws."""

    def __post_init__(self) -> None:
        if self.judges < 1:
            raise UserError(f"--judges {self.judges} must be 1 or more.")


def main(settings: EvaluateSettings) -> None:
    """Read, reckon, tell, write."""
    title, work, pairs = read_log(settings.log, settings.project)
    first, second = models_of([pairs[name] for name in work.pairs], settings.first)
    ratings = {name: its for name, its in by_pair(work.ratings).items() if is_between(pairs[name], first, second)}
    if not ratings:
        raise UserError(f"{title} has no verdict yet; pull first: finlm annotate pull.")
    verdicts = {name: [verdict_of(one, pairs[name], first) for one in its] for name, its in ratings.items()}
    tallies = by_category(verdicts, work, settings.seed)
    alpha = reliability.alpha([[one + 1 for one in its] for its in verdicts.values()], 3, "ordinal")
    fewer = sum(len(its) < settings.judges for its in verdicts.values())
    figures = {
        "first": first,
        "second": second,
        "verdicts": sum(map(len, verdicts.values())),
        "judges": len({one.annotator for its in ratings.values() for one in its}),
        "waiting": work.waiting,
        "fewer_judges": fewer,
        "alpha": asdict(alpha),
        "by_category": {name: asdict(one) for name, one in tallies.items()},
    }
    runs.write_json(Path(settings.output), figures)
    page = Path(settings.output).with_suffix(".html")
    report.write(page_of(title, (first, second), tallies, verdicts, pairs), page)
    Console().print(table_of(first, second, tallies))
    print(
        f"{figures['verdicts']:,} verdicts of {figures['judges']} judges on {len(verdicts):,} prompts, "
        f"{work.waiting:,} not judged, {fewer:,} by fewer than {settings.judges}: {settings.output}, {page}"
    )


def models_of(pairs: Sequence[Pair], first: str) -> tuple[str, str]:
    """Return the two models whose answers were compared, that one first that is asked for.

    Raises:
        UserError: There are not two of them, or the one asked for is neither.
    """
    models = sorted({response.model for pair in pairs for response in pair.comparison.shown})
    if first and first not in models:
        raise UserError(f"--first {first!r} wrote no answer that was judged; these did: {', '.join(models) or 'none'}.")
    if len(models) != 2:
        raise UserError(
            f"answers of {len(models)} models were judged ({', '.join(models) or 'none'}), a comparison is of two; "
            "push candidates of two models with --strategy between."
        )
    return (models[0], models[1]) if first in ("", models[0]) else (models[1], models[0])


def is_between(pair: Pair, first: str, second: str) -> bool:
    """Whether a pair's answers are of both models."""
    return {response.model for response in pair.comparison.shown} == {first, second}


def verdict_of(rating: Rating, pair: Pair, first: str) -> Verdict:
    """Return a judge's verdict on the first model's answer."""
    if not rating.strength:
        return 0
    return 1 if pair.comparison.shown[rating.side].model == first else -1


def by_category(verdicts: Mapping[str, Sequence[Verdict]], work: Work, seed: int) -> dict[str, Tally]:
    """Return what verdicts come to over all prompts and in each category."""
    parts: dict[str, dict[str, Sequence[Verdict]]] = defaultdict(dict)
    for name, its in verdicts.items():
        parts[work.pairs[name].category or "no category"][name] = its
    found = {ALL: tally(verdicts, seed=seed)}
    return found | ({name: tally(its, seed=seed) for name, its in sorted(parts.items())} if len(parts) > 1 else {})


def table_of(first: str, second: str, tallies: Mapping[str, Tally]) -> Table:
    """Return the verdicts as the console shows them."""
    table = Table(title=f"{first} against {second}")
    for column in HEAD:
        table.add_column(column, justify="left" if column == HEAD[0] else "right")
    for row in rows_of(tallies):
        table.add_row(*row)
    return table


if __name__ == "__main__":
    run(main, EvaluateSettings, "Tells which of two models people prefer, blind.")
