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

from alignment.rollout import Measured, MicroBatch
from finlm import jsonl


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


def is_finite(measured: Measured) -> bool:
    """True if every number that was measured on the answers is finite."""
    return all(bool(torch.isfinite(numbers).all()) for _, numbers in _numbers(measured))


def _numbers(measured: Measured) -> list[tuple[str, Tensor]]:
    named = (
        ("The reward model scores an answer", measured.raw_B),
        ("The policy gives a token the log-probability", measured.old_BA),
        ("The reference gives a token the log-probability", measured.ref_BA),
        ("The critic values an answer", measured.value_BA),
        ("The critic values an answer's end", measured.after_B),
    )
    return [(words, numbers) for words, numbers in named if numbers is not None]


def said_of(measured: Measured) -> str:
    """Say which number is not finite, whose it is and what it is."""
    for words, numbers in _numbers(measured):
        unusable_N = numbers[torch.isfinite(numbers).logical_not()]
        if len(unusable_N):
            return f"{words} {float(unusable_N[0])}"
    raise ValueError("all numbers are finite")


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
