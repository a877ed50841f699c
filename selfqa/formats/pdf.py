"""PDF: lines to headings and paragraphs, tables as tables, pages kept, running heads and page numbers left out.

A table that goes on over a page is put back together.
"""

import io
import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from typing import Any

import pdfplumber
from pdfplumber.utils.exceptions import PdfminerException

from selfqa.blocks import Source
from selfqa.formats.builder import Builder, is_wide
from selfqa.formats.glyphs import unified
from selfqa.formats.pdf_tables import Grid, Line, Part, bare_tables, is_continued, is_note, ruled_table, with_heads
from selfqa.periods import is_chinese_header, is_header
from selfqa.plain import ends_in_figures
from selfqa.unread import Unreadable

_PAGE_NUMBER = re.compile(
    r"^\W*(?:page|第)?\s*[\divxlc]{1,5}\s*(?:页)?\s*(?:(?:of|/|共)\s*\d+\s*页?)?\W*$|^.*\s\d{1,4}/\d{1,4}$",
    re.IGNORECASE,
)
_ENDS_SENTENCE = (".", "。", "；", ";", "，", ",", "：", ":")
HEADING_SIZE = 1.12
"""A short line in letters larger than the document's by this factor is a heading."""
_BOLD = re.compile(r"bold|black|heavy|simhei|黑体", re.IGNORECASE)
GAP = 0.6
"""White space between two lines, in heights of a letter, that ends a paragraph."""


def read_pdf(raw: bytes) -> Iterator[Source | Unreadable]:
    """Yield the document, and what is to be said of pages without text.

    Raises:
        Unreadable: It is locked, damaged, or has no text at all.
    """
    pages = _pages(raw)
    empty = [number for number, page in enumerate(pages, start=1) if not page]
    if len(empty) == len(pages):
        raise Unreadable("no-text", f"has {len(pages)} pages without text; a scan needs OCR")
    if empty:
        shown = ", ".join(map(str, empty[:10])) + (", …" if len(empty) > 10 else "")
        yield Unreadable(
            "pages-without-text", f"has no text on {len(empty)} of {len(pages)} pages ({shown}); a scan needs OCR"
        )
    yield _built([with_heads(page) for page in _without_running_heads(pages)])


def _pages(raw: bytes) -> list[list[Part]]:
    logging.getLogger("pdfminer").setLevel(logging.ERROR)  # it tells users about every odd font
    try:
        with pdfplumber.open(io.BytesIO(raw)) as pdf:
            pages = []
            for page in pdf.pages:
                pages.append(_parts(page))
                page.close()
            return pages
    except PdfminerException as error:
        inner = type(error.args[0]).__name__ if error.args else type(error).__name__
        if "Password" in inner or "Password" in repr(error):
            raise Unreadable("file-locked", "is protected by a password; save a copy without it") from error
        raise Unreadable("file-damaged", f"cannot be read as PDF ({inner})") from error
    except Exception as error:  # pdfminer raises whatever a damaged file makes it trip over
        raise Unreadable("file-damaged", f"cannot be read as PDF ({type(error).__name__}: {error})") from error


def _parts(page: Any) -> list[Part]:
    """The lines and tables of a page, from top to bottom."""
    grids: list[Part] = []
    boxes = []
    for table in page.find_tables() if page.lines or page.rects or page.curves else ():
        grid = ruled_table(table)
        if grid is not None:
            grids.append(grid)
            boxes.append(table.bbox)
    outside = page.filter(lambda item: not _is_inside(item, boxes)) if boxes else page
    lines = [_line(found) for found in outside.extract_text_lines(return_chars=True)]
    parts = sorted([*grids, *(line for line in lines if line.text)], key=lambda part: part.top)
    return bare_tables(parts)


def _is_inside(item: dict[str, Any], boxes: Sequence[tuple[float, float, float, float]]) -> bool:
    x, y = (item["x0"] + item["x1"]) / 2, (item["top"] + item["bottom"]) / 2
    return any(left <= x <= right and top <= y <= bottom for left, top, right, bottom in boxes)


def _line(found: dict[str, Any]) -> Line:
    chars = [char for char in found["chars"] if not char["text"].isspace()]
    sizes = Counter(round(char["size"], 1) for char in chars)
    bold = sum(bool(_BOLD.search(char["fontname"])) for char in chars)
    size = sizes.most_common(1)[0][0] if sizes else 0.0
    words = tuple(_words(found["chars"], size))
    text = unified(found["text"].strip())
    return Line(text, found["top"], found["bottom"], found["x1"], size, bold > 0.9 * len(chars) > 0, words)


