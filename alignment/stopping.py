"""SIGTERM amid an update or step: noticed at the next batch, agreed on by all processes, answered by a checkpoint.

A signal comes to each process at a moment of its own, and a process that left alone would leave the others waiting in a
sum for ever. So work between two sums may be abandoned anywhere, and before the next sum all say whether they stop.
"""

import contextlib
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, TypeVar

from transformers import TrainerCallback

from alignment.processes import Processes

R = TypeVar("R")
EXIT_CODE = 128 + signal.SIGTERM
"""What a shell says of a process that SIGTERM ended: 143."""


class Stopped(Exception):
    """SIGTERM came; the run has stopped where it can go on from. The message says where that is."""


class StopSignal:
    """Catches SIGTERM for the `with` block.

    Attributes:
        has_come: True once this process was asked to stop.
    """

    def __init__(self) -> None:
        self.has_come = False
        self._before: Any = None

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._notice)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
            self._before = None

    def _notice(self, number: int, frame: FrameType | None) -> None:
        self.has_come = True

    def poll(self) -> None:
        """Raise `Stopped` if this process was asked to stop; only within work given to `together`."""
        if self.has_come:
            raise Stopped

    def poll_together(self, processes: Processes) -> None:
        """Raise `Stopped` on all processes if one of them was asked to stop; all must call this at the same place."""
        if processes.any(self.has_come):
            raise Stopped

    def together(self, processes: Processes, work: Callable[[], R]) -> R:
        """Do work that holds no sum over processes, and return its result; raise `Stopped` if any process was asked to.

        Raises:
            Stopped: On all processes, whichever was asked.
        """
        results: list[R] = []
        with contextlib.suppress(Stopped):
            results.append(work())
        if processes.any(self.has_come):
            raise Stopped
        return results[0]


class StopsBehindStep(TrainerCallback):  # type: ignore[misc]
    """Ends a Trainer's run behind the step at which a process was asked to stop, with a checkpoint of that step.

    Attributes:
        has_stopped: True once it has.
    """

    def __init__(self, signal: StopSignal, processes: Processes) -> None:
        self._signal, self._processes = signal, processes
        self.has_stopped = False

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """See the class."""
        if self._processes.any(self._signal.has_come):
            self.has_stopped = control.should_save = control.should_training_stop = True
