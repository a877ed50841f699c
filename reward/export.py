"""A trained reward model as the files of `finlm.scorer`: adapter, head with its normalisation, description."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from peft.utils import load_peft_weights
from safetensors.torch import save_file
from torch import Tensor

from finlm import runs, scorer
from finlm.errors import UserError
from finlm.model import ADAPTER_CONFIG
from reward import readings


@dataclass(frozen=True, slots=True)
class Scale:
    """The normalisation that is folded into the head.

    Example:
        Scale(mean=0.31, std=1.9, normalised_on="256 ended answers of runs/candidates.jsonl")
    """

    mean: float
    std: float
    normalised_on: str

    def __call__(self, raw: float) -> float:
        """Return a score in exported units."""
        return (raw - self.mean) / self.std

    @classmethod
    def of(
        cls, trained: PeftModel, rows: Sequence[Sequence[int]], normalised_on: str, *, pad: int, batch_size: int
    ) -> "Scale":
        """Measure mean and standard deviation of the scores of some answers.

        Args:
            trained: The model with adapter and head.
            rows: Prompt and answer each.
            normalised_on: What the rows are, in words.
            pad: Padding token.
            batch_size: Rows of a forward pass.

        Raises:
            UserError: All rows have the same score, or one that is not finite.
        """
        raw_head = scorer.fold(head_of(trained), mean=0.0, std=1.0).to(trained.device)
        raw = scorer.score_rows(trained, raw_head, [list(row) for row in rows], pad=pad, batch_size=batch_size)
        mean, std = float(raw.mean()), float(raw.std())
        if not 0 < std < float("inf"):
            raise UserError(
                f"The scores of {normalised_on} have standard deviation {std}, so they cannot be normalised; give more "
                "answers that differ, or look for damaged weights."
            )
        return cls(mean, std, normalised_on)


def write(
    trained: PeftModel, scale: Scale, base: Path, folder: Path, *, tokenizer: str, learned_from_cut: bool
) -> None:
    """Write all files, whole or not at all.

    Args:
        trained: The model with adapter and head.
        scale: The normalisation.
        base: The base model.
        folder: Where to.
        tokenizer: Fingerprint.
        learned_from_cut: True if answers without their end token were learned from.
    """
    description = scorer.RewardDescription(
        mean=scale.mean,
        std=scale.std,
        normalised_on=scale.normalised_on,
        tokenizer=tokenizer,
        base=runs.fingerprint(base),
        learned_from_cut=learned_from_cut,
    )
    with runs.whole_folder(folder) as aside:
        save_adapter(trained, aside, base=os.path.relpath(base, folder))
        scorer.save_description(aside, scorer.fold(head_of(trained), mean=scale.mean, std=scale.std), description)


@torch.no_grad()
def go_on_from(trained: PeftModel, folder: str | Path) -> None:
    """Give a model that is to be trained the adapter and the head of an exported reward model, its scale undone.

    Args:
        trained: The model with adapter and head.
        folder: The reward model, or the run that exported it.

    Raises:
        MissingInput: There is no reward model.
        UserError: Its adapter has other weights than this one, or its head another width.
    """
    found = set_peft_model_state_dict(trained, load_peft_weights(str(scorer.reward_folder(folder)), device="cpu"))
    missing = [name for name in found.missing_keys if "lora_" in name and ".default." in name]
    if found.unexpected_keys or missing:
        raise UserError(
            f"The reward model in {folder} has another adapter: {len(missing)} weights are missing there and "
            f"{len(found.unexpected_keys)} unknown here; set lora as its run's config.yaml has it."
        )
    head, weight = scorer.load_head(folder), _trained_head(trained)
    if head.in_features != weight.shape[1]:
        raise UserError(
            f"The head of the reward model in {folder} reads states {head.in_features} wide, this base's are "
            f"{weight.shape[1]} wide; begin from a model of the same base."
        )
    weight.copy_(head.weight * scorer.load_description(folder).std)


def head_of(trained: Any) -> Tensor:
    """Return the trained head's weight, (D,), float32, in main memory."""
    return _trained_head(trained).detach().float().cpu().reshape(-1)


def _trained_head(trained: Any) -> Tensor:
    weight: Tensor = getattr(trained.get_base_model(), readings.HEAD).modules_to_save["default"].weight
    return weight


def save_adapter(model: PeftModel, folder: Path, *, base: str) -> None:
    """Write the LoRA weights alone (the head has a file of its own), for use on a causal model of the same base.

    Args:
        model: The trained model.
        folder: Where to write.
        base: Path of the base model relative to the adapter.
    """
    state = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in get_peft_model_state_dict(model).items()
        if "lora_" in name
    }
    save_file(state, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    settings: dict[str, Any] = model.peft_config["default"].to_dict()
    settings |= {"task_type": "CAUSAL_LM", "modules_to_save": None, "exclude_modules": None}
    settings["base_model_name_or_path"] = base
    settings["inference_mode"] = True
    targets = settings.get("target_modules")
    if not isinstance(targets, str) and targets is not None:
        settings["target_modules"] = sorted(set(targets) - {readings.HEAD})
    (folder / ADAPTER_CONFIG).write_text(
        json.dumps(settings, indent=2, sort_keys=True, default=str) + "\n", encoding="utf-8"
    )
