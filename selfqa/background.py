"""Passages of a document that a model is asked about: whole blocks of one section, boilerplate and repeats left out."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from selfqa.blocks import Block, Source
from selfqa.facts import Dropped

_BOILERPLATE = re.compile(
    r"indicate by check mark|table of contents|exact name of registrant|pursuant to the requirements of"
    r"|incorporated (?:herein )?by reference"
    r"|forward-looking statements|exhibit (?:no|number|index)|securities registered pursuant|certif(?:y"
    r"|ication) (?:that"
    r"|of|pursuant)"
    r"|不存在虚假记载|误导性陈述|法律责任|备查文件|□\s*适用|目录",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Background:
    """Text of one section, in place: `source.text[start:end]`."""

    start: int
    end: int
    section: str


def backgrounds(source: Source, limit: int, shortest: int) -> tuple[list[Background], list[Dropped]]:
    """Cut a document into passages of about `limit` characters and drop those not worth a question.

    Args:
        source: The document.
        limit: Characters after which the next block begins a new passage.
        shortest: Passages with fewer characters (a third of it, if Chinese) go too.
    """
    kept: list[Background] = []
    dropped: list[Dropped] = []
    for piece in _pieces(source, limit):
        text = source.text[piece.start : piece.end]
        rule = _fault(text, shortest)
        if rule:
            dropped.append(Dropped(rule, "a passage that nothing is asked about", text[:200], piece.start, piece.end))
        else:
            kept.append(piece)
    return kept, dropped


def _pieces(source: Source, limit: int) -> Iterator[Background]:
    start, end, section = -1, -1, ""
    for block in source.blocks:
        is_new = block.kind == "heading" or (start >= 0 and block.end - start > limit)
        if is_new and start >= 0:
            yield Background(start, end, section)
            start = -1
        if block.kind == "heading":
            section = source.text[block.start : block.end]
            continue
        if block.end - block.start > 2 * limit:
            yield from _rows(source, block, limit, section)
            start = -1
            continue
        start, end = (block.start if start < 0 else start), block.end
    if start >= 0:
        yield Background(start, end, section)


def _rows(source: Source, block: Block, limit: int, section: str) -> Iterator[Background]:
    """Cut a long table between rows, a long paragraph between sentences."""
    cuts = [row.start for row in block.rows] or [
        block.start + found.end() for found in re.finditer(r"[.。!?]\s*", source.text[block.start : block.end])
    ]
    start = block.start
    for at, following in zip(cuts, [*cuts[1:], block.end], strict=True):
        if following - start > limit and at > start:
            yield Background(start, at, section)
            start = at
    yield Background(start, block.end, section)


def _fault(text: str, shortest: int) -> str:
    if len(text.strip()) < shortest and len(re.findall(r"[\u4e00-\u9fff]", text)) < shortest // 3:
        return "passage-short"
    if len(_BOILERPLATE.findall(text)) * 1500 > len(text):
        return "passage-boilerplate"
    letters = sum(char.isalpha() for char in text)
    return "passage-no-prose" if shortest and letters < 0.3 * len(text) else ""
