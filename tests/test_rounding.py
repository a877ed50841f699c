"""Rounding by chance: right in expectation, still where there is nothing to round."""

import pytest
import torch

from finlm.rounding import stochastically


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_it_is_right_on_average(sign: float, share: float) -> None:
    """Between 1 and its neighbour 1 + 2^-7 lie no other bfloat16; of n draws a share of `share` goes up."""
    exact = torch.full((40_000,), sign * (1 + share * 2**-7))
    found = stochastically(exact, generator())
    assert set(found.tolist()) == {sign, sign * (1 + 2**-7)}
    went_up = (found.float().abs() > 1).float().mean().item()
    assert went_up == pytest.approx(share, abs=4 * (share * (1 - share) / 40_000) ** 0.5)


def test_what_bfloat16_can_say_stays() -> None:
    numbers = torch.randn(5000, generator=generator()).to(torch.bfloat16)
    numbers[0] = 0.0
    assert torch.equal(stochastically(numbers.float(), generator()), numbers)


def test_equal_generators_round_equally() -> None:
    exact = torch.randn(100, generator=generator())
    assert torch.equal(stochastically(exact, generator()), stochastically(exact, generator()))


def test_a_small_update_moves_what_a_map_gives() -> None:
    """A map of 1,024 inputs and an update a fiftieth of its last bit: to the nearest, its effect would be nil."""
    torch.manual_seed(0)
    weight = (torch.randn(256, 1024) * 0.02).to(torch.bfloat16)
    update = torch.randn(256, 1) @ torch.randn(1, 1024) * 2e-6
    x = torch.randn(1024, 64)
    wanted = update @ x
    found = (stochastically(weight.float() + update, generator()).float() - weight.float()) @ x
    nearest = ((weight.float() + update).to(torch.bfloat16).float() - weight.float()) @ x
    share, lost = (float((moved * wanted).sum() / wanted.square().sum()) for moved in (found, nearest))
    assert share == pytest.approx(1, abs=0.5)
    assert lost < 0.2
