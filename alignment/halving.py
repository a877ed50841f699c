"""Out of memory: the same work in smaller pieces, with the same result."""

import gc
from collections.abc import Callable
from typing import Protocol, Self, TypeVar

import torch

from finlm.errors import UserError

R = TypeVar("R")


class Rows(Protocol):
    """A batch that can be cut between its rows."""

    def __len__(self) -> int:
        """Number of rows."""
        ...

    @property
    def tokens(self) -> int:
        """Size of the batch, padding included."""
        ...

    def rows(self, start: int, stop: int) -> Self:
        """Return some of the rows, as wide as before."""
        ...


B = TypeVar("B", bound=Rows)


class Halving:
    """Does work on a batch; in halves, and halves of these, where memory is too small for the whole.

    The work must add nothing to anything before it is done with a piece: what it returns for the pieces is then worth
    what it would have returned for the whole. Sizes that were too large once are cut beforehand from then on.

    Args:
        is_allowed: False where all processes must do the same pieces of work: too little memory is then an error.

    Attributes:
        splits: How often a piece was too large.
    """

    def __init__(self, *, is_allowed: bool = True) -> None:
        self.splits = 0
        self._is_allowed = is_allowed
        self._too_large: int | None = None

    def __call__(self, batch: B, work: Callable[[B], R]) -> list[R]:
        """Return what `work` gives for the batch, or for its pieces in their order.

        Raises:
            UserError: A single row is too large, or the batch is and may not be halved.
        """
        waiting, done = [batch], []
        while waiting:
            piece = waiting.pop(0)
            is_known = self._too_large is not None and piece.tokens >= self._too_large and len(piece) > 1
            result = None if is_known else _tried(piece, work)
            if result is not None:
                done.append(result[0])
                continue
            if not self._is_allowed:
                raise UserError(
                    f"Out of memory with {len(piece)} answers of {piece.tokens} tokens in all; with layout 'full' the "
                    "processes must stay in step and none can halve its work: lower per_device_train_batch_size and "
                    "raise gradient_accumulation_steps, or set gradient_checkpointing to true."
                )
            if len(piece) == 1:
                raise UserError(
                    f"Out of memory with a single answer of {piece.tokens} tokens, prompt included; lower "
                    "response_length or max_prompt_length, or set gradient_checkpointing to true."
                )
            if not is_known:
                self.splits += 1
                self._too_large = min(piece.tokens, self._too_large or piece.tokens)
                release()
            middle = len(piece) // 2
            waiting[:0] = [piece.rows(0, middle), piece.rows(middle, len(piece))]
        return done


def _tried(piece: B, work: Callable[[B], R]) -> tuple[R] | None:
    # the error must be forgotten before memory is asked for again: its frames hold the tensors
    try:
        return (work(piece),)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return None


def is_out_of_memory(error: BaseException) -> bool:
    """True if a device or the main memory had no room for a tensor; for main memory torch has no error of its own."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def release() -> None:
    """Give back what memory nobody holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
