"""What the benchmarks of training share: steps that are timed in phases, sides in processes of their own, their files.

A side is a way to train, ours or a peer's; all sides of a benchmark train on the same drawn data.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor
from transformers import TrainerCallback

from benchmarks import six_billion
from benchmarks.clock import Clock
from benchmarks.six_billion import PAD

PROCESSES = int(os.environ.get("WORLD_SIZE", "1"))
HEAD = ("command", "commit", "hardware", "versions")
"""What a results file says of how it was measured."""


@dataclass(frozen=True)
class Step:
    """What was measured of one optimizer step."""

    seconds: float
    """From the end of the step before, waiting for data included."""
    tokens: int
    """Tokens that are no padding, of all processes."""
    places: int
    """The same, padding included."""
    loss: float
    """Nats, as the trainer's losses give it."""
    phases: dict[str, float]
    """Seconds of forward, backward and optimizer; what they leave of `seconds` is the rest."""
    peak_gib: float
    """Largest memory that tensors took since training began, GiB."""

    @property
    def speed(self) -> float:
        """Tokens per second."""
        return self.tokens / self.seconds


@dataclass(frozen=True)
class Run:
    """A side's steps in order, and under which conditions it took them."""

    steps: list[Step]
    conditions: dict[str, Any]


@dataclass
class Counter:
    """Gathers what is measured inside of a step."""

    clock: Clock = field(default_factory=Clock)
    steps: list[Step] = field(default_factory=list)
    _began: float = 0.0
    _sums: dict[str, Any] = field(default_factory=lambda: defaultdict(int))

    def begin(self) -> None:
        """Start the clock before the first step."""
        six_billion.synchronize()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        self._began = time.perf_counter()

    def add(self, ids: Tensor, loss: Tensor) -> None:
        """Count one forward pass; the GPU is not waited for."""
        self._sums["tokens"] += (ids != PAD).sum()
        self._sums["places"] += ids.numel()
        self._sums["loss"] += loss.detach()

    def end(self) -> None:
        """Close a step; the next one begins."""
        phases = self.clock.take()  # waits for the GPU
        now = time.perf_counter()
        peak = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0
        sums = torch.tensor([float(self._sums[name]) for name in ("tokens", "places", "loss")], dtype=torch.float64)
        if PROCESSES > 1:
            sums = sums.to(six_billion.device())
            torch.distributed.all_reduce(sums)
        tokens, places, loss = sums.tolist()
        seconds = now - self._began
        self.steps.append(Step(seconds, int(tokens), int(places), loss / PROCESSES, phases, peak))
        print(f"step {len(self.steps) - 1}: {self.steps[-1]}", flush=True)
        self._sums.clear()
        self._began = time.perf_counter()


def counted(
    kind: type[Any],
    counter: Counter,
    *,
    ids: Callable[[Any], Tensor] = lambda inputs: inputs["input_ids"],
    share: float = 1.0,
) -> type[Any]:
    """Return a class of trainer that counts its passes.

    Args:
        kind: The trainer.
        counter: What counts.
        ids: Finds a pass's tokens in its inputs.
        share: What a pass's loss is multiplied by, so that those of a step add up to the step's.
    """

    class Counted(kind):  # type: ignore[misc]
        def compute_loss(self, model: Any, inputs: Any, *more: Any, **named: Any) -> Any:
            tokens = ids(inputs)
            with counter.clock("forward"):
                loss = super().compute_loss(model, inputs, *more, **named)
            counter.add(tokens, loss * share)
            return loss

    return Counted


class Timer(TrainerCallback):  # type: ignore[misc]
    """Times a trainer's optimizer and its steps."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._timed: Any = None

    def on_train_begin(self, *_: Any, optimizer: Any, **__: Any) -> None:
        """Start, or go on where the same trainer trains again."""
        if optimizer is not self._timed:
            self._counter.clock.around(optimizer, "step", lambda *_: "optimizer")
            self._timed = optimizer
        self._counter.begin()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Close a step."""
        self._counter.end()


