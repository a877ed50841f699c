"""The facts of one document: every figure of its tables that a metric, a period and a unit could be found for.

Where two tables state one metric of one period, the primary statements speak; where these disagree, nobody does.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from finlm.figures import find_figures
from selfqa.blocks import Source
from selfqa.chinese import chinese_facts
from selfqa.english import english_facts
from selfqa.english_words import Lexicon
from selfqa.entities import Filing
from selfqa.facts import Dropped, Fact
from selfqa.selection import is_rounding
from selfqa.tables import Table, read_tables

_PRIMARY = re.compile(
    r"statements? of (?:consolidated )?(?:income|operations|earnings|cash flow|comprehensive|financial (?:position"
    r"|condition))"
    r"|income statement|balance sheet|selected|summary|by (?:end market|segment|type|reportable|product|geograph)"
    r"|资产负债表|利润表|现金流量表|主要会计数据|主要财务指标|营业收入构成|分产品|季度",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class DocumentFacts:
    """A document's tables, their facts, one per metric and period, and what made none."""

    tables: tuple[Table, ...]
    facts: tuple[Fact, ...]
    dropped: tuple[Dropped, ...]


def facts_of(source: Source, filing: Filing, lexicon: Lexicon | None) -> DocumentFacts:
    """Return the facts of a document.

    Args:
        source: The document.
        filing: Whose it is, and when.
        lexicon: How an English document writes words; None for a Chinese one.
    """
    tables = tuple(read_tables(source, filing.language, filing.fiscal_year, filing.months))
    facts: list[Fact] = []
    dropped: list[Dropped] = []
    for table in tables:
        for found in english_facts(table, lexicon, filing.months) if lexicon else chinese_facts(table):
            if isinstance(found, Fact) and filing.fiscal_year and found.period.year > filing.fiscal_year + 1:
                reason = f"{found.period.year} lies beyond a filing for {filing.fiscal_year}: a maturity, no period"
                dropped.append(Dropped("period-ahead", reason, found.metric, found.start, found.end))
            else:
                (facts if isinstance(found, Fact) else dropped).append(found)  # type: ignore[arg-type]
        if table.unread:
            line = table.lines[0]
            dropped.append(
                Dropped("column-unknown", f"{table.unread} figures without a period", table.title, line.start, line.end)
            )
    facts, contradicted = _agreed(facts, {table.number: table for table in tables}, filing.language)
    return DocumentFacts(tables, tuple(facts), (*dropped, *contradicted))


def _agreed(facts: Sequence[Fact], tables: dict[int, Table], language: str) -> tuple[list[Fact], list[Dropped]]:
    """Keep one fact per metric and period; where tables disagree, the primary statements speak, else nobody."""
    by_key: dict[tuple[str, str], list[Fact]] = defaultdict(list)
    for fact in facts:
        when = fact.period.in_chinese() if language == "zh" else fact.period.in_english()
        by_key[(fact.metric.lower(), when)].append(fact)
    kept: list[Fact] = []
    dropped: list[Dropped] = []
    for rivals in by_key.values():
        primary = [fact for fact in rivals if is_primary(tables[fact.table])] or rivals
        winner = primary[0]
        if len({_worth(fact) for fact in primary}) > 1 and not _is_rounding(primary):
            for fact in rivals:
                reason = f"{fact.metric!r} has different values for one period in this document"
                dropped.append(Dropped("contradiction", reason, f"{fact.metric} {fact.amount}", fact.start, fact.end))
            continue
        kept.append(winner)
        dropped += [
            Dropped(
                "said-before",
                f"{fact.metric!r} of this period is taken from another table",
                fact.metric,
                fact.start,
                fact.end,
            )
            for fact in rivals
            if fact is not winner
        ]
    return kept, dropped


def is_primary(table: Table) -> bool:
    """True of a primary statement, a summary of one, or a breakdown of it."""
    return bool(_PRIMARY.search(f"{table.title} {table.section}"))


def _worth(fact: Fact) -> Decimal:
    return find_figures(fact.amount)[0].value


def _is_rounding(facts: Sequence[Fact]) -> bool:
    return all(is_rounding(_worth(facts[0]), _worth(fact)) for fact in facts[1:])
