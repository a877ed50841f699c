"""Plain text and Markdown to blocks, in place: the text is the file's own, only line ends are unified.

A plain-text filing shows a table as lines that end in figures, whether its columns are aligned or not:

    Net sales:
    Products $ 294,866 $ 298,085 $ 316,199        label, then values
    Services (1)                                  label, its values on the next line
    96,169 85,200 78,129

The lines above the first such row (`lead`) name the columns and the unit.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from selfqa.blocks import Block, Cell, Row, Source
from selfqa.periods import is_chinese_header, is_header
from selfqa.sections import is_section_title

_NUMBER = r"(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)"
_VALUE = (
    r"(?:(?:US|HK)?[$€£¥]\s?)?(?:[(（]\s?)?(?:[$€£¥]\s?)?[-−]?"
    + _NUMBER
    + r"(?:\s?[)）])?(?:\s?(?:[%％]|pts\b))?(?:\s?[)）])?(?![\w,.])"
)
_VALUE = rf"(?:(?:Up|Down)\s)?{_VALUE}"
_DASH = r"(?:[$€£¥]\s?)?[—–-]+(?:\s?%)?(?=\s|$)"
_VALUES = re.compile(rf"(?:(?:{_VALUE}|{_DASH})(?:[\s|]+|$))+$")
_ONE = re.compile(rf"{_VALUE}|{_DASH}")
_YEAR = re.compile(r"^(?:19|20)\d\d$")
_SKIP = re.compile(
    r"^(?:\d{1,3}|table of contents|[-=_. ]{3,}|.{0,60}\|.{0,60}\|\s?\d{1,3}|\(continued\))$", re.IGNORECASE
)
_TIME = re.compile(
    r"\b(?:19|20)\d\d\b|\bended\b|\bas of\b|\bat (?:january|march|june|september|december)", re.IGNORECASE
)
_UNIT = re.compile(r"\b(?:millions?|thousands?|billions?)\b|单位", re.IGNORECASE)
MAX_LABEL = 110


def read_text(text: str) -> Source:
    """Read plain text, a page of a PDF's text included."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return Source("", "", text, tuple(text_blocks(text, 0, len(text))))


def text_blocks(text: str, begin: int, stop: int) -> Iterator[Block]:
    """Yield the blocks of text[begin:stop], in order: headings, paragraphs, and tables that are lines of figures."""
    found: list[Block] = []
    for block in _Tables(text, begin, stop).blocks():
        while found and found[-1].start >= block.start:  # lines above a table that turned out to head its rows
            found.pop()
        found.append(block)
    yield from found


def ends_in_figures(line: str) -> bool:
    """Is the line a row of a table rather than part of a sentence: a label and then nothing but figures?"""
    return _has_only_values(line) or bool(_split(line)[0])


