"""Shards by DeepSpeed's ZeRO-3: an engine cuts the layers and sums their gradients, and does nothing else.

Needs the package deepspeed (tried with 0.19.8). Policy and critic have an engine each, which `deepspeed.initialize`
makes from accelerate's configuration; accelerate 1.15 keeps one engine per `Accelerator`. An engine steps nothing: its
optimizer has no state, Adam steps its float32 shards from outside, and `written` brings them to the weights that it
computes with. The output embedding is used outside of the engine and is a DTensor, as with FSDP2.
"""

import copy
from collections.abc import Mapping
from typing import Any

import deepspeed
import torch
from deepspeed.utils import safe_get_local_fp32_param, safe_get_local_grad
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from transformers import LlamaForCausalLM

from alignment import fsdp, sharding
from finlm.errors import UserError


class EngineCut:
    """The cut of one weight: flat, in as many parts of one size as there are processes, zeros at the end."""

    def __init__(self, parameter: Any, engine: Any) -> None:
        self._parameter = parameter
        self._engine = engine
        self._processes = torch.distributed.get_world_size()

    def whole(self, here: Tensor) -> Tensor:
        """Put a tensor that is cut in this way together."""
        here = here.detach().to(self._engine.device).contiguous()
        parts = [torch.empty_like(here) for _ in range(self._processes)]
        torch.distributed.all_gather(parts, here)
        return torch.cat(parts)[: self._parameter.ds_numel].view(self._parameter.ds_shape)

    def here(self, whole: Tensor) -> Tensor:
        """Return this process's shard of a tensor."""
        size = -(-whole.numel() // self._processes)
        flat = torch.nn.functional.pad(whole.flatten(), (0, size * self._processes - whole.numel()))
        return flat[size * torch.distributed.get_rank() :][:size]

    def backward(self, loss: Tensor) -> None:
        """Run the engine's backward pass, which takes the mean of gradients over processes."""
        self._engine.backward(loss)
        self._engine.optimizer.zero_grad()  # the next backward pass begins anew; what this one left stays to be read

    def take_gradient(self) -> Tensor | None:
        """Return the gradient of the shard: the mean times the number of processes."""
        found: Tensor = safe_get_local_grad(self._parameter)
        return found * self._processes

    @torch.no_grad()
    def write(self, shard: Tensor) -> None:
        """Round the shard to the weights that the engine computes with."""
        self._parameter.ds_tensor.data.copy_(shard)


class Body(nn.Module):
    """An engine that answers as the model in it does, and has that model's configuration, not DeepSpeed's."""

    def __init__(self, engine: Any) -> None:
        super().__init__()
        self.engine = engine
        self.config = engine.module.config

    def forward(self, **inputs: Any) -> Any:
        """Return what the model in the engine returns."""
        return self.engine(**inputs)


class ZeRO:
    """Cuts models over all processes.

    Args:
        config: DeepSpeed's configuration, as accelerate read it.
        mesh: All processes.

    Raises:
        UserError: Another stage than 3, or offloading.
    """

    def __init__(self, config: Mapping[str, Any], mesh: DeviceMesh) -> None:
        settings = dict(config.get("zero_optimization", {}))
        if settings.get("stage") != 3:
            raise UserError(f"zero_stage is {settings.get('stage')}; PPO shards by 3: configs/accelerate/zero3.yaml.")
        for name in ("offload_optimizer", "offload_param"):
            device = (settings.pop(name, None) or {}).get("device", "none")
            if device != "none":
                raise UserError(f"{name}_device is {device}; PPO keeps its shards on the GPUs: set it to none.")
        self._config = {
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": 1,
            "gradient_clipping": 0.0,  # clipped over policy or critic with its head: alignment/sharding.py
            "zero_allow_untested_optimizer": True,
            "steps_per_print": 2**31,
            # a weight that stays whole beside its shard would not see what Adam writes into the shard
            "zero_optimization": settings | {"stage3_param_persistence_threshold": 0},
        }
        self._head = fsdp.FSDP(mesh, reshard=True)
        self._mesh = mesh
        self._cuts: list[tuple[EngineCut, sharding.Shard]] = []

    def shard(self, model: LlamaForCausalLM, dtype: torch.dtype, *, has_head: bool) -> dict[str, sharding.Shard]:
        """Cut a float32 model in place; see `alignment.fsdp.FSDP.shard`.

        Raises:
            UserError: The output embedding is the input embedding too.
        """
        if has_head and model.config.tie_word_embeddings:
            raise UserError(
                "The model's embeddings are tied; ZeRO-3 cuts each weight for one place: launch with "
                "--config_file configs/accelerate/fsdp2.yaml."
            )
        kept = fsdp.cut_head(model, self._mesh, has_head=has_head)
        body: Any = model.model
        config: dict[str, Any] = copy.deepcopy(self._config)
        if dtype == torch.bfloat16:
            config |= {
                "bf16": {"enabled": True},
                "communication_data_type": "fp32",
                "data_types": {"grad_accum_dtype": "fp32"},
            }
        engine, *_ = deepspeed.initialize(
            model=body, optimizer=torch.optim.SGD(body.parameters(), lr=0.0), config=config, dist_init_required=False
        )
        model.model = Body(engine)
        shards = {}
        for name, parameter in engine.module.named_parameters(prefix="model"):
            cut = EngineCut(parameter, engine)
            shards[name] = sharding.shard_of(safe_get_local_fp32_param(parameter), cut)
            self._cuts.append((cut, shards[name]))
        return shards | kept

    def gathered(self, head: sharding.Shard) -> Tensor:
        """Return an output embedding whole, (V, D), float32; its gradient comes back to the shards, summed."""
        return self._head.gathered(head)

    def written(self) -> None:
        """Compute with what was written into the shards."""
        for cut, shard in self._cuts:
            cut.write(shard)
