"""Which pairs stay: a plan of shares per document, spread over metrics and places."""

import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from finlm.figures import amounts_in
from selfqa.pairs import Pair, hashed
from selfqa.plan import Plan, Share, template_limit
from selfqa.questions import question_key
from selfqa.quotas import ANY, Cell


@dataclass(frozen=True, slots=True)
class Chosen:
    """A document's pairs after the plan, in document order, those that it left out, and what became of each share."""

    kept: tuple[Pair, ...]
    left: tuple[Pair, ...]
    shares: tuple[Share, ...]


def choose(pairs: Sequence[Pair], limit: int, plan: Plan, section_of: Callable[[Pair], str]) -> Chosen:
    """Keep at most `limit` pairs, most telling first, by the plan's shares and spread evenly.

    Types take turns by their shares, and within a type its cells of difficulty and section; what runs out leaves its
    turns to the rest, and a type's questions of no cell come when its cells are empty. Within a cell the next pair is
    the one of lowest rank whose metric, place, difficulty and section were drawn least so far beside their shares; a
    hash breaks ties.

    Args:
        pairs: A document's pairs.
        limit: Most pairs to keep.
        plan: The shares.
        section_of: The section that a pair's evidence is in.
    """
    planned = [pair for pair in pairs if pair.kind in plan.types]
    most = template_limit(planned, limit, plan.template)
    drawn = _Drawn(plan, limit, section_of)
    by_cell: dict[str, dict[Cell | None, list[Pair]]] = defaultdict(lambda: defaultdict(list))
    for pair in planned:
        by_cell[pair.kind][drawn.cell_of(pair)].append(pair)
    turns = {kind: _Turns(cells, drawn) for kind, cells in by_cell.items()}
    kept: list[Pair] = []
    while len(kept) < limit and turns:
        kind = min(turns, key=lambda name: (drawn.types[name] / plan.types[name], name))
        pair_or_none = turns[kind].draw()
        if pair_or_none is None:
            del turns[kind]
        elif drawn.rules[pair_or_none.rule] < most:
            drawn.add(pair_or_none)
            kept.append(pair_or_none)
    held = {id(pair) for pair in kept}
    return Chosen(
        tuple(sorted(kept, key=lambda pair: (pair.start, pair.question))),
        tuple(pair for pair in pairs if id(pair) not in held),
        tuple(_shares(planned, kept, min(limit, len(planned)), plan, section_of)),
    )


def _shares(
    found: Sequence[Pair], kept: Sequence[Pair], limit: int, plan: Plan, section_of: Callable[[Pair], str]
) -> Iterator[Share]:
    names: dict[str, Callable[[Pair], str]] = {
        "type": lambda pair: pair.kind,
        "difficulty": lambda pair: pair.difficulty,
        "section": section_of,
    }
    for dimension, name_of in names.items():
        before, after = Counter(map(name_of, found)), Counter(map(name_of, kept))
        for name, share in plan.shares(dimension).items():
            yield Share(dimension, name, round(share * limit), before[name], after[name])

    def cell_of(pair: Pair) -> Cell | None:
        return plan.cell_of(pair.kind, pair.difficulty, section_of(pair))

    held, stays = Counter(map(cell_of, found)), Counter(map(cell_of, kept))
    for cell, share in plan.joint.items():
        if (cell.difficulty, cell.section) != (ANY, ANY):  # else it is a type's share, told above
            yield Share("joint", cell.name, round(share * limit), held[cell], stays[cell])


class _Drawn:
    """How much of everything was drawn so far."""

    def __init__(self, plan: Plan, limit: int, section_of: Callable[[Pair], str]) -> None:
        self.plan, self.limit, self.section_of = plan, limit, section_of
        self.types: Counter[str] = Counter()
        self.rules: Counter[str] = Counter()
        self.topics: Counter[str] = Counter()
        self.places: Counter[str] = Counter()
        self.difficulties: Counter[str] = Counter()
        self.sections: Counter[str] = Counter()
        self.cells: Counter[Cell | None] = Counter()

    def cell_of(self, pair: Pair) -> Cell | None:
        return self.plan.cell_of(pair.kind, pair.difficulty, self.section_of(pair))

    def add(self, pair: Pair) -> None:
        self.types[pair.kind] += 1
        self.rules[pair.rule] += 1
        self.topics[pair.topic] += 1
        self.places[pair.place] += 1
        self.difficulties[pair.difficulty] += 1
        self.sections[self.section_of(pair)] += 1
        self.cells[self.cell_of(pair)] += 1

    def cost(self, pair: Pair) -> tuple[float, float]:
        """A metric asked twice weighs as much as eight pairs from one table; a filled share as much as a metric."""
        filled = self._filled(self.plan.difficulties, self.difficulties, pair.difficulty)
        filled += self._filled(self.plan.sections, self.sections, self.section_of(pair))
        return pair.rank + 2 * self.topics[pair.topic] + 2 * filled, 0.125 * self.places[pair.place]

    def _filled(self, shares: Mapping[str, float], taken: Mapping[str, int], name: str) -> float:
        """How full a share is, 1 when it is used up; only grows."""
        if not shares:
            return 0.0
        return taken[name] / (self.limit * shares[name]) if name in shares else 1.0 + taken[name]


class _Turns:
    """The cells of one type, in turns by their shares; questions of no cell come last."""

    def __init__(self, cells: Mapping[Cell | None, Sequence[Pair]], drawn: _Drawn) -> None:
        self.drawn = drawn
        self.spread = {cell: _Spread(pairs, drawn) for cell, pairs in cells.items()}

    def draw(self) -> Pair | None:
        while self.spread:
            cell = min(self.spread, key=self._turn)
            pair = self.spread[cell].draw()
            if pair is not None:
                return pair
            del self.spread[cell]
        return None

    def _turn(self, cell: Cell | None) -> tuple[float, str]:
        return (self.drawn.cells[cell] / self.drawn.plan.joint[cell], cell.name) if cell else (math.inf, "")


class _Spread:
    """A heap whose costs only grow: the cheapest entry is put back if it became dearer since it was pushed."""

    def __init__(self, pairs: Iterable[Pair], drawn: _Drawn) -> None:
        self.drawn = drawn
        self.heap = [((*drawn.cost(pair), hashed(pair.question), number), pair) for number, pair in enumerate(pairs)]
        heapq.heapify(self.heap)

    def draw(self) -> Pair | None:
        while self.heap:
            cost, pair = heapq.heappop(self.heap)
            now = (*self.drawn.cost(pair), cost[2], cost[3])
            if not self.heap or now <= self.heap[0][0] or now == cost:
                return pair
            heapq.heappush(self.heap, (now, pair))
        return None


def is_rounding(one: Decimal, other: Decimal) -> bool:
    """Is the less exact number the other one rounded? A Decimal knows how exactly it was written: 5.1E+9."""
    exponents = [value.as_tuple().exponent for value in (one, other)]
    coarse = max(exponent for exponent in exponents if isinstance(exponent, int))
    return abs(one - other) <= Decimal("0.5").scaleb(coarse)


def agree(one: str, other: str) -> bool:
    """Do two answers to one question say the same? A rounded figure does: $183.8 million is $183,824 thousand."""
    if question_key(one) == question_key(other):
        return True
    ours, theirs = amounts_in(one), amounts_in(other)
    return (
        bool(ours)
        and len(ours) == len(theirs)
        and all(
            left.unit == right.unit and is_rounding(left.value, right.value)
            for left, right in zip(ours, theirs, strict=True)
        )
    )
