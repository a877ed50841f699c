"""How long each phase of an update takes, and how much memory it needs."""

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Phases:
    """The clock of one update.

    Attributes:
        seconds: Phase -> wall-clock seconds on this process.
    """

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, float] = {}
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Count the `with` block's time under a name, until the device is done with it."""
        began = time.perf_counter()
        yield
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began

    @property
    def total_seconds(self) -> float:
        """Seconds of all phases."""
        return sum(self.seconds.values())

    def metrics(self, *, tokens: float, splits: int) -> dict[str, float]:
        """Return the figures of this update under `perf/`.

        Args:
            tokens: Answer tokens of the rollout, over all processes.
            splits: Micro-batches so far that found too little memory here and were halved.
        """
        return {
            "perf/sample_seconds": self.seconds["sample"],
            "perf/measure_seconds": self.seconds["measure"],
            "perf/credit_seconds": self.seconds["credit"],
            "perf/learn_seconds": self.seconds["learn"],
            "perf/sampled_tokens_per_second": tokens / self.seconds["sample"],
            "perf/tokens_per_second": tokens / self.total_seconds,
            "perf/peak_memory_gib": self._peak_bytes() / 2**30,
            "perf/splits": float(splits),
        }

    def _peak_bytes(self) -> int:
        if self._device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self._device))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
