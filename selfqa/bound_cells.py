"""The figures of a document's tables and tags as bound facts: label, column header and unit line of each."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import lru_cache

from finlm.figure_grammar import SCALES
from finlm.figures import Figure, Unit, cell_figure, find_figures, narrow
from selfqa.binding import BoundFact
from selfqa.blocks import Block, Cell, Row, Source, Tag
from selfqa.concepts import camel_words, tokens
from selfqa.entities import Filing
from selfqa.period_phrases import UNSAID, When, of_dates, periods_said
from selfqa.periods import Column, header_columns, is_chinese_header, is_header
from selfqa.unit_notes import UnitNote, unit_note
from selfqa.word_index import Words

_CHANGE = re.compile(
    r"\b(?:change|variance|increase|decrease|growth|vs\.?|\(decr|incr)\b|增减|变动|同比|环比|增长", re.IGNORECASE
)
_PER_SHARE = re.compile(r"\bper\b[^,;]{0,30}\b(?:share|unit|ADS)\b|\bEPS\b|每股|元/股", re.IGNORECASE)
_COUNT = re.compile(
    r"\bshares\b|\boptions\b|\bunits?\b|\bRSUs?\b|\bPSUs?\b|\bnumber of\b|\bemployees\b|\bstores\b|\bcustomers\b"
    r"|\bheadcount\b|\brights\b|\bterm\b|\blife\b|\byears?\b|\bdays\b|\bvolatility\b|\bper\b|\bprice\b|\bcount\b"
    r"|\bgranted\b|\bvested\b|\bexercised\b|\bforfeited\b|\bcancell?ed\b|\bunvested\b|\bratio\b|\btimes\b|\bmultiple\b"
    r"|\btonnes?\b|\bemissions\b|\bhours\b|\b[MkG]Wh\b|\blit(?:er|re)s\b|股数|数量|人数|户数|家数|天数|次数|[（(](?:股|人|吨|台|套|个|户|家)[）)]",
    re.IGNORECASE,
)
_COUNT_COLUMN = re.compile(r"\bshares\b|\bnumber of\b|\bunits\b|\boptions\b|\bprice\b|股数|数量|人数", re.IGNORECASE)
_RATE = re.compile(
    r"%|\bpercent|\brate\b|\brates\b|\bmargin\b|\byield\b|\bratio\b|\bvolatility\b|率|比例|比重|占比", re.IGNORECASE
)


@dataclass(slots=True)
class _Reader:
    """Gathers the facts and words of a document's tables."""

    source: Source
    filing: Filing
    default: UnitNote
    is_of_shares: bool
    """Its bare figures may be percentages: it says "percentage" at its head and has no unit note."""
    facts: list[BoundFact] = field(default_factory=list)
    lines: list[Words] = field(default_factory=list)

    @property
    def own_period(self) -> list[When]:
        """What a Chinese table is of that says no period: the document's own. An English one has it in its text."""
        is_sure = self.filing.fiscal_year and self.filing.language == "zh"
        return [When(self.filing.fiscal_year)] if is_sure else []

    def periods(self, text: str) -> Sequence[When]:
        return periods_said(text, self.filing.language, self.filing.fiscal_year, self.filing.months)

    def words(self, text: str) -> frozenset[str]:
        return tokens(text, self.filing.language)


def cell_facts(source: Source, filing: Filing) -> tuple[list[BoundFact], list[Words]]:
    """Return the facts of a document's tables and of the tags in its text, and the words of their lines."""
    default = unit_note(source.text[:200000], is_document=True)
    reader = _Reader(source, filing, default, is_of_shares(source))
    section = ""
    inside: set[int] = set()
    number = 0
    for position, block in enumerate(source.blocks):
        if block.kind == "heading":
            section = source.text[block.start : block.end]
        if block.kind == "table":
            number += 1
            inside |= _table(reader, block, _above(source, position), section, number)
    _loose_tags(reader, inside, number)
    return reader.facts, reader.lines


