"""What a PPO run on human preferences says of itself, prompt by prompt: `benchmarks/human_ppo.py` writes it down.

Scores are the reward models' own: what PPO takes off for a missing end or a short answer is added back, or else both
models would seem to agree on a gain that is only of length. The rise with those costs is given beside them.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from finlm import jsonl
from finlm.evaluation import AnswerRecord
from finlm.intervals import bootstrap
from finlm.ppo_records import HeldOutRecord, read_guards, read_held_out
from finlm.records import Prompt

SAME_LENGTH = 0.25
"""Share of its tokens by which an answer's length may differ to count as the same."""
FEWEST = 20
"""Prompts from which on a part of them gets an interval of its own."""


@dataclass(frozen=True)
class Evaluation:
    """One evaluation's numbers, one a prompt, always in the same order."""

    update: int
    prompts: tuple[str, ...]
    """Ids of the prompts."""
    rewards: tuple[float, ...]
    """Scores by the reward model that PPO follows."""
    independents: tuple[float, ...]
    """Scores by the one that learned from the other half."""
    paid: tuple[float, ...]
    """`rewards` less what missing ends and short answers cost."""
    tokens: tuple[int, ...]
    ended: tuple[bool, ...]
    kl_nats: float
    """Mean over answers."""


def evaluation_of(record: HeldOutRecord, answers: Sequence[AnswerRecord]) -> Evaluation:
    """Join an evaluation's record with its answers."""
    costs = [answer.score - paid for answer, paid in zip(answers, record.rewards, strict=True)]
    return Evaluation(
        update=record.update,
        prompts=tuple(answer.prompt_id for answer in answers),
        rewards=tuple(answer.score for answer in answers),
        independents=tuple(anchor + cost for anchor, cost in zip(record.anchors, costs, strict=True)),
        paid=record.rewards,
        tokens=tuple(answer.tokens for answer in answers),
        ended=tuple(answer.ended for answer in answers),
        kl_nats=record.kl_nats,
    )


def read_evaluations(run: Path) -> list[Evaluation]:
    """Return a PPO run's evaluations by update."""
    return [
        evaluation_of(record, list(jsonl.read(run / f"held_out/update-{record.update:05d}.jsonl", AnswerRecord)))
        for record in read_held_out(run)
    ]


def compare(first: Evaluation, last: Evaluation, sets: Sequence[str]) -> dict[str, Any]:
    """Return what changed from the first to the last evaluation.

    Args:
        first: The policy that PPO began with.
        last: The policy that it ended with.
        sets: Name of each prompt's data set.
    """
    everywhere = range(len(sets))
    kept = [n for n in everywhere if abs(last.tokens[n] - first.tokens[n]) <= SAME_LENGTH * first.tokens[n]]
    by_set: dict[str, list[int]] = defaultdict(list)
    for place, name in enumerate(sets):
        by_set[name].append(place)
    changes = [(last.rewards[n] - first.rewards[n], last.independents[n] - first.independents[n]) for n in everywhere]
    moved = [(one, other) for one, other in changes if one and other]
    return {
        "updates": last.update,
        "held_out_prompts": len(sets),
        **gains(first, last, everywhere),
        "paid_gain": gain(first.paid, last.paid, everywhere),
        "same_length": {"prompts": len(kept)} | (gains(first, last, kept) if len(kept) >= FEWEST else {}),
        "by_set": {
            name: {"prompts": len(places)} | (gains(first, last, places) if len(places) >= FEWEST else {})
            for name, places in sorted(by_set.items())
        },
        "agreement_in_sign": mean((one > 0) == (other > 0) for one, other in moved) if moved else None,
        "kl_nats": last.kl_nats,
        "tokens": [mean(first.tokens), mean(last.tokens)],
        "ended": [mean(first.ended), mean(last.ended)],
    }


def gains(first: Evaluation, last: Evaluation, places: Sequence[int]) -> dict[str, dict[str, float]]:
    """Return the rise by both reward models over the prompts at these places."""
    return {
        "reward_gain": gain(first.rewards, last.rewards, places),
        "independent_gain": gain(first.independents, last.independents, places),
    }


def gain(first: Sequence[float], last: Sequence[float], places: Sequence[int]) -> dict[str, float]:
    """Return the mean over prompts of last minus first, with its 95 % bootstrap interval."""
    return asdict(bootstrap([last[place] - first[place] for place in places], seed=0))


def mean(numbers: Iterable[float]) -> float:
    """Return the mean."""
    listed = list(numbers)
    return sum(listed) / len(listed)


def accuracy(folder: Path) -> dict[str, float]:
    """Return a reward model's accuracy on the held-out pairs, and that of preferring the longer answer."""
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return {name: report[name] for name in ("test_accuracy", "longer_accuracy", "test_pairs")}


def figures_of(root: Path) -> dict[str, Any]:
    """Return what the run below `root` came to, with a curve of its evaluations."""
    evaluations = read_evaluations(root / "ppo")
    # PPO sets prompts aside that are too long for it
    source = {prompt.id: prompt.source for prompt in jsonl.read(root / "held_out.jsonl", Prompt)}
    sets = [source[prompt] for prompt in evaluations[0].prompts]
    return {
        **compare(evaluations[0], evaluations[-1], sets),
        "reward_accuracy": accuracy(root / "reward"),
        "independent_accuracy": accuracy(root / "independent"),
        "guards": [
            f"update {one.update}, {one.guard}, {one.action}: {one.sentence}" for one in read_guards(root / "ppo")
        ],
        "curve": [
            {
                "update": one.update,
                "reward": mean(one.rewards),
                "independent": mean(one.independents),
                "kl_nats": one.kl_nats,
                "tokens": mean(one.tokens),
                "ended": mean(one.ended),
            }
            for one in evaluations
        ],
    }
