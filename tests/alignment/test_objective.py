"""The formulas of PPO, against arithmetic by hand and against plain loops."""

import math

import pytest
import torch
from torch import Tensor

from alignment.objective import (
    Moments,
    advantages,
    explained_variance,
    kl_estimate,
    moments,
    policy_loss,
    token_rewards,
    value_loss,
    whiten,
)


def row(*numbers: float) -> Tensor:
    return torch.tensor([numbers])


def mask(lengths: list[int], width: int) -> Tensor:
    return torch.arange(width) < torch.tensor(lengths).unsqueeze(1)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------------------------------------- KL


def test_estimators_by_hand() -> None:
    # pi = 0.5 and ref = 0.25: d = ln 2; pi = 0.1 and ref = 0.2: d = -ln 2
    logp, ref = row(0.5, 0.1).log(), row(0.25, 0.2).log()
    torch.testing.assert_close(kl_estimate(logp, ref, "k1"), row(0.693147, -0.693147))
    torch.testing.assert_close(kl_estimate(logp, ref, "k2"), row(0.240227, 0.240227), atol=1e-6, rtol=0)
    # k3 = exp(-d) - 1 + d: 0.5 - 1 + 0.693147 and 2 - 1 - 0.693147
    torch.testing.assert_close(kl_estimate(logp, ref, "k3"), row(0.193147, 0.306853), atol=1e-6, rtol=0)


def test_another_estimator_is_refused() -> None:
    with pytest.raises(ValueError, match="k1, k2 or k3"):
        kl_estimate(row(0.0), row(0.0), "k4")


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_means_of_unbiased_estimators_approach_the_exact_kl(estimator: str) -> None:
    policy, reference = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.3, 0.5])
    exact = 0.5 * math.log(0.5 / 0.2) + 0.2 * math.log(0.2 / 0.5)  # the middle term is zero
    count = 200_000
    tokens = torch.multinomial(policy, count, replacement=True, generator=torch.Generator().manual_seed(1))
    each = kl_estimate(policy.log()[tokens], reference.log()[tokens], estimator).double()
    assert abs(float(each.mean()) - exact) < 4 * float(each.std()) / math.sqrt(count)


def test_k3_is_never_negative_and_varies_less_than_k1() -> None:
    logp = drawn(1000) * 0.3
    k1, k3 = (kl_estimate(logp, torch.zeros(1000), name) for name in ("k1", "k3"))
    assert bool((k3 >= 0).all())
    assert float(k3.std()) < float(k1.std())


# ---------------------------------------------------------------------------------------------- rewards


def test_the_score_lies_on_the_last_answer_token_and_padding_stays_zero() -> None:
    is_answer = mask([1, 3, 4], 4)
    kl = torch.tensor([[0.2, 9, 9, 9], [0.1, -0.3, 0.5, 9], [1.0, 1.0, 1.0, 1.0]])
    got = token_rewards(torch.tensor([2.0, -1.0, 0.5]), kl, is_answer, kl_coef=0.1)
    wanted = torch.tensor([[1.98, 0, 0, 0], [-0.01, 0.03, -1.05, 0], [-0.1, -0.1, -0.1, 0.4]])
    torch.testing.assert_close(got, wanted)


def test_without_kl_only_the_score_is_left() -> None:
    got = token_rewards(torch.tensor([3.0]), row(5.0, 5.0, 5.0), mask([2], 3), kl_coef=0.0)
    assert got.tolist() == [[0.0, 3.0, 0.0]]


# ---------------------------------------------------------------------------------------------- GAE


def test_advantages_of_three_tokens_by_hand() -> None:
    # delta_3 = 1.0 - 0.4                = 0.6      A_3 = 0.6
    # delta_2 = 0.0 + 0.9 * 0.4 - 0.3    = 0.06     A_2 = 0.06 + 0.72 * 0.6    = 0.492
    # delta_1 = -0.1 + 0.9 * 0.3 - 0.2   = -0.03    A_1 = -0.03 + 0.72 * 0.492 = 0.32424
    reward, value = row(-0.1, 0.0, 1.0, 7.0), row(0.2, 0.3, 0.4, 8.0)  # the fourth is padding
    got = advantages(reward, value, mask([3], 4), gamma=0.9, lam=0.8)
    torch.testing.assert_close(got.advantage_BA, row(0.32424, 0.492, 0.6, 0.0))
    torch.testing.assert_close(got.return_BA, row(0.52424, 0.792, 1.0, 0.0))


