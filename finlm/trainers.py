"""What the stages that train through a Trainer set in common, and how their runs are watched."""

import os
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import PartialState
from transformers import PrinterCallback, ProgressCallback, TrainingArguments

from finlm import config
from finlm.checkpoints import FiniteGradients
from finlm.errors import UserError
from finlm.progress import Watch, console


class Trained(Protocol):
    """The settings that every such stage has."""

    @property
    def output(self) -> str:
        """Folder of the run."""

    @property
    def steps(self) -> int:
        """Optimizer steps."""

    @property
    def batch_size(self) -> int:
        """Rows per optimizer step, over all processes."""

    @property
    def micro_batch(self) -> int:
        """Rows per forward pass and process."""

    @property
    def learning_rate(self) -> float:
        """Peak learning rate."""

    @property
    def save_steps(self) -> int:
        """Steps between checkpoints."""

    @property
    def seed(self) -> int:
        """Seed of everything random."""

    @property
    def trainer(self) -> dict[str, Any]:
        """The user's further fields of the Trainer's configuration."""


def processes() -> PartialState:
    """Return the processes of this run; without a GPU they must be told, or each takes itself for the only one."""
    return PartialState(cpu=not torch.cuda.is_available())


def arguments(settings: Trained, device: torch.device, **fixed: Any) -> TrainingArguments:
    """Return the configuration of a Trainer: ours, what the stage fixes, and the user's section `trainer`.

    Args:
        settings: The stage's settings.
        device: Where it trains.
        fixed: Fields that the stage decides.

    Raises:
        UserError: The batch does not divide over the processes, or the section sets what is not its to set.
    """
    count = processes().num_processes
    if settings.batch_size % (settings.micro_batch * count):
        raise UserError(
            f"batch_size {settings.batch_size} must be a multiple of micro_batch {settings.micro_batch} x "
            f"{count} processes."
        )
    out = Path(settings.output)
    # TensorBoard would begin in the working folder, and in another one at each start
    os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(out / "tensorboard"))
    ours = {
        "output_dir": str(out / "checkpoints"),
        "max_steps": settings.steps,
        "per_device_train_batch_size": settings.micro_batch,
        "per_device_eval_batch_size": settings.micro_batch,
        "gradient_accumulation_steps": settings.batch_size // (settings.micro_batch * count),
        "learning_rate": settings.learning_rate,
        "warmup_steps": settings.steps // 20,
        "save_strategy": "steps",
        "save_steps": settings.save_steps,
        "seed": settings.seed,
        "bf16": False,
        "use_cpu": device.type == "cpu",
        "dataloader_pin_memory": device.type == "cuda",
    }
    defaults = {"logging_steps": 1, "gradient_checkpointing": device.type == "cuda", "report_to": "tensorboard"}
    made = config.section("trainer", defaults | settings.trainer, TrainingArguments, ours | fixed)
    on_its_gpu(made)
    return made


def on_its_gpu(made: TrainingArguments) -> None:
    """Keep a process on one GPU, and say how several are used.

    A Trainer that finds more than one without a launcher copies the model onto all of them for every pass and cuts the
    batch in pieces: packed rows, whose bounds lie in one tensor, do not survive that.
    """
    if made.n_gpu > 1:
        console.print(
            f"1 of {made.n_gpu} GPUs is used; `accelerate launch --num_processes {made.n_gpu}` before the script's "
            "path uses all."
        )
        made._n_gpu = 1


def watch(trainer: Any, title: str, out: Path) -> None:
    """Show one bar, write `metrics.jsonl`, and stop before a step that is not finite."""
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(FiniteGradients())
    trainer.add_callback(Watch(title, out / "metrics.jsonl"))
