"""Which samples make up each step: drawn from the streams in their target shares, packed into rows, none lost.

Everything follows from the streams' lengths, the seed and the shares of each step, so a run that is killed draws the
same samples again, and `mixture.json` is enough to say what any step has seen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from finlm.packing import best_fit
from finlm.records import content_id


@dataclass(frozen=True, slots=True)
class Picked:
    """A sample by its stream and its place there.

    Example:
        Picked(stream="text-general", place=17)
    """

    stream: str
    place: int


@dataclass(slots=True)
class Tally:
    """What was drawn of one stream.

    Example:
        Tally(samples=412, tokens=188211, learned=61200)
    """

    samples: int = 0
    tokens: int = 0
    learned: int = 0


@dataclass(slots=True)
class _Cursor:
    """How far one stream has been gone through."""

    lengths: npt.NDArray[np.int64]
    seed: int
    passes: int = 0
    order: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    at: int = 0

    def take(self) -> int:
        if self.at == len(self.order):
            # each pass in an order of its own
            self.order = np.random.default_rng([self.seed, self.passes]).permutation(len(self.lengths))
            self.passes, self.at = self.passes + 1, 0
        self.at += 1
        return int(self.order[self.at - 1])

    @property
    def passed(self) -> float:
        """How often the stream has been gone through."""
        return self.passes - 1 + self.at / len(self.lengths) if self.passes else 0.0


class Drawing:
    """Draws steps one after the other.

    Args:
        lengths: Tokens of each sample, by stream.
        room: Tokens of a packed row.
        rows: Rows of a step.
        seed: Decides the order of every stream.
        learned: Tokens with a loss of each sample, by stream, for the tallies alone; left out, they count none.

    Attributes:
        tallies: What was drawn of each stream since `begin_round`.
        tokens: Tokens in the rows so far.
        rows_packed: Rows so far.

    Raises:
        ValueError: A sample is longer than a row.
    """

    def __init__(
        self,
        lengths: Mapping[str, Sequence[int] | npt.NDArray[np.int64]],
        *,
        room: int,
        rows: int,
        seed: int,
        learned: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        self._room, self._rows = room, rows
        self._cursors = {
            name: _Cursor(np.asarray(its, dtype=np.int64), int(content_id(seed, name), 16) % 2**63)
            for name, its in lengths.items()
            if len(its)
        }
        for name, cursor in self._cursors.items():
            if cursor.lengths.max() > room:
                raise ValueError(f"a sample of {name} has {cursor.lengths.max()} tokens; a row holds {room}")
        self._learned = learned or {}
        self._waiting: list[Picked] = []
        self.tokens = self.rows_packed = 0
        self.tallies = {name: Tally() for name in self._cursors}

    @property
    def passes(self) -> dict[str, float]:
        """How often each stream has been gone through, over all rounds."""
        return {name: cursor.passed for name, cursor in self._cursors.items()}

    def begin_round(self) -> None:
        """Count shares afresh: what earlier rounds drew, at other shares, is not made up for."""
        self.tallies = {name: Tally() for name in self._cursors}

    def step(self, shares: Mapping[str, float]) -> list[list[Picked]]:
        """Return the rows of the next step.

        Samples come from whichever stream lags its share of the round's tokens most. Those that the fullest rows leave
        over wait for the next step and are first in line there.

        Args:
            shares: Of all tokens, by stream; they sum to 1, and a stream with a share has samples.

        Raises:
            ValueError: A stream with a share has no samples.
        """
        for name, share in shares.items():
            if share > 0 and name not in self._cursors:
                raise ValueError(f"{name} has a share of {share} and no samples")
        chosen, first = list(self._waiting), len(self._waiting)
        held = sum(self._length(one) for one in chosen)
        while held < self._rows * self._room:  # so many tokens need as many rows at least
            chosen.append(self._draw(shares))
            held += self._length(chosen[-1])
        packed = best_fit([self._length(one) for one in chosen], self._room)
        # whoever has waited goes now; then the fullest rows
        packed.sort(key=lambda row: (min(row) >= first, -sum(self._length(chosen[place]) for place in row), min(row)))
        taken, left = packed[: self._rows], packed[self._rows :]
        self._waiting = [chosen[place] for place in sorted(place for row in left for place in row)]
        rows = [[chosen[place] for place in row] for row in taken]
        self.rows_packed += len(rows)
        self.tokens += sum(self._length(one) for row in rows for one in row)
        return rows

    def _length(self, one: Picked) -> int:
        return int(self._cursors[one.stream].lengths[one.place])

    def _draw(self, shares: Mapping[str, float]) -> Picked:
        # relative to its share, so that a small stream is not last every time
        active = (name for name, share in shares.items() if share > 0)
        name = min(active, key=lambda name: self.tallies[name].tokens / shares[name])
        picked = Picked(name, self._cursors[name].take())
        self.tallies[name].samples += 1
        self.tallies[name].tokens += self._length(picked)
        if name in self._learned:
            self.tallies[name].learned += self._learned[name][picked.place]
        return picked
