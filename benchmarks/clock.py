"""Seconds of a step by phase, as the GPU benchmarks count them."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch

from benchmarks import six_billion


class Clock:
    """Seconds of GPU time by phase, from events: nothing waits for the GPU before the step is over."""

    def __init__(self) -> None:
        self._events: dict[str, list[tuple[Any, Any]]] = defaultdict(list)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Count what the `with` block sends to the GPU."""
        if not torch.cuda.is_available():
            began = time.perf_counter()
            yield
            self._events[name].append((began, time.perf_counter()))
            return
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        before.record()
        yield
        after.record()
        self._events[name].append((before, after))

    def around(self, owner: Any, name: str, phase: Callable[..., str]) -> None:
        """Count every call of `owner.name` under the phase that its arguments tell."""
        inner = getattr(owner, name)

        @wraps(inner)  # with its marks: a schedule of learning rates looks for its own on an optimizer's step
        def counted(*given: Any, **named: Any) -> Any:
            with self(phase(*given)):
                return inner(*given, **named)

        setattr(owner, name, counted)

    def take(self) -> dict[str, float]:
        """Return the seconds of each phase since the last call."""
        six_billion.synchronize()
        found = {}
        for name, pairs in self._events.items():
            found[name] = sum(b - a if isinstance(a, float) else a.elapsed_time(b) / 1000 for a, b in pairs)
        self._events.clear()
        return found
