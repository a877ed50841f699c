"""HTML and inline XBRL to text with exact places, in one walk.

Line breaks follow the block elements; a table row is one line, its cells joined by " | ", with a currency sign, a
closing parenthesis or a percent sign that has its own cell put back beside its number. The hidden XBRL header and
`display: none` are left out, footnote marks keep their distance from numbers, and no character is normalised beyond
white space.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from lxml import etree

from selfqa.blocks import Block, BlockKind, Cell, Row, Source, Tag
from selfqa.flow import Flow
from selfqa.ixbrl import Context, contexts_of, note_tag, plain, units_of
from selfqa.sections import is_section_title
from selfqa.signs import belong_together
from selfqa.unread import Unreadable

HIDDEN = {"head", "script", "style", "ix:header", "ix:hidden", "noscript", "template"}
HEADINGS = {"h1", "h2", "h3", "h4", "h5", "h6", "h"}
_BOLD = re.compile(r"font-weight:\s*(?:bold|[6-9]00)", re.IGNORECASE)
_ENDS_SENTENCE = (".", "。", ";", "；", ",", "，", ":", "：")
BREAKS = HEADINGS | {
    "table",  # one with tables in it is a layout, not a table
    "caption",
    "tr",
    "td",
    "th",
    "p",
    "div",
    "li",
    "ul",
    "ol",
    "br",
    "hr",
    "section",
    "article",
    "blockquote",
    "dd",
    "dt",
    "pre",
    "body",
}


def read_html(markup: str) -> Source:
    """Read a page; `path` and `sha256` are the caller's to fill.

    Raises:
        Unreadable: There is no element in it, or too many inside each other.
    """
    parser = etree.HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True, huge_tree=True)
    root = etree.fromstring(markup.encode("utf-8"), parser)
    if root is None:
        raise Unreadable("no-text", "has no element of HTML")
    if any(error.type_name == "ERR_RESOURCE_LIMIT" for error in parser.error_log):  # the parser drops the rest
        raise Unreadable("file-damaged", "has more than 2,048 elements inside each other: its marks are never closed")
    contexts, units = contexts_of(root), units_of(root)
    walker = _Walker(contexts, units)
    walker.walk(root)
    title = plain(root.find(".//title"))
    names = {
        str(element.get("name")): plain(element)
        for element in root.iter("ix:nonnumeric")
        if str(element.get("name")).startswith("dei:")
    }
    text = "".join(walker.out)
    return Source(
        "", "", text, tuple(walker.blocks), tuple(sorted(walker.tags, key=lambda tag: tag.start)), title, names
    )


class _Walker:
    def __init__(self, contexts: dict[str, Context], units: dict[str, str]) -> None:
        self.contexts, self.units = contexts, units
        self.out: list[str] = []
        self.length = 0
        self.blocks: list[Block] = []
        self.tags: list[Tag] = []
        self.flow = Flow()
        self.kind: BlockKind = "paragraph"
        self.bold: list[etree._Element] = []
        """Elements that are open and make their text bold."""
        self.letters, self.bold_letters = 0, 0

    def walk(self, root: etree._Element) -> None:
        """Write the whole page: text before an element's children when it opens, the text after it when it closes."""
        skipped: etree._Element | None = None
        opened: dict[etree._Element, int] = {}
        for event, element in etree.iterwalk(root, events=("start", "end")):
            if skipped is not None:
                if event == "end" and element is skipped:
                    skipped = None
                    self._add(element.tail)
                continue
            if event == "start":
                if _is_hidden(element):
                    skipped = element
                elif element.tag == "table" and next(element.iterdescendants("table"), None) is None:
                    self._break()
                    self._table(element)
                    skipped = element
                else:
                    self._open(element, opened)
            else:
                self._close(element, opened)
        self._break()

    def _open(self, element: etree._Element, opened: dict[etree._Element, int]) -> None:
        if element.tag in BREAKS:
            self._break()
        if element.tag in HEADINGS:
            self.kind = "heading"
        if element.tag == "ix:nonfraction":
            opened[element] = len(self.flow)
        if _is_footnote_mark(element):
            self.flow.space()
        if _is_bold(element):
            self.bold.append(element)
        self._add(element.text)

    def _close(self, element: etree._Element, opened: dict[etree._Element, int]) -> None:
        if element in opened:
            note_tag(element, self.flow, opened.pop(element), self.contexts, self.units)
        if element.tag in BREAKS:
            self._break()
        if element.tag in HEADINGS:
            self.kind = "paragraph"
        if self.bold and element is self.bold[-1]:
            self.bold.pop()
        self._add(element.tail)

    def _add(self, piece: str | None) -> None:
        if piece:
            self.flow.add(piece)
            self.letters += len(piece.strip())
            self.bold_letters += len(piece.strip()) * bool(self.bold)

    def _break(self) -> None:
        """End the current line; what was gathered becomes a block."""
        text, tags = self.flow.text, self.flow.tags
        if not text:
            return
        is_bold = self.bold_letters == self.letters
        is_marked = self.kind == "heading" and (len(text) <= 60 or _may_head(text))  # some mark whole pages so
        is_heading = is_marked or is_section_title(text) or (is_bold and _may_head(text))
        start = self.length
        self._write(text)
        self.blocks.append(Block("heading" if is_heading else "paragraph", start, self.length))
        self.tags += [replace(tag, start=tag.start + start, end=tag.end + start) for tag in tags]
        self._write("\n\n")
        self.flow, self.kind = Flow(), "paragraph"
        self.letters, self.bold_letters = 0, 0

    def _write(self, text: str) -> None:
        self.out.append(text)
        self.length += len(text)

    def _table(self, table: etree._Element) -> None:
        rows = []
        begin, at_parts = self.length, len(self.out)
        for cells in _grid(table, self.contexts, self.units):
            start = self.length
            placed = []
            for number, (left, right, flow) in enumerate(cells):
                if number:
                    self._write(" | ")
                at = self.length
                self._write(flow.text)
                placed.append(Cell(at, self.length, left, right, flow.text))
                self.tags += [replace(tag, start=tag.start + at, end=tag.end + at) for tag in flow.tags]
            rows.append(Row(start, self.length, tuple(placed)))
            self._write("\n")
        if not rows:
            return
        end = rows[-1].end
        if len(rows) == 1 and is_section_title("".join(self.out[at_parts:])[:-1]):
            self.blocks.append(Block("heading", begin, end))
        elif max(len(row.cells) for row in rows) == 1:  # laid out as a table, read as text
            self.blocks += [Block("paragraph", row.start, row.end) for row in rows]
        else:
            self.blocks.append(Block("table", begin, end, tuple(rows)))
        self._write("\n")


