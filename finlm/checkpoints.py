"""Checkpoints of the transformers Trainer that are whole or not there.

transformers 5 writes a checkpoint straight into its final place, and a run killed meanwhile resumes from the torso.
"""

from pathlib import Path
from typing import Any

from finlm import runs


class WholeCheckpoints:
    """Mixin for a Trainer: writes `checkpoint-N` aside, seals it, renames it, and keeps the newest two."""

    args: Any
    state: Any
    _staging: str | None = None
    kept = 2

    def _get_output_dir(self, trial: Any) -> str:
        return self._staging or super()._get_output_dir(trial)  # type: ignore[misc]

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder = Path(self.args.output_dir)
        name = f"checkpoint-{self.state.global_step}"
        self._staging = str(folder / ".staging")
        try:
            super()._save_checkpoint(model, trial)  # type: ignore[misc]
        finally:
            staging, self._staging = Path(self._staging), None
        if self.args.should_save:
            runs.seal(staging / name)
            runs.replace_folder(staging / name, folder / name)
            runs.keep_newest(folder, "checkpoint-*", self.kept)