def read_markdown(text: str) -> Source:
    """Read Markdown: `#` headings, pipe tables, the rest as paragraphs; other marks stay as they are."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    blocks: list[Block] = []
    plain_from = 0
    for start, end, kind in _markdown_parts(text):
        blocks += text_blocks(text, plain_from, start)
        if kind == "table":
            blocks += _pipe_table(text, start, end)
        else:
            body = text[start:end]
            inner = start + len(body) - len(body.lstrip("# "))
            if inner < end:
                blocks.append(Block("heading", inner, end))
        plain_from = end
    blocks += text_blocks(text, plain_from, len(text))
    title = next((text[block.start : block.end] for block in blocks if block.kind == "heading"), "")
    return Source("", "", text, tuple(blocks), title=title)


def _markdown_parts(text: str) -> Iterator[tuple[int, int, str]]:
    pattern = re.compile(r"^#{1,6} .*$|(?:^[ \t]*\|.*\|[ \t]*(?:\n|$)){2,}", re.MULTILINE)
    for match in pattern.finditer(text):
        is_heading = match[0].startswith("#")
        yield (
            match.start(),
            match.end() - (0 if is_heading or not match[0].endswith("\n") else 1),
            ("heading" if is_heading else "table"),
        )


def _pipe_table(text: str, start: int, end: int) -> Iterator[Block]:
    rows = []
    for line in re.finditer(r"[^\n]+", text[start:end]):
        if re.fullmatch(r"[\s|:-]+", line[0]):
            continue
        cells = []
        for number, cell in enumerate(re.finditer(r"[^|]+", line[0].strip().strip("|"))):
            body = cell[0].strip().strip("*_")
            at = text.find(body, start + line.start() + cell.start()) if body else 0
            if body:
                cells.append(Cell(at, at + len(body), number, number + 1, body))
        if cells:
            rows.append(Row(start + line.start(), start + line.end(), tuple(cells)))
    if rows:
        yield Block("table", rows[0].start, rows[-1].end, tuple(rows))


@dataclass(slots=True)
class _Line:
    start: int
    end: int
    text: str
    opens_group: bool


@dataclass(slots=True)
class _Tables:
    """Cuts text[begin:end] into blocks; tables are runs of lines that end in figures."""

    text: str
    begin: int
    stop: int
    lead: list[_Line] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    labels: int = 0
    headed: int = 0
    """How many lines of `lead` stand above and in the header; those after it head the first rows."""
    notes: list[_Line] = field(default_factory=list)
    """Lines of `lead` right above here that are in no block yet: units and headers."""

    def blocks(self) -> Iterator[Block]:
        """Yield the blocks in order."""
        lines = list(self._lines())
        number = 0
        while number < len(lines):
            line = lines[number]
            after = lines[number + 1] if number + 1 < len(lines) else None
            number += 1
            if _SKIP.match(line.text):
                continue
            if is_section_title(line.text):
                yield from self._end_table()
                yield Block("heading", line.start, line.end)
                self.lead, self.headed, self.notes = [], 0, []
                continue
            if is_header(line.text) or is_chinese_header(line.text) or _is_note(line.text):
                yield from self._end_table()
                self.lead = [*self.lead[-9:], line]
                self.headed = len(self.lead)
                self.notes.append(line)
                continue
            is_split = after is not None and not after.opens_group and _has_only_values(after.text)
            row = self._row(line, after) if is_split and after is not None else None
            number += row is not None
            row = row or self._row(line, line)
            if row is not None:
                if not self.rows:
                    self._adopt_parents()
                self.rows.append(self._with_wrapped_label(row, line))
                self.labels = 0
                continue
            if self._is_parent(line):
                self.rows.append(Row(line.start, line.end, (_label_cell(line),)))
                self.labels += 1
                continue
            yield from self._end_table()
            self.notes.clear()
            yield from self._prose(line, lines, number)
            while number < len(lines) and not self._begins_block(lines[number]) and _is_prose(line.text):
                number += 1
        yield from self._end_table()
        # a note or header that no figures follow here belongs to a table of another kind, right below
        yield from (Block("paragraph", line.start, line.end) for line in self.notes)

    def _begins_block(self, line: _Line) -> bool:
        return line.opens_group or is_section_title(line.text)

    def _lines(self) -> Iterator[_Line]:
        opens = True
        for match in re.finditer(r"[^\n]*\n?", self.text[self.begin : self.stop]):
            body = match[0].strip()
            if not body:
                opens = True
                continue
            start = self.begin + match.start() + match[0].index(body[0])
            yield _Line(start, start + len(body), body, opens)
            opens = False

    def _row(self, first: _Line, last: _Line) -> Row | None:
        """Read a label and its values, from one line or from two."""
        whole = self.text[first.start : last.end]
        if first is last:
            label, at = _split(whole)
        else:
            label, at = first.text, len(first.text)
        label = re.sub(r"[\s.…·]+$", "", label)
        if (
            not re.search(r"[^\W\d_]", label)
            or len(label) > MAX_LABEL
            or (re.search(r"[.:;：]$", label) and first is last)
        ):
            return None
        values = list(_ONE.finditer(whole, at))
        if not values or all(_YEAR.match(value[0]) for value in values):
            return None
        cells = [Cell(first.start, first.start + len(label), 0, 1, label)]
        for column, value in enumerate(values, start=1):
            start = first.start + value.start()
            cells.append(Cell(start, start + len(value[0].rstrip()), column, column + 1, value[0].rstrip()))
        return Row(first.start, last.end, tuple(cells))

    def _adopt_parents(self) -> None:
        """Lines between the header and the first row head the rows: "Net sales:" above "Products"."""
        parents = self.lead[self.headed :] if self.headed else []
        if 0 < len(parents) <= 2 and not any(_is_prose(line.text) for line in parents):
            self.lead = self.lead[: self.headed]
            self.rows = [Row(line.start, line.end, (_label_cell(line),)) for line in parents]

    def _with_wrapped_label(self, row: Row, line: _Line) -> Row:
        """Put a label back together whose first half stands on the line above."""
        above = self.rows[-1] if self.rows else None
        if above is None or len(above.cells) > 1 or line.opens_group or not row.cells[0].text[0].islower():
            return row
        self.rows.pop()
        label = Cell(above.start, row.cells[0].end, 0, 1, f"{above.cells[0].text} {row.cells[0].text}")
        return Row(above.start, row.end, (label, *row.cells[1:]))

    def _is_parent(self, line: _Line) -> bool:
        """Is a line without values inside a table a heading of the rows below it? Three in a row end the table."""
        is_prose = _is_prose(line.text) and not line.text.endswith((":", "："))
        if not self.rows or is_prose or len(line.text) > MAX_LABEL or self.labels >= 2:
            return False
        return not (_TIME.search(line.text) or _UNIT.search(line.text) or line.text.startswith(("(", "#")))

    def _prose(self, line: _Line, lines: list[_Line], number: int) -> Iterator[Block]:
        end = line.end
        if _is_prose(line.text):
            while number < len(lines) and not self._begins_block(lines[number]):
                end = lines[number].end
                number += 1
            yield Block("paragraph", line.start, end)
            self.lead, self.headed = ([line] if len(line.text) < 400 else []), 0
        else:
            yield Block("heading" if _is_heading(line.text) else "paragraph", line.start, end)
            self.lead = [*self.lead[-9:], line]

    def _end_table(self) -> Iterator[Block]:
        rows, self.rows, self.labels = self.rows, [], 0
        after: list[_Line] = []  # labels after the last figures head what follows
        while rows and len(rows[-1].cells) == 1:
            last = rows.pop()
            after.insert(0, _Line(last.start, last.end, self.text[last.start : last.end], True))
        if rows:
            lead = "\n".join(line.text for line in self.lead)
            yield Block("table", rows[0].start, rows[-1].end, tuple(rows), lead)
            self.lead, self.headed = after, 0
            self.notes.clear()


def _label_cell(line: _Line) -> Cell:
    return Cell(line.start, line.end, 0, 1, line.text)


def _is_note(line: str) -> bool:
    """A unit note on a line of its own: `(In millions, except per share data)`, 单位：元."""
    return bool(re.fullmatch(r"[(（].*[)）]|.{0,12}单位[：:].{1,12}", line)) and bool(_UNIT.search(line))


def _has_only_values(line: str) -> bool:
    return bool(_VALUES.match(line)) and any(char.isdigit() for char in line)


def _split(line: str) -> tuple[str, int]:
    """Return the label of a line and where its values begin: the earliest place from which all is values."""
    for match in re.finditer(r"(?:(?<=[\s|)）.])|(?<=[\u4e00-\u9fff]))(?=[\d$€£¥(（—–.-])", line):
        if _VALUES.match(line, match.start()):
            return line[: match.start()], match.start()
    return "", len(line)


def _is_prose(line: str) -> bool:
    """A sentence rather than a label."""
    return (
        len(line) > MAX_LABEL
        or (bool(re.search(r"[.;。；:：]$", line)) and len(line.split()) > 7)
        or line.count("，") > 1
    )


def _is_heading(line: str) -> bool:
    """A short line that ends no sentence; not what a Chinese report ticks: `□ 适用 √ 不适用`."""
    is_open = not line.endswith((".", "。", ",", "，", ";", "；")) and not line.startswith(("□", "√", "☑"))
    return len(line) <= 100 and is_open and bool(re.search(r"[^\W\d_]", line))