def inferred_scale(cells: Sequence[BoundFact], told: Sequence[BoundFact]) -> list[BoundFact]:
    """Scale up the cells of a document without a unit note where its sentences say the same figures with one.

    Two sentences at least must say a cell rounded ("$24.2 million" for 24,193), all in one scale.
    """
    sizes = [(abs(fact.value), half) for fact in told if (half := _half_digit(fact)) > 500]
    votes = {
        power: sum(
            any(abs(abs(cell.value).scaleb(power) - size) <= half for cell in cells if abs(cell.value) >= 100)
            for size, half in sizes
        )
        for power in (3, 6, 9)
    }
    power = max(votes, key=lambda one: votes[one])
    if votes[power] < 2 or sum(count > 0 for count in votes.values()) > 1:
        return list(cells)
    return [
        replace(cell, value=cell.value.scaleb(power), others=(cell.value,))
        if cell.unit in ("currency", "plain")
        else cell
        for cell in cells
    ]


def _half_digit(fact: BoundFact) -> Decimal:
    exponent = fact.written.as_tuple().exponent
    assert isinstance(exponent, int)
    return Decimal("0.5").scaleb(exponent) * (abs(fact.value) / fact.written if fact.written else 0)


def is_of_shares(source: Source) -> bool:
    """May bare figures be percentages? An exhibit that lists holdings says so once, at its head."""
    return "percent" in source.text[:3000].lower() and not unit_note(source.text[:200000], is_document=True)


def _above(source: Source, position: int) -> str:
    """The headings and short paragraphs right above a table."""
    texts: list[str] = []
    for block in reversed(source.blocks[max(0, position - 5) : position]):
        text = source.text[block.start : block.end]
        if block.kind == "table":
            break
        texts.insert(0, text[-400:])
        if len(text) > 300:
            break
    return "\n".join(texts)


# ---------------------------------------------------------------------------------------------- one table


def _table(reader: _Reader, block: Block, above: str, section: str, number: int) -> set[int]:
    """Bind the figures of a table; returns the places of the tags that were bound to its cells."""
    bound: set[int] = set()
    tags = {tag.start: tag for tag in reader.source.tags if block.start <= tag.start < block.end}
    context = f"{above}\n{block.lead}" if block.lead else above
    body = reader.source.text[block.start : block.end]
    head_text = "\n".join(" ".join(cell.text for cell in row.cells) for row in block.rows[:6] if not _figures(row))
    note = unit_note(head_text) or unit_note(_last_lines(context)) or reader.default
    if not note.currency:
        note = note.with_currency(unit_note(body).currency or _sign_in(body))
    share_power = _share_power(f"{context}\n{head_text}")
    title = reader.words(f"{_last_lines(context, 3)} {section}"[-240:])
    caption = reader.periods(_last_lines(context))
    head: list[Row] = []
    head_is_open = True
    parents: list[str] = []
    previous = block.rows[0]
    for row in block.rows:
        figures = _figures(row)
        if not figures or _is_head(row, reader):
            _loose_row(reader, row, previous, number)
            previous = row
            if len(row.cells) > 1 and all(re.fullmatch(r"[\s$—–‒-]+", cell.text) for cell in row.cells[1:]):
                continue  # a row of dashes is no head
            if not head_is_open and row.cells[0].left == 0 and len(row.cells) > 1 and not _says_time(row, reader):
                continue  # nor is one of words
            if len(row.cells) == 1 and row.cells[0].left == 0:
                parents = [row.cells[0].text] if not _is_unit_line(row.cells[0].text) else parents
            else:
                if not head_is_open:
                    head, head_is_open = [], True
                head.append(row)
            continue
        head_is_open = False
        previous = row
        label = "" if _fills(row.cells[0]) else row.cells[0].text
        is_rates = "%" in body and not note.is_said and _sign_in(body) == ""
        told = _RowText(row, label, parents, head, title, caption, note, share_power, number, block.lead, is_rates)
        bound |= _row(reader, told, figures, tags)
        if re.match(r"\W*(?:total|合计|小计)", label, re.IGNORECASE):
            parents = []
    return bound


@dataclass(frozen=True, slots=True)
class _RowText:
    row: Row
    label: str
    parents: list[str]
    head: list[Row]
    title: frozenset[str]
    caption: Sequence[When]
    note: UnitNote
    share_power: int
    """Power of ten of counts of shares, where a note says so apart ("shares in thousands")."""
    table: int
    lead: str
    is_rates: bool
    """Some figures of the table have a percent sign and nothing says what the others count."""


