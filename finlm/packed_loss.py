"""The loss of packed rows as a model's own forward pass, so that whatever wraps or cuts the model sees it.

DistributedDataParallel sums gradients only if its own forward ran; FSDP2 and ZeRO-3 have a module's weights whole only
while that module runs. So the model is called with the batch and answers with losses, and the output embedding is used
inside of its own module. Nothing of this is noticed by who calls the model in the usual way.
"""

from types import MethodType
from typing import Any

from torch import Tensor, nn
from transformers import LlamaForCausalLM

from finlm import unpadded
from finlm.likelihood import token_log_probs


def install(model: LlamaForCausalLM) -> LlamaForCausalLM:
    """Let a model answer a `finlm.batches.PackedBatch` with its losses, on every device and dtype.

    `model(**batch)` is then the negative log-likelihood of each learned token, (L,), float32, nats, with an adapter
    around it too.
    """
    unpadded.install(model, for_packed=True)
    model.forward = MethodType(_forward, model)
    install_head(model)
    return model


def install_head(model: LlamaForCausalLM) -> None:
    """Let the output embedding answer states (L, D) and tokens (L,) with log-probabilities, (L,), float32."""
    model.lm_head.forward = MethodType(_head_forward, model.lm_head)


def _forward(
    model: LlamaForCausalLM,
    input_ids: Tensor | None = None,
    *,
    labels: Tensor | None = None,
    bounds: Tensor | None = None,
    longest: int = 0,
    learned: Tensor | None = None,
    **named: Any,
) -> Any:
    if bounds is None or learned is None or labels is None or input_ids is None:
        return type(model).forward(model, input_ids=input_ids, labels=labels, **named)
    hidden_ND = unpadded.packed_states(model.model, input_ids, bounds, longest)
    logp_L: Tensor = model.lm_head(hidden_ND.index_select(0, learned), labels.index_select(0, learned))
    return -logp_L


def _head_forward(head: nn.Linear, states: Tensor, tokens_L: Tensor | None = None) -> Tensor:
    if tokens_L is None:
        return nn.functional.linear(states, head.weight, head.bias)
    return token_log_probs(states, tokens_L, head.weight)[0]
