"""All sound questions of a corpus until they have been compared with each other: on disk, found again by their place.

What stays in memory of a question are the hash of its key, which two wordings of one question share, and the number of
its document.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from finlm.records import Derivation, Provenance
from selfqa.documents import Read
from selfqa.pairs import Pair
from selfqa.questions import question_key
from selfqa.spool import Spool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Written:
    """A pair as it lies on disk: the same fields, the passage written out."""

    question: str
    answer: str
    kind: str
    start: int
    end: int
    rule: str
    topic: str
    place: str
    passage: str
    derivation: Derivation | None
    beside: tuple[Provenance, ...]
    is_open_only: bool
    rank: int


_KEPT = tuple(field.name for field in fields(_Written) if field.name != "passage")


class Asked:
    """Pairs in the order of their coming, each with the document that owns it.

    Args:
        documents: All documents.
        with_passages: Write the open-book passages too; without, the pairs that come back have none.
    """

    def __init__(self, documents: Sequence[Read], *, with_passages: bool = True) -> None:
        self._documents = documents
        self._numbers = {read.id: number for number, read in enumerate(documents)}
        self._with_passages = with_passages
        self._pairs: Spool[_Written] = Spool(_Written)
        self._owners = array("L")
        self._keys = array("Q")

    def add(self, read: Read, pair: Pair) -> None:
        """Add a pair."""
        passage = pair.passage() if self._with_passages else ""
        self._pairs.append(_Written(passage=passage, **{name: getattr(pair, name) for name in _KEPT}))
        self._owners.append(self._numbers[read.id])
        self._keys.append(_key(pair))

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, position: int) -> tuple[Read, Pair]:
        row = self._pairs[position]
        pair = Pair(passage=partial(str, row.passage), **{name: getattr(row, name) for name in _KEPT})
        return self._documents[self._owners[position]], pair

    def repeated(self) -> list[list[int]]:
        """Return the places of questions that were asked more than once, a list each, in the order of their firsts."""
        keys = np.frombuffer(self._keys, dtype=np.uint64)
        order = np.argsort(keys, kind="stable")
        bounds = np.flatnonzero(np.diff(keys[order])) + 1
        groups = [group.tolist() for group in np.split(order, bounds) if len(group) > 1]
        return sorted(groups, key=lambda group: group[0])

    def by_document(self, without: Iterable[int]) -> Iterator[tuple[Read, list[int]]]:
        """Yield each document with the places of its pairs, in the order of the first of them.

        Args:
            without: Places to leave out.
        """
        stays = np.ones(len(self), dtype=bool)
        stays[np.fromiter(without, dtype=np.int64)] = False
        places = np.flatnonzero(stays)
        owners = np.frombuffer(self._owners, dtype=self._owners.typecode)[places]
        order = np.argsort(owners, kind="stable")
        groups = np.split(places[order], np.flatnonzero(np.diff(owners[order])) + 1) if len(places) else []
        for group in sorted(groups, key=_first):
            yield self._documents[self._owners[_first(group)]], group.tolist()


def _first(group: NDArray[np.int64]) -> int:
    return int(group[0])


def _key(pair: Pair) -> int:
    where = f" {pair.place} {pair.start}" if pair.is_open_only else ""  # the same question beside another passage
    digest = blake2b((question_key(pair.question) + where).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")
