"""Every epoch of a reward model's training: judged on the same held-out comparisons, its weights kept to choose from.

<run>/epochs/epoch-01/                adapter and head as they were, and judged.jsonl in the units of the loss
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peft import set_peft_model_state_dict
from peft.utils import load_peft_weights
from transformers import TrainerCallback

from finlm import runs
from finlm.model import save_trained
from reward.groups import Group
from reward.judged import Judged, read_judged, write_judged
from reward.judging import records_of
from reward.trainer import ComparisonTrainer

FOLDER = "epochs"


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
        self._folder = folder / FOLDER

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Of a run that goes on, forget what came after its checkpoint."""
        if not args.should_save:
            return
        for folder in sorted(self._folder.glob("epoch-*")):
            if _number(folder) * self._trainer.steps_per_epoch > state.global_step:
                shutil.rmtree(folder)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """See the class."""
        step, size = state.global_step, self._trainer.steps_per_epoch
        state.epoch = step / size  # a Trainer counts from where it was started
        if step % size and step < args.max_steps:
            return
        records = records_of(self._held_out, self._trainer.scores(self._held_out))
        if not args.should_save:
            return
        with runs.whole_folder(self._folder / f"epoch-{-(-step // size):02d}") as aside:
            save_trained(self._trainer.model, aside)
            write_judged(aside, records)


def _number(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])


def read_epochs(folder: Path) -> dict[int, list[Judged]]:
    """Return what each epoch of a run made of the held-out comparisons."""
    return {_number(its): read_judged(its) for its in sorted((folder / FOLDER).glob("epoch-*"))}


def take(trainer: ComparisonTrainer, folder: Path, epoch: int) -> None:
    """Give the trainer's model the weights of one of its epochs."""
    weights = load_peft_weights(str(folder / FOLDER / f"epoch-{epoch:02d}"), device="cpu")
    set_peft_model_state_dict(trainer.model, weights)
