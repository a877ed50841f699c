"""Shards by FSDP2: `fully_shard` for the layers, a DTensor for the output embedding.

torch's own functions are called here, on the processes that accelerate started and with the settings of its
configuration. accelerate 1.15 prepares an FSDP2 model together with its optimizer, whose parameters it exchanges, and
averages gradients over processes. Here two models are trained side by side and losses are divided by the tokens of all
processes beforehand, so that gradients are summed; and the output embedding is used in chunks, outside of any module's
forward pass, where FSDP2's hooks would not see it.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Partial, distribute_tensor
from torch.distributed.tensor import Shard as Along
from transformers import LlamaForCausalLM

from alignment import sharding


@dataclass(frozen=True, slots=True)
class DTensorCut:
    """The cut of one DTensor, along its first axis."""

    source: DTensor
    """The parameter that FSDP2 and autograd know."""

    def whole(self, here: Tensor) -> Tensor:
        """Put a tensor that is cut in this way together."""
        source = self.source
        joined = DTensor.from_local(
            here.detach().to(source.device),
            source.device_mesh,
            source.placements,
            run_check=False,
            shape=source.shape,
            stride=source.stride(),
        )
        return joined.full_tensor()

    @torch.no_grad()
    def here(self, whole: Tensor) -> Tensor:
        """Return this process's shard of a tensor."""
        whole = whole.to(self.source.device)
        cut = distribute_tensor(whole, self.source.device_mesh, self.source.placements, src_data_rank=None)
        return cut.to_local()

    def backward(self, loss: Tensor) -> None:
        """Run autograd; FSDP2 sums gradients over processes on the way."""
        loss.backward()  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def take_gradient(self) -> Tensor | None:
        """Return the gradient of the shard, and forget it."""
        gradient, self.source.grad = self.source.grad, None
        return gradient.to_local() if isinstance(gradient, DTensor) else gradient


class FSDP:
    """Cuts models for a mesh of processes.

    Args:
        mesh: All processes.
        reshard: Free each layer's whole weights after its forward pass and gather them again in the backward pass.
    """

    def __init__(self, mesh: DeviceMesh, *, reshard: bool) -> None:
        self._mesh = mesh
        self._reshard = reshard

    def shard(self, model: LlamaForCausalLM, dtype: torch.dtype, *, has_head: bool) -> dict[str, sharding.Shard]:
        """Cut a model in place and free what is whole of it; its body keeps its place and computes as before.

        Args:
            model: The model, in float32.
            dtype: Of the computation.
            has_head: True cuts the output embedding too; False drops it.

        Returns:
            The shards by their weights' names in a whole model; a tied output embedding has no name of its own.
        """
        policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
        body: Any = model.model
        for layer in body.layers:
            fully_shard(layer, mesh=self._mesh, mp_policy=policy, reshard_after_forward=self._reshard)
        fully_shard(body, mesh=self._mesh, mp_policy=policy, reshard_after_forward=self._reshard)
        for module in body.modules():
            if isinstance(module, FSDPModule):
                # a sum, not a mean; without the second line torch asks for an operation that gloo does not have
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)
        head = cut_head(model, self._mesh, has_head=has_head)
        return {name: _shard(source) for name, source in body.named_parameters(prefix="model")} | head

    def written(self) -> None:
        """Do nothing: a pass gathers the shards themselves."""

    def gathered(self, head: sharding.Shard) -> Tensor:
        """Return an output embedding whole, (V, D), float32; its gradient comes back to the shards, summed."""
        cut = head.cut
        assert isinstance(cut, DTensorCut)
        return cut.source.full_tensor(grad_placements=[Partial()])


def cut_head(model: LlamaForCausalLM, mesh: DeviceMesh, *, has_head: bool) -> dict[str, sharding.Shard]:
    """Take the output embedding off a model; return its shard by its name, nothing where it is tied or not wanted."""
    weight_VD, model.lm_head = model.lm_head.weight, nn.Identity()
    if not has_head or model.config.tie_word_embeddings:
        return {}
    source = distribute_tensor(weight_VD.detach(), mesh, [Along(0)], src_data_rank=None)
    return {"lm_head.weight": _shard(nn.Parameter(source))}


@torch.no_grad()
def _shard(source: Any) -> sharding.Shard:
    return sharding.shard_of(source.to_local(), DTensorCut(source))
