"""Means over pairs with intervals that know which pairs hang together.

Pairs of one prompt share its text and often an answer, so a prompt is drawn with all of its pairs or not at all: the
cluster bootstrap (Davison and Hinkley 1997, section 3.8; percentiles as in Efron 1979). It tells too little where
there are few prompts: below FEWEST_PROMPTS no interval is given, and one of few more is too narrow. None is given
either where all numbers are the same: resampling never meets what has not been seen.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum

import numpy as np
import numpy.typing as npt

from finlm.records import content_id

FEWEST_PROMPTS = 5
"""With fewer, resampling mostly draws the same prompts again."""
DRAWS = 2000
"""Resamples; the 95 % limits are then the 51st from each end."""
_AT_ONCE = 2**22
"""Numbers in memory at once."""

Means = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean over pairs, with its 95 % interval.

    Example:
        Estimate(mean=0.64, low=0.61, high=0.67, pairs=1204, prompts=310)
    """

    mean: float
    low: float | None
    """None where resampling cannot tell: too few prompts, or all numbers the same."""
    high: float | None
    pairs: int
    prompts: int

    def is_above(self, value: float) -> bool:
        """True if the whole interval lies above the value."""
        return self.low is not None and self.low > value

    def is_below(self, value: float) -> bool:
        """True if the whole interval lies below the value."""
        return self.high is not None and self.high < value


def by_prompt(numbers: Sequence[float], prompts: Sequence[str], *, seed: int, draws: int = DRAWS) -> Estimate:
    """Return the mean of the numbers with an interval that keeps each prompt's numbers together.

    The order of the numbers changes nothing, and neither does having each of them twice.

    Args:
        numbers: One a pair.
        prompts: The prompt of each.
        seed: Of the resampling.
        draws: Resamples.

    Raises:
        ValueError: There are no numbers.
    """
    clusters = _clusters(numbers, prompts)
    can_tell = len(clusters) >= FEWEST_PROMPTS and min(numbers) < max(numbers)
    means = _resampled(clusters, seed=seed, draws=draws) if can_tell else None
    total = fsum(own for own, _ in clusters)
    return _estimate(total / len(numbers), means, pairs=len(numbers), prompts=len(clusters))


def macro(parts: Mapping[str, tuple[Sequence[float], Sequence[str]]], *, seed: int, draws: int = DRAWS) -> Estimate:
    """Return the mean of the parts' means, each part counting the same; its interval resamples within every part.

    Args:
        parts: Numbers and prompts by name; a part without numbers is left out.
        seed: Of the resampling; each part's also depends on its name, not on the other parts.
        draws: Resamples.

    Raises:
        ValueError: No part has numbers.
    """
    filled = {name: part for name, part in sorted(parts.items()) if len(part[0])}
    if not filled:
        raise ValueError("no numbers to take a mean of")
    clusters = {name: _clusters(*part) for name, part in filled.items()}
    mean = fsum(fsum(own for own, _ in its) / sum(count for _, count in its) for its in clusters.values())
    drawn = None
    if min(map(len, clusters.values())) >= FEWEST_PROMPTS:
        seeds = {name: int(content_id(seed, name), 16) for name in clusters}
        by_part = [_resampled(its, seed=seeds[name], draws=draws) for name, its in clusters.items()]
        drawn = np.mean(by_part, axis=0)
    return _estimate(
        mean / len(filled),
        drawn,
        pairs=sum(len(numbers) for numbers, _ in filled.values()),
        prompts=sum(map(len, clusters.values())),
    )


def _clusters(numbers: Sequence[float], prompts: Sequence[str]) -> list[tuple[float, int]]:
    """Sum and count of each prompt's numbers, in the order of the prompts' names."""
    if not len(numbers):
        raise ValueError("no numbers to take an interval of")
    own: dict[str, list[float]] = defaultdict(list)
    for number, prompt in zip(numbers, prompts, strict=True):
        own[prompt].append(number)
    return [(fsum(own[prompt]), len(own[prompt])) for prompt in sorted(own)]


def _resampled(clusters: Sequence[tuple[float, int]], *, seed: int, draws: int) -> Means:
    """Means of resamples of as many prompts: sum over sum, since prompts have different numbers of pairs."""
    rng = np.random.default_rng(seed)
    sums, counts = (np.array(column, dtype=np.float64) for column in zip(*clusters, strict=True))
    means = []
    at_once = max(1, _AT_ONCE // len(clusters))
    for start in range(0, draws, at_once):
        drawn = rng.integers(len(clusters), size=(min(at_once, draws - start), len(clusters)))
        means.append(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1))
    return np.concatenate(means)


def _estimate(mean: float, means: Means | None, *, pairs: int, prompts: int) -> Estimate:
    low, high = (None, None) if means is None else map(float, np.quantile(means, (0.025, 0.975)))
    return Estimate(mean=mean, low=low, high=high, pairs=pairs, prompts=prompts)