def plain_gae(reward: list[float], value: list[float], gamma: float, lam: float) -> list[float]:
    """Equation 16 of the paper as it stands: a sum of discounted deltas for each token."""
    value = [*value, 0.0]
    deltas = [reward[t] + gamma * value[t + 1] - value[t] for t in range(len(reward))]
    return [sum((gamma * lam) ** k * delta for k, delta in enumerate(deltas[t:])) for t in range(len(deltas))]


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.8), (0.99, 0.0), (1.0, 1.0)])
def test_advantages_equal_the_plain_sum(gamma: float, lam: float) -> None:
    lengths, width = [1, 5, 9, 12], 12
    reward, value = drawn(4, width).double(), drawn(4, width, seed=1).double()
    got = advantages(reward, value, mask(lengths, width), gamma=gamma, lam=lam)
    for index, length in enumerate(lengths):
        plain = plain_gae(reward[index, :length].tolist(), value[index, :length].tolist(), gamma, lam)
        assert got.advantage_BA[index, :length].tolist() == pytest.approx(plain, abs=1e-12)
        assert not got.advantage_BA[index, length:].any()
        assert not got.return_BA[index, length:].any()


def test_undiscounted_returns_are_the_sums_of_future_rewards() -> None:
    reward, value = drawn(3, 6).double(), drawn(3, 6, seed=1).double()
    got = advantages(reward, value, mask([6, 6, 6], 6), gamma=1.0, lam=1.0)
    torch.testing.assert_close(got.return_BA, reward.flip(1).cumsum(1).flip(1))


def test_lambda_zero_gives_the_one_step_error() -> None:
    reward, value = drawn(2, 5).double(), drawn(2, 5, seed=1).double()
    got = advantages(reward, value, mask([5, 5], 5), gamma=0.7, lam=0.0)
    following = torch.cat([value[:, 1:], torch.zeros(2, 1)], dim=1)
    torch.testing.assert_close(got.advantage_BA, reward + 0.7 * following - value)


def test_an_exact_critic_leaves_no_advantage() -> None:
    reward = row(0.5, -0.25, 1.0)
    got = advantages(reward, row(1.25, 0.75, 1.0), mask([3], 3), gamma=1.0, lam=0.95)
    torch.testing.assert_close(got.advantage_BA, row(0.0, 0.0, 0.0))


def test_the_value_after_a_cut_answer_is_what_its_last_token_leads_to() -> None:
    # the three tokens above, now followed by a value of 0.5:
    # delta_3 = 1.0 + 0.9 * 0.5 - 0.4   = 1.05     A_3 = 1.05
    # delta_2 = 0.06                                A_2 = 0.06 + 0.72 * 1.05    = 0.816
    # delta_1 = -0.03                               A_1 = -0.03 + 0.72 * 0.816  = 0.55752
    reward, value = row(-0.1, 0.0, 1.0, 7.0), row(0.2, 0.3, 0.4, 8.0)
    got = advantages(reward, value, mask([3], 4), gamma=0.9, lam=0.8, after_B=torch.tensor([0.5]))
    torch.testing.assert_close(got.advantage_BA, row(0.55752, 0.816, 1.05, 0.0))
    torch.testing.assert_close(got.return_BA, row(0.75752, 1.116, 1.45, 0.0))


def test_a_cut_answer_is_the_longer_answer_of_an_exact_critic() -> None:
    """Cutting where the critic knows what follows changes nothing before the cut."""
    reward, value = row(0.1, -0.2, 0.3, 0.4), row(0.6, 0.5, 0.7, 0.4)  # the last value is exact: 0.4 is still to come
    whole = advantages(reward, value, mask([4], 4), gamma=1.0, lam=0.9)
    cut = advantages(reward, value, mask([3], 4), gamma=1.0, lam=0.9, after_B=torch.tensor([0.4]))
    torch.testing.assert_close(cut.advantage_BA[:, :3], whole.advantage_BA[:, :3])


