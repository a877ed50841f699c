"""How many calls are under way at a time: as many as the endpoint can take, found by trying.

Every call that went well lets in a little more; when an endpoint says "too many" or does not answer, the limit falls by
half the share of calls to which that happened, as DCTCP has it (Alizadeh et al. 2010, eq. 1 and 2). A limit that fell
by a fixed part at each refusal, as TCP's does, cannot tell an endpoint that refuses one call in seventy from one that
is overrun: with 64 calls under way some call is refused at any time, and two thirds of the places stood empty.
"""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

LEAST = 1.0
GAIN = 2.0
"""Calls by which the limit grows in the time in which as many calls as the limit go well."""
WEIGHT = 0.25
"""Of the newest window in the running share of refused calls."""


def raised(limit: float, most: int) -> float:
    """Return the limit after one call that went well."""
    return min(float(most), limit + GAIN / limit)


def smoothed(share: float, refused: int, ended: int) -> float:
    """Return the running share of refused calls after a window of `ended` calls."""
    return (1 - WEIGHT) * share + WEIGHT * refused / ended


def lowered(limit: float, share: float) -> float:
    """Return the limit after a window in which calls were refused, and are so by that share."""
    return max(LEAST, limit * (1 - share / 2))


class Pace:
    """Lets calls in.

    Attributes:
        limit: How many may be under way, rounded up.
        under_way: How many are.
        cuts: How often the limit was lowered.
        share: Running share of calls that were refused.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.limit = float(most)
        self.under_way = 0
        self.cuts = 0
        self.share = 0.0
        self._ended = self._refused = 0
        self._changed = asyncio.Condition()

    @property
    def _places(self) -> int:
        return math.ceil(self.limit)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait for a place."""
        async with self._changed:
            while self.under_way >= self._places:
                await self._changed.wait()
            self.under_way += 1
        try:
            yield
        finally:
            async with self._changed:
                self.under_way -= 1
                self._changed.notify(max(0, self._places - self.under_way))  # no more than may go on

    def went_well(self) -> None:
        """Let in a little more."""
        self.limit = raised(self.limit, self.most)
        self._end(refused=0)

    def too_busy(self) -> None:
        """Count a call that was refused or not answered."""
        self._end(refused=1)

    def _end(self, *, refused: int) -> None:
        """Count a call; behind as many as may be under way, the limit falls by the share that was refused."""
        self._ended += 1
        self._refused += refused
        if self._ended < self._places:
            return
        self.share = smoothed(self.share, self._refused, self._ended)
        if self._refused:
            self.limit, self.cuts = lowered(self.limit, self.share), self.cuts + 1
        self._ended = self._refused = 0
