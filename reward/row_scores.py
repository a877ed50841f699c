"""Scores of encoded answers as rows and replies carry them."""

from collections.abc import Sequence

import torch

from finlm.ensemble import EncodedAnswer, Ensemble, reduced
from finlm.errors import UserError
from reward.scorable import Score


def scores_of(judge: Ensemble, answers: Sequence[EncodedAnswer], *, reduce: str, batch_tokens: int) -> list[Score]:
    """Return the score of each answer, and those by each member where there are several.

    Raises:
        UserError: Memory does not suffice, or a score is not finite.
    """
    try:
        score_KN = judge.score(answers, batch_tokens=batch_tokens)
    except torch.OutOfMemoryError as error:
        raise UserError(f"Out of memory with batch_tokens {batch_tokens}; lower it.") from error
    return named(score_KN, reduce)


def named(score_KN: torch.Tensor, reduce: str) -> list[Score]:
    """Return scores (K, N) answer by answer.

    Raises:
        UserError: One is not finite.
    """
    unusable_N = score_KN[~torch.isfinite(score_KN)]
    if len(unusable_N):
        raise UserError(
            f"The reward model scores an answer {float(unusable_N[0])}; look for damaged weights in it or in its base."
        )
    of_members = score_KN.T.tolist() if len(score_KN) > 1 else [()] * score_KN.shape[1]
    return [
        Score(score, tuple(members))
        for score, members in zip(reduced(score_KN, reduce).tolist(), of_members, strict=True)
    ]
