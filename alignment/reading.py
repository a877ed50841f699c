"""Reading sampled answers in all four roles: what PPO knows of them before it learns."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial, reduce

import torch
from torch import Tensor

from alignment import rollout
from alignment.critic_start import Moments
from alignment.halving import Halving
from alignment.judges import Judges
from alignment.layouts import Layout
from alignment.ppo_config import PPOConfig
from finlm.generation import Answer
from finlm.scorer import Head


class Reader:
    """Policy, reference, critic and reward models with their heads.

    Args:
        roles: The models.
        args: PPO's settings.
        critic_head: Reads values.
        judges: The reward models' heads.
        pad: Padding token.

    Attributes:
        splits: Micro-batches that found too little memory and were halved.
    """

    def __init__(
        self,
        roles: Layout,
        args: PPOConfig,
        *,
        critic_head: Head,
        judges: Judges,
        pad: int,
    ) -> None:
        self._roles = roles
        self._args = args
        self._critic_head = critic_head
        self._judges = judges
        self._pad = pad
        self._halving = Halving(is_allowed=not roles.is_sharded)

    @property
    def splits(self) -> int:
        """Micro-batches that found too little memory and were halved."""
        return self._halving.splits

    @torch.no_grad()
    def read(
        self, prompts: Sequence[Sequence[int]], answers: Sequence[Answer], *, poll: Callable[[], None]
    ) -> list[rollout.Measured]:
        """Measure all answers, in micro-batches; scores are the reward model's own. `poll` may raise in between."""
        batches = rollout.micro_batches(
            self._roles,
            prompts,
            answers,
            size=self._args.per_device_train_batch_size,
            tokens=self._args.micro_batch_tokens,
            pad=self._pad,
            closing=self._judges.closing,
            device=self._roles.device,
            halving=self._halving,
            poll=poll,
        )
        measured = []
        for batch in batches:
            poll()
            parts = self._halving(batch, partial(self._measure, answers))
            measured.append(rollout.join(parts, batch))
        return measured

    @torch.no_grad()
    def critic_moments(
        self,
        measured: Sequence[rollout.Measured],
        returns: Sequence[Tensor],
        *,
        first: int,
        poll: Callable[[], None],
    ) -> tuple[Moments, Moments]:
        """Return the moments of the critic's states with the returns of even answers and of odd ones.

        Args:
            measured: The answers.
            returns: What they came to from each token on, (B, A) each.
            first: Number of this process's first answer in the whole rollout.
            poll: As in `read`.
        """
        halves: list[list[Moments]] = [[], []]
        for item, return_BA in zip(measured, returns, strict=True):
            poll()
            is_counted_BA = item.batch.is_answer_BA
            if self._args.bootstrap_truncated:
                is_counted_BA = is_counted_BA & ~item.was_cut_B.unsqueeze(1)
            is_odd_B = torch.tensor([(first + place) % 2 == 1 for place in item.batch.index], device=self._roles.device)
            states_BAD = torch.cat(self._halving(item.batch, partial(rollout.critic_states, self._roles)))
            for half, chosen_B in zip(halves, (~is_odd_B, is_odd_B), strict=True):
                chosen_BA = is_counted_BA & chosen_B.unsqueeze(1)
                half.append(Moments.of(states_BAD[chosen_BA], return_BA[chosen_BA]))
        even, odd = (reduce(Moments.plus, half) for half in halves)
        return even, odd

    @torch.no_grad()
    def values_again(self, measured: Sequence[rollout.Measured], *, poll: Callable[[], None]) -> list[rollout.Measured]:
        """Return the answers with the values that the critic's head reads now."""
        found = []
        for item in measured:
            poll()
            read = partial(rollout.values_and_after, self._roles, head=self._critic_head)
            value_BA, after_B = (torch.cat(parts) for parts in zip(*self._halving(item.batch, read), strict=True))
            found.append(
                replace(item, value_BA=value_BA, after_B=None if item.after_B is None else after_B * item.was_cut_B)
            )
        return found

    def _measure(self, answers: Sequence[Answer], batch: rollout.MicroBatch) -> rollout.Measured:
        args, roles = self._args, self._roles
        log_probs = partial(rollout.log_probs, roles, batch, temperature=args.temperature)
        with roles("policy"):
            head_VD = roles.head_VD
            kept_NU = rollout.kept(
                roles, batch, head_VD, temperature=args.temperature, top_p=args.top_p, top_k=args.top_k
            )
            old_BA, entropy_BA = log_probs(head_VD=head_VD, kept_NU=kept_NU)
        with roles("reference"):
            ref_BA, _ = log_probs(head_VD=roles.head_VD, kept_NU=kept_NU)
        after_B = None
        if args.bootstrap_truncated:
            value_BA, after_B = rollout.values_and_after(roles, batch, self._critic_head)
        else:
            value_BA = rollout.values(roles, batch, self._critic_head)
        raw_B, disagreement_B = self._judges.scores(roles, batch)
        was_cut_B = torch.tensor([not answers[index].ended for index in batch.index], device=roles.device)
        if after_B is not None:
            after_B = after_B * was_cut_B
        return rollout.Measured(
            batch,
            old_BA,
            ref_BA,
            value_BA,
            entropy_BA,
            raw_B,
            raw_B,
            was_cut_B,
            after_B=after_B,
            kept_NU=kept_NU,
            disagreement_B=disagreement_B,
        )
