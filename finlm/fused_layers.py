"""The parts of a LLaMA's layer between its linear maps, each compiled into one kernel, for CUDA.

Norm, gate and rotation are passes over memory; eager torch makes eight to ten of each. Compiled one by one they need no
compilation per role or adapter, as whole layers would, and compile in seconds. What is computed is transformers' own.
"""

from collections.abc import Callable
from functools import cache
from types import MethodType
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaForCausalLM
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama import modeling_llama
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaMLP, LlamaRMSNorm


def _norm(hidden: Tensor, weight_D: Tensor, epsilon: float) -> Tensor:
    wide = hidden.float()
    wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)
    return weight_D * wide.to(hidden.dtype)


def _gated(gate: Tensor, up: Tensor) -> Tensor:
    return torch.nn.functional.silu(gate) * up


def _rotated(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    turned: tuple[Tensor, Tensor] = modeling_llama.apply_rotary_pos_emb(query, key, cos, sin)
    return turned


@cache
def _compiled(part: Callable[..., Any]) -> Callable[..., Any]:
    # not at import: torch's compiler takes a second to load, and a CPU never needs it
    return torch.compile(part, dynamic=True)


def install(model: LlamaForCausalLM) -> LlamaForCausalLM:
    """Let a model on CUDA compute so; inside of something else that is compiled it stays as it was."""
    if model.get_input_embeddings().weight.device.type != "cuda":
        return model
    return fuse(model)


def fuse(model: LlamaForCausalLM) -> LlamaForCausalLM:
    """Do what `install` does, on any device."""
    for module in model.modules():
        if isinstance(module, LlamaRMSNorm):
            module.forward = MethodType(_norm_forward, module)
        elif isinstance(module, LlamaMLP) and module.config.hidden_act == "silu":
            module.forward = MethodType(_mlp_forward, module)
        elif isinstance(module, LlamaAttention):
            module.forward = MethodType(_attention_forward, module)
    return model


def _norm_forward(module: LlamaRMSNorm, hidden_states: Tensor) -> Tensor:
    is_inside = torch.compiler.is_compiling()
    out: Tensor = (
        LlamaRMSNorm.forward(module, hidden_states)
        if is_inside
        else _compiled(_norm)(hidden_states, module.weight, module.variance_epsilon)
    )
    return out


def _mlp_forward(module: LlamaMLP, x: Tensor) -> Tensor:
    is_inside = torch.compiler.is_compiling()
    out: Tensor = (
        LlamaMLP.forward(module, x)
        if is_inside
        else module.down_proj(_compiled(_gated)(module.gate_proj(x), module.up_proj(x)))
    )
    return out


def _attention_forward(
    module: LlamaAttention,
    hidden_states: Tensor,
    position_embeddings: tuple[Tensor, Tensor],
    attention_mask: Tensor | None = None,
    past_key_values: Any = None,
    **named: Any,
) -> tuple[Tensor, Any]:
    if past_key_values is not None or torch.compiler.is_compiling():
        given: tuple[Tensor, Any] = LlamaAttention.forward(
            module, hidden_states, position_embeddings, attention_mask, past_key_values, **named
        )
        return given
    shape = (*hidden_states.shape[:-1], -1, module.head_dim)
    query, key, value = (
        project(hidden_states).view(shape).transpose(1, 2) for project in (module.q_proj, module.k_proj, module.v_proj)
    )
    query, key = _compiled(_rotated)(query, key, *position_embeddings)
    attend = ALL_ATTENTION_FUNCTIONS.get_interface(
        module.config._attn_implementation, modeling_llama.eager_attention_forward
    )
    out, weights = attend(module, query, key, value, attention_mask, scaling=module.scaling, **named)
    return module.o_proj(out.reshape(*hidden_states.shape[:-1], -1)), weights
