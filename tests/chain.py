"""The tiny loop: its stages, what each makes, and a finished run of it to start from.

A module and not part of conftest.py: several folders have a conftest, and only the first is importable by that name.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from warm import Done

STAGES = {
    "sft": "alignment.sft",
    "respond": "alignment.respond",
    "by_figures": "annotation.by_figures",
    "reward": "reward.train",
    "prompts": "finlm.prompts",
    "ppo": "alignment.ppo",
    "evaluate": "finlm.evaluate",
}
"""The stages of the tiny loop in their order, with their modules."""
MADE = {
    "sft": ("sft", "cache"),
    "respond": ("candidates", "candidates.jsonl"),
    "by_figures": ("preferences", "preferences.jsonl"),
    "reward": ("reward",),
    "prompts": ("prompts", "prompts.jsonl"),
    "ppo": ("ppo",),
    "evaluate": ("evaluation",),
}
"""What each stage writes below the run root."""


@dataclass(frozen=True, slots=True)
class Chain:
    """The tiny loop, run once from its first stage to its last."""

    folder: Path
    """Where the stages were run; their outputs lie in its `runs`."""
    done: dict[str, Done]

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    def before(self, stage: str, folder: Path) -> Path:
        """Copy what lies in `runs` before a stage into a new folder to run it in."""
        folder.mkdir(parents=True)
        for earlier in list(STAGES)[: list(STAGES).index(stage)]:
            for name in MADE[earlier]:
                copy = shutil.copytree if (self.runs / name).is_dir() else shutil.copy2
                (folder / "runs").mkdir(exist_ok=True)
                copy(self.runs / name, folder / "runs" / name)
        return folder
