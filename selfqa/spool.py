"""A list of records that lies on disk: a thousand filings make a million of them."""

import tempfile
import weakref
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Generic, TypeVar, overload

import msgspec

T = TypeVar("T")
IN_MEMORY = 8_000_000
"""Bytes that stay in memory; more goes to a file without a name, which the system takes back when the run ends."""


class Spool(Sequence[T], Generic[T]):
    """Records in the order of their coming; one is read anew each time it is looked at.

    Args:
        kind: Class of the records.
    """

    def __init__(self, kind: type[T]) -> None:
        self._file = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 (lives as long as the list)
        weakref.finalize(self, self._file.close)
        self._ends = array("Q")
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(kind).decode

    def append(self, record: T) -> None:
        """Add a record."""
        packed = self._encode(record)
        start = self._ends[-1] if self._ends else 0
        self._file.seek(start)
        self._file.write(packed)
        self._ends.append(start + len(packed))

    def __iadd__(self, records: Iterable[T]) -> "Spool[T]":
        for record in records:
            self.append(record)
        return self

    def __len__(self) -> int:
        return len(self._ends)

    def __iter__(self) -> Iterator[T]:
        for position in range(len(self)):
            yield self._at(position)

    @overload
    def __getitem__(self, position: int) -> T: ...
    @overload
    def __getitem__(self, position: slice) -> list[T]: ...
    def __getitem__(self, position: int | slice) -> T | list[T]:
        if isinstance(position, slice):
            return [self._at(at) for at in range(*position.indices(len(self)))]
        return self._at(range(len(self))[position])

    def _at(self, position: int) -> T:
        start = self._ends[position - 1] if position else 0
        self._file.seek(start)
        return self._decode(self._file.read(self._ends[position] - start))
