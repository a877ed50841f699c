"""The gradients of one micro-batch: what policy and critic learn from it. Axes: B answers, A answer tokens.

Gradients are computed whole before any is added, so that a micro-batch that finds no memory leaves nothing half-added.
"""

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass

from torch import Tensor, nn

from alignment import objective, rollout
from alignment.layouts import Layout
from alignment.ppo_config import PPOConfig
from finlm.scorer import Head


@dataclass(frozen=True, slots=True)
class Lesson:
    """One micro-batch ready to learn from."""

    measured: rollout.Measured
    advantage_BA: Tensor
    return_BA: Tensor

    def __len__(self) -> int:
        """Number of answers."""
        return len(self.measured)

    @property
    def tokens(self) -> int:
        """Size with padding, in tokens."""
        return self.measured.tokens

    @property
    def answer_tokens(self) -> float:
        """Number of answer tokens."""
        return float(self.measured.batch.is_answer_BA.sum())

    def rows(self, start: int, stop: int) -> "Lesson":
        """Return some of the answers, padded as before."""
        measured = self.measured.rows(start, stop)
        return Lesson(measured, self.advantage_BA[start:stop], self.return_BA[start:stop])


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over answer tokens, for the log and the guards; they add up over micro-batches and processes."""

    policy: float = 0.0
    value: float = 0.0
    clipped: float = 0.0
    dual_clipped: float = 0.0
    value_clipped: float = 0.0
    approxkl: float = 0.0
    entropy: float = 0.0
    ratio: float = 0.0
    ratio2: float = 0.0
    ptx: float = 0.0
    """Negative log-likelihood of the mixed-in rows, nats."""

    def __add__(self, other: "Totals") -> "Totals":
        """Return the sums of both."""
        return Totals(*(one + another for one, another in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True, slots=True)
class Part:
    """What a piece of a micro-batch gives: gradients in the order of the parameters, and its sums."""

    gradients: tuple[Tensor | None, ...]
    totals: Totals

    @property
    def is_finite(self) -> bool:
        """True if all numbers are."""
        gradients = [one for one in self.gradients if one is not None]
        return all(map(math.isfinite, astuple(self.totals))) and all(bool(one.isfinite().all()) for one in gradients)


def of_policy(
    roles: Layout,
    lesson: Lesson,
    parameters: Sequence[nn.Parameter],
    args: PPOConfig,
    *,
    answer_tokens: float,
) -> Part:
    """Return the policy's gradients of its loss and entropy bonus, divided by the tokens of the whole step.

    Without parameters the policy stands still: it is what it was when the answers were measured, and nothing is run.
    """
    item, mask_BA = lesson.measured, lesson.measured.batch.is_answer_BA
    logp_BA, entropy_BA = item.old_BA, item.entropy_BA
    if parameters:
        with roles("policy"):
            logp_BA, entropy_BA = rollout.log_probs(
                roles,
                item.batch,
                roles.head_VD,
                temperature=args.temperature,
                kept_NU=item.kept_NU,
                entropy_learns=args.entropy_coef != 0,
            )
    policy = objective.policy_loss(
        logp_BA,
        item.old_BA,
        lesson.advantage_BA,
        mask_BA,
        cliprange=args.cliprange,
        cliprange_high=args.cliprange_high,
        dual_clip=args.dual_clip,
    )
    loss = policy.loss
    if args.entropy_coef:
        loss = loss - args.entropy_coef * (entropy_BA * mask_BA).sum()
    ratio_N = policy.ratio_BA.detach()[mask_BA]
    totals = Totals(
        policy=float(policy.loss.detach()),
        clipped=float(policy.clipped),
        dual_clipped=float(policy.dual_clipped),
        approxkl=float(0.5 * (logp_BA.detach() - item.old_BA)[mask_BA].square().sum()),
        entropy=float(entropy_BA.detach()[mask_BA].sum()),
        ratio=float(ratio_N.sum()),
        ratio2=float(ratio_N.double().square().sum()),
    )
    return Part(_gradients(roles, loss / answer_tokens, parameters), totals)


def of_critic(
    roles: Layout,
    lesson: Lesson,
    head: Head,
    parameters: Sequence[nn.Parameter],
    args: PPOConfig,
    *,
    answer_tokens: float,
) -> Part:
    """Return the critic's gradients of its weighted loss, divided by the tokens of the whole step."""
    item = lesson.measured
    value_BA = rollout.values(roles, item.batch, head)
    value = objective.value_loss(
        value_BA, item.value_BA, lesson.return_BA, item.batch.is_answer_BA, cliprange_value=args.cliprange_value
    )
    totals = Totals(value=float(value.loss.detach()), value_clipped=float(value.clipped))
    return Part(_gradients(roles, args.vf_coef * value.loss / answer_tokens, parameters), totals)


def _gradients(roles: Layout, loss: Tensor, parameters: Sequence[nn.Parameter]) -> tuple[Tensor | None, ...]:
    return roles.gradients(loss, list(parameters)) if parameters else ()


def add(parts: Sequence[Part], parameters: Sequence[nn.Parameter]) -> Totals:
    """Add the gradients of pieces to those of the parameters, and return the pieces' sums together."""
    totals = Totals()
    for part in parts:
        totals += part.totals
        for parameter, gradient in zip(parameters, part.gradients, strict=bool(part.gradients)):
            if gradient is not None:
                parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
    return totals
