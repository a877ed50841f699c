"""Slots of the compiled engine: what a step reads and writes, and how many of them memory holds."""

from dataclasses import dataclass
from typing import Any

import psutil
import torch
from torch import Tensor

PREFILL_TOKENS = 16_384
"""Tokens of prompts that are read at once, padding included."""
CAPACITY_STEP = 128
"""Capacities are multiples of this, so that a slightly longer prompt needs no new cache and no new graphs."""


@dataclass(frozen=True, slots=True)
class Slots:
    """What the step reads and writes, one row per slot; the captured graph holds these very tensors.

    Example:
        Slots.empty(96, 256, torch.device("cuda"))
    """

    token_B: Tensor
    length_B: Tensor
    """Tokens in the cache: the place of `token_B`, which is not in it yet."""
    key_B: Tensor
    step_B: Tensor
    """Tokens written so far."""
    is_active_B: Tensor
    """True on slots whose answer is not finished."""
    answer_BA: Tensor
    logp_BA: Tensor

    @classmethod
    def empty(cls, slots: int, longest: int, device: torch.device) -> "Slots":
        """Return `slots` slots without an answer, each with room for `longest` tokens of one."""

        def zeros(*shape: int, dtype: torch.dtype = torch.long) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        return cls(
            token_B=zeros(slots),
            length_B=zeros(slots),
            key_B=zeros(slots),
            step_B=zeros(slots),
            is_active_B=zeros(slots, dtype=torch.bool),
            answer_BA=zeros(slots, longest),
            logp_BA=zeros(slots, longest, dtype=torch.float32),
        )

    def first(self, count: int) -> "Slots":
        """Return views of the first `count` slots."""
        return Slots(*(getattr(self, name)[:count] for name in self.__slots__))


def bucket(count: int) -> int:
    """Return the next power of two up to 32, the next multiple of 32 above."""
    if count > 32:
        return -(-count // 32) * 32
    return 1 << (count - 1).bit_length()


def capacity_for(tokens: int) -> int:
    """Return the capacity of a slot that holds so many tokens of prompt and answer."""
    return -(-tokens // CAPACITY_STEP) * CAPACITY_STEP


def head_width(config: Any) -> int:
    """Return the width of an attention head."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def slots_that_fit(free: int, config: Any, *, capacity: int, itemsize: int) -> int:
    """Return how many slots `free` bytes hold, at least 1.

        slots = (0.95 free - prefill) / (cache + choice)
        prefill = PREFILL_TOKENS * (4 D + 3 I) * itemsize     states of the prompts that are read at once
        cache   = 2 * layers * key-value heads * head width * capacity * itemsize
        choice  = 24 V                                        six rows of float32 logits while a token is chosen

    with D the width of the model, I that of its feed-forward part and V the vocabulary. The 6B in bfloat16 takes 0.49
    MB a token, 126 MB a slot of 256 tokens.

    Args:
        free: Bytes that nobody holds.
        config: The model's `LlamaConfig`.
        capacity: Tokens of prompt and answer that a slot holds.
        itemsize: Bytes of a number in the cache.
    """
    prefill = PREFILL_TOKENS * (4 * config.hidden_size + 3 * config.intermediate_size) * itemsize
    cache = 2 * config.num_hidden_layers * config.num_key_value_heads * head_width(config) * capacity * itemsize
    return max(1, int((0.95 * free - prefill) // (cache + 24 * config.vocab_size)))


def free_bytes(device: torch.device) -> int:
    """Return the memory of a device that nobody holds; what torch keeps in reserve on a GPU is given back first."""
    if device.type != "cuda":
        return int(psutil.virtual_memory().available)
    torch.cuda.empty_cache()
    return int(torch.cuda.mem_get_info(device)[0])
