"""Rows of similar length together, so that little of a batch is padding."""

from collections.abc import Sequence


def grouped(lengths: Sequence[int], *, size: int, tokens: int = 0) -> list[list[int]]:
    """Return places of similar lengths together: at most `size`, and at most `tokens` once padded to the longest.

    Args:
        lengths: Tokens of each row.
        size: Rows of a group at most.
        tokens: Tokens of a group at most, unless a single row has more; 0 is no limit.
    """
    groups: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda place: (lengths[place], place)):
        is_full = not groups or len(groups[-1]) == size
        if is_full or 0 < tokens < (len(groups[-1]) + 1) * lengths[place]:
            groups.append([])
        groups[-1].append(place)
    return groups
