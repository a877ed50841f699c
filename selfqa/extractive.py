"""The extractive backend: facts and sentences of one document become pairs, by templates and arithmetic alone.

No model takes part, so nothing can be invented: each figure is copied from its cell or sentence, or computed here
from two of them.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

from selfqa import pairs as wording
from selfqa.background import Background
from selfqa.blocks import Source
from selfqa.causes import cause_pairs, reason_pairs
from selfqa.cover import cover_pairs
from selfqa.definitions import definition_pairs
from selfqa.document_facts import facts_of, is_primary
from selfqa.english_words import Lexicon
from selfqa.entities import Filing
from selfqa.facts import Dropped, Fact
from selfqa.lists import heading_lists, list_pairs
from selfqa.pairs import Pair
from selfqa.passages import Rows, table_passage
from selfqa.policies import policy_pairs
from selfqa.prose import stretches
from selfqa.risks import risk_pairs
from selfqa.sentences import sentence_pairs
from selfqa.summaries import summary_pairs
from selfqa.tables import Table
from selfqa.terms import term_pairs
from selfqa.totals import total_pairs
from selfqa.unanswerable import unanswerable_pairs
from selfqa.yes_no import chinese_boxes, chinese_direction, chinese_versus, english_direction, english_versus
from selfqa.zones import zones_of

NAME_COMMA = "\u201a"
"""Stands for the comma of "Acme, Inc." while sentences are taken apart: it parts no clauses."""


@dataclass(frozen=True, slots=True)
class Extracted:
    """What one document gave by itself."""

    pairs: tuple[Pair, ...]
    dropped: tuple[Dropped, ...]
    """What made none, with the reason."""
    facts: tuple[Fact, ...]
    """The facts of its primary statements, to be compared with the same company's other filings."""


def extract(
    source: Source, filing: Filing, passages: Sequence[Background], passage_limit: int, others: Sequence[str] = ()
) -> Extracted:
    """Return all pairs of a document.

    Args:
        source: The document.
        filing: Whose it is, and when.
        passages: Its passages without boilerplate: only their paragraphs are asked about.
        passage_limit: Most characters of an open-book passage.
        others: Other companies of its language, to ask about in vain.
    """
    lexicon = Lexicon(source.text) if filing.language == "en" else None
    found = facts_of(source, filing, lexicon)
    dropped = list(found.dropped)
    pairs = [
        pair
        for table in found.tables
        for pair in _table_pairs(table, found.facts, filing, lexicon, passage_limit, others)
    ]
    told = sentence_pairs(source, filing, lexicon, passage_limit, passages)
    for made in (*told, *definition_pairs(source, filing, found.tables)):
        (pairs if isinstance(made, Pair) else dropped).append(made)  # type: ignore[arg-type]
    pairs += _prose_pairs(source, filing, lexicon, passages, passage_limit)
    primary = {table.number for table in found.tables if is_primary(table)}
    return Extracted(tuple(pairs), tuple(dropped), tuple(fact for fact in found.facts if fact.table in primary))


def _prose_pairs(
    source: Source, filing: Filing, lexicon: Lexicon | None, passages: Sequence[Background], limit: int
) -> Iterator[Pair]:
    yield from chinese_boxes(source, filing, passages)
    yield from reason_pairs(source, filing)
    yield from heading_lists(source, filing)
    if lexicon:
        yield from cover_pairs(source, filing)
    plain = replace(filing, short=filing.short.replace(",", NAME_COMMA))
    for stretch in stretches(source, zones_of(source), passages):
        found = [
            pair
            for ask in (cause_pairs, risk_pairs, summary_pairs, term_pairs)
            for pair in ask(stretch, plain, lexicon, limit)
        ]
        if lexicon:
            found += policy_pairs(stretch, plain, lexicon, limit)
            found += list_pairs(stretch, plain, lexicon, limit)
        for pair in found:
            question, answer = (text.replace(NAME_COMMA, ",") for text in (pair.question, pair.answer))
            yield replace(pair, question=question, answer=answer)


def _table_pairs(
    table: Table, facts: Sequence[Fact], filing: Filing, lexicon: Lexicon | None, limit: int, others: Sequence[str]
) -> Iterator[Pair]:
    rows: Rows = defaultdict(list)
    for fact in facts:
        if fact.table == table.number:
            rows[fact.row].append(fact)
    base = 0 if is_primary(table) else 1
    for told in rows.values():
        newest = max(fact.period.year for fact in told)
        for fact in told:
            is_opening = fact.period.is_start or (fact.period.month, fact.period.day) == (1, 1)
            rank = base + (fact.period.year < newest - 1) + 2 * is_opening + fact.metric.startswith("母公司")
            yield from _figure(fact, rows, table, filing, limit, rank)
        for old, new in _neighbours(told):
            yield from _moves(old, new, rows, table, filing, limit, base + (new.period.year < newest))
    for one, other in _siblings(table, rows):
        yield from _versus(one, other, rows, table, filing, limit, base)
    yield from total_pairs(table, rows, filing, lexicon, limit, base)
    yield from unanswerable_pairs(table, rows, facts, filing, others, limit)


