"""Prompts for PPO: those of the preferences and as many new ones, by shares of category and sub-field.

    finlm prompts                             reads runs/preferences.jsonl and runs/selfqa, writes runs/prompts.jsonl
    finlm prompts --score_with runs/reward    the same without prompts whose answers score alike or extremely

Shares by category and sub-field are set by `shares`, or by an evaluation of the round before (docs/pei.md).

Duplicates, held-out companies, empty and over-long prompts are set aside by rules with names, and the counts add up.
"""

import os
import sys

if not __package__:  # run as a file: import from this checkout, not from this folder or from an older install
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import dataclasses
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import yaml

from finlm import (
    chat_format,
    classifier,
    confidence,
    config,
    data,
    jsonl,
    mixture_rounds,
    model,
    prompt_mixture,
    prompt_pool,
    prompt_tables,
    runs,
    scorer,
)
from finlm.errors import MissingInput, UserError
from finlm.prompt_mixture import Mixture
from finlm.records import PreferencePair, Prompt, Removal
from finlm.tokenizer import load_tokenizer


@dataclass(frozen=True, kw_only=True)
class PromptSettings(confidence.ConfidenceSettings, mixture_rounds.RoundSettings):
    """Settings of the prompt collection."""

    runs: str = field(default_factory=config.default_runs)
    """Run root: the folder that all stages write below."""
    output: str = "{runs}/prompts.jsonl"
    """File of Prompt records; tables, mixture.yaml and rejected.jsonl lie in the folder of the same name."""
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
    total: int = 0
    """Prompts wanted in all, split between preferences and new ones as above; 0 takes all of the preferences."""
    split: Literal["train", "test"] = "train"
    """train leaves the held-out groups out; test takes them alone, for an evaluation."""
    test_share: float = 0.2
    """Share of groups (companies) held out, as in the other stages."""
    held_out: int = 64
    """Prompts of held-out groups, at most, that are written to `held_out.jsonl` in the folder of the same name: PPO
    answers them every few updates. 0 writes none; nor does split test."""
    model: str = "{runs}/sft"
    """Model whose tokenizer counts the tokens of a prompt."""
    max_prompt_length: int = 1536
    """Tokens per prompt at most; longer prompts are set aside and counted. 0 counts none and needs no model."""
    near_duplicate: float = 0.8
    """Least similarity (Jaccard, runs of three words) of near duplicates; 0 looks for exact duplicates only."""
    classifier: str = ""
    """Command that sorts prompts into category and sub-field, JSON lines in and out; empty takes the records' own."""
    classifier_timeout: float = 600.0
    """Seconds to wait for its next answer."""
    sorted_before: list[str] = field(default_factory=list)
    """Files of its earlier answers (sorted.jsonl in a run folder); it is not asked about those prompts again."""
    shares: dict[str, Any] = field(default_factory=dict)
    """Category -> share, or category -> sub-field -> share, 1 together; empty takes prompts as they are."""
    mixture: str = ""
    """YAML file with `shares`, such as the mixture.yaml of an earlier collection; it wins over `shares`."""
    seed: int = 0
    """Seed of everything random."""
    dtype: str = "auto"
    """Weights of `score_with`: auto, bfloat16 or float32."""
    threads: int = 0
    """CPU threads of torch; 0 leaves torch's default."""
    overwrite: bool = False
    """Collect afresh."""

    def __post_init__(self) -> None:
        confidence.ConfidenceSettings.__post_init__(self)
        mixture_rounds.RoundSettings.__post_init__(self)
        Mixture.of(self.shares)
        for name in ("new_per_preference", "total", "max_prompt_length", "held_out"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 0 or more.")
        if not 0 <= self.near_duplicate <= 1:
            raise ValueError(f"near_duplicate is {self.near_duplicate}; it must be 0 to 1.")
        if self.classifier_timeout <= 0:
            raise ValueError(f"classifier_timeout is {self.classifier_timeout}; it must be above 0.")


def main(settings: PromptSettings) -> None:
    """Gather the prompts, set aside what cannot be used, sort, filter, draw by shares, write."""
    if settings.threads:
        torch.set_num_threads(settings.threads)
    out = Path(settings.output)
    require_inputs(settings)
    before = wanted_mixture(settings)
    run = runs.Run.open(
        out.with_suffix(""), "prompts", settings, inputs=inputs_of(settings), overwrite=settings.overwrite
    )
    if run.is_finished and out.is_file():
        print(f"{out} is finished; --overwrite true collects afresh, --output names another file.")
        return
    decisions = next_mixture(settings, before)
    mixture = Mixture(
        {prompt_mixture.Cell(one.category, one.subfield): one.after for one in decisions} or before.shares
    )

    preferred, fresh, removals, repeated = gather(settings)
    read = len(preferred) + len(fresh) + len(removals)
    kept, too_early = usable([*preferred, *fresh], settings)
    tested = for_evaluation([*preferred, *fresh], settings)
    removals += too_early
    from_preferences = {prompt.id for prompt in preferred}
    if not settings.total and not any(prompt.id in from_preferences for prompt in kept):
        groups = "outside the held-out groups" if settings.split == "train" else "of a held-out group"
        raise UserError(
            f"{settings.preferences} gives no prompt {groups} ({told(removals)}), and new ones are counted by those; "
            "change test_share in every stage, or set total."
        )
    if settings.classifier or settings.sorted_before:
        kept = classifier.classify(
            kept,
            settings.classifier,
            kept=run.folder / "sorted.jsonl",
            before=settings.sorted_before,
            timeout_seconds=settings.classifier_timeout,
        )
    filtered = filter_by_confidence(kept, settings, run.folder)
    removals += filtered.removals
    drawn = draw_both(filtered, from_preferences, mixture, settings)
    removals += [removal for one in drawn for removal in one.removals]
    known, added = (one.prompts for one in drawn)
    assert len(known) + len(added) + len(removals) == read, "a prompt was lost"
    if not known and not added:
        raise UserError(f"{settings.output}: no prompt is left ({told(removals)}); loosen these rules.")

    if settings.held_out and settings.split == "train":
        jsonl.write(run.folder / "held_out.jsonl", tested)
    jsonl.write(run.folder / "rejected.jsonl", removals)
    jsonl.write(run.folder / "quotas.jsonl", [quota for one in drawn for quota in one.quotas])
    jsonl.write(run.folder / "decisions.jsonl", decisions)
    shares = (mixture if mixture.shares else prompt_mixture.observed(known + added)).nested()
    runs.write_text(
        run.folder / "mixture.yaml", yaml.safe_dump({"shares": shares}, allow_unicode=True, sort_keys=False)
    )
    jsonl.write(out, known + added)
    rules = Counter(removal.rule for removal in removals)
    run.finish(
        from_preferences=len(known),
        new=len(added),
        held_out=rules["held-out"],
        over_limit=rules["over-limit"] + rules["over-quota"],
        read=read,
        repeated=repeated,
        rules=dict(rules),
        short=sum(quota.short for one in drawn for quota in one.quotas),
        categories=dict(Counter(prompt.category for prompt in known + added)),
        evaluated=len(tested),
    )
    prompt_tables.show(drawn, decisions, filtered, rules, kept=len(known) + len(added), read=read)
    print(f"{len(known)} prompts of the preferences and {len(added)} new ones ({rules['held-out']} held out): {out}")


def require_inputs(settings: PromptSettings) -> None:
    """Say which command makes what is missing, before anything is begun."""
    runs.require(
        settings.preferences,
        what="Preferences",
        made_by="finlm annotate push, then finlm annotate pull (or, without people: finlm annotate by-figures)",
    )
    for path in settings.instructions:
        runs.require(path, what="Instructions", made_by="python selfqa/generate.py --corpus filings/")
    if settings.max_prompt_length:
        runs.require(settings.model, what="The model that counts tokens", made_by="python alignment/sft.py")
    if settings.score_with:
        runs.require(settings.score_with, what="The reward model", made_by="python reward/train.py")
        runs.require(settings.candidates, what="Candidates to score", made_by="python alignment/respond.py")


def inputs_of(settings: PromptSettings) -> dict[str, Any]:
    """Name -> path of everything that is read."""
    paths = [settings.preferences, *settings.instructions, *settings.new]
    inputs: dict[str, Any] = {path: path for path in paths}
    inputs |= {path: path for path in (settings.scores, settings.mixture, *settings.sorted_before) if path}
    if settings.score_with:
        inputs |= {settings.candidates: settings.candidates, "reward_model": scorer.reward_folder(settings.score_with)}
    if settings.mixture_from:
        inputs["evaluation"] = Path(settings.mixture_from) / "categories.jsonl"
    if settings.max_prompt_length:
        inputs["tokenizer"] = model.base_of(settings.model)[0] / "tokenizer.json"
    return inputs


def wanted_mixture(settings: PromptSettings) -> Mixture:
    """Return the mixture that the settings name; empty where they name none.

    Raises:
        UserError: A next mixture is asked for and there is none to begin from.
    """
    mixture = prompt_mixture.read_mixture(settings.mixture) if settings.mixture else Mixture.of(settings.shares)
    if settings.mixture_from:
        mixture_rounds.read_figures(settings.mixture_from, settings.policy)
        if not mixture.shares:
            raise MissingInput(
                f"mixture_from {settings.mixture_from} changes a mixture, and none is given; name that of the round "
                "before with --mixture runs/prompts/mixture.yaml, or set shares."
            )
    return mixture


def next_mixture(settings: PromptSettings, before: Mixture) -> list[mixture_rounds.Decision]:
    """Return what the evaluation decides for every share; nothing where none was asked for."""
    if not settings.mixture_from:
        return []
    figures = mixture_rounds.read_figures(settings.mixture_from, settings.policy)
    return mixture_rounds.decide(before, figures, settings)


def gather(settings: PromptSettings) -> tuple[list[Prompt], list[Prompt], list[Removal], int]:
    """Return prompts of the preferences, new ones, removals for empty rows, and how many rows had a prompt again."""
    preferred = {pair.prompt.id: pair.prompt for pair in jsonl.read(settings.preferences, PreferencePair)}
    asked = data.questions(
        settings.instructions, forms=settings.forms, languages=settings.languages, kinds=settings.kinds
    )
    removals: list[Removal] = []
    for path in settings.new:
        prompts, empty = prompt_pool.read_prompts(path)
        asked += prompts
        removals += empty
    fresh: dict[str, Prompt] = {}
    for prompt in asked:
        if prompt.id not in preferred:
            fresh[prompt.id] = prompt
    return list(preferred.values()), list(fresh.values()), removals, len(asked) - len(fresh)


def usable(prompts: Sequence[Prompt], settings: PromptSettings) -> tuple[list[Prompt], list[Removal]]:
    """Set aside the prompts of the other split, the over-long ones and the duplicates."""
    held_out = [p for p in prompts if data.is_held_out(p, test_share=settings.test_share)]
    trained = others_than(prompts, held_out)
    if settings.split == "train":
        kept, never, removals = (
            trained,
            held_out,
            data.beyond(held_out, [], rule="held-out", reason="its group is for testing"),
        )
    else:
        kept, never, removals = (
            held_out,
            [],
            data.beyond(trained, [], rule="for-training", reason="its group is trained on"),
        )
    if settings.max_prompt_length and kept:
        tokenizer = load_tokenizer(model.base_of(settings.model)[0])
        kept, long = prompt_pool.without_long(
            kept, lambda prompt: len(chat_format.encode(tokenizer, prompt.messages).ids), settings.max_prompt_length
        )
        removals += long
    kept, repeats = prompt_pool.without_duplicates(kept, threshold=settings.near_duplicate, never=never)
    return kept, removals + repeats


def for_evaluation(prompts: Sequence[Prompt], settings: PromptSettings) -> list[Prompt]:
    """Return prompts of held-out groups for PPO to be evaluated on, drawn evenly, in the order that they came in.

    Those with a known right answer come first: what is right, the figure checker knows without a reward model. They
    stay among the removals, since no one trains on them.
    """
    if not settings.held_out or settings.split == "test":
        return []
    found, _ = usable(prompts, dataclasses.replace(settings, split="test"))
    rng = random.Random(settings.seed)
    drawn = sorted(rng.sample(found, len(found)), key=lambda prompt: not prompt.reference)[: settings.held_out]
    chosen = {prompt.id for prompt in drawn}
    return [prompt for prompt in found if prompt.id in chosen]


def others_than(prompts: Iterable[Prompt], others: Iterable[Prompt]) -> list[Prompt]:
    """Return the prompts that are not among the others."""
    ids = {prompt.id for prompt in others}
    return [prompt for prompt in prompts if prompt.id not in ids]


def filter_by_confidence(prompts: Sequence[Prompt], settings: PromptSettings, folder: Path) -> confidence.Filtered:
    """Apply the confidence filter where scores are given or can be made."""
    if settings.score_with:
        # the scorer brings peft, which takes longer to import than a collection without scores takes in all
        from finlm.confidence_scores import score_candidates

        scored = score_candidates(
            list(prompts), settings.candidates, settings.score_with, kept=folder / "scores.jsonl", dtype=settings.dtype
        )
    elif settings.scores:
        scored = confidence.read_scores(settings.scores)
    else:
        return confidence.Filtered(kept=list(prompts), removals=[], weights={}, limits=[], unscored=0)
    if not any(prompt.id in scored for prompt in prompts):
        raise UserError(
            f"{settings.scores or settings.candidates} has scores of none of the {len(prompts)} prompts; score answers "
            "to these prompts (finlm respond --prompts takes files of prompts)."
        )
    return confidence.confident(prompts, scored, settings)


def draw_both(
    filtered: confidence.Filtered, from_preferences: set[str], mixture: Mixture, settings: PromptSettings
) -> tuple[prompt_mixture.Drawn, prompt_mixture.Drawn]:
    """Draw from the prompts of the preferences and from the new ones, in their ratio."""
    known = [prompt for prompt in filtered.kept if prompt.id in from_preferences]
    untried = [prompt for prompt in filtered.kept if prompt.id not in from_preferences]
    ratio = settings.new_per_preference
    first = round(settings.total / (1 + ratio)) if settings.total else len(known)
    second = settings.total - first if settings.total else round(len(known) * ratio)
    how: dict[str, Any] = {"weights": filtered.weights, "seed": settings.seed}
    return (
        prompt_mixture.draw(known, first, mixture, source="preferences", **how),
        prompt_mixture.draw(untried, second, mixture, source="new", **how),
    )


def told(removals: Iterable[Removal]) -> str:
    """Say how many fell to which rule."""
    return ", ".join(f"{rule} {count}" for rule, count in Counter(one.rule for one in removals).most_common())


if __name__ == "__main__":
    config.run(main, PromptSettings, __doc__ or "")
