"""Every epoch of a reward model's training: judged on the same held-out comparisons, its weights kept to choose from.

<run>/epochs/epoch-01/                adapter or model with its head as they were; judged.jsonl and findings.json, which
                                      are in the loss's units and without what takes further passes
"""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from finlm import runs
from finlm.metrics import append_metrics
from finlm.model import save_trained
from finlm.progress import console
from reward.findings import EPOCHS, findings, write_findings
from reward.groups import Group
from reward.judged import Judged, decided, read_judged, write_judged
from reward.judging import records_of
from reward.trainer import ComparisonTrainer


class Epochs(TrainerCallback):  # type: ignore[misc]
    """Judges and keeps at the end of every epoch, and of a last one that is not whole.

    Args:
        trainer: The trainer.
        held_out: What is judged.
        folder: The run's folder.
    """

    def __init__(self, trainer: ComparisonTrainer, held_out: Sequence[Group], folder: Path) -> None:
        self._trainer = trainer
        self._held_out = held_out
        self._folder = folder / EPOCHS

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Of a run that goes on, forget what came after its checkpoint."""
        if not args.should_save:
            return
        for epoch, folder in runs.numbered(self._folder, "epoch-*").items():
            if epoch * self._trainer.steps_per_epoch > state.global_step:
                shutil.rmtree(folder)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """See the class."""
        step, size = state.global_step, self._trainer.steps_per_epoch
        state.epoch = step / size  # a Trainer counts from where it was started
        if step % size and step < args.max_steps:
            return
        begun = time.perf_counter()
        records = records_of(self._held_out, self._trainer.scores(self._held_out))
        seconds = time.perf_counter() - begun
        if not args.should_save:
            return
        epoch = -(-step // size)
        with runs.whole_folder(folder_of(self._folder.parent, epoch)) as aside:
            save_trained(self._trainer.model, aside)
            write_judged(aside, records)
            write_findings(aside, findings(records, seed=args.seed))
        hits = [record.hit for record in decided(records)]
        right = sum(hits) / len(hits)
        figures = {"held_out/accuracy": right, "perf/judging_seconds": seconds}
        append_metrics(self._folder.parent / "metrics.jsonl", step, figures)
        console.print(f"epoch {epoch}: right on {right:.3f} of {len(hits):,} held-out pairs, judged in {seconds:.1f} s")


def read_epochs(folder: Path) -> dict[int, list[Judged]]:
    """Return what each epoch of a run made of the held-out comparisons."""
    return {epoch: read_judged(its) for epoch, its in runs.numbered(folder / EPOCHS, "epoch-*").items()}


def folder_of(folder: Path, epoch: int) -> Path:
    """Return where an epoch of a run keeps its weights."""
    return folder / EPOCHS / f"epoch-{epoch:02d}"
