"""What fine-tuning costs in plain text: held-out loss before and after, and how one run's rise compares with another's.

A rise is the last evaluation's loss less the first one's, which came before any step: nats per learned token.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from finlm.sft_records import STREAMS, CategoryLoss, HeldOutLoss

SAME_LOSS = 1e-3
"""Nats by which losses of one model on the same rows differ at most: kernels add in different orders."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Held-out loss of a stream, in one language or all, before and after.

    Example:
        Change(stream="text-general", language="zh", before=2.91, after=2.97, lowest=2.90, lowest_step=200,
               tokens=48211)
    """

    stream: str
    language: str | None
    """None stands for all languages."""
    before: float
    after: float | None
    """At the last evaluation; None while there is only the first."""
    lowest: float
    lowest_step: int
    """Steps taken when the loss was lowest; the first of them if it was so more than once."""
    tokens: int
    """Learned tokens of an evaluation."""

    @property
    def rise(self) -> float | None:
        """After less before."""
        return None if self.after is None else self.after - self.before


def changes(evaluations: Sequence[HeldOutLoss]) -> list[Change]:
    """Return how each stream's held-out loss changed: all languages, then each where there are several.

    Args:
        evaluations: By step, the first before any training.
    """
    found = []
    for stream in STREAMS:
        spoken = languages(evaluations, stream)
        for language in (None, *(spoken if len(spoken) > 1 else ())):
            losses = [(one.step, loss) for one in evaluations if (loss := one.of(stream, language)) is not None]
            if not losses:
                continue
            lowest_step, lowest = min(losses, key=lambda pair: pair[1])
            found.append(
                Change(
                    stream=stream,
                    language=language,
                    before=losses[0][1],
                    after=losses[-1][1] if len(losses) > 1 else None,
                    lowest=lowest,
                    lowest_step=lowest_step,
                    tokens=sum(one.tokens for one in _of(evaluations[-1], stream, language)),
                )
            )
    return found


def languages(evaluations: Sequence[HeldOutLoss], stream: str) -> list[str]:
    """Return the languages that a stream was tested in, by name."""
    return sorted({one.language for evaluation in evaluations for one in _of(evaluation, stream, None)})


def _of(evaluation: HeldOutLoss, stream: str, language: str | None) -> list[CategoryLoss]:
    return [one for one in evaluation.categories if one.stream == stream and language in (None, one.language)]


def compares(own: Change, other: Change) -> bool:
    """True if two runs began at the same loss on as many tokens: the same base, tested on the same rows."""
    return own.tokens == other.tokens and abs(own.before - other.before) <= SAME_LOSS


def ratio(own: Change, other: Change) -> float | None:
    """Return one run's rise as a share of another's; None where they do not compare or the other's loss did not rise.

    Below 1 the first run forgets less, at 0 or below it forgets nothing.
    """
    if own.rise is None or other.rise is None or other.rise <= 0 or not compares(own, other):
        return None
    return own.rise / other.rise
