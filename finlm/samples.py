"""What is packed into rows: conversations and pieces of documents, as token ids with a mask of what is learned."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from finlm.sft_records import StreamName


@dataclass(frozen=True, slots=True)
class Sample:
    """A conversation or a piece of text; it is never cut.

    Example:
        Sample(stream="instructions-finance", ids=np.array([216, 24248, 2]), is_learned=np.array([False, True, True]),
               record_id="9f…", language="en", place="pixiu.jsonl:17")
    """

    stream: StreamName
    ids: npt.NDArray[np.int32]
    is_learned: npt.NDArray[np.bool_]
    """True on tokens with a loss: all of a text, the assistant's turns with their end tokens of a conversation. The
    first token of a sample has none in either: nothing stands before it."""
    record_id: str
    language: str
    place: str
    """File and line."""

    def __len__(self) -> int:
        """Number of tokens."""
        return len(self.ids)

    @property
    def learned(self) -> int:
        """Number of tokens with a loss."""
        return int(self.is_learned.sum())


@dataclass(frozen=True, slots=True)
class Row:
    """Samples that lie side by side in one row and never see each other.

    Example:
        Row(samples=(Sample(…), Sample(…)))
    """

    samples: tuple[Sample, ...]

    def __len__(self) -> int:
        """Number of tokens."""
        return sum(map(len, self.samples))
