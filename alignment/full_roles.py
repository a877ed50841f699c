"""Whole models for the four roles: policy and critic train all their weights, over several GPUs in shards.

    policy       float32 weights, a copy of the fine-tuned model
    critic       float32 weights, a copy of the reward model: its adapter merged once, in float32
    reference    the fine-tuned model, frozen, in its own dtype
    reward       the same frozen model with the reward adapter on: three bodies for four roles; a fourth body, frozen
                 too, where the reward model is a whole one
    sampled      the policy in the frozen model's dtype, whole on every process, from which it answers

Policy and critic compute in the frozen model's dtype and keep their weights, gradients and Adam's moments in float32,
16 bytes a weight. With N weights and K processes, bfloat16, each holds 32 N / K bytes of these, 2 N of the frozen model
and 2 N of `sampled`: 51 GB with the 6B on eight GPUs, activations not counted.

One process that was started alone shards nothing; it must compute in float32, and answers from the policy itself.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase
from transformers.modeling_layers import GradientCheckpointingLayer

from alignment.layouts import Role, reward_adapter
from alignment.sharding import Shard, gradients, whole
from finlm import likelihood, scorer
from finlm.adapters import AdapterSwitch
from finlm.errors import UserError


class Sharder(Protocol):
    """What cuts models: `alignment.fsdp.FSDP` or `alignment.zero.ZeRO`."""

    def shard(self, model: LlamaForCausalLM, dtype: torch.dtype, *, has_head: bool) -> dict[str, Shard]:
        """Cut a float32 model in place, to compute in `dtype`; return the shards by the names of their weights."""
        ...

    def gathered(self, head: Shard) -> Tensor:
        """Return an output embedding whole, (V, D); its gradient comes back to the shards, summed."""
        ...

    def written(self) -> None:
        """Compute with what was written into the shards."""
        ...


class FullRoles:
    """Three models that take four roles; see `alignment.layouts.Layout`.

    Args:
        base: The fine-tuned model; it becomes the frozen one.
        reward: Folder of the reward model, an adapter on that base or a whole model.
        more_rewards: Folders of further reward models on that base.
        sharder: What cuts policy and critic; None leaves both whole.
        gradient_checkpointing: Recompute activations in the backward pass.

    Attributes:
        device: Where the models compute.
        trunk: None: no layers are shared.
        is_sharded: True if there is a sharder.
        sampled: The model that answers.

    Raises:
        UserError: One process and another dtype than float32, dropout in the model, or a reward model of another base.
    """

    trunk = None

    def __init__(
        self,
        base: LlamaForCausalLM,
        reward: str | Path,
        *,
        more_rewards: Sequence[str | Path] = (),
        sharder: Sharder | None = None,
        gradient_checkpointing: bool = False,
    ) -> None:
        if sharder is None and base.dtype != torch.float32:
            raise UserError(
                f"layout is 'full' with dtype {str(base.dtype).removeprefix('torch.')} in one process; float32 weights "
                "beside it need shards: accelerate launch --config_file configs/accelerate/fsdp2.yaml "
                "alignment/ppo.py, or set dtype to float32."
            )
        if base.config.attention_dropout:
            raise UserError(
                f"The model's attention_dropout is {base.config.attention_dropout}; PPO needs 0: ratios would be noise."
            )
        self.device, self.is_sharded = base.device, sharder is not None
        self._dtype, self._sharder = base.dtype, sharder
        self._checkpoints = gradient_checkpointing
        # one after the other: whole in float32 each takes 25.6 GB with the 6B, until it is cut
        self._critic, critic = self._trainable(reward_weights(base, reward), has_head=False)
        self._policy, policy = self._trainable(copy.deepcopy(base).float(), has_head=True)
        self._trained: dict[str, dict[str, nn.Parameter]] = {"policy": policy, "critic": critic}
        tied = "model.embed_tokens.weight" if base.config.tie_word_embeddings else "lm_head.weight"
        self._head_VD = policy[tied]
        self.sampled = self._policy if sharder is None else copy.deepcopy(base).requires_grad_(False).eval()
        self._frozen: PeftModel | LlamaForCausalLM = base
        self._judge: PeftModel | LlamaForCausalLM
        if scorer.is_whole(reward):
            self._judge = scorer.load_body(reward, dtype=self._dtype, device=self.device)
        else:
            self._judge = self._frozen = with_adapters(base, (reward, *more_rewards))
        for body in (self._frozen, self._judge):
            body.requires_grad_(False).eval()
        self._switch = AdapterSwitch(self._frozen)
        self._frozen_head_VD = likelihood.output_head(base)
        self._role: Role = "policy"
        self._is_sampling = False

    def _trainable(self, model: LlamaForCausalLM, *, has_head: bool) -> tuple[Any, dict[str, nn.Parameter]]:
        """Return a model that trains, cut if there is a sharder, and its weights or shards by name."""
        model.requires_grad_(True)
        for layer in model.modules():
            if self._checkpoints and isinstance(layer, GradientCheckpointingLayer):
                layer.gradient_checkpointing = True
                layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
        # transformers checkpoints in training mode only; without dropout nothing else differs in it
        model.train(self._checkpoints)
        if self._sharder is not None:
            return model, dict(self._sharder.shard(model, self._dtype, has_head=has_head))
        if not has_head:
            model.lm_head = nn.Identity()
        return model, dict(model.named_parameters())

    # ------------------------------------------------------------------------------------------ the role that is on

    @property
    def model(self) -> Any:
        """The model of the role that is on."""
        if self._is_sampling:
            return self.sampled
        bodies = {"policy": self._policy, "critic": self._critic, "reward": self._judge, "reference": self._frozen}
        return bodies[self._role]

    @property
    def head_VD(self) -> Tensor:
        """Output embedding of the role that is on; the policy's is put together anew each time and carries gradient."""
        if self._is_sampling and self.is_sharded:
            return likelihood.output_head(self.sampled)
        if self._role != "policy":
            return self._frozen_head_VD
        head_VD: Tensor = self._head_VD
        if self._sharder is not None and isinstance(self._head_VD, Shard):
            head_VD = self._sharder.gathered(self._head_VD).to(self._dtype)
        return head_VD if self.device.type == "cuda" else head_VD.float()

    @contextmanager
    def __call__(self, role: Role, member: int = 0) -> Iterator[None]:
        """Put a role on for the `with` block; `member` tells which reward model."""
        before, self._role = (self._role, self._is_sampling), role
        self._is_sampling = False
        try:
            with self._switch(reward_adapter(member) if role == "reward" else None):
                yield
        finally:
            self._role, self._is_sampling = before

    # ------------------------------------------------------------------------------------------ sampling

    @torch.no_grad()
    def refresh(self) -> None:
        """Round the policy's weights to the dtype it computes in, and put them together on every process."""
        if not self.is_sharded:
            return
        targets = dict(self.sampled.named_parameters())
        for name, parameter in self._trained["policy"].items():
            targets[name].copy_(whole(parameter, parameter))

    @contextmanager
    def sampling(self) -> Iterator[None]:
        """Put the policy on as the last `refresh` left it."""
        with self("policy"):
            self._is_sampling = True
            self.sampled.eval()  # in training mode checkpointing takes the cache away
            try:
                yield
            finally:
                self.sampled.train(self._checkpoints and not self.is_sharded)

    # ------------------------------------------------------------------------------------------ training

    def parameters(self, role: Literal["policy", "critic"]) -> dict[str, nn.Parameter]:
        """Return a role's weights, or this process's shards of them, by role and name."""
        return {f"{role}.{name}": parameter for name, parameter in self._trained[role].items()}

    def gradients(self, loss: Tensor, parameters: list[nn.Parameter]) -> tuple[Tensor | None, ...]:
        """Return the gradients of a loss in the order of its role's parameters; shards' are sums over processes."""
        if not self.is_sharded:
            return torch.autograd.grad(loss, parameters, allow_unused=True)
        return gradients(loss, parameters)

    def written(self) -> None:
        """Compute with what an optimizer or a checkpoint has written into the parameters."""
        if self._sharder is not None:
            self._sharder.written()

    # ------------------------------------------------------------------------------------------ files

    def save_policy(self, folder: Path, tokenizer: PreTrainedTokenizerBase, *, base: str) -> None:
        """Write the policy as a plain model folder, in the dtype that it answers in; `base` is not needed."""
        self.sampled.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def with_adapters(base: LlamaForCausalLM, rewards: Sequence[str | Path]) -> PeftModel:
    """Return the base with the adapters of reward models on it.

    Raises:
        UserError: One does not fit.
    """
    adapted = PeftModel(base, scorer.lora_of(rewards[0]), adapter_name=reward_adapter(0))
    for member, folder in enumerate(rewards[1:], 1):
        adapted.add_adapter(reward_adapter(member), scorer.lora_of(folder))
    for member, folder in enumerate(rewards):
        scorer.load_adapter_weights(adapted, folder, reward_adapter(member))
    return adapted


def reward_weights(base: LlamaForCausalLM, reward: str | Path) -> LlamaForCausalLM:
    """Return the reward model's weights in float32: its own, or W + scaling B A of the base and the adapter.

    Raises:
        UserError: The adapter does not fit.
    """
    if scorer.is_whole(reward):
        return scorer.load_body(reward, dtype=torch.float32, device=base.device)
    whole_model: Any = with_adapters(copy.deepcopy(base).float(), [reward]).merge_and_unload()
    model: LlamaForCausalLM = whole_model
    return model
