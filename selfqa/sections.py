"""The sections of a filing, a 10-K's items and an annual report's 第X节, and which stretches of it are boilerplate.

A filing names its sections twice, in its table of contents and where they stand, and refers to them in between. The
table is a run of titles with next to nothing between them whose like comes again; of the rest, the titles whose numbers
rise are the sections (the longest such sequence), so a reference to an earlier item is none.
"""

import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from selfqa.blocks import Source

SectionKind = Literal["cover", "notice", "contents", "signatures", "exhibits", "body"]
"""`notice` is what a Chinese report must say before all (重要提示); only `body` is worth a question."""

_PART = re.compile(
    r"^[^\w\n]{0,3}part\s+(?P<part>i{1,3}|iv)\b(?P<title>(?![^\n]*\bitem\b)[^\n]{0,80})$", re.IGNORECASE | re.MULTILINE
)
_ITEM = re.compile(
    r"^[^\w\n]{0,3}(?:part\s+(?P<part>i{1,3}|iv)[^\w\n]{1,3})?item\s*(?P<number>\d{1,2})(?P<letter>[a-c]?)\b[.:\s|—–-]*?"
    r"(?P<title>(?<=[.:\s|—–-])(?-i:[A-Z\[])[^\n]{0,200})?$",
    re.IGNORECASE | re.MULTILINE,
)
_CHAPTER = re.compile(
    r"^\s*第(?P<number>[一二三四五六七八九十]{1,3})[节章][ \t\u3000]*(?P<title>[^\n。，；|]{2,140})$", re.MULTILINE
)
_LEADERS = re.compile(r"[\s.…·|]*\d{0,3}\s*$")
_SIGNATURES = re.compile(
    r"^\W*signatures?\W*$(?=[\s\S]{0,300}?pursuant to the requirements)", re.IGNORECASE | re.MULTILINE
)
_EXHIBITS = re.compile(
    r"^\W*(?:exhibit index|index to exhibits|exhibit\s+(?:number|no\.?)\b[^\n]*)\W*$", re.IGNORECASE | re.MULTILINE
)
_CONTENTS = re.compile(r"^\W*(?:table of contents|index|contents|目\s*录)\W*$", re.IGNORECASE | re.MULTILINE)
_TRAILING = re.compile(
    r"^\W*(?:\d{1,3}|signatures?\W*\d{0,3}|exhibit[^\n]{0,60}|[^\n]*(?:\.{4}|…{2})[^\n]*)\W*$", re.IGNORECASE
)
_LINE = re.compile(r"\s*([^\n]+)")
NEAR = 1000
"""Most characters between two titles of a table of contents: it may name the statements of an item."""
RUNNING_HEAD = 8
"""A heading that comes this often stands at the top of pages and heads nothing."""
_DIGITS = {numeral: value for value, numeral in enumerate("零一二三四五六七八九十")}


@dataclass(frozen=True, slots=True)
class Section:
    """A stretch of a document, up to where the next one begins.

    Example:
        Section(start=8666, name="Part I, Item 1. Business", kind="body")
    """

    start: int
    name: str
    """As the filing writes it, in one line; empty where nothing names it."""
    kind: SectionKind


@dataclass(frozen=True, slots=True)
class Sections:
    """All sections of a document, the first of which begins at 0."""

    all: tuple[Section, ...]

    def at(self, place: int) -> Section:
        """Return the section that the character at `place` is in."""
        return self.all[bisect_right(self.all, place, key=lambda section: section.start) - 1]


@dataclass(frozen=True, slots=True)
class Outline:
    """Where every place of a document is: its section, and the heading above it."""

    sections: Sections
    headings: tuple[tuple[int, str], ...]
    """First character and text of each heading, in order."""

    def path(self, place: int) -> str:
        """Return section and heading as a reader would look them up: `Part II, Item 7. Discussion > Gross Margin`."""
        section = self.sections.at(place)
        above = bisect_right(self.headings, place, key=lambda heading: heading[0]) - 1
        start, heading = self.headings[above] if above >= 0 else (0, "")
        is_title = start < section.start or (section.name and is_section_title(heading))
        return " > ".join(part for part in (section.name, "" if is_title else heading) if part)


@dataclass(frozen=True, slots=True)
class _Title:
    """A line that may begin a section; `number` rises through a document."""

    start: int
    end: int
    number: tuple[int, int, str]
    name: str


def is_section_title(line: str) -> bool:
    """Is a line the title of an item, a part or a 第X节?"""
    return len(line) < 220 and any(pattern.fullmatch(line) for pattern in (_ITEM, _PART, _CHAPTER))


def sections_of(text: str) -> Sections:
    """Find the sections of a document's text; one without titles is a single body without a name."""
    titles = list(_titles(text))
    contents, rest = _contents_of(titles)
    found = {0: Section(0, "", "body")}
    chapters = _rising(rest)
    if chapters and (chapters[0].start > 0 or contents):
        found[0] = Section(0, "", "cover")
    for title in chapters:
        found[title.start] = Section(title.start, title.name, _kind(title.name))
    _place_contents(text, contents, found)
    _place_ends(text, found)
    return Sections(tuple(found[start] for start in sorted(found)))


