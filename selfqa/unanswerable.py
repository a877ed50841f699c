"""Questions that a passage does not answer: another period, another metric or another company is asked for.

A model that has only seen answerable questions answers everything. These exist only with their passage, since without
one there is nothing that could fail to say it. That the asked figure is absent is checked on the passage's own text.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from finlm.figures import narrow
from selfqa.entities import Filing
from selfqa.facts import Fact
from selfqa.pairs import Pair, chinese_figure, english_figure, hashed, pick, possessive
from selfqa.passages import Rows, table_passage
from selfqa.tables import Table

_COMMON = re.compile(
    r"(?:total |net |basic |diluted )?(?:revenues?|net sales|net income|operating income|gross (?:profit|margin)|assets"
    r"|liabilities|current assets|current liabilities|cash and cash equivalents|inventories|goodwill|accounts payable"
    r"|accounts receivable|long-term debt|(?:share|stock)holders' equity|cost of sales|income tax(?:es| expense)"
    r"|research and development expense|selling, general and administrative expenses?|provision for income taxes"
    r"|operating expenses|(?:earnings|net income) per share|property, plant and equipment|interest expense"
    r"|comprehensive income|营业收入|营业成本|净利润|利润总额|货币资金|存货|应收账款|固定资产|资产总计|负债合计"
    r"|研发费用|销售费用|管理费用)"
)
"""Metrics that any company has: only these are asked of another one."""
EVERY = 3
"""One fact in so many is asked about in vain."""


def unanswerable_pairs(
    table: Table, rows: Rows, facts: Sequence[Fact], filing: Filing, others: Sequence[str], limit: int
) -> Iterator[Pair]:
    """Yield questions beside a table's passages that they do not answer.

    Args:
        table: The table.
        rows: Its facts.
        facts: All facts of the document: another table's metric is what a passage lacks.
        filing: The document.
        others: Companies of the other filings of its language.
        limit: Most characters of a passage.
    """
    told = [fact for row in rows.values() for fact in row]
    for fact in told:
        if hashed(fact.metric, str(fact.period), "asked in vain") % EVERY:
            continue
        passage = table_passage([fact], rows, filing, limit)
        if not passage:
            continue
        absent = _absent(fact, told, facts, filing, others, passage)
        if absent is None:
            continue
        asked, whose, rule = absent
        ask = chinese_figure if filing.language == "zh" else english_figure
        question, _ = ask(asked, replace(filing, short=whose))
        if re.match(r"State |请说明", question):
            continue
        yield Pair(
            question=question,
            answer=_answer(asked, whose, filing),
            kind="unanswerable",
            start=fact.start,
            end=fact.end,
            rule=rule,
            topic=f"absent {asked.metric}",
            place=f"table {table.number}",
            passage=partial(str, passage),
            is_open_only=True,
        )


def _absent(
    fact: Fact, told: Sequence[Fact], facts: Sequence[Fact], filing: Filing, others: Sequence[str], passage: str
) -> tuple[Fact, str, str] | None:
    """What to ask, of whom, and the rule: a figure that the passage lacks."""
    ways = ("period", "metric", "entity") if others and _COMMON.fullmatch(fact.metric) else ("period", "metric")
    way = pick(ways, fact.metric, str(fact.period), "way")
    if way == "entity":
        whose = others[hashed(fact.metric, str(fact.period)) % len(others)]
        return (fact, whose, "unanswerable-entity") if whose not in passage else None
    if way == "period":
        years = {one.period.year for one in told}
        year = min(years) - 1 if hashed(fact.metric, "earlier") % 2 else max(years) + 1
        period = replace(fact.period, year=year)
        if (period.month, period.day) not in ((12, 31), (6, 30), (3, 31), (9, 30), (0, 0)):
            period = (
                replace(period, month=0, day=0) if period.months in (0, 12) else period
            )  # 52 weeks end on no fixed day
        if str(year) in passage or period.months not in (0, 12):
            return None
        return replace(fact, period=period), filing.short, "unanswerable-period"
    known = narrow(passage).lower()
    strange = [
        one
        for one in facts
        if one.table != fact.table
        and one.period == fact.period
        and one.unit == fact.unit
        and not set(re.findall(r"[a-z]{4,}|[\u4e00-\u9fff]{2,}", one.metric.lower())) & set(_words(known))
        and one.metric.lower() not in known
    ]
    if not strange:
        return None
    return strange[hashed(fact.metric, "metric") % len(strange)], filing.short, "unanswerable-metric"


def _words(text: str) -> list[str]:
    common = {"total", "other", "income", "assets", "expense", "expenses", "cash", "from", "with"}
    return [word for word in re.findall(r"[a-z]{4,}|[\u4e00-\u9fff]{2,}", text) if word not in common]


def _answer(asked: Fact, whose: str, filing: Filing) -> str:
    if filing.language == "zh":
        when = asked.period.in_chinese()
        comma = "，" if when.startswith("截至") else ""
        return pick(("材料没有给出{}的数据。", "仅凭所给材料无法得知{}。"), asked.metric, when).format(
            f"{whose}{when}{comma}{asked.metric}" if not comma else f"{whose}截至该日的{asked.metric}"
        )
    options = (
        "The passage does not state {}.",
        "{} cannot be told from the passage.",
        "The passage gives no figure for {}.",
    )
    told = pick(options, asked.metric, str(asked.period)).format(
        f"{possessive(whose)} {asked.metric} {asked.period.in_english()}"
    )
    return told
