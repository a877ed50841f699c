"""PPO's state on disk: everything a killed run needs to go on bit by bit where it was, in safetensors and JSON."""

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from alignment.layouts import Layout
from alignment.reward_shaping import RunningMoments
from alignment.sharding import here, whole
from finlm import runs
from finlm.scorer import Head

CHECKPOINTS = "checkpoints"
PIECE_BYTES = 4 * 2**30
"""Size of a checkpoint's files at most: what lies whole in the main process's memory at once."""
_OfParameters = dict[str, tuple[Tensor, Tensor]]
"""Name -> a tensor and the parameter that it belongs to."""


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
    roles: Layout,
    head: Head,
    optimizers: dict[str, torch.optim.Optimizer],
    *,
    is_main: bool = True,
) -> None:
    """Write `<folder>/checkpoints/checkpoint-<update>`, whole or not at all.

    Shards become whole tensors, so that any number of processes can go on from them. All processes must then call this,
    and those that are not the main one give their shards and write nothing.
    """
    weights = _trained(roles, head)
    files = {"weights": {name: (weight, weight) for name, weight in weights.items()}}
    files |= {f"{name}_optimizer": _moments(optimizer) for name, optimizer in optimizers.items()}
    if not is_main:
        for tensors in files.values():
            for tensor, parameter in tensors.values():
                whole(tensor, parameter)
        return
    with runs.whole_folder(folder / CHECKPOINTS / f"checkpoint-{progress.update}") as aside:
        for name, tensors in files.items():
            for number, piece in enumerate(_pieces(tensors)):
                save_file(piece, aside / f"{name}{f'-{number + 1}' if number else ''}.safetensors")
        (aside / "progress.json").write_text(json.dumps(asdict(progress)), encoding="utf-8")


def _pieces(tensors: _OfParameters) -> Iterator[dict[str, Tensor]]:
    """Put tensors together on the CPU, at most `PIECE_BYTES` at once if no single one is larger; at least one piece."""
    piece: dict[str, Tensor] = {}
    size = 0
    for name, (tensor, parameter) in tensors.items():
        made = whole(tensor.detach(), parameter).detach().cpu().contiguous()
        if piece and size + made.nbytes > PIECE_BYTES:
            yield piece
            piece, size = {}, 0
        piece[name] = made
        size += made.nbytes
    yield piece


def tidy(folder: Path, *, also: Collection[int] = ()) -> None:
    """Delete all but the newest two checkpoints and those of the updates in `also`; at a run's end too, for one that
    was killed before it came to this."""
    runs.keep_newest(folder / CHECKPOINTS, "checkpoint-*", 2, also=also)


def updates_of(folder: Path) -> dict[int, Path]:
    """Return update -> folder of the checkpoints of a run, damaged ones included."""
    return runs.numbered(folder / CHECKPOINTS, "checkpoint-*")


def load(
    folder: Path,
    roles: Layout,
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
    weights = _trained(roles, head)
    with torch.no_grad():
        for name, tensor in _stored(newest, "weights"):
            weights[name].copy_(here(tensor, weights[name]))
    roles.written()
    for name, optimizer in optimizers.items():
        parameters = _parameters(optimizer)
        stored = _stored(newest, f"{name}_optimizer")
        _restore_moments(optimizer, {key: here(tensor, parameters[_index(key)]) for key, tensor in stored})
    return Progress.read(newest / "progress.json"), complaints


class Snapshot(NamedTuple):
    """Copies of everything that a step changes."""

    weights: dict[str, Tensor]
    moments: dict[str, dict[str, Tensor]]
    """Optimizer's name -> its state."""


def snapshot(
    roles: Layout, head: Head, optimizers: Mapping[str, torch.optim.Optimizer], device: torch.device | None = None
) -> Snapshot:
    """Return what `roll_back` needs to undo all steps from here on; `device` keeps it elsewhere."""
    weights = {
        name: tensor.detach().to(device or tensor.device, copy=True) for name, tensor in _trained(roles, head).items()
    }
    moments = {
        name: {key: tensor.to(device or tensor.device, copy=True) for key, (tensor, _) in _moments(optimizer).items()}
        for name, optimizer in optimizers.items()
    }
    return Snapshot(weights, moments)


@torch.no_grad()
def roll_back(before: Snapshot, roles: Layout, head: Head, optimizers: Mapping[str, torch.optim.Optimizer]) -> None:
    """Put weights and optimizers back to where they were, and forget all gradients."""
    for name, tensor in _trained(roles, head).items():
        tensor.copy_(before.weights[name])
    roles.written()
    for name, optimizer in optimizers.items():
        optimizer.zero_grad(set_to_none=True)
        _restore_moments(optimizer, before.moments[name])


def _trained(roles: Layout, head: Head) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {**roles.parameters("policy"), **roles.parameters("critic")}
    return tensors | {f"critic_head.{name}": parameter for name, parameter in head.named_parameters()}


def _stored(folder: Path, name: str) -> Iterator[tuple[str, Tensor]]:
    """Read one file after the other, each no longer than its tensors are asked for."""
    for path in [folder / f"{name}.safetensors", *sorted(folder.glob(f"{name}-*.safetensors"))]:
        yield from load_file(path).items()


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _index(key: str) -> int:
    return int(key.split(".", 1)[0])


def _moments(optimizer: torch.optim.Optimizer) -> _OfParameters:
    parameters = _parameters(optimizer)
    return {
        f"{index}.{name}": (torch.as_tensor(value).detach(), parameters[index])
        for index, entry in optimizer.state_dict()["state"].items()
        for name, value in entry.items()
    }


def _restore_moments(optimizer: torch.optim.Optimizer, stored: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in stored.items():
        state.setdefault(_index(key), {})[key.split(".", 1)[1]] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
