"""The gradients of one optimizer step, micro-batch by micro-batch, in halves where memory is short."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn

from alignment import lessons, ptx
from alignment.halving import Halving
from alignment.layouts import Layout
from alignment.lessons import Lesson, Part, Totals
from alignment.ppo_config import PPOConfig
from finlm.scorer import Head


class Gradients:
    """Policy and critic with what they learn by.

    Attributes:
        policy: The policy's parameters.
        critic: The critic's, head included.
    """

    def __init__(self, roles: Layout, args: PPOConfig, *, critic_head: Head) -> None:
        self.policy: list[nn.Parameter] = list(roles.parameters("policy").values())
        self.critic: list[nn.Parameter] = [*roles.parameters("critic").values(), *critic_head.parameters()]
        self._roles = roles
        self._args = args
        self._critic_head = critic_head
        # each has its own limit: a pass with gradients through the vocabulary needs more than one to a single number
        self._halvings = {name: Halving(is_allowed=not roles.is_sharded) for name in ("policy", "critic", "ptx")}

    @property
    def splits(self) -> int:
        """Micro-batches that found too little memory and were halved."""
        return sum(halving.splits for halving in self._halvings.values())

    def add(
        self,
        batch: Sequence[Lesson],
        mixed: Sequence[ptx.Mixed],
        *,
        answer_tokens: float,
        learned_tokens: float,
        policy_learns: bool,
        poll: Callable[[], None],
    ) -> Totals:
        """Add the gradients of a mini-batch to the parameters'; return this process's sums.

        Args:
            batch: The mini-batch's micro-batches on this process.
            mixed: What is mixed in on this process.
            answer_tokens: Answer tokens of the step, over all processes.
            learned_tokens: Mixed-in learned tokens of the step, over all processes.
            policy_learns: False leaves the policy alone.
            poll: Called before each micro-batch; may raise.
        """
        totals, policy = Totals(), self.policy if policy_learns else []
        for lesson in batch:
            poll()
            of_policy = partial(self._of_policy, parameters=policy, answer_tokens=answer_tokens)
            totals += lessons.add(self._halvings["policy"](lesson, of_policy), policy)
            of_critic = partial(self._of_critic, answer_tokens=answer_tokens)
            totals += lessons.add(self._halvings["critic"](lesson, of_critic), self.critic)
        for samples in mixed:
            poll()
            of_mixed = partial(self._of_mixed, learned_tokens=learned_tokens)
            totals += lessons.add(self._halvings["ptx"](samples, of_mixed), policy)
        return totals

    def first_not_finite(self, batch: Sequence[Lesson], *, answer_tokens: float) -> Lesson | None:
        """Return the first micro-batch of this process that gives a loss or gradient which is not finite, if any.

        Gradients of shards are those of all processes: each then returns the micro-batch of the same place.
        """
        found = None
        for lesson in batch:  # to the end: with shards all processes must run the same passes
            parts = (
                self._of_policy(lesson, parameters=self.policy, answer_tokens=answer_tokens),
                self._of_critic(lesson, answer_tokens=answer_tokens),
            )
            if found is None and not all(part.is_finite for part in parts):
                found = lesson
        return found

    def _of_policy(self, lesson: Lesson, *, parameters: Sequence[nn.Parameter], answer_tokens: float) -> Part:
        return lessons.of_policy(self._roles, lesson, parameters, self._args, answer_tokens=answer_tokens)

    def _of_critic(self, lesson: Lesson, *, answer_tokens: float) -> Part:
        return lessons.of_critic(
            self._roles, lesson, self._critic_head, self.critic, self._args, answer_tokens=answer_tokens
        )

    def _of_mixed(self, samples: ptx.Mixed, *, learned_tokens: float) -> Part:
        coefficient = self._args.ptx_coef
        return ptx.gradients(self._roles, samples, self.policy, coefficient=coefficient, learned_tokens=learned_tokens)


def norm(parameters: Sequence[nn.Parameter], *, clip: float) -> float:
    """Clip the gradients of all parameters together to a norm (0: not at all); return the norm before."""
    return float(torch.nn.utils.clip_grad_norm_(list(parameters), clip or float("inf")))
