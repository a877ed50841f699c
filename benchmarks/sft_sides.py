"""The sides of the fine-tuning benchmark: our step and TRL's, on the same drawn documents. Axes: docs/notation.md.

A document is a list of token ids; every token of it is learned but the first, which nothing comes before.
"""

import argparse
import importlib.util
import math
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, chain, cycle, islice, pairwise
from typing import Any

import torch
import yaml
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks import six_billion
from benchmarks.clock import Clock
from benchmarks.six_billion import PAD
from finlm import fused_layers, fused_lora, packing, unpadded
from finlm.likelihood import token_log_probs

ROW = 2048
"""Tokens of a packed row, and of the longest document."""
MEAN, SPREAD, SHORTEST = 400, 0.8, 8
"""Of the documents' tokens: the mean before they are cut at `ROW`, the deviation of the logarithm, the least."""
LEARNING_RATE = {"lora": 2e-4, "full": 1e-5}
Document = list[int]


@dataclass(frozen=True)
class Step:
    """What was measured of one optimizer step."""

    seconds: float
    """From the end of the step before, waiting for data included."""
    tokens: int
    """Tokens that are no padding."""
    places: int
    """The same, padding included."""
    loss: float
    """Nats per learned token."""
    phases: dict[str, float]
    """Seconds of forward, backward and optimizer; what they leave of `seconds` is the rest."""
    peak_gib: float
    """Largest memory that tensors took since the start, GiB."""


@dataclass(frozen=True)
class Run:
    """A side's steps in order, and under which conditions it took them."""

    steps: list[Step]
    conditions: dict[str, Any]


@dataclass
class Counter:
    """Gathers what is measured inside of a step."""

    clock: Clock = field(default_factory=Clock)
    steps: list[Step] = field(default_factory=list)
    _began: float = 0.0
    _sums: dict[str, Any] = field(default_factory=lambda: defaultdict(int))

    def begin(self) -> None:
        """Start the clock before the first step."""
        six_billion.synchronize()
        self._began = time.perf_counter()

    def add(self, ids: Tensor, loss: Tensor) -> None:
        """Count one forward pass; the GPU is not waited for."""
        self._sums["tokens"] += (ids != PAD).sum()
        self._sums["places"] += ids.numel()
        self._sums["loss"] += loss.detach()

    def end(self) -> None:
        """Close a step; the next one begins."""
        phases = self.clock.take()  # waits for the GPU
        now = time.perf_counter()
        peak = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0
        tokens, loss = int(self._sums["tokens"]), float(self._sums["loss"])
        self.steps.append(Step(now - self._began, tokens, self._sums["places"], loss, phases, peak))
        print(f"step {len(self.steps) - 1}: {self.steps[-1]}", flush=True)
        self._sums.clear()
        self._began = time.perf_counter()


def documents(config: LlamaConfig, count: int, seed: int = 1) -> list[Document]:
    """Return documents of random tokens, none of them padding, of log-normal length."""
    generator = torch.Generator().manual_seed(seed)
    middle = math.log(MEAN) - SPREAD**2 / 2
    length_B = (torch.randn(count, generator=generator) * SPREAD + middle).exp().round().long().clamp(SHORTEST, ROW)
    ids_N = torch.randint(3, config.vocab_size, (int(length_B.sum()),), generator=generator)
    return [part.tolist() for part in ids_N.split(length_B.tolist())]


def pair(config: LlamaConfig) -> tuple[Document, Document, Document]:
    """Return a document, another that may stand in its place, and one that follows in the same row."""
    first, other, second = six_billion.prompts(config, 3, 24, seed=7)
    return first, other, second


# ---------------------------------------------------------------------------------------------------------- ours


@dataclass(frozen=True)
class Packed:
    """Documents one behind the other, N tokens in all."""

    ids_N: Tensor
    bounds: Tensor
    """Where each document begins, and the end of the last, int32."""
    longest: int
    """Tokens of the longest document."""
    learned_L: Tensor
    """Places of the tokens that come after another of their document; L of them."""

    @classmethod
    def of(cls, given: Sequence[Document], device: torch.device) -> "Packed":
        """Lay documents so; everything is found on the CPU, so that no kernel is waited for."""
        edges = [0, *accumulate(map(len, given))]
        learned = chain.from_iterable(range(start + 1, stop) for start, stop in pairwise(edges))
        return cls(
            ids_N=torch.tensor(list(chain.from_iterable(given))).to(device),
            bounds=torch.tensor(edges, dtype=torch.int32).to(device),
            longest=max(map(len, given)),
            learned_L=torch.tensor(list(learned)).to(device),
        )


def log_probs(causal: LlamaForCausalLM, packed: Packed) -> Tensor:
    """Return the log-probability of every learned token (L,), each document seeing itself alone."""
    hidden_ND = unpadded.packed_states(causal.model, packed.ids_N, packed.bounds, packed.longest)
    states_LD, tokens_L = hidden_ND[packed.learned_L - 1], packed.ids_N[packed.learned_L]
    logp_L, _ = token_log_probs(states_LD, tokens_L, causal.get_output_embeddings().weight)
    return logp_L


def make_model(config: LlamaConfig, tune: str) -> LlamaForCausalLM:
    """Return the model with random weights as the trainer prepares it; LoRA lies within it."""
    from peft import PeftModel

    base = fused_layers.install(unpadded.install(six_billion.random_model(config), for_packed=True))
    if tune == "full":
        return base.requires_grad_(True)
    fused_lora.install(PeftModel(base, six_billion.adapter()))
    return base


