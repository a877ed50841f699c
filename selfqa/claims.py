"""What an answer claims, held against the bound facts of its document.

A claim is a figure with its period and its words. It is true if some fact has that value in that unit and sign, in that
period, and no other fact is plainly the one that the words mean. A changed, summed or averaged figure is computed here
from facts, or, where the answer lists its operands, from those.
"""

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal

import numpy as np

from finlm.errors import UserError
from finlm.figures import Figure, amounts_in, cell_figure, narrow
from selfqa import computed
from selfqa.binding import BoundFact, FactBook
from selfqa.bound_sentences import aligned_periods
from selfqa.concepts import tokens, without_figures
from selfqa.entities import Filing
from selfqa.expressions import parse_expression
from selfqa.matching import Claim, Fault, is_period, is_sign, is_unit
from selfqa.period_phrases import When, periods_said, spread, without_due
from selfqa.word_index import Words

MARGIN = 0.12
"""How much better another fact's words must answer for a claim's before the claim is said to be about that one."""
LISTED_MARGIN = 0.4
"""The same for one of several figures of a sentence: "34% and 11%" for two customers has the words of both."""
NAMED = 0.85
"""From here on an answer's own words name a metric of the document."""
FLOOR = 0.25
"""Words that answer less for each other than this have nothing in common."""
_TOTAL = frozenset({"total"})

_CHANGED = re.compile(
    r"\b(?:ros|rise|risen|fell|fall|increas|decreas|grew|grow|declin|dropp|chang|differ)\w*|\b(?:higher|lower) by\b"
    r"|增长|下降|增加|减少|提高|降低|上升|变化|变动|相差"
)


_MOVED_BY = re.compile(
    r"\b(?:rose|fell|grew|declined|dropped|increased|decreased|changed|higher|lower)(?:\s+by)?$"
    r"|(?:增长|下降|增加|减少|提高|降低|上升)了?(?:为|约)?$"
)


def claim_fault(question: str, answer: str, book: FactBook, filing: Filing, expression: str = "") -> Fault | None:
    """Return the first rule that a figure of an answer breaks, or None if all figures hold.

    Args:
        question: Says period and metric where the answer does not; of an open-book message the last paragraph counts.
        answer: What is checked.
        book: The facts of the document that both are about.
        filing: Whose name is no part of a metric, and which year 本期 means.
        expression: The computation that the answer lists for its figure, empty if none.
    """
    asked = narrow(question).strip().rsplit("\n\n", 1)[-1]
    claims = claims_of(asked, narrow(answer), filing)
    if not claims:
        return _comparison_fault(asked, narrow(answer), book, filing)
    for claim in claims:
        if _is_small_count(claim) and not expression and not _is_asked_for(claim):
            continue
        fault = _expression_fault(claim, expression, book) if expression else _fault(claim, book)
        if fault:
            return fault
    return None


def _comparison_fault(question: str, answer: str, book: FactBook, filing: Filing) -> Fault | None:
    """Check an answer that names the one of two periods in which something was higher or lower."""
    told = _HIGHER.search(answer)
    asked, said = _said(question, filing), _said(answer, filing)
    chosen = [when for when in asked if any(_is_same(when, other) for other in said)]
    others = [when for when in asked if when not in chosen]
    if told is None or len(chosen) != 1 or len(others) != 1:
        return None
    words = dict.fromkeys(_words(question, filing) | _words(answer, filing), 1.0)
    is_higher = computed.is_higher(words, (chosen[0], others[0]), book)
    if is_higher is None or is_higher == (told["up"] is not None):
        return None
    return "wrong-comparison", "by the document's figures it is the other of the two periods"


def _is_same(one: When, other: When) -> bool:
    return one.agrees(other) and (one.month, one.quarter) == (other.month, other.quarter)


_HIGHER = re.compile(
    r"(?P<up>\b(?:higher|larger|greater|more)\b|更高|较高|更多|更大)|(?P<down>\b(?:lower|smaller|less)\b|更低|较低|更少|更小)"
)


# ---------------------------------------------------------------------------------------------- reading an answer


def claims_of(question: str, answer: str, filing: Filing) -> list[Claim]:
    """Return the claims of an answer: its amounts, each with period and words."""
    asked_words = _words(question, filing)
    pieces = [(piece, _amounts(piece)) for piece in _sentences(answer)]
    total = sum(len(amounts) for _, amounts in pieces)
    asked_whens = spread(question, _said(question, filing), total)
    claims: list[Claim] = []
    for piece, amounts in pieces:
        said = _said(piece, filing)
        own = _words(piece, filing)
        words = dict.fromkeys(asked_words, 0.3 if own - asked_words or len(own) > 1 else 1.0) | dict.fromkeys(own, 1.0)
        aligned = aligned_periods(piece, amounts, said, filing.language)
        for figure, whens in zip(amounts, aligned, strict=True):
            number = len(claims)
            if not whens and len(asked_whens) == total > 1:
                whens = (asked_whens[number],)
            together = tuple(dict.fromkeys((*said, *asked_whens)))
            its_own = dict.fromkeys(own, 1.0)
            is_listed = len(amounts) > 1
            asked = dict.fromkeys(asked_words, 1.0) if total == 1 else {}
            claims.append(
                Claim(figure, piece, question, whens or tuple(asked_whens), together, words, its_own, asked, is_listed)
            )
    return claims


