"""Passages cut anywhere out of documents, each with what else its document says."""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from finlm import sentences
from finlm.records import Document

_HAN_SIZE = 3
"""Letters that a Chinese character counts as: it is a token or two, where four letters are one."""
_WORDS = {"en": (6, 60), "zh": (12, 120)}
"""Words (in Chinese: characters) of a plain sentence, from and to."""
_ENDS = '.!?。！？"”’)'
_WRAP = re.compile(r"(?<=[^\n]{50}[a-z,，、一-鿿])\n(?=[\w(“‘\"$¥€£])|(?<=[^\n]{50}[^\n.!?。！？:：|])\n(?=[a-z])")
"""The end of a full line within a sentence; behind a figure, which a table's row may end with, it goes on in a word."""


@dataclass(frozen=True, slots=True)
class Passage:
    """Sentences that follow each other.

    Example:
        Passage(document=Document(…), start=1204, end=2377, said="…", plain=("…", "…", "…"), outside=("…",))
    """

    document: Document
    start: int
    """Its first character in the document's text."""
    end: int
    said: str
    """Its text with the lines of a paragraph in one."""
    plain: tuple[str, ...]
    """Its whole sentences, headings and rows of tables left out."""
    outside: tuple[str, ...]
    """Those of the rest of the document."""

    @property
    def text(self) -> str:
        """The passage as the document writes it."""
        return self.document.text[self.start : self.end]


def size(text: str, language: str) -> int:
    """Return how long a text is, in English letters."""
    return len(text) * (_HAN_SIZE if language == "zh" else 1)


def unwrapped(text: str) -> str:
    """Return the text, as long as it was, with the lines of a paragraph in one."""
    return _WRAP.sub(" ", text)


def is_plain(sentence: str, language: str) -> bool:
    """True of a whole sentence: neither a heading nor a piece of a table."""
    least, most = _WORDS[language]
    words = len(sentence) if language == "zh" else len(sentence.split())
    return least <= words <= most and sentence[-1] in _ENDS and not sentence[0].islower()


def cut(document: Document, shortest: int, longest: int, rng: random.Random) -> Iterator[Passage]:
    """Yield passages that follow each other, each of a size drawn between the two, from a drawn place on.

    Args:
        document: In English or Chinese.
        shortest: See `size`; what is left at the end and shorter is no passage.
        longest: A passage goes on to the end of the sentence in which it reaches the size drawn.
        rng: Draws sizes and the place.
    """
    text = unwrapped(document.text)
    places = sentences.spans(text)
    said = [text[begin:end] for begin, end in places]
    is_said = [is_plain(one, document.language) for one in said]
    last_begin = len(text) - longest // size("字", document.language)
    first = rng.choice([place for place, (begin, _) in enumerate(places) if begin <= last_begin] or [0])
    while first < len(said):
        wanted = rng.randint(shortest, longest)
        last = _end(said, first, wanted, document.language)
        start, end = places[first][0], places[last - 1][1]
        if size(document.text[start:end], document.language) < shortest:
            return
        plain = _kept(said[first:last], is_said[first:last])
        outside = _kept(said[:first], is_said[:first]) + _kept(said[last:], is_said[last:])
        yield Passage(document, start, end, text[start:end], plain, outside)
        first = last


def _end(said: Sequence[str], first: int, wanted: int, language: str) -> int:
    reached = 0
    for place in range(first, len(said)):
        reached += size(said[place], language)
        if reached >= wanted:
            return place + 1
    return len(said)


def _kept(said: Sequence[str], is_said: Sequence[bool]) -> tuple[str, ...]:
    return tuple(one for one, kept in zip(said, is_said, strict=True) if kept)
