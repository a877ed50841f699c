"""A causal model that reads numbers instead of predicting tokens: its forward pass gives what a reward model learns by.

The readings are the model's own forward, so that what wraps or cuts the model sees its pass (finlm/packed_loss.py says
why). The head is a module of its own, `score`, in float32 whatever the model's dtype.

Behind its last attention a model goes on with the tokens that are read alone: nobody looks at the others' states. Where
that is one token of an answer, it saves two thirds of the last layer.
"""

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from finlm import unpadded
from finlm.packed_loss import install_head

HEAD = "score"


class ScoreHead(nn.Linear):
    """The head that trains: (…, D) -> (…, 1) without bias, small at the start, computed in float32."""

    def __init__(self, width: int) -> None:
        super().__init__(width, 1, bias=False)
        # N+ implementation details (arXiv 2403.17031): a head of standard deviation 1 / sqrt(D + 1)
        nn.init.normal_(self.weight, std=1 / (width + 1) ** 0.5)

    def forward(self, hidden: Tensor) -> Tensor:
        """Read one number per position."""
        with torch.autocast(hidden.device.type, enabled=False):
            return super().forward(hidden.float())


def install(model: LlamaForCausalLM) -> LlamaForCausalLM:
    """Give a model a head, and let it answer what a `reward.batches.Pass` has with its readings, (R,), float32.

    Where the pass has tokens to predict, it answers with their negative log-likelihood besides, (L,), float32, nats.
    """
    unpadded.install(model, for_packed=True)
    install_head(model)
    last = model.model.layers[-1]
    last.forward = MethodType(_last_layer, last)
    model.score = ScoreHead(model.config.hidden_size).to(model.device)
    model.forward = MethodType(_forward, model)
    return model


def _forward(
    model: LlamaForCausalLM,
    input_ids: Tensor | None = None,
    *,
    bounds: Tensor | None = None,
    longest: int = 0,
    read: Tensor | None = None,
    learned: Tensor | None = None,
    following: Tensor | None = None,
    **named: Any,
) -> Any:
    if bounds is None or read is None or input_ids is None:
        return type(model).forward(model, input_ids=input_ids, **named)
    if learned is None or following is None:
        return _read(model, unpadded.packed_states(model.model, input_ids, bounds, longest, read=read))
    both = torch.cat([read, learned])
    states = unpadded.packed_states(model.model, input_ids, bounds, longest, read=both)
    return _read(model, states[: len(read)]), -model.lm_head(states[len(read) :], following)


def _read(model: LlamaForCausalLM, hidden_RD: Tensor) -> Tensor:
    reading_R: Tensor = model.score(hidden_RD).squeeze(-1)
    return reading_R


def _last_layer(layer: LlamaDecoderLayer, hidden_states: Tensor, *, read: Tensor | None = None, **named: Any) -> Any:
    """Return the states of the tokens that are read, (1, R, D); of all where it is not said which are."""
    if read is None:
        return type(layer).forward(layer, hidden_states, **named)
    attended_1ND, _ = layer.self_attn(hidden_states=layer.input_layernorm(hidden_states), **named)
    hidden_1RD = hidden_states.index_select(1, read) + attended_1ND.index_select(1, read)
    return hidden_1RD + layer.mlp(layer.post_attention_layernorm(hidden_1RD))
