"""Trainers that begin with equal weights, for every test of PPO's loop."""

import copy
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from answers import CPU, Maker
from peft import LoraConfig, PeftModel
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from alignment.ppo_trainer import PPOConfig, PPOTrainer
from finlm import scorer
from finlm.model import load_causal
from finlm.tokenizer import load_tokenizer, tokenizer_fingerprint


@pytest.fixture(scope="module")
def base(tiny: Any) -> LlamaForCausalLM:
    model = load_causal(Path(tiny.base), dtype=torch.float32, device=CPU)
    assert isinstance(model, LlamaForCausalLM)
    return model.eval()


@pytest.fixture(scope="module")
def tokenizer(tiny: Any) -> PreTrainedTokenizerBase:
    return load_tokenizer(tiny.base)


def lora(layers: list[int] | None = None) -> LoraConfig:
    modules = ["q_proj", "v_proj", "down_proj"] if layers else "all-linear"
    return LoraConfig(r=4, lora_alpha=8, target_modules=modules, layers_to_transform=layers, task_type="CAUSAL_LM")


@pytest.fixture(scope="module")
def reward_model(
    tiny: Any, base: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """An untrained reward model on the upper layer: a new adapter and a drawn head."""
    folder = tmp_path_factory.mktemp("reward")
    model = PeftModel(copy.deepcopy(base), lora([1]))
    model.peft_config["default"].base_model_name_or_path = os.path.relpath(tiny.base, folder)
    model.save_pretrained(folder, save_embedding_layers=False)
    weight = torch.randn(base.config.hidden_size, generator=torch.Generator().manual_seed(3)) * 0.2
    description = scorer.RewardDescription(
        mean=0.0, std=1.0, normalised_on="nothing", tokenizer=tokenizer_fingerprint(tokenizer)
    )
    scorer.save_description(folder, scorer.fold(weight, mean=0.0, std=1.0), description)
    return folder


@pytest.fixture(scope="module")
def make(
    base: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, reward_model: Path, tmp_path_factory: Any
) -> Maker:
    """Makes trainers that begin with equal weights."""

    def trainer(
        texts: Sequence[str] = ("One.", "Two two two.", "Three?"),
        layers: list[int] | None = None,
        scored_by: Path = reward_model,
        **settings: Any,
    ) -> PPOTrainer:
        settings = {
            "output_dir": str(tmp_path_factory.mktemp("ppo")),
            "total_episodes": 8,
            "per_device_train_batch_size": 1,
            "gradient_accumulation_steps": 8,
            "num_ppo_epochs": 1,
            "local_rollout_forward_batch_size": 8,
            "response_length": 6,
            "max_prompt_length": 64,
            "warmup_updates": 0,
            **settings,
        }
        rows = [{"input_ids": tokenizer(f" Human: {text} Assistant:")["input_ids"]} for text in texts]
        torch.manual_seed(11)  # PEFT draws its first weights from the global state
        made = PPOTrainer(
            args=PPOConfig(**settings),
            processing_class=tokenizer,
            model=copy.deepcopy(base),
            ref_model=None,
            reward_model=scored_by,
            train_dataset=rows,
            peft_config=lora(layers),
        )
        generator = torch.Generator().manual_seed(12)
        with torch.no_grad():
            for parameter in made.roles.adapter("policy").values():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
        return made

    return trainer
