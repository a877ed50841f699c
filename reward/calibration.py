"""Whether a reward model's leads are as sure as they claim to be.

A lead d of one answer over another claims that it is the better one with probability sigmoid(d) (Bradley and Terry
1952). The records always name the better answer first, so the label of every pair is the same and the average of
1 - sigmoid(d) would be called miscalibration. What can be checked is the answer that the model prefers: its confidence
is sigmoid(|d|), at least a half, and it is right or wrong. That is the usual check (Guo et al. 2017, arXiv 1706.04599)
on every pair turned both ways, (p, right) and (1 - p, wrong), with bins that mirror each other at a half.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reward.intervals import Estimate, by_prompt
from reward.judged import Judged

BINS = 10
_CALIBRATED_DRAWS = 400

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """Pairs of similar confidence.

    Example:
        Bin(lowest=0.62, highest=0.71, confidence=0.665, right=Estimate(…))
    """

    lowest: float
    """Confidence of its least sure pair, 0.5 to 1."""
    highest: float
    confidence: float
    """Mean confidence."""
    right: Estimate
    """Share of its pairs whose preferred answer scores higher; a tie counts half."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Confidence beside correctness.

    Example:
        Calibration(bins=(Bin(…), …), error=0.04, error_if_calibrated=0.02, scale=1.9)
    """

    bins: tuple[Bin, ...]
    error: float
    """Expected calibration error: mean over pairs of |share right - mean confidence| of their bin, 0 to 0.5."""
    error_if_calibrated: float
    """What chance alone makes of it: the mean error of a model that is right exactly as often as it claims, on as many
    pairs with the same confidences."""
    scale: float
    """What scores were multiplied by to be the units in which the model was trained."""


def confidence(lead: float, scale: float = 1.0) -> float:
    """Return the probability that a lead claims for the answer it prefers: sigmoid(scale |d|)."""
    return 1 / (1 + math.exp(-abs(lead) * scale))


def calibration(records: Sequence[Judged], *, seed: int, scale: float = 1.0, bins: int = BINS) -> Calibration:
    """Compare confidence with correctness in bins of equally many pairs; equal confidences share a bin.

    Args:
        records: Decided pairs.
        seed: Of the intervals and of the chance error.
        scale: Scores times this are in the units of the loss. An exported head divides by the standard deviation of
            the fine-tuned model's answers, which `reward.json` has as `std`: that is the scale of exported scores.
        bins: Bins at most.

    Raises:
        ValueError: There are no pairs.
    """
    if not records:
        raise ValueError("no pairs to calibrate on")
    records = sorted(records, key=lambda record: (abs(record.lead), record.pair_id))  # sums to the last bit
    sure = np.array([confidence(record.lead, scale) for record in records])
    hits = np.array([record.hit for record in records])
    place = _bins(sure, bins)
    parts = []
    for number in np.unique(place):
        members = np.flatnonzero(place == number)
        own = sure[members]
        parts.append(
            Bin(
                lowest=float(own.min()),
                highest=float(own.max()),
                confidence=float(own.mean()),
                right=by_prompt(
                    [float(hit) for hit in hits[members]], [records[index].prompt_id for index in members], seed=seed
                ),
            )
        )
    rng = np.random.default_rng(seed)
    chance = [_error(sure, rng.random(len(sure)) < sure, place) for _ in range(_CALIBRATED_DRAWS)]
    return Calibration(
        bins=tuple(parts),
        error=_error(sure, hits, place),
        error_if_calibrated=float(np.mean(chance)),
        scale=scale,
    )


def _bins(sure: Numbers, bins: int) -> npt.NDArray[np.int64]:
    """The bin of each pair, by the middle rank of its confidence."""
    _, which, counts = np.unique(sure, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - counts / 2
    return np.asarray((middle[which] * bins / len(sure)).astype(np.int64))


def _error(sure: Numbers, hits: Numbers | npt.NDArray[np.bool_], place: npt.NDArray[np.int64]) -> float:
    size = int(place.max()) + 1
    gap = np.bincount(place, weights=hits - sure, minlength=size)
    return float(np.abs(gap).sum() / len(sure))