def _row(reader: _Reader, text: _RowText, figures: Sequence[tuple[Cell, Figure]], tags: dict[int, Tag]) -> set[int]:
    """Bind the figures of a row; returns the places of their tags."""
    bound: set[int] = set()
    own = reader.words(bare_label(text.label))
    of_label = periods_said(text.label, reader.filing.language)  # 当期 in a label names no column
    of_parent = [when for parent in text.parents for when in reader.periods(parent)]
    of_row = [when for cell, _ in figures for when in reader.periods(_column_text(cell, text))]
    for cell, figure in figures:
        column = _column_text(cell, text)
        of_column = reader.periods(column) or _lead_period(cell, text)
        tag = next((tags[at] for at in range(cell.start, cell.end) if at in tags), None)
        told_first = (
            of_column if len(own) > 2 else of_label
        )  # a label that is more than a period leaves that to its column
        periods = tuple(told_first or of_label or of_column or of_parent or text.caption or reader.own_period)
        column_words = reader.words(column)
        around = column_words | text.title | frozenset().union(*(reader.words(parent) for parent in text.parents))
        if tag is not None:
            _tag_fact(reader, tag, own, around, text.table, label=text.label)
            bound.add(tag.start)
            continue
        line = _line(reader, Words((own or column_words, *_joined(own, column_words)), around, text.table))
        is_change = (bool(_CHANGE.search(column)) and not of_column) or bool(re.search(r"增减|同比|变动幅度", column))
        for fact in _cell_fact(figure, cell, text, column, line, periods, may_be_share=reader.is_of_shares):
            reader.facts.append(fact if not is_change else _changed(fact, of_column or of_row))
    return bound


def bare_label(label: str) -> str:
    """A row's label without its number and without the note on signs: 一、营业收入, 投资收益（损失以“-”号填列）."""
    label = re.sub(r"[（(][^（）()]*填列[）)]", "", label)
    return re.sub(r"^\s*(?:[（(]?[一二三四五六七八九十\d]{1,3}[）)、.．]\s*|其中[：:]|[加减][：:])+(?=\D)", "", label)


def _joined(own: frozenset[str], column: frozenset[str]) -> tuple[frozenset[str], ...]:
    return (own | column,) if own and column - own else ()


def _changed(fact: BoundFact, periods: Sequence[When]) -> BoundFact:
    latest = sorted({when.year for when in periods})[-2:]  # of three years' columns the change is that of the last two
    kept = tuple(when for when in periods if when.year in latest)
    return replace(fact, moved="down" if fact.value < 0 else "up", periods=kept)


def _line(reader: _Reader, words: Words) -> int:
    """Return the number of a line's words; the cells of a row mostly share them."""
    for number in range(len(reader.lines) - 1, max(-1, len(reader.lines) - 6), -1):
        if reader.lines[number] == words:
            return number
    reader.lines.append(words)
    return len(reader.lines) - 1


def _cell_fact(
    figure: Figure,
    cell: Cell,
    text: _RowText,
    column: str,
    line: int,
    periods: tuple[When, ...],
    *,
    may_be_share: bool,
) -> Iterator[BoundFact]:
    label = narrow(f"{text.label} {' '.join(text.parents)}")
    near = unit_note(narrow(text.label)) or unit_note(narrow(column))
    note = near.or_currency(text.note) if near else text.note
    words = f"{label} {narrow(column)}"
    is_count = bool(_COUNT.search(label) or _COUNT_COLUMN.search(column))
    power, unit, currency = note.power, figure.unit, figure.currency or note.currency
    others: tuple[Decimal, ...] = ()
    things = (
        "shares"
        if re.search(r"\bshares\b(?!\s+of common stock\b.{0,9}\bamount)|股数|[（(]股[）)]", words, re.IGNORECASE)
        else ""
    )
    if figure.unit == "percent":
        power, currency = 0, ""
    elif counted := _unit_cell(text.row):
        power, unit, currency = counted.power, "currency" if counted.currency else "plain", counted.currency
    elif _PER_SHARE.search(words) and not near.power:
        power, unit = 0, "per-share"
    elif figure.unit == "plain" and re.search(r"[（(]\s?%\s?[）)]|%", f"{text.label} {column}"):
        power, unit, currency = 0, "percent", ""
    elif figure.unit == "plain":
        unit = "currency" if currency and not is_count else "plain"
        if (may_be_share or text.is_rates or _RATE.search(words)) and abs(figure.value) < 1000:
            others = (figure.value,)
            yield _made(figure, cell, 0, "percent", "", periods, line)
        if things and text.share_power:
            power = text.share_power
        elif is_count and power:
            others = (figure.value,)
        elif text.share_power:
            others = (figure.value.scaleb(text.share_power),)
    elif is_count and power and not near.power:
        others = (figure.value,)  # "$" before a price of one option among amounts in thousands
    yield _made(figure, cell, power, unit, currency, periods, line, others, things)