def _siblings(table: Table, rows: Rows) -> Iterator[tuple[Fact, Fact]]:
    """The newest facts of two rows that stand under each other below one head, neither of them a total."""
    for row in rows:
        if row + 1 not in rows or table.lines[row].parent != table.lines[row + 1].parent:
            continue
        for one in rows[row]:
            other = next((fact for fact in rows[row + 1] if fact.period == one.period), None)
            if (
                other is not None
                and one.unit == other.unit == "currency"
                and one.frame == other.frame
                and 0 < one.value != other.value > 0
                and not any(re.search(r"\btotal\b|\bnet\b|合计|总计|小计|净", fact.metric) for fact in (one, other))
                and _head(one) == _head(other)
                and one.metric not in other.metric
                and other.metric not in one.metric
            ):
                yield one, other
            break


def _head(fact: Fact) -> str:
    """What kind of thing a metric is: only like is compared with like."""
    is_chinese = re.search(r"[\u4e00-\u9fff]", fact.metric)
    return fact.metric[-2:] if is_chinese else wording.head_of(fact.metric).removesuffix("s")


def _place(table: Table) -> str:
    return f"table {table.number}"


def _figure(fact: Fact, rows: Rows, table: Table, filing: Filing, limit: int, rank: int) -> Iterator[Pair]:
    ask = wording.chinese_figure if filing.language == "zh" else wording.english_figure
    question, answer = ask(fact, filing)
    passage = partial(table_passage, [fact], rows, filing, limit)
    yield _pair(question, answer, "figure", fact, table, passage, rank, fact.rule)


def _neighbours(told: Sequence[Fact]) -> Iterator[tuple[Fact, Fact]]:
    """Pairs of periods of one row that differ by a year (or, for balances, follow each other)."""
    ordered = sorted(told, key=lambda fact: (fact.period.year, fact.period.month))
    for old, new in pairwise(ordered):
        for later in ordered:
            if later.period.fits(old.period) and later.period.year == old.period.year + 1 and later is not old:
                new = later
                break
        is_same = new.metric == old.metric and new.value > 0 and old.value > 0
        if is_same and new.period.fits(old.period) and new.period.year == old.period.year + 1:
            yield old, new


def _moves(old: Fact, new: Fact, rows: Rows, table: Table, filing: Filing, limit: int, rank: int) -> Iterator[Pair]:
    is_chinese = filing.language == "zh"
    change = wording.chinese_change if is_chinese else wording.english_change
    compare = wording.chinese_comparison if is_chinese else wording.english_comparison
    passage = partial(table_passage, [old, new], rows, filing, limit)
    relative = old.unit != "percent" and wording.pick("ab", new.metric, "change") == "a"
    moved = change(old, new, filing, relative=relative)
    if moved is not None:
        question, answer, derivation = moved
        pair = _pair(question, answer, "change", new, table, passage, rank, "derived-change")
        yield replace(pair, derivation=derivation)
    compared = compare(old, new, filing)
    if compared is not None:
        yield _pair(*compared, "comparison", new, table, passage, rank, "row-comparison")
        direction = chinese_direction if is_chinese else english_direction
        yield _pair(*direction(old, new, filing), "yes-no", new, table, passage, rank, "row-direction")


def _versus(one: Fact, other: Fact, rows: Rows, table: Table, filing: Filing, limit: int, rank: int) -> Iterator[Pair]:
    """Ask by turns which of two metrics is higher, and whether one is."""
    is_chinese = filing.language == "zh"
    passage = partial(table_passage, [one, other], rows, filing, limit)
    if wording.pick("ab", one.metric, other.metric, "versus") == "a":
        ask, kind, rule = (chinese_versus if is_chinese else english_versus), "yes-no", "metrics-versus"
    else:
        ask = wording.chinese_larger if is_chinese else wording.english_larger
        kind, rule = "comparison", "metrics-comparison"
    pair = _pair(*ask(one, other, filing), kind, one, table, passage, rank, rule)
    yield replace(pair, start=min(one.start, other.start), end=max(one.end, other.end))


def _pair(
    question: str, answer: str, kind: str, fact: Fact, table: Table, passage: Callable[[], str], rank: int, rule: str
) -> Pair:
    return Pair(
        question=question,
        answer=answer,
        kind=kind,
        start=fact.start,
        end=fact.end,
        rule=rule,
        topic=fact.metric,
        place=_place(table),
        passage=passage,
        rank=rank,
    )
