"""From what was measured of answers to what is learned from them: rewards, returns, advantages. Axes: B, A."""

from collections.abc import Sequence

import torch
from torch import Tensor

from alignment import objective, reward_shaping, rollout
from alignment.lessons import Lesson
from alignment.ppo_config import PPOConfig
from alignment.processes import Processes


class Credits:
    """Gives every answer token its due.

    Args:
        args: PPO's settings.
        processes: All processes, whose answers share one scale.
    """

    def __init__(self, args: PPOConfig, processes: Processes) -> None:
        self._args = args
        self._processes = processes

    def lessons(self, measured: Sequence[rollout.Measured], *, kl_coef: float) -> list[Lesson]:
        """Return advantages, whitened over all processes, and returns of each micro-batch."""
        rewards, masks = self._rewards(measured, kl_coef), [item.batch.is_answer_BA for item in measured]
        estimates = [
            self._estimate(reward_BA, item.value_BA, item, lam=self._args.lam)
            for reward_BA, item in zip(rewards, measured, strict=True)
        ]
        over = self._processes.moments([estimate.advantage_BA for estimate in estimates], masks)
        return [
            Lesson(item, objective.whiten(estimate.advantage_BA, mask, over), estimate.return_BA)
            for item, estimate, mask in zip(measured, estimates, masks, strict=True)
        ]

    def returns(self, measured: Sequence[rollout.Measured], *, kl_coef: float) -> list[Tensor]:
        """Return what each answer came to from every token on, (B, A) each, whatever the critic says."""
        return [
            self._estimate(reward_BA, torch.zeros_like(reward_BA), item, lam=1.0).return_BA
            for reward_BA, item in zip(self._rewards(measured, kl_coef), measured, strict=True)
        ]

    def _rewards(self, measured: Sequence[rollout.Measured], kl_coef: float) -> list[Tensor]:
        """The reward of every answer token, (B, A)."""
        rewards = [
            objective.token_rewards(
                self._paid(item),
                objective.kl_estimate(item.old_BA, item.ref_BA, self._args.kl_estimator),
                item.batch.is_answer_BA,
                kl_coef=kl_coef,
            )
            for item in measured
        ]
        if not self._args.whiten_rewards:
            return rewards
        masks = [item.batch.is_answer_BA for item in measured]
        over = self._processes.moments(rewards, masks)
        return [
            objective.whiten(reward, mask, over, shift_mean=False) for reward, mask in zip(rewards, masks, strict=True)
        ]

    def _paid(self, item: rollout.Measured) -> Tensor:
        """The scores (B,) as rewards: those of cut-off answers come from the critic where they are bootstrapped."""
        if not self._args.bootstrap_truncated:
            return item.score_B
        return reward_shaping.unfinished(item.score_B, item.tokens_B, item.was_cut_B, self._args.shaping)

    def _estimate(
        self, reward_BA: Tensor, value_BA: Tensor, item: rollout.Measured, *, lam: float
    ) -> objective.Advantages:
        """Estimate on the CPU: token by token, a GPU would be launched thousands of times for a few numbers each."""
        after_B = None if item.after_B is None else item.after_B.cpu()
        given = (reward_BA.cpu(), value_BA.cpu(), item.batch.is_answer_BA.cpu())
        found = objective.advantages(*given, gamma=self._args.gamma, lam=lam, after_B=after_B)
        return objective.Advantages(*(numbers.to(reward_BA.device) for numbers in found))
