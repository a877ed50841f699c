"""Which answer is the better one, by all votes, when some people are right more often than others.

Dawid and Skene (1979): everyone errs at a rate of their own, one for each side; rates and sides are estimated in turn
(EM) until neither moves. Rates have a prior, so that who voted three times is not taken for infallible: as if everyone
had been right in four votes and wrong in one on each side before. Without it, separate votes of a single person would
count for certain.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
PRIOR = (4.0, 1.0)
"""Votes that everyone is taken to have cast before, right and wrong, on each side."""
MOST_ROUNDS = 200
TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Consensus:
    """What the votes come to.

    Example:
        Consensus(second=(0.03, 0.91), accuracy={"person:7": 0.88}, rounds=12, rates={"person:7": (0.9, 0.86)},
                  share=0.49)
    """

    second: tuple[float, ...]
    """Of each pair the probability that the second answer is the better one."""
    accuracy: dict[str, float]
    """Of each annotator the share of votes that name the better answer, the mean of both sides."""
    rounds: int
    rates: dict[str, tuple[float, float]]
    """Of each annotator how often right where the first, and where the second answer is the better one."""
    share: float
    """Of pairs whose second answer is the better one."""

    def second_by(self, votes: Sequence[tuple[str, int]]) -> float:
        """Return the probability that the second answer of a pair is better, by some votes on it alone."""
        odds = log(self.share / (1 - self.share))
        for name, side in votes:
            first, second = self.rates[name]
            odds += log(second / (1 - first)) if side else log((1 - second) / first)
        return 1 / (1 + exp(-odds))


def consensus(votes: Sequence[Sequence[tuple[str, int]]]) -> Consensus:
    """Return sides and rates from votes.

    Args:
        votes: Of each pair (annotator, side 0 or 1); a pair without votes keeps the share of the sides.
    """
    names = sorted({name for its in votes for name, _ in its})
    place = {name: number for number, name in enumerate(names)}
    flat = [(unit, place[name], side) for unit, its in enumerate(votes) for name, side in its]
    unit_N, who_N, side_N = (np.array(column, dtype=np.int64) for column in zip(*flat, strict=True)) if flat else (
        np.zeros(0, dtype=np.int64) for _ in range(3)
    )  # fmt: skip
    second_U = _shares(unit_N, side_N, len(votes))
    rate_A2: Array = np.full((len(names), 2), PRIOR[0] / sum(PRIOR))
    rounds, moved, share = 0, 1.0, 0.5
    while rounds < MOST_ROUNDS and moved >= TOLERANCE:
        rounds, before_U = rounds + 1, second_U
        rate_A2, share = _rates(second_U, unit_N, who_N, side_N, len(names))
        second_U = _sides(rate_A2, share, unit_N, who_N, side_N, len(votes))
        moved = float(np.abs(second_U - before_U).max(initial=0.0))
    accuracy = {name: float(rate_A2[number].mean()) for name, number in place.items()}
    rates = {name: (float(rate_A2[number, 0]), float(rate_A2[number, 1])) for name, number in place.items()}
    return Consensus(second=tuple(map(float, second_U)), accuracy=accuracy, rounds=rounds, rates=rates, share=share)


def _shares(unit_N: npt.NDArray[np.int64], side_N: npt.NDArray[np.int64], units: int) -> Array:
    """Begin with the share of votes for the second answer."""
    votes_U = np.bincount(unit_N, minlength=units)
    return np.asarray((np.bincount(unit_N, weights=side_N, minlength=units) + 0.5) / (votes_U + 1))


def _rates(
    second_U: Array,
    unit_N: npt.NDArray[np.int64],
    who_N: npt.NDArray[np.int64],
    side_N: npt.NDArray[np.int64],
    people: int,
) -> tuple[Array, float]:
    """M step: how often each person is right where the first, and where the second answer is better (A, 2)."""
    rates = []
    for side, weight_N in ((0, 1 - second_U[unit_N]), (1, second_U[unit_N])):
        right_A = np.bincount(who_N, weights=weight_N * (side_N == side), minlength=people)
        all_A = np.bincount(who_N, weights=weight_N, minlength=people)
        rates.append((right_A + PRIOR[0]) / (all_A + sum(PRIOR)))
    return np.stack(rates, axis=1), float((second_U.sum() + 1) / (len(second_U) + 2))


def _sides(
    rate_A2: Array,
    share: float,
    unit_N: npt.NDArray[np.int64],
    who_N: npt.NDArray[np.int64],
    side_N: npt.NDArray[np.int64],
    units: int,
) -> Array:
    """E step: the probability that the second answer is the better one (U,)."""
    for_second_N = np.log(np.where(side_N == 1, rate_A2[who_N, 1], 1 - rate_A2[who_N, 1]))
    for_first_N = np.log(np.where(side_N == 0, rate_A2[who_N, 0], 1 - rate_A2[who_N, 0]))
    odds_U = np.bincount(unit_N, weights=for_second_N - for_first_N, minlength=units)
    odds_U = odds_U + np.log(share / (1 - share))
    return np.asarray(1 / (1 + np.exp(-odds_U)))
