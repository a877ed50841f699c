"""Losses of the reward model against plain loops, other implementations and what must not change them."""

import math
import random

import pytest
import torch
from torch import Tensor

from reward import losses
from reward.batches import by_answer


def ragged(seed: int) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Random pairs of answers that share a beginning of random length; some begin with the whole of the other."""
    draw = random.Random(seed)
    better, worse = [], []
    for number in range(12):
        shared = tuple(draw.randrange(5) for _ in range(draw.randrange(4)))
        one = (*shared, 7, *(draw.randrange(5) for _ in range(draw.randrange(5))))
        other = shared if number % 4 == 3 else (*shared, 8, *(draw.randrange(5) for _ in range(draw.randrange(5))))
        sides = ((*one, 1), (*other, 1))
        better.append(sides[number % 2])
        worse.append(sides[1 - number % 2])
    return better, worse


def readings(rows: list[tuple[int, ...]], seed: int) -> Tensor:
    """Random readings of all answers, one behind the other."""
    count = sum(map(len, rows))
    return torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def side_by_side(flat: Tensor, rows: list[tuple[int, ...]], width: int) -> Tensor:
    length = torch.tensor([len(row) for row in rows])
    return by_answer(flat, length.cumsum(0) - length, length, width)


def by_loop(better: tuple[int, ...], worse: tuple[int, ...], of_better: Tensor, of_worse: Tensor, end: str) -> float:
    """The loss from its definition, for one pair."""
    start = 0
    while start < min(len(better), len(worse)) and better[start] == worse[start]:
        start += 1
    stop = max(len(better), len(worse)) if end == "held" else max(min(len(better), len(worse)), start + 1)
    total = 0.0
    for place in range(start, stop):
        lead = float(of_better[min(place, len(better) - 1)]) - float(of_worse[min(place, len(worse) - 1)])
        total += math.log1p(math.exp(-lead))
    return total / (stop - start)


def prepared(end: str, seed: int) -> tuple[Tensor, Tensor, Tensor, list[float]]:
    better, worse = ragged(seed)
    width = max(map(len, better + worse))
    of_better, of_worse = readings(better, 1), readings(worse, 2)
    lengths = [torch.tensor([len(row) for row in rows]) for rows in (better, worse)]
    first = torch.tensor([losses.first_difference(*pair) for pair in zip(better, worse, strict=True)])
    is_compared = losses.is_compared(first, *lengths, width, end)
    apart = [flat.split([len(row) for row in rows]) for flat, rows in ((of_better, better), (of_worse, worse))]
    wanted = [by_loop(*four, end) for four in zip(better, worse, *apart, strict=True)]
    return side_by_side(of_better, better, width), side_by_side(of_worse, worse, width), is_compared, wanted


@pytest.mark.parametrize("end", ["held", "shorter"])
@pytest.mark.parametrize("seed", range(4))
def test_token_loss_is_the_loop_of_its_definition(end: str, seed: int) -> None:
    better, worse, is_compared, wanted = prepared(end, seed)
    found = losses.token_contrastive(better, worse, is_compared)
    assert found.tolist() == pytest.approx(wanted, abs=1e-12)


def test_the_original_end_rule_reads_pads() -> None:
    """Answers of 2 and 4 tokens that differ from the first on: positions 2 and 3 of the shorter one are its pads."""
    better = torch.tensor([[0.3, -0.2, 0.9, 0.1]], dtype=torch.float64)
    worse = torch.tensor([[0.5, 0.4, -2.0, -3.0]], dtype=torch.float64)
    mask = losses.is_compared(torch.tensor([0]), torch.tensor([4]), torch.tensor([2]), 4, "pads")
    leads = [0.3 - 0.5, -0.2 - 0.4, 0.9 + 2.0, 0.1 + 3.0]
    wanted = sum(math.log1p(math.exp(-lead)) for lead in leads) / 4
    assert float(losses.token_contrastive(better, worse, mask)) == pytest.approx(wanted)


def test_gradients_are_the_numerical_ones() -> None:
    better, worse, is_compared, _ = prepared("held", 0)
    margin = torch.rand(12, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    certainty = 0.5 + margin / 2

    def loss(one: Tensor, other: Tensor) -> Tensor:
        return losses.token_contrastive(one, other, is_compared, margin_B=margin, certainty_B=certainty)

    assert torch.autograd.gradcheck(loss, (better.clone().requires_grad_(), worse.clone().requires_grad_()))
    scores = (torch.randn(6, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(lambda one, other: losses.pairwise(one, other, margin_B=margin[:6]), tuple(scores))


def test_what_both_share_has_no_gradient_and_the_last_token_has() -> None:
    better, worse = ragged(1)
    width = max(map(len, better + worse))
    flat = readings(better, 1).requires_grad_()
    lengths = [torch.tensor([len(row) for row in rows]) for rows in (better, worse)]
    first = torch.tensor([losses.first_difference(*pair) for pair in zip(better, worse, strict=True)])
    mask = losses.is_compared(first, *lengths, width, "held")
    losses.token_contrastive(side_by_side(flat, better, width), torch.zeros(12, width), mask).sum().backward()
    assert flat.grad is not None
    for place, its in enumerate(flat.grad.split([len(row) for row in better])):
        assert not its[: int(first[place])].any()
        assert bool((its[int(first[place]) :] < 0).all())


def test_padding_and_order_change_nothing() -> None:
    better, worse, is_compared, wanted = prepared("held", 2)
    wide = [torch.nn.functional.pad(part, (0, 9)) for part in (better, worse, is_compared)]
    order = torch.tensor(random.Random(0).sample(range(12), 12))
    found = losses.token_contrastive(*(part[order] for part in wide))
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64)[order])


def test_pairwise_is_trls() -> None:
    """TRL's RewardTrainer: -logsigmoid(chosen - rejected - margin), averaged."""
    better, worse, margin = (torch.randn(20, generator=torch.Generator().manual_seed(seed)) for seed in range(3))
    wanted = -torch.nn.functional.logsigmoid(better - worse - margin).mean()
    torch.testing.assert_close(losses.pairwise(better, worse, margin_B=margin).mean(), wanted)


def test_soft_labels_are_least_at_their_odds() -> None:
    """Three of four votes: the best lead is log 3 beyond the margin; torch's cross-entropy is the other side."""
    leads = torch.linspace(-2, 4, 6001)
    found = losses.pairwise(
        leads, torch.zeros(6001), margin_B=torch.full((6001,), 0.5), certainty_B=torch.full((6001,), 0.75)
    )
    assert float(leads[found.argmin()]) == pytest.approx(0.5 + math.log(3), abs=2e-3)
    target = torch.full((6001,), 0.75)
    wanted = torch.nn.functional.binary_cross_entropy_with_logits(leads - 0.5, target, reduction="none")
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize(
    ("votes", "smoothing", "wanted"),
    [((3, 0), 0.0, 1.0), ((2, 1), 0.0, 2 / 3), ((2, 1), 1.0, 0.6), ((0, 0), 0.0, 1.0), ((0, 0), 0.5, 0.75)],
)
def test_certainty_by_hand(votes: tuple[int, int], smoothing: float, wanted: float) -> None:
    assert losses.certainty(*votes, smoothing=smoothing) == pytest.approx(wanted)


def test_centring_by_hand() -> None:
    assert losses.centring(torch.tensor([1.0, 2.0]), torch.tensor([-1.0, 1.0])).tolist() == [0.0, 9.0]
