"""Which rows each step learns from, round by round, and the file that says so.

The plan is drawn as it is asked for: the shares of a round are known when the round before has been evaluated. Asked
again from the start with the rounds of `mixture.json`, it draws the same rows.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from finlm import runs
from finlm.drawing import Drawing, Picked
from finlm.samples import Row, Sample
from finlm.sft_records import MIXTURE, Drawn, Mixed, MixtureRound, read_mixture
from finlm.streams import rows_of


class Plan:
    """Draws rows from streams.

    Args:
        streams: Training samples of each stream.
        shares: Of the first round, of all tokens, by stream.
        room: Tokens of a packed row.
        rows: Rows of a step, over all processes.
        seed: Decides every order.
        folder: The run's folder.

    Attributes:
        room: Tokens of a packed row.
        rounds: The rounds so far; the last one is under way.
    """

    def __init__(
        self,
        streams: Mapping[str, Sequence[Sample]],
        shares: Mapping[str, float],
        *,
        room: int,
        rows: int,
        seed: int,
        folder: Path,
    ) -> None:
        self._streams = streams
        self._lengths = {name: [len(sample) for sample in its] for name, its in streams.items()}
        self._learned = {name: [sample.learned for sample in its] for name, its in streams.items()}
        self.room, self._rows, self._seed = room, rows, seed
        self._folder = folder
        reasons = dict.fromkeys(shares, "as set")
        self.rounds = [MixtureRound(number=0, first_step=0, shares=dict(shares), reasons=reasons, drawn={})]
        self._restart()

    def _restart(self) -> None:
        sizes = {"room": self.room, "rows": self._rows, "seed": self._seed}
        self._drawing = Drawing(self._lengths, learned=self._learned, **sizes)
        self._next = 0

    @property
    def passes(self) -> dict[str, float]:
        """How often each stream has been gone through."""
        return self._drawing.passes

    def resume(self, step: int) -> None:
        """Take up the rounds that were begun at this step or before, and draw what was drawn until then."""
        if self._next == step:
            return
        known = read_mixture(self._folder)
        if known is not None:
            self.rounds = [one for one in known.rounds if one.first_step <= step] or self.rounds
            self.rounds[-1] = replace(self.rounds[-1], drawn={})
        self._restart()
        while self._next < step:
            self._draw()

    def begin_round(self, step: int, shares: Mapping[str, float], reasons: Mapping[str, str]) -> None:
        """End the round under way after `step` steps, and begin one at other shares."""
        self.rounds[-1] = replace(self.rounds[-1], drawn=self.drawn())
        number = self.rounds[-1].number + 1
        begun = MixtureRound(number=number, first_step=step, shares=dict(shares), reasons=dict(reasons), drawn={})
        self.rounds.append(begun)

    def steps(self, first: int, last: int) -> Iterator[list[Row]]:
        """Yield the rows of each step from `first` (0 is the run's first) to `last`, which is not among them.

        Raises:
            ValueError: The plan has already gone beyond `first`.
        """
        if self._next > first:
            raise ValueError(f"the plan stands at step {self._next}; resume(…) takes it back to {first}")
        while self._next < last:
            step = self._next
            rows = self._draw()
            if step >= first:
                yield rows_of(self._streams, rows)

    def _draw(self) -> list[list[Picked]]:
        current = next(one for one in reversed(self.rounds) if one.first_step <= self._next)
        if current.first_step == self._next and self._next > 0:
            self._drawing.begin_round()
        self._next += 1
        return self._drawing.step(current.shares)

    def drawn(self) -> dict[str, Drawn]:
        """Return what the round under way has drawn of each stream."""
        passes = self._drawing.passes
        if 0 < self._next == self.rounds[-1].first_step:  # just begun: the tallies are the round's before
            return {name: Drawn(samples=0, tokens=0, learned=0, passes=round(its, 4)) for name, its in passes.items()}
        return {
            name: Drawn(
                samples=tally.samples, tokens=tally.tokens, learned=tally.learned, passes=round(passes[name], 4)
            )
            for name, tally in self._drawing.tallies.items()
        }

    @property
    def rows_packed(self) -> int:
        """Rows so far."""
        return self._drawing.rows_packed

    def totals(self) -> dict[str, Drawn]:
        """Return what all rounds have drawn of each stream."""
        every = [*(one.drawn for one in self.rounds[:-1]), self.drawn()]
        return {
            name: Drawn(
                samples=sum(one[name].samples for one in every if name in one),
                tokens=sum(one[name].tokens for one in every if name in one),
                learned=sum(one[name].learned for one in every if name in one),
                passes=last.passes,
            )
            for name, last in every[-1].items()
        }

    def write(self) -> None:
        """Write `mixture.json`, the round under way as far as it is."""
        rounds = (*self.rounds[:-1], replace(self.rounds[-1], drawn=self.drawn()))
        room = self._drawing.rows_packed * self.room
        mixed = Mixed(
            rounds=rounds,
            row_tokens=self.room,
            rows=self._drawing.rows_packed,
            filled=round(self._drawing.tokens / room, 6) if room else 0.0,
        )
        runs.write_text(
            self._folder / MIXTURE, msgspec.json.format(msgspec.json.encode(mixed), indent=2).decode() + "\n"
        )
