"""Short open-book passages: the evidence among distractors (the row's other periods, the rows beside it).

Two styles: statements (each row told as a sentence, step 1 of Self-QA) and the table's own lines.
"""

import re
from collections.abc import Callable, Sequence
from functools import cache, partial

from finlm.figures import amounts_in
from selfqa.entities import Filing
from selfqa.facts import Fact
from selfqa.pairs import chinese_statement, english_statement, pick, short_period

Rows = dict[int, list[Fact]]
"""Row number -> its facts, in the order of the columns."""
Shown = Callable[[int], list[Fact]]
"""Row number -> the facts of it that a passage tells."""


def table_passage(asked: Sequence[Fact], rows: Rows, filing: Filing, limit: int) -> str:
    """Write a passage of at most `limit` characters around the row that is asked about.

    Args:
        asked: The facts that the answer needs: all stand in the passage, with another figure if there is room.
        rows: The table's facts.
        limit: Most characters; the needed facts stay whole even if they alone are longer.
    """
    row = asked[0].row
    order = sorted(rows, key=lambda other: (abs(other - row), other))
    style = pick(("statements", "statements", "lines"), filing.short, asked[0].metric, "style")
    shown = cache(lambda number: _shown(rows[number], asked))
    statements = partial(_statements, shown=shown, filing=filing)
    build = partial(_lines, row=row, shown=shown, filing=filing) if style == "lines" else statements
    chosen = [row]
    for candidate in order[1:]:
        if len(chosen) == 4:
            break
        if rows[candidate][0].metric == asked[0].metric:
            continue
        attempt = sorted([*chosen, candidate])
        if len(build(attempt)) <= limit:
            chosen = attempt
    if len(chosen) == 1:
        build = statements
    passage = build(chosen)
    amounts = {figure.value for figure in amounts_in(passage)}
    return passage if len(amounts) > len(asked) or len(chosen) > 1 else ""  # nothing to choose from is no reading


def _shown(facts: Sequence[Fact], asked: Sequence[Fact]) -> list[Fact]:
    """The facts of one row that a passage tells: those asked for (or of the asked periods) and one more, in order."""
    periods = [fact.period for fact in asked]
    metric = next((fact.metric for fact in facts if fact.period in periods), facts[0].metric)
    metric = asked[0].metric if asked[0] in facts else metric
    facts = [fact for fact in facts if fact.metric == metric]  # a loss beside an income of other periods
    needed = [fact for fact in facts if fact.period in periods]
    others = [fact for fact in facts if fact.period not in periods]
    near = [fact for fact in others if any(fact.period.fits(period) for period in periods)] or others
    keep = needed + near[: max(0, 2 - len(needed))]
    return [fact for fact in facts if fact in keep]


def _statements(chosen: Sequence[int], shown: Shown, filing: Filing) -> str:
    tell = chinese_statement if filing.language == "zh" else english_statement
    told = [tell(shown(number), filing, named=position == 0) for position, number in enumerate(chosen)]
    return ("" if filing.language == "zh" else " ").join(told)


def _lines(chosen: Sequence[int], row: int, shown: Shown, filing: Filing) -> str:
    periods = [fact.period for fact in shown(row)]
    head = " | ".join(
        ["项目" if filing.language == "zh" else "Item"] + [short_period(p, filing.language) for p in periods]
    )
    lines = [filing.short, head]
    for number in chosen:
        told = shown(number)
        by_period = {fact.period: fact.amount for fact in told}
        metric = told[0].metric
        if any(period in by_period for period in periods):
            lines.append(" | ".join([_capital(metric)] + [by_period.get(period, "—") for period in periods]))
    return "\n".join(lines)


def _capital(metric: str) -> str:
    return metric if re.match(r"[a-z][A-Z]", metric) else metric[:1].upper() + metric[1:]  # iPhone stays iPhone
