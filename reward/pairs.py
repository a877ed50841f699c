"""Preference pairs as token ids: encoding, splitting, and the head they train."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from torch import nn
from transformers import PreTrainedTokenizerBase

from finlm import chat_format, data
from finlm.model import ADAPTER_CONFIG
from finlm.records import Candidates, PreferencePair, Removal
from finlm.tables import as_dataset


@dataclass(frozen=True, slots=True)
class EncodedPair:
    """A pair as ids of prompt and answer.

    Example:
        EncodedPair(pair_id="9f…", fault="figure", chosen=(216, 2), rejected=(216, 17), prompt_tokens=1)
    """

    pair_id: str
    fault: str
    """What is wrong with the rejected answer, where it is known."""
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]
    prompt_tokens: int
    has_cut: bool = False
    """True if one of the answers has no end token."""


@dataclass(frozen=True, slots=True)
class Split:
    """Pairs to train on, pairs of held-out groups, and what was set aside."""

    train: list[EncodedPair]
    test: list[EncodedPair]
    removals: list[Removal]


def encode_pair(pair: PreferencePair, tokenizer: PreTrainedTokenizerBase) -> EncodedPair:
    """Encode both answers after their prompt; an answer that ended carries its end token."""
    prompt = chat_format.encode(tokenizer, pair.prompt.messages).ids
    return EncodedPair(
        pair_id=pair.id,
        fault=pair.rejected_fault,
        chosen=(*prompt, *chat_format.encode_answer(tokenizer, pair.chosen, ended=pair.chosen_ended)),
        rejected=(*prompt, *chat_format.encode_answer(tokenizer, pair.rejected, ended=pair.rejected_ended)),
        prompt_tokens=len(prompt),
        has_cut=not (pair.chosen_ended and pair.rejected_ended),
    )


def split_pairs(
    preferences: Iterable[PreferencePair],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    min_strength: int,
    test_share: float,
) -> Split:
    """Encode pairs and split them by group; weak and too long ones are set aside with their reason."""
    split = Split([], [], [])
    for pair in preferences:
        if pair.strength < min_strength:
            reason = f"strength {pair.strength}, the least is {min_strength}"
            split.removals.append(Removal(record_id=pair.id, rule="weak", reason=reason))
            continue
        encoded = encode_pair(pair, tokenizer)
        longest = max(len(encoded.chosen), len(encoded.rejected))
        if longest > max_length:
            reason = f"{longest} tokens, the limit is {max_length}"
            split.removals.append(Removal(record_id=pair.id, rule="too-long", reason=reason))
            continue
        is_test = data.is_held_out(pair.prompt, test_share=test_share)
        (split.test if is_test else split.train).append(encoded)
    return split


def dataset(encoded: list[EncodedPair]) -> Dataset:
    """Return the columns that TRL's RewardTrainer takes as already encoded."""
    return as_dataset(
        {"chosen_ids": [pair.chosen for pair in encoded], "rejected_ids": [pair.rejected for pair in encoded]}
    )


def ended_answers(
    candidates: Iterable[Candidates],
    tokenizer: PreTrainedTokenizerBase,
    *,
    test_share: float,
    limit: int,
) -> list[list[int]]:
    """Return ids of prompt and answer for sampled answers that ended, of groups that are trained on."""
    rows: list[list[int]] = []
    for item in candidates:
        if data.is_held_out(item.prompt, test_share=test_share):
            continue
        prompt = chat_format.encode(tokenizer, item.prompt.messages).ids
        for response in item.responses:
            if response.ended and len(rows) < limit:
                rows.append([*prompt, *chat_format.encode_answer(tokenizer, response.text)])
    return rows


class ScoreHead(nn.Linear):
    """The head that trains: (…, D) -> (…, 1) without bias, small at the start, computed in float32."""

    def __init__(self, width: int) -> None:
        super().__init__(width, 1, bias=False)
        # N+ implementation details (arXiv 2403.17031): a head of standard deviation 1 / sqrt(D + 1)
        nn.init.normal_(self.weight, std=1 / (width + 1) ** 0.5)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Read one number per position."""
        return super().forward(hidden.float())


def save_adapter(model: PeftModel, folder: Path, *, base: str) -> None:
    """Write the LoRA weights alone (the head has a file of its own), for use on a causal model of the same base.

    Args:
        model: The trained classifier.
        folder: Where to write.
        base: Path of the base model relative to the adapter.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    state = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in get_peft_model_state_dict(model).items()
        if "lora_" in name
    }
    save_file(state, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    settings: dict[str, Any] = model.peft_config["default"].to_dict()
    settings |= {"task_type": "CAUSAL_LM", "modules_to_save": None, "base_model_name_or_path": base}
    settings["inference_mode"] = True
    if isinstance(settings.get("target_modules"), set):
        settings["target_modules"] = sorted(settings["target_modules"])
    (folder / ADAPTER_CONFIG).write_text(
        json.dumps(settings, indent=2, sort_keys=True, default=str) + "\n", encoding="utf-8"
    )
