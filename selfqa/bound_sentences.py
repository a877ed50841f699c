"""The figures of a document's sentences as bound facts, and the book of all facts of a document."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

from finlm.figures import Figure, Unit, amounts_in, narrow
from selfqa.binding import BoundFact, FactBook, Moved
from selfqa.blocks import Source
from selfqa.bound_cells import cell_facts
from selfqa.concepts import tokens, without_figures
from selfqa.entities import Filing
from selfqa.gathered import is_of_shares
from selfqa.inferred_scale import inferred_scale
from selfqa.period_phrases import When, periods_said, spread
from selfqa.sentences import Sentence, sentences_of
from selfqa.unit_notes import document_note, stated_power
from selfqa.word_index import Words

_UP = re.compile(r"\b(?:increas|grew|growth|rose|higher|up\b)\w*|增长|增加|提高|上升", re.IGNORECASE)
_DOWN = re.compile(r"\b(?:decreas|declin|fell|lower|down\b)\w*|下降|减少|降低|下滑", re.IGNORECASE)


def book_of(source: Source, filing: Filing) -> FactBook:
    """Return every figure of a document, bound."""
    facts, lines = cell_facts(source, filing)
    units: tuple[Unit, ...] = ("percent",) if is_of_shares(source) else ()
    power = stated_power(source.text)
    for block in source.blocks:
        if block.kind == "table":
            continue
        before: Sequence[When] = ()
        for sentence in sentences_of(source, block.start, block.end):
            before = _sentence(sentence, filing, before, facts, lines, units, power)
    if not document_note(source.text):
        cells = [fact for fact in facts if fact.origin == "cell"]
        others = [fact for fact in facts if fact.origin != "cell"]
        facts = inferred_scale(cells, [fact for fact in others if fact.origin == "sentence"]) + others
    tagged = {fact.start for fact in facts if fact.origin == "tag"}  # the filer's own word on a figure of a sentence
    kept = [fact for fact in facts if fact.origin != "sentence" or not tagged & set(range(fact.start, fact.end))]
    return FactBook(kept, lines, _main_currency(facts))


def _main_currency(facts: Sequence[BoundFact]) -> str:
    counted = Counter(fact.currency for fact in facts if fact.currency)
    return counted.most_common(1)[0][0] if counted else ""


def _sentence(
    sentence: Sentence,
    filing: Filing,
    before: Sequence[When],
    facts: list[BoundFact],
    lines: list[Words],
    units: tuple[Unit, ...],
    power: int,
) -> Sequence[When]:
    """Bind the figures of a sentence; returns the periods that hold for the next one if it says none.

    `power` is the scale that the document says of all its amounts, 0 if it says none.
    """
    text = narrow(sentence.text)
    said = periods_said(text, filing.language, filing.fiscal_year, filing.months)
    amounts = amounts_in(text)
    if not amounts:
        return said or before
    # a filing that tells a figure without a period tells it of its own
    assumed = (When(filing.fiscal_year),) if filing.fiscal_year else ()
    words = tokens(without_figures(text), filing.language)
    lines.append(Words((words,), frozenset(), 0))
    aligned = aligned_periods(text, amounts, said, filing.language)
    loose = _outside(text, amounts, said)
    for figure, periods in zip(amounts, aligned, strict=True):
        fact = BoundFact(
            value=figure.value,
            unit=figure.unit,
            currency=figure.currency,
            periods=tuple(periods or loose or (() if said else before)) or assumed,
            line=len(lines) - 1,
            start=sentence.start + figure.start,
            end=sentence.start + figure.end,
            origin="sentence",
            written=_number(figure),
            moved=_moved(text[max(0, figure.start - 60) : figure.end + 20]),
            others=(figure.value.scaleb(power),) if power and _is_bare_money(figure) else (),
            things="shares" if re.match(r"\s?(?:\w+\s){0,3}shares\b|股", text[figure.end :]) else "",
        )
        facts.append(fact)
        facts += [replace(fact, unit=unit) for unit in units if fact.unit == "plain"]
    return said or before


def _is_bare_money(figure: Figure) -> bool:
    """Is it money without a scale word?"""
    return figure.unit == "currency" and abs(figure.value) == _number(figure)


def _outside(text: str, amounts: Sequence[Figure], said: Sequence[When]) -> list[When]:
    """The periods that no parentheses keep for a figure of their own: of "$4.3 million (2018 $19.6 million)" none."""
    taken = {_enclosure(text, amount.start)[0] for amount in amounts}
    return [when for when in said if (place := _enclosure(text, when.start)[0]) == 0 or place not in taken]


def _moved(text: str) -> Moved:
    """Does the text around a figure tell a change, and which way?"""
    up, down = bool(_UP.search(text)), bool(_DOWN.search(text))
    if up and down:
        return "either"
    return "up" if up else "down" if down else ""


def _number(figure: Figure) -> Decimal:
    found = re.search(r"\d[\d,]*\.?\d*|\.\d+", figure.text)
    assert found
    return Decimal(found[0].replace(",", "").rstrip("."))


def aligned_periods(
    text: str, amounts: Sequence[Figure], said: Sequence[When], language: str
) -> list[tuple[When, ...]]:
    """Return the periods that each amount of a sentence is said of; none where the sentence says none.

    As many periods as amounts, in a row ("$25 and $29 million in 2019 and 2018, respectively"), go in order. What
    stands in parentheses belongs together: "£3.5 million (2018: £3.1 million)". Else an amount takes the nearest
    period after it in English, before it in Chinese, and where there is none, the nearest one.
    """
    if not said:
        return [() for _ in amounts]
    said = spread(text, said, len(amounts))
    found: list[tuple[When, ...]] = []
    for amount in amounts:
        place = _enclosure(text, amount.start)
        near_amounts = [
            other for other in amounts if _enclosure(text, other.start) == place and other.unit == amount.unit
        ]
        near_said = [when for when in said if _enclosure(text, when.start) == place]
        if not near_said:  # what parentheses say holds inside them, what stands outside holds in both
            near_said = [when for when in said if _enclosure(text, when.start)[0] == 0]
        found.append(_aligned(text, amount, near_amounts, near_said, language))
    return found


def _enclosure(text: str, at: int) -> tuple[int, int]:
    """Number of the parenthesis around a place (0 outside all) and of its part before a "respectively"."""
    inside = [number for number, match in enumerate(_PARENTHESES.finditer(text), 1) if match.start() < at < match.end()]
    part = len(re.findall(r"respectively", text[:at])) if not inside else 0
    return (inside[0] if inside else 0), part


_PARENTHESES = re.compile(r"[(（][^()（）]*[)）]")


def _aligned(
    text: str, amount: Figure, amounts: Sequence[Figure], said: Sequence[When], language: str
) -> tuple[When, ...]:
    if len(said) < 2:
        return tuple(said)
    places = [when.start for when in said]
    is_row = not any(min(places) < other.start < max(places) for other in amounts)
    if re.search(r"respective|分别", text) or is_row:
        if len(amounts) > 1 and len(amounts) % len(said) == 0:
            return (said[amounts.index(amount) % len(said)],)
        if len(amounts) == 1:
            return tuple(said)
    return (_nearest(amount, amounts, said, language),)


def _nearest(amount: Figure, amounts: Sequence[Figure], said: Sequence[When], language: str) -> When:
    after = [when for when in said if when.start >= amount.end]
    before = [when for when in said if when.end <= amount.start]
    if language == "zh" and before:
        return before[-1]
    following = [other.start for other in amounts if other.start > amount.start]
    if after and (not following or after[0].start < following[0]):
        return after[0]
    return before[-1] if before else after[0]
