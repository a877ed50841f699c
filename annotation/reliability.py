"""How far people agree: Krippendorff's alpha, raw agreement on the side, quadratic kappa of two people.

Alpha is 1 where all agree, 0 where they agree as chance would have it (Krippendorff 2011, "Computing Krippendorff's
alpha-reliability", with any number of people and ratings that are missing). On the eight levels its distance is the
ordinal one, so that A3 beside A2 is nearly agreement and A3 beside B3 is none. Intervals resample pairs: what one pair
is like is common to all of its ratings (percentiles, Efron 1979).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Metric = Literal["nominal", "ordinal"]
DRAWS = 1000
FEWEST_PAIRS = 10
"""With fewer pairs no interval is given: resampling would mostly draw the same ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reliability:
    """A coefficient with its 95 % interval.

    Example:
        Reliability(value=0.61, low=0.55, high=0.67, pairs=812, ratings=2440)
    """

    value: float | None
    """None where nothing can be said: no pair with two ratings, or all ratings the same."""
    low: float | None
    high: float | None
    pairs: int
    """Pairs with two ratings or more; of units that belong together, groups with some."""
    ratings: int
    """Of those pairs."""


def coincidences(ratings: Sequence[Sequence[int]], values: int) -> Array:
    """Return how often two ratings of a pair are c and k, by pair (U, V, V).

    Each ordered couple of a pair's m ratings counts 1 / (m - 1), so that a pair counts as often as it was rated.

    Args:
        ratings: Of each of U pairs, values 0 to V - 1; pairs with fewer than two ratings count nothing.
        values: V.
    """
    found = np.zeros((len(ratings), values, values))
    for unit, its in enumerate(ratings):
        if len(its) < 2:
            continue
        count_V = np.bincount(its, minlength=values).astype(np.float64)
        found[unit] = (np.outer(count_V, count_V) - np.diag(count_V)) / (len(its) - 1)
    return found


def distances(count_V: Array, metric: Metric) -> Array:
    """Return the squared distance of two values (V, V); the ordinal one depends on how often each value was given."""
    values = len(count_V)
    if metric == "nominal":
        return np.ones((values, values)) - np.eye(values)
    # the ratings between two values, both ends counted by half
    upto_V = np.cumsum(count_V) - count_V / 2
    return np.asarray((upto_V[:, None] - upto_V[None, :]) ** 2)


def alpha_of(coincidence_VV: Array, metric: Metric) -> float | None:
    """Return Krippendorff's alpha of a coincidence matrix; None where it is not defined.

    alpha = 1 - (n - 1) sum_ck o_ck d_ck / sum_ck n_c n_k d_ck
    """
    count_V = coincidence_VV.sum(axis=1)
    total = float(count_V.sum())
    distance_VV = distances(count_V, metric)
    expected = float((np.outer(count_V, count_V) * distance_VV).sum())
    if total < 2 or expected == 0:
        return None
    return 1 - (total - 1) * float((coincidence_VV * distance_VV).sum()) / expected


def alpha(
    ratings: Sequence[Sequence[int]], values: int, metric: Metric, *, seed: int = 0, draws: int = DRAWS
) -> Reliability:
    """Return Krippendorff's alpha with its interval.

    Args:
        ratings: Of each pair, values 0 to `values` - 1.
        values: How many values there are.
        metric: `ordinal` for the eight levels, `nominal` for sides.
        seed: Of the resampling.
        draws: Resamples.
    """
    return alpha_together([[its] for its in ratings], values, metric, seed=seed, draws=draws)


def alpha_together(
    groups: Sequence[Sequence[Sequence[int]]], values: int, metric: Metric, *, seed: int = 0, draws: int = DRAWS
) -> Reliability:
    """Return Krippendorff's alpha of units some of which belong together, as the four answers of a set do.

    Args:
        groups: Of each group its units, of each unit its ratings, 0 to `values` - 1; intervals draw groups.
        values: How many values there are.
        metric: See `alpha`.
        seed: Of the resampling.
        draws: Resamples.
    """
    rated = _rated(groups)
    per_group = np.array([coincidences(group, values).sum(axis=0) for group in rated])

    def of(weights_G: Array) -> float | None:
        return alpha_of(np.tensordot(weights_G, per_group, axes=1), metric)

    return _with_interval(of, rated, seed=seed, draws=draws)


def agreement(ratings: Sequence[Sequence[int]], *, seed: int = 0, draws: int = DRAWS) -> Reliability:
    """Return the share of couples of ratings of one pair that are the same; every pair counts once."""
    return agreement_together([[its] for its in ratings], seed=seed, draws=draws)


def agreement_together(groups: Sequence[Sequence[Sequence[int]]], *, seed: int = 0, draws: int = DRAWS) -> Reliability:
    """Return the share of couples of ratings of one unit that are the same; every unit counts once.

    Args:
        groups: Of each group its units, of each unit its ratings; intervals draw groups.
        seed: Of the resampling.
        draws: Resamples.
    """
    rated = _rated(groups)
    same_G = np.array([sum(map(_same, group)) for group in rated])
    count_G = np.array([len(group) for group in rated])

    def of(weights_G: Array) -> float | None:
        return float(weights_G @ same_G / (weights_G @ count_G)) if len(rated) else None

    return _with_interval(of, rated, seed=seed, draws=draws)


def _rated(groups: Sequence[Sequence[Sequence[int]]]) -> list[list[Sequence[int]]]:
    """Units with two ratings or more, of the groups that have some."""
    rated = [[its for its in group if len(its) >= 2] for group in groups]
    return [group for group in rated if group]


def _same(ratings: Sequence[int]) -> float:
    counts = np.bincount(ratings)
    return float((counts * (counts - 1)).sum() / (len(ratings) * (len(ratings) - 1)))


def _with_interval(
    of: Callable[[Array], float | None], rated: Sequence[Sequence[Sequence[int]]], *, seed: int, draws: int
) -> Reliability:
    count = len(rated)
    value = of(np.ones(count)) if count else None
    low = high = None
    if value is not None and count >= FEWEST_PAIRS:
        rng = np.random.default_rng(seed)
        drawn = [of(rng.multinomial(count, np.full(count, 1 / count)).astype(np.float64)) for _ in range(draws)]
        known = [one for one in drawn if one is not None]
        low, high = (float(one) for one in np.quantile(known, (0.025, 0.975)))
    return Reliability(
        value=value, low=low, high=high, pairs=count, ratings=sum(len(its) for group in rated for its in group)
    )


def quadratic_kappa(first: Sequence[int], second: Sequence[int], values: int) -> float | None:
    """Return Cohen's weighted kappa of two people with quadratic weights (Cohen 1968); None where it is not defined.

    Args:
        first: One's ratings, 0 to `values` - 1.
        second: The other's of the same pairs.
        values: How many values there are.
    """
    if not first:
        return None
    observed_VV = np.zeros((values, values))
    np.add.at(observed_VV, (np.asarray(first), np.asarray(second)), 1.0)
    expected_VV = np.outer(observed_VV.sum(axis=1), observed_VV.sum(axis=0)) / len(first)
    weight_VV = np.subtract.outer(np.arange(values), np.arange(values)) ** 2
    by_chance = float((weight_VV * expected_VV).sum())
    return None if by_chance == 0 else 1 - float((weight_VV * observed_VV).sum()) / by_chance
