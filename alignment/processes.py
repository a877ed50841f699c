"""Numbers that all processes must agree on: one process per GPU, each with its own answers."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor

from alignment import objective
from finlm.errors import UserError

R = TypeVar("R")
T = TypeVar("T")


class LostProcess(UserError):
    """Another process has ended or cannot be reached; the run goes on from its last checkpoint."""


class Processes:
    """Sums over processes; with a single one they cost nothing."""

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator

    @property
    def count(self) -> int:
        """Number of processes."""
        return int(self._accelerator.num_processes)

    @property
    def index(self) -> int:
        """Number of this process, from 0."""
        return int(self._accelerator.process_index)

    @property
    def is_main(self) -> bool:
        """True on the one process that writes files."""
        return bool(self._accelerator.is_main_process)

    def sum(self, number: float) -> float:
        """Return the sum of a number over processes, in float64."""
        if self.count == 1:
            return number
        here = torch.tensor(number, device=self._accelerator.device).double()
        return float(self._summed(here))

    def sum_all(self, numbers: Sequence[float]) -> list[float]:
        """Return the sum of each number over processes, in float64, by one message."""
        if self.count == 1:
            return list(numbers)
        here = torch.tensor(numbers, device=self._accelerator.device, dtype=torch.float64)
        there: list[float] = self._summed(here).tolist()
        return there

    def max(self, number: float) -> float:
        """Return the largest of a number over processes."""
        if self.count == 1:
            return number
        here = torch.tensor([number], device=self._accelerator.device, dtype=torch.float64)
        return float(self._accelerator.gather(here).max())

    def any(self, is_here: bool) -> bool:
        """Return True on every process if it is True on one of them."""
        return self.sum(float(is_here)) > 0

    def from_main(self, decide: Callable[[], R]) -> R:
        """Return on every process what `decide` returns on the main one, where alone it is called."""
        if self.count == 1:
            return decide()
        decided: list[Any] = [decide() if self.is_main else None]
        with self._together():
            broadcast_object_list(decided)
        found: R = decided[0]
        return found

    def gather(self, here: Sequence[T]) -> list[T]:
        """Return the objects of all processes, those of the first before those of the second."""
        if self.count == 1:
            return list(here)
        with self._together():
            found: list[T] = gather_object(list(here))
        return found

    def wait(self) -> None:
        """Wait until every process has come here."""
        with self._together():
            self._accelerator.wait_for_everyone()

    def total(self, here: Tensor) -> Tensor:
        """Return the sum of a tensor over processes."""
        return here if self.count == 1 else self._summed(here)

    def moments(self, numbers: Sequence[Tensor], masks: Sequence[Tensor]) -> objective.Moments:
        """Return the moments of the counted numbers of all micro-batches of all processes."""
        parts = [objective.moments(number, mask) for number, mask in zip(numbers, masks, strict=True)]
        local = [torch.stack(column).sum() for column in zip(*parts, strict=True)]
        return objective.Moments(*(self._summed(part) for part in local))

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replace each gradient by its sum over processes; losses are divided by the tokens of all of them before."""
        if self.count == 1:
            return
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            parameter.grad = self._summed(parameter.grad)

    def _summed(self, here: Tensor) -> Tensor:
        with self._together():
            there: Tensor = self._accelerator.reduce(here, reduction="sum")
        return there

    @contextmanager
    def _together(self) -> Iterator[None]:
        """Say in words what it means that the others do not answer.

        Raises:
            LostProcess: They do not.
        """
        try:
            yield
        except RuntimeError as error:
            if self.count == 1 or isinstance(error, torch.OutOfMemoryError):
                raise
            reason = " ".join(str(error).split())[:200]
            raise LostProcess(
                f"Process {self.index} of {self.count} no longer reaches the others ({reason}): one of them has ended; "
                "its own last message says why. The same command goes on from the last checkpoint."
            ) from error
