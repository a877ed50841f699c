"""Attention over slots of a preallocated key-value cache, as an attention function of transformers.

A slot holds one answer: keys and values of its first `length` tokens, in a buffer of fixed size. Reading a prompt,
attention is causal within each row and the row's keys and values go into its slot; writing an answer, each row adds one
token and attends to its own slot as far as it is filled. On CUDA a kernel of ours does both in one pass and reads
nothing beyond the filled part; elsewhere a mask does.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

NAME = "finlm_slots"


class Tile(NamedTuple):
    """How the kernel cuts its work; benchmarks/decode_kernel_gpu.py compares choices."""

    block: int
    """Places of the cache at a time."""
    warps: int
    stages: int


TILE = Tile(block=128, warps=2, stages=3)


class LayerSlots(NamedTuple):
    """One layer's cache, both (slots, key-value heads, capacity, head width)."""

    keys: Tensor
    values: Tensor


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    slots: LayerSlots,
    length_B: Tensor | None = None,
    into_B: Tensor | slice | None = None,
    from_B: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend and fill the cache; the signature is transformers' (`AttentionInterface`).

    Args:
        module: The attention module.
        query: (B, heads, T, width); T is 1 while an answer is written.
        key: (B, key-value heads, T, width).
        value: As `key`.
        attention_mask: Unused: rows are padded on the right, where causal attention never looks from a token.
        scaling: Factor of the products.
        slots: The layer's cache.
        length_B: Filled length of each slot, while answers are written; row b works on slot b.
        into_B: Slots to fill, while prompts are read.
        from_B: Row of the batch that each of these slots takes, a prompt of several answers being read once; None: as
            they come.

    Returns:
        (B, T, heads, width) and no weights.
    """
    if length_B is not None:
        out = write_and_attend(
            query[:, :, 0], key[:, :, 0], value[:, :, 0], slots.keys, slots.values, length_B, scaling
        )
        return out.unsqueeze(1), None
    for whole, part in ((slots.keys, key), (slots.values, value)):
        whole[into_B, :, : part.shape[2]] = part if from_B is None else part[from_B]
    out = nn.functional.scaled_dot_product_attention(
        query, key, value, is_causal=True, scale=scaling, enable_gqa=query.shape[1] != key.shape[1]
    )
    return out.transpose(1, 2), None


AttentionInterface.register(NAME, attend)


@torch.library.custom_op("finlm::write_and_attend", mutates_args=("keys", "values"))
def write_and_attend(
    query: Tensor, key: Tensor, value: Tensor, keys: Tensor, values: Tensor, length_B: Tensor, scaling: float
) -> Tensor:
    """Put one token's key and value at place `length_B` of each slot, then attend to places 0 to `length_B`.

    Args:
        query: (B, heads, width).
        key: (B, key-value heads, width).
        value: As `key`.
        keys: The layer's cache, (slots, key-value heads, capacity, width); slots beyond B are left alone.
        values: As `keys`.
        length_B: Tokens that each slot holds before, int64; below the capacity.
        scaling: Factor of the products.

    Returns:
        (B, heads, width), in the query's dtype.
    """
    if query.is_cuda:
        return _by_kernel(query, key, value, keys, values, length_B, scaling)
    return _by_mask(query, key, value, keys, values, length_B, scaling)


@write_and_attend.register_fake
def _(query: Tensor, *given: Any) -> Tensor:
    return torch.empty_like(query, memory_format=torch.contiguous_format)


def _by_mask(
    query: Tensor, key: Tensor, value: Tensor, keys: Tensor, values: Tensor, length_B: Tensor, scaling: float
) -> Tensor:
    """The same in plain torch: for CPUs, and what the kernel is checked against."""
    rows = torch.arange(len(query), device=query.device)
    keys[rows, :, length_B] = key
    values[rows, :, length_B] = value
    is_filled_BS = torch.arange(keys.shape[2], device=query.device) <= length_B.unsqueeze(1)
    out = nn.functional.scaled_dot_product_attention(
        query.unsqueeze(2),
        keys[: len(query)],
        values[: len(query)],
        attn_mask=is_filled_BS[:, None, None],
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return out.squeeze(2).contiguous()


def _by_kernel(
    query: Tensor, key: Tensor, value: Tensor, keys: Tensor, values: Tensor, length_B: Tensor, scaling: float
) -> Tensor:
    from finlm.decode_kernel import decode_kernel  # Triton comes with CUDA builds of torch alone

    rows, heads, width = query.shape
    query, key, value = (part if part.stride(2) == 1 else part.contiguous() for part in (query, key, value))
    out = torch.empty_like(query, memory_format=torch.contiguous_format)
    decode_kernel[(rows, heads)](
        query,
        key,
        value,
        keys,
        values,
        length_B,
        out,
        scaling * math.log2(math.e),
        *query.stride()[:2],
        *key.stride()[:2],
        *value.stride()[:2],
        *keys.stride()[:2],
        heads,
        heads // keys.shape[1],
        WIDTH=width,
        BLOCK=TILE.block,
        num_warps=TILE.warps,
        num_stages=TILE.stages,
    )
    return out
