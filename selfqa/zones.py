"""Which part of a filing a place is in: business, risk, discussion, statements, notes or other.

A 10-K's items and an annual report's 第X节 are told by their titles, so that a 10-Q's "Item 2. Management's Discussion"
is the same part as a 10-K's Item 7.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from selfqa.blocks import Source

ZONES = ("business", "risk", "discussion", "statements", "notes", "other")
"""The parts, in the order of a 10-K."""
_ITEM = re.compile(r"^\W*(?:part\s+i+\W+)?item\s*\d+[abc]?\b[\s.:—–-]*(?P<title>.*)", re.IGNORECASE | re.DOTALL)
_TITLES = (
    (re.compile(r"risk factors|market risk", re.IGNORECASE), "risk"),
    (re.compile(r"discussion and analysis", re.IGNORECASE), "discussion"),
    (re.compile(r"financial statements", re.IGNORECASE), "statements"),
    (re.compile(r"^business\b", re.IGNORECASE), "business"),
)
_NOTES = re.compile(
    r"^\W*(?:notes to (?:the )?(?:condensed )?(?:consolidated )?financial statements|note 1\b)", re.IGNORECASE
)
INDEX = 1500
"""Characters of an index of the statements."""
_CHAPTER = re.compile(r"^第[一二三四五六七八九十]+[节章]\s*(?P<title>.*)", re.DOTALL)
_CHAPTERS = (
    ("风险", "risk"),
    ("业务", "business"),
    ("讨论与分析", "discussion"),
    ("财务报告", "statements"),
    ("财务会计", "statements"),
)


@dataclass(frozen=True, slots=True)
class Zones:
    """The parts of a document by their first characters.

    Example:
        Zones(starts=(0, 5120), names=("other", "business")).at(6000) == "business"
    """

    starts: tuple[int, ...]
    names: tuple[str, ...]

    def at(self, place: int) -> str:
        """Return the part that the character at `place` is in."""
        return self.names[bisect_right(self.starts, place) - 1]


def zones_of(source: Source) -> Zones:
    """Find the parts of a document; what comes before the first title is `other`."""
    found = _without_index([(0, "other"), *_titled(source)])
    return Zones(tuple(start for start, _ in found), tuple(name for _, name in found))


def _without_index(found: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """Leave out notes that an index right below the item's title names before the statements come."""
    kept = found[:1]
    for at, (start, name) in enumerate(found[1:], 2):
        following = found[at][1] if at < len(found) else ""
        is_listed = kept[-1][1] == "statements" and start - kept[-1][0] < INDEX
        if not (name == following == "notes" and is_listed):
            kept.append((start, name))
    return kept


def _titled(source: Source) -> Iterator[tuple[int, str]]:
    inside = "other"
    for block in source.blocks:
        text = source.text[block.start : min(block.end, block.start + 160)].strip()
        if block.kind == "table" or block.end - block.start > 150:
            continue
        name = _zone(text, inside)
        if name:
            inside = name
            yield block.start, name


def _zone(text: str, inside: str) -> str:
    item = _ITEM.match(text)
    if item:
        return next((name for pattern, name in _TITLES if pattern.search(item["title"])), "other")
    if _NOTES.match(text):
        return "notes"
    chapter = _CHAPTER.match(text)
    if chapter and len(text) < 40:
        return next((name for word, name in _CHAPTERS if word in chapter["title"]), "other")
    if re.match(r"^(?:[（(]?[一二三四五六七八九十]+[）)]?、?)?(?:公司)?(?:面临的|可能面对的)?风险", text):
        return "risk"
    return "discussion" if inside == "risk" and re.match(r"^[（(]?[一二三四五六七八九十]+[）)、]", text) else ""
