"""Which unit and scale a table's figure is read in: its own sign, its row, its column, the table's note."""

import re
from collections.abc import Iterator
from decimal import Decimal

from finlm.figure_grammar import SCALES
from finlm.figures import Figure, Unit, narrow
from selfqa.binding import BoundFact
from selfqa.blocks import Cell, Row
from selfqa.period_phrases import When
from selfqa.table_columns import RowText
from selfqa.unit_notes import UnitNote, unit_note

_PER_SHARE = re.compile(r"\bper\b[^,;]{0,30}\b(?:share|unit|ADS)\b|\bEPS\b|每股|元/股", re.IGNORECASE)
_PARTS_OF_EPS = re.compile(
    r"\b(?:numerators?|denominators?|used in|comput\w+|calculat\w+)\b[^,;:]{0,60}\bper\b[^,;:]{0,30}\bshares?\b",
    re.IGNORECASE,
)
"""What a per-share figure is made of is none itself."""
_COUNT = re.compile(
    r"\bshares\b|\boptions\b|\baverage\b|\bdaily\b"
    r"|\bunits?\b|\bRSUs?\b|\bPSUs?\b|\bnumber of\b|\bemployees\b|\bstores\b|\bcustomers\b"
    r"|\bheadcount\b|\brights\b|\bterm\b|\blife\b|\byears?\b|\bdays\b|\bvolatility\b|\bper\b|\bprice\b|\bcount\b"
    r"|\bgranted\b|\bvested\b|\bexercised\b|\bforfeited\b|\bcancell?ed\b|\bunvested\b|\bratio\b|\btimes\b|\bmultiple\b"
    r"|\btonnes?\b|\bemissions\b|\bhours\b|\b[MkG]Wh\b|\blit(?:er|re)s\b|股数|数量|人数|户数|家数|天数|次数|[（(](?:股|人|吨|台|套|个|户|家)[）)]",
    re.IGNORECASE,
)
_COUNT_COLUMN = re.compile(r"\bshares\b|\bnumber of\b|\bunits\b|\boptions\b|\bprice\b|股数|数量|人数", re.IGNORECASE)
_RATE = re.compile(
    r"%|\bpercent|\brate\b|\brates\b|\bmargin\b|\byield\b|\bratio\b|\bvolatility\b|率|比例|比重|占比", re.IGNORECASE
)
_COUPON = re.compile(r"\d\s?%")
"""The rate in a name: "6.50% Senior Notes" are no percentages."""
_LASTS = re.compile(
    r"\(\s?(?:in |weighted average )?(?:years|months|days|hours)\s?\)|\bin (?:years|months|days)\b", re.IGNORECASE
)
"""What a head says of how long something lasts."""


def facts_of_cell(
    figure: Figure,
    cell: Cell,
    text: RowText,
    column: str,
    line: int,
    periods: tuple[When, ...],
    *,
    may_be_share: bool,
) -> Iterator[BoundFact]:
    """Yield the fact of a cell, and a second one where its figure may be a percentage as well.

    Args:
        figure: What the cell holds.
        cell: The cell.
        text: Its row.
        column: What stands above it.
        line: Number of its words.
        periods: Each may be meant.
        may_be_share: Does the document speak of percentages and name no unit?
    """
    label = _COUPON.sub(" ", narrow(f"{text.label} {' '.join(text.parents)}"))
    near = unit_note(narrow(text.label)) or unit_note(narrow(column))
    note = near.or_currency(text.note) if near else text.note
    words = f"{label} {narrow(column)}"
    is_count = bool(_COUNT.search(label) or _COUNT_COLUMN.search(column))
    power, unit, currency = note.power, figure.unit, figure.currency or note.currency
    others: tuple[Decimal, ...] = ()
    things = (
        "shares"
        if re.search(r"\bshares\b(?!\s+of common stock\b.{0,9}\bamount)|股数|[（(]股[）)]", words, re.IGNORECASE)
        else ""
    )
    if figure.unit == "percent":
        power, currency = 0, ""
    elif counted := _unit_cell(text.row):
        power, unit, currency = counted.power, "currency" if counted.currency else "plain", counted.currency
    elif _PER_SHARE.search(_PARTS_OF_EPS.sub(" ", words)) and not near.power:
        power, unit = 0, "per-share"
    elif figure.unit == "plain" and _LASTS.search(words):
        power, unit, currency = 0, "plain", ""
    elif figure.unit == "plain" and "%" in words and not (near.power and abs(figure.value) >= 1000):
        power, unit, currency = 0, "percent", ""  # a head of money beside a head of percentages may have run into it
    elif figure.unit == "plain":
        unit = "currency" if currency and not is_count else "plain"
        if (may_be_share or text.is_rates or _RATE.search(words)) and abs(figure.value) < 1000:
            others = (figure.value,)
            yield made(figure, cell, 0, "percent", "", periods, line)
        if things and text.share_power:
            power = text.share_power
        elif is_count and power:
            others = (figure.value,)
        elif text.share_power:
            others = (figure.value.scaleb(text.share_power),)
    elif is_count and power and not near.power:
        others = (figure.value,)  # "$" before a price of one option among amounts in thousands
    yield made(figure, cell, power, unit, currency, periods, line, others, things)


def _unit_cell(row: Row) -> UnitNote | None:
    """A column of units says what its row counts: 销售量 | 套 | 9,353."""
    for cell in row.cells[1:]:
        found = _UNIT_CELL.fullmatch(narrow(cell.text).strip())
        if found:
            return UnitNote(SCALES.get(found["scale"] or "", 0), "CNY" if found["unit"] == "元" else "", is_said=True)
    return None


_UNIT_CELL = re.compile(
    r"(?P<scale>万|亿|百万|千)?(?P<unit>元|套|台|吨|个|件|辆|股|人|户|千瓦时|度|米|公里|平方米|只|箱|瓶)"
)


def made(
    figure: Figure,
    cell: Cell,
    power: int,
    unit: Unit,
    currency: str,
    periods: tuple[When, ...],
    line: int,
    others: tuple[Decimal, ...] = (),
    things: str = "",
) -> BoundFact:
    """Return the fact of a cell whose unit is known; `power` is that of its scale."""
    return BoundFact(
        value=figure.value.scaleb(power),
        unit=unit,
        currency=currency,
        periods=periods,
        line=line,
        start=cell.start,
        end=cell.end,
        origin="cell",
        written=abs(figure.value),
        others=others,
        things=things,
    )
