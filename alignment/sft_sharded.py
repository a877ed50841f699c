"""What fine-tuning must do where accelerate cuts the model into shards (FSDP2, or DeepSpeed's ZeRO-3).

Passes need nothing: the loss is the model's own forward (`finlm/packed_loss.py`). Here is the rest: in which dtype
shards of float32 weights are gathered and their gradients summed, and how the trained weights come together to be
saved. Checkpoints, their optimizer states included, are accelerate's, whole, written by the main process.
"""

import math
from typing import Any

import torch
from accelerate.utils import DistributedType
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy
from transformers import Trainer

from finlm.errors import UserError

SAVES = "stage3_gather_16bit_weights_on_model_save"


def prepare(trainer: Trainer, dtype: torch.dtype) -> None:
    """Have what cuts the model gather it in a dtype and sum gradients in float32; before it does so.

    Under FSDP2 an adapter beside a frozen base needs none of it: it is small, float32, and casts itself.
    """
    state = trainer.accelerator.state
    if trainer.is_fsdp_enabled and not hasattr(trainer.model, "peft_config"):
        policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
        state.fsdp_plugin.mixed_precision_policy = policy
    if trainer.is_deepspeed_enabled:
        config = state.deepspeed_plugin.deepspeed_config
        if config.get("zero_optimization", {}).get("stage") == 3 and not config["zero_optimization"].get(SAVES):
            raise UserError(f"DeepSpeed's {SAVES} is off, so that no model could be saved: set zero3_save_16bit_model.")
        # one dtype for all weights, adapters too; float32 ones of what learns are kept by its optimizer
        config |= {
            "bf16": {"enabled": dtype == torch.bfloat16},
            "communication_data_type": "fp32",
            "data_types": {"grad_accum_dtype": "fp32"},
        }


def check_norm(norm: float, step: int) -> None:
    """Stop at a norm of gradients that is not finite: DeepSpeed steps before a callback sees them.

    Raises:
        UserError: It is not.
    """
    if not math.isfinite(norm):
        raise UserError(
            f"The gradients' norm at step {step} is {norm}; the checkpoints keep the weights from before. Lower "
            "learning_rate, or look for damaged weights in the model."
        )


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
