"""Prompts for PPO: those of the preferences and as many new ones, without duplicates or held-out companies.

finlm prompts                     reads runs/preferences.jsonl and runs/selfqa, writes runs/prompts.jsonl
"""

import os
import sys

if not __package__:  # run as a file: import from this checkout, not from this folder or from an older install
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from finlm import config, data, jsonl, runs
from finlm.errors import UserError
from finlm.records import PreferencePair, Prompt


@dataclass(frozen=True, kw_only=True)
class PromptSettings:
    """Settings of the prompt collection."""

    runs: str = field(default_factory=config.default_runs)
    """Run root: the folder that all stages write below."""
    output: str = "{runs}/prompts.jsonl"
    """File of Prompt records; its summary and rejected.jsonl lie in the folder of the same name."""
    preferences: str = "{runs}/preferences.jsonl"
    """File of PreferencePair records whose prompts are taken."""
    instructions: list[str] = field(default_factory=lambda: ["{runs}/selfqa/instructions.jsonl"])
    """Files of Conversation records whose questions are new prompts."""
    new: list[str] = field(default_factory=list)
    """Files of Prompt records that are new prompts as well."""
    forms: list[str] = field(default_factory=lambda: ["open-book"])
    """Forms of instructions to take: open-book, closed-book, or empty for those without a form."""
    languages: list[str] = field(default_factory=lambda: ["en", "zh"])
    """Languages of instructions to take."""
    kinds: list[str] = field(default_factory=list)
    """Kinds of instructions to take (figure, fact, change, comparison, list, ...); empty takes all."""
    new_per_preference: float = 1.0
    """New prompts per prompt of the preferences, at most."""
    test_share: float = 0.2
    """Share of groups (companies) held out, as in the other stages."""
    seed: int = 0
    """Seed of everything random."""
    overwrite: bool = False
    """Collect afresh."""


def main(settings: PromptSettings) -> None:
    """Take the preferences' prompts, draw new ones, write."""
    out = Path(settings.output)
    runs.require(
        settings.preferences,
        what="Preferences",
        made_by="finlm annotate push, then finlm annotate pull (or, without people: finlm annotate by-figures)",
    )
    for path in settings.instructions:
        runs.require(path, what="Instructions", made_by="python selfqa/generate.py --corpus filings/")
    run = runs.Run.open(
        out.with_suffix(""),
        "prompts",
        settings,
        inputs={path: path for path in [settings.preferences, *settings.instructions, *settings.new]},
        overwrite=settings.overwrite,
    )
    if run.is_finished and out.is_file():
        print(f"{out} is finished; --overwrite true collects afresh, --output names another file.")
        return

    preferred = {pair.prompt.id: pair.prompt for pair in jsonl.read(settings.preferences, PreferencePair)}
    fresh = {prompt.id: prompt for prompt in new_prompts(settings) if prompt.id not in preferred}
    known, untried = trainable(preferred.values(), settings), trainable(fresh.values(), settings)
    limit = round(len(known) * settings.new_per_preference)
    added = data.spread(untried, limit, seed=settings.seed) if limit else []
    if not known and not added:
        raise UserError(f"{settings.preferences} gives no prompt outside the held-out groups; lower test_share.")
    held_out = data.beyond(
        [*preferred.values(), *fresh.values()], known + untried, rule="held-out", reason="its group is for testing"
    )
    too_many = data.beyond(untried, added, rule="over-limit", reason=f"{limit} new prompts are wanted")
    jsonl.write(run.folder / "rejected.jsonl", held_out + too_many)
    jsonl.write(out, known + added)
    categories = dict(Counter(prompt.category for prompt in known + added))
    run.finish(
        from_preferences=len(known),
        new=len(added),
        held_out=len(held_out),
        over_limit=len(too_many),
        categories=categories,
    )
    print(f"{len(known)} prompts of the preferences and {len(added)} new ones ({len(held_out)} held out): {out}")


def new_prompts(settings: PromptSettings) -> list[Prompt]:
    """Return the prompts that the preferences do not have yet."""
    asked = data.questions(
        settings.instructions, forms=settings.forms, languages=settings.languages, kinds=settings.kinds
    )
    return asked + [prompt for path in settings.new for prompt in jsonl.read(path, Prompt)]


def trainable(prompts: Iterable[Prompt], settings: PromptSettings) -> list[Prompt]:
    """Return the prompts whose group is not held out."""
    return [p for p in prompts if not data.is_held_out(p, test_share=settings.test_share)]


if __name__ == "__main__":
    config.run(main, PromptSettings, __doc__ or "")