def common(steps: int, accumulate: int) -> dict[str, Any]:
    """Return the fields of TrainingArguments that all sides share.

    Args:
        steps: Steps after the first.
        accumulate: Passes an optimizer step.
    """
    return {
        "output_dir": tempfile.mkdtemp(),
        "max_steps": 1 + steps,
        "gradient_accumulation_steps": accumulate,
        "use_cpu": not torch.cuda.is_available(),
        "dataloader_pin_memory": torch.cuda.is_available(),
        "report_to": [],
        "save_strategy": "no",
        "disable_tqdm": True,
    }


def fields(items: Sequence[str]) -> dict[str, Any]:
    """Return fields of a configuration that were given as NAME=VALUE."""
    return {name: yaml.safe_load(value) for name, value in (item.split("=", 1) for item in items)}


# ------------------------------------------------------------------------------------------ figures of several files


def middle(steps: Sequence[Step]) -> Step:
    """Return the step of median speed, the slower of two."""
    return sorted(steps, key=lambda step: step.speed)[(len(steps) - 1) // 2]


def described(steps: Sequence[Step], chosen: Step) -> dict[str, Any]:
    """Return what a results file says of steps besides their speed.

    Args:
        steps: The steps that count.
        chosen: The one whose phases are shown.
    """
    return {
        "token_share": sum(step.tokens for step in steps) / sum(step.places for step in steps),
        "phases": chosen.phases | {"rest": chosen.seconds - sum(chosen.phases.values())},
    }


def measure_apart(
    given: argparse.Namespace, script: str, flags: Sequence[str], launcher: Sequence[str] = ()
) -> list[Path]:
    """Measure each side in a process of its own, for memory and patches of one are the other's; return their files.

    A side that fails leaves no file, and the others go on.

    Args:
        given: The script's options; `side` names the sides.
        script: The script.
        flags: Names of the options that are handed on.
        launcher: What stands between Python and the script.
    """
    files = []
    for side in given.side:
        out = given.out.with_suffix(f".{side}.json")
        out.unlink(missing_ok=True)
        command = [sys.executable, *launcher, script, "--side", side, "--out", str(out)]
        for name in flags:
            if getattr(given, name) is not None:
                command += [f"--{name.replace('_', '-')}", str(getattr(given, name))]
        print(" ".join(command), flush=True)
        # a launcher puts neither this checkout nor what the caller named on the path of its processes
        paths = os.pathsep.join(filter(None, (str(six_billion.CHECKOUT), os.environ.get("PYTHONPATH"))))
        on_cpu = {} if torch.cuda.is_available() else {"ACCELERATE_USE_CPU": "true"}
        subprocess.run(command, check=False, env=os.environ | {"PYTHONPATH": paths} | on_cpu)
        files += [out] if out.exists() else []
    return files


def best(sides: Sequence[Mapping[str, Any]], by: str, **wanted: Any) -> Mapping[str, Any] | None:
    """Return the side with the largest figure `by` of those that have these conditions, if any."""
    fitting = [side for side in sides if all(side[name] == value for name, value in wanted.items())]
    return max(fitting, key=lambda side: side[by], default=None)


def merge(files: Sequence[Path], headline: Callable[[list[dict[str, Any]]], dict[str, float]]) -> dict[str, Any]:
    """Return one result of several files: headline figures, how each file was measured, every side in full."""
    read = [json.loads(path.read_text(encoding="utf-8")) for path in files]
    runs, sides = [], []
    for one in read:
        runs += one.get("runs") or [{name: one[name] for name in HEAD}]
        sides += one["figures"]["sides"] if "sides" in one["figures"] else one["sides"]
    rates = {name: read[0]["figures"][name] for name in ("matrix_rate", "bandwidth")}
    head = {name: read[0][name] for name in HEAD}
    return head | {"figures": headline(sides) | rates, "runs": runs, "sides": sides}


def write_merged(given: argparse.Namespace, files: Sequence[Path], headline: Any) -> list[dict[str, Any]]:
    """Write one result of several files to `given.out`; return its sides.

    Raises:
        SystemExit: There is no file.
    """
    if not files:
        sys.exit("no side ran to its end")
    found = merge(files, headline)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    sides: list[dict[str, Any]] = found["sides"]
    return sides