def outline_of(source: Source) -> Outline:
    """Return the sections and headings of a document."""
    headings = [
        (block.start, " ".join(source.text[block.start : block.end].split()))
        for block in source.blocks
        if block.kind == "heading"
    ]
    often = Counter(heading for _, heading in headings)
    kept = tuple((start, heading) for start, heading in headings if often[heading] < RUNNING_HEAD)
    return Outline(sections_of(source.text), kept)


def _titles(text: str) -> Iterator[_Title]:
    chapters = list(_CHAPTER.finditer(text))
    if len(chapters) >= 3:
        for match in chapters:
            title = _LEADERS.sub("", match["title"]).strip()
            yield _Title(
                match.start(), match.end(), (0, _number(match["number"]), ""), f"第{match['number']}节 {title}"
            )
        return
    part = 0
    marks = sorted([*_PART.finditer(text), *_ITEM.finditer(text)], key=lambda match: match.start())
    for match in marks:
        named = match["part"]
        if named:
            part = ("i", "ii", "iii", "iv").index(named.lower()) + 1
        if match.re is _PART:
            continue
        title = match["title"] or _next_line(text, match.end())
        number = f"Item {match['number']}{match['letter'].upper()}"
        before = f"Part {'I' * part if part < 4 else 'IV'}, " if part else ""
        name = f"{before}{number}. {_LEADERS.sub('', title).strip()}".strip(" .")
        yield _Title(match.start(), match.end(), (part, int(match["number"]), match["letter"].lower()), name)


def _next_line(text: str, at: int) -> str:
    found = re.compile(r"\s*([A-Z\[][^\n]{0,200})(?=\n|$)").match(text, at)
    return found[1] if found else ""


def _number(numeral: str) -> int:
    tens, ten, units = numeral.rpartition("十")
    return (_DIGITS[tens] if tens else 1) * 10 * bool(ten) + (_DIGITS[units] if units else 0)


def _contents_of(titles: Sequence[_Title]) -> tuple[Sequence[_Title], Sequence[_Title]]:
    """Part the titles into those of the table of contents and the rest."""
    for first, _ in enumerate(titles):
        last = first
        while last + 1 < len(titles) and titles[last + 1].start - titles[last].end < NEAR:
            last += 1
        run, later = titles[first : last + 1], {title.number for title in titles[last + 1 :]}
        # the title right behind the table may be near as well: the run ends where its numbers begin anew
        fresh = next((at for at, (one, other) in enumerate(pairwise(run), 1) if other.number <= one.number), len(run))
        run, later = run[:fresh], later | {title.number for title in run[fresh:]}
        if len(run) >= 4 and sum(title.number in later for title in run) > len(run) / 2:
            return run, [*titles[:first], *titles[first + len(run) :]]
    return (), titles


def _rising(titles: Sequence[_Title]) -> list[_Title]:
    """The longest sequence of titles whose numbers rise (patience sorting: Schensted 1961)."""
    tails: list[tuple[int, int, str]] = []
    places: list[int] = []
    before: list[int] = []
    for place, title in enumerate(titles):
        at = bisect_left(tails, title.number)
        before.append(places[at - 1] if at else -1)
        if at == len(tails):
            tails.append(title.number)
            places.append(place)
        elif title.number < tails[at]:
            tails[at], places[at] = title.number, place
    chain: list[_Title] = []
    place = places[-1] if places else -1
    while place >= 0:
        chain.append(titles[place])
        place = before[place]
    return chain[::-1]


def _kind(name: str) -> SectionKind:
    if re.search(r"^(?:Part \w+, )?Item \d+\. Exhibits?$|备查文件", name, re.IGNORECASE):
        return "exhibits"
    return "notice" if "重要提示" in name else "body"


def _place_contents(text: str, contents: Sequence[_Title], found: dict[int, Section]) -> None:
    """Mark the table of contents, from its heading to its last line; what it stands in goes on behind it."""
    if contents:
        start, end = contents[0].start, contents[-1].end
        above = [match.start() for match in _CONTENTS.finditer(text, max(0, start - 300), start)]
        start = above[-1] if above else start
    else:
        heading = _CONTENTS.search(text, 0, len(text) // 5)
        if heading is None:
            return
        start, end = heading.span()
    last = end
    while (line := _LINE.match(text, end)) and _TRAILING.match(line[1]):
        end = line.end()
    if not contents and end == last:  # a running head
        return
    whole = Sections(tuple(found[place] for place in sorted(found)))
    section = whole.at(start)
    found[start] = Section(start, section.name, "contents")
    following = min((place for place in found if place > start), default=len(text))
    if text[end:following].strip():
        found[end] = Section(end, section.name, "body")


def _place_ends(text: str, found: dict[int, Section]) -> None:
    """Mark signatures, and lists of exhibits in a section that is more than a list."""
    for match in _SIGNATURES.finditer(text):
        found[match.start()] = Section(match.start(), "Signatures", "signatures")
    whole = Sections(tuple(found[place] for place in sorted(found)))
    for match in _EXHIBITS.finditer(text):
        section = whole.at(match.start())
        if section.kind == "body" and "xhibit" in section.name.lower():
            found[match.start()] = Section(match.start(), section.name, "exhibits")
