"""The sides of the fine-tuning benchmark: our step and TRL's, on the same drawn documents. Axes: docs/notation.md.

A document is a list of token ids; every token of it is learned but the first, which nothing comes before.
"""

import argparse
import importlib.util
import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.training_args import OptimizerNames

from alignment.sft import SFTSettings, make_trainer
from alignment.sft_plan import Plan
from alignment.sft_trainer import PackedTrainer
from benchmarks import six_billion
from benchmarks.trained_sides import PROCESSES, Counter, Run, Timer, common, counted, fields
from finlm import fused_layers, tuning, unpadded
from finlm.batches import IGNORE, packed
from finlm.samples import Row, Sample
from finlm.sft_records import MIXTURE, Mixed

ROW = 2048
"""Tokens of a packed row, and of the longest document."""
MEAN, SPREAD, SHORTEST = 400, 0.8, 8
"""Of the documents' tokens: the mean before they are cut at `ROW`, the deviation of the logarithm, the least."""
LEARNING_RATE = {"lora": 2e-4, "full": 1e-5}
Document = list[int]


def documents(config: LlamaConfig, count: int, seed: int = 1) -> list[Document]:
    """Return documents of random tokens, none of them padding, of log-normal length."""
    generator = torch.Generator().manual_seed(seed)
    middle = math.log(MEAN) - SPREAD**2 / 2
    length_B = (torch.randn(count, generator=generator) * SPREAD + middle).exp().round().long().clamp(SHORTEST, ROW)
    ids_N = torch.randint(3, config.vocab_size, (int(length_B.sum()),), generator=generator)
    return [part.tolist() for part in ids_N.split(length_B.tolist())]


def three(config: LlamaConfig) -> tuple[Document, Document, Document]:
    """Return a document, another that may stand in its place, and one that follows in the same row."""
    first, other, second = six_billion.prompts(config, 3, 24, seed=7)
    return first, other, second


# ---------------------------------------------------------------------------------------------------------- ours


def as_sample(document: Document, number: int) -> Sample:
    """Return a document as the trainer takes it."""
    is_learned = np.arange(len(document)) > 0
    return Sample("text-general", np.array(document, dtype=np.int32), is_learned, str(number), "en", f"drawn:{number}")


def make_model(config: LlamaConfig, settings: SFTSettings) -> LlamaForCausalLM:
    """Return the model with random weights as `load_causal` gives one that was stored."""
    base = six_billion.random_model(config).to(tuning.kept_in(settings, six_billion.device()))
    made: LlamaForCausalLM = fused_layers.install(unpadded.install(base.requires_grad_(True)))
    return made


def ours(given: argparse.Namespace, found: list[Document]) -> Run:
    """Run our trainer as `finlm sft` assembles it: packed rows, variable-length attention, fused parts."""
    config, counter = six_billion.shape(given.shape), Counter()
    micro_batch = given.micro_batch or 4
    shared = common(given.steps, given.accumulate)
    folder = Path(shared["output_dir"])
    rows = micro_batch * given.accumulate * PROCESSES
    settings = SFTSettings(
        output=str(folder),
        tune=given.tune,
        optimizer=given.optimizer or ("adamw_8bit" if given.tune == "full" else "adamw"),
        dtype="bfloat16",
        steps=shared["max_steps"],
        batch_size=rows,
        micro_batch=micro_batch,
        max_length=ROW,
        learning_rate=LEARNING_RATE[given.tune],
        trainer={name: shared[name] for name in ("report_to", "disable_tqdm")} | {"gradient_checkpointing": False},
    )
    tuning.require(settings.optimizer, PROCESSES)
    streams = {"text-general": [as_sample(document, number) for number, document in enumerate(found)]}
    trainer = make_trainer(
        settings,
        make_model(config, settings),
        Plan(streams, {"text-general": 1.0}, room=ROW, rows=rows, seed=0, folder=folder),
        {},
        kind=counted(PackedTrainer, counter),
        callbacks=[Timer(counter)],
        save_strategy="no",
    )
    counter.clock.around(trainer.accelerator, "backward", lambda *_: "backward")
    conditions = {
        "micro_batch": micro_batch,
        "attention": "flash-attn" if torch.cuda.is_available() and unpadded.flash_attn() else unpadded.NAME,
        "optimizer": OptimizerNames(trainer.args.optim).value,
        "gradient_checkpointing": trainer.args.gradient_checkpointing,
        "documents_apart": our_documents_are_apart(trainer, config),
    }
    trainer.train()
    trainer.plan.write()  # the trainer does on its main process
    conditions["rows_filled"] = msgspec.json.decode((folder / MIXTURE).read_bytes(), type=Mixed).filled
    if given.profile:
        batch = packed(next(trainer.plan.steps(1 + given.steps, 2 + given.steps))[:micro_batch])
        learned = (batch["labels"] != IGNORE).sum()
        six_billion.profile(lambda: trainer.training_step(trainer.model, batch, learned), given.profile)
    return Run(counter.steps, conditions)


