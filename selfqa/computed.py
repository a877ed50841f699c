"""Figures that follow from facts: change, growth, sum, mean, share, recomputed from operands listed or looked for."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from itertools import product

import numpy as np

from finlm.figures import Unit
from selfqa.binding import BoundFact, FactBook
from selfqa.expressions import Expression
from selfqa.matching import THINGS, Claim, Fault, dated, half_digit, is_period, is_said_negative
from selfqa.period_phrases import When
from selfqa.word_index import Scores

MOST = 24
"""How many of the best matching facts of each side are tried as operands."""
CERTAIN = 0.9
"""How well words must answer for a row's before a comparison is held against its figures."""
UNSURE = 0.2
"""Rows that answer so little worse may be meant as well."""
_UP = re.compile(
    r"\b(?:rose|rise|risen|increas\w+|grew|grow\w*|gain\w*|higher|improv\w+)\b|增长|增加|上升|提高|提升", re.IGNORECASE
)
_DOWN = re.compile(
    r"\b(?:fell|fall\w*|decreas\w+|declin\w+|dropp\w*|lower|reduc\w+)\b|下降|减少|降低|下滑", re.IGNORECASE
)
_AVERAGE = re.compile(r"\b(?:average|mean)\b|平均", re.IGNORECASE)


# ---------------------------------------------------------------------------------------------- operands looked for


def fault(claim: Claim, book: FactBook, otherwise: Fault, *, is_change: bool, margin: float) -> Fault | None:
    """Look for two facts that the claim's figure follows from; `otherwise` is the fault where there are none."""
    pair = _two_periods(claim.all_whens, is_change=is_change)
    if pair is None or not claim.words:
        return otherwise
    rules = _rules(claim, is_change=is_change)
    if not rules:
        return otherwise
    scores = book.scores(claim.words)
    older, newer = (_operands(when, scores, book) for when in pair)
    own = 0.0
    labels: set[frozenset[str]] = set()
    rivals: list[tuple[float, frozenset[str]]] = []
    wrong_way = False
    tolerance = half_digit(claim.figure)
    for old, new in product(older, newer):
        if old.unit != new.unit or old is new or old.currency != new.currency or not _is_one_metric(old, new, book):
            continue
        score = min(scores[old.line], scores[new.line])
        label = book.lines[new.line].own[0]
        rivals.append((score, label))
        for rule in rules:
            value = rule(*_as_said(claim, old, new))
            if value is None or abs(abs(value) - abs(claim.figure.value)) > tolerance:
                continue
            if _is_direction(claim, value):
                own = max(own, score)
                labels.add(label)
            else:
                wrong_way = True
    best = max((score for score, label in rivals if label not in labels), default=0.0)
    if own and own >= best - margin:
        return None
    if wrong_way and not own:
        return "wrong-sign", f"{claim.figure.text!r}: the change goes the other way"
    return otherwise


def _as_said(claim: Claim, old: BoundFact, new: BoundFact) -> tuple[BoundFact, BoundFact]:
    """Two facts in parentheses are told without them where the words say what they mean: a loss of (5) grew to (7)."""
    if old.value < 0 and new.value < 0 and is_said_negative(claim):
        return replace(old, value=-old.value), replace(new, value=-new.value)
    return old, new


def _is_one_metric(old: BoundFact, new: BoundFact, book: FactBook) -> bool:
    """Do two facts have the same label, in the same row or in two tables?"""
    if old.line == new.line:
        return True
    ours, theirs = book.lines[old.line], book.lines[new.line]
    return ours.members == theirs.members and bool(set(ours.own) & set(theirs.own))


def is_told(claim: Claim, fact: BoundFact) -> bool:
    """Does a fact that tells a change tell the claim's: over its periods, in its direction?"""
    latest = max(claim.all_whens, key=lambda when: when.year, default=None)  # a sentence may leave out the base
    told = [latest] if latest is not None and fact.origin == "sentence" else claim.all_whens
    if not fact.moved or not all(fact.agrees(when) for when in told):
        return False
    if len(claim.all_whens) > 1 and latest is not None and latest.year < max(when.year for when in fact.periods):
        return False  # 2019 against 2018 is not 2018 against 2017
    up, down = _directions(claim)
    return fact.moved == "either" or up == down or (fact.moved == "up") == up


def _directions(claim: Claim) -> tuple[bool, bool]:
    """Does the sentence say up, does it say down? The words right before the figure count more than the metric's."""
    near = claim.text[: claim.figure.start][-24:]
    for text in (near[-6:], near, claim.text):
        up, down = bool(_UP.search(text)), bool(_DOWN.search(text))
        if up != down:
            return up, down
    return up, down