def test_an_answer_that_reaches_the_width_may_be_cut_too() -> None:
    got = advantages(row(1.0), row(0.4), mask([1], 1), gamma=0.5, lam=1.0, after_B=torch.tensor([2.0]))
    torch.testing.assert_close(got.advantage_BA, row(1.6))  # 1.0 + 0.5 * 2.0 - 0.4


def test_an_empty_answer_is_refused() -> None:
    with pytest.raises(ValueError, match="no tokens"):
        advantages(torch.zeros(2, 3), torch.zeros(2, 3), mask([2, 0], 3), gamma=1.0, lam=1.0)


# ---------------------------------------------------------------------------------------------- whitening


def test_whitened_numbers_have_mean_0_and_variance_1_and_padding_never_counts() -> None:
    is_answer = mask([3, 7, 5], 7)
    numbers = (drawn(3, 7) * 5 + 2).masked_fill(~is_answer, 1e6)
    got = whiten(numbers, is_answer, moments(numbers, is_answer))
    counted = got[is_answer].double()
    assert float(counted.mean()) == pytest.approx(0, abs=1e-6)
    assert float(counted.var(correction=0)) == pytest.approx(1, abs=1e-5)
    assert not got[~is_answer].any()


def test_without_the_shift_the_mean_stays() -> None:
    is_answer = mask([3, 7, 5], 7)
    numbers = drawn(3, 7) * 5 + 2
    got = whiten(numbers, is_answer, moments(numbers, is_answer), shift_mean=False)[is_answer]
    assert float(got.mean()) == pytest.approx(float(numbers[is_answer].mean()), abs=1e-5)
    assert float(got.double().var(correction=0)) == pytest.approx(1, abs=1e-5)


def test_whitening_by_hand() -> None:
    # mean 3, variance ((-2)^2 + 0 + 2^2) / 3 = 8/3
    got = whiten(row(1.0, 3.0, 5.0), mask([3], 3), moments(row(1.0, 3.0, 5.0), mask([3], 3)))
    torch.testing.assert_close(got, row(-math.sqrt(1.5), 0.0, math.sqrt(1.5)))


def test_equal_numbers_whiten_to_zero() -> None:
    same = torch.full((2, 3), 0.7)
    got = whiten(same, mask([3, 3], 3), moments(same, mask([3, 3], 3)))
    assert got.abs().max() < 1e-3


def test_moments_of_parts_add_up_to_those_of_the_whole() -> None:
    numbers, is_answer = drawn(6, 5), mask([1, 2, 3, 4, 5, 5], 5)
    parts = [moments(numbers[start : start + 2], is_answer[start : start + 2]) for start in (0, 2, 4)]
    whole = moments(numbers, is_answer)
    assert whole.number == 20
    for name in Moments._fields:
        torch.testing.assert_close(sum(getattr(part, name) for part in parts), getattr(whole, name))


# ---------------------------------------------------------------------------------------------- losses

HAND = [  # ratio, advantage, loss and gradient with respect to log pi, at cliprange 0.2; -A ratio where not clipped
    (1.5, 1.0, -1.2, 0.0),
    (1.5, -1.0, 1.5, 1.5),
    (0.5, 1.0, -0.5, -0.5),
    (0.5, -1.0, 0.8, 0.0),
    (1.1, 2.0, -2.2, -2.2),
    (0.9, -2.0, 1.8, 1.8),
    (1.0, 3.0, -3.0, -3.0),
]


@pytest.mark.parametrize(("ratio", "advantage", "loss", "gradient"), HAND)
def test_policy_loss_on_both_sides_of_the_clip(ratio: float, advantage: float, loss: float, gradient: float) -> None:
    old = row(-1.0)
    logp = (old + math.log(ratio)).requires_grad_()
    got = policy_loss(logp, old, row(advantage), mask([1], 1), cliprange=0.2)
    got.loss.backward()
    assert float(got.loss.detach()) == pytest.approx(loss, abs=1e-6)
    assert logp.grad is not None
    assert float(logp.grad) == pytest.approx(gradient, abs=1e-6)
    assert int(got.clipped) == (gradient == 0)
    assert float(got.ratio_BA.detach()) == pytest.approx(ratio, abs=1e-6)


