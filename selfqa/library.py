"""All documents of a corpus: parsed by as many processes as there are cores, loaded one by one when they are needed.

A thousand filings, parsed, are several gigabytes; what goes round is where each of them is kept.
"""

import hashlib
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache, partial
from multiprocessing.connection import wait
from pathlib import Path
from typing import TypeVar

from finlm.errors import UserError
from selfqa import reading
from selfqa.blocks import Source
from selfqa.parse_cache import ParseCache
from selfqa.unread import Unread, Unreadable

T = TypeVar("T")
FEW_BYTES = 2_000_000
"""So little is read by this process: to start others takes longer."""


@dataclass(frozen=True, slots=True)
class Shelf:
    """Where files are read from and kept."""

    corpus: Path
    cache: Path
    max_megabytes: float = reading.MAX_MEGABYTES


@dataclass(frozen=True, slots=True)
class Place:
    """Where a parsed document is.

    Example:
        Place(path=Path("filings/acme.html"), sha256="ab…", position=0)
    """

    path: Path
    sha256: str
    """Of the file's bytes."""
    position: int
    """Among the documents and faults of the file, from 0."""

    @property
    def key(self) -> str:
        """What the file's entry in the cache is called: content and suffix decide how it is read."""
        return f"{self.sha256}{self.path.suffix.lower()}"


def read_all(files: Sequence[Path], shelf: Shelf, processes: int) -> Iterator[list[Place | Unread]]:
    """Yield what each file gave, in the order of the files.

    A process that dies (killed for its memory, crashed inside a library) costs the file that it read, no other.

    Args:
        files: Files of a known kind.
        shelf: Where they lie and where they are kept.
        processes: How many read side by side; 0 for as many as there are cores.
    """
    workers = min(processes or len(os.sched_getaffinity(0)), len(files))
    read = partial(_read, shelf)
    if workers < 2 or sum(_size(path) for path in files) < FEW_BYTES:
        yield from map(read, files)
        return
    for path, found in zip(files, side_by_side(read, files, workers), strict=True):
        name = path.relative_to(shelf.corpus).as_posix()
        reason = f"{name} ended the process that read it, by its memory or a crash; leave it out or split it"
        yield [Unread(name, "reader-died", reason)] if found is None else found


def side_by_side(read: Callable[[Path], T], files: Sequence[Path], workers: int) -> Iterator[T | None]:
    """Yield what `read` makes of each file, in their order; None for a file that ends the process that reads it."""
    done, is_careful = 0, False
    while done < len(files):
        try:
            with _pool(1 if is_careful else workers) as pool:
                for found in pool.map(read, files[done:]):
                    yield found
                    done += 1
        except BrokenProcessPool:
            if is_careful:  # one by one: this is the file
                yield None
                done += 1
            is_careful = not is_careful


def _pool(workers: int) -> ProcessPoolExecutor:
    # spawned, not forked: this process has threads, the progress bar's among them
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _end_with_parent)


def _end_with_parent() -> None:
    """A reader whose parent was killed waits for work for ever unless it is told."""
    parent = multiprocessing.parent_process()
    if parent is not None:

        def watch() -> None:
            wait([parent.sentinel])
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _read(shelf: Shelf, path: Path) -> list[Place | Unread]:
    """Read one file, or find that it was read before."""
    name = path.relative_to(shelf.corpus).as_posix()
    try:
        raw = reading.bytes_of(path, shelf.max_megabytes)
    except Unreadable as fault:
        return [reading.unread(fault, name)]
    cache = ParseCache(shelf.cache)
    digest = hashlib.sha256(raw).hexdigest()
    key = Place(path, digest, 0).key
    contents = cache.contents(key)
    if contents is None:
        cache.keep(key, reading.parse(path, raw))
        contents = cache.contents(key)
        assert contents is not None
    return [_found(cache, Place(path, digest, position), name, is_fault) for position, is_fault in enumerate(contents)]


def _found(cache: ParseCache, place: Place, name: str, is_fault: bool) -> Place | Unread:
    kept = cache.load(place.key, place.position) if is_fault else None
    return reading.unread(kept, name) if isinstance(kept, Unreadable) else place


@lru_cache(maxsize=2)
def load(shelf: Shelf, place: Place) -> Source:
    """Return a document; one whose entry is gone or damaged is parsed again.

    Raises:
        UserError: The file is not what it was when the run began.
    """
    cache = ParseCache(shelf.cache)
    found = cache.load(place.key, place.position)
    if found is None:
        cache.keep(place.key, _again(shelf, place))
        found = cache.load(place.key, place.position)
    assert isinstance(found, Source)
    return reading.named(found, place.path.relative_to(shelf.corpus).as_posix(), place.position, place.sha256)


def _again(shelf: Shelf, place: Place) -> Iterator[Source | Unreadable]:
    try:
        raw = reading.bytes_of(place.path, shelf.max_megabytes)
    except Unreadable as fault:
        raise UserError(f"{place.path} {fault.reason}, but could be read when this run began; run it again.") from fault
    if hashlib.sha256(raw).hexdigest() != place.sha256:
        raise UserError(f"{place.path} has changed since this run began; run it again.")
    return reading.parse(place.path, raw)