def is_higher(words: dict[str, float], whens: tuple[When, When], book: FactBook) -> bool | None:
    """Return whether the metric that words mean was higher in the first of two periods; None where rows disagree.

    Two negative values are compared by their size: (7) is the higher expense than (5).
    """
    scores = book.scores(words)
    first, second = (_operands(when, scores, book) for when in whens)
    pairs = [
        (min(scores[one.line], scores[other.line]), abs(one.value) > abs(other.value))
        for one, other in product(first, second)
        if one.unit == other.unit and one.value * other.value > 0 and abs(one.value) != abs(other.value)
        if _is_one_metric(one, other, book)
    ]
    best = max((score for score, _ in pairs), default=0.0)
    told = {higher for score, higher in pairs if score >= best - UNSURE}
    return told.pop() if best >= CERTAIN and len(told) == 1 else None


def _two_periods(whens: Sequence[When], *, is_change: bool) -> tuple[When, When] | None:
    """Return the older and the newer of the periods said; one alone is compared with the year before."""
    distinct = sorted({(when.year, when.month, when.day, when.quarter): when for when in whens}.items())
    if len(distinct) >= 2:
        return distinct[0][1], distinct[-1][1]
    if len(distinct) == 1 and is_change:
        (_, when) = distinct[0]
        return replace(when, year=when.year - 1), when
    return None


def _operands(when: When, scores: Scores, book: FactBook) -> list[BoundFact]:
    """Return the facts of a period whose words answer best for the claim's, at most `MOST`."""
    found: list[BoundFact] = []
    for line in np.argsort(-scores, kind="stable").tolist():
        if not scores[line] or len(found) >= MOST:
            break
        facts = book.of_line[line]
        found += [fact for fact in facts if fact.periods and not fact.moved and is_period((when,), fact, book)]
    return found[:MOST]


Rule = Callable[[BoundFact, BoundFact], Decimal | None]


def _rules(claim: Claim, *, is_change: bool) -> list[Rule]:
    unit = claim.figure.unit
    text = f"{claim.question} {claim.text}".lower()
    if unit == "percent":
        return [_growth] if is_change or re.search(r"percent|%|growth|百分|增长|下降|增减|变动", text) else []
    rules: list[Rule] = [_difference] if is_change or re.search(r"differen|change|increase|decrease|差", text) else []
    if re.search(r"\b(?:total|sum|combined|together|altogether)\b|合计|总共|之和", text):
        rules.append(lambda old, new: old.value + new.value)
    if _AVERAGE.search(text):
        rules.append(lambda old, new: (old.value + new.value) / 2)
    return [_checked(rule, claim) for rule in rules]


def _checked(rule: Rule, claim: Claim) -> Rule:
    return lambda old, new: _in_unit(claim, new, rule(old, new))


def _in_unit(claim: Claim, fact: BoundFact, value: Decimal | None) -> Decimal | None:
    """The value if the claim's unit is the operands': points for shares in percent, money for money."""
    unit, currency = claim.figure.unit, claim.figure.currency
    if fact.unit == "percent":
        return value if unit == "points" else None
    if unit in {"currency", "per-share"}:
        return value if fact.unit in {unit, "currency", "per-share"} and fact.currency in {currency, ""} else None
    is_bare = unit == "plain" and THINGS.match(claim.text[claim.figure.end :]) is None
    return value if is_bare or (unit == "plain" and fact.unit == "plain") else None


def _growth(old: BoundFact, new: BoundFact) -> Decimal | None:
    return (new.value - old.value) / abs(old.value) * 100 if old.value else None


def _difference(old: BoundFact, new: BoundFact) -> Decimal | None:
    return new.value - old.value


def _is_direction(claim: Claim, value: Decimal) -> bool:
    """Does the sentence tell the change's direction as it was? A bare figure tells it by its sign."""
    if claim.figure.unit != "percent" and not value:
        return True
    up, down = _directions(claim)
    if up != down:
        return (value > 0) == up
    if claim.figure.value < 0:
        return value < 0
    is_asked_down = bool(_DOWN.search(claim.question)) and not _UP.search(claim.question)
    return value > 0 or is_asked_down or (up and down)


# ---------------------------------------------------------------------------------------------- operands listed


def expression_fault(claim: Claim, expression: Expression, book: FactBook) -> Fault | None:
    """Check a listed computation: its result is the claim's figure, its operands are facts of the periods asked for."""
    operands = [dated(book.written(number)) for number in expression.operands]
    for number, facts in zip(expression.operands, operands, strict=True):
        if not facts:
            return "wrong-operand", f"{number} is no figure of the document"
    if not any(_is_result(claim, expression, scale, operands) for scale in _scales(operands)):
        return "wrong-derivation", f"{claim.figure.text!r} is not what the listed computation gives"
    return _period_fault(claim, operands, expression.zeros, book)