def _unit_cell(row: Row) -> UnitNote | None:
    """A column of units says what its row counts: 销售量 | 套 | 9,353."""
    for cell in row.cells[1:]:
        found = _UNIT_CELL.fullmatch(narrow(cell.text).strip())
        if found:
            return UnitNote(SCALES.get(found["scale"] or "", 0), "CNY" if found["unit"] == "元" else "", is_said=True)
    return None


_UNIT_CELL = re.compile(
    r"(?P<scale>万|亿|百万|千)?(?P<unit>元|套|台|吨|个|件|辆|股|人|户|千瓦时|度|米|公里|平方米|只|箱|瓶)"
)


def _made(
    figure: Figure,
    cell: Cell,
    power: int,
    unit: Unit,
    currency: str,
    periods: tuple[When, ...],
    line: int,
    others: tuple[Decimal, ...] = (),
    things: str = "",
) -> BoundFact:
    return BoundFact(
        value=figure.value.scaleb(power),
        unit=unit,
        currency=currency,
        periods=periods,
        line=line,
        start=cell.start,
        end=cell.end,
        origin="cell",
        written=abs(figure.value),
        others=others,
        things=things,
    )


def _loose_row(reader: _Reader, row: Row, previous: Row, table: int) -> None:
    """Figures beside words in a cell ("7.50 Russia"): the row and the one before lend their words, no unit is sure."""
    text = " ".join(cell.text for cell in row.cells)
    amounts = [figure for figure in find_figures(text) if not (figure.is_date or figure.is_label)]
    if not amounts:
        return
    words = reader.words(f"{text} {' '.join(cell.text for cell in previous.cells)}")
    reader.lines.append(Words((words,), frozenset(), 0))
    for figure in amounts:
        cell = replace(row.cells[0], start=row.start, end=row.end)
        for unit in (figure.unit, *(("percent",) if figure.unit == "plain" and reader.is_of_shares else ())):
            made = _made(figure, cell, 0, unit, figure.currency, (), len(reader.lines) - 1)
            reader.facts.append(replace(made, origin="sentence", written=abs(figure.value)))


# ---------------------------------------------------------------------------------------------- rows and columns


def _figures(row: Row) -> list[tuple[Cell, Figure]]:
    """The cells that hold one figure and nothing else but a footnote mark, those of the label's column apart."""
    found = []
    cells = row.cells if _fills(row.cells[0]) else row.cells[1:]
    for cell in cells:
        body = re.sub(r"(?<=\d)\s*\((?:[a-z]|\d)\)$", "", cell.text)
        figure = cell_figure(re.sub(r"^(?:Up|Down)\s", "", body))
        if figure is not None:
            found.append((cell, figure))
    return found


def _fills(cell: Cell) -> bool:
    """Does a figure fill the first cell, so that the row has no label?"""
    return cell_figure(cell.text) is not None and not re.fullmatch(r"(?:19|20)\d\d", cell.text.strip())


def _is_head(row: Row, reader: _Reader) -> bool:
    """Are all figures of a row years: the head of a table?"""
    cells = [cell for cell in row.cells if cell_figure(cell.text)]
    return all(re.fullmatch(r"(?:19|20)\d\d\s?年?", narrow(cell.text).strip()) for cell in cells)


def _says_time(row: Row, reader: _Reader) -> bool:
    """Do the cells after the label say periods or units, so that a second head begins inside a table?"""
    return any(reader.periods(cell.text) or unit_note(cell.text) for cell in row.cells[1:])


def _is_unit_line(text: str) -> bool:
    return bool(unit_note(text)) and len(text) < 60


def _column_text(cell: Cell, text: _RowText) -> str:
    """What stands above a cell, top to bottom; a head's cell that spans nothing said holds until the next one."""
    pieces = []
    for row in text.head:
        above = [head for head in row.cells if head.left < cell.right and cell.left < head.right and head.left > 0]
        if not above and not any(head.right - head.left > 1 for head in row.cells):
            named = [head for head in row.cells if head.left > 0]
            before = [head for head in named if head.left <= cell.left]
            above = before[-1:] or named[:1]
        pieces += [_tidy(head.text) for head in above]
    return " ".join(pieces)


