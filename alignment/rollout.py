"""What PPO learns from: sampled answers with everything measured on them. Axes: B answers, A answer tokens."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from alignment.halving import Halving
from alignment.layouts import Layout
from finlm.generation import Answer, pad_right
from finlm.grouping import grouped
from finlm.likelihood import kept_tokens, token_log_probs
from finlm.scorer import Head, last_hidden
from finlm.trunk import Trunk


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
    """Prompt, answer and, where the reward model wants one behind a cut answer, an end token; padded on the right."""
    is_token_BT: Tensor
    lower_BTD: Tensor | None
    """States below every adapter, the same in all roles; None where adapters begin at the first layer."""
    before_BA: Tensor
    """Position in T of the token before each answer token: the state in which it was chosen."""
    answer_BA: Tensor
    """Ids of the answer tokens."""
    is_answer_BA: Tensor
    """True on answer tokens, end token included."""

    def __len__(self) -> int:
        """Number of answers."""
        return len(self.index)

    @property
    def tokens(self) -> int:
        """Size with padding, in tokens."""
        return self.ids_BT.numel()

    def rows(self, start: int, stop: int) -> "MicroBatch":
        """Return some of the answers, padded as before."""
        return _rows(self, start, stop)


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
    """Score as it is paid: normalised, clipped, penalties taken off, (B,)."""
    raw_B: Tensor
    """The reward model's own score, (B,); of several, their mean or minimum."""
    was_cut_B: Tensor
    after_B: Tensor | None = None
    """The critic's value after the last token, (B,); None where no answer's end is bootstrapped."""
    kept_NU: Tensor | None = None
    """Tokens that top-p and top-k left to the policy that sampled, as `finlm.kept` packs them; None where all are."""
    disagreement_B: Tensor | None = None
    """Standard deviation of the reward models' own scores, (B,); None where there is one."""

    def __len__(self) -> int:
        """Number of answers."""
        return len(self.batch)

    @property
    def tokens(self) -> int:
        """Size with padding, in tokens."""
        return self.batch.tokens

    @property
    def tokens_B(self) -> Tensor:
        """Tokens of each answer, end token included."""
        return self.batch.is_answer_BA.sum(dim=1)

    def rows(self, start: int, stop: int) -> "Measured":
        """Return some of the answers, padded as before."""
        part = _rows(replace(self, kept_NU=None), start, stop)
        if self.kept_NU is None:
            return part
        ends = self.batch.is_answer_BA.sum(dim=1).cumsum(dim=0).tolist()
        return replace(part, kept_NU=self.kept_NU[([0, *ends])[start] : ([0, *ends])[stop]])


P = TypeVar("P", MicroBatch, Measured)


def _rows(whole: P, start: int, stop: int) -> P:
    """Cut every field that has one entry per answer."""
    cut: dict[str, Any] = {}
    for one in fields(whole):
        value = getattr(whole, one.name)
        if isinstance(value, MicroBatch):
            cut[one.name] = value.rows(start, stop)
        elif value is not None:
            cut[one.name] = value[start:stop]
    return replace(whole, **cut)


def join(parts: Sequence[Measured], batch: MicroBatch) -> Measured:
    """Return the pieces that a micro-batch was measured in as one again."""
    if len(parts) == 1:
        return replace(parts[0], batch=batch)
    whole: dict[str, Any] = {}
    for one in fields(Measured):
        values = [getattr(part, one.name) for part in parts]
        if one.name != "batch" and values[0] is not None:
            whole[one.name] = torch.cat(values)
    return replace(parts[0], batch=batch, **whole)


