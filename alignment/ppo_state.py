"""PPO's state on disk: everything a killed run needs to go on bit by bit where it was, in safetensors and JSON."""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from alignment.reward_shaping import RunningMoments
from alignment.roles import Roles
from finlm import runs
from finlm.scorer import Head

CHECKPOINTS = "checkpoints"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is. Sampling, shuffling and mixing draw from (seed, update, step) and learning rates are a function
    of the update, so no random state and no schedule need keeping.

    Example:
        Progress(update=20, episode=2560, kl_coef=0.047, scores=RunningMoments(2560.0, 0.3, 2400.0), steps=40)
    """

    update: int = 0
    episode: int = 0
    kl_coef: float | None = None
    """beta of the next rollout, score units per nat; None: the setting's."""
    scores: RunningMoments = field(default_factory=RunningMoments)
    """Moments of all raw scores so far; empty where scores are not normalised."""
    steps: int = 0
    """Optimizer steps of the policy so far."""
    skipped_steps: int = 0
    """Optimizer steps of the policy that its ratios forbade, so far."""
    roll_backs: int = 0
    """How often guards have rolled the run back."""

    @classmethod
    def read(cls, path: Path) -> "Progress":
        """Read what `save` wrote."""
        stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return cls(**{**stored, "scores": RunningMoments(**stored.get("scores", {}))})


def save(
    folder: Path,
    progress: Progress,
    roles: Roles,
    head: Head,
    optimizers: dict[str, torch.optim.Optimizer],
) -> None:
    """Write `<folder>/checkpoints/checkpoint-<update>`, whole or not at all."""
    with runs.whole_folder(folder / CHECKPOINTS / f"checkpoint-{progress.update}") as aside:
        save_file(_trained(roles, head), aside / "weights.safetensors")
        for name, optimizer in optimizers.items():
            save_file(_moments(optimizer), aside / f"{name}_optimizer.safetensors")
        (aside / "progress.json").write_text(json.dumps(asdict(progress)), encoding="utf-8")


def tidy(folder: Path, *, also: Collection[int] = ()) -> None:
    """Delete all but the newest two checkpoints and those of the updates in `also`; at a run's end too, for one that
    was killed before it came to this."""
    runs.keep_newest(folder / CHECKPOINTS, "checkpoint-*", 2, also=also)


def updates_of(folder: Path) -> dict[int, Path]:
    """Return update -> folder of the checkpoints of a run, damaged ones included."""
    return runs.numbered(folder / CHECKPOINTS, "checkpoint-*")


def load(
    folder: Path,
    roles: Roles,
    head: Head,
    optimizers: dict[str, torch.optim.Optimizer],
    *,
    is_void: Callable[[Progress], bool] = lambda progress: False,
) -> tuple[Progress, list[str]]:
    """Load the newest undamaged checkpoint that is not void, if there is one.

    Returns:
        How far the run is, and what is wrong with newer checkpoints that were passed over.
    """
    newest, complaints = runs.newest_whole(
        folder / CHECKPOINTS, "checkpoint-*", lambda path: not is_void(Progress.read(path / "progress.json"))
    )
    if newest is None:
        return Progress(), complaints
    stored = load_file(newest / "weights.safetensors")
    with torch.no_grad():
        for name, tensor in _trained(roles, head, clone=False).items():
            tensor.copy_(stored[name])
    for name, optimizer in optimizers.items():
        _restore_moments(optimizer, load_file(newest / f"{name}_optimizer.safetensors"))
    return Progress.read(newest / "progress.json"), complaints


class Snapshot(NamedTuple):
    """Copies of everything that a step changes."""

    weights: dict[str, Tensor]
    moments: dict[str, dict[str, Tensor]]
    """Optimizer's name -> its state."""


def snapshot(
    roles: Roles, head: Head, optimizers: Mapping[str, torch.optim.Optimizer], device: torch.device | None = None
) -> Snapshot:
    """Return what `roll_back` needs to undo all steps from here on; `device` keeps the weights elsewhere."""
    weights = {
        name: tensor.detach().to(device or tensor.device, copy=True)
        for name, tensor in _trained(roles, head, clone=False).items()
    }
    moments = {name: _moments(optimizer, clone=True) for name, optimizer in optimizers.items()}
    return Snapshot(weights, moments)


@torch.no_grad()
def roll_back(before: Snapshot, roles: Roles, head: Head, optimizers: Mapping[str, torch.optim.Optimizer]) -> None:
    """Put weights and optimizers back to where they were, and forget all gradients."""
    for name, tensor in _trained(roles, head, clone=False).items():
        tensor.copy_(before.weights[name])
    for name, optimizer in optimizers.items():
        optimizer.zero_grad(set_to_none=True)
        _restore_moments(optimizer, before.moments[name])


def _trained(roles: Roles, head: Head, *, clone: bool = True) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {**roles.adapter("policy"), **roles.adapter("critic")}
    tensors |= {f"critic_head.{name}": parameter for name, parameter in head.named_parameters()}
    return {name: (tensor.detach().cpu().contiguous() if clone else tensor) for name, tensor in tensors.items()}


def _moments(optimizer: torch.optim.Optimizer, *, clone: bool = False) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    found = {
        f"{index}.{name}": torch.as_tensor(value).detach()
        for index, entry in state.items()
        for name, value in entry.items()
    }
    return {name: (value.clone() if clone else value.cpu().contiguous()) for name, value in found.items()}


def _restore_moments(optimizer: torch.optim.Optimizer, stored: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in stored.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
