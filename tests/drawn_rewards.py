"""Reward models on the tiny base, written as files: an adapter and a head, both drawn from a seed."""

import json
import os
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model

from finlm import scorer
from finlm.model import load_causal
from finlm.tokenizer import load_tokenizer, tokenizer_fingerprint

CPU = torch.device("cpu")


def drawn_reward(
    base: Path,
    folder: Path,
    *,
    seed: int,
    head_seed: int | None = None,
    rank: int = 4,
    layers: list[int] | None = None,
    learned_from_cut: bool = True,
    base_fingerprint: str = "",
) -> Path:
    """Write a reward model as a run leaves it, below `folder`/model; equal seeds give equal adapters."""
    out = folder / "model"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        targets = ["q_proj", "v_proj", "down_proj"] if layers else "all-linear"
        lora = LoraConfig(
            r=rank, lora_alpha=2 * rank, target_modules=targets, layers_to_transform=layers, task_type="CAUSAL_LM"
        )
        model = get_peft_model(load_causal(base, dtype=torch.float32, device=CPU), lora)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    model.peft_config["default"].base_model_name_or_path = os.path.relpath(base, out)
    model.save_pretrained(out, save_embedding_layers=False)
    (out / "README.md").unlink(missing_ok=True)
    written = json.loads((out / "adapter_config.json").read_text(encoding="utf-8"))
    if isinstance(written["target_modules"], list):  # PEFT writes a set in the order of the moment
        written["target_modules"].sort()
    (out / "adapter_config.json").write_text(json.dumps(written), encoding="utf-8")
    head_generator = torch.Generator().manual_seed(seed if head_seed is None else head_seed)
    weight_D = torch.randn(model.config.hidden_size, generator=head_generator) * 0.3
    mean, std = 0.1 * seed, 1.0 + 0.1 * seed
    description = scorer.RewardDescription(
        mean=mean,
        std=std,
        normalised_on="nothing",
        tokenizer=tokenizer_fingerprint(load_tokenizer(base)),
        base=base_fingerprint,
        learned_from_cut=learned_from_cut,
    )
    scorer.save_description(out, scorer.fold(weight_D, mean=mean, std=std), description)
    return folder
