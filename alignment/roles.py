"""Four roles on one frozen base: policy, critic and reward are LoRA adapters, the reference is the base alone.

A role is put on and taken off without touching what trains (finlm/adapters.py). With gradient checkpointing the
recomputation must run in the role of its forward pass, not in whatever role is on when the backward pass comes by:
`Roles` replays it.
"""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from peft import LoraConfig, PeftModel
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedTokenizerBase
from transformers.modeling_layers import GradientCheckpointingLayer

from alignment.layouts import Role, reward_adapter
from finlm import fused_lora
from finlm.adapters import AdapterSwitch
from finlm.likelihood import output_head
from finlm.model import order_targets
from finlm.trunk import Trunk

__all__ = ["Role", "Roles", "copy_adapter"]


class Roles:
    """A model, or two, that take the role asked for.

    Args:
        base: The fine-tuned model.
        policy: The policy's adapter.
        critic: The critic's.
        reward: The reward model's; not looked at where it is a whole model.
        more_rewards: Those of further reward models.
        judge: The reward model where it is a whole one; None: it is the adapter on the base.

    Attributes:
        trunk: The layers below all adapters, which every role shares; None where the reward model is a whole one.
        head_VD: The output embedding, the same in every role.
        device: Where the models are.
        is_sharded: False: each process has all of them.
        sampled: The model that answers: the policy's.

    Raises:
        ValueError: An adapter that trains has dropout.
    """

    is_sharded = False

    def __init__(
        self,
        base: nn.Module,
        policy: LoraConfig,
        critic: LoraConfig,
        reward: LoraConfig,
        more_rewards: Sequence[LoraConfig] = (),
        *,
        judge: nn.Module | None = None,
    ) -> None:
        for name, lora in (("policy", policy), ("critic", critic)):
            if lora.lora_dropout:
                raise ValueError(
                    f"the {name}'s lora_dropout is {lora.lora_dropout}; PPO needs 0: ratios would be noise"
                )
        self.sampled = PeftModel(base, policy, adapter_name="policy")
        self._judge = self.sampled
        if judge is not None:
            self._judge = PeftModel(judge, critic, adapter_name="critic")
        else:
            self.sampled.add_adapter("critic", critic)
            for member, lora in enumerate((reward, *more_rewards)):
                self.sampled.add_adapter(reward_adapter(member), lora)
        bodies = [self.sampled] if judge is None else [self.sampled, self._judge]
        for body in bodies:
            body.requires_grad_(False)
            body.eval()
            fused_lora.install(body)
        for name in ("policy", "critic"):
            for parameter in self.adapter(name).values():
                parameter.requires_grad_(True)
        self.trunk = Trunk(self.sampled) if judge is None else None
        self.head_VD = output_head(base)
        self.device = self.head_VD.device
        self._switches = {body: AdapterSwitch(body) for body in bodies}
        self._worn = self.sampled

    @property
    def model(self) -> PeftModel:
        """The model of the role that is on; with one base always the same."""
        return self._worn

    def adapter(self, name: str) -> dict[str, nn.Parameter]:
        """Return the parameters of an adapter, by their names in its model."""
        body = self.sampled if name == "policy" else self._judge
        return {key: value for key, value in body.named_parameters() if f".{name}." in key}

    @contextmanager
    def __call__(self, role: Role, member: int = 0) -> Iterator[None]:
        """Put a role on for the `with` block; `member` tells which reward model."""
        adapter = {"reference": None, "reward": reward_adapter(member)}.get(role, role)
        body = self.sampled if role in ("policy", "reference") else self._judge
        if role == "reward" and body is not self.sampled:
            adapter = None
        before, self._worn = self._worn, body
        try:
            with self._switches[body](adapter):
                yield
        finally:
            self._worn = before

    def checkpoint_gradients(self) -> None:
        """Recompute activations in the backward pass, each layer in the role of its forward pass."""
        for body, switch in self._switches.items():
            _checkpoint_gradients(body, switch)

    # ------------------------------------------------------------------------------------------ as a layout

    def refresh(self) -> None:
        """Do nothing: what answers is the policy itself."""

    def sampling(self) -> AbstractContextManager[None]:
        """Put the policy on."""
        return self("policy")

    def parameters(self, role: Literal["policy", "critic"]) -> dict[str, nn.Parameter]:
        """Return the weights of a role's adapter."""
        return self.adapter(role)

    def gradients(self, loss: Tensor, parameters: list[nn.Parameter]) -> tuple[Tensor | None, ...]:
        """Return the gradients of a loss on this process."""
        return torch.autograd.grad(loss, parameters, allow_unused=True)

    def written(self) -> None:
        """Do nothing: the parameters are what computes."""

    def save_policy(self, folder: Path, tokenizer: PreTrainedTokenizerBase, *, base: str) -> None:
        """Write the policy's adapter; the tokenizer lies with the base."""
        self.sampled.peft_config["policy"].base_model_name_or_path = base
        order_targets(self.sampled.peft_config["policy"])
        self.sampled.save_pretrained(folder, selected_adapters=["policy"], save_embedding_layers=False)
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            (folder / "policy" / name).rename(folder / name)
        shutil.rmtree(folder / "policy")
        (folder / "README.md").unlink(missing_ok=True)


def _checkpoint_gradients(model: PeftModel, switch: AdapterSwitch) -> None:
    def replaying(function: Any, *inputs: Any, **named: Any) -> Any:
        state = switch.state()

        def replay(*again: Any, **named_again: Any) -> Any:
            with switch.wearing(state):
                return function(*again, **named_again)

        return checkpoint(replay, *inputs, use_reentrant=False, **named)

    def checkpoint_where_gradients_flow(layer: nn.Module, _: Any) -> None:
        # transformers checkpoints in training mode only, and then takes the cache away, which sampling needs; nothing
        # here behaves otherwise in that mode (no dropout)
        layer.training = torch.is_grad_enabled()

    for module in model.get_base_model().modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.gradient_checkpointing = True
            module._gradient_checkpointing_func = replaying
            module.register_forward_pre_hook(checkpoint_where_gradients_flow)


@torch.no_grad()
def copy_adapter(roles: Roles, source: str, target: str) -> None:
    """Copy the weights of one adapter into another of the same shape."""
    targets = roles.adapter(target)
    for name, parameter in roles.adapter(source).items():
        targets[name.replace(f".{source}.", f".{target}.")].copy_(parameter)
