"""Batches without padding: all tokens in one row, each answer or sample seeing itself alone.

Padding is work for nothing: with answers of mixed length a third of a batch and more. On CUDA in half precision the
tokens of all rows run through the model as one row; torch's variable-length attention keeps the rows apart
(`torch.nn.attention.varlen`, or flash-attn where it is installed). Elsewhere rows stay padded, but for rows that were
packed: those run so everywhere, on a CPU or in float32 one sample after the other.

transformers tells packed rows apart only on some paths and lets them see each other in silence on the rest, so the
attention function here is our own: with the rows' bounds it attends within rows, without them it is transformers'
sdpa, which sampling and libraries go on using.
"""

from collections.abc import Callable, Mapping
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, LlamaForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.models.llama.modeling_llama import LlamaModel

NAME = "finlm_unpadded"
HALF = (torch.bfloat16, torch.float16)
"""What the kernels for rows of several lengths take."""
WIDTHS = 8
"""Their heads are this many numbers wide, or a multiple; others go row by row."""


class Rows(NamedTuple):
    """Where the rows of a batch lie once their padding is gone; N tokens in all.

    Example:
        Rows.of(is_token_BT) for rows of 2 and 3 tokens: place_N=[0, 1, 3, 4, 5], bounds=[0, 2, 5], longest=3
    """

    place_N: Tensor
    """Place of each token in the batch, counted row by row, padding included."""
    position_N: Tensor
    """Place of each token in its row."""
    bounds: Tensor
    """Where each row begins, and the end of the last, (B + 1,), int32."""
    longest: int
    """Tokens of the longest row."""

    @classmethod
    def of(cls, is_token_BT: Tensor) -> "Rows":
        """Find the tokens of rows that are padded on the right."""
        length_B = is_token_BT.sum(dim=1, dtype=torch.int32)
        bounds = nn.functional.pad(length_B.cumsum(dim=0, dtype=torch.int32), (1, 0))
        place_N = is_token_BT.flatten().nonzero().squeeze(1)
        return cls(place_N, place_N % is_token_BT.shape[1], bounds, int(length_B.max()))


@cache
def flash_attn() -> Callable[..., Any] | None:
    """Return flash-attn's function for rows of several lengths; None where it is not installed."""
    try:
        from flash_attn import flash_attn_varlen_func  # type: ignore[import-not-found]
    except ImportError:
        return None
    found: Callable[..., Any] = flash_attn_varlen_func
    return found


def install(model: LlamaForCausalLM, *, for_packed: bool = False) -> LlamaForCausalLM:
    """Let a model attend within rows where it is told of them; on a GPU in half precision, else it is left alone.

    Args:
        model: The model.
        for_packed: True does so on every device and dtype: packed rows need it.
    """
    if for_packed:
        model.set_attn_implementation(NAME)
        return model
    weight = model.get_input_embeddings().weight
    if weight.device.type == "cuda" and weight.dtype in HALF:
        model.set_attn_implementation(NAME)
    return model


def hidden_states(llama: LlamaModel, is_token_BT: Tensor, **inputs: Tensor) -> Tensor:
    """Return the last hidden states (B, T, D) of rows padded on the right, zero on padding where it was left out.

    Args:
        llama: The model without its head; without its padding if `install` was called on it.
        is_token_BT: True on tokens.
        inputs: `input_ids` (B, T) or `inputs_embeds` (B, T, D).
    """
    if llama.config._attn_implementation != NAME:
        padded: Tensor = llama(attention_mask=is_token_BT.long(), use_cache=False, **inputs).last_hidden_state
        return padded
    rows = Rows.of(is_token_BT)
    flat = {name: given.flatten(0, 1)[rows.place_N] for name, given in inputs.items()}
    hidden_ND = _flat_states(llama, rows.position_N, rows.bounds, rows.longest, flat)
    hidden = hidden_ND.new_zeros(is_token_BT.numel(), hidden_ND.shape[1]).index_copy(0, rows.place_N, hidden_ND)
    return hidden.view(*is_token_BT.shape, -1)


