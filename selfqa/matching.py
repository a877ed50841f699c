"""When a figure that an answer claims is a fact's: same unit, sign and period."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from finlm.figures import Figure
from selfqa.binding import BoundFact, FactBook
from selfqa.period_phrases import When

Fault = tuple[str, str]
"""The rule that a pair breaks, and the reason."""

_NEGATIVE = re.compile(
    r"\b(?:tax benefits?|(?:excise|sales|payroll|property) taxes"
    r"|loss|losses|deficit|used|outflows?|paid|payments?|repurchase\w*|repay\w*|decreas\w*|declin\w*"
    r"|fell|expenses?|costs?|provision|charges?|less|impairments?|depreciation|amortization|purchases?d?"
    r"|issuances?|allowance|withheld|distributions?|dividends?|below|negative|reduc\w+|settle\w*|investments?|vested|forfeited|exercised|cancell?ed|redeemed|expired)\b"
    r"|亏损|损失|支出|支付|流出|减少|下降|费用|成本|为负|亏|偿还|购建|计提",
    re.IGNORECASE,
)
_MOVES = re.compile(
    r"\b(?:income|net of(?: related)?) tax(?:es)?\b(?! benefit)"
    r"|\b(?:rose|increased?|decreased?|fell|declined?|change) (?:by|from|between)\b|增长|增加|减少|下降|净额",
    re.IGNORECASE,
)
_POSITIVE = re.compile(
    r"\b(?:income|gains?|profits?|earnings|provided|(?<!tax )benefit|proceeds|increas\w*|inflows?)\b"
    r"|收益|利润|流入|增加|净额",
    re.IGNORECASE,
)
_NEGATIVE_STEMS = frozenset(
    re.findall(
        r"\w+",
        "loss deficit use outflow payment paid repurchas repay repaid expens cost charg impair depreci amort purchas",
    )
)
_POSITIVE_STEMS = frozenset({"incom", "gain", "profit", "earn", "provid", "proceed", "inflow"})
THINGS = re.compile(
    r"\s?(?:\w+\s)?(?P<thing>shares|employees|customers|stores|people|barrels|users)\b|\s?(?P<zh>股|人|家|户|吨|台|套)"
)


@dataclass(frozen=True, slots=True)
class Claim:
    """One figure of an answer and what the answer and its question say of it.

    Example:
        Claim(figure=…, text="net income was $5 million in 2024", whens=(When(2024),), words={"net": 1.0, "incom": 1.0},
              own_words={…}, asked_words={…})
    """

    figure: Figure
    text: str
    """The sentence."""
    question: str
    whens: tuple[When, ...]
    """Periods that it may be meant of; empty where none is said."""
    all_whens: tuple[When, ...]
    """All periods that its sentence and question say."""
    words: dict[str, float]
    """Token of sentence or question -> weight."""
    own_words: dict[str, float]
    """Those of the sentence alone."""
    asked_words: dict[str, float]
    """Those of the question alone, where the answer has no other figure; else none."""
    is_listed: bool = False
    """One of several figures of a sentence."""

    @property
    def is_bare(self) -> bool:
        """Is the sentence hardly more than the figure?"""
        return len(self.text.strip()) < len(self.figure.text) + 12

    @property
    def tolerance(self) -> Decimal:
        """Half of the last digit that the figure is written with."""
        return half_digit(self.figure)


def half_digit(figure: Figure) -> Decimal:
    """Return half of the last digit that a figure is written with, in whole units."""
    number = re.search(r"\d[\d,]*\.?\d*|\.\d+", figure.text)
    assert number
    written = Decimal(number[0].replace(",", ""))
    if not written:
        return Decimal(0)
    scale = abs(figure.value) / written
    exponent = written.as_tuple().exponent
    assert isinstance(exponent, int)
    return Decimal("0.5").scaleb(exponent) * scale


def is_unit(claim: Claim, fact: BoundFact, book: FactBook) -> bool:
    """Can a figure be meant in a fact's unit?"""
    figure = claim.figure
    currency = fact.currency or book.currency
    noun = THINGS.match(claim.text[figure.end :])
    if figure.unit in {"currency", "per-share"}:
        is_money = fact.unit in {"currency", "per-share"} or (fact.unit == "plain" and not fact.things)
        return is_money and (figure.currency == currency or not currency) and noun is None
    if figure.unit in {"percent", "points"}:
        return fact.unit == figure.unit
    if fact.unit in {"percent", "points"}:
        return False
    if noun is None:
        return True
    if (noun["thing"] or "") == "shares" or noun["zh"] == "股":
        return fact.things == "shares" or (fact.unit == "plain" and fact.origin == "cell")
    words = book.lines[fact.line].around.union(*book.lines[fact.line].own)
    is_named = any(word.startswith((noun["thing"] or "?")[:5]) for word in words)  # barrels, in a table of barrels
    return (fact.unit == "plain" or is_named) and fact.things != "shares"


def is_sign(claim: Claim, fact: BoundFact, book: FactBook) -> bool:
    """A minus needs a negative fact; a bare number for a negative fact needs a word that says so, and no other."""
    value = claim.figure.value
    if not value or (value < 0) == (fact.value < 0):
        return True
    if value < 0:
        return False
    own = book.lines[fact.line].own[0]
    is_label_negative = claim.is_listed and bool(own & _NEGATIVE_STEMS) and not own & _POSITIVE_STEMS
    return is_said_negative(claim) or is_label_negative  # of two metrics in a sentence each has its own sign


def is_said_negative(claim: Claim) -> bool:
    """Do the words say what a minus would, as "a loss of" does and "income (loss)" does not?"""
    text = re.sub(
        r"\b(?:income|net of(?: related)?) tax(?:es)?\b(?! benefit)", " ", f"{claim.text} {claim.question}", flags=re.I
    )
    text = _MOVES.sub(" ", text)
    return bool(_NEGATIVE.search(text)) and not _POSITIVE.search(text)


def dated(facts: Sequence[BoundFact]) -> list[BoundFact]:
    """Return the facts that say a period, or all where none does: one without a period proves nothing beside them."""
    return [fact for fact in facts if fact.periods] or list(facts)


def is_period(whens: Iterable[When], fact: BoundFact, book: FactBook) -> bool:
    """Is a fact of one of these periods? A bare year means no quarter where the row has more of that year."""
    asked = tuple(whens)
    if not asked:
        return True
    for when in asked:
        if when.day and fact.opening is not None and when.agrees(fact.opening):
            return True  # "granted on January 1, 2017": the day from which it moved
        if not fact.agrees(when):
            continue
        if when.is_bare_year and any(0 < period.months < 12 for period in fact.periods):
            is_one_of_more = any(
                period.year == when.year and other.value != fact.value
                for other in book.row_of(fact)
                for period in other.periods
            )
            if is_one_of_more:
                continue
        return True
    return False
