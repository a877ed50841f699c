"""Which rows and sentences of a document answer for the words of a claim, and how well."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import log

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float64]
"""Of each line, [lines]: 0 where it shares no word."""

UNKNOWN = 3.0
"""Rarity of a token that no label of the document has."""
PART = 0.08
"""What a figure of a part of the company loses where the claim does not name the part."""


@dataclass(frozen=True, slots=True)
class Words:
    """The words of a row or sentence: its own label in one or more wordings, and what stands around it."""

    own: tuple[frozenset[str], ...]
    around: frozenset[str]
    table: int
    """Number of the table, 0 for a sentence."""
    members: frozenset[str] = frozenset()
    """Tokens of the parts that a tag breaks its concept down to."""


class WordIndex:
    """Scores lines by the tokens that they share with a claim, rare tokens first.

    A row's score is the mean of the share of the claim that its label (and, a little less, what stands around) says,
    and of the share of the label that the claim says. A sentence says much else: only the first share counts.
    """

    def __init__(self, lines: Sequence[Words]) -> None:
        wordings = [(number, own) for number, words in enumerate(lines) for own in words.own]
        count = Counter(token for words in lines if words.table for token in frozenset().union(*words.own))
        total = sum(words.table > 0 for words in lines) + 1
        self.rarity = {token: log(1 + total / times) for token, times in count.items()}
        self._lines = len(lines)
        self._line_of = np.array([number for number, _ in wordings], dtype=np.int64)
        self._is_row = np.array([lines[number].table > 0 for number, _ in wordings], dtype=bool)
        weights = [sum(self._rarity(token) for token in own) for _, own in wordings]
        self._weight = np.maximum(np.array(weights), 1e-9)
        self._own = _postings(own for _, own in wordings)
        self._near = _postings(lines[number].around - own for number, own in wordings)
        self._member = _postings(words.members for words in lines)
        self._members = np.array([len(words.members) for words in lines])
        self.scores = lru_cache(maxsize=256)(self._scores)

    def _rarity(self, token: str) -> float:
        return self.rarity.get(token, UNKNOWN)

    def _scores(self, claim: tuple[tuple[str, float], ...]) -> Scores:
        """Score every line.

        Args:
            claim: Tokens with their weights, sorted.
        """
        found = np.zeros(self._lines)
        asked = sum(weight * self._rarity(token) for token, weight in claim)
        if not asked or not len(self._line_of):
            return found
        said, covered = np.zeros(len(self._line_of)), np.zeros(len(self._line_of))
        members = np.zeros(self._lines)
        for token, weight in claim:
            rarity = self._rarity(token)
            if token in self._own:
                said[self._own[token]] += weight * rarity
                covered[self._own[token]] += rarity
            if token in self._near:
                said[self._near[token]] += 0.9 * weight * rarity
            if token in self._member:
                members[self._member[token]] += 1
        score = np.where(self._is_row, 0.5 * said / asked + 0.5 * covered / self._weight, said / asked)
        np.maximum.at(found, self._line_of, score)
        found[(members < self._members) & (found > 0)] -= PART
        return found


def _postings(bags: Iterable[frozenset[str]]) -> dict[str, npt.NDArray[np.int64]]:
    places: dict[str, list[int]] = defaultdict(list)
    for number, bag in enumerate(bags):
        for token in bag:
            places[token].append(number)
    return {token: np.array(its, dtype=np.int64) for token, its in places.items()}
