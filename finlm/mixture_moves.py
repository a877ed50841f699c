"""How the shares of a mixture move between rounds, from held-out losses alone.

3-70B's report: the loss is watched by category, and each round's mixture shrinks what has converged or overfits and
grows what still has high loss. Thresholds and steps are not published; these are ours.

By default shares move among texts and among instructions, and how much text there is beside instructions stays as set:
the two losses have different floors. Of an answer nearly all can be learned, of plain text little, so that what is left
of its loss always looks high, and text would take the place of the instructions that a run is made for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from finlm.bounded import scaled_to_one
from finlm.sft_records import HeldOutLoss, is_text


@dataclass(frozen=True, kw_only=True)
class MixtureMoves:
    """How shares move; `every` 0 leaves them as they are."""

    every: int = 0
    """Steps of a round: after each, held-out loss is measured and the shares move. 0: the shares are fixed."""
    step: float = 1.25
    """A raised share is multiplied by this, a lowered one divided; then all are scaled to sum to 1."""
    tolerance: float = 0.005
    """Changes of a loss within this share of it are none: such a stream has converged."""
    least: float = 0.5
    """No share falls below this multiple of the one it began with."""
    most: float = 2.0
    """No share rises above this multiple of the one it began with."""
    among: Literal["kind", "all"] = "kind"
    """`kind`: the shares of texts move among themselves, and those of instructions. `all`: among all streams."""

    def __post_init__(self) -> None:
        if self.every < 0:
            raise ValueError(f"mixture.every is {self.every}; it must be 0 or more steps.")
        if self.step <= 1:
            raise ValueError(f"mixture.step is {self.step}; it must be above 1.")
        if not 0 <= self.tolerance < 1:
            raise ValueError(f"mixture.tolerance is {self.tolerance}; it must be at least 0 and below 1.")
        if not 0 < self.least <= 1 <= self.most:
            raise ValueError(f"mixture.least {self.least} and mixture.most {self.most} must be around 1.")


def decide(
    stream: str, losses: Sequence[float], passes: float, others_left: float, tolerance: float
) -> tuple[int, str]:
    """Return +1 (raise), 0 or -1 (lower) for one stream, and why.

    Args:
        stream: Its name.
        losses: Its held-out loss at every evaluation, the first before training, nats per token.
        passes: How often it was gone through.
        others_left: Mean of loss now / loss before training over the streams that it moves among.
        tolerance: Share of a loss that counts as no change.
    """
    start, before, now = losses[0], losses[-2], losses[-1]
    best = min(losses[:-1])
    if now > best * (1 + tolerance):
        if is_text(stream) and passes <= 1:
            return 1, f"forgotten: {now:.3f} after {best:.3f}, in its first pass"
        return -1, f"overfits: {now:.3f} after {best:.3f}, pass {passes:.1f}"
    if before - now <= tolerance * before:
        return -1, f"converged: {before:.3f} to {now:.3f}"
    if now / start >= others_left:
        return 1, f"high: {now / start:.0%} of its first loss is left, {others_left:.0%} on average"
    return 0, f"kept: its loss falls, {before:.3f} to {now:.3f}"


def moved(
    shares: Mapping[str, float],
    first: Mapping[str, float],
    history: Sequence[HeldOutLoss],
    passes: Mapping[str, float],
    moves: MixtureMoves,
) -> tuple[dict[str, float], dict[str, str]]:
    """Return the next round's shares and the reason of each.

    Args:
        shares: Of the round that ends.
        first: Of the first round; bounds are multiples of them.
        history: All evaluations at the ends of rounds, the first before training.
        passes: How often each stream was gone through.
        moves: Step, tolerance and bounds.
    """
    found: dict[str, float] = dict.fromkeys(shares, 0.0)
    reasons: dict[str, str] = {}
    for names in _moving_together(shares, moves.among):
        total = sum(first[name] for name in names)
        active = {name: shares[name] for name in names}
        losses = {name: [loss for one in history if (loss := one.of(name)) is not None] for name in names}
        judged = {name: its for name, its in losses.items() if len(its) >= 2}
        left = sum(its[-1] / its[0] for its in judged.values()) / max(len(judged), 1)
        wanted, reasons_of_its = dict(active), dict.fromkeys(active, "no held-out rows: its share is kept")
        for name, its in judged.items():
            direction, reasons_of_its[name] = decide(name, its, passes.get(name, 0.0), left, moves.tolerance)
            wanted[name] = active[name] * moves.step**direction
        lowest = {name: first[name] / total * moves.least for name in names}
        highest = {name: min(1.0, first[name] / total * moves.most) for name in names}
        found |= {name: round(share * total, 12) for name, share in scaled_to_one(wanted, lowest, highest).items()}
        reasons |= reasons_of_its
    return found, reasons


def _moving_together(shares: Mapping[str, float], among: str) -> list[list[str]]:
    """Return the streams that have a share, in the groups within which it moves."""
    drawn = [name for name, share in shares.items() if share > 0]
    kinds = [drawn] if among == "all" else [[name for name in drawn if is_text(name) == kind] for kind in (True, False)]
    return [names for names in kinds if names]