def _tidy(head: str) -> str:
    """A head's text as its reader takes it: "2 0 1 8" is a year, and "%" below "2019" no share of it."""
    joined = re.sub(r"(?<!\d)([12]) (\d) (\d) (\d)(?!\d)", r"\1\2\3\4", head)
    return "(%)" if joined.strip() == "%" else joined


@lru_cache(maxsize=256)
def _columns_of(lead: str) -> tuple[Column, ...]:
    """The columns that the last run of head lines above a plain-text table names, unit notes among them allowed."""
    run: list[str] = []
    for line in reversed(lead.split("\n")):
        if is_header(line) or is_chinese_header(line):
            run.insert(0, line)
        elif run and not re.fullmatch(r"[(（].*[)）]", line):
            break
    return header_columns("\n".join(run))


def _lead_period(cell: Cell, text: _RowText) -> list[When]:
    """The period of a column in a plain-text table, whose head is running text above it."""
    if text.head or not text.lead:
        return []
    columns = _columns_of(text.lead)
    cells = [one for one in text.row.cells[1:] if not re.fullmatch(r"\(\w\)", one.text)]
    if len(columns) != len(cells) or cell not in cells:
        return []
    period = columns[cells.index(cell)].period
    if period is None:
        return []
    is_bare = period.months == 12 and not period.month  # the head of a balance sheet may say no more than a year
    return [When(period.year, UNSAID if is_bare else period.months, period.month, period.day, period.quarter)]


def _share_power(text: str) -> int:
    found = re.search(r"\bshares?\b(?:\s+data)?[^()\n]{0,40}\bin\s+(thousands|millions)", text, re.IGNORECASE)
    return {"thousands": 3, "millions": 6}[found[1].lower()] if found else 0


def _last_lines(text: str, count: int = 6) -> str:
    return "\n".join(text.split("\n")[-count:])


def _sign_in(body: str) -> str:
    for sign, code in (("$", "USD"), ("€", "EUR"), ("£", "GBP"), ("元", "CNY"), ("¥", "CNY")):
        if sign in body:
            return code
    return ""


# ---------------------------------------------------------------------------------------------- inline XBRL


def _tag_fact(
    reader: _Reader, tag: Tag, own: frozenset[str], around: frozenset[str], table: int, label: str = ""
) -> None:
    concept, members = _tag_words(reader, tag)
    wordings = tuple(dict.fromkeys(bag for bag in (own, own | members, concept | members) if bag))
    line = _line(reader, Words(wordings, around | concept | members, table, members - own - around))
    unit, currency, things = _tag_unit(tag, label)
    value = tag.value * 100 if unit == "percent" else tag.value
    shown = cell_figure(reader.source.text[tag.start : tag.end])
    reader.facts.append(
        BoundFact(
            value=value,
            unit=unit,
            currency=currency,
            periods=(of_dates(tag.since, tag.until),),
            line=line,
            start=tag.start,
            end=tag.end,
            origin="tag",
            written=abs(shown.value) if shown else abs(value),
            things=things,
        )
    )


def _tag_words(reader: _Reader, tag: Tag) -> tuple[frozenset[str], frozenset[str]]:
    concept = tokens(camel_words(tag.concept), "en")
    members = tokens(" ".join(camel_words(member) for member in tag.dimensions), "en")
    return concept, members


def _tag_unit(tag: Tag, label: str) -> tuple[Unit, str, str]:
    if tag.unit == "pure":
        return "percent", "", ""
    if "/" in tag.unit or re.search(r"PerShare|GrantDateFairValue$", tag.concept):
        return "per-share", tag.unit.split("/")[0], ""
    if tag.unit == "shares":
        return "plain", "", "shares"
    return ("currency", tag.unit, "") if re.fullmatch(r"[A-Z]{3}", tag.unit) else ("plain", "", "")


def _loose_tags(reader: _Reader, inside: set[int], tables: int) -> None:
    """Tags in running text: the sentence around them lends its words."""
    text = reader.source.text
    for tag in reader.source.tags:
        if tag.start in inside:
            continue
        left = max(text.rfind("\n", 0, tag.start), text.rfind(". ", 0, tag.start)) + 1
        right = text.find("\n", tag.end)
        sentence = text[left : right if right > 0 else None][:400]
        _tag_fact(reader, tag, frozenset(), reader.words(sentence), tables + 1)