def micro_batches(
    roles: Layout,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Answer],
    *,
    size: int,
    pad: int,
    device: torch.device,
    tokens: int = 0,
    closing: int | None = None,
    halving: Halving | None = None,
    poll: Callable[[], None] = lambda: None,
) -> list[MicroBatch]:
    """Group answers of similar length into micro-batches.

    Args:
        roles: The model.
        prompts: Token ids of each prompt.
        answers: One for each.
        size: Answers of a micro-batch at most.
        pad: Padding token.
        device: Where they go.
        tokens: Tokens of a micro-batch at most, padding included, unless a single answer has more; 0 is no limit.
        closing: End token that is put behind cut answers, for the score alone: it is no part of the answer, and no
            token before it sees it. None: nothing is.
        halving: What to do where memory is short.
        poll: Called before each micro-batch; may raise.
    """
    halving = halving or Halving()
    rows = [
        [*prompt, *answer.ids, *([closing] if closing is not None and not answer.ended else [])]
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    batches = []
    for index in grouped([len(row) for row in rows], size=size, tokens=tokens):
        poll()
        ids_BT, is_token_BT = pad_right([rows[i] for i in index], pad, device)
        answer_BA, is_answer_BA = pad_right([answers[i].ids for i in index], pad, device)
        first_B1 = torch.tensor([[len(prompts[i]) - 1] for i in index], device=device)
        before_BA = first_B1 + torch.arange(answer_BA.shape[1], device=device)
        before_BA = before_BA.clamp(max=ids_BT.shape[1] - 1)
        batch = MicroBatch(tuple(index), ids_BT, is_token_BT, None, before_BA, answer_BA, is_answer_BA)
        trunk = roles.trunk
        if trunk is not None and trunk.depth:
            lower = halving(batch, partial(_lower, trunk))
            batch = replace(batch, lower_BTD=torch.cat(lower) if len(lower) > 1 else lower[0])
        batches.append(batch)
    return batches


def _lower(trunk: Trunk, batch: MicroBatch) -> Tensor:
    return trunk.states(batch.ids_BT, batch.is_token_BT)


def _hidden(roles: Layout, batch: MicroBatch) -> Tensor:
    """Hidden states (B, T, D) in the role that is on."""
    if batch.lower_BTD is None or roles.trunk is None:
        return last_hidden(roles.model, batch.ids_BT, batch.is_token_BT)
    return roles.trunk.finish(batch.lower_BTD, batch.is_token_BT)


def _before(hidden_BTD: Tensor, batch: MicroBatch) -> Tensor:
    """Hidden states (B, A, D) in which the answer tokens were chosen."""
    return hidden_BTD.gather(1, batch.before_BA.unsqueeze(-1).expand(-1, -1, hidden_BTD.shape[-1]))


def _at(hidden_BTD: Tensor, position_B: Tensor) -> Tensor:
    """Hidden states (B, D) at one position of each row."""
    return hidden_BTD[torch.arange(len(position_B), device=position_B.device), position_B]


def log_probs(
    roles: Layout,
    batch: MicroBatch,
    head_VD: Tensor,
    *,
    temperature: float,
    kept_NU: Tensor | None = None,
    entropy_learns: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return log-probabilities and entropies of the answer tokens under the role that is on, (B, A) each, float32.

    Args:
        roles: The model.
        batch: The answers.
        head_VD: The output embedding.
        temperature: Divides the logits.
        kept_NU: Tokens among which the policy that sampled chose, packed; None: all.
        entropy_learns: True if the entropies carry gradient.
    """
    states_ND = _before(_hidden(roles, batch), batch)[batch.is_answer_BA]
    tokens_N = batch.answer_BA[batch.is_answer_BA]
    logp_N, entropy_N = token_log_probs(
        states_ND, tokens_N, head_VD, temperature=temperature, kept_NU=kept_NU, entropy_learns=entropy_learns
    )
    empty_BA = torch.zeros(batch.answer_BA.shape, device=states_ND.device)
    return empty_BA.masked_scatter(batch.is_answer_BA, logp_N), empty_BA.masked_scatter(batch.is_answer_BA, entropy_N)


def kept(
    roles: Layout, batch: MicroBatch, head_VD: Tensor, *, temperature: float, top_p: float, top_k: int
) -> Tensor | None:
    """Return which tokens top-p and top-k leave at each answer token to the role that is on, packed; None: all."""
    if top_p == 1 and not top_k:
        return None
    states_ND = _before(_hidden(roles, batch), batch)[batch.is_answer_BA]
    tokens_N = batch.answer_BA[batch.is_answer_BA]
    return kept_tokens(states_ND, tokens_N, head_VD, temperature=temperature, top_p=top_p, top_k=top_k)


def values(roles: Layout, batch: MicroBatch, head: Head) -> Tensor:
    """Return the critic's value before each answer token, (B, A), float32, zero off the answers."""
    return values_and_after(roles, batch, head)[0]


def values_and_after(roles: Layout, batch: MicroBatch, head: Head) -> tuple[Tensor, Tensor]:
    """Return what `values` does, and the critic's value after each answer's last token, (B,), float32."""
    with roles("critic"):
        hidden_BTD = _hidden(roles, batch)
        value_BA: Tensor = head(_before(hidden_BTD, batch))
        after_B: Tensor = head(_at(hidden_BTD, batch.before_BA[:, 0] + batch.is_answer_BA.sum(dim=1)))
    return value_BA * batch.is_answer_BA, after_B


def critic_states(roles: Layout, batch: MicroBatch) -> Tensor:
    """Return the critic's hidden states in which the answer tokens were chosen, (B, A, D)."""
    with roles("critic"):
        return _before(_hidden(roles, batch), batch)


def scores(roles: Layout, batch: MicroBatch, head: Head, *, member: int = 0) -> Tensor:
    """Return the reward model's score at each row's last token, (B,), float32: the answer's, or the one closing it.

    `member` is the reward model's number, `head` its head.
    """
    with roles("reward", member):
        hidden_BTD = _hidden(roles, batch)
    score_B: Tensor = head(_at(hidden_BTD, batch.is_token_BT.sum(dim=1) - 1))
    return score_B
