"""Passages of a document that a model is asked about: whole blocks of one section, boilerplate and repeats left out."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from selfqa.blocks import Block, Source
from selfqa.facts import Dropped
from selfqa.sections import sections_of

_BOILERPLATE = re.compile(
    r"indicate by check mark|exact name of registrant|pursuant to the requirements of"
    r"|incorporated (?:herein )?by reference"
    r"|forward-looking statements|exhibit (?:no|number|index)|securities registered pursuant|certif(?:y"
    r"|ication) (?:that"
    r"|of|pursuant)"
    r"|不存在虚假记载|误导性陈述|备查文件",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"[.。!?]\s*")
_CHECKED = re.compile(r"[□√☑☒☐]\s*(?:不?适用|是|否)")
"""What a Chinese report ticks above each of its parts; a part that does not apply says little else."""


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
    sections = sections_of(source.text)
    for piece in _pieces(source, limit):
        text = source.text[piece.start : piece.end]
        kind = sections.at(piece.start).kind
        rule = f"passage-{kind}" if kind != "body" else _fault(text, shortest)
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
        elif block.end - block.start > 2 * limit:
            for left, right in _cuts(source.text, block, limit):
                yield Background(left, right, section)
        else:
            start, end = (block.start if start < 0 else start), block.end
    if start >= 0:
        yield Background(start, end, section)


def _cuts(text: str, block: Block, limit: int) -> Iterator[tuple[int, int]]:
    """Cut a long table between rows, a long paragraph between sentences, and those only where they are too long."""
    inside = text[block.start : block.end]
    ends = [row.end for row in block.rows] or [block.start + found.end() for found in _SENTENCE.finditer(inside)]
    start = last = block.start
    for end in [*ends, block.end]:
        if end - start > limit and last > start:
            yield start, last
            start = last + len(text[last:end]) - len(text[last:end].lstrip())
        while end - start > 2 * limit:
            space = text.rfind(" ", start + limit, start + 2 * limit)
            cut = space if space > 0 else start + limit
            yield start, cut
            start = cut
        last = end
    if start < block.end:
        yield start, block.end


def _fault(text: str, shortest: int) -> str:
    if len(text.strip()) < shortest and len(re.findall(r"[\u4e00-\u9fff]", text)) < shortest // 3:
        return "passage-short"
    unticked = _CHECKED.sub("", text)
    if unticked != text and len(unticked.strip()) < 30:
        return "passage-not-applicable"
    if len(_BOILERPLATE.findall(text)) * 1500 > len(text):
        return "passage-boilerplate"
    letters = sum(char.isalpha() for char in text)
    return "passage-no-prose" if shortest and letters < 0.3 * len(text) else ""
