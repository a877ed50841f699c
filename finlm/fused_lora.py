"""A linear map with its LoRA adapter in four products, for CUDA in half precision.

PEFT keeps adapters in float32 beside a bfloat16 base, and casts the input and the sum to match: passes over memory that
cost more than the adapter itself, and a float32 copy of every input kept for the backward pass. Here the adapter is
cast instead, which is small; its own float32 weights stay what the optimizer steps on, and their gradients are summed
in float32.
"""

from types import MethodType
from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn

HALF = (torch.bfloat16, torch.float16)


class _Adapted(torch.autograd.Function):
    """y = x W^T + bias + s (x A^T) B^T, with gradients for x, A and B; W is frozen. Hu et al. 2021, section 4.1."""

    @staticmethod
    def forward(
        ctx: Any, x_NI: Tensor, weight_OI: Tensor, bias_O: Tensor | None, a_RI: Tensor, b_OR: Tensor, scaling: float
    ) -> Tensor:
        a, b = a_RI.to(x_NI.dtype), b_OR.to(x_NI.dtype)
        low_NR = x_NI @ a.T
        out_NO = nn.functional.linear(x_NI, weight_OI, bias_O)
        out_NO.addmm_(low_NR, b.T, alpha=scaling)
        ctx.save_for_backward(x_NI, weight_OI, a, b, low_NR)
        ctx.scaling = scaling
        return out_NO

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient_NO,) = gradients
        x_NI, weight_OI, a, b, low_NR = ctx.saved_tensors
        of_low_NR = (gradient_NO @ b).mul_(ctx.scaling)
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = (gradient_NO @ weight_OI).addmm_(of_low_NR, a)
        of_a = product(of_low_NR.T, x_NI) if ctx.needs_input_grad[3] else None
        of_b = product(gradient_NO.T, low_NR).mul_(ctx.scaling) if ctx.needs_input_grad[4] else None
        return of_x, None, None, of_a, of_b, None


def product(left: Tensor, right: Tensor) -> Tensor:
    """Return the matrix product in float32 of matrices in half precision, without rounding it to theirs on the way."""
    if left.device.type == "cuda" and left.dtype in HALF:
        return torch.mm(left, right, out_dtype=torch.float32)
    return left.float() @ right.float()


def adapted(x: Tensor, layer: LoraLinear, name: str) -> Tensor:
    """Return what the layer gives with one adapter on, (…, I) -> (…, O).

    Args:
        x: The input, in the base's dtype.
        layer: PEFT's linear map; the adapter has neither dropout nor bias.
        name: The adapter.
    """
    base = layer.get_base_layer()
    lower, upper, scaling = layer.lora_A[name].weight, layer.lora_B[name].weight, layer.scaling[name]
    out_NO: Tensor = _Adapted.apply(x.flatten(0, -2), base.weight, base.bias, lower, upper, scaling)  # type: ignore[no-untyped-call]
    return out_NO.view(*x.shape[:-1], -1)


def can_fuse(layer: LoraLinear, x: Tensor) -> bool:
    """True if the layer with the adapter that is on does just what `adapted` does."""
    names = layer.active_adapters
    if layer.merged or len(names) != 1 or names[0] not in layer.lora_A or names[0] in layer.lora_variant:
        return False
    return (
        x.dtype in HALF
        and x.dtype == layer.get_base_layer().weight.dtype
        and isinstance(layer.lora_dropout[names[0]], nn.Identity)
        and layer.lora_B[names[0]].bias is None
        and not layer.get_base_layer().weight.requires_grad
    )


def install(model: nn.Module) -> None:
    """Let every adapted linear map of a model on CUDA compute so; whatever `can_fuse` refuses goes PEFT's way."""
    for layer in model.modules():
        if isinstance(layer, LoraLinear) and layer.get_base_layer().weight.device.type == "cuda":
            layer.forward = MethodType(_forward, layer)


def _forward(layer: LoraLinear, x: Tensor, *given: Any, **named: Any) -> Tensor:
    out: Tensor
    if given or named or torch.compiler.is_compiling():
        out = LoraLinear.forward(layer, x, *given, **named)
    elif layer.disable_adapters and not layer.merged:
        out = layer.get_base_layer()(x)
    elif can_fuse(layer, x):
        out = adapted(x, layer, layer.active_adapters[0])
    else:
        out = LoraLinear.forward(layer, x)
    return out
