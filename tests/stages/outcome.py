"""What a stage made, in a form that two runs of it can be compared in, byte by byte."""

import json
from pathlib import Path

from finlm.metrics import read_metrics

OF_ONE_START = ("perf/", "time", "per_second", "eps", "num_tokens", "train_loss", "total_flos")
"""Metrics with one of these in their names are of a process, not of a run: times, and transformers' own totals."""


def outcome(folder: Path) -> dict[str, object]:
    """Every file below a run root with its content.

    Left out is what cannot be equal: TensorBoard's logs (times in every event), the seconds of run.json, and metrics
    that measure one start of a process.
    """
    found: dict[str, object] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if path.name.startswith("events.out.tfevents"):
            continue
        if path.name == "run.json":
            state = json.loads(path.read_text(encoding="utf-8"))
            found[name] = {key: value for key, value in state.items() if key != "seconds"}
        elif path.name == "metrics.jsonl":
            found[name] = [_of_the_run(line) for line in read_metrics(path)]
        elif path.name == "trainer_state.json":
            state = json.loads(path.read_text(encoding="utf-8"))
            found[name] = state | {"log_history": [_of_the_run(line) for line in state["log_history"]]}
        elif path.name == "manifest.json":
            found[name] = {k: v for k, v in json.loads(path.read_bytes()).items() if k != "trainer_state.json"}
        else:
            found[name] = path.read_bytes()
    return found


def _of_the_run(line: dict[str, float]) -> dict[str, float]:
    return {key: value for key, value in line.items() if not any(word in key for word in OF_ONE_START)}


def differences(one: dict[str, object], other: dict[str, object]) -> list[str]:
    """Names of the files that are not equal, or only in one of the two."""
    return sorted(name for name in {*one, *other} if one.get(name) != other.get(name))
