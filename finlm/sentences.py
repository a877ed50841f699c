"""The sentences of a text, and where a document that is longer than a row may be cut: behind a sentence if it can be.

Places are token indices: a cut at k parts the tokens before k from those from k on.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

_CLOSING = r"[\"'”’」』）)】\]》]*+"
# Group 1 is the mark; white space follows. Possessive quantifiers and the look-behind keep a megabyte of dots linear.
_SENTENCE = re.compile(rf"((?<![.!?])[.!?]++{_CLOSING}(?=\s|\Z)|[。！？；]++{_CLOSING}|(?=\n))\s*+")
_CLAUSE = re.compile(r"([，、：]++|(?=\s))\s*+")
_ABBREVIATED = re.compile(
    r"(?:(?<![A-Za-z0-9])[A-Za-z]"  # U.S., J. Smith, e.g.
    r"|\b(?:Mrs?|Ms|Drs?|Prof|Hon|Gov|Sen|Rep|Gen|St|Jr|Sr|Messrs|Inc|Corp|Co|Ltd|Bros|Dept|vs|etc|al|cf|approx|ca)"
    r"|\n[ \t]*\d{1,3}"  # 1. in a list
    r")\.\Z"
)
_NUMBERED = re.compile(
    r"\b(?:Nos?|Figs?|Eqs?|Secs?|Arts?|Vols?|Chs?|pp|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)\.\Z", re.IGNORECASE
)
_REACH = 12
"""Characters before a full stop that tell whether it ends a sentence."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A place to cut.

    Example:
        Cut(token=2031, behind="sentence")
    """

    token: int
    """Index of the first token behind the cut."""
    behind: Literal["sentence", "clause", "token"]
    """What ends there: a sentence or line; a clause or word; nothing but a token."""


def spans(text: str) -> list[tuple[int, int]]:
    """Return where each sentence or unended line begins and ends, in order, without the white space around it."""
    places = [0, *(match.end() for match in _SENTENCE.finditer(text) if _is_end(text, match)), len(text)]
    found = []
    for begin, end in pairwise(places):
        piece = text[begin:end]
        if said := piece.strip():
            first = begin + piece.index(said)
            found.append((first, first + len(said)))
    return found


def cut_points(text: str, starts: Sequence[int], room: int) -> list[int]:
    """Return the token indices of `cuts`."""
    return [cut.token for cut in cuts(text, starts, room)]


def cuts(text: str, starts: Sequence[int], room: int) -> list[Cut]:
    """Return where to cut so that no piece has more than `room` tokens, from first to last.

    Each piece ends with the last sentence or line that fits, else with the last clause or word, else with the last
    character. Pieces cover all tokens; none is empty.

    Args:
        text: The document.
        starts: Character at which each token starts, ascending; the tokens of one character share it.
        room: Tokens of a piece at most.

    Raises:
        ValueError: `room` is not positive.
    """
    if room < 1:
        raise ValueError(f"room is {room}; it must be 1 or more")
    if len(starts) <= room:
        return []
    ends = [token for match in _SENTENCE.finditer(text) if _is_end(text, match) for token in _tokens(match, starts)]
    found = []
    first = 0
    while len(starts) - first > room:
        last = first + room
        place = bisect_right(ends, last) - 1
        if place >= 0 and ends[place] > first:
            found.append(Cut(ends[place], "sentence"))
        elif (token := _last_clause(text, starts, first, last)) > first:
            found.append(Cut(token, "clause"))
        else:
            found.append(Cut(_last_character(starts, first, last), "token"))
        first = found[-1].token
    return found


def _is_end(text: str, match: re.Match[str]) -> bool:
    """True unless the match is the full stop of an abbreviation, with more of its line behind it."""
    mark = match[1]
    is_one_stop = mark[:1] == "." and mark[1:2] not in (".", "!", "?")
    if not is_one_stop or "\n" in match[0]:
        return True
    at = match.start()
    before = text[at - _REACH : at + 1] if at >= _REACH else f"\n{text[: at + 1]}"
    if _ABBREVIATED.search(before):
        return False
    return not (text[match.end() : match.end() + 1].isdigit() and _NUMBERED.search(before))


def _tokens(match: re.Match[str], starts: Sequence[int]) -> Iterable[int]:
    """The tokens that may begin a piece there: they start between the mark and what follows its white space.

    None where one token holds the mark and what follows. A token inside a character begins nothing.
    """
    for token in range(bisect_left(starts, match.end(1)), bisect_right(starts, match.end())):
        if token and starts[token] > starts[token - 1]:
            yield token


def _last_clause(text: str, starts: Sequence[int], first: int, last: int) -> int:
    """The last token up to `last` that begins a clause or word; `first` if there is none behind it."""
    matches = list(_CLAUSE.finditer(text, starts[first], starts[last] + 1))
    for match in reversed(matches):
        token = max((token for token in _tokens(match, starts) if token <= last), default=first)
        if token > first:
            return token
    return first


def _last_character(starts: Sequence[int], first: int, last: int) -> int:
    """The last token up to `last` that begins a character; `last` where one character fills the piece."""
    token = bisect_left(starts, starts[last], first, last)
    return token if token > first else last
