"""What is written down of a rollout: its figures under TRL 1.12's names, and every answer as a record."""

from collections.abc import Callable, Sequence

from transformers import PreTrainedTokenizerBase

from alignment import objective
from alignment.processes import Processes
from alignment.rollout import Measured
from finlm.generation import Answer
from finlm.records import RolloutRecord


def summary(
    measured: Sequence[Measured], answers: Sequence[Answer], processes: Processes, *, kl_coef: float, kl_estimator: str
) -> dict[str, float]:
    """Return what the rollout itself says, over all processes; names and units are in docs/notation.md."""

    def total(of: Callable[[Measured], float]) -> float:
        return processes.sum(sum(of(item) for item in measured))

    def penalty_of(item: Measured) -> float:
        estimate_BA = objective.kl_estimate(item.old_BA, item.ref_BA, kl_estimator)
        return float((estimate_BA * item.batch.is_answer_BA).sum())

    count = processes.sum(float(len(answers)))
    kl = total(lambda item: float(((item.old_BA - item.ref_BA) * item.batch.is_answer_BA).sum())) / count
    penalty = total(penalty_of) / count
    scores = total(lambda item: float(item.score_B.sum())) / count
    entropy = total(lambda item: float((item.entropy_BA * item.batch.is_answer_BA).sum())) / count
    squares = total(lambda item: float(item.score_B.double().square().sum())) / count
    ended = processes.sum(float(sum(answer.ended for answer in answers)))
    return {
        "objective/kl": kl,
        "objective/entropy": entropy,
        "objective/non_score_reward": -kl_coef * penalty,
        "objective/rlhf_reward": scores - kl_coef * penalty,
        "objective/scores": scores,
        "rollout/score_std": max(0.0, squares - scores**2) ** 0.5,
        "val/num_eos_tokens": ended,
        "rollout/ended_share": ended / count,
        "rollout/answer_tokens": processes.sum(float(sum(len(answer.ids) for answer in answers))) / count,
    }


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
