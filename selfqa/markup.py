"""HTML and inline XBRL to text with exact places, in one walk.

Line breaks follow the block elements; a table row is one line, its cells joined by " | ", with a currency sign, a
closing parenthesis or a percent sign that has its own cell put back beside its number. The hidden XBRL header and
`display: none` are left out, footnote marks keep their distance from numbers, and no character is normalised beyond
white space.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from decimal import Decimal, InvalidOperation

from lxml import etree

from selfqa.blocks import Block, BlockKind, Cell, Row, Source, Tag
from selfqa.unread import Unreadable

HIDDEN = {"head", "script", "style", "ix:header", "ix:hidden", "noscript", "template"}
HEADINGS = {"h1", "h2", "h3", "h4", "h5", "h6", "h"}
BREAKS = HEADINGS | {
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
_SPACE = re.compile(r"\s+")
_IS_WIDE = re.compile(r"[\u3000-\u30ff\u3400-\u9fff\uff00-\uffef]")


def read_html(markup: str) -> Source:
    """Read a page; `path` and `sha256` are the caller's to fill.

    Raises:
        Unreadable: There is no element in it.
    """
    parser = etree.HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True)
    root = etree.fromstring(markup.encode("utf-8"), parser)
    if root is None:
        raise Unreadable("no-text", "has no element of HTML")
    contexts, units = _contexts(root), _units(root)
    walker = _Walker(contexts, units)
    walker.walk(root)
    title = _plain(root.find(".//title"))
    names = {
        str(element.get("name")): _plain(element)
        for element in root.iter("ix:nonnumeric")
        if str(element.get("name")).startswith("dei:")
    }
    text = "".join(walker.out)
    return Source(
        "", "", text, tuple(walker.blocks), tuple(sorted(walker.tags, key=lambda tag: tag.start)), title, names
    )


@dataclass(slots=True)
class _Flow:
    """Text as it grows, white space collapsed; a line break inside Chinese text is no space."""

    text: str = ""
    pending: str = ""
    tags: list[Tag] = field(default_factory=list)

    def add(self, piece: str) -> None:
        for part in re.split(r"(\s+)", piece):
            if not part:
                continue
            if part.isspace():
                self.pending += part
                continue
            if self.pending and self.text:
                is_wrapped = "\n" in self.pending and (_IS_WIDE.match(part[0]) or _IS_WIDE.match(self.text[-1]))
                self.text += "" if is_wrapped else " "
            self.pending = ""
            self.text += part


class _Walker:
    def __init__(self, contexts: dict[str, "_Context"], units: dict[str, str]) -> None:
        self.contexts, self.units = contexts, units
        self.out: list[str] = []
        self.length = 0
        self.blocks: list[Block] = []
        self.tags: list[Tag] = []
        self.flow = _Flow()
        self.kind: BlockKind = "paragraph"

    def walk(self, root: etree._Element) -> None:
        """Write the whole page: text before an element's children when it opens, the text after it when it closes."""
        skipped: etree._Element | None = None
        opened: dict[etree._Element, int] = {}
        for event, element in etree.iterwalk(root, events=("start", "end")):
            if skipped is not None:
                if event == "end" and element is skipped:
                    skipped = None
                    self.flow.add(element.tail or "")
                continue
            if event == "start":
                if _is_hidden(element):
                    skipped = element
                elif element.tag == "table":
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
            opened[element] = len(self.flow.text)
        if _is_footnote_mark(element):
            self.flow.pending += " "
        self.flow.add(element.text or "")

    def _close(self, element: etree._Element, opened: dict[etree._Element, int]) -> None:
        if element in opened:
            _note_tag(element, self.flow, opened.pop(element), self.contexts, self.units)
        if element.tag in BREAKS:
            self._break()
        self.flow.add(element.tail or "")

    def _break(self) -> None:
        """End the current line; what was gathered becomes a block."""
        flow, kind = self.flow, self.kind
        self.flow, self.kind = _Flow(), "paragraph"
        if not flow.text:
            return
        start = self.length
        self._write(flow.text)
        self.blocks.append(Block(kind, start, self.length))
        self.tags += [replace(tag, start=tag.start + start, end=tag.end + start) for tag in flow.tags]
        self._write("\n\n")

    def _write(self, text: str) -> None:
        self.out.append(text)
        self.length += len(text)

    def _table(self, table: etree._Element) -> None:
        rows = []
        begin = self.length
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
        if max(len(row.cells) for row in rows) == 1:  # laid out as a table, read as text
            self.blocks += [Block("paragraph", row.start, row.end) for row in rows]
        else:
            self.blocks.append(Block("table", begin, end, tuple(rows)))
        self._write("\n")


def _is_hidden(element: etree._Element) -> bool:
    if not isinstance(element.tag, str) or element.tag in HIDDEN:
        return True
    return "display:none" in (element.get("style") or "").replace(" ", "").lower()


def _is_footnote_mark(element: etree._Element) -> bool:
    style = (element.get("style") or "").replace(" ", "").lower()
    return element.tag == "sup" or "vertical-align:super" in style or "vertical-align:top;font-size:5" in style


