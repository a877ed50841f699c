"""What PPO learns from: sampled answers with everything measured on them. Axes: B answers, A answer tokens."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alignment.roles import Roles
from finlm.generation import Answer, pad_right
from finlm.likelihood import token_log_probs
from finlm.scorer import Head, last_hidden


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Answers that pass through the model together, the same ones in every pass, so that equal weights give equal
    numbers to the bit.

    Example:
        MicroBatch(index=(4, 0), ids_BT=…, is_token_BT=…, lower_BTD=None, before_BA=…, answer_BA=…, is_answer_BA=…)
    """

    index: tuple[int, ...]
    """Places of the answers in the rollout."""
    ids_BT: Tensor
    """Prompt and answer, padded on the right."""
    is_token_BT: Tensor
    lower_BTD: Tensor | None
    """States below every adapter, the same in all roles; None where adapters begin at the first layer."""
    before_BA: Tensor
    """Position in T of the token before each answer token: the state in which it was chosen."""
    answer_BA: Tensor
    """Ids of the answer tokens."""
    is_answer_BA: Tensor
    """True on answer tokens, end token included."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One micro-batch of a rollout with what was measured before learning; (B, A) unless said otherwise."""

    batch: MicroBatch
    old_BA: Tensor
    """Log-probabilities of the policy that sampled, by the training path."""
    ref_BA: Tensor
    """Log-probabilities of the reference."""
    value_BA: Tensor
    entropy_BA: Tensor
    score_B: Tensor
    """Score with clipping and penalty, (B,)."""


def micro_batches(
    roles: Roles,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Answer],
    *,
    size: int,
    pad: int,
    device: torch.device,
) -> list[MicroBatch]:
    """Group answers of similar length into micro-batches of `size`."""
    lengths = [len(prompt) + len(answer.ids) for prompt, answer in zip(prompts, answers, strict=True)]
    order = sorted(range(len(answers)), key=lambda index: (lengths[index], index))
    batches = []
    for start in range(0, len(order), size):
        index = order[start : start + size]
        ids_BT, is_token_BT = pad_right([[*prompts[i], *answers[i].ids] for i in index], pad, device)
        answer_BA, is_answer_BA = pad_right([answers[i].ids for i in index], pad, device)
        first_B1 = torch.tensor([[len(prompts[i]) - 1] for i in index], device=device)
        before_BA = first_B1 + torch.arange(answer_BA.shape[1], device=device)
        before_BA = before_BA.clamp(max=ids_BT.shape[1] - 1)
        lower_BTD = roles.trunk.states(ids_BT, is_token_BT) if roles.trunk.depth else None
        batches.append(MicroBatch(tuple(index), ids_BT, is_token_BT, lower_BTD, before_BA, answer_BA, is_answer_BA))
    return batches


def _hidden(roles: Roles, batch: MicroBatch) -> Tensor:
    """Hidden states (B, T, D) in the role that is on."""
    if batch.lower_BTD is None:
        return last_hidden(roles.model, batch.ids_BT, batch.is_token_BT)
    return roles.trunk.finish(batch.lower_BTD, batch.is_token_BT)


def _states(roles: Roles, batch: MicroBatch) -> Tensor:
    """Hidden states (B, A, D) in which the answer tokens were chosen, in the role that is on."""
    hidden_BTD = _hidden(roles, batch)
    return hidden_BTD.gather(1, batch.before_BA.unsqueeze(-1).expand(-1, -1, hidden_BTD.shape[-1]))


def log_probs(roles: Roles, batch: MicroBatch, head_VD: Tensor, *, temperature: float) -> tuple[Tensor, Tensor]:
    """Return log-probabilities and entropies of the answer tokens under the role that is on, (B, A) each, float32."""
    states_ND = _states(roles, batch)[batch.is_answer_BA]
    tokens_N = batch.answer_BA[batch.is_answer_BA]
    logp_N, entropy_N = token_log_probs(states_ND, tokens_N, head_VD, temperature=temperature)
    empty_BA = torch.zeros(batch.answer_BA.shape, device=states_ND.device)
    return empty_BA.masked_scatter(batch.is_answer_BA, logp_N), empty_BA.masked_scatter(batch.is_answer_BA, entropy_N)


def values(roles: Roles, batch: MicroBatch, head: Head) -> Tensor:
    """Return the critic's value before each answer token, (B, A), float32, zero off the answers."""
    with roles("critic"):
        value_BA: Tensor = head(_states(roles, batch))
    return value_BA * batch.is_answer_BA


def scores(roles: Roles, batch: MicroBatch, head: Head) -> Tensor:
    """Return the reward model's score at each answer's last token, (B,), float32."""
    with roles("reward"):
        hidden_BTD = _hidden(roles, batch)
    last_B = batch.is_token_BT.sum(dim=1) - 1
    score_B: Tensor = head(hidden_BTD[torch.arange(len(last_B), device=last_B.device), last_B])
    return score_B
