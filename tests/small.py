"""A LLaMA of a few thousand weights, all drawn by `random`: the same numbers under every release of torch.

So another project's trainer can be run on it in an environment of its own (tests/oracles), and what came out be
compared with ours elsewhere. The trainers of the proofs that PPO learns stand on it too.
"""

import copy
import math
import os
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

PAD, END = 0, 1


def drawn(name: str, shape: Iterable[int], scale: float) -> Tensor:
    """Uniform numbers of standard deviation `scale`, decided by the name alone."""
    shape = tuple(shape)
    rng, width = random.Random(name), scale * math.sqrt(3)
    return torch.tensor([rng.uniform(-width, width) for _ in range(math.prod(shape))]).reshape(shape)


def config(*, vocabulary: int, width: int = 16, layers: int = 2) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=False,
        pad_token_id=PAD,
        eos_token_id=END,
        bos_token_id=None,
    )


@torch.no_grad()
def fill(model: nn.Module, *, seed: int = 0, head_scale: float = 1.0) -> None:
    """Draw every weight of a LLaMA by its name; norms stay at one.

    `head_scale` is the standard deviation of the logits.
    """
    for name, parameter in model.named_parameters():
        if "norm" in name:
            continue
        fan_in = 1 if "embed" in name else parameter.shape[-1]
        scale = head_scale if "lm_head" in name else 1.0
        parameter.copy_(drawn(f"{seed} {name}", parameter.shape, scale / math.sqrt(fan_in)))


def base(*, vocabulary: int, width: int = 16, layers: int = 2, seed: int = 0, head_scale: float = 1.0) -> Any:
    model = LlamaForCausalLM(config(vocabulary=vocabulary, width=width, layers=layers))
    fill(model, seed=seed, head_scale=head_scale)
    return model.eval()


def lora(rank: int = 2, modules: str | list[str] = "all-linear") -> LoraConfig:
    return LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=modules, task_type="CAUSAL_LM")


def adapter_name(parameter: str) -> str:
    """Name of a LoRA weight without its adapter and whatever wraps the model: `layers.0.mlp.down_proj.lora_A`."""
    return parameter[parameter.index("layers.") :].rsplit(".", 2)[0]


@torch.no_grad()
def fill_adapter(parameters: Iterable[tuple[str, Tensor]], role: str, scale: float) -> None:
    """Draw the weights of one adapter by the role's name, B included."""
    for name, parameter in parameters:
        parameter.copy_(drawn(f"{role} {adapter_name(name)}", parameter.shape, scale))


def tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """One word per id: `<pad>`, `</s>`, then the id itself as a number."""
    words = {"<pad>": PAD, "</s>": END} | {str(number): number for number in range(2, vocabulary)}
    level = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    level.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(tokenizer_object=level, eos_token="</s>", pad_token="<pad>")
    made.padding_side = "left"
    return made


def reward_model(model: LlamaForCausalLM, tokens: Any, folder: Path, adapter: LoraConfig, *, scale: float) -> Path:
    """Write a reward model on `model`: an adapter and a head, drawn; the adapter has the weights of role `reward`."""
    from finlm import scorer
    from finlm.tokenizer import tokenizer_fingerprint

    peft = PeftModel(copy.deepcopy(model), adapter)
    fill_adapter(((n, p) for n, p in peft.named_parameters() if "lora_" in n), "reward", scale)
    peft.peft_config["default"].base_model_name_or_path = os.curdir
    peft.save_pretrained(folder, save_embedding_layers=False)
    weight_D, bias = head(model.config.hidden_size)
    made = scorer.fold(weight_D, mean=-bias, std=1.0)
    description = scorer.RewardDescription(
        mean=-bias, std=1.0, normalised_on="nothing", tokenizer=tokenizer_fingerprint(tokens)
    )
    scorer.save_description(folder, made, description)
    return folder


def head(width: int) -> tuple[Tensor, float]:
    """Weight and bias of the head that critic and reward model begin with."""
    return drawn("head", (width,), 0.5), 0.25


@torch.no_grad()
def pay_for_length(trainer: Any) -> None:
    """Fit the reward head to the length of the policy's own answers, in tens of tokens, by least squares."""
    from finlm import generation, scorer

    asked = [ids for update in range(1, 9) for ids in trainer.prompts_of(update)]
    answers = trainer.sample(asked, 1)
    rows = [[*ids, *answer.ids] for ids, answer in zip(asked, answers, strict=True)]
    ids_BT, is_token_BT = generation.pad_right(rows, trainer.tokenizer.pad_token_id, torch.device("cpu"))
    with trainer.roles("reward"):
        hidden_BTD = scorer.last_hidden(trainer.roles.model, ids_BT, is_token_BT)
    state_BD = hidden_BTD[torch.arange(len(rows)), is_token_BT.sum(dim=1) - 1]
    state_BE = torch.cat([state_BD, torch.ones(len(rows), 1)], dim=1)
    length_B1 = torch.tensor([[len(answer.ids) / 10] for answer in answers])
    found = torch.linalg.lstsq(state_BE, length_B1, driver="gelsd").solution.squeeze(1)
    trainer.reward_head.weight.copy_(found[None, :-1])
    trainer.reward_head.bias.copy_(found[-1:])


def trainer(
    model: LlamaForCausalLM,
    tokens: Any,
    prompts: Sequence[Sequence[int]],
    folder: Path,
    *,
    adapter: LoraConfig | None = None,
    adapter_scale: float = 0.0,
    reward_scale: float = 0.05,
    held_out: Sequence[Any] = (),
    anchor: Any = None,
    **settings: Any,
) -> Any:
    """Make a PPO trainer on a small base; `adapter_scale` 0 begins with the reference as policy.

    A: the policy's A is drawn also at scale 0, as PEFT draws it, from a seed of its own.
    """
    from alignment.ppo_trainer import PPOConfig, PPOTrainer

    adapter = adapter or lora()
    reward = reward_model(model, tokens, folder / "reward", adapter, scale=reward_scale)
    torch.manual_seed(11)  # PEFT draws A from the global state
    made = PPOTrainer(
        args=PPOConfig(
            **{
                "output_dir": str(folder / "ppo"),
                "gradient_accumulation_steps": 1,
                "warmup_updates": 0,
                "score_clip": 0.0,
                "max_prompt_length": 32,
                **settings,
            }
        ),
        processing_class=tokens,
        model=model,
        ref_model=None,
        reward_model=reward,
        train_dataset=[{"input_ids": list(prompt)} for prompt in prompts],
        eval_dataset=held_out,
        anchor=anchor,
        peft_config=adapter,
    )
    if adapter_scale:
        fill_adapter(made.roles.adapter("policy").items(), "policy", adapter_scale)
    return made
