"""PPO's state on disk: everything a killed run needs to go on bit by bit where it was, in safetensors and JSON."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from alignment.roles import Roles
from finlm import runs
from finlm.scorer import Head

CHECKPOINTS = "checkpoints"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is. Sampling and shuffling draw from (seed, update), so no random state needs keeping.

    Example:
        Progress(update=20, episode=2560)
    """

    update: int = 0
    episode: int = 0


def save(
    folder: Path, progress: Progress, roles: Roles, head: Head, optimizers: dict[str, torch.optim.Optimizer]
) -> None:
    """Write `<folder>/checkpoints/checkpoint-<update>`, whole or not at all, and keep the newest two."""
    with runs.whole_folder(folder / CHECKPOINTS / f"checkpoint-{progress.update}") as aside:
        save_file(_trained(roles, head), aside / "weights.safetensors")
        for name, optimizer in optimizers.items():
            save_file(_moments(optimizer), aside / f"{name}_optimizer.safetensors")
        (aside / "progress.json").write_text(json.dumps(asdict(progress)), encoding="utf-8")
    tidy(folder)


def tidy(folder: Path) -> None:
    """Delete all but the newest two checkpoints; at a run's end too, for one that was killed before it came to this."""
    runs.keep_newest(folder / CHECKPOINTS, "checkpoint-*", 2)


def load(
    folder: Path, roles: Roles, head: Head, optimizers: dict[str, torch.optim.Optimizer]
) -> tuple[Progress, list[str]]:
    """Load the newest undamaged checkpoint, if there is one.

    Returns:
        How far the run is, and what is wrong with newer checkpoints that were passed over.
    """
    newest, complaints = runs.newest_whole(folder / CHECKPOINTS, "checkpoint-*")
    if newest is None:
        return Progress(), complaints
    stored = load_file(newest / "weights.safetensors")
    with torch.no_grad():
        for name, tensor in _trained(roles, head, clone=False).items():
            tensor.copy_(stored[name])
    for name, optimizer in optimizers.items():
        _restore_moments(optimizer, load_file(newest / f"{name}_optimizer.safetensors"))
    return Progress(**json.loads((newest / "progress.json").read_text(encoding="utf-8"))), complaints


def _trained(roles: Roles, head: Head, *, clone: bool = True) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {**roles.adapter("policy"), **roles.adapter("critic")}
    tensors |= {f"critic_head.{name}": parameter for name, parameter in head.named_parameters()}
    return {name: (tensor.detach().cpu().contiguous() if clone else tensor) for name, tensor in tensors.items()}


def _moments(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": torch.as_tensor(value).detach().cpu().contiguous()
        for index, entry in state.items()
        for name, value in entry.items()
    }


def _restore_moments(optimizer: torch.optim.Optimizer, stored: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in stored.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