ASYMMETRIC = [  # ratio, advantage, loss, gradient at a low range of 0.2 and a high one of 0.5
    (1.4, 1.0, -1.4, -1.4),  # within 1.5: still earns
    (1.6, 1.0, -1.5, 0.0),
    (1.4, -1.0, 1.4, 1.4),
    (0.7, 1.0, -0.7, -0.7),
    (0.7, -1.0, 0.8, 0.0),  # below 0.8: held there
]


@pytest.mark.parametrize(("ratio", "advantage", "loss", "gradient"), ASYMMETRIC)
def test_policy_loss_with_a_higher_ceiling(ratio: float, advantage: float, loss: float, gradient: float) -> None:
    logp = row(math.log(ratio)).requires_grad_()
    got = policy_loss(logp, row(0.0), row(advantage), mask([1], 1), cliprange=0.2, cliprange_high=0.5)
    got.loss.backward()
    assert float(got.loss.detach()) == pytest.approx(loss, abs=1e-6)
    assert logp.grad is not None
    assert float(logp.grad) == pytest.approx(gradient, abs=1e-6)
    assert int(got.clipped) == (gradient == 0)


DUAL = [  # ratio, advantage, loss, gradient, held, at a range of 0.2 and a dual clip of 3
    (2.5, -1.0, 2.5, 2.5, False),  # below 3: PPO's own loss
    (4.0, -1.0, 3.0, 0.0, True),  # beyond: charged for 3 only
    (4.0, -2.0, 6.0, 0.0, True),
    (4.0, 1.0, -1.2, 0.0, False),  # a positive advantage knows nothing of it
    (0.5, -1.0, 0.8, 0.0, False),
]


@pytest.mark.parametrize(("ratio", "advantage", "loss", "gradient", "is_held"), DUAL)
def test_policy_loss_with_dual_clip(
    ratio: float, advantage: float, loss: float, gradient: float, is_held: bool
) -> None:
    logp = row(math.log(ratio)).requires_grad_()
    got = policy_loss(logp, row(0.0), row(advantage), mask([1], 1), cliprange=0.2, dual_clip=3.0)
    got.loss.backward()
    assert float(got.loss.detach()) == pytest.approx(loss, abs=1e-5)
    assert logp.grad is not None
    assert float(logp.grad) == pytest.approx(gradient, abs=1e-5)
    assert int(got.dual_clipped) == is_held


def test_dual_clip_holds_no_padding() -> None:
    got = policy_loss(row(2.0, 2.0), row(0.0, 0.0), row(-1.0, -1.0), mask([1], 2), cliprange=0.2, dual_clip=3.0)
    assert (float(got.loss), int(got.dual_clipped)) == (3.0, 1)


def test_value_loss_without_a_clip_is_the_squared_error() -> None:
    value = row(1.5, 0.5, 9.0).requires_grad_()
    got = value_loss(value, row(1.0, 1.0, 1.0), row(2.0, 0.0, 0.0), mask([2], 3), cliprange_value=0.0)
    got.loss.backward()
    assert float(got.loss.detach()) == pytest.approx(0.25)  # half of 0.5^2 + 0.5^2
    assert int(got.clipped) == 0
    assert value.grad is not None
    torch.testing.assert_close(value.grad, row(-0.5, 0.5, 0.0))


def test_explained_variance_by_hand() -> None:
    # returns 1, 2, 3, 4: variance 1.25; values 1, 2, 3, 6: errors 0, 0, 0, -2, variance 0.75
    def over(*numbers: float) -> Moments:
        return moments(row(*numbers), mask([len(numbers)], len(numbers)))

    assert explained_variance(over(1, 2, 3, 4), over(0, 0, 0, -2)) == pytest.approx(0.4)
    assert explained_variance(over(1, 2, 3, 4), over(0.7, 0.7, 0.7, 0.7)) == pytest.approx(1.0)  # a constant error
    assert explained_variance(over(1, 2, 3, 4), over(-1, 0, 1, 2)) == pytest.approx(0.0)  # values all alike
    assert explained_variance(over(2, 2), over(0, 1)) == 0.0  # nothing to explain


