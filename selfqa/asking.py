"""All documents through a crew of models: several at a time, results in the documents' order."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from rich.progress import Progress

from selfqa.background import Background
from selfqa.contamination import Contamination
from selfqa.crew import Crew
from selfqa.documents import Read
from selfqa.facts import Dropped
from selfqa.modelled import Task, ask_document
from selfqa.pairs import Pair

T = TypeVar("T")
REFRESH_SECONDS = 0.5
WAITING = 16
"""How many times as many results as there is work under way may wait for their turn: one document may take minutes."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a document is asked.

    Example:
        Wish(kinds={"figure": 0.6, "cause": 0.4}, questions=10, limit=450, documents_at_once=64)
    """

    kinds: dict[str, float]
    questions: int
    limit: int
    """Most characters of an open-book passage."""
    documents_at_once: int
    contamination: Contamination | None = None
    """What benchmarks ask, and no question here may."""


def spread(passages: Sequence[T], most: int) -> list[T]:
    """Return at most `most` of them, evenly spread from the first to the last; 0 for all."""
    if not most or most >= len(passages):
        return list(passages)
    if most == 1:
        return [passages[len(passages) // 2]]
    return [passages[round(place * (len(passages) - 1) / (most - 1))] for place in range(most)]


def limited(passages: Sequence[Sequence[T]], limit: int) -> list[list[T]]:
    """Return at most `limit` passages in all, as evenly from every document as there are; 0 for all."""
    if not limit:
        return [list(its) for its in passages]
    share = [0] * len(passages)
    left = limit
    while left:
        open_ones = [number for number, its in enumerate(passages) if share[number] < len(its)]
        if not open_ones:
            break
        for number in open_ones[:left]:
            share[number] += 1
        left = limit - sum(share)
    return [spread(its, most) if most else [] for its, most in zip(passages, share, strict=True)]


Found = list[Pair | Dropped]
"""What came of each question about a document."""


def ask_all(
    documents: Sequence[tuple[Read, Sequence[Background]]],
    wish: Wish,
    crew: Crew,
    progress: Progress,
    take: Callable[[int, Found], None],
) -> None:
    """Ask about every document and hand on what came of it, in the documents' order.

    Args:
        documents: Each with the passages that are asked about.
        wish: What is asked.
        crew: Who is asked.
        progress: Shows how far it is.
        take: Gets a document's number and what came of its questions; nothing of it is kept here.

    Raises:
        UserError: A backend refused, or did not answer before its deadline; what was answered is remembered.
    """
    asyncio.run(_ask_all(documents, wish, crew, progress, take))


async def _ask_all(
    documents: Sequence[tuple[Read, Sequence[Background]]],
    wish: Wish,
    crew: Crew,
    progress: Progress,
    take: Callable[[int, Found], None],
) -> None:
    rules: Counter[str] = Counter()
    bar = progress.add_task("asking", total=len(documents))

    async def one(number: int) -> Found:
        read, passages = documents[number]
        if not passages:
            return []
        task = Task(read.source, read.filing, passages, wish.kinds, wish.questions, wish.limit, wish.contamination)
        found = await ask_document(task, crew)
        rules.update("kept" if isinstance(item, Pair) else item.rule for item in found)
        progress.advance(bar)
        return found

    async def watch() -> None:
        while True:
            progress.update(bar, description=said(crew, rules))
            await asyncio.sleep(REFRESH_SECONDS)

    watching = asyncio.create_task(watch())
    try:
        # a document may have a single passage, and while its questions or a last call that hangs are awaited, nothing
        # else of it can be asked
        await in_order(len(documents), one, wish.documents_at_once, take)
    except BaseExceptionGroup as group:
        raise _first(group) from None
    finally:
        watching.cancel()
        progress.update(bar, description=said(crew, rules))
        await crew.close()


def said(crew: Crew, rules: Counter[str]) -> str:
    """Return the progress in words: calls, what is under way, what was kept, and the commonest reasons to drop."""
    counts = crew.replies.counts
    words = [f"{counts['asked']:,} calls"]
    words += [f"{counts['remembered']:,} remembered"] if counts["remembered"] else []
    paces = [pace for one in crew.backends if (pace := getattr(one, "pace", None)) is not None]
    if paces:
        words.append(f"{sum(pace.under_way for pace in paces)} of {sum(int(pace.limit) for pace in paces)} under way")
    failed = failures(crew)
    if failed:
        words.append("again after " + ", ".join(f"{fault} {count:,}" for fault, count in failed.most_common(3)))
    if rules:
        words.append(f"{rules['kept']:,} sound")
        words += [f"{rule} {count:,}" for rule, count in rules.most_common(4) if rule != "kept"][:3]
    return ", ".join(words)


def failures(crew: Crew) -> Counter[str]:
    """Return how many attempts failed, by what went wrong: HTTP status, timeout, connection, malformed."""
    found: Counter[str] = Counter()
    for backend in crew.backends:
        found.update(getattr(backend, "attempts", {}))
    del found["ok"]
    return found


async def in_order(
    count: int, work: Callable[[int], Awaitable[T]], at_once: int, take: Callable[[int, T], None]
) -> None:
    """Do work(0), work(1), … and hand each result on in this order; the first fault ends the others.

    A result that comes before its turn waits for it; while `WAITING` times `at_once` are under way or wait, no further
    work begins, so that no more of them are in memory.

    Args:
        count: Pieces of work.
        work: Does one.
        at_once: So many are under way at a time.
        take: Gets number and result.
    """
    places, room = asyncio.Semaphore(at_once), asyncio.Semaphore(WAITING * at_once)
    waiting: dict[int, T] = {}
    due = 0

    async def one(number: int) -> None:
        nonlocal due
        try:
            waiting[number] = await work(number)
        finally:
            places.release()
        while due in waiting:
            take(due, waiting.pop(due))
            due += 1
            room.release()

    async with asyncio.TaskGroup() as group:
        for number in range(count):
            await room.acquire()
            await places.acquire()
            group.create_task(one(number))


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first single fault of nested groups."""
    fault: BaseException = group
    while isinstance(fault, BaseExceptionGroup):
        fault = fault.exceptions[0]
    return fault
