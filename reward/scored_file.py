"""A file of scored rows as it grows: a killed start goes on behind the last window of rows that was kept whole.

    <folder>/scored.part      rows with their scores, in the order they were read in
    <folder>/rejected.jsonl   what was set aside
    <folder>/kept.json        how many rows were read, and how long both files are up to there

Windows begin at the same rows in every start, and so do batches: a resumed file is that of an unbroken run, bit by bit
on a CPU.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import BinaryIO

from finlm import jsonl, runs
from finlm.records import Removal
from finlm.row_files import Row

PART, REJECTED, KEPT = "scored.part", "rejected.jsonl", "kept.json"


@dataclass(frozen=True, slots=True)
class Kept:
    """What is whole.

    Example:
        Kept(read=4096, scored=4090, answers=8180, set_aside=6, scored_bytes=2211840, rejected_bytes=1030)
    """

    read: int = 0
    """Rows of the input."""
    scored: int = 0
    """Rows of the output."""
    answers: int = 0
    set_aside: int = 0
    scored_bytes: int = 0
    rejected_bytes: int = 0


class ScoredFile:
    """Appends windows of rows; for a `with` block.

    Attributes:
        kept: What is whole so far.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.kept = Kept()
        if (folder / KEPT).is_file():
            found = Kept(**json.loads((folder / KEPT).read_text(encoding="utf-8")))
            if _size(folder / PART) >= found.scored_bytes and _size(folder / REJECTED) >= found.rejected_bytes:
                self.kept = found

    def __enter__(self) -> "ScoredFile":
        self._scored = _opened(self._folder / PART, self.kept.scored_bytes)
        self._rejected = _opened(self._folder / REJECTED, self.kept.rejected_bytes)
        return self

    def __exit__(self, *_: object) -> None:
        self._scored.close()
        self._rejected.close()

    def add(self, rows: Sequence[Row], removals: Sequence[Removal], *, answers: int) -> None:
        """Append a window's rows, whole or as if nothing had been; `answers` were scored for them."""
        for file, records in ((self._scored, rows), (self._rejected, removals)):
            file.write(b"".join(jsonl.encode(record) + b"\n" for record in records))
            file.flush()
            os.fsync(file.fileno())
        self.kept = replace(
            self.kept,
            read=self.kept.read + len(rows) + len(removals),
            scored=self.kept.scored + len(rows),
            answers=self.kept.answers + answers,
            set_aside=self.kept.set_aside + len(removals),
            scored_bytes=self._scored.tell(),
            rejected_bytes=self._rejected.tell(),
        )
        runs.write_json(self._folder / KEPT, asdict(self.kept))

    def publish(self, out: Path) -> None:
        """Make the rows the output; what could be gone on with is deleted."""
        out.parent.mkdir(parents=True, exist_ok=True)
        os.replace(self._folder / PART, out)
        (self._folder / KEPT).unlink()


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1


def _opened(path: Path, size: int) -> BinaryIO:
    """Open a file to append to what is whole of it."""
    path.touch()
    file = path.open("r+b")
    file.truncate(size)
    file.seek(size)
    return file
