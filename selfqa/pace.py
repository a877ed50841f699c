"""How many calls are under way at a time: as many as the endpoint can take, found by trying.

Additive increase, multiplicative decrease (Chiu and Jain 1989), as TCP has it: every call that went well lets in a
little more, an endpoint that says "too many" or does not answer lets in a fifth less, once for all calls that were
under way when it said so.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

LEAST = 1.0
GAIN = 4.0
"""Calls by which the limit grows in the time in which as many calls as the limit go well."""
CUT = 0.8
"""What is left of the limit when it is lowered."""


def raised(limit: float, most: int) -> float:
    """Return the limit after one call that went well."""
    return min(float(most), limit + GAIN / limit)


def lowered(limit: float) -> float:
    """Return the limit after the endpoint was too busy."""
    return max(LEAST, limit * CUT)


class Pace:
    """Lets calls in.

    Attributes:
        limit: How many may be under way, the whole part of it.
        under_way: How many are.
        cuts: How often the limit was lowered.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.limit = float(most)
        self.under_way = 0
        self.cuts = 0
        self._cut_at = -1.0
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[float]:
        """Wait for a place, and yield when it was taken: `too_busy` needs that time."""
        async with self._changed:
            while self.under_way >= int(self.limit):
                await self._changed.wait()
            self.under_way += 1
        try:
            yield time.monotonic()
        finally:
            async with self._changed:
                self.under_way -= 1
                self._changed.notify(max(0, int(self.limit) - self.under_way))  # no more than may go on

    def went_well(self) -> None:
        """Let in a little more."""
        self.limit = raised(self.limit, self.most)

    def too_busy(self, taken_at: float) -> None:
        """Let in less.

        Args:
            taken_at: When the refused call took its place; one that began before the last cut says nothing new.
        """
        if taken_at > self._cut_at:
            self.limit, self._cut_at, self.cuts = lowered(self.limit), time.monotonic(), self.cuts + 1
