"""True statements about filings, for `benchmarks/selfqa_check.py`: made without any of the checker's code.

A `Truth` is one value of a metric in a period. A `TruePair` says it, or what arithmetic makes of two of them, in a
question and an answer. `Ground` knows all truths of a document, so that an altered pair that happens to be true as
well is found out.
"""

import hashlib
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

Unit = Literal["currency", "per-share", "percent", "shares", "plain"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What a metric of a company was in a period.

    Example:
        Truth(metric="net income", period="in the three months ended June 28, 2025", value=Decimal("23434000000"),
              unit="currency", currency="USD", scale="million")
    """

    metric: str
    period: str
    """As an answer says it."""
    value: Decimal
    """In whole units; percent in hundredths."""
    unit: Unit
    currency: str = ""
    scale: str = ""
    """The scale word that the filing writes the figure with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TruePair:
    """A right answer to a question, with the pieces of both that an alteration may change.

    Each piece stands in the answer, in the question or in both, word for word.
    """

    source: str
    language: Literal["en", "zh"]
    document: str
    question: str
    answer: str
    entity: str
    metric: str
    periods: tuple[str, ...]
    amount: str
    """The figure with its unit."""
    truths: tuple[Truth, ...]
    """One, or the two that the answer's figure was computed from."""
    operation: Literal["", "difference", "growth"] = ""
    derivation: str = ""
    """Arithmetic that an answer comes with."""
    item: str = ""
    """The name that a data set has for it."""

    def rng(self, purpose: str) -> random.Random:
        """Return a generator that depends on the pair and the purpose alone."""
        digest = hashlib.sha256(f"{self.question}\0{self.answer}\0{purpose}".encode()).digest()
        return random.Random(int.from_bytes(digest[:8], "big"))


@dataclass(slots=True)
class Ground:
    """All truths of a document, by metric and period."""

    truths: Sequence[Truth]
    entity: str
    by_key: dict[tuple[str, str], list[Truth]] = field(default_factory=lambda: defaultdict(list))
    by_metric: dict[str, list[Truth]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        for truth in self.truths:
            self.by_key[truth.metric, truth.period].append(truth)
            self.by_metric[truth.metric].append(truth)

    def says(self, metric: str, period: str, value: Decimal, unit: Unit, currency: str) -> bool:
        """Was a metric's value in a period this one, or this one rounded?"""
        return any(
            truth.unit == unit and truth.currency == currency and is_rounded(truth.value, value)
            for truth in self.by_key.get((metric, period), ())
        )


def is_rounded(exact: Decimal, written: Decimal) -> bool:
    """Is `written` what `exact` is at the digits that it is written with?"""
    exponent = written.normalize().as_tuple().exponent
    assert isinstance(exponent, int)
    return abs(exact - written) <= Decimal("0.5").scaleb(exponent) and abs(exact - written) <= abs(exact) / 20


def share_interval(hits: int, count: int) -> tuple[float, float]:
    """Return Wilson's interval of a share, at 95 %."""
    if not count:
        return 0.0, 1.0
    z = 1.959964
    share = hits / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * ((share * (1 - share) + z * z / (4 * count)) / count) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)


def unambiguous(truths: Iterable[Truth]) -> list[Truth]:
    """Leave out what one wording of metric and period gives two values."""
    by_key: dict[tuple[str, str], list[Truth]] = defaultdict(list)
    for truth in truths:
        by_key[truth.metric, truth.period].append(truth)
    return [rows[0] for rows in by_key.values() if len({(row.value, row.unit, row.currency) for row in rows}) == 1]