def _is_hidden(element: etree._Element) -> bool:
    if not isinstance(element.tag, str) or element.tag in HIDDEN:
        return True
    return "display:none" in (element.get("style") or "").replace(" ", "").lower()


def _is_bold(element: etree._Element) -> bool:
    if element.tag in ("b", "strong"):
        return True
    style = element.get("style")
    return style is not None and _BOLD.search(style) is not None


def _may_head(text: str) -> bool:
    """Is a bold line a heading, not a sentence and not a row of figures?"""
    return len(text) <= 150 and not text.endswith(_ENDS_SENTENCE) and any(char.isalpha() for char in text)


def _is_footnote_mark(element: etree._Element) -> bool:
    style = (element.get("style") or "").replace(" ", "").lower()
    return element.tag == "sup" or "vertical-align:super" in style or "vertical-align:top;font-size:5" in style


def _grid(
    table: etree._Element, contexts: dict[str, Context], units: dict[str, str]
) -> Iterator[list[tuple[int, int, Flow]]]:
    """Yield each row's filled cells with their grid columns, signs put back to their numbers."""
    above: list[_Covered] = []
    own = (row for row in table.iter("tr") if next(row.iterancestors("table")) is table)
    for number, row in enumerate(own):
        column, passed = 0, 0
        cells, opened = [], []
        for cell in row:
            if cell.tag not in ("td", "th"):
                continue
            while passed < len(above) and above[passed].left <= column:
                column = max(column, above[passed].right)
                passed += 1
            width, height = _span(cell, "colspan"), _span(cell, "rowspan")
            if height > 1:
                opened.append(_Covered(column, column + width, number + height))
            flow = _cell_flow(cell, contexts, units)
            if flow.text:
                cells.append((column, column + width, flow))
            column += width
        above = sorted(covered for covered in above + opened if covered.until > number + 1)
        if cells:
            yield _joined(cells)


class _Covered(NamedTuple):
    """Columns that a cell from above covers in the rows before `until`."""

    left: int
    right: int
    until: int


def _span(cell: etree._Element, name: str) -> int:
    value = cell.get(name) or "1"
    return min(int(value), 1000) if value.isdigit() and int(value) > 0 else 1


def _cell_flow(cell: etree._Element, contexts: dict[str, Context], units: dict[str, str]) -> Flow:
    flow = Flow()
    opened: dict[etree._Element, int] = {}
    hidden: etree._Element | None = None
    for event, element in etree.iterwalk(cell, events=("start", "end")):
        if hidden is not None:
            if event == "end" and element is hidden:
                hidden = None
                flow.add(element.tail or "")
            continue
        if event == "start":
            if _is_hidden(element):
                hidden = element
                continue
            if element.tag in BREAKS or _is_footnote_mark(element):
                flow.space()
            if element.tag == "ix:nonfraction":
                opened[element] = len(flow)
            flow.add(element.text or "")
        else:
            if element in opened:
                note_tag(element, flow, opened.pop(element), contexts, units)
            if element is not cell:
                if element.tag in BREAKS:
                    flow.space()
                flow.add(element.tail or "")
    return flow


def _joined(cells: list[tuple[int, int, Flow]]) -> list[tuple[int, int, Flow]]:
    """Put `$`, `(`, `)` and `%` that stand in cells of their own back to the number beside them."""
    joined: list[tuple[int, int, Flow]] = []
    for left, right, flow in cells:
        previous = joined[-1] if joined else None
        if previous and belong_together(previous[2].text, flow.text):
            shift = len(previous[2].text)
            tags = [replace(tag, start=tag.start + shift, end=tag.end + shift) for tag in flow.tags]
            both = Flow(previous[2].text + flow.text, previous[2].tags + tags)
            joined[-1] = (previous[0], right, both)
        else:
            joined.append((left, right, flow))
    return joined
