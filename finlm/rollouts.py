"""Rollouts of a PPO run in the terminal, or as a page to browse.

finlm rollouts                                   the newest update of runs/ppo
finlm rollouts --update 120 --worst 5            the five answers of update 120 with the lowest scores
finlm rollouts --search "net income" --sort kl   answers to prompts (or with answers) that say so
finlm rollouts --html rollouts.html              the run's curves and its rollouts as one self-contained page
"""

import os
import sys

if not __package__:  # run as a file: import from this checkout, not from this folder or from an older install
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from finlm import config
from finlm.records import RolloutRecord
from finlm.rollout_files import parts, read_update, visible

FOLDED = 240
"""Characters of a passage that are shown unless `full` is set."""


@dataclass(frozen=True, kw_only=True)
class RolloutSettings:
    """Settings of the view."""

    runs: str = field(default_factory=config.default_runs)
    """Run root: the folder that all stages write below."""
    run: str = "{runs}/ppo"
    """Folder of the PPO run."""
    update: int = 0
    """Which update to show; 0 shows the newest."""
    search: str = ""
    """Show only answers where this text stands in the prompt or in the answer, in upper or lower case."""
    best: int = 0
    """Show only so many answers with the highest scores."""
    worst: int = 0
    """Show only so many answers with the lowest scores; together with `best`, both."""
    sort: Literal["", "score", "kl", "tokens"] = ""
    """Highest score, KL or number of tokens first; empty leaves the order of the file (with best or worst: score)."""
    limit: int = 20
    """Answers shown at most; 0 shows all."""
    full: bool = False
    """Show the whole passage of a prompt."""
    html: str = ""
    """Write a page with the run's curves and rollouts to this file instead."""

    def __post_init__(self) -> None:
        for name in ("update", "best", "worst", "limit"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 0 or more.")


def main(settings: RolloutSettings) -> None:
    """Choose the answers and show them."""
    if settings.html:
        # the page brings matplotlib, which the terminal can do without
        from finlm.rollout_page import write_rollout_page

        print(f"rollouts: {write_rollout_page(Path(settings.run), Path(settings.html))}")
        return
    update, records = read_update(settings.run, settings.update)
    found = choose(records, settings)
    shown = found[: settings.limit or None]
    console = Console()
    console.print(headline(update, records))
    if not found:
        console.print(f"No answer of update {update} has {settings.search!r} in it or in its prompt.")
        return
    console.print(table(shown, settings))
    if len(shown) < len(found):
        console.print(f"{len(shown)} of {len(found)} answers; --limit 0 shows all.")


def choose(records: Sequence[RolloutRecord], settings: RolloutSettings) -> list[RolloutRecord]:
    """Return the answers to show, in order."""
    wanted = settings.search.casefold()
    found = [one for one in records if wanted in f"{one.prompt}\n{one.response}".casefold()]
    sort = settings.sort
    if settings.best or settings.worst:
        ranked = sorted(found, key=lambda one: -one.score)
        last = max(min(settings.best, len(ranked)), len(ranked) - settings.worst)
        found = ranked[: settings.best] + ranked[last:]
    if sort:
        found.sort(key=lambda one: {"score": one.score, "kl": one.kl_nats, "tokens": one.tokens}[sort], reverse=True)
    return found


def headline(update: int, records: Sequence[RolloutRecord]) -> Text:
    """One line of an update's figures."""
    count = len(records)
    scores = [one.score for one in records]
    figures = (
        f"{count} answer{'s' if count > 1 else ''}",
        f"score {sum(scores) / count:+.2f} ({min(scores):+.2f} to {max(scores):+.2f})",
        f"KL {sum(one.kl_nats for one in records) / count:.2f} nats",
        f"{sum(one.tokens for one in records) / count:.1f} tokens",
        f"{sum(one.ended for one in records)} ended",
    )
    return Text.assemble((f"update {update}", "bold"), "  ", "  ·  ".join(figures))


def table(records: Sequence[RolloutRecord], settings: RolloutSettings) -> Table:
    """Prompt and answer side by side, with the figures before them."""
    made = Table(expand=True, show_lines=True, header_style="dim", border_style="dim")
    made.add_column("figures", no_wrap=True, width=15)
    made.add_column("prompt", ratio=1, overflow="fold")
    made.add_column("answer", ratio=1, overflow="fold")
    for one in records:
        made.add_row(_figures(one), _prompt(one, settings), _marked(_answer(one), settings.search))
    return made


def _figures(one: RolloutRecord) -> Text:
    colour = "green" if one.score > 0 else "red" if one.score < -1 else "yellow"
    text = Text.assemble(("score ", "dim"), (f"{one.score:+9.2f}", f"bold {colour}"))
    text.append("\nKL    ", "dim").append(f"{one.kl_nats:+9.2f}")
    text.append("\ntokens", "dim").append(f"{one.tokens:9d}")
    text.append("\nended" if one.ended else "\ncut off", "dim" if one.ended else "bold yellow")
    return text


def _prompt(one: RolloutRecord, settings: RolloutSettings) -> Text:
    before, question = parts(one.prompt)
    more = len(before) - FOLDED
    if not settings.full and more > FOLDED // 2:
        before = f"{before[:FOLDED]} … ({more:,} more characters: --full true)"
    text = Text(visible(before), "dim")
    if before:
        text.append("\n\n")
    text.append(visible(question), "not dim")
    return _marked(text, settings.search)


def _answer(one: RolloutRecord) -> Text:
    return Text(visible(one.response)) if one.response.strip() else Text("(empty answer)", "dim italic")


def _marked(text: Text, search: str) -> Text:
    if search:
        text.highlight_words([search], "reverse", case_sensitive=False)
    return text


if __name__ == "__main__":
    config.run(main, RolloutSettings, __doc__ or "")
