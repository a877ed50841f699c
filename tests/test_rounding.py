"""Rounding by chance: right in expectation, still where there is nothing to round."""

import pytest
import torch

from finlm.rounding import Chance, stochastically


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def chance(exact: torch.Tensor, salt: int = 0) -> Chance:
    return Chance.of(*exact.shape, salt, exact.device)


def rounded(exact: torch.Tensor, salt: int = 0) -> torch.Tensor:
    return stochastically(exact, chance(exact, salt))


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_it_is_right_on_average(sign: float, share: float) -> None:
    """Between 1 and its neighbour 1 + 2^-7 lie no other bfloat16; of n draws a share of `share` goes up."""
    exact = torch.full((100, 400), sign * (1 + share * 2**-7))
    found = rounded(exact)
    assert set(found.flatten().tolist()) == {sign, sign * (1 + 2**-7)}
    went_up = (found.float().abs() > 1).float().mean().item()
    assert went_up == pytest.approx(share, abs=4 * (share * (1 - share) / 40_000) ** 0.5)


def test_what_bfloat16_can_say_stays() -> None:
    numbers = torch.randn(50, 100, generator=generator()).to(torch.bfloat16)
    numbers[0, 0] = 0.0
    assert torch.equal(rounded(numbers.float()), numbers)


def test_equal_salts_round_equally_and_others_do_not() -> None:
    exact = torch.randn(40, 50, generator=generator())
    assert torch.equal(rounded(exact, 3), rounded(exact, 3))
    assert torch.equal(rounded(exact, 3)[:7, :9], rounded(exact[:7, :9], 3)), "a number's place decides, not the shape"
    differ = (rounded(exact, 3) != rounded(exact, 4)).float().mean()
    # two independent choices with chances p and 1 - p differ in 2 p (1 - p) of the draws: a third, for uniform p
    assert differ.item() == pytest.approx(1 / 3, abs=4 * (2 / 9 / 2000) ** 0.5)


@pytest.mark.parametrize("apart", [(0, 1), (1, 0), (1, 1)])
def test_neighbours_are_rounded_independently(apart: tuple[int, int]) -> None:
    exact = torch.full((300, 300), 1 + 0.5 * 2**-7)
    up = (rounded(exact).float() > 1).double() - 0.5
    other = up.roll(apart, dims=(0, 1))
    assert abs(float((up * other).mean())) * 4 < 4 / 300


def test_a_small_update_moves_what_a_map_gives() -> None:
    """A map of 1,024 inputs and an update a fiftieth of its last bit: to the nearest, its effect would be nil."""
    torch.manual_seed(0)
    weight = (torch.randn(256, 1024) * 0.02).to(torch.bfloat16)
    update = torch.randn(256, 1) @ torch.randn(1, 1024) * 2e-6
    x = torch.randn(1024, 64)
    wanted = update @ x
    found = (rounded(weight.float() + update).float() - weight.float()) @ x
    nearest = ((weight.float() + update).to(torch.bfloat16).float() - weight.float()) @ x
    share, lost = (float((moved * wanted).sum() / wanted.square().sum()) for moved in (found, nearest))
    assert share == pytest.approx(1, abs=0.5)
    assert lost < 0.2
