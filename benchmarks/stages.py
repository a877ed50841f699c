"""Stages run in this process, one after the other, with their demo configurations and changes to them."""

import importlib
import time
from pathlib import Path

STAGES = {
    "import": ("annotation.importing", "ImportSettings"),
    "selfqa": ("selfqa.generate", "Settings"),
    "sft": ("alignment.sft", "SFTSettings"),
    "respond": ("alignment.respond", "RespondSettings"),
    "by_figures": ("annotation.by_figures", "ByFiguresSettings"),
    "reward": ("reward.train", "RewardSettings"),
    "prompts": ("finlm.prompts", "PromptSettings"),
    "ppo": ("alignment.ppo", "PPOSettings"),
    "evaluate": ("finlm.evaluate", "EvaluateSettings"),
}
UNSIZED = ("import",)
"""Stages without a demo configuration."""


def run_stage(name: str, root: Path, seed: int, changes: list[str]) -> float:
    """Run one stage and return its seconds; `changes` are flags."""
    config = importlib.import_module("finlm.config")
    module_name, settings = STAGES[name]
    module = importlib.import_module(module_name)
    arguments = [] if name in UNSIZED else ["--config", f"{name}_demo"]
    arguments += ["--runs", str(root), *changes]
    arguments += ["--seed", str(seed)] if name != "selfqa" else []
    began = time.perf_counter()
    module.main(config.parse(getattr(module, settings), name, arguments, name))
    return time.perf_counter() - began


def changes_for(name: str, given: list[str]) -> list[str]:
    """Return the flags of one stage among `STAGE.NAME=VALUE` of the command line."""
    return [f"--{item.split('.', 1)[1]}" for item in given if item.split(".", 1)[0] == name]
