"""The scale of a document without a unit note, where its sentences say it."""

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

from selfqa.binding import BoundFact


def inferred_scale(cells: Sequence[BoundFact], told: Sequence[BoundFact]) -> list[BoundFact]:
    """Scale up the cells of a document without a unit note where its sentences say the same figures with one.

    Two sentences at least must say a cell rounded ("$24.2 million" for 24,193), all in one scale.
    """
    sizes = [(abs(fact.value), half) for fact in told if (half := _half_digit(fact)) > 500]
    votes = {
        power: sum(
            any(abs(abs(cell.value).scaleb(power) - size) <= half for cell in cells if abs(cell.value) >= 100)
            for size, half in sizes
        )
        for power in (3, 6, 9)
    }
    power = max(votes, key=lambda one: votes[one])
    if votes[power] < 2 or sum(count > 0 for count in votes.values()) > 1:
        return list(cells)
    return [
        replace(cell, value=cell.value.scaleb(power), others=(cell.value,))
        if cell.unit in ("currency", "plain")
        else cell
        for cell in cells
    ]


def _half_digit(fact: BoundFact) -> Decimal:
    exponent = fact.written.as_tuple().exponent
    assert isinstance(exponent, int)
    return Decimal("0.5").scaleb(exponent) * (abs(fact.value) / fact.written if fact.written else 0)
