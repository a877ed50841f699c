"""The sides of the reward model's benchmark: our step and TRL's, on the same drawn pairs.

A pair is two rows of token ids, the better one first; both begin with the same prompt.
"""

import argparse
import importlib.util
import math
from collections.abc import Sequence
from typing import Any

import torch
from peft import LoraConfig
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForSequenceClassification
from transformers.training_args import OptimizerNames

from benchmarks import six_billion
from benchmarks.six_billion import END, PAD
from benchmarks.trained_sides import Counter, Run, Timer, common, counted, fields
from finlm import fused_layers, unpadded
from finlm.records import Message, PreferencePair, Prompt, Provenance
from reward.groups import Comparison, Group
from reward.losses import first_difference
from reward.train import RewardSettings, make_trainer
from reward.trainer import ComparisonTrainer

ROW = 1024
"""Tokens of a row, and of the longest one where they are ragged."""
MEAN, SPREAD, SHORTEST = 400, 0.8, 8
"""Of ragged rows' tokens: the mean before they are cut at `ROW`, the deviation of the logarithm, the least."""
LEARNING_RATE = 1e-4
RANK = 16
Pair = tuple[list[int], list[int]]


def pairs(config: LlamaConfig, count: int, *, is_ragged: bool, seed: int = 1) -> list[Pair]:
    """Return pairs of rows of random tokens that are no padding, each with its end token.

    Args:
        config: The model's.
        count: Pairs.
        is_ragged: True draws log-normal lengths, False makes every row `ROW` long.
        seed: Of the drawing.
    """
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        lengths = torch.full((2,), ROW)
        if is_ragged:
            drawn = torch.randn(2, generator=generator) * SPREAD + math.log(MEAN) - SPREAD**2 / 2
            lengths = drawn.exp().round().long().clamp(SHORTEST, ROW)
        prompt = int(lengths.min()) // 2
        better, worse = (
            torch.randint(3, config.vocab_size, (int(length),), generator=generator).tolist() for length in lengths
        )
        worse[:prompt] = better[:prompt]
        worse[prompt] = 3 + (better[prompt] - 2) % (config.vocab_size - 3)  # so that the two differ
        better[-1] = worse[-1] = END
        found.append((better, worse))
    return found


def head_weight(config: LlamaConfig) -> Tensor:
    """Return the head that every side begins with, (1, D), in numbers that bfloat16 holds."""
    drawn = torch.randn(1, config.hidden_size, generator=torch.Generator().manual_seed(2))
    return (drawn / (config.hidden_size + 1) ** 0.5).bfloat16().float()


def conditions(trainer: Any) -> dict[str, Any]:
    """Return what a side trains with."""
    return {
        "trained_weights": sum(one.numel() for one in trainer.model.parameters() if one.requires_grad),
        "optimizer": OptimizerNames(trainer.args.optim).value,
        "max_grad_norm": trainer.args.max_grad_norm,
        "gradient_checkpointing": trainer.args.gradient_checkpointing,
    }


# ---------------------------------------------------------------------------------------------------------- ours


def as_group(pair: Pair) -> Group:
    """Return a pair as the trainer takes it."""
    better, worse = pair
    prompt = first_difference(tuple(better), tuple(worse))
    record = PreferencePair(
        prompt=Prompt(messages=(Message(role="user", content="drawn"),)),
        chosen="better",
        rejected="worse",
        strength=2,
        source="drawn",
        provenance=Provenance(maker="import:drawn"),
    )
    answers = tuple(better[prompt:]), tuple(worse[prompt:])
    return Group(tuple(better[:prompt]), answers, (Comparison(record, better=0, worse=1, first=0, certainty=1.0),))


