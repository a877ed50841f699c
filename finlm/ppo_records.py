"""What a PPO run says of itself besides its rollouts: evaluations on held-out prompts, verdicts, the best update.

<run>/held_out.jsonl                      one HeldOutRecord an evaluation
<run>/guards.jsonl                        one GuardVerdict for each time a guard said something new
<run>/policies/update-00020/              the policy's adapter after that update
<run>/best.json                           the BestPolicy among those
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from finlm import jsonl, runs

HELD_OUT = "held_out.jsonl"
GUARDS = "guards.jsonl"
BEST = "best.json"
Action = Literal["ok", "warn", "stop", "roll back"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOutRecord:
    """One evaluation; the tuples have one number a prompt, always in the same order.

    Example:
        HeldOutRecord(update=20, reward=0.4, kl_nats=1.2, tokens=31.0, ended=0.95, anchor=0.3, right=0.5,
                      rewards=(0.1, 0.7), anchors=(0.2, 0.4), rights=(True, False))
    """

    update: int
    """Updates learned before it; 0 is the policy that PPO began with."""
    reward: float
    """Mean score, what a missing end token costs taken off; no clipping and no KL penalty."""
    kl_nats: float
    """log pi(answer) - log ref(answer), mean over answers."""
    tokens: float
    """Mean length of the answers."""
    ended: float
    """Share of answers with an end token."""
    anchor: float | None
    """Mean score by the second reward model, the same cost taken off; None without one."""
    right: float | None
    """Share of right answers among prompts with a reference; None where no prompt has one."""
    rewards: tuple[float, ...]
    anchors: tuple[float, ...] = ()
    rights: tuple[bool, ...] = ()
    """Of prompts with a reference only."""

    def __post_init__(self) -> None:
        if not self.rewards:
            raise ValueError(f"the evaluation at update {self.update} has no answers")


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardVerdict:
    """What one guard says after an update.

    Example:
        GuardVerdict(guard="length", update=31, action="stop", sentence="Answers have 80.1 tokens, …", since=27)
    """

    guard: str
    update: int
    action: Action
    sentence: str
    """The values, the limit and the way out."""
    since: int = 0
    """The update after which the policy was first in trouble; 0 where the guard is content."""
    back_to: int | None = None
    """The update that the run was rolled back to; None where it was not."""
    roll_backs: int = 0
    """How often the run had been rolled back before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BestPolicy:
    """The kept policy that did best on held-out prompts.

    Example:
        BestPolicy(update=40, policy="policies/update-00040", reward=0.6, kl_nats=2.1, tokens=33.0, ended=0.9,
                   anchor=None, right=0.5, reason="the highest held-out reward of 5 kept policies, …")
    """

    update: int
    policy: str
    """Its folder below the run's."""
    reward: float
    kl_nats: float
    tokens: float
    ended: float
    anchor: float | None
    right: float | None
    reason: str
    """Why it is the best, and what was left out of the choice."""


def policy_name(update: int) -> str:
    """The folder of a kept policy, below the run's."""
    return f"policies/update-{update:05d}"


def read_held_out(folder: Path) -> list[HeldOutRecord]:
    """Return a run's evaluations by update; none where it has none."""
    path = folder / HELD_OUT
    return sorted(jsonl.read(path, HeldOutRecord), key=lambda record: record.update) if path.is_file() else []


def read_guards(folder: Path) -> list[GuardVerdict]:
    """Return what a run's guards have said, in that order."""
    path = folder / GUARDS
    return list(jsonl.read(path, GuardVerdict)) if path.is_file() else []


def read_best(folder: Path) -> BestPolicy | None:
    """Return the best of a run's kept policies; None where none was evaluated."""
    path = folder / BEST
    return BestPolicy(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def write_best(folder: Path, best: BestPolicy) -> None:
    """Write `best.json`, whole or not at all."""
    runs.write_json(folder / BEST, asdict(best))
