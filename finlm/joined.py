"""Linear maps that read the same input as one: query, key and value; gate and up. For a copy that samples.

Writing one token an answer, every map is a pass over its weights; a few long passes come closer to the memory's
bandwidth than many short ones. The maps keep their own names and weights, which become views of the joint one.
"""

from collections.abc import Sequence
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaMLP

from finlm import fused_layers


def join(model: LlamaForCausalLM, own: Sequence[nn.Linear]) -> None:
    """Join the maps of every layer where all of them are `own`, that is, shared with no other model, without bias."""
    movable = {id(linear) for linear in own if linear.bias is None}
    for layer in model.model.layers:
        _join(layer.self_attn, ("q_proj", "k_proj", "v_proj"), movable, _attention_forward)
        if layer.mlp.config.hidden_act == "silu":
            _join(layer.mlp, ("gate_proj", "up_proj"), movable, _mlp_forward)


def _join(module: nn.Module, names: Sequence[str], movable: set[int], forward: Any) -> None:
    parts = [getattr(module, name) for name in names]
    if not all(id(part) in movable for part in parts):
        return
    weight_OI = torch.cat([part.weight for part in parts])
    sizes = [part.out_features for part in parts]
    for part, view_OI in zip(parts, torch.split(weight_OI, sizes), strict=True):
        part.weight = nn.Parameter(view_OI, requires_grad=False)
    module.joint_weight = weight_OI
    module.__dict__["joint_sizes"] = sizes
    module.forward = MethodType(forward, module)


def _mlp_forward(module: LlamaMLP, x: Tensor) -> Tensor:
    gate, up = torch.split(nn.functional.linear(x, module.joint_weight), module.joint_sizes, dim=-1)
    out: Tensor = module.down_proj(fused_layers.gated(gate, up))
    return out


def _attention_forward(
    module: LlamaAttention,
    hidden_states: Tensor,
    position_embeddings: tuple[Tensor, Tensor],
    attention_mask: Tensor | None = None,
    past_key_values: Any = None,
    **named: Any,
) -> tuple[Tensor, Any]:
    assert past_key_values is None, "the engine keeps its own cache"
    both = hidden_states.shape[:-1]
    joint = torch.split(nn.functional.linear(hidden_states, module.joint_weight), module.joint_sizes, dim=-1)
    query, key, value = (part.view(*both, -1, module.head_dim) for part in joint)
    query, key = fused_layers.rotated(query, key, *position_embeddings)
    query, key, value = (part.transpose(1, 2) for part in (query, key, value))
    return fused_layers.attended(module, query, key, value, attention_mask, **named)
