"""Signs of life between the processes of one run: none waits for ever for one that was killed or hangs.

A sum over processes waits for all of them. Over gloo a killed process is noticed at once; NCCL waits for minutes, and
either waits for a process that is alive but stuck. So every process counts up in a file of its own in the run's folder,
and ends when another's count has stood still.
"""

import contextlib
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

FOLDER = ".alive.tmp"
EVERY_SECONDS = 5.0
SILENT_BEATS = 8
"""So many of its own beats without another's: 40 seconds. Counted in beats, so that a machine that slept, or a disk
that stood still for all of them, is no silence."""
EXIT_CODE = 2


def leave(message: str) -> None:
    """End this process at once: its main thread may wait in a library that nothing else wakes."""
    print(f"error: {message}", file=sys.stderr, flush=True)
    os._exit(EXIT_CODE)


class Heartbeat:
    """Beats for the `with` block; with a single process it does nothing.

    Args:
        folder: The run's folder, which all processes see.
        index: Number of this process, from 0.
        count: Number of processes.
        wait: Waits until every process has come there.
        every_seconds: Between two beats.
        on_silence: Told once, in a sentence, that a process has fallen silent.
    """

    def __init__(
        self,
        folder: Path,
        index: int,
        count: int,
        wait: Callable[[], None],
        *,
        every_seconds: float = EVERY_SECONDS,
        on_silence: Callable[[str], None] = leave,
    ) -> None:
        self._folder = folder / FOLDER
        self._index = index
        self._others = [number for number in range(count) if number != index]
        self._wait = wait
        self._every_seconds = every_seconds
        self._on_silence = on_silence
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> "Heartbeat":
        if self._others:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._beat(0)
            # what an earlier start left behind is overwritten before anyone looks
            self._wait()
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if not self._others:
            return
        self._is_over.set()
        self._thread.join()
        if error is not None:
            return  # its file stands still: whoever does not end for the same reason must not wait for this process
        self._file(self._index).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._folder.rmdir()

    def _run(self) -> None:
        seen: dict[int, str] = {}
        silent = dict.fromkeys(self._others, 0)
        beat = 0
        while not self._is_over.wait(self._every_seconds):
            beat += 1
            self._beat(beat)
            for other in self._others:
                said = self._heard(other)
                silent[other] = silent[other] + 1 if said is not None and said == seen.get(other) else 0
                if said is not None:
                    seen[other] = said
                if silent[other] >= SILENT_BEATS:
                    seconds = SILENT_BEATS * self._every_seconds
                    self._on_silence(
                        f"Process {other} has given no sign of life for {seconds:.0f} seconds: it was killed or hangs; "
                        "its own last message may say why. The same command goes on from the last checkpoint."
                    )
                    return

    def _beat(self, number: int) -> None:
        # a disk that is full for a moment ends no run here
        with contextlib.suppress(OSError):
            self._file(self._index).write_text(f"{os.getpid()} {number}\n", encoding="ascii")

    def _heard(self, other: int) -> str | None:
        try:
            return self._file(other).read_text(encoding="ascii")
        except OSError:
            return None

    def _file(self, process: int) -> Path:
        return self._folder / f"process-{process}"
