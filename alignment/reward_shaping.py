"""From the reward model's score to what an answer is paid: scale, clip, penalties. Axis: B answers."""

from dataclasses import dataclass

import torch
from torch import Tensor

from alignment.objective import Moments

NORMALISATIONS = ("none", "std", "mean_std")
"""Nothing; division by the running standard deviation; the running mean taken off before."""


@dataclass(frozen=True, slots=True)
class RunningMoments:
    """Mean and spread of all scores so far, over all rollouts and processes; valid under addition of further batches.

    Example:
        RunningMoments(count=128.0, mean=0.31, m2=97.5)
    """

    count: float = 0.0
    mean: float = 0.0
    m2: float = 0.0
    """Sum of squared distances from the mean."""

    def with_batch(self, batch: Moments) -> "RunningMoments":
        """Return the moments after another batch.

            d = mean_b - mean      mean' = mean + d n_b / (n + n_b)      M2' = M2 + M2_b + d^2 n n_b / (n + n_b)

        Welford's recurrence for batches: Chan, Golub and LeVeque 1979, equations 2.1.
        """
        number, total, squares = (float(part) for part in batch)
        if not number:
            return self
        mean = total / number
        together, difference = self.count + number, mean - self.mean
        return RunningMoments(
            together,
            self.mean + difference * number / together,
            self.m2 + max(0.0, squares - number * mean**2) + difference**2 * self.count * number / together,
        )

    @property
    def std(self) -> float:
        """Standard deviation; 1 until two different scores were seen."""
        return (self.m2 / self.count) ** 0.5 if self.m2 > 0 else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Shaping:
    """What is done to a score, in this order.

    Example:
        Shaping(normalisation="std", clip=5.0, length_penalty=0.01, length_penalty_from=256, missing_eos_penalty=1.0)
    """

    normalisation: str = "none"
    clip: float = 0.0
    length_penalty: float = 0.0
    length_penalty_from: int = 0
    short_penalty: float = 0.0
    short_penalty_below: int = 0
    missing_eos_penalty: float = 0.0


def shaped(raw_B: Tensor, tokens_B: Tensor, was_cut_B: Tensor, running: RunningMoments, how: Shaping) -> Tensor:
    """Return the scores that answers are paid.

        score = clip((raw - mean) / std, -c, c)
                - p_length max(0, tokens - free) - p_short max(0, wanted - tokens) - p_cut [was cut off]

    Args:
        raw_B: The reward model's scores.
        tokens_B: Lengths of the answers, end token included.
        was_cut_B: True where the answer reached the limit without an end token.
        running: Moments for the normalisation, this rollout's scores included.
        how: Which of the parts are on.
    """
    score_B = raw_B
    if how.normalisation == "mean_std":
        score_B = score_B - running.mean
    if how.normalisation != "none":
        score_B = score_B / running.std
    if how.clip:
        score_B = score_B.clamp(-how.clip, how.clip)
    return score_B - penalties(tokens_B, was_cut_B, how)


def penalties(tokens_B: Tensor, was_cut_B: Tensor, how: Shaping) -> Tensor:
    """Return what is taken off each score for its answer's length and for a missing end, score units."""
    beyond_B = (tokens_B - how.length_penalty_from).clamp(min=0)
    short_B = (how.short_penalty_below - tokens_B).clamp(min=0)
    return how.length_penalty * beyond_B + how.short_penalty * short_B + how.missing_eos_penalty * was_cut_B


def unfinished(score_B: Tensor, tokens_B: Tensor, was_cut_B: Tensor, how: Shaping) -> Tensor:
    """Return the scores with those of cut-off answers replaced by their penalties alone.

    Where a cut-off answer counts as unfinished, the critic's value after its last token stands for the score that it
    would have come to; the score of the torso would count it twice.
    """
    return torch.where(was_cut_B, -penalties(tokens_B, was_cut_B, how).to(score_B.dtype), score_B)
