"""The formulas of PPO: pure functions, float32 in and out. Axes: B answers, A answer tokens (docs/notation.md).

Losses are sums; the caller divides by the number of answer tokens of the whole optimizer step, over all micro-batches
and processes, so that neither their number nor their sizes change the result.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Advantages(NamedTuple):
    """What `advantages` returns, both (B, A), zero off the answers."""

    advantage_BA: Tensor
    return_BA: Tensor


class PolicyLoss(NamedTuple):
    """What `policy_loss` returns."""

    loss: Tensor
    """Sum over answer tokens, ()."""
    clipped: Tensor
    """Number of answer tokens whose ratio was clipped, ()."""
    dual_clipped: Tensor
    """Number of answer tokens whose loss the dual clip held, ()."""
    ratio_BA: Tensor


class ValueLoss(NamedTuple):
    """What `value_loss` returns."""

    loss: Tensor
    """Sum over answer tokens, ()."""
    clipped: Tensor
    """Number of answer tokens whose value was clipped, ()."""


class Moments(NamedTuple):
    """Count, sum and sum of squares of masked numbers, () each: they add up over processes."""

    number: Tensor
    total: Tensor
    squares: Tensor


def kl_estimate(logp_BA: Tensor, ref_BA: Tensor, estimator: str) -> Tensor:
    """Estimate KL(policy || reference) per token, in nats, from the sampled tokens' log-probabilities.

        d = log pi - log ref      k1 = d      k2 = d^2 / 2      k3 = exp(-d) - 1 + d

    Schulman, "Approximating KL divergence" (2020). k1 is unbiased and may be negative, k3 is unbiased and never is.

    Raises:
        ValueError: Another estimator than k1, k2 or k3.
    """
    difference = logp_BA - ref_BA
    if estimator == "k1":
        return difference
    if estimator == "k2":
        return difference.square() / 2
    if estimator == "k3":
        return torch.expm1(-difference) + difference
    raise ValueError(f"kl_estimator is {estimator!r}; it must be k1, k2 or k3.")


def token_rewards(score_B: Tensor, kl_BA: Tensor, is_answer_BA: Tensor, *, kl_coef: float) -> Tensor:
    """Return the reward per token: the answer's score on its last token, minus the KL penalty on every token.

        r_t = -beta kl_t + [t is the answer's last token] score

    Ziegler et al. 2019 (arXiv 1909.08593), equation 2, with the score on the end token itself; TRL 1.12 puts it on the
    padding after it.

    Args:
        score_B: The reward model's score of each answer.
        kl_BA: KL estimate per token, nats.
        is_answer_BA: True on answer tokens, end token included.
        kl_coef: beta, score units per nat.
    """
    reward_BA = -kl_coef * kl_BA * is_answer_BA
    last_B = is_answer_BA.sum(dim=1) - 1
    rows = torch.arange(len(score_B), device=score_B.device)
    reward_BA[rows, last_B] += score_B
    return reward_BA


def advantages(
    reward_BA: Tensor,
    value_BA: Tensor,
    is_answer_BA: Tensor,
    *,
    gamma: float,
    lam: float,
    after_B: Tensor | None = None,
) -> Advantages:
    """Generalised advantage estimation over each answer.

        delta_t = r_t + gamma V_{t+1} - V_t        A_t = delta_t + gamma lam A_{t+1}        return_t = A_t + V_t

    Schulman et al. 2016 (arXiv 1506.02438), section 3. The value after an answer's last token is zero: nothing follows.
    Where the answer was merely cut off it is `after_B`: partial-episode bootstrapping, Pardo et al. 2018 (arXiv
    1712.00378).

    Args:
        reward_BA: Reward per answer token, in score units.
        value_BA: The critic's value before each answer token.
        is_answer_BA: True on answer tokens, end token included; answers begin at the first position.
        gamma: Discount per token.
        lam: Weight of longer estimates.
        after_B: Value after each answer's last token, score units; None: zero for all.

    Raises:
        ValueError: An answer is empty.
    """
    if not bool(is_answer_BA[:, 0].all()):
        raise ValueError("an answer has no tokens; even an empty answer has its end token")
    value_BA = value_BA * is_answer_BA
    advantage_BA = torch.zeros_like(reward_BA)
    running_B = torch.zeros_like(reward_BA[:, 0])
    next_BA = torch.cat([value_BA[:, 1:], torch.zeros_like(value_BA[:, :1])], dim=1)
    if after_B is not None:
        last_B1 = is_answer_BA.sum(dim=1, keepdim=True) - 1
        next_BA = next_BA.scatter(1, last_B1, after_B.to(value_BA.dtype).unsqueeze(1))
    for step in reversed(range(reward_BA.shape[1])):
        delta_B = reward_BA[:, step] + gamma * next_BA[:, step] - value_BA[:, step]
        running_B = (delta_B + gamma * lam * running_B) * is_answer_BA[:, step]
        advantage_BA[:, step] = running_B
    return Advantages(advantage_BA, (advantage_BA + value_BA) * is_answer_BA)


def moments(x_BA: Tensor, is_counted_BA: Tensor) -> Moments:
    """Return count, sum and sum of squares of the counted numbers, in float64."""
    counted = x_BA[is_counted_BA].double()
    return Moments(torch.tensor(float(counted.numel()), device=x_BA.device).double(), counted.sum(), (counted**2).sum())


def explained_variance(returns: Moments, errors: Moments) -> float:
    """Return the share of the returns' variance that the critic foresaw: 1 exact, 0 no better than their mean.

        1 - Var(R - V) / Var(R)

    "The 37 implementation details of PPO" (ICLR blog 2022), on debug variables.

    Args:
        returns: Moments of the returns R.
        errors: Moments of R - V over the same tokens.
    """
    of_returns = variance_of(returns)
    return 1 - variance_of(errors) / of_returns if of_returns > 0 else 0.0


def variance_of(over: Moments) -> float:
    """Return the variance of what was counted, E[x^2] - E[x]^2, never below zero."""
    return max(0.0, float(over.squares / over.number - (over.total / over.number) ** 2))


def whiten(x_BA: Tensor, is_counted_BA: Tensor, over: Moments, *, shift_mean: bool = True) -> Tensor:
    """Scale to variance 1 and, with `shift_mean`, shift to mean 0; uncounted positions become zero.

        x' = (x - mean) / sqrt(var + 1e-8) (+ mean, without the shift)

    Args:
        x_BA: The numbers.
        is_counted_BA: True where they count.
        over: Moments over everything that shares the scale: all processes' answers.
        shift_mean: False keeps the mean, as reward whitening wants.
    """
    mean = over.total / over.number
    variance = over.squares / over.number - mean**2
    whitened = (x_BA - mean) * torch.rsqrt(variance.clamp(min=0) + 1e-8)
    if not shift_mean:
        whitened = whitened + mean
    return (whitened * is_counted_BA).to(x_BA.dtype)


def policy_loss(
    logp_BA: Tensor,
    old_BA: Tensor,
    advantage_BA: Tensor,
    is_answer_BA: Tensor,
    *,
    cliprange: float,
    cliprange_high: float = 0.0,
    dual_clip: float = 0.0,
) -> PolicyLoss:
    """Return PPO's clipped surrogate, negated and summed over answer tokens.

        ratio = exp(log pi - log pi_old)      loss = max(-A ratio, -A clip(ratio, 1 - eps, 1 + eps_high))
        dual clip, where A < 0:               loss = min(loss, -A c)

    Schulman et al. 2017 (arXiv 1707.06347), equation 7; with eps_high > eps "clip higher", Yu et al. 2025 (DAPO, arXiv
    2503.14476), section 3.1; dual clip: Ye et al. 2020 (arXiv 1912.09729). The log-ratio is held within
    +-20 so that exp stays finite.

    Args:
        logp_BA: Log-probabilities under the policy as it is now, nats.
        old_BA: Those of the policy that sampled.
        advantage_BA: Advantages.
        is_answer_BA: True on answer tokens, end token included.
        cliprange: eps.
        cliprange_high: eps_high; 0 takes eps.
        dual_clip: c, above 1; 0 is off.
    """
    ratio_BA = torch.exp((logp_BA - old_BA).clamp(-20, 20))
    unclipped_BA = -advantage_BA * ratio_BA
    clipped_BA = -advantage_BA * ratio_BA.clamp(1 - cliprange, 1 + (cliprange_high or cliprange))
    loss_BA = torch.maximum(unclipped_BA, clipped_BA)
    is_held_BA = torch.zeros_like(is_answer_BA)
    if dual_clip:
        bound_BA = -advantage_BA * dual_clip
        is_held_BA = (advantage_BA < 0) & (loss_BA > bound_BA) & is_answer_BA
        loss_BA = torch.where(is_held_BA, bound_BA, loss_BA)
    clipped = ((clipped_BA > unclipped_BA) & is_answer_BA).sum()
    return PolicyLoss((loss_BA * is_answer_BA).sum(), clipped, is_held_BA.sum(), ratio_BA)


def value_loss(
    value_BA: Tensor, old_BA: Tensor, return_BA: Tensor, is_answer_BA: Tensor, *, cliprange_value: float
) -> ValueLoss:
    """Return the clipped squared error of the critic, summed over answer tokens.

        loss = 1/2 max((V - R)^2, (V_old + clip(V - V_old, -eps, eps) - R)^2)

    The value clipping of OpenAI's baselines: "The 37 implementation details of PPO" (ICLR blog 2022), detail 9.

    Args:
        value_BA: The critic's values as they are now, score units.
        old_BA: Those of the rollout.
        return_BA: Returns.
        is_answer_BA: True on answer tokens, end token included.
        cliprange_value: eps; 0 leaves the plain squared error.
    """
    free_BA = (value_BA - return_BA).square()
    if not cliprange_value:
        return ValueLoss((0.5 * free_BA * is_answer_BA).sum(), torch.zeros_like(is_answer_BA).sum())
    held_BA = old_BA + (value_BA - old_BA).clamp(-cliprange_value, cliprange_value)
    clipped_BA = (held_BA - return_BA).square()
    loss = (0.5 * torch.maximum(free_BA, clipped_BA) * is_answer_BA).sum()
    return ValueLoss(loss, ((clipped_BA > free_BA) & is_answer_BA).sum())
