"""Honest figures of a reward model: on held-out groups, beside the baseline that always prefers the longer answer."""

from collections import defaultdict
from pathlib import Path

import torch

from finlm import model, scorer
from reward.pairs import EncodedPair


def accuracy(chosen_N: torch.Tensor, rejected_N: torch.Tensor) -> float:
    """Share of pairs in which the chosen answer scores higher; a tie counts half."""
    wins = (chosen_N > rejected_N).double() + 0.5 * (chosen_N == rejected_N).double()
    return float(wins.mean())


def longer_accuracy(pairs: list[EncodedPair]) -> float:
    """Accuracy of preferring the longer answer: what a reward model must beat to have learned more than length."""
    chosen = torch.tensor([len(pair.chosen) for pair in pairs], dtype=torch.float)
    rejected = torch.tensor([len(pair.rejected) for pair in pairs], dtype=torch.float)
    return accuracy(chosen, rejected)


def test_report(folder: Path, test: list[EncodedPair], train: list[EncodedPair], *, dtype: str) -> dict[str, object]:
    """Score the held-out pairs (the training pairs where none are held out) with the exported reward model.

    Returns:
        `test_accuracy`, `margin` (mean of chosen minus rejected), `mean` and `std` of all scores, `longer_accuracy`,
        `test_pairs`, and `accuracy_by_fault`.
    """
    pairs = test or train
    device = model.device_of_this_process()
    judge = scorer.Scorer.load(folder, dtype=model.choose_dtype(dtype, device), device=device)
    rows = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    scores = scorer.score_rows(judge.model, judge.head, rows, pad=judge.tokenizer.pad_token_id, batch_size=16)
    chosen, rejected = scores[: len(pairs)], scores[len(pairs) :]
    by_fault: dict[str, list[int]] = defaultdict(list)
    for index, pair in enumerate(pairs):
        by_fault[pair.fault or "unknown"].append(index)
    return {
        "test_accuracy": accuracy(chosen, rejected),
        "margin": float((chosen - rejected).mean()),
        "mean": float(scores.mean()),
        "std": float(scores.std()),
        "longer_accuracy": longer_accuracy(pairs),
        "test_pairs": len(test),
        "accuracy_by_fault": {
            fault: round(accuracy(chosen[indices], rejected[indices]), 4) for fault, indices in sorted(by_fault.items())
        },
    }
