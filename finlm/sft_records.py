"""What mixed fine-tuning writes of itself: held-out losses by category, and the mixture round by round.

<run>/held_out.jsonl    one HeldOutLoss an evaluation, the first before any step
<run>/mixture.json      one Mixed: every round's shares, why they moved, and what was drawn
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from finlm import jsonl

StreamName = Literal["text-general", "text-finance", "instructions-general", "instructions-finance"]
STREAMS: tuple[StreamName, ...] = ("text-general", "text-finance", "instructions-general", "instructions-finance")
HELD_OUT = "held_out.jsonl"
MIXTURE = "mixture.json"


def is_text(stream: str) -> bool:
    """True if every token of the stream is learned; else the answers alone are."""
    return stream.startswith("text-")


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryLoss:
    """Held-out loss of one stream in one language.

    Example:
        CategoryLoss(stream="text-general", language="zh", loss=2.91, tokens=48211, samples=64)
    """

    stream: StreamName
    language: str
    """`en`, `zh`, or empty."""
    loss: float
    """Mean negative log-likelihood of a learned token, nats."""
    tokens: int
    """Learned tokens that the mean is over."""
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOutLoss:
    """One evaluation.

    Example:
        HeldOutLoss(step=200, categories=(CategoryLoss(…), …))
    """

    step: int
    """Optimizer steps taken; 0 is before any."""
    categories: tuple[CategoryLoss, ...]

    def of(self, stream: str, language: str | None = None) -> float | None:
        """Return the mean loss of a stream's learned tokens, in one language or all; None where there are none."""
        chosen = [c for c in self.categories if c.stream == stream and language in (None, c.language)]
        tokens = sum(c.tokens for c in chosen)
        return sum(c.loss * c.tokens for c in chosen) / tokens if tokens else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """What a round drew of one stream.

    Example:
        Drawn(samples=412, tokens=188211, learned=61200, passes=0.8)
    """

    samples: int
    tokens: int
    """All tokens, prompts included: what shares are counted in."""
    learned: int
    """Tokens with a loss."""
    passes: float
    """How often the stream had been gone through when the round ended, over the whole run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MixtureRound:
    """One round of the mixture.

    Example:
        MixtureRound(number=1, first_step=200, shares={"text-general": 0.1, …}, reasons={"text-general": "kept"},
                     drawn={"text-general": Drawn(…), …})
    """

    number: int
    """From 0, whose shares are the settings'."""
    first_step: int
    """Steps taken before it."""
    shares: dict[str, float]
    """Of all tokens, by stream; they sum to 1."""
    reasons: dict[str, str]
    """Why each share is what it is, in words."""
    drawn: dict[str, Drawn]
    """By stream; empty for a round that was begun and not ended."""

    def __post_init__(self) -> None:
        if abs(sum(self.shares.values()) - 1) > 1e-6:
            raise ValueError(f"the shares of round {self.number} sum to {sum(self.shares.values()):.6f}, not 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixed:
    """The whole of `mixture.json`.

    Example:
        Mixed(rounds=(MixtureRound(…),), row_tokens=2048, rows=6400, filled=0.993)
    """

    rounds: tuple[MixtureRound, ...]
    row_tokens: int
    """Room of a packed row, tokens."""
    rows: int
    """Rows packed so far."""
    filled: float
    """Share of their room that tokens fill."""


def read_held_out(folder: Path) -> list[HeldOutLoss]:
    """Return a run's evaluations by step, none where it has none; where a resumed run repeats one, its last counts.

    Raises:
        UserError: The file is damaged.
    """
    path = folder / HELD_OUT
    by_step = {one.step: one for one in jsonl.read(path, HeldOutLoss)} if path.is_file() else {}
    return [by_step[step] for step in sorted(by_step)]


def read_mixture(folder: Path) -> Mixed | None:
    """Return a run's mixture; None where it has none.

    Raises:
        UserError: The file is damaged.
    """
    return jsonl.read_whole(folder / MIXTURE, Mixed)
