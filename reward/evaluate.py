"""Honest figures of a reward model: on held-out groups, beside the baseline that always prefers the longer answer."""

from collections import defaultdict
from collections.abc import Sequence

import torch

from reward.groups import Group


def accuracy(chosen_N: torch.Tensor, rejected_N: torch.Tensor) -> float:
    """Share of pairs in which the chosen answer scores higher; a tie counts half."""
    wins = (chosen_N > rejected_N).double() + 0.5 * (chosen_N == rejected_N).double()
    return float(wins.mean())


def test_report(groups: Sequence[Group], scores: Sequence[Sequence[float]], *, tested: int) -> dict[str, object]:
    """Return what scores of all answers say of the comparisons.

    Args:
        groups: The judged groups.
        scores: Of each group's answers, in their order.
        tested: How many of the comparisons were held out.

    Returns:
        `test_accuracy`, `margin` (mean of chosen minus rejected), `mean` and `std` of all answers' scores (each answer
        once), `longer_accuracy`,
        `test_pairs`, and `accuracy_by_fault`.
    """
    rows = [
        (its[one.better], its[one.worse], len(group.answers[one.better]), len(group.answers[one.worse]))
        for group, its in zip(groups, scores, strict=True)
        for one in group.comparisons
    ]
    faults = [one.pair.rejected_fault or "unknown" for group in groups for one in group.comparisons]
    chosen, rejected, chosen_tokens, rejected_tokens = torch.tensor(rows, dtype=torch.float64).T
    flat = torch.tensor([score for its in scores for score in its], dtype=torch.float64)
    by_fault: dict[str, list[int]] = defaultdict(list)
    for index, fault in enumerate(faults):
        by_fault[fault].append(index)
    return {
        "test_accuracy": accuracy(chosen, rejected),
        "margin": float((chosen - rejected).mean()),
        "mean": float(flat.mean()),
        "std": float(flat.std()),
        "longer_accuracy": accuracy(chosen_tokens, rejected_tokens),
        "test_pairs": tested,
        "accuracy_by_fault": {
            fault: round(accuracy(chosen[indices], rejected[indices]), 4) for fault, indices in sorted(by_fault.items())
        },
    }
