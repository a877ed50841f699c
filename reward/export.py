"""A trained reward model as the files of `finlm.scorer`: adapter or model, head with its normalisation, description."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from finlm import runs, scorer
from finlm.errors import UserError
from finlm.model import ADAPTER_CONFIG, copy_of
from finlm.tokenizer import tokenizer_fingerprint
from reward import readings
from reward.learning import head_of


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
        cls, trained: Any, rows: Sequence[Sequence[int]], normalised_on: str, *, pad: int, batch_size: int
    ) -> "Scale":
        """Measure mean and standard deviation of the scores of some answers.

        Args:
            trained: The model with what learned and its head.
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
    trained: Any,
    scale: Scale,
    base: Path,
    folder: Path,
    *,
    tokenizer: PreTrainedTokenizerBase,
    learned_from_cut: bool,
) -> None:
    """Write all files, whole or not at all.

    Args:
        trained: The model with what learned and its head.
        scale: The normalisation.
        base: The model that was begun with; an adapter's base.
        folder: Where to.
        tokenizer: The tokenizer; a whole model gets it beside its weights.
        learned_from_cut: True if answers without their end token were learned from.
    """
    is_adapter = isinstance(trained, PeftModel)
    description = scorer.RewardDescription(
        mean=scale.mean,
        std=scale.std,
        normalised_on=scale.normalised_on,
        tokenizer=tokenizer_fingerprint(tokenizer),
        base=runs.fingerprint(base) if is_adapter else "",
        learned_from_cut=learned_from_cut,
    )
    with runs.whole_folder(folder) as aside:
        if is_adapter:
            save_adapter(trained, aside, base=os.path.relpath(base, folder))
        else:
            save_whole(trained, aside)
            tokenizer.save_pretrained(aside)
        scorer.save_description(aside, scorer.fold(head_of(trained), mean=scale.mean, std=scale.std), description)


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


def save_whole(model: LlamaForCausalLM, folder: Path) -> None:
    """Write the weights of a whole model without its head, which has a file of its own, as a causal model."""
    weights = {name: one for name, one in model.state_dict().items() if not name.startswith(f"{readings.HEAD}.")}
    whole = copy_of(model, weights, model.dtype)
    whole.config.use_cache = True  # a Trainer turns it off
    whole.save_pretrained(folder)
