"""The learning rate over a run, as a share of the setting: a function of the update's number, so that nothing needs
keeping for a resumed run."""

import math

SHAPES = ("none", "linear", "cosine")


def share(update: int, total: int, *, warmup: int, anneal: str, floor: float) -> float:
    """Return the share of the full learning rate that an update learns with.

        update <= warmup:  update / warmup
        else, done = (update - 1 - warmup) / (total - warmup):
            none 1      linear 1 - (1 - floor) done      cosine floor + (1 - floor) (1 + cos(pi done)) / 2

    The floor is what the update after the last one would have: the last still learns. "The 37 implementation details of
    PPO" (ICLR blog 2022), detail 4 (linear); Loshchilov and Hutter 2017 (arXiv 1608.03983), equation 5 (cosine).

    Args:
        update: Number of the update, from 1; 0 or less learns nothing.
        total: Updates of the whole run. A run that is extended follows the longer run's curve from there on.
        warmup: Updates over which the rate rises linearly from zero.
        anneal: none, linear or cosine.
        floor: Share at the end, 0 to 1.

    Raises:
        ValueError: Another shape.
    """
    if anneal not in SHAPES:
        raise ValueError(f"anneal is {anneal!r}; it must be one of {', '.join(SHAPES)}.")
    if update < 1:
        return 0.0
    if update <= warmup:
        return update / warmup
    done = min(1.0, (update - 1 - warmup) / max(1, total - warmup))
    if anneal == "linear":
        return 1 - (1 - floor) * done
    if anneal == "cosine":
        return floor + (1 - floor) * (1 + math.cos(math.pi * done)) / 2
    return 1.0
