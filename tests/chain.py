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
        stages = list(STAGES)[: list(STAGES).index(stage)]
        for name in (name for earlier in stages for name in MADE[earlier]):
            (folder / "runs").mkdir(exist_ok=True)
            target = folder / "runs" / name
            if (self.runs / name).is_dir():
                shutil.copytree(self.runs / name, target)
            else:
                shutil.copy2(self.runs / name, target)
        if "reward" not in stages:  # the cache holds what several stages keep: the bag of words is the reward model's
            shutil.rmtree(folder / "runs" / "cache" / "words", ignore_errors=True)
        return folder
