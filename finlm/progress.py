"""Progress on long work: one rich bar with the numbers worth watching, and the same numbers as lines of a file."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from finlm.metrics import append_metrics

console = Console(stderr=True)
"""Progress and notices go to stderr, results to stdout."""


def bar(*, is_shown: bool = True) -> Progress:
    """Return a progress bar in the one look of all stages; it needs `with`."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not is_shown,
    )


class Watch(TrainerCallback):  # type: ignore[misc]
    """Shows a Trainer's progress and writes what it logs to `metrics.jsonl`."""

    def __init__(self, title: str, metrics: Path) -> None:
        self.title = title
        self.metrics = metrics
        self.progress: Progress | None = None
        self.task: Any = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the bar at the step where training begins."""
        self.progress = bar(is_shown=state.is_world_process_zero)
        self.progress.start()
        self.task = self.progress.add_task(self.title, total=state.max_steps, completed=state.global_step, note="")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Advance the bar."""
        if self.progress is not None:
            self.progress.update(self.task, completed=state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Show the loss and keep all numbers."""
        numbers = {name: float(value) for name, value in (logs or {}).items() if isinstance(value, int | float)}
        if not state.is_world_process_zero or not numbers:
            return
        append_metrics(self.metrics, state.global_step, numbers)
        if self.progress is not None and "loss" in numbers:
            self.progress.update(self.task, note=f"loss {numbers['loss']:.3f}")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close the bar."""
        if self.progress is not None:
            self.progress.stop()
            self.progress = None
