"""The layers below every adapter, run once for all who share them.

Models that differ by LoRA adapters alone agree on the hidden states that enter the lowest adapted layer. PPO reads each
answer as policy, reference, critic and reward model, and again in every epoch; with adapters on the top ten of thirty
layers two thirds of each of these passes are the same numbers.
"""

import copy
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaModel

from finlm.unpadded import hidden_states


class Trunk:
    """A model in two parts, its layers shared: below the lowest adapter, and from there on.

    Attributes:
        depth: Number of layers below every adapter; 0 where an adapter sits on the first layer or on the embedding.
    """

    def __init__(self, model: PeftModel) -> None:
        llama = model.get_base_model().model
        self.depth = _layers_without_adapters(llama)
        self._lower = _part(llama, slice(0, self.depth), norm=nn.Identity())
        self._upper = _part(llama, slice(self.depth, None), norm=llama.norm)

    @torch.no_grad()
    def states(self, ids_BT: Tensor, is_token_BT: Tensor) -> Tensor:
        """Return the states (B, T, D) that enter the lowest adapted layer; rows are padded on the right."""
        return hidden_states(self._lower, is_token_BT, input_ids=ids_BT)

    def finish(self, states_BTD: Tensor, is_token_BT: Tensor) -> Tensor:
        """Return the hidden states (B, T, D) after the final norm, under whatever adapter is on."""
        return hidden_states(self._upper, is_token_BT, inputs_embeds=states_BTD)


def _layers_without_adapters(llama: Any) -> int:
    if _has_adapter(llama.embed_tokens):
        return 0
    for depth, layer in enumerate(llama.layers):
        if _has_adapter(layer):
            return depth
    return len(llama.layers)


def _has_adapter(module: nn.Module) -> bool:
    return any(isinstance(part, BaseTunerLayer) for part in module.modules())


def _part(llama: Any, which: slice, *, norm: nn.Module) -> LlamaModel:
    """Return a model of some of the layers: the same modules, not copies."""
    layers = llama.layers[which]
    config = copy.deepcopy(llama.config)
    config.num_hidden_layers = len(layers)
    with torch.device("meta"):
        part = LlamaModel(config)
    part.embed_tokens, part.layers, part.norm, part.rotary_emb = llama.embed_tokens, layers, norm, llama.rotary_emb
    return part
