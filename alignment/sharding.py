"""Weights in shards, seen as plain float32 tensors: what each process holds, trains and keeps.

FSDP2 (`alignment/fsdp.py`) and ZeRO-3 (`alignment/zero.py`) cut the weights and put them together for a pass; the
gradients they leave are sums over processes. From there on a shard is a parameter like any other: Adam steps it, a
snapshot copies it. What must be known of it is that its gradients are summed already and that a norm over it is a part
of a norm, and, for files, how it becomes whole.
"""

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from alignment.processes import Processes


class Cut(Protocol):
    """How one weight is cut over the processes."""

    def whole(self, here: Tensor) -> Tensor:
        """Put a tensor that is cut in this way together; all processes must call this."""
        ...

    def here(self, whole: Tensor) -> Tensor:
        """Return this process's shard of a tensor."""
        ...

    def backward(self, loss: Tensor) -> None:
        """Run the backward pass of the model that the weight belongs to."""
        ...

    def take_gradient(self) -> Tensor | None:
        """Return what the backward pass left for this shard, summed over processes, and forget it."""
        ...


class Shard(nn.Parameter):
    """This process's shard of a weight, float32, in the memory that its model computes from.

    Attributes:
        cut: How the weight is cut.
    """

    cut: Cut


def shard_of(here: Tensor, cut: Cut) -> Shard:
    """Return a shard in the memory of `here`."""
    shard = Shard(here.detach())
    shard.cut = cut
    return shard


def whole(tensor: Tensor, parameter: Tensor) -> Tensor:
    """Return a parameter, or something of its shape that an optimizer keeps, whole."""
    if isinstance(parameter, Shard) and tensor.shape == parameter.shape:
        return parameter.cut.whole(tensor)
    return tensor


def here(tensor: Tensor, parameter: Tensor) -> Tensor:
    """Return this process's part of what `whole` put together."""
    return parameter.cut.here(tensor) if isinstance(parameter, Shard) and tensor.dim() else tensor


def gradients(loss: Tensor, parameters: Sequence[nn.Parameter]) -> tuple[Tensor | None, ...]:
    """Return a loss's gradients: shards' summed over processes, others' as this process has them."""
    before = [parameter.grad for parameter in parameters]
    for parameter in parameters:
        parameter.grad = None
    cuts = [parameter.cut for parameter in parameters if isinstance(parameter, Shard)]
    cuts[0].backward(loss)
    found = [one.cut.take_gradient() if isinstance(one, Shard) else one.grad for one in parameters]
    for parameter, gradient in zip(parameters, before, strict=True):
        parameter.grad = gradient
    return tuple(found)


def clip_norm(parameters: Sequence[nn.Parameter], processes: Processes, *, clip: float) -> float:
    """Clip the gradients of all parameters together, shards of all processes included; return the norm before.

    Args:
        parameters: Shards, and parameters that are whole, with equal gradients, on every process.
        processes: All of them.
        clip: The norm to clip to; 0 clips nothing.
    """
    shards = _square_sum([one.grad for one in parameters if isinstance(one, Shard)])
    wholes = _square_sum([one.grad for one in parameters if not isinstance(one, Shard)])
    norm = math.sqrt(processes.sum(shards) + wholes)
    if clip and norm > clip:
        torch._foreach_mul_([one.grad for one in parameters if one.grad is not None], clip / (norm + 1e-6))
    return norm


def _square_sum(gradients: Sequence[Tensor | None]) -> float:
    norms = [torch.linalg.vector_norm(gradient).double() for gradient in gradients if gradient is not None]
    return float(torch.stack(norms).square().sum()) if norms else 0.0
