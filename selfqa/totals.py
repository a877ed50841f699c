"""What a total is made of: rows of a table that add up to the row below them, to the last digit.

The sum is the proof: where the rows above "Total current assets" do not add up to it, nothing is asked.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_UP, Decimal
from functools import partial

from finlm.records import Derivation
from selfqa.english_words import Lexicon
from selfqa.entities import Filing
from selfqa.facts import Fact
from selfqa.pairs import Pair, possessive, verb
from selfqa.passages import Rows, table_passage
from selfqa.tables import Line, Table

_TOTAL = re.compile(r"^\W*total\b|(?:合计|总计|小计)\s*$", re.IGNORECASE)
MOST_PARTS = 8
"""Rows of the longest list worth one sentence."""
MOST_SHARES = 6
"""Rows of a total whose share is asked for."""


@dataclass(frozen=True, slots=True)
class Total:
    """A row and the rows that add up to it, as row numbers of its table."""

    row: int
    parts: tuple[int, ...]


def totals_of(table: Table) -> list[Total]:
    """Find the rows of a table that are sums of rows above them; a sum may itself be a part of a later one."""
    found: dict[int, Total] = {}
    for row, line in enumerate(table.lines):
        if _TOTAL.search(line.label):
            parts = _adding_up(row, table.lines, found)
            if parts:
                found[row] = Total(row, parts)
    return list(found.values())


def _adding_up(row: int, lines: Sequence[Line], found: Mapping[int, Total]) -> tuple[int, ...]:
    """The rows above `row` that add up to it in every period that it has, nearest first until they do."""
    wanted = _amounts(lines[row])
    parts: list[int] = []
    at = row - 1
    sums = dict.fromkeys(wanted, Decimal(0))
    while wanted and at >= 0 and len(parts) < 14:
        amounts = _amounts(lines[at])
        for period in sums:
            sums[period] += amounts.get(period, Decimal(0))
        parts.insert(0, at)
        if len(parts) > 1 and sums == wanted:
            return tuple(parts)
        at = found[at].parts[0] - 1 if at in found else at - 1
    return ()


def _amounts(line: Line) -> dict[object, Decimal]:
    return {v.column.period: v.figure.value for v in line.values if v.column.period and v.column.kind == "amount"}


def total_pairs(
    table: Table, rows: Rows, filing: Filing, lexicon: Lexicon | None, limit: int, rank: int
) -> Iterator[Pair]:
    """Yield what each total of a table is made of, and which share its parts have."""
    for total in totals_of(table):
        wholes = sorted(rows.get(total.row, ()), key=lambda fact: (-fact.period.year, -fact.period.month))
        if not wholes:
            continue
        yield from _list(total, wholes[0], table, filing, lexicon, rank + 2 * _is_opening(wholes[0]))
        for row in total.parts[:MOST_SHARES]:
            for part in rows.get(row, ()):
                whole = next((fact for fact in wholes if fact.period == part.period), None)
                if whole is not None:
                    lower = (whole is not wholes[0]) + 2 * _is_opening(whole)
                    yield from _share(part, whole, rows, table, filing, limit, rank + lower)


def _is_opening(fact: Fact) -> bool:
    return fact.period.is_start or (fact.period.month, fact.period.day) == (1, 1)


def _list(
    total: Total, whole: Fact, table: Table, filing: Filing, lexicon: Lexicon | None, rank: int
) -> Iterator[Pair]:
    lines = [table.lines[row] for row in total.parts]
    names = [_name(line, lexicon) for line in lines]
    is_plain = all(value.figure.value > 0 for line in lines for value in line.values)  # a deduction is no part
    if not is_plain or not 3 <= len(names) <= MOST_PARTS or not all(names) or len(set(names)) < len(names):
        return
    start, end = lines[0].start, table.lines[total.row].end
    shown = "\n".join(f"{line.label} | {line.values[0].cell.text}" for line in [*lines, table.lines[total.row]])
    if filing.language == "zh":
        when = whole.period.in_chinese()
        owner = f"{when}，{filing.short}" if when.startswith("截至") else f"{filing.short}{when}"
        question = f"{owner}的{whole.metric}由哪些项目构成？"
        answer = f"{owner}的{whole.metric}由{'、'.join(names[:-1])}和{names[-1]}构成。"
    else:
        when, owner = whole.period.in_english(), f"{possessive(filing.short)} {whole.metric}"
        question = f"Which items made up {owner} {when}?"
        joiner = "; " if any("," in name or " and " in name for name in names) else ", "
        listed = joiner.join(names[:-1]) + f"{joiner.rstrip() if joiner == '; ' else ''} and {names[-1]}"
        answer = f"{owner} {verb(whole.metric)} made up of {listed} {when}."
    yield Pair(
        question=question,
        answer=answer,
        kind="list",
        start=start,
        end=end,
        rule="total-parts",
        topic=whole.metric,
        place=f"table {table.number}",
        passage=partial(str, f"{filing.short}\n{table.title}\n{shown}".replace("\n\n", "\n")),
        rank=rank,
    )


def _name(line: Line, lexicon: Lexicon | None) -> str:
    label = re.sub(r"\s*\((?:\d|[a-z]|note[^()]*)\)|[*#]|\s*[（(](?:注?[\d一二三四五六七八九十]+)[)）]", "", line.label)
    label = " ".join(label.split()).strip(" :;,.：")
    if lexicon is None:
        label = re.sub(r"\s|^(?:其中|减|加)[：:]|^[\d一二三四五六七八九十]+[、.]", "", label)
        return label if re.fullmatch(r"[\u4e00-\u9fff（）()、A-Za-z]{2,24}", label) else ""
    if not re.search(r"[A-Za-z]{3}", label) or len(label) > 70 or re.search(r"\d{3}|[|•:]", label):
        return ""
    if label.lower() in {"other", "others", "all other"}:
        return "other items"
    written = lexicon.in_sentence(re.sub(r"\s*[,–—-]\s*net$", "", label))
    return written.lower() if written.lower() in {"state", "federal", "foreign", "domestic"} else written


def _share(part: Fact, whole: Fact, rows: Rows, table: Table, filing: Filing, limit: int, rank: int) -> Iterator[Pair]:
    if part.frame != whole.frame or part.unit not in ("currency", "quantity") or not 0 < part.value < whole.value:
        return
    percent = (part.value / whole.value * 100).quantize(Decimal("0.1"), rounding=ROUND_HALF_UP)
    if percent < Decimal("0.5"):
        return
    shown = f"{percent:f}%"
    if filing.language == "zh":
        when = part.period.in_chinese()
        owner = f"{when}，{filing.short}" if when.startswith("截至") else f"{filing.short}{when}"
        question = f"{owner}{part.metric}占{whole.metric}的比例是多少？"
        answer = f"{owner}{part.metric}占{whole.metric}的{shown}。"
    else:
        when, owner = part.period.in_english(), possessive(filing.short)
        question = f"What share of {owner} {whole.metric} did its {part.metric} make up {when}?"
        answer = f"{owner} {part.metric} made up {shown} of its {whole.metric} {when}."
    pair = Pair(
        question=question,
        answer=answer,
        kind="figure",
        start=min(part.start, whole.start),
        end=max(part.end, whole.end),
        rule="derived-share",
        topic=f"share of {part.metric}",
        place=f"table {table.number}",
        passage=partial(table_passage, [part, whole], rows, filing, limit),
        rank=rank,
    )
    yield replace(pair, derivation=Derivation(operation="ratio", operands=(part.amount, whole.amount), result=shown))