VALUES = [  # V, V_old, R, loss = half the larger square, gradient, at a range of 0.2
    (1.1, 1.0, 2.0, 0.5 * 0.9**2, -0.9, False),  # inside the range
    (1.5, 1.0, 2.0, 0.5 * 0.8**2, 0.0, True),  # moved too far towards R: held at 1.2
    (1.5, 1.0, 0.0, 0.5 * 1.5**2, 1.5, False),  # moved too far away from R: pulled back in full
    (0.5, 1.0, 0.0, 0.5 * 0.8**2, 0.0, True),  # held at 0.8
]


@pytest.mark.parametrize(("value", "old", "target", "loss", "gradient", "is_clipped"), VALUES)
def test_value_loss_on_both_sides_of_the_clip(
    value: float, old: float, target: float, loss: float, gradient: float, is_clipped: bool
) -> None:
    now = row(value).requires_grad_()
    got = value_loss(now, row(old), row(target), mask([1], 1), cliprange_value=0.2)
    got.loss.backward()
    assert float(got.loss.detach()) == pytest.approx(loss, abs=1e-6)
    assert now.grad is not None
    assert float(now.grad) == pytest.approx(gradient, abs=1e-6)
    assert int(got.clipped) == is_clipped


def test_losses_equal_plain_loops() -> None:
    lengths, width = [2, 5, 8], 8
    is_answer = mask(lengths, width)
    new, old, advantage, target = (drawn(3, width, seed=seed).double() for seed in range(4))
    policy_sum = value_sum = 0.0
    policy_clipped = value_clipped = 0
    for index, length in enumerate(lengths):
        for t in range(length):
            n, o, a, r = (float(x[index, t]) for x in (new, old, advantage, target))
            ratio = math.exp(n - o)
            surrogate = min(ratio * a, min(max(ratio, 0.8), 1.2) * a)
            policy_sum -= surrogate
            policy_clipped += surrogate < ratio * a
            held = min(max(n, o - 0.3), o + 0.3)
            error = max((n - r) ** 2, (held - r) ** 2)
            value_sum += error / 2
            value_clipped += error > (n - r) ** 2
    policy = policy_loss(new, old, advantage, is_answer, cliprange=0.2)
    value = value_loss(new, old, target, is_answer, cliprange_value=0.3)
    assert (float(policy.loss), int(policy.clipped)) == (pytest.approx(policy_sum, abs=1e-12), policy_clipped)
    assert (float(value.loss), int(value.clipped)) == (pytest.approx(value_sum, abs=1e-12), value_clipped)
    assert policy_clipped
    assert value_clipped


def both_losses(inputs: list[Tensor], is_answer: Tensor) -> Tensor:
    new, old, advantage, target = inputs
    policy = policy_loss(new, old, advantage, is_answer, cliprange=0.2).loss
    return torch.stack([policy, value_loss(new, old, target, is_answer, cliprange_value=0.3).loss])


def test_padding_order_and_split_do_not_change_the_mean_over_all_tokens() -> None:
    lengths, width = [2, 5, 8, 1], 8
    is_answer = mask(lengths, width)
    inputs = [drawn(4, width, seed=seed).double() for seed in range(4)]
    tokens = sum(lengths)
    whole = both_losses(inputs, is_answer) / tokens

    padded = [torch.cat([x, torch.full((4, 3), 50.0).double()], dim=1) for x in inputs]
    torch.testing.assert_close(both_losses(padded, mask(lengths, width + 3)) / tokens, whole)

    order = torch.tensor([3, 0, 2, 1])
    torch.testing.assert_close(both_losses([x[order] for x in inputs], is_answer[order]) / tokens, whole)

    split = sum(both_losses([x[part] for x in inputs], is_answer[part]) / tokens for part in ([0], [1, 2], [3]))
    torch.testing.assert_close(split, whole)


def test_a_ratio_beyond_all_bounds_stays_finite() -> None:
    logp = row(0.0).requires_grad_()
    got = policy_loss(logp, row(-5000.0), row(-1.0), mask([1], 1), cliprange=0.2)
    got.loss.backward()
    assert torch.isfinite(got.loss)
    assert logp.grad is not None
    assert bool(torch.isfinite(logp.grad).all())
