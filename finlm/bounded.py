"""Shares that sum to 1, each within bounds of its own."""

from collections.abc import Hashable, Mapping
from typing import TypeVar

K = TypeVar("K", bound=Hashable)


def scaled_to_one(wanted: Mapping[K, float], lowest: Mapping[K, float], highest: Mapping[K, float]) -> dict[K, float]:
    """Scale amounts by one factor so that, each held within its bounds, they sum to 1.

    The factor is found by bisection: the sum grows with it, so there is one that gives 1 where the bounds allow 1.

    Raises:
        ValueError: No amount is above zero, or the bounds do not allow 1.
    """
    if not any(amount > 0 for amount in wanted.values()):
        raise ValueError("no share is above zero")
    if not sum(lowest.values()) <= 1 + 1e-9 or not sum(highest.values()) >= 1 - 1e-9:
        raise ValueError(f"bounds from {sum(lowest.values()):.3f} to {sum(highest.values()):.3f} in sum do not allow 1")

    def scaled(factor: float) -> dict[K, float]:
        return {key: min(max(amount * factor, lowest[key]), highest[key]) for key, amount in wanted.items()}

    low, high = 0.0, 1.0
    while sum(scaled(high).values()) < 1 - 1e-12 and high < 1e12:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(scaled(middle).values()) < 1 else (low, middle)
    return {key: round(share, 12) for key, share in scaled(high).items()}
