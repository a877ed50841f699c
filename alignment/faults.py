"""Numbers that are not finite: the micro-batch they came from, kept for whoever looks into it.

<run>/faults/
    update-00003-process-0.jsonl          one FaultyAnswer a line
    update-00003-process-0.safetensors    the micro-batch's tensors, under their names with axes
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from alignment.lessons import Lesson
from alignment.processes import Processes
from alignment.rollout import Measured, MicroBatch
from finlm import jsonl
from finlm.errors import UserError


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultyAnswer:
    """One answer of a micro-batch that gave numbers which are not finite; such a number is written as null.

    Example:
        FaultyAnswer(reason="the critic's gradient norm is nan", update=3, prompt_ids=(5, 9), answer_ids=(7, 1),
                     ended=True, score=0.4, log_probs=(-1.2, -0.1), ref_log_probs=(-1.3, -0.1),
                     values=(0.2, None), advantages=(0.5, None))
    """

    reason: str
    update: int
    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]
    ended: bool
    score: float | None
    log_probs: tuple[float | None, ...]
    """Log-probabilities of the answer's tokens under the policy that sampled, nats."""
    ref_log_probs: tuple[float | None, ...]
    values: tuple[float | None, ...]
    advantages: tuple[float | None, ...] = ()
    """Empty where the fault came before they were computed."""


def refuse_measured(measured: Sequence[Measured], processes: Processes, folder: Path, *, update: int) -> None:
    """Stop all processes if one of them measured a number that is not finite.

    Raises:
        UserError: On every process; those that measured it say where it is kept.
    """
    faulty = next((item for item in measured if said_of(item) is not None), None)
    if not processes.any(faulty is not None):
        return
    what = (said_of(faulty) if faulty else None) or "Another process measured a number that is not finite"
    where = _kept(folder, faulty, reason=what, update=update, process=processes.index)
    raise UserError(
        f"{what}; no step was taken. Look for damaged weights in the reward model or in the policy's base.{where}"
    )


def refuse_step(what: str, lesson: Lesson | None, processes: Processes, folder: Path, *, update: int) -> None:
    """Stop before an optimizer step.

    Args:
        what: What is not finite.
        lesson: The micro-batch of this process that it came from; None where it came from another process.
        processes: All of them.
        folder: The run's folder.
        update: The update's number.

    Raises:
        UserError: Always.
    """
    learned = {"advantage_BA": lesson.advantage_BA, "return_BA": lesson.return_BA} if lesson else {}
    measured = lesson.measured if lesson else None
    where = _kept(folder, measured, reason=what, update=update, process=processes.index, learned=learned)
    raise UserError(
        f"{what}; no step was taken and the weights keep their last values. Lower the learning rate or look at the "
        f"last rollouts.{where}"
    )


def said_of_figures(figures: Mapping[str, float]) -> str | None:
    """Say which figure of a step is not finite, gradients first; None if all are."""
    named = {"policy's gradient norm": "policy/grad_norm", "critic's gradient norm": "val/grad_norm"}
    named |= {name: name for name in figures}
    for words, name in named.items():
        if not math.isfinite(figures[name]):
            return f"The {words} is {figures[name]}"
    return None


def said_of(measured: Measured) -> str | None:
    """Say which number that was measured is not finite, whose it is and what it is; None if all are finite."""
    named = (
        ("The reward model scores an answer", measured.raw_B),
        ("The policy gives a token the log-probability", measured.old_BA),
        ("The reference gives a token the log-probability", measured.ref_BA),
        ("The critic values an answer", measured.value_BA),
        ("The critic values an answer's end", measured.after_B),
    )
    for words, numbers in named:
        if numbers is not None:
            unusable_N = numbers[torch.isfinite(numbers).logical_not()]
            if len(unusable_N):
                return f"{words} {float(unusable_N[0])}"
    return None


def _kept(
    folder: Path,
    measured: Measured | None,
    *,
    reason: str,
    update: int,
    process: int,
    learned: Mapping[str, Tensor] | None = None,
) -> str:
    """Write a faulty micro-batch down; return a sentence that says where."""
    if measured is None:
        return ""
    path = keep(folder, measured, reason=reason, update=update, process=process, learned=learned)
    return f" The micro-batch with answers {', '.join(map(str, measured.batch.index))} of the rollout is in {path}."


def keep(
    folder: Path,
    measured: Measured,
    *,
    reason: str,
    update: int,
    process: int,
    learned: Mapping[str, Tensor] | None = None,
) -> Path:
    """Write a micro-batch below `<folder>/faults`, in a table to read and as tensors to compute with.

    Args:
        folder: The run's folder.
        measured: The micro-batch.
        reason: What was not finite.
        update: The update's number.
        process: This process's number.
        learned: Further tensors (B, A) by name, above all `advantage_BA`.

    Returns:
        The path of the table; the tensors lie beside it.
    """
    path = folder / "faults" / f"update-{update:05d}-process-{process}.jsonl"
    learned = dict(learned or {})
    batch = measured.batch
    rows = []
    for row in range(len(batch)):
        tokens = int(batch.is_answer_BA[row].sum())  # answers begin at the first place
        ids = batch.ids_BT[row][batch.is_token_BT[row]].tolist()
        advantage_BA = learned.get("advantage_BA")
        rows.append(
            FaultyAnswer(
                reason=reason,
                update=update,
                prompt_ids=tuple(ids[:-tokens]),
                answer_ids=tuple(ids[-tokens:]),
                ended=not bool(measured.was_cut_B[row]),
                score=_plain([float(measured.score_B[row])])[0],
                log_probs=_plain(measured.old_BA[row, :tokens].tolist()),
                ref_log_probs=_plain(measured.ref_BA[row, :tokens].tolist()),
                values=_plain(measured.value_BA[row, :tokens].tolist()),
                advantages=() if advantage_BA is None else _plain(advantage_BA[row, :tokens].tolist()),
            )
        )
    jsonl.write(path, rows)
    tensors = {**_tensors(batch), **_tensors(measured), **learned}
    save_file(
        {name: one.detach().cpu().clone().contiguous() for name, one in tensors.items()},
        path.with_suffix(".safetensors"),
    )
    return path


def _plain(numbers: Sequence[float]) -> tuple[float | None, ...]:
    return tuple(number if math.isfinite(number) else None for number in numbers)


def _tensors(record: MicroBatch | Measured) -> dict[str, Tensor]:
    named = {one.name: getattr(record, one.name) for one in fields(record)}
    return {name: value for name, value in named.items() if isinstance(value, Tensor)}
