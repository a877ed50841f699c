"""Who asks, who answers, who judges: the backends of a run and how the best of several answers is found."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from selfqa.calls import Backend, Call, Reply
from selfqa.replies import Replies

Scores = Callable[[str, Sequence[str]], Awaitable[list[float]]]
"""A question and answers to it -> a score each, higher is better."""


@dataclass(frozen=True, slots=True)
class Crew:
    """The backends of a run.

    Example:
        Crew(replies=Replies(path), asker=endpoint, answerers=(endpoint,))
    """

    replies: Replies
    asker: Backend
    """Writes questions, and merges answers."""
    answerers: tuple[Backend, ...]
    """Each answers every question; of several the best answer is kept."""
    judge: Backend | None = None
    """Grades every answer that is kept."""
    least_grade: int = 4
    """An answer below this grade, 1 to 5, goes."""
    checker: Backend | None = None
    """Answers each question again, from its quotes alone; answers that differ go."""
    scores: Scores | None = None
    """Chooses among answers; None: the first answerer's sound answer is kept."""
    merges: bool = False
    """The sound answers are merged to one, which must be as sound."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by what computes for milliseconds, see `computing`."""

    @asynccontextmanager
    async def computing(self) -> AsyncIterator[None]:
        """Let one computation in between two looks at the network.

        Replies come in waves; were each checked as soon as it is read, the last of 64 would hold its place among the
        calls under way until all the others are checked, and a tenth of the endpoint's time would pass unused.
        """
        async with self.turn:
            await asyncio.sleep(0)
            yield

    async def ask(self, backend: Backend, call: Call) -> Reply:
        """Return a reply, remembered or new."""
        return await self.replies.ask(backend, call)

    @property
    def backends(self) -> list[Backend]:
        """All of them, each once."""
        every = [self.asker, *self.answerers, self.judge, self.checker]
        return list({id(one): one for one in every if one is not None}.values())

    async def close(self) -> None:
        """Close the backends and the file of replies."""
        for backend in self.backends:
            await backend.close()
        self.replies.close()