def ours(given: argparse.Namespace, sets: Sequence[list[Pair]]) -> Run:
    """Run our trainer as `finlm reward` assembles it: packed answers, variable-length attention, fused parts."""
    config, counter = six_billion.shape(given.shape), Counter()
    shared = common(given.steps, 1)
    micro_batch = given.micro_batch or min(4, given.pairs)
    settings = RewardSettings(
        output=shared["output_dir"],
        dtype="bfloat16",
        steps=shared["max_steps"],
        batch_size=given.pairs,
        micro_batch=given.pairs,
        micro_batch_tokens=micro_batch * 2 * ROW,
        learning_rate=LEARNING_RATE,
        center_rewards=0.0,
        lora={"r": RANK, "lora_alpha": 2 * RANK, "target_modules": "all-linear"},
        trainer={name: shared[name] for name in ("report_to", "disable_tqdm")} | {"gradient_checkpointing": False},
    )
    causal = fused_layers.install(unpadded.install(six_billion.random_model(config)))  # as load_causal does
    trainer: Any = make_trainer(
        settings,
        causal,
        [as_group(pair) for pair in sets[0]],
        pad=PAD,
        kind=counted(ComparisonTrainer, counter, ids=lambda inputs: inputs["passed"]["input_ids"]),
        callbacks=[Timer(counter)],
        save_strategy="no",
    )
    with_head(causal.score.modules_to_save["default"], config)
    counter.clock.around(trainer.accelerator, "backward", lambda *_: "backward")
    trainer.train()
    for more in sets[1:]:
        trainer.groups = [as_group(pair) for pair in more]
        trainer.train()
    if given.profile:
        trainer.groups = [as_group(pair) for pair in sets[0]]
        step = trainer.step_of(0)
        six_billion.profile(lambda: trainer.training_step(trainer.model, step, step["prompts"]), given.profile)
    attention = "flash-attn" if torch.cuda.is_available() and unpadded.flash_attn() else unpadded.NAME
    return Run(
        counter.steps, {"micro_batch": micro_batch, "attention": attention, "liger": False, **conditions(trainer)}
    )


def with_head(head: nn.Module, config: LlamaConfig) -> None:
    """Give a head the weight that every side begins with."""
    with torch.no_grad():
        head.weight.copy_(head_weight(config))


# ----------------------------------------------------------------------------------------------------------- TRL


def trl_default(given: argparse.Namespace, sets: Sequence[list[Pair]]) -> Run:
    """Run TRL's step as RewardConfig is: eight padded pairs, checkpointing, autocast; only the length is ours."""
    return trl(given, sets, {"per_device_train_batch_size": 8})


def trl_best(given: argparse.Namespace, sets: Sequence[list[Pair]]) -> Run:
    """Run TRL's step with its fastest flags: Liger's kernels on a GPU, no checkpointing, pairs of like length together.

    RewardTrainer has neither packing nor a way without padding.
    """
    fastest = {
        "per_device_train_batch_size": min(4, given.pairs),
        "gradient_checkpointing": False,
        "use_liger_kernel": torch.cuda.is_available() and importlib.util.find_spec("liger_kernel") is not None,
        # Liger's pass over logits would be put into the classifier, which has none
        "liger_kernel_config": {"fused_linear_cross_entropy": False},
        "train_sampling_strategy": "group_by_length",
        "remove_unused_columns": False,  # that of the lengths
    }
    return trl(given, sets, fastest)


def trl(given: argparse.Namespace, sets: Sequence[list[Pair]], chosen: dict[str, Any]) -> Run:
    """Run TRL's RewardTrainer with LoRA; the section `--set` wins over what the side chose."""
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    config, counter = six_billion.shape(given.shape), Counter()
    config.num_labels = 1
    base = six_billion.random_model(config)  # the same weights as ours, whatever else a classifier would draw
    with torch.device("meta"):
        model = LlamaForSequenceClassification(config)
    model.model = base.model
    model.score = nn.Linear(config.hidden_size, 1, bias=False, device=six_billion.device(), dtype=torch.bfloat16)
    with_head(model.score, config)
    del base
    attention = given.attention or "sdpa"
    model.requires_grad_(False).set_attn_implementation(attention)
    chosen |= {"per_device_train_batch_size": given.micro_batch} if given.micro_batch else {}
    chosen |= fields(given.set)
    accumulate, left = divmod(given.pairs, chosen["per_device_train_batch_size"])
    if left:
        raise SystemExit(f"--pairs {given.pairs} must be a multiple of {chosen['per_device_train_batch_size']}.")
    data = [
        Dataset.from_list(
            [{"chosen_ids": one, "rejected_ids": other, "length": max(len(one), len(other))} for one, other in its]
        )
        for its in sets
    ]
    settings = RewardConfig(**common(given.steps, accumulate) | {"max_length": ROW} | chosen)
    # a pass's loss is the mean of its pairs, which the trainer divides only after it was counted
    trainer: Any = counted(RewardTrainer, counter, share=1 / accumulate)(
        model=model,
        args=settings,
        processing_class=six_billion.tokenizer(config),
        train_dataset=data[0],
        peft_config=LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="SEQ_CLS"),
        callbacks=[Timer(counter)],
    )
    counter.clock.around(trainer.accelerator, "backward", lambda *_: "backward")
    trainer.train()
    for more in data[1:]:
        trainer.train_dataset = more
        trainer.train()
    named = {"micro_batch": settings.per_device_train_batch_size, "attention": attention}
    return Run(counter.steps, {**named, "liger": settings.use_liger_kernel, **conditions(trainer)})


SIDES = {"ours": ours, "trl-best": trl_best, "trl-default": trl_default}
