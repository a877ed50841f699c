"""What the GPU benchmarks share: the 6B with random weights, its tokenizer, the card's ceilings, a step's floor."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from tokenizers import Tokenizer, models
from torch.profiler import ProfilerActivity
from torch.profiler import profile as profiler
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CHECKOUT = Path(__file__).resolve().parent.parent
PAD, END = 0, 2
TINY = {
    "vocab_size": 512, "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 4, "max_position_embeddings": 2048, "bos_token_id": 1, "eos_token_id": END,
    "pad_token_id": PAD, "tie_word_embeddings": False,
}  # fmt: skip


@dataclass(frozen=True)
class Ceilings:
    """What the card reaches on random data."""

    flops: float
    """FLOP/s of a bfloat16 matrix product."""
    bandwidth: float
    """Bytes/s read."""


def shape(name: str) -> LlamaConfig:
    """Return the configuration: 6b, or tiny to try a script on a CPU."""
    if name == "tiny":
        return LlamaConfig(**TINY)
    return LlamaConfig.from_pretrained(CHECKOUT / "configs" / "model" / f"{name}.json")


def device() -> torch.device:
    """The GPU, or the CPU to try a script."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def random_model(config: LlamaConfig, kind: type[Any] = LlamaForCausalLM, **named: Any) -> Any:
    """Return a model with random bfloat16 weights, made where it stays."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with device():
            made = kind(config, **named)
    finally:
        torch.set_default_dtype(torch.float32)
    return made.to(torch.bfloat16).requires_grad_(False).eval()


def adapter(rank: int = 16) -> LoraConfig:
    """LoRA on all linear maps."""
    return LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")


def tokenizer(config: LlamaConfig) -> PreTrainedTokenizerFast:
    """Return a tokenizer of the model's vocabulary whose pieces mean nothing."""
    pieces = {"<pad>": PAD, "<s>": 1, "</s>": END} | {f"t{number}": number for number in range(3, config.vocab_size)}
    made = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(pieces, unk_token="<pad>")),
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        padding_side="left",
    )
    return made


def prompts(config: LlamaConfig, count: int, length: int, seed: int = 1) -> list[list[int]]:
    """Return prompts of random tokens."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, config.vocab_size, (count, length), generator=generator).tolist()


def synchronize() -> None:
    """Wait for the GPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Return the least seconds of several runs, the GPU's work included."""
    found = []
    for _ in range(repeats):
        synchronize()
        began = time.perf_counter()
        work()
        synchronize()
        found.append(time.perf_counter() - began)
    return min(found)


def ceilings() -> Ceilings:
    """Measure the card: a product of two 8192-squared matrices, and a sum over 2 GB."""
    side, repeats = (8192, 10) if torch.cuda.is_available() else (512, 1)
    left, right = (torch.randn(side, side, device=device(), dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        left @ right
    flops = repeats * 2 * side**3 / seconds(lambda: [left @ right for _ in range(repeats)], 3)
    block = torch.randn(side * side * 8, device=device())
    bandwidth = repeats * block.numel() * 4 / seconds(lambda: [block.sum() for _ in range(repeats)], 3)
    return Ceilings(flops, bandwidth)


@dataclass(frozen=True)
class Work:
    """Parameters and bytes that floors are made of."""

    layers: int
    """Parameters of all layers."""
    head: int
    """Parameters of the output head."""
    cache: int
    """Bytes of keys and values a token, bfloat16."""
    attention: int
    """FLOP of causal attention per pair of token and length, forward."""

    @classmethod
    def of(cls, config: LlamaConfig) -> "Work":
        """Count them."""
        width = config.hidden_size
        shared = config.num_key_value_heads / config.num_attention_heads
        layers = config.num_hidden_layers * (2 * width**2 * (1 + shared) + 3 * width * config.intermediate_size)
        cache = 2 * 2 * config.num_hidden_layers * int(width * shared)
        return cls(int(layers), config.vocab_size * width, cache, 2 * width * config.num_hidden_layers)

    def sampling_seconds(self, count: int, read: int, write: int, card: Ceilings) -> tuple[float, float]:
        """Least seconds of reading prompts (matrix rate) and of writing answers (weights and filled cache a step)."""
        prefill = count * read * (2 * self.layers + self.attention * read) / card.flops
        steps = [2 * (self.layers + self.head) + count * (read + step) * self.cache for step in range(write)]
        return prefill, sum(steps) / card.bandwidth

    def ppo_seconds(self, count: int, read: int, write: int, card: Ceilings) -> dict[str, float]:
        """Least seconds of one PPO step with one epoch, LoRA roles, no recomputation.

        A forward pass costs 2 FLOP a parameter and token, a backward pass past frozen weights as much again.
        """
        prefill, decode = self.sampling_seconds(count, read, write, card)
        tokens, answers = count * (read + write), count * write
        body = tokens * (2 * self.layers + self.attention * (read + write)) / card.flops
        head = answers * 2 * self.head / card.flops
        return {
            "prefill": prefill,
            "decode": decode,
            "score policy": body + head,
            "score reference": body + head,
            "score critic": body,
            "score reward": body,
            "policy update": 2 * (body + head),
            "critic update": 2 * body,
        }

    def tuning_flop(self, lengths: Sequence[int], *, full: bool = False, head: bool = True) -> float:
        """FLOP of learning from texts of these lengths, each seeing itself alone, nothing recomputed.

        4N a token where the weights are frozen (forward, gradients of the inputs), 6N where they learn too; attention
        costs 2.5 times as much backward as forward. LoRA's own products are not counted.

        Args:
            lengths: Tokens of each text.
            full: True if all weights learn.
            head: True if every token is predicted; a reward model has no output head over the vocabulary.
        """
        weights = (6 if full else 4) * (self.layers + (self.head if head else 0))
        return sum(lengths) * weights + 3.5 * self.attention * sum(length**2 for length in lengths)


def profile(work: Callable[[], object], path: Path) -> None:
    """Write where the GPU's time goes."""
    activity = ProfilerActivity.CUDA if torch.cuda.is_available() else ProfilerActivity.CPU
    with profiler(activities=[activity]) as measured:
        work()
        synchronize()
    path.parent.mkdir(parents=True, exist_ok=True)
    by = f"{device().type}_time_total"
    path.write_text(measured.key_averages().table(sort_by=by, row_limit=60, max_name_column_width=90))


def describe() -> dict[str, Any]:
    """Return how this was measured: command, commit, hardware, versions."""
    asked = ["git", "-C", str(CHECKOUT), "rev-parse", "HEAD"]
    found = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    commit = os.environ.get("FINLM_COMMIT", found)  # where the tree was copied without its history
    names = ("torch", "transformers", "peft", "accelerate", "trl", "triton", "datasets")
    names += ("liger-kernel", "flash-attn", "torchao", "bitsandbytes")
    versions = {"python": sys.version.split()[0]}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    hardware = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return {"command": " ".join(["python", *sys.argv]), "commit": commit, "hardware": hardware, "versions": versions}


def write(path: Path, figures: dict[str, Any]) -> None:
    """Write a result with how it was measured."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(describe() | {"figures": figures}, indent=2) + "\n", encoding="utf-8")
