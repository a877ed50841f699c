"""Which pairs stay: one per question, and a quota per document spread over kinds, metrics and places."""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeVar

from finlm.figures import Figure, find_figures
from selfqa.filters import question_key
from selfqa.pairs import Pair, hashed

T = TypeVar("T")

SHARES = {"figure": 8, "fact": 3, "change": 3, "comparison": 2, "definition": 2, "list": 1}
"""How often a kind is drawn beside the others; a kind that runs out leaves its turns to the rest."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """A document's pairs after the quota, in document order, and those that it left out."""

    kept: tuple[Pair, ...]
    left: tuple[Pair, ...]


def choose(pairs: Sequence[Pair], limit: int) -> Chosen:
    """Keep at most `limit` pairs, most telling first, spread evenly.

    Kinds take turns by `SHARES`. Within a kind the next pair is the one of lowest rank whose metric and place were
    drawn least so far; a hash breaks ties.
    """
    by_kind: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        by_kind[pair.kind].append(pair)
    topics: Counter[str] = Counter()
    places: Counter[str] = Counter()
    spread = {kind: _Spread(rows) for kind, rows in by_kind.items()}
    kept: list[Pair] = []
    taken: Counter[str] = Counter()
    while len(kept) < limit and spread:
        kind = min(spread, key=lambda name: (taken[name] / SHARES.get(name, 1), name))
        drawn = spread[kind].draw(topics, places)
        if drawn is None:
            del spread[kind]
            continue
        taken[kind] += 1
        topics[drawn.topic] += 1
        places[drawn.place] += 1
        kept.append(drawn)
    held = {id(pair) for pair in kept}
    return Chosen(
        tuple(sorted(kept, key=lambda pair: (pair.start, pair.question))),
        tuple(pair for pair in pairs if id(pair) not in held),
    )


class _Spread:
    """A heap whose costs only grow: the cheapest entry is put back if it became dearer since it was pushed."""

    def __init__(self, pairs: Iterable[Pair]) -> None:
        self.heap = [((pair.rank, 0.0, hashed(pair.question), number), pair) for number, pair in enumerate(pairs)]
        heapq.heapify(self.heap)

    def draw(self, topics: Mapping[str, int], places: Mapping[str, int]) -> Pair | None:
        while self.heap:
            cost, pair = heapq.heappop(self.heap)
            # a metric asked twice weighs as much as eight pairs from one table
            now = (pair.rank + 2 * topics.get(pair.topic, 0), 0.125 * places.get(pair.place, 0), cost[2], cost[3])
            if not self.heap or now <= self.heap[0][0] or now == cost:
                return pair
            heapq.heappush(self.heap, (now, pair))
        return None


def unique(pairs: Iterable[tuple[T, Pair]]) -> tuple[list[list[tuple[T, Pair]]], list[list[tuple[T, Pair]]]]:
    """Group pairs by question: returns groups whose answers agree, and groups whose answers contradict each other."""
    groups: dict[str, list[tuple[T, Pair]]] = defaultdict(list)
    for owner, pair in pairs:
        groups[question_key(pair.question)].append((owner, pair))
    agreed: list[list[tuple[T, Pair]]] = []
    contradicted: list[list[tuple[T, Pair]]] = []
    for group in groups.values():
        is_one = all(_agree(group[0][1].answer, pair.answer) for _, pair in group[1:])
        (agreed if is_one else contradicted).append(group)
    return agreed, contradicted


def is_rounding(one: Decimal, other: Decimal) -> bool:
    """Is the less exact number the other one rounded? A Decimal knows how exactly it was written: 5.1E+9."""
    exponents = [value.as_tuple().exponent for value in (one, other)]
    coarse = max(exponent for exponent in exponents if isinstance(exponent, int))
    return abs(one - other) <= Decimal("0.5").scaleb(coarse)


def _agree(one: str, other: str) -> bool:
    """Do two answers to one question say the same? A rounded figure does: $183.8 million is $183,824 thousand."""
    if question_key(one) == question_key(other):
        return True
    ours, theirs = _amounts(one), _amounts(other)
    return (
        bool(ours)
        and len(ours) == len(theirs)
        and all(
            left.unit == right.unit and is_rounding(left.value, right.value)
            for left, right in zip(ours, theirs, strict=True)
        )
    )


def _amounts(text: str) -> list[Figure]:
    return [figure for figure in find_figures(text) if not (figure.is_date or figure.is_label)]
