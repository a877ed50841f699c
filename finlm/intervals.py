"""A mean and how far chance may have moved it."""

import random
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean with its 95 % bootstrap interval.

    Example:
        Interval(mean=0.4, low=0.2, high=0.6)
    """

    mean: float
    low: float
    high: float


def bootstrap(numbers: Sequence[float], *, seed: int, draws: int = 2000) -> Interval:
    """Return the mean with a 95 % percentile bootstrap interval (Efron 1979) over the given numbers.

    Raises:
        ValueError: There are no numbers.
    """
    if not numbers:
        raise ValueError("no numbers to take an interval of")
    rng = random.Random(seed)
    count = len(numbers)
    means = sorted(sum(rng.choices(numbers, k=count)) / count for _ in range(draws))
    low, high = means[round(0.025 * (draws - 1))], means[round(0.975 * (draws - 1))]
    return Interval(mean=sum(numbers) / count, low=low, high=high)