def _scales(operands: Sequence[Sequence[BoundFact]]) -> set[Decimal]:
    """Return the scales that all operands can be read in together; where there is none, each one's own."""
    return _common_scales(operands) or set().union(*map(_scales_of, operands)) or {Decimal(1)}


def _common_scales(operands: Sequence[Sequence[BoundFact]]) -> set[Decimal]:
    found = [scales for facts in operands if (scales := _scales_of(facts))]
    return set.intersection(*found) if found else {Decimal(1)}


def _scales_of(facts: Sequence[BoundFact]) -> set[Decimal]:
    return {abs(value) / fact.written for fact in facts if fact.written for value in (fact.value, *fact.others)}


def _is_result(claim: Claim, expression: Expression, scale: Decimal, operands: Sequence[Sequence[BoundFact]]) -> bool:
    units = {fact.unit for facts in operands for fact in facts}
    is_rate = expression.degree == 0 and len(_common_scales(operands)) == 0
    for value, unit in _results(expression, scale, units, is_rate=is_rate):
        is_unit = claim.figure.unit == unit or (
            unit == "amount" and claim.figure.unit in {"plain", "currency", "per-share"}
        )
        is_size = abs(abs(value) - abs(claim.figure.value)) <= half_digit(claim.figure) * Decimal("1.02")
        if is_unit and is_size and (_is_signed_so(claim, value)):
            return True
    return False


def _is_signed_so(claim: Claim, value: Decimal) -> bool:
    """Has the figure the result's sign, or do the words before it say which way it went?"""
    up, down = _directions(claim)
    if claim.figure.value > 0 and up != down and not claim.is_bare:
        return (value > 0) == up
    return (value < 0) == (claim.figure.value < 0)


def _results(
    expression: Expression, scale: Decimal, units: set[Unit], *, is_rate: bool
) -> Iterator[tuple[Decimal, str]]:
    """Yield what the result may be said as: a ratio in percent or bare, a sum in its operands' unit.

    `is_rate`: an amount for each of something, "53.0 (million) / 1,027 (employees)", has the amount's unit.
    """
    if expression.degree != 1:
        yield expression.result * 100, "percent"
        yield expression.result, "plain"
    if expression.degree != 0 or is_rate:
        if expression.has_percent or ("percent" in units and expression.degree == 1):
            yield expression.result, "percent"
            if expression.is_difference:
                yield expression.result, "points"
        yield expression.result * scale, "amount"


def _period_fault(claim: Claim, operands: Sequence[Sequence[BoundFact]], zeros: int, book: FactBook) -> Fault | None:
    """Each period asked for has an operand, each operand is of a period asked for or between two of them."""
    asked = claim.all_whens
    if not asked:
        return None
    if not any(fact.periods for facts in operands for fact in facts):
        return None  # a document that dates none of them contradicts no period
    missing = [when for when in asked if not any(fact.agrees(when) for facts in operands for fact in facts)]
    missing = [when for when in missing if not _is_opening(when, claim, operands)]
    unknown = [when for when in missing if not book.has_period(when)]  # a dash has no fact, its column has others
    if len(missing) > zeros or unknown:
        return "wrong-period", f"no operand is of {(unknown or missing)[0].year}"
    years = [when.year for when in asked]
    for facts in operands:
        if any(fact.agrees(when) for fact in facts for when in asked):
            continue
        near = {period.year for fact in facts for period in fact.periods}
        is_between = any(min(years) < year < max(years) for year in near)
        is_year_before = (len(set(years)) == 1 or _compares_averages(claim)) and min(years) - 1 in near
        if not (is_between or is_year_before):
            return "wrong-period", f"{claim.figure.text!r} is computed from a figure of another period"
    return None


def _compares_averages(claim: Claim) -> bool:
    """Does a question compare the averages of years? Each is that of the year's end and of the end before."""
    return bool(
        _AVERAGE.search(claim.question) and re.search(r"differen|chang|increase|decrease|差|变动", claim.question)
    )


def _is_opening(when: When, claim: Claim, operands: Sequence[Sequence[BoundFact]]) -> bool:
    """Is it the day from which an operand moved to a period asked for: "granted between 2016 and 2017"?"""
    movements = [fact for facts in operands for fact in facts if fact.opening is not None and when.agrees(fact.opening)]
    return any(other.agrees(period) for other in claim.all_whens for fact in movements for period in fact.periods)
