"""The four roles in the layout that the settings name, cut as accelerate's configuration says."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from peft import LoraConfig
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy
from transformers import LlamaForCausalLM
from transformers.integrations import unset_hf_deepspeed_config

from alignment.fsdp import FSDP
from alignment.full_roles import FullRoles, Sharder
from alignment.layouts import Layout, reward_adapter
from alignment.ppo_config import PPOConfig
from alignment.roles import Roles, copy_adapter
from finlm import scorer, unpadded
from finlm.errors import UserError


def roles_of(
    model: LlamaForCausalLM,
    rewards: Sequence[str | Path],
    lora: LoraConfig | None,
    args: PPOConfig,
    accelerator: Accelerator,
) -> Layout:
    """Make policy, critic, reward models and reference.

    Args:
        model: The fine-tuned model; it becomes part of what is made.
        rewards: Folders of the reward models; the critic begins as the first.
        lora: The policy's adapter; not used where the layout is full.
        args: PPO's settings.
        accelerator: The processes, and how a full layout is cut over them.

    Raises:
        UserError: Reward model and base do not fit, or settings and accelerate's configuration do not.
    """
    if args.ptx_coef:  # what is mixed in comes packed
        unpadded.install(model, for_packed=True)
    reward, *more = rewards
    if args.layout == "full":
        return FullRoles(
            model,
            reward,
            more_rewards=more,
            sharder=sharder_of(accelerator, args),
            gradient_checkpointing=args.gradient_checkpointing,
        )
    if lora is None:
        raise UserError(
            "layout is 'adapters', but there is no peft_config for the policy; give one, or set it to full."
        )
    if scorer.is_whole(reward):
        # as a whole model it is a second base; the critic is an adapter like the policy's, and zero at the start
        judge = scorer.load_body(reward, dtype=model.dtype, device=model.device)
        roles = Roles(model, policy=lora, critic=copy.deepcopy(lora), reward=lora, judge=judge)
        if args.gradient_checkpointing:
            roles.checkpoint_gradients()
        return roles
    critic = scorer.lora_of(reward)
    further = [scorer.lora_of(folder) for folder in more]
    roles = Roles(model, policy=lora, critic=critic, reward=critic, more_rewards=further)
    for member, folder in enumerate(rewards):
        scorer.load_adapter_weights(roles.model, folder, reward_adapter(member))
    copy_adapter(roles, "reward", "critic")
    if args.gradient_checkpointing:
        roles.checkpoint_gradients()
    return roles


def keep_models_whole(accelerator: Accelerator) -> None:
    """Have transformers load and sample models as if there were no DeepSpeed: with ZeRO-3 in accelerate's configuration
    it would cut every model that it loads, and let processes wait for each other at each sampled token."""
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        unset_hf_deepspeed_config()


def sharder_of(accelerator: Accelerator, args: PPOConfig) -> Sharder | None:
    """Return what cuts full models, by FSDP2 unless accelerate is configured otherwise; None for one process alone.

    Raises:
        UserError: A configuration that PPO does not train with, or mixed-in rows that do not divide.
    """
    if not torch.distributed.is_initialized():
        return None
    check_even(args, accelerator.num_processes)
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        keep_models_whole(accelerator)
        from alignment.zero import ZeRO  # deepspeed is installed only where it is used

        sharder: Sharder = ZeRO(accelerator.state.deepspeed_plugin.deepspeed_config, mesh)
        return sharder
    if accelerator.distributed_type != DistributedType.FSDP:
        return FSDP(mesh, reshard=True)
    plugin = accelerator.state.fsdp_plugin
    check_fsdp(plugin)
    return FSDP(mesh, reshard=bool(plugin.reshard_after_forward))


def check_even(args: PPOConfig, processes: int) -> None:
    """Check that all processes will run as many passes.

    Raises:
        UserError: The mixed-in rows do not divide by the processes, or tokens bound a pass.
    """
    if args.micro_batch_tokens:
        raise UserError(
            f"micro_batch_tokens is {args.micro_batch_tokens}, which gives each process passes of its own number; with "
            "layout 'full' all must run the same passes: set it to 0 and per_device_train_batch_size to what fits."
        )
    if args.ptx_coef and args.ptx_rows % processes:
        raise UserError(
            f"ptx_rows is {args.ptx_rows}, which {processes} processes cannot share evenly; with layout 'full' all "
            f"must run the same passes: take a multiple of {processes}."
        )


def check_fsdp(plugin: Any) -> None:
    """Check accelerate's configuration of FSDP.

    Raises:
        UserError: It is of version 1, or offloads.
    """
    if plugin.fsdp_version != 2:
        raise UserError(f"fsdp_version is {plugin.fsdp_version}; PPO shards by 2: configs/accelerate/fsdp2.yaml.")
    if isinstance(plugin.cpu_offload, CPUOffloadPolicy):
        raise UserError("fsdp_offload_params is true; PPO keeps its shards on the GPUs: set it to false.")
