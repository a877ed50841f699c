"""The parts of a LLaMA's layer between its linear maps, each compiled into one kernel, for CUDA.

Norm, gate and rotation are passes over memory; eager torch makes eight to ten of each. Compiled one by one they need no
compilation per role or adapter, as whole layers would, and compile in seconds. What is computed is transformers' own.

Forward and backward are compiled apart. A pass with gradients so runs the kernels of a pass without, and gives the same
bits: PPO's first mini-batch has the very log-probabilities that were measured before.
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

from finlm import aligned_head


def _norm(hidden: Tensor, weight_D: Tensor, epsilon: float) -> Tensor:
    wide = hidden.float()
    wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)
    return weight_D * wide.to(hidden.dtype)


def _norm_backward(gradient: Tensor, hidden: Tensor, weight_D: Tensor, epsilon: float) -> Tensor:
    """With n = x / rms(x): dx = (g w - n mean(g w n)) / rms(x)."""
    wide = hidden.float()
    per_rms = torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)
    unit, scaled = wide * per_rms, gradient.float() * weight_D.float()
    return ((scaled - unit * (scaled * unit).mean(-1, keepdim=True)) * per_rms).to(hidden.dtype)


def _norm_weight_backward(gradient: Tensor, hidden: Tensor, weight_D: Tensor, epsilon: float) -> Tensor:
    wide = hidden.float()
    unit = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)
    return (gradient.float() * unit).flatten(0, -2).sum(0).to(weight_D.dtype)


def _gated(gate: Tensor, up: Tensor) -> Tensor:
    return torch.nn.functional.silu(gate) * up


def _gated_backward(gradient: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """With s = sigmoid(g): d silu(g) / dg = s (1 + g (1 - s))."""
    wide, gate32 = gradient.float(), gate.float()
    share = torch.sigmoid(gate32)
    of_gate = wide * up.float() * share * (1 + gate32 * (1 - share))
    return of_gate.to(gate.dtype), (wide * gate32 * share).to(up.dtype)


def _rotated(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    turned: tuple[Tensor, Tensor] = modeling_llama.apply_rotary_pos_emb(query, key, cos, sin, unsqueeze_dim=2)
    return turned


def _rotated_backward(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """A rotation's transpose turns back; `query` and `key` are the gradients of what was turned."""
    return _rotated(query, key, cos, -sin)


@cache
def _compiled(part: Callable[..., Any]) -> Callable[..., Any]:
    # not at import: torch's compiler takes a second to load, and a CPU never needs it
    return torch.compile(part, dynamic=True)


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight_D: Tensor, epsilon: float) -> Tensor:
        ctx.save_for_backward(hidden, weight_D)
        ctx.epsilon = epsilon
        out: Tensor = _compiled(_norm)(hidden, weight_D, epsilon)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        given = (gradients[0], *ctx.saved_tensors, ctx.epsilon)
        of_hidden = _compiled(_norm_backward)(*given) if ctx.needs_input_grad[0] else None
        return of_hidden, _compiled(_norm_weight_backward)(*given) if ctx.needs_input_grad[1] else None, None


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        out: Tensor = _compiled(_gated)(gate, up)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = _compiled(_gated_backward)(gradients[0], *ctx.saved_tensors)
        return found


class _Rotated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(cos, sin)
        turned: tuple[Tensor, Tensor] = _compiled(_rotated)(query, key, cos, sin)
        return turned

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        of_query, of_key = _compiled(_rotated_backward)(*gradients, *ctx.saved_tensors)
        return of_query, of_key, None, None


def gated(gate: Tensor, up: Tensor) -> Tensor:
    """Return silu(gate) up, in one kernel on CUDA; inside of something compiled, as part of that."""
    if torch.compiler.is_compiling() or not gate.is_cuda:
        return _gated(gate, up)
    out: Tensor = _Gated.apply(gate, up)  # type: ignore[no-untyped-call]
    return out


def rotated(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Return queries and keys (B, T, heads, width) turned by the rotary embedding, as `gated` computes."""
    if torch.compiler.is_compiling() or not query.is_cuda:
        return _rotated(query, key, cos, sin)
    turned: tuple[Tensor, Tensor] = _Rotated.apply(query, key, cos, sin)  # type: ignore[no-untyped-call]
    return turned


def install(model: LlamaForCausalLM) -> LlamaForCausalLM:
    """Let a model on CUDA compute so, its output head too; inside of something else that is compiled it stays as it
    was."""
    if model.get_input_embeddings().weight.device.type != "cuda":
        return model
    aligned_head.install(model.lm_head)
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
        else _Norm.apply(hidden_states, module.weight, module.variance_epsilon)  # type: ignore[no-untyped-call]
    )
    return out


def _mlp_forward(module: LlamaMLP, x: Tensor) -> Tensor:
    is_inside = torch.compiler.is_compiling()
    out: Tensor = (
        LlamaMLP.forward(module, x)
        if is_inside
        else module.down_proj(_Gated.apply(module.gate_proj(x), module.up_proj(x)))  # type: ignore[no-untyped-call]
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
        project(hidden_states).view(shape) for project in (module.q_proj, module.k_proj, module.v_proj)
    )
    query, key = _Rotated.apply(query, key, *position_embeddings)  # type: ignore[no-untyped-call]
    query, key, value = (part.transpose(1, 2) for part in (query, key, value))
    return attended(module, query, key, value, attention_mask, **named)


def attended(
    module: LlamaAttention, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **named: Any
) -> tuple[Tensor, Any]:
    """Attend as the model's configuration says and map the result out, (B, heads, T, width) -> (B, T, D), and weights.

    Args:
        module: The attention module.
        query: Turned by the rotary embedding.
        key: The same.
        value: As it was mapped.
        attention_mask: For the attention function.
        named: What it takes besides.
    """
    attend = ALL_ATTENTION_FUNCTIONS.get_interface(
        module.config._attn_implementation, modeling_llama.eager_attention_forward
    )
    out, weights = attend(module, query, key, value, attention_mask, scaling=module.scaling, **named)
    return module.o_proj(out.reshape(*out.shape[:2], -1)), weights
