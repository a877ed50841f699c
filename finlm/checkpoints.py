"""What the transformers Trainer lacks to be killed or led astray without harm.

It writes a checkpoint straight into its final place, so that a run killed meanwhile resumes from the torso, and it
steps with gradients that are not finite.
"""

import shutil
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments, set_seed

from finlm import runs
from finlm.errors import UserError
from finlm.model import order_targets
from finlm.progress import console


class WholeCheckpoints:
    """Mixin for a Trainer: writes `checkpoint-N` aside, seals it, renames it, and keeps the newest two."""

    args: Any
    state: Any
    accelerator: Any
    _staging: str | None = None
    kept = 2

    def go_on(self) -> None:
        """Train from the newest whole checkpoint, or from the start, to the last step; say what was passed over."""
        checkpoint, complaints = runs.newest_whole(Path(self.args.output_dir), "checkpoint-*")
        for complaint in complaints:
            console.print(f"[yellow]skipped a damaged checkpoint: {complaint}")
        # what was evaluated before, and by which start, must not decide what training draws (dropout, for one)
        set_seed(self.args.seed)
        if checkpoint is None:
            self.train()  # type: ignore[attr-defined]
        elif not self.is_over(int(checkpoint.name.rpartition("-")[2])):
            self.train(resume_from_checkpoint=str(checkpoint))  # type: ignore[attr-defined]
        else:
            # asked to resume at its last step, a Trainer takes another one
            self._load_from_checkpoint(str(checkpoint))  # type: ignore[attr-defined]
            self.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
            if self.args.should_save:
                runs.keep_newest(Path(self.args.output_dir), "checkpoint-*", self.kept)

    def is_over(self, step: int) -> bool:
        """True if nothing is left to learn behind `step`."""
        return bool(step >= self.args.max_steps)

    def create_model_card(self, *given: Any, **named: Any) -> None:
        """Write none: TRL's names no data of ours and orders its tags by chance."""

    def _get_output_dir(self, trial: Any) -> str:
        return self._staging or super()._get_output_dir(trial)  # type: ignore[misc]

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder = Path(self.args.output_dir)
        name = f"checkpoint-{self.state.global_step}"
        staging = folder / ".staging"
        if self.args.should_save:
            shutil.rmtree(staging, ignore_errors=True)
        self._staging = str(staging)
        for lora in getattr(model, "peft_config", {}).values():
            order_targets(lora)
        self.accelerator.wait_for_everyone()  # each process writes its part into the folder; none before it is empty
        try:
            super()._save_checkpoint(model, trial)  # type: ignore[misc]
        finally:
            self._staging = None
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            runs.seal(staging / name)
            runs.replace_folder(staging / name, folder / name)
            runs.keep_newest(folder, "checkpoint-*", self.kept)
            staging.rmdir()


class FiniteGradients(TrainerCallback):  # type: ignore[misc]
    """Stops a Trainer before a step that would write NaN or infinity into the weights."""

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: torch.nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        """Check the gradients.

        Raises:
            UserError: One is not finite; the message names its weight.
        """
        gradients = {
            name: one.grad.to_local() if isinstance(one.grad, DTensor) else one.grad
            for name, one in (model.named_parameters() if model is not None else ())
            if one.grad is not None
        }
        if not gradients:
            return
        # one look at the device, not one for each weight; a sum of squares may be infinite where no gradient is
        is_finite = torch.stack(torch._foreach_norm(list(gradients.values()))).isfinite().all()
        if args.world_size > 1:  # shards differ, and none may step where another does not
            torch.distributed.all_reduce(is_finite := is_finite.int(), torch.distributed.ReduceOp.MIN)
        if bool(is_finite):
            return
        for name, gradient in gradients.items():
            if not bool(torch.isfinite(gradient).all()):
                raise UserError(_not_finite(name, state.global_step + 1))
        if args.world_size > 1:
            raise UserError(_not_finite("a weight in another process", state.global_step + 1))


def _not_finite(name: str, step: int) -> str:
    return (
        f"The gradient of {name} at step {step} is not finite; no step was taken and the "
        "checkpoints keep the last values. Lower learning_rate, or look for damaged weights in the model."
    )
