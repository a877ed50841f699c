"""Sentences that say what their passage does not, made out of ones that do: the faults of a model that copies badly.

Each fault returns None where a sentence offers nothing to change. Names, figures and turns of phrase come from the
passage or its document, so that only who holds the answer against the passage can tell.
"""

import random
import re
from collections.abc import Sequence

_NAME = re.compile(r"(?<![.!?。] )(?<!^)\b[A-Z][\w'’&-]+(?: (?:of |the |and |for )?[A-Z][\w'’&-]+)*")
_FIGURE = re.compile(r"(?<![\w.])\d(?:[\d,.]*\d)?(?![\w])")
_RUN_ON = "and|or|but|by|for|from|in|is|are|was|were|of|on|that|to|which|who|with|as|at|has|had|have"
_JOINT = re.compile(rf"(?<=[，；：])|(?<=, )|(?= (?:{_RUN_ON})\b)")
"""Places where one sentence may run on as another."""
_LEAST = 0.25
"""Share of a sentence that stands before its joint at least, and behind it."""
_LIKE = (0.6, 1.6)
"""Length of what takes a sentence's place, in its own."""


def exchanged(sentence: str, passage: Sequence[str], rng: random.Random) -> str | None:
    """Put another name or figure of the passage in the place of one of the sentence's."""
    kinds = [kind for kind in (_NAME, _FIGURE) if kind.search(sentence)]
    for kind in rng.sample(kinds, len(kinds)):
        mine = list(kind.finditer(sentence))
        others = sorted({str(found) for other in passage for found in kind.findall(other)} - {one[0] for one in mine})
        if others:
            here = rng.choice(mine)
            return sentence[: here.start()] + rng.choice(others) + sentence[here.end() :]
    return None


def spliced(sentence: str, passage: Sequence[str], rng: random.Random) -> str | None:
    """Let the sentence run on as another one of the passage, from a joint that both have."""
    ends = [
        other[place:]
        for other in passage
        if other != sentence
        for place in _joints(other)
        if len(other) - place <= _LIKE[1] * len(sentence)
    ]
    fronts = _joints(sentence)
    for place in rng.sample(fronts, len(fronts)):
        mine = sentence[place:]
        same = [end for end in ends if _first_word(end) == _first_word(mine) and end != mine]
        if same:
            return sentence[:place] + rng.choice(same)
    return None


def elsewhere(sentence: str, outside: Sequence[str], rng: random.Random) -> str | None:
    """Return a sentence of about the same length that the document has outside the passage."""
    near = [other for other in outside if _LIKE[0] <= len(other) / len(sentence) <= _LIKE[1]]
    return rng.choice(near) if near else None


def _joints(sentence: str) -> list[int]:
    margin = int(_LEAST * len(sentence))
    return [found.start() for found in _JOINT.finditer(sentence) if margin <= found.start() <= len(sentence) - margin]


def _first_word(text: str) -> str:
    found = re.match(r" (\w+)", text)
    return found[1] if found else ""