def _words(chars: Sequence[dict[str, Any]], size: float) -> Iterator[tuple[float, float, str]]:
    """Cut a line where more than a letter's height is free."""
    run: list[dict[str, Any]] = []
    for char in chars:
        if char["text"].isspace() or (run and char is run[-1]):  # pdfplumber repeats a ligature for each letter
            continue
        is_next = bool(run) and char["text"] in "$€£¥" and run[-1]["text"] in "0123456789)%—–-"
        if run and char["x0"] - run[-1]["x1"] > (0.5 if is_next else 1.0) * size:
            yield run[0]["x0"], run[-1]["x1"], _spelt(run, size)
            run = []
        run.append(char)
    if run:
        yield run[0]["x0"], run[-1]["x1"], _spelt(run, size)


def _spelt(chars: Sequence[dict[str, Any]], size: float) -> str:
    out = [chars[0]["text"]]
    for left, right in pairwise(chars):
        out.append((" " if right["x0"] - left["x1"] > 0.15 * size else "") + right["text"])
    return unified("".join(out))


def _without_running_heads(pages: Sequence[list[Part]]) -> list[list[Part]]:
    """Leave out page numbers, and what stands at the top or bottom of half of the pages."""

    def margins(page: Sequence[Part]) -> set[int]:
        return {at for at in (0, 1, len(page) - 2, len(page) - 1) if 0 <= at < len(page)}

    def key(part: Part) -> str:
        if not isinstance(part, Line) or is_header(part.text) or is_chinese_header(part.text):
            return ""  # "2025 2024" on every page is the head of each page's table
        return re.sub(r"\d+", "#", part.text)

    seen = Counter(text for page in pages for text in {key(page[at]) for at in margins(page)} if text)
    often = {text for text, count in seen.items() if count >= max(3, len(pages) / 2)}
    kept = []
    for page in pages:
        dropped = {at for at in margins(page) if key(page[at]) in often}
        for at in {0, len(page) - 1} & margins(page):
            part = page[at]
            if isinstance(part, Line) and _PAGE_NUMBER.match(part.text):
                dropped.add(at)
        kept.append([part for at, part in enumerate(page) if at not in dropped])
    return kept


def _built(pages: Sequence[list[Part]]) -> Source:
    builder = Builder()
    body = _body_size(pages)
    last: Part | None = None
    for page in pages:
        builder.page()
        for is_grid, run in groupby(page, key=lambda part: isinstance(part, Grid)):
            if not is_grid:
                builder.plain(_joined([part for part in run if isinstance(part, Line)], body))
                continue
            for part in run:
                assert isinstance(part, Grid)
                goes_on = part is page[0] and isinstance(last, Grid) and is_continued(last, part)
                if goes_on and builder.ends_in_table:
                    builder.more_rows(part.rows)
                else:
                    builder.table(part.rows)
        last = page[-1] if page else None
    return builder.source()


def _body_size(pages: Sequence[list[Part]]) -> float:
    """The size that most letters have."""
    sizes = Counter[float]()
    for page in pages:
        for part in page:
            if isinstance(part, Line):
                sizes[part.size] += len(part.text)
    return sizes.most_common(1)[0][0] if sizes else 0.0


def _joined(lines: Sequence[Line], body: float) -> str:
    """Lines below each other as text: a paragraph is one line, a heading or a gap stands between blank lines."""
    margin = max(line.right for line in lines)
    groups = [lines[0].text]
    for above, line in pairwise(lines):
        is_apart = line.top - above.bottom > GAP * max(above.size, line.size)
        if is_apart or _is_heading(above, body) or _is_heading(line, body):
            groups.append(f"\n\n{line.text}")
        elif (
            _goes_on(above, margin)
            and not is_note(line)
            and not (ends_in_figures(above.text) or ends_in_figures(line.text))
        ):
            groups[-1] += f"{'' if is_wide(above.text[-1]) or is_wide(line.text[0]) else ' '}{line.text}"
        else:
            groups.append(f"\n{line.text}")
    return "".join(groups)


def _goes_on(line: Line, margin: float) -> bool:
    """Does a sentence go on behind the end of the line? It reaches the margin, and has no gaps as a table's row has."""
    is_full = line.right > 0.9 * margin and len(line.text) > 30
    return is_full and len(line.words) == 1 and not line.text.isupper()


def _is_heading(line: Line, body: float) -> bool:
    is_large = line.size > HEADING_SIZE * body or (line.is_bold and line.size >= body)
    is_short = len(line.text) <= 100 and not line.text.endswith(_ENDS_SENTENCE)
    return is_large and is_short and not ends_in_figures(line.text)
