"""What PPO asks of four roles, however they lie in memory.

adapters    alignment/roles.py         LoRA adapters on one frozen base: one GPU, or a copy on each
full        alignment/full_roles.py    whole models: policy and critic trained in full, sharded over GPUs
"""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from finlm.trunk import Trunk

Role = Literal["policy", "critic", "reward", "reference"]


def reward_adapter(member: int) -> str:
    """Return the name of the adapter of a run's first reward model (0), or of a further one."""
    return f"reward_{member}" if member else "reward"


class Layout(Protocol):
    """Policy, critic, reward model and reference."""

    @property
    def model(self) -> Any:
        """The model of the role that is on, for `finlm.scorer.last_hidden`."""
        ...

    @property
    def head_VD(self) -> Tensor:
        """Output embedding of the role that is on; carries gradient where it is trained."""
        ...

    @property
    def trunk(self) -> Trunk | None:
        """Layers that all roles share; None where they share none."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the roles compute."""
        ...

    @property
    def is_sharded(self) -> bool:
        """True if a pass of policy or critic is a message between processes: all must run the same passes in the same
        order, and none may run one more or stop alone."""
        ...

    @property
    def sampled(self) -> Any:
        """The model that answers, while `sampling` is on; always the same object."""
        ...

    def __call__(self, role: Role, member: int = 0) -> AbstractContextManager[None]:
        """Put a role on for the `with` block; of several reward models, the one with number `member`."""
        ...

    def refresh(self) -> None:
        """Bring `sampled` up to the policy as it is now; all processes together."""
        ...

    def sampling(self) -> AbstractContextManager[None]:
        """Put the policy on as `sampled` has it: passes are then this process's own."""
        ...

    def parameters(self, role: Literal["policy", "critic"]) -> dict[str, nn.Parameter]:
        """Return what a role trains, without the critic's head, by names that no other role uses."""
        ...

    def gradients(self, loss: Tensor, parameters: list[nn.Parameter]) -> tuple[Tensor | None, ...]:
        """Return the gradients of a loss in the order of its role's parameters; those of `alignment.sharding.Shard`s
        are sums over processes."""
        ...

    def written(self) -> None:
        """Compute with what an optimizer or a checkpoint has written into the parameters."""
        ...

    def save_policy(self, folder: Path, tokenizer: PreTrainedTokenizerBase, *, base: str) -> None:
        """Write the policy as the last `refresh` left it into a folder; on one process.

        Args:
            folder: An empty folder.
            tokenizer: Its tokenizer.
            base: Path of the base, relative to the folder's final place.
        """
        ...
