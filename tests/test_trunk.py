"""A model in two parts must be the whole model, to the bit, whoever wears which adapter."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from torch import Tensor

from alignment.roles import Role, Roles
from finlm.model import load_causal
from finlm.scorer import last_hidden

ROLES: tuple[Role, ...] = ("policy", "critic", "reward", "reference")


def make(tiny: Any, layers: list[int] | None) -> Roles:
    """Roles whose adapters have weights of their own, on the given layers (None: on all)."""
    base = load_causal(Path(tiny.base), dtype=torch.float32, device=torch.device("cpu")).eval()
    lora = LoraConfig(
        r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "up_proj"], layers_to_transform=layers,
        task_type="CAUSAL_LM",
    )  # fmt: skip
    roles = Roles(base, lora, copy.deepcopy(lora), copy.deepcopy(lora))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name in ("policy", "critic", "reward"):
            for parameter in roles.adapter(name).values():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return roles


@pytest.fixture(scope="module")
def batch() -> tuple[Tensor, Tensor]:
    """Rows of 9, 5 and 1 tokens, padded on the right."""
    ids = torch.randint(2, 400, (3, 9), generator=torch.Generator().manual_seed(0))
    is_token = torch.arange(9) < torch.tensor([[9], [5], [1]])
    return ids * is_token, is_token


@pytest.mark.parametrize(("layers", "depth"), [([1], 1), ([0, 1], 0), ([0], 0), (None, 0)])
def test_the_trunk_ends_below_the_lowest_adapter(tiny: Any, layers: list[int] | None, depth: int) -> None:
    assert make(tiny, layers).trunk.depth == depth


@pytest.mark.parametrize("layers", [[1], None])
@pytest.mark.parametrize("role", ROLES)
def test_both_parts_in_turn_are_the_whole(
    tiny: Any, batch: tuple[Tensor, Tensor], layers: list[int] | None, role: Role
) -> None:
    roles = make(tiny, layers)
    lower_BTD = roles.trunk.states(*batch)  # under no role: what lies below is everybody's
    with torch.no_grad(), roles(role):
        whole_BTD = last_hidden(roles.model, *batch)
        assert torch.equal(roles.trunk.finish(lower_BTD, batch[1]), whole_BTD)
    with torch.no_grad(), roles("critic" if role == "reference" else "reference"):
        assert not torch.allclose(roles.trunk.finish(lower_BTD, batch[1]), whole_BTD)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_are_those_of_the_whole(tiny: Any, batch: tuple[Tensor, Tensor], checkpointing: bool) -> None:
    gradients = []
    for is_split in (False, True):
        roles = make(tiny, [1])
        if checkpointing:
            roles.checkpoint_gradients()
        with roles("policy"):
            if is_split:
                hidden_BTD = roles.trunk.finish(roles.trunk.states(*batch), batch[1])
            else:
                hidden_BTD = last_hidden(roles.model, *batch)
            hidden_BTD[batch[1]].square().sum().backward()
        gradients.append({name: parameter.grad for name, parameter in roles.adapter("policy").items()})
    assert all(bool(one.abs().sum() > 0) for one in gradients[0].values())
    for name, one in gradients[0].items():
        assert torch.equal(gradients[1][name], one), name


def test_the_parts_hold_no_weights_of_their_own(tiny: Any) -> None:
    roles = make(tiny, [1])
    known = {parameter.data_ptr() for parameter in roles.model.parameters()}
    for part in (roles.trunk._lower, roles.trunk._upper):
        assert {parameter.data_ptr() for parameter in part.parameters()} <= known