def _amounts(piece: str) -> list[Figure]:
    """The amounts of a piece; one that is nothing but "(16)" is no footnote."""
    amounts = amounts_in(piece)
    alone = None if amounts else cell_figure(piece.strip())
    return amounts if alone is None or alone.is_date else [alone]


def _sentences(text: str) -> list[str]:
    return [piece for piece in re.split(r"(?<=[.!?])\s+(?=[A-Z])|(?<=[。！？；;])|\n+", text) if piece.strip()]


def _said(text: str, filing: Filing) -> Sequence[When]:
    text = without_due(text)
    said = periods_said(text, filing.language)
    return said or periods_said(text, filing.language, filing.fiscal_year, filing.months)


def _words(text: str, filing: Filing) -> frozenset[str]:
    bare = without_figures(text)
    for when in reversed(periods_said(text, filing.language)):
        bare = bare[: when.start] + " " * (when.end - when.start) + bare[when.end :]
    for name in (filing.company, filing.short):
        bare = bare.replace(name, " ") if name else bare
    bare = _MONTHS.sub(" ", bare)
    names = tokens(filing.company, filing.language) if filing.language == "en" else frozenset()
    return tokens(bare, filing.language) - names


_MONTHS = re.compile(r"\b(?:three|six|nine|twelve)[- ]months?(?=\s+(?:ended|ending|period)\b)", re.IGNORECASE)


def _is_small_count(claim: Claim) -> bool:
    """A bare number under 100 counts something (segments, years): the rule on digits in the evidence looks after it."""
    figure = claim.figure
    return figure.unit == "plain" and abs(figure.value) < 100 and figure.value == int(figure.value)


def _is_asked_for(claim: Claim) -> bool:
    """Is a small number what the question asks for: all of the answer, or a count?"""
    return (claim.is_bare and bool(claim.figure.value)) or bool(
        re.search(r"\b(?:how many|number of)\b|多少[家个名人件项次]|数量", claim.question, re.IGNORECASE)
    )


# ---------------------------------------------------------------------------------------------- a figure as it stands


def _fault(claim: Claim, book: FactBook) -> Fault | None:
    is_change = _is_change(claim)
    found = [fact for fact in book.near(abs(claim.figure.value), claim.tolerance) if _is_exact_enough(claim, fact)]
    is_level = len({when.year for when in claim.all_whens}) < 2 and not _MOVED_BY.search(_before(claim))
    if is_change and not is_level:  # "the decrease in cash in 2019" may be a row of its own
        found = [fact for fact in found if computed.is_told(claim, fact)]
    fault = _binding_fault(claim, found, book)
    if fault is None:
        return None
    return computed.fault(claim, book, fault, is_change=is_change, margin=MARGIN)


def is_computed(claim: Claim, book: FactBook) -> bool:
    """Does a figure follow from two facts, as a change, sum or mean?"""
    return computed.fault(claim, book, ("", ""), is_change=_is_change(claim), margin=MARGIN) is None


def _is_change(claim: Claim) -> bool:
    """Does the sentence, or the question where the answer is bare, tell how much something changed?"""
    before = claim.text[: claim.figure.start]
    if re.search(
        r"\b(?:rose|fell|grew|declined|dropped|increased|decreased|changed|higher|lower)\s+(?:by\s+)?\W*$", before
    ):
        return True
    if re.search(r"(?:增长|下降|增加|减少|提高|降低|上升)了?(?:为|约)?$", before.rstrip()):
        return True
    return claim.is_bare and bool(_CHANGED.search(claim.question))


def _before(claim: Claim) -> str:
    return claim.text[: claim.figure.start].rstrip("$€£¥( ")


def _is_exact_enough(claim: Claim, fact: BoundFact) -> bool:
    """A rounded figure needs two digits that count, or it answers for anything near."""
    if abs(fact.value) == abs(claim.figure.value) or any(
        abs(other) == abs(claim.figure.value) for other in fact.others
    ):
        return True
    return len(re.sub(r"\D|^[0.]+", "", claim.figure.text)) >= 2


def _binding_fault(claim: Claim, found: Sequence[BoundFact], book: FactBook) -> Fault | None:
    """Narrow the facts of this size by unit, sign, period and words; what leaves none is the fault."""
    shown = claim.figure.text
    if not found:
        return _size_fault(claim, book)
    in_unit = [fact for fact in found if is_unit(claim, fact, book)]
    if not in_unit:
        return "wrong-unit", f"{shown!r}: the document has this number in another unit"
    in_sign = [fact for fact in in_unit if is_sign(claim, fact, book)]
    if not in_sign:
        return "wrong-sign", f"{shown!r}: the document has this number with the other sign"
    in_period = [fact for fact in _candidates(claim, in_sign, book) if is_period(claim.whens, fact, book)]
    if not in_period:
        return "wrong-period", f"{shown!r}: the document has this number for another period"
    return _words_fault(claim, in_period, book)