def packed_states(llama: LlamaModel, ids_N: Tensor, bounds: Tensor, longest: int, **named: Any) -> Tensor:
    """Return the last hidden states (N, D) of samples that lie one behind the other, none seeing another.

    Args:
        llama: The model without its head; `install` was called on it with `for_packed`.
        ids_N: Token ids of all samples.
        bounds: Where each sample begins, and the end of the last, (S + 1,), int32.
        longest: Tokens of the longest sample.
        named: What the model hands on to its layers besides.

    Raises:
        ValueError: The model attends in another way, in which the samples would see each other without a word.
    """
    if llama.config._attn_implementation != NAME:
        raise ValueError(f"the model attends by {llama.config._attn_implementation!r}; packed rows need {NAME!r}")
    length_S = (bounds[1:] - bounds[:-1]).long()
    start_N = torch.repeat_interleave(bounds[:-1].long(), length_S, output_size=len(ids_N))
    position_N = torch.arange(len(ids_N), device=ids_N.device) - start_N
    return _flat_states(llama, position_N, bounds, longest, {"input_ids": ids_N}, **named)


def _flat_states(
    llama: LlamaModel, position_N: Tensor, bounds: Tensor, longest: int, flat: Mapping[str, Tensor], **named: Any
) -> Tensor:
    """Run tokens without padding; `flat` has `input_ids` (N,) or `inputs_embeds` (N, D)."""
    hidden_1ND: Tensor = llama(
        # a mask of four axes is handed on as it is: transformers would build one of N x N from the positions
        attention_mask=torch.ones(1, 1, 1, 1, dtype=torch.bool, device=position_N.device),
        position_ids=position_N.unsqueeze(0),
        use_cache=False,
        cu_seq_lens_q=bounds,
        cu_seq_lens_k=bounds,
        max_length_q=longest,
        max_length_k=longest,
        **{name: given.unsqueeze(0) for name, given in flat.items()},
        **named,
    ).last_hidden_state
    return hidden_1ND.squeeze(0)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int = 0,
    **named: Any,
) -> tuple[Tensor, None]:
    """Attend causally, within each row where their bounds are given; the signature is transformers'.

    Args:
        module: The attention module.
        query: (1, heads, N, width) with bounds, else (B, heads, T, width).
        key: (1, key-value heads, N, width).
        value: As `key`.
        attention_mask: For rows that are padded; not looked at with bounds.
        scaling: Factor of the products.
        cu_seq_lens_q: Bounds of the rows, int32.
        max_length_q: Tokens of the longest row.
        named: What transformers hands on.

    Returns:
        (1, N, heads, width), and no weights.
    """
    if cu_seq_lens_q is None:
        padded: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **named
        )
        return padded
    query, key = query.to(value.dtype), key.to(value.dtype)  # under autocast the rotation leaves them in float32
    if query.device.type != "cuda" or query.dtype not in HALF or query.shape[-1] % WIDTHS:
        return _row_by_row(query, key, value, cu_seq_lens_q, scaling), None
    flash = flash_attn()
    if flash is not None:  # it takes shared heads and a scale of its own
        query, key, value = (part.squeeze(0).transpose(0, 1) for part in (query, key, value))
        lengths = (cu_seq_lens_q, cu_seq_lens_q, max_length_q, max_length_q)
        found: Tensor = flash(query, key, value, *lengths, softmax_scale=scaling, causal=True)
        return found.unsqueeze(0), None
    shared = query.shape[1] // key.shape[1]
    key, value = (part.repeat_interleave(shared, dim=1) if shared > 1 else part for part in (key, value))
    query, key, value = (part.squeeze(0).transpose(0, 1).contiguous() for part in (query, key, value))
    if scaling is not None and scaling != query.shape[2] ** -0.5:
        query = query * (scaling * query.shape[2] ** 0.5)  # torch 2.11's function scales by the width alone
    out = varlen_attn(query, key, value, cu_seq_lens_q, cu_seq_lens_q, max_length_q, max_length_q, window_size=(-1, 0))
    assert isinstance(out, Tensor)
    return out.unsqueeze(0), None


def _row_by_row(query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, scaling: float | None) -> Tensor:
    """The same in plain torch, one row after the other."""
    edges = bounds.tolist()
    rows = [
        nn.functional.scaled_dot_product_attention(
            query[:, :, start:stop],
            key[:, :, start:stop],
            value[:, :, start:stop],
            is_causal=True,
            scale=scaling,
            enable_gqa=query.shape[1] != key.shape[1],
        )
        for start, stop in pairwise(edges)
    ]
    return torch.cat(rows, dim=2).transpose(1, 2)


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
