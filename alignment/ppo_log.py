"""What is written down of an update: its figures under TRL 1.12's names, and every answer as a record.

Names and units are in docs/notation.md.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from alignment import objective
from alignment.lessons import Lesson, Totals
from alignment.processes import Processes
from alignment.rollout import Measured
from finlm.generation import Answer
from finlm.metrics import append_metrics
from finlm.records import RolloutRecord

COUNTED = ("rollout/policy_steps", "rollout/skipped_steps")
"""Figures of a step that an update adds up; of all others it takes the mean."""


def summary(
    measured: Sequence[Measured], answers: Sequence[Answer], processes: Processes, *, kl_coef: float, kl_estimator: str
) -> dict[str, float]:
    """Return what the rollout itself says, over all processes."""

    def tokens_of(number: Callable[[Measured], Tensor]) -> float:
        return sum(float((number(item) * item.batch.is_answer_BA).sum()) for item in measured)

    local = {
        "answers": float(len(answers)),
        "kl": tokens_of(lambda item: item.old_BA - item.ref_BA),
        "kl_k3": tokens_of(lambda item: objective.kl_estimate(item.old_BA, item.ref_BA, "k3")),
        "penalty": tokens_of(lambda item: objective.kl_estimate(item.old_BA, item.ref_BA, kl_estimator)),
        "entropy": tokens_of(lambda item: item.entropy_BA),
        "score": sum(float(item.score_B.sum()) for item in measured),
        "score2": sum(float(item.score_B.double().square().sum()) for item in measured),
        "raw": sum(float(item.raw_B.sum()) for item in measured),
        "ended": float(sum(answer.ended for answer in answers)),
        "tokens": float(sum(len(answer.ids) for answer in answers)),
        "repetition": sum(repetition(answer.ids) for answer in answers),
    }
    about = [item.disagreement_B for item in measured if item.disagreement_B is not None]
    if about:
        local["disagreement"] = sum(float(disagreement_B.sum()) for disagreement_B in about)
    total = dict(zip(local, processes.sum_all(list(local.values())), strict=True))
    mean = {name: number / total["answers"] for name, number in total.items()}
    several = {"rollout/disagreement": mean["disagreement"]} if about else {}
    return several | {
        "objective/kl": mean["kl"],
        "objective/entropy": mean["entropy"],
        "objective/non_score_reward": -kl_coef * mean["penalty"],
        "objective/rlhf_reward": mean["score"] - kl_coef * mean["penalty"],
        "objective/scores": mean["score"],
        "val/num_eos_tokens": total["ended"],
        "rollout/score_std": max(0.0, mean["score2"] - mean["score"] ** 2) ** 0.5,
        "rollout/raw_score": mean["raw"],
        "rollout/ended_share": mean["ended"],
        "rollout/answer_tokens": mean["tokens"],
        "rollout/repetition_share": mean["repetition"],
        "rollout/kl_coef": kl_coef,
        "rollout/kl_k1": total["kl"] / total["tokens"],
        "rollout/kl_k3": total["kl_k3"] / total["tokens"],
    }


def of_critic(lessons: Sequence[Lesson], processes: Processes) -> dict[str, float]:
    """Return what the rollout says of the critic that valued it, over all processes."""
    masks = [lesson.measured.batch.is_answer_BA for lesson in lessons]
    returns = processes.moments([lesson.return_BA for lesson in lessons], masks)
    errors = processes.moments([lesson.return_BA - lesson.measured.value_BA for lesson in lessons], masks)
    return {
        "rollout/return_mean": float(returns.total / returns.number),
        "rollout/return_var": objective.variance_of(returns),
        "rollout/explained_variance": objective.explained_variance(returns, errors),
    }


def repetition(ids: Sequence[int], length: int = 4) -> float:
    """Return the share of an answer's runs of `length` tokens that stood in it before: 0 none, near 1 a loop."""
    runs = [tuple(ids[start : start + length]) for start in range(len(ids) - length + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def of_step(totals: Totals, processes: Processes, *, answer_tokens: float, learned_tokens: float) -> dict[str, float]:
    """Return the figures of one optimizer step, over all processes.

    Args:
        totals: This process's sums.
        processes: All of them.
        answer_tokens: Answer tokens of the step, over all processes.
        learned_tokens: Mixed-in tokens of the step, over all processes; 0 where nothing is mixed in.
    """
    total = Totals(*processes.sum_all(astuple(totals)))
    mean = Totals(*(number / answer_tokens for number in astuple(total)))
    figures = {
        "loss/policy_avg": mean.policy,
        "loss/value_avg": mean.value,
        "policy/clipfrac_avg": mean.clipped,
        "rollout/dual_clipfrac": mean.dual_clipped,
        "val/clipfrac_avg": mean.value_clipped,
        "policy/approxkl_avg": mean.approxkl,
        "policy/entropy_avg": mean.entropy,
        "val/ratio": mean.ratio,
        "val/ratio_var": max(0.0, mean.ratio2 - mean.ratio**2),
    }
    if learned_tokens:
        figures["rollout/ptx_loss"] = total.ptx / learned_tokens
    return figures


def over_steps(steps: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the figures of an update's optimizer steps: counts added up, the mean of everything else."""
    return {
        name: sum(step[name] for step in steps) / (1 if name in COUNTED else len(steps))
        for name in dict.fromkeys(name for step in steps for name in step)
    }


class Journal:
    """The figures of each update, in `metrics.jsonl` and, where it is installed, for TensorBoard in `tensorboard/`.

    Nothing is made before the first update is written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._board: Any = None

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        if self._board is not None:
            self._board.close()

    def begin_anew(self) -> None:
        """Let the next update be the first of a new part: TensorBoard then shows nothing beyond it of the old one."""
        if self._board is not None:
            self._board.close()
        self._board = None

    def write(self, update: int, metrics: dict[str, float]) -> None:
        """Add an update; one that an earlier start wrote already is overwritten."""
        append_metrics(self._folder / "metrics.jsonl", update, metrics)
        self._board = self._board or _board(self._folder / "tensorboard", first=update)
        if self._board is not None:
            for name, number in metrics.items():
                self._board.add_scalar(name, number, update)
            self._board.flush()


def _board(folder: Path, first: int) -> Any:
    """Return TensorBoard's writer, or None without it; what earlier starts wrote from `first` on is not shown."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=first)


def records(
    update: int,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Answer],
    measured: Sequence[Measured],
    tokenizer: PreTrainedTokenizerBase,
    name_of: Callable[[Sequence[int]], str],
) -> list[RolloutRecord]:
    """Return this process's answers as records, in the order they were sampled in."""
    made: dict[int, RolloutRecord] = {}
    for item in measured:
        kl_B = ((item.old_BA - item.ref_BA) * item.batch.is_answer_BA).sum(dim=1)
        for row, index in enumerate(item.batch.index):
            made[index] = RolloutRecord(
                update=update,
                prompt_id=name_of(prompts[index]),
                prompt=tokenizer.decode(prompts[index]),
                response=answers[index].text(tokenizer),
                score=round(float(item.score_B[row]), 4),
                kl_nats=round(float(kl_B[row]), 4),
                tokens=len(answers[index].ids),
                ended=answers[index].ended,
            )
    return [made[index] for index in sorted(made)]
