"""Tables that lead from one balance to the next: what stands between two dated balances moved between the two days.

rows        Outstanding at September 30, 2016 | Granted | Exercised | Outstanding at September 30, 2017
columns     Dec 29, 2018 | Acquisitions | Other | Dec 28, 2019
"""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from selfqa.period_phrases import When

_BALANCE = re.compile(
    r"\b(?:balances?|outstanding|nonvested|unvested|non-vested|exercisable|at|as of)\b|余额", re.IGNORECASE
)
_NEW_YEAR = 7
"""A balance of the first days of January closes the year before."""


@dataclass(frozen=True, slots=True)
class Movement:
    """The year between two balances.

    Example:
        Movement(opening=When(2016, 0, 9, 30), year=When(2017))
    """

    opening: When
    year: When


def movements_of_rows(labels: Sequence[str], said: Sequence[Sequence[When]]) -> dict[int, Movement]:
    """Return the year of every row that stands between two balances, by its place.

    Args:
        labels: Of all rows, top to bottom.
        said: The periods that each label says, [rows].
    """
    dates = [
        periods[0] if len(periods) == 1 and periods[0].month and _BALANCE.search(label) else None
        for label, periods in zip(labels, said, strict=True)
    ]
    found: dict[int, Movement] = {}
    places = [place for place, when in enumerate(dates) if when is not None]
    for left, right in itertools.pairwise(places):
        movement = _between(dates[left], dates[right])
        if movement is not None:
            found |= {place: movement for place in range(left + 1, right) if not said[place]}
    return found


def movements_of_columns(said: Sequence[Sequence[When]]) -> list[Movement | None]:
    """Return the year of every column that stands between two dated ones, none for the others.

    Args:
        said: The periods that each column's head says, left to right.
    """
    dates = [periods[0] if len(periods) == 1 and periods[0].month else None for periods in said]
    found: list[Movement | None] = []
    for place, periods in enumerate(said):
        left = next((when for when in reversed(dates[:place]) if when is not None), None)
        right = next((when for when in dates[place + 1 :] if when is not None), None)
        found.append(None if periods else _between(left, right))
    return found


def _between(opening: When | None, closing: When | None) -> Movement | None:
    """Return the year that leads from one balance's day to another's; none where it is no year."""
    if opening is None or closing is None or closing.year - opening.year != 1:
        return None
    is_early = closing.month == 1 and 0 < closing.day <= _NEW_YEAR
    return Movement(opening, When(closing.year - is_early))
