"""Log-probabilities of given tokens, without ever holding the logits of a whole batch."""

from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from finlm import aligned_head, kept
from finlm.fused_lora import product
from finlm.generation import pad_right
from finlm.scorer import last_hidden


def output_head(model: Any) -> Tensor:
    """Return the output embedding (V, D) to compute log-probabilities with.

    bfloat16 logits are too coarse for log-probabilities; on a CPU a float32 copy of the small head is affordable.
    """
    weight: Tensor = model.get_output_embeddings().weight.detach()
    return weight if weight.device.type == "cuda" else weight.float()


def token_log_probs(
    states_ND: Tensor,
    tokens_N: Tensor,
    head_VD: Tensor,
    *,
    temperature: float = 1.0,
    chunk: int = 256,
    kept_NU: Tensor | None = None,
    entropy_learns: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return the log-probability of each token in its state, and the entropy there; both (N,), float32.

    The logits exist for `chunk` tokens at a time only, also in the backward pass, which computes them again.

    Args:
        states_ND: Hidden state before each token.
        tokens_N: Token ids.
        head_VD: The output embedding; its dtype is the dtype of the product.
        temperature: Divides the logits, as in sampling.
        chunk: Tokens at a time; on CUDA more, where `token_log_probs_wide` will do.
        kept_NU: Tokens that the distributions are restricted to, from `kept_tokens`; None: all.
        entropy_learns: True if the entropies carry gradient.
    """
    if kept_NU is None and not entropy_learns and head_VD.device.type == "cuda":
        return token_log_probs_wide(states_ND, tokens_N, head_VD, temperature=temperature)
    parts = zip(torch.split(states_ND, chunk), torch.split(tokens_N, chunk), strict=True)
    kept_parts = torch.split(kept_NU, chunk) if kept_NU is not None else repeat(None)
    pieces = [
        checkpoint(_of_chunk, states, tokens, head_VD, temperature, keep, entropy_learns, use_reentrant=False)
        for (states, tokens), keep in zip(parts, kept_parts, strict=False)
    ]
    return torch.cat([piece[0] for piece in pieces]), torch.cat([piece[1] for piece in pieces])


def token_log_probs_wide(
    states_ND: Tensor, tokens_N: Tensor, head_VD: Tensor, *, temperature: float = 1.0, chunk: int = 4096
) -> tuple[Tensor, Tensor]:
    """Return what `token_log_probs` does, from logits in float32 of states and a head in half precision.

    A logit of 20 in bfloat16 is 0.06 off, and so is every log-probability of its token. CUDA sums in float32 anyway;
    here it also hands the sums out so. Under autocast a float32 head is rounded to autocast's dtype for the products
    alone. A head that learns gets its gradient summed over the chunks in float32. The entropies carry no gradient.

    Args:
        states_ND: Hidden state before each token.
        tokens_N: Token ids.
        head_VD: The output embedding.
        temperature: Divides the logits, as in sampling.
        chunk: Tokens at a time; 4,096 of a vocabulary of 40,000 take 0.65 GB.
    """
    device = head_VD.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else head_VD.dtype
    with torch.autocast(device, enabled=False):
        found: tuple[Tensor, Tensor] = _Chosen.apply(states_ND, tokens_N, head_VD, temperature, chunk, dtype)  # type: ignore[no-untyped-call]
    return found


class _Chosen(torch.autograd.Function):
    """log p(token) and entropy of p = softmax(states head^T / temperature), chunk by chunk, both ways.

    d log p(token) / d logits = onehot(token) - p
    """

    @staticmethod
    def forward(
        ctx: Any,
        states_ND: Tensor,
        tokens_N: Tensor,
        head_VD: Tensor,
        temperature: float,
        chunk: int,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        states_ND, whole_WD = states_ND.to(dtype), aligned_head.aligned(head_VD.to(dtype))
        pieces = []
        for states, tokens in zip(torch.split(states_ND, chunk), torch.split(tokens_N, chunk), strict=True):
            logits_NV = product(states, whole_WD.T).div_(temperature)[:, : len(head_VD)]
            log_z_N = logits_NV.logsumexp(dim=-1)
            logp_N = logits_NV.gather(1, tokens.unsqueeze(1)).squeeze(1) - log_z_N
            mean_N = torch.linalg.vecdot(torch.softmax(logits_NV, dim=-1), logits_NV)
            pieces.append((logp_N, log_z_N - mean_N, log_z_N))
        logp_N, entropy_N, log_z_N = (torch.cat(column) for column in zip(*pieces, strict=True))
        # the head itself, not what was made of it: one that is put together of shards lives in that memory only
        ctx.save_for_backward(states_ND, tokens_N, head_VD, log_z_N)
        ctx.temperature, ctx.chunk = temperature, chunk
        ctx.mark_non_differentiable(entropy_N)
        return logp_N, entropy_N

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        # what is computed for rows of zeros meets them again in the second product
        states_ND, tokens_N, head_VD, log_z_N = ctx.saved_tensors
        whole_WD = aligned_head.aligned(head_VD.to(states_ND.dtype))
        parts = (torch.split(part, ctx.chunk) for part in (states_ND, tokens_N, log_z_N, gradients[0]))
        pieces, of_head_WD = [], None
        for states, tokens, log_z, gradient_N in zip(*parts, strict=True):
            logits_NW = product(states, whole_WD.T).div_(ctx.temperature)
            of_logits_NW = logits_NW.sub_(log_z.unsqueeze(1)).exp_().neg_()
            of_logits_NW.scatter_add_(1, tokens.unsqueeze(1), torch.ones_like(log_z).unsqueeze(1))
            of_logits_NW.mul_(gradient_N.unsqueeze(1) / ctx.temperature)
            of_logits = of_logits_NW.to(whole_WD.dtype)
            pieces.append(of_logits @ whole_WD)
            if ctx.needs_input_grad[2]:
                more_WD = product(of_logits.T, states)
                of_head_WD = more_WD if of_head_WD is None else of_head_WD.add_(more_WD)
        of_head_VD = None if of_head_WD is None else of_head_WD[: len(head_VD)].to(head_VD.dtype)
        return torch.cat(pieces), None, of_head_VD, None, None, None


def _logits(states_ND: Tensor, head_VD: Tensor, temperature: float) -> Tensor:
    return nn.functional.linear(states_ND.to(head_VD.dtype), head_VD).float() / temperature


def _of_chunk(
    states_ND: Tensor,
    tokens_N: Tensor,
    head_VD: Tensor,
    temperature: float,
    kept_NU: Tensor | None,
    entropy_learns: bool,
) -> tuple[Tensor, Tensor]:
    logits_NV = _logits(states_ND, head_VD, temperature)
    if kept_NU is not None:
        # far below every logit, and finite: no 0 * -inf in the entropy
        logits_NV = logits_NV.masked_fill(kept.unpack(kept_NU, logits_NV.shape[1]).logical_not(), -1e9)
    log_z_N = logits_NV.logsumexp(dim=-1)
    logp_N = logits_NV.gather(1, tokens_N.unsqueeze(1)).squeeze(1) - log_z_N
    with torch.set_grad_enabled(entropy_learns and torch.is_grad_enabled()):
        entropy_N = log_z_N - (torch.softmax(logits_NV, dim=-1) * logits_NV).sum(dim=-1)
    return logp_N, entropy_N


@torch.no_grad()
def kept_tokens(
    states_ND: Tensor,
    tokens_N: Tensor,
    head_VD: Tensor,
    *,
    temperature: float,
    top_p: float,
    top_k: int,
    chunk: int = 256,
) -> Tensor:
    """Return which tokens top-p and top-k leave in each state, packed as `finlm.kept` does; (N, U), uint8.

    The given token always stays: at the edge of the set, the rounding of whoever sampled it may have decided otherwise.

    Args:
        states_ND: Hidden state before each token.
        tokens_N: Ids of the tokens that were sampled there.
        head_VD: The output embedding.
        temperature: Divides the logits, as in sampling.
        top_p: Smallest set of tokens with this probability mass; 1 keeps all.
        top_k: Number of likeliest tokens; 0 keeps all.
        chunk: Tokens at a time.
    """
    pieces = []
    for states, tokens in zip(torch.split(states_ND, chunk), torch.split(tokens_N, chunk), strict=True):
        is_kept_NV = kept.likeliest(_logits(states, head_VD, temperature), top_p=top_p, top_k=top_k)
        pieces.append(kept.pack(is_kept_NV.scatter(1, tokens.unsqueeze(1), True)))
    return torch.cat(pieces)


@torch.inference_mode()
def answer_log_probs(
    model: Any,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    *,
    pad: int,
    batch_size: int,
    on_batch: Callable[[int], None] = lambda count: None,
) -> list[float]:
    """Return the log-probability, in nats, of each whole answer after its prompt, under the model as it stands."""
    device, head_VD = next(model.parameters()).device, output_head(model)
    totals = [0.0] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]) + len(answers[index]))
    for start in range(0, len(order), batch_size):
        indices = order[start : start + batch_size]
        ids_BT, is_token_BT = pad_right([[*prompts[i], *answers[i]] for i in indices], pad, device)
        hidden_BTD = last_hidden(model, ids_BT, is_token_BT)
        for row, index in enumerate(indices):
            first, length = len(prompts[index]), len(answers[index])
            if length:
                states_ND = hidden_BTD[row, first - 1 : first - 1 + length]
                logp_N, _ = token_log_probs(states_ND, ids_BT[row, first : first + length], head_VD)
                totals[index] = float(logp_N.double().sum())
        on_batch(len(indices))
    return totals