def make_optimizer(parameters: list[nn.Parameter], tune: str) -> torch.optim.Optimizer:
    """Return AdamW: torch's for LoRA, one with moments of eight bits for all weights where such a package is there."""
    rate = LEARNING_RATE[tune]
    if tune == "full" and torch.cuda.is_available():
        if importlib.util.find_spec("torchao"):
            from torchao.optim import AdamW8bit

            # a step of 1e-5 is below the last bit of most bfloat16 weights: rounded by chance it counts on average
            return AdamW8bit(parameters, lr=rate, bf16_stochastic_round=True)
        if importlib.util.find_spec("bitsandbytes"):
            from bitsandbytes.optim import AdamW8bit as AdamWOfBlocks

            return AdamWOfBlocks(parameters, lr=rate)
    return torch.optim.AdamW(parameters, lr=rate, fused=True)


def ours(given: argparse.Namespace, found: list[Document]) -> Run:
    """Run the bare step of our trainer: packed rows, variable-length attention, fused layers and adapters."""
    config, device = six_billion.shape(given.shape), six_billion.device()
    causal = make_model(config, given.tune)
    parameters = [parameter for parameter in causal.parameters() if parameter.requires_grad]
    optimizer = make_optimizer(parameters, given.tune)
    first, other, second = pair(config)
    with torch.no_grad():
        after = [log_probs(causal, Packed.of([begin, second], device))[1 - len(second) :] for begin in (first, other)]
    micro_batch = given.micro_batch or 4
    batches = our_batches(found, micro_batch)
    counter = Counter()

    def step() -> None:
        together = [Packed.of(batch, device) for batch in islice(batches, given.accumulate)]
        learned = sum(len(packed.learned_L) for packed in together)
        for packed in together:
            with counter.clock("forward"):
                loss = -log_probs(causal, packed).sum() / learned
            with counter.clock("backward"):
                loss.backward()
            counter.add(packed.ids_N, loss)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        with counter.clock("optimizer"):
            optimizer.step()
        optimizer.zero_grad()
        counter.end()

    counter.begin()
    for _ in range(1 + given.steps):
        step()
    if given.profile:
        six_billion.profile(step, given.profile)
    conditions = {
        "micro_batch": micro_batch,
        "attention": "flash_attn" if unpadded.flash_attn() and device.type == "cuda" else unpadded.NAME,
        "optimizer": f"{type(optimizer).__module__}.{type(optimizer).__name__}",
        "gradient_checkpointing": False,
        "documents_apart": torch.equal(*after),
    }
    return Run(counter.steps[: 1 + given.steps], conditions)


def our_batches(found: list[Document], rows_a_pass: int, seed: int = 0) -> Iterator[list[Document]]:
    """Yield the documents of some packed rows at a time, rows in shuffled order, again and again."""
    rows = packing.best_fit([len(document) for document in found], ROW)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()
    parts = [order[start : start + rows_a_pass] for start in range(0, len(order), rows_a_pass)]
    return cycle([found[place] for row in part for place in rows[row]] for part in parts)


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
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    config = six_billion.shape(given.shape)
    model = six_billion.random_model(config)
    model.set_attn_implementation(given.attention or attention)
    chosen |= {"per_device_train_batch_size": given.micro_batch} if given.micro_batch else {}
    chosen |= {name: yaml.safe_load(value) for name, value in (item.split("=", 1) for item in given.set)}
    counter = Counter()

    class Counted(SFTTrainer):  # type: ignore[misc]
        def compute_loss(self, model: Any, inputs: dict[str, Any], *more: Any, **named: Any) -> Any:
            ids = inputs["input_ids"]
            with counter.clock("forward"):
                loss = super().compute_loss(model, inputs, *more, **named)
            counter.add(ids, loss)
            return loss

    class Timer(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, *_: Any, optimizer: Any, **__: Any) -> None:
            counter.clock.around(optimizer, "step", lambda *_: "optimizer")
            counter.begin()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            counter.end()

    settings = SFTConfig(
        output_dir=tempfile.mkdtemp(),
        max_steps=1 + given.steps,
        gradient_accumulation_steps=given.accumulate,
        max_length=ROW,
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=torch.cuda.is_available(),
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        **chosen,
    )
    trainer = Counted(
        model=model,
        args=settings,
        processing_class=six_billion.tokenizer(config),
        train_dataset=Dataset.from_dict({"input_ids": found}),
        peft_config=six_billion.adapter(),
        callbacks=[Timer()],
    )
    counter.clock.around(trainer.accelerator, "backward", lambda *_: "backward")
    conditions = {
        "micro_batch": settings.per_device_train_batch_size,
        "attention": given.attention or attention,
        "optimizer": str(settings.optim),
        "gradient_checkpointing": settings.gradient_checkpointing,
        "packing": settings.packing_strategy if settings.packing else None,
        "liger": settings.use_liger_kernel,
        "documents_apart": trl_documents_are_apart(trainer, config) if settings.packing else True,
    }
    trainer.train()
    return Run(counter.steps, conditions)


def trl_documents_are_apart(trainer: Any, config: LlamaConfig) -> bool:
    """True if a packed row's second document has the same log-probabilities, bit by bit, behind any first one."""
    first, other, second = pair(config)
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
