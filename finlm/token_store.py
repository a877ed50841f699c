"""Encoded samples on disk: made once for a file, then mapped into memory.

<folder>/ids.npy           token ids of all samples, one behind the other, int32
         learned.npy       1 on tokens with a loss, uint8
         starts.npy        where each sample begins, and the end of the last, int64
         notes.jsonl       a SampleNote a sample
         rejected.jsonl    a Removal for each record that gave none
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from finlm import jsonl, runs
from finlm.records import Removal
from finlm.samples import Sample
from finlm.sft_records import StreamName

FLUSH = 4096
"""Samples between two writes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleNote:
    """What a sample is besides its tokens.

    Example:
        SampleNote(record_id="9f…", group="Acme", language="en", place="pixiu.jsonl:17")
    """

    record_id: str
    group: str
    """Decides whether it is held out."""
    language: str
    place: str


class TokenStore:
    """Samples of one file.

    Args:
        folder: Where `write` put them.
        stream: The stream that they belong to.

    Attributes:
        notes: What each sample is besides its tokens.
        lengths: Tokens of each sample.
        removals: Records that gave no sample.
    """

    def __init__(self, folder: Path, stream: StreamName) -> None:
        self._stream = stream
        self._ids: Any = np.load(folder / "ids.npy", mmap_mode="r")
        self._learned: Any = np.load(folder / "learned.npy", mmap_mode="r")
        self._starts: npt.NDArray[np.int64] = np.load(folder / "starts.npy")
        self.notes = list(jsonl.read(folder / "notes.jsonl", SampleNote))
        self.removals = list(jsonl.read(folder / "rejected.jsonl", Removal))
        self.lengths: npt.NDArray[np.int64] = np.diff(self._starts)

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.notes)

    def __getitem__(self, place: int) -> Sample:
        """Return one sample; its arrays are views of the files."""
        start, stop = int(self._starts[place]), int(self._starts[place + 1])
        note = self.notes[place]
        return Sample(
            self._stream,
            self._ids[start:stop],
            self._learned[start:stop].view(np.bool_),
            note.record_id,
            note.language,
            note.place,
        )


def write(folder: Path, encoded: Iterable[tuple[Sample, str] | Removal]) -> None:
    """Write samples, each with its group, and removals into a folder that is whole or not there."""
    removals: list[Removal] = []
    notes: list[SampleNote] = []
    starts = [0]
    ids: list[npt.NDArray[np.int32]] = []
    learned: list[npt.NDArray[np.uint8]] = []
    waiting_ids: list[npt.NDArray[np.int32]] = []
    waiting_learned: list[npt.NDArray[np.uint8]] = []
    for one in encoded:
        if isinstance(one, Removal):
            removals.append(one)
            continue
        sample, group = one
        notes.append(SampleNote(record_id=sample.record_id, group=group, language=sample.language, place=sample.place))
        starts.append(starts[-1] + len(sample))
        waiting_ids.append(sample.ids)
        waiting_learned.append(sample.is_learned.view(np.uint8))
        if len(waiting_ids) == FLUSH:  # few large arrays lie closer than many small ones
            ids, learned = [*ids, np.concatenate(waiting_ids)], [*learned, np.concatenate(waiting_learned)]
            waiting_ids, waiting_learned = [], []
    with runs.whole_folder(folder) as aside:
        np.save(aside / "ids.npy", np.concatenate([*ids, *waiting_ids, np.empty(0, np.int32)]))
        np.save(aside / "learned.npy", np.concatenate([*learned, *waiting_learned, np.empty(0, np.uint8)]))
        np.save(aside / "starts.npy", np.asarray(starts, dtype=np.int64))
        jsonl.write(aside / "notes.jsonl", notes)
        jsonl.write(aside / "rejected.jsonl", removals)