def our_documents_are_apart(trainer: PackedTrainer, config: LlamaConfig) -> bool:
    """True if a packed row's second document has the same losses, bit by bit, behind any first one."""
    first, other, second = (as_sample(document, 0) for document in three(config))
    found = []
    for begin in (first, other):
        with torch.no_grad():
            nll_L = trainer.losses(trainer.model, trainer._prepare_inputs(packed([Row((begin, second))])))
        found.append(nll_L[-second.learned :])
    return torch.equal(*found)


# ----------------------------------------------------------------------------------------------------------- TRL


def trl_default(given: argparse.Namespace, found: list[Document]) -> Run:
    """Run TRL's step as SFTConfig is: eight padded documents, checkpointing, autocast; only the length is ours."""
    return trl(given, found, {"per_device_train_batch_size": 8}, "sdpa")


def trl_best(given: argparse.Namespace, found: list[Document]) -> Run:
    """Run TRL's step with its fastest flags: packed rows, Liger's kernels on a GPU, no checkpointing."""
    attention = "flash_attention_2" if importlib.util.find_spec("flash_attn") else "sdpa"
    fastest = {
        "per_device_train_batch_size": 4,
        "packing": True,
        "gradient_checkpointing": False,
        "use_liger_kernel": torch.cuda.is_available() and importlib.util.find_spec("liger_kernel") is not None,
    }
    return trl(given, found, fastest, attention)


def trl(given: argparse.Namespace, found: list[Document], chosen: dict[str, Any], attention: str) -> Run:
    """Run TRL's SFTTrainer with LoRA; the section `--set` wins over what the side chose."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    config = six_billion.shape(given.shape)
    model = six_billion.random_model(config)
    model.set_attn_implementation(given.attention or attention)
    chosen |= {"per_device_train_batch_size": given.micro_batch} if given.micro_batch else {}
    chosen |= fields(given.set)
    counter = Counter()
    settings = SFTConfig(
        **common(given.steps, given.accumulate) | {"max_length": ROW} | chosen,
    )
    trainer = counted(SFTTrainer, counter)(
        model=model,
        args=settings,
        processing_class=six_billion.tokenizer(config),
        train_dataset=Dataset.from_dict({"input_ids": found}),
        peft_config=six_billion.adapter(),
        callbacks=[Timer(counter)],
    )
    counter.clock.around(trainer.accelerator, "backward", lambda *_: "backward")
    conditions = {
        "micro_batch": settings.per_device_train_batch_size,
        "attention": given.attention or attention,
        "optimizer": OptimizerNames(settings.optim).value,
        "gradient_checkpointing": settings.gradient_checkpointing,
        "packing": settings.packing_strategy if settings.packing else None,
        "liger": settings.use_liger_kernel,
        "documents_apart": trl_documents_are_apart(trainer, config) if settings.packing else True,
    }
    trainer.train()
    return Run(counter.steps, conditions)


def trl_documents_are_apart(trainer: Any, config: LlamaConfig) -> bool:
    """True if a packed row's second document has the same log-probabilities, bit by bit, behind any first one."""
    first, other, second = three(config)
    found = []
    for begin in (first, other):
        ids = [*begin, *second]
        row = {"input_ids": ids, "labels": ids, "seq_lengths": [len(begin), len(second)]}
        inputs = trainer._prepare_inputs(trainer.data_collator([row]))
        with torch.no_grad(), trainer.compute_loss_context_manager():
            out = trainer.model(**inputs, use_cache=False, fused_lm_head=True)
        found.append(out.log_probs[0, len(begin) :])
    return torch.equal(*found)


SIDES = {"ours": ours, "trl-best": trl_best, "trl-default": trl_default}
