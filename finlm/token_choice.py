"""Choosing the next token so that an answer depends on its seed, its prompt and nothing else.

Exponential races: the token v with the smallest E_v / p_v, E_v standard exponential, is distributed as p (Luce 1959;
Gumbel-max in another dress). Here E_v is a hash of (answer's key, place in the answer, v) instead of the next draw
of a generator, so neither the batch nor the row that an answer is computed in changes it, on any device.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from finlm.hashing import GOLDEN, mix


class Choice(NamedTuple):
    """Chosen tokens, (B,) each."""

    token_B: Tensor
    logp_B: Tensor
    """Log-probability of the token in the distribution that was sampled, filters included; float32."""


def answer_key(seed: int, prompt: Sequence[int], number: int) -> int:
    """Return the key of the `number`-th answer to a prompt: 63 bits that depend on nothing else."""
    digest = hashlib.sha256(f"{seed} {number} {' '.join(map(str, prompt))}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def exponentials(key_B: Tensor, step_B: Tensor, stride_V: Tensor) -> Tensor:
    """Return standard exponential numbers (B, V), float32, that only key and step decide.

    Args:
        key_B: Key of each answer, int64.
        step_B: Place of the token in its answer, int64.
        stride_V: What `finlm.hashing.strides` returns.
    """
    start_B1 = mix(key_B + mix(step_B * GOLDEN)).unsqueeze(1)
    bits_BV = mix(start_B1 + stride_V)
    # 32 bits as a number in (0, 1): small ones, which win the race, keep all their digits in float32
    uniform_BV = (((bits_BV >> 32) & (2**32 - 1)).float() + 0.5) * 2**-32
    return -torch.log1p(-uniform_BV)


def keep_likeliest(logits_BV: Tensor, *, top_k: int, top_p: float) -> Tensor:
    """Set the logits outside top-k and top-p to minus infinity; ties at the edge stay in.

    Args:
        logits_BV: Logits, temperature applied.
        top_k: Tokens kept at most; 0 keeps all.
        top_p: Smallest set of tokens with this probability mass (Holtzman et al. 2020, arXiv 1904.09751); 1 keeps all.
    """
    if top_k:
        edge_B1 = logits_BV.topk(min(top_k, logits_BV.shape[1]), dim=1).values[:, -1:]
        logits_BV = logits_BV.masked_fill(logits_BV < edge_B1, -torch.inf)
    if top_p < 1:
        sorted_BV = logits_BV.sort(dim=1, descending=True).values
        before_BV = sorted_BV.softmax(dim=1).cumsum(dim=1).roll(1, dims=1)
        before_BV[:, 0] = 0
        is_kept_BV = before_BV < top_p
        edge_B1 = sorted_BV.masked_fill(~is_kept_BV, torch.inf).min(dim=1, keepdim=True).values
        logits_BV = logits_BV.masked_fill(logits_BV < edge_B1, -torch.inf)
    return logits_BV


def choose(
    logits_BV: Tensor,
    key_B: Tensor,
    step_B: Tensor,
    stride_V: Tensor,
    *,
    temperature: float,
    top_k: int = 0,
    top_p: float = 1.0,
) -> Choice:
    """Choose each row's next token.

    Args:
        logits_BV: Logits of the next token.
        key_B: Key of each answer, int64.
        step_B: Place of the token in its answer, int64.
        stride_V: What `finlm.hashing.strides` returns.
        temperature: Divides the logits; 0 takes the likeliest token.
        top_k: See `keep_likeliest`.
        top_p: See `keep_likeliest`.
    """
    logits_BV = logits_BV.float()
    if temperature:
        logits_BV = keep_likeliest(logits_BV / temperature, top_k=top_k, top_p=top_p)
        token_B = (logits_BV - exponentials(key_B, step_B, stride_V).log()).argmax(dim=1)
    else:
        token_B = logits_BV.argmax(dim=1)
    logp_B = logits_BV.gather(1, token_B.unsqueeze(1)).squeeze(1) - logits_BV.logsumexp(dim=1)
    return Choice(token_B, logp_B)
