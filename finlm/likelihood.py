"""Log-probabilities of given tokens, without ever holding the logits of a whole batch."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from finlm.generation import pad_right
from finlm.scorer import last_hidden


def output_head(model: Any) -> Tensor:
    """Return the output embedding (V, D) to compute log-probabilities with.

    bfloat16 logits are too coarse for log-probabilities; on a CPU a float32 copy of the small head is affordable.
    """
    weight: Tensor = model.get_output_embeddings().weight.detach()
    return weight if weight.device.type == "cuda" else weight.float()


def token_log_probs(
    states_ND: Tensor, tokens_N: Tensor, head_VD: Tensor, *, temperature: float = 1.0, chunk: int = 256
) -> tuple[Tensor, Tensor]:
    """Return the log-probability of each token in its state, and the entropy there; both (N,), float32.

    The logits exist for `chunk` tokens at a time only, also in the backward pass, which computes them again.

    Args:
        states_ND: Hidden state before each token.
        tokens_N: Token ids.
        head_VD: The output embedding; its dtype is the dtype of the product.
        temperature: Divides the logits, as in sampling.
        chunk: Tokens at a time.
    """
    pieces = [
        checkpoint(_of_chunk, states, tokens, head_VD, temperature, use_reentrant=False)
        for states, tokens in zip(torch.split(states_ND, chunk), torch.split(tokens_N, chunk), strict=True)
    ]
    return torch.cat([piece[0] for piece in pieces]), torch.cat([piece[1] for piece in pieces])


def _of_chunk(states_ND: Tensor, tokens_N: Tensor, head_VD: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    logits_NV = nn.functional.linear(states_ND.to(head_VD.dtype), head_VD).float() / temperature
    log_z_N = logits_NV.logsumexp(dim=-1)
    logp_N = logits_NV.gather(1, tokens_N.unsqueeze(1)).squeeze(1) - log_z_N
    with torch.no_grad():
        entropy_N = log_z_N - (torch.softmax(logits_NV, dim=-1) * logits_NV).sum(dim=-1)
    return logp_N, entropy_N


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