def _grid(
    table: etree._Element, contexts: dict[str, "_Context"], units: dict[str, str]
) -> Iterator[list[tuple[int, int, _Flow]]]:
    """Yield each row's filled cells with their grid columns, signs put back to their numbers."""
    below: dict[int, int] = {}  # column -> rows still covered by a cell from above
    for row in table.iter("tr"):
        if next(row.iterancestors("table")) is not table:
            continue
        column, cells, covered = 0, [], dict(below)
        for cell in row:
            if cell.tag not in ("td", "th"):
                continue
            while covered.get(column, 0) > 0:
                column += 1
            width, height = _span(cell, "colspan"), _span(cell, "rowspan")
            if height > 1:
                below.update(dict.fromkeys(range(column, column + width), height))
            flow = _cell_flow(cell, contexts, units)
            if flow.text:
                cells.append((column, column + width, flow))
            column += width
        below = {column: rows - 1 for column, rows in below.items() if rows > 1}
        if cells:
            yield _joined(cells)


def _span(cell: etree._Element, name: str) -> int:
    value = cell.get(name) or "1"
    return min(int(value), 1000) if value.isdigit() and int(value) > 0 else 1


def _cell_flow(cell: etree._Element, contexts: dict[str, "_Context"], units: dict[str, str]) -> _Flow:
    flow = _Flow()
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
                flow.pending += " "
            if element.tag == "ix:nonfraction":
                opened[element] = len(flow.text)
            flow.add(element.text or "")
        else:
            if element in opened:
                _note_tag(element, flow, opened.pop(element), contexts, units)
            if element is not cell:
                if element.tag in BREAKS:
                    flow.pending += " "
                flow.add(element.tail or "")
    return flow


def _joined(cells: list[tuple[int, int, _Flow]]) -> list[tuple[int, int, _Flow]]:
    """Put `$`, `(`, `)` and `%` that stand in cells of their own back to the number beside them."""
    joined: list[tuple[int, int, _Flow]] = []
    for left, right, flow in cells:
        previous = joined[-1] if joined else None
        is_prefix = previous is not None and re.fullmatch(r"[$€£¥(]{1,2}|US\$|\$\s?\(", previous[2].text)
        is_suffix = (
            re.fullmatch(r"\)?\s?%?\)?", flow.text) and previous and re.search(r"[\d—–-]$|\d\)?$", previous[2].text)
        )
        if previous and (is_prefix or is_suffix):
            shift = len(previous[2].text)
            tags = [replace(tag, start=tag.start + shift, end=tag.end + shift) for tag in flow.tags]
            both = _Flow(previous[2].text + flow.text, "", previous[2].tags + tags)
            joined[-1] = (previous[0], right, both)
        else:
            joined.append((left, right, flow))
    return joined


# ---------------------------------------------------------------------------------------------- inline XBRL


@dataclass(frozen=True, slots=True)
class _Context:
    since: str
    until: str
    dimensions: tuple[str, ...]


def _plain(element: etree._Element | None) -> str:
    """All text of an element, white space unified."""
    return " ".join("".join(str(piece) for piece in element.itertext()).split()) if element is not None else ""


def _texts(element: etree._Element, name: str) -> str:
    return "".join(_plain(found) for found in element.iter(f"xbrli:{name}", name))


def _contexts(root: etree._Element) -> dict[str, _Context]:
    found = {}
    for element in root.iter("xbrli:context", "context"):
        members = tuple(_plain(member) for member in element.iter("xbrldi:explicitmember"))
        until = _texts(element, "instant") or _texts(element, "enddate")
        found[element.get("id") or ""] = _Context(_texts(element, "startdate"), until, members)
    return found


def _units(root: etree._Element) -> dict[str, str]:
    found = {}
    for element in root.iter("xbrli:unit", "unit"):
        measures = [_plain(measure) for measure in element.iter("xbrli:measure", "measure")]
        found[element.get("id") or ""] = "/".join(measure.split(":")[-1] for measure in measures)
    return found


def _note_tag(
    element: etree._Element, flow: _Flow, start: int, contexts: dict[str, _Context], units: dict[str, str]
) -> None:
    written = flow.text[start:]
    start += len(written) - len(written.lstrip())
    value = _value(written, element)
    context = contexts.get(element.get("contextref") or "")
    if value is None or context is None:
        return
    unit = units.get(element.get("unitref") or "", "")
    concept = element.get("name") or ""
    flow.tags.append(Tag(start, len(flow.text), concept, value, unit, context.since, context.until, context.dimensions))


def _value(written: str, element: etree._Element) -> Decimal | None:
    """The number as the filer means it: format, scale and sign applied; None where the format is unknown."""
    kind = (element.get("format") or "").split(":")[-1].lower().replace("-", "")
    digits = _SPACE.sub("", written)
    if kind in {"fixedzero", "zerodash", "numdash"} or digits in {"—", "–", "-"}:
        digits = "0"
    elif kind in {"numcommadecimal", "numcommadot", "numunitdecimal"}:
        digits = digits.replace(".", "").replace(",", ".")
    else:
        digits = digits.replace(",", "")
    try:
        number = Decimal(digits).scaleb(int(element.get("scale") or 0))
    except (InvalidOperation, ValueError):
        return None
    return -number if element.get("sign") == "-" else number
