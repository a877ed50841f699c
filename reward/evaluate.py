"""The few figures of a reward model that its run's record and closing line hold; `reward.findings` has them all."""

from collections import defaultdict
from collections.abc import Sequence

import torch

from reward.groups import Group
from reward.judged import Judged


def test_report(groups: Sequence[Group], records: Sequence[Judged]) -> dict[str, float | dict[str, float]]:
    """Return what the scores say of the comparisons.

    Args:
        groups: The judged groups.
        records: Their comparisons with their scores, in the same order.

    Returns:
        `test_accuracy`, `margin` (mean of chosen minus rejected), `mean` and `std` of all answers' scores (each answer
        once), `longer_accuracy`, `test_pairs`, and `accuracy_by_fault`.
    """
    comparisons = [(group, one) for group in groups for one in group.comparisons]
    by_answer: dict[tuple[str, int], float] = {}
    by_fault: dict[str, list[float]] = defaultdict(list)
    for (_, one), record in zip(comparisons, records, strict=True):
        by_answer[record.prompt_id, one.better] = record.better
        by_answer[record.prompt_id, one.worse] = record.worse
        by_fault[one.pair.rejected_fault or "unknown"].append(record.hit)
    scores = torch.tensor(list(by_answer.values()), dtype=torch.float64)
    longer = [record.scored(record.better_tokens, record.worse_tokens).hit for record in records]
    return {
        "test_accuracy": _mean([record.hit for record in records]),
        "margin": _mean([record.lead for record in records]),
        "mean": float(scores.mean()),
        "std": float(scores.std()),
        "longer_accuracy": _mean(longer),
        "test_pairs": len(records),
        "accuracy_by_fault": {fault: round(_mean(hits), 4) for fault, hits in sorted(by_fault.items())},
    }


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)
