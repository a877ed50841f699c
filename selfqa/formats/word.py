"""Word documents (.docx): headings by their style, tables with merged cells, pages where they were last laid out."""

import io
import re
from collections.abc import Iterator

import docx
from docx.document import Document as WordDocument
from docx.oxml.ns import qn
from docx.table import Table
from lxml import etree

from selfqa.blocks import Source
from selfqa.formats.builder import Builder, Placed
from selfqa.unread import Unreadable

_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_UNSEEN = {qn("w:del"), qn("w:moveFrom"), qn("w:pPr"), qn("w:rPr"), _FALLBACK}
_HEADING = re.compile(r"heading|title|标题", re.IGNORECASE)


def read_docx(raw: bytes) -> Source:
    """Read a Word document.

    Raises:
        Unreadable: It is no Word document, or a damaged one.
    """
    try:
        document = docx.Document(io.BytesIO(raw))
        return _read(document)
    except Exception as error:  # zipfile, lxml and python-docx raise each their own for a damaged package
        reason = f"cannot be read as a Word document ({type(error).__name__}: {error})"
        raise Unreadable("file-damaged", reason) from error


def _read(document: WordDocument) -> Source:
    builder = Builder()
    pages = _Pages(document.element.body, builder)
    for part in document.iter_inner_content():
        if isinstance(part, Table):
            builder.table(_rows(part))
            pages.turn(part._tbl)
            continue
        is_first = pages.breaks_before_text(part._p)
        if is_first:
            builder.page()
        is_heading = bool(_HEADING.match(part.style.name or "")) if part.style is not None else False
        (builder.heading if is_heading else builder.paragraph)(_text(part._p))
        pages.turn(part._p, already=is_first)
    return builder.source(document.core_properties.title or "")


class _Pages:
    """Where pages begin: as Word last drew them, else where the author broke them, else nobody knows."""

    def __init__(self, body: etree._Element, builder: Builder) -> None:
        self.builder = builder
        drawn = qn("w:lastRenderedPageBreak")
        self.tag = drawn if next(body.iter(drawn), None) is not None else qn("w:br")
        if any(True for _ in self._breaks(body)):
            builder.page()

    def _breaks(self, element: etree._Element) -> Iterator[etree._Element]:
        for found in element.iter(self.tag):
            if self.tag != qn("w:br") or found.get(qn("w:type")) == "page":
                yield found

    def breaks_before_text(self, paragraph: etree._Element) -> bool:
        """Does a page begin with this paragraph? One that goes on over a break counts to the page it begins on."""
        first = next(self._breaks(paragraph), None)
        if first is None:
            return False
        text = next((found for found in paragraph.iter(qn("w:t")) if found.text), None)
        order = {id(found): place for place, found in enumerate(paragraph.iter())}
        return text is not None and order[id(first)] < order[id(text)]

    def turn(self, element: etree._Element, *, already: bool = False) -> None:
        """Begin a page for each break inside `element`, the first of which may have been counted."""
        for _ in range(sum(1 for _ in self._breaks(element)) - already):
            self.builder.page()


def _text(element: etree._Element) -> str:
    """All that a reader sees: insertions and links too, deletions not; a raised mark keeps its distance."""
    out: list[str] = []
    walk = etree.iterwalk(element, events=("start",))
    for _, part in walk:
        if part.tag in _UNSEEN:
            walk.skip_subtree()
        elif part.tag == qn("w:t"):
            out.append(part.text or "")
        elif part.tag == qn("w:r") and _is_raised(part):
            out.append(" ")
        elif part.tag in (qn("w:tab"), qn("w:ptab")):
            out.append("\t")
        elif part.tag in (qn("w:br"), qn("w:cr"), qn("w:p")):
            out.append("\n")
        elif part.tag == qn("w:noBreakHyphen"):
            out.append("-")
    return "".join(out)


def _is_raised(run: etree._Element) -> bool:
    mark = run.find(f"{qn('w:rPr')}/{qn('w:vertAlign')}")
    return mark is not None and mark.get(qn("w:val")) == "superscript"


def _rows(table: Table) -> Iterator[list[Placed]]:
    """Yield each row's cells with the grid columns that they span; a cell that goes on from above is said once."""
    for row in table._tbl.tr_lst:
        yield [
            Placed(cell.grid_offset, cell.grid_offset + cell.grid_span, _text(cell))
            for cell in row.tc_lst
            if cell.vMerge != "continue"
        ]
