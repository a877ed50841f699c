"""A run's numbers over time: `metrics.jsonl`, one line a step."""

import json
from pathlib import Path

from finlm import runs


def append_metrics(path: Path, step: int, metrics: dict[str, float]) -> None:
    """Add one line `{"step": …, name: value, …}` to a metrics file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as out:
        out.write(json.dumps({"step": step, **metrics}) + "\n")


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Return the lines of a metrics file, one a step: where a resumed run wrote a step again, its last line counts."""
    if not path.is_file():
        return []
    lines: dict[int, dict[str, float]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue  # a run killed in the middle of a line writes that step again when it resumes
        lines.setdefault(entry["step"], {}).update(entry)
    return [lines[step] for step in sorted(lines)]


def forget_after(path: Path, step: int) -> None:
    """Take the lines of later steps out of a metrics file: the run goes on from `step` on another way."""
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if (number := _step(line)) is not None and number <= step]
    if kept != lines:
        runs.write_text(path, "".join(kept))


def _step(line: str) -> int | None:
    try:
        return int(json.loads(line)["step"])
    except json.JSONDecodeError:
        return None