def _candidates(claim: Claim, facts: Sequence[BoundFact], book: FactBook) -> list[BoundFact]:
    """Leave out facts without a period where a dated one has as fitting words."""
    with_period = [fact for fact in facts if fact.periods]
    if not with_period or len(with_period) == len(facts) or not claim.whens:
        return list(facts)
    scores = book.scores(claim.words)
    best = max(scores[fact.line] for fact in with_period)
    return [fact for fact in facts if fact.periods or scores[fact.line] > best + MARGIN]


def _size_fault(claim: Claim, book: FactBook) -> Fault:
    shown, size = claim.figure.text, abs(claim.figure.value)
    for power in (3, 6, 9, 4, 8, 12, 2):
        for moved in (size.scaleb(power), size.scaleb(-power)):
            if any(fact.value and abs(fact.value) == moved for fact in book.near(moved, Decimal(0))):
                return "wrong-scale", f"{shown!r}: the document has this number in another scale"
    return "figure-unknown", f"{shown!r} is no figure of the document, nor follows from two of them"


def _words_fault(claim: Claim, found: Sequence[BoundFact], book: FactBook) -> Fault | None:
    """Is another figure of the same period plainly the one that the words mean?"""
    asked = {} if claim.is_listed else claim.asked_words
    for words in (claim.words, claim.own_words, asked):
        if words and _is_other(words, found, claim, book):
            return "wrong-metric", f"{claim.figure.text!r}: the document has it for another metric than this one"
    return None


def _is_named_rival(words: Mapping[str, float], rival: int, found: Sequence[BoundFact], book: FactBook) -> bool:
    """Does a claim name a rival's row rather than any of the found facts'?

    It does where it says the whole of the rival's label, and so more than it says of any other ("in-game net bookings"
    is not "net bookings"), and where its words are the rival's label and each found label in the same table is another.
    Of two tables, what stands around a row counts as its label.
    """
    said = frozenset(words)
    theirs = book.lines[rival]
    labels = [label for label in theirs.own if label and label <= said]
    return any(all(_says_less(book.lines[fact.line], label, said, theirs.table) for fact in found) for label in labels)


def _says_less(line: Words, label: frozenset[str], said: frozenset[str], table: int) -> bool:
    common = frozenset().union(*line.own, line.around if line.table != table else ()) & said
    if line.table == table and common == _TOTAL:
        return label != _TOTAL  # "total revenue from Canada" is Canada's
    is_beside = label == said and line.table == table and common == label
    return common < label or (is_beside and label not in line.own)


def _is_other(words: dict[str, float], found: Sequence[BoundFact], claim: Claim, book: FactBook) -> bool:
    scores = book.scores(words)
    margin = LISTED_MARGIN if claim.is_listed else MARGIN
    own = max(scores[fact.line] for fact in found)
    if own < FLOOR and words is claim.words:
        return True
    if words is not claim.words and scores.max(initial=0.0) < NAMED:
        return False  # words of the answer, or of the question, that name no metric: the other's stand for it
    lines = {fact.line for fact in found}
    labels = {book.lines[line].own[0] for line in lines}  # the same label in another table is no other metric
    for line in np.flatnonzero(scores > own).tolist():
        if line in lines or not book.lines[line].table or book.lines[line].own[0] in labels:
            continue
        is_named = not claim.is_listed and _is_named_rival(words, line, found, book)
        if scores[line] < own + margin and not is_named:
            continue
        is_beside = is_named and all(book.lines[fact.line].table == book.lines[line].table for fact in found)
        facts = [fact for fact in book.of_line[line] if not fact.moved]
        rivals = [fact for fact in facts if is_beside or is_unit(claim, fact, book)]
        if any(fact.periods and is_period(claim.whens, fact, book) for fact in rivals):
            return True
    return False


# ---------------------------------------------------------------------------------------------- a listed computation


def _expression_fault(claim: Claim, text: str, book: FactBook) -> Fault | None:
    """Try small whole numbers as constants ("/ 2") first, then as the figures that the document has of them."""
    try:
        small = frozenset(Decimal(number) for number in range(2, 101) if book.written(Decimal(number)))
        tried = [parse_expression(text), parse_expression(text, small)]
        if "%" in text:  # a share of something: "53% * $23,406"
            tried.append(parse_expression(re.sub(r"(\d[\d,.]*)\s?%", r"(\1/100)", text)))
    except UserError as error:
        return "wrong-derivation", str(error)
    faults = [computed.expression_fault(claim, expression, book) for expression in tried]
    return faults[0] if all(faults) else None
