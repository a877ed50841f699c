"""A fact: what a company's metric was in a period, where it stands, and the figure as an answer would say it."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from selfqa.periods import Period

FactUnit = Literal["currency", "per-share", "percent", "quantity"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One figure of a table row.

    Example:
        Fact(metric="total net sales", period=Period(2024), amount="$391,035 million", digits="391,035",
             value=Decimal("391035"), unit="currency", start=812, end=861, table=3, row=2, section="", rule="table-row")
    """

    metric: str
    """As it stands inside a sentence after the company's name."""
    period: Period
    amount: str
    """The figure with its unit, digits as in the cell."""
    value: Decimal
    """The cell's number, before its scale: two facts of one row are comparable."""
    unit: FactUnit
    start: int
    end: int
    table: int
    row: int
    section: str
    rule: str
    """`xbrl-fact` or `table-row`."""
    frame: str = "{}"
    """Puts a number into the fact's unit: "${} million"."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """A row or figure that made no fact, and why."""

    rule: str
    reason: str
    text: str
    start: int
    end: int
