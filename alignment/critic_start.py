"""Where the critic's reading begins: a linear fit of the first rollout's returns. Axes: N answer tokens, D width.

The critic begins as a copy of the reward model, and a reward model has learned to read end tokens alone. What its head
says before the other tokens is chance: measured, 4 to 5 units off on human preferences and 2.4 on figures, for answers
whose scores spread over 1. As long as that stands, every end is a loss of 4 units against what was expected, and PPO
learns not to end its answers; the clip of the values lets a critic come down by 0.2 an update at most. The adapter is a
good start, the head is not: it is fitted here, by least squares with a ridge that the answers themselves choose.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from finlm.scorer import Head

RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
"""Ridges to choose from, as multiples of the states' mean variance; beside them the returns' mean alone."""


class Moments(NamedTuple):
    """Sums over answer tokens of one half of the answers, float64; they add up over micro-batches and processes."""

    number: Tensor
    """Tokens, ()."""
    states: Tensor
    """Sum of x, (D,)."""
    products: Tensor
    """Sum of x x', (D, D)."""
    returns: Tensor
    """Sum of y, ()."""
    squares: Tensor
    """Sum of y^2, ()."""
    crossed: Tensor
    """Sum of x y, (D,)."""

    @classmethod
    def of(cls, states_ND: Tensor, return_N: Tensor) -> "Moments":
        """Sum over tokens."""
        x_ND, y_N = states_ND.double(), return_N.double()
        number = torch.tensor(float(len(y_N)), dtype=torch.float64, device=x_ND.device)
        return cls(number, x_ND.sum(0), x_ND.T @ x_ND, y_N.sum(), (y_N**2).sum(), x_ND.T @ y_N)

    def plus(self, other: "Moments") -> "Moments":
        """Return the sums of both."""
        return Moments(*(one + another for one, another in zip(self, other, strict=True)))


@dataclass(frozen=True, slots=True)
class Reading:
    """A linear reading of hidden states: w.x + b, (D,) and (), float64."""

    weight_D: Tensor
    bias: Tensor

    def error(self, over: Moments) -> float:
        """Return the sum of (w.x + b - y)^2 over the tokens of some moments."""
        w_D, b = self.weight_D, self.bias
        read = w_D @ over.products @ w_D + 2 * b * (w_D @ over.states) + b**2 * over.number
        return float(read - 2 * (w_D @ over.crossed + b * over.returns) + over.squares)

    @torch.no_grad()
    def write(self, head: Head) -> None:
        """Make it the head's."""
        head.weight.copy_(self.weight_D.unsqueeze(0))
        head.bias.fill_(float(self.bias))


def fits(over: Moments) -> list[Reading]:
    """Return the reading of least squares for each ridge, and last the returns' mean.

        w = (C + k t I)^-1 c      b = mean(y) - w.mean(x)      C, c: covariance of x, and of x with y; t = trace(C) / D

    Ridge regression, Hoerl and Kennard 1970; the bias is not held back.
    """
    mean_D, mean = over.states / over.number, over.returns / over.number
    covariance = over.products / over.number - torch.outer(mean_D, mean_D)
    crossed_D = over.crossed / over.number - mean_D * mean
    values_D, vectors = torch.linalg.eigh(covariance)
    values_D = values_D.clamp(min=0)
    typical = values_D.mean().clamp(min=torch.finfo(torch.float64).tiny)
    turned_D = vectors.T @ crossed_D
    weights = [vectors @ (turned_D / (values_D + ridge * typical)) for ridge in RIDGES]
    weights.append(torch.zeros_like(mean_D))
    return [Reading(weight_D, mean - weight_D @ mean_D) for weight_D in weights]


def fitted(halves: tuple[Moments, Moments]) -> Reading | None:
    """Return the reading whose ridge foresees each half of the answers best from the other; None without a token.

    Tokens of one answer have about the same return, so that a fit is judged on other answers than it was made on. With
    too few answers for that the mean is taken. The reading lies on the CPU.
    """
    both = halves[0].plus(halves[1])
    if not both.number:
        return None
    of_both = [Reading(one.weight_D.cpu(), one.bias.cpu()) for one in fits(both)]
    if not (halves[0].number and halves[1].number):
        return of_both[-1]
    errors = [
        one.error(halves[1]) + other.error(halves[0])
        for one, other in zip(fits(halves[0]), fits(halves[1]), strict=True)
    ]
    return of_both[min(range(len(errors)), key=errors.__getitem__)]
