"""What fine-tuning must do where accelerate cuts the model into shards (FSDP2, or DeepSpeed's ZeRO-3).

Passes need nothing: the loss is the model's own forward (`finlm/packed_loss.py`). Here is the rest: in which dtype
shards of float32 weights are gathered and their gradients summed, and how the trained weights come together to be
saved. Checkpoints, their optimizer states included, are accelerate's, whole, written by the main process.
"""

from typing import Any

import torch
from accelerate.utils import DistributedType
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy
from transformers import Trainer


def compute_in(accelerator: Any, dtype: torch.dtype) -> None:
    """Have FSDP2 gather the weights in a dtype, and sum their gradients in float32.

    An adapter beside a frozen base needs none of it: it is small, float32, and casts itself.
    """
    plugin = accelerator.state.fsdp_plugin
    plugin.mixed_precision_policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)


def whole(trainer: Trainer) -> dict[str, Tensor] | None:
    """Return the weights that learn, whole and by name, on the main process (elsewhere nothing); all call this.

    None where the model is not cut: not at all, or not yet.
    """
    model: Any = trainer.model
    has_adapter = hasattr(model, "peft_config")
    kind = trainer.accelerator.distributed_type
    if kind == DistributedType.DEEPSPEED and trainer.deepspeed is not None:
        return dict(trainer.deepspeed._zero3_consolidated_16bit_state_dict(exclude_frozen_parameters=has_adapter) or {})
    is_cut = isinstance(model, FSDPModule)
    if not is_cut:
        return None
    options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=has_adapter)
    found: Any = get_model_state_dict(model, options=options)
    return dict(found)
