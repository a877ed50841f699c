"""What a reward model learns by, as pure functions. Axes: B comparisons, A answer tokens.

A comparison is a better and a worse answer to one prompt. Scores are float32, in the head's units before they are
normalised; losses are per comparison, so that the caller weighs them.
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

SMALL_MARGINS = (0.0, 1 / 3, 2 / 3, 1.0)
LARGE_MARGINS = (0.0, 1.0, 2.0, 3.0)
"""Margin of strengths 0 to 3: Llama 2 (arXiv 2307.09288), table 27, "small" and "large"."""
END_RULES = ("held", "shorter", "pads")
"""Where a comparison of tokens ends: at the longer answer's end, the shorter one standing at its last reading; at the
shorter answer's end; at the longer one's, over the pads of the shorter (DeepSpeed-Chat's rule)."""


def pairwise(
    better_B: Tensor, worse_B: Tensor, *, margin_B: Tensor | None = None, certainty_B: Tensor | None = None
) -> Tensor:
    """Return the loss of each comparison of two scores, (B,).

        -p log sigmoid(r_better - r_worse - m) - (1 - p) log sigmoid(m - r_better + r_worse)

    Bradley and Terry 1952; the margin: Touvron et al. 2023 (arXiv 2307.09288), equation 2. With p below 1 it is the
    cross-entropy to annotators who disagreed, least where r_better - r_worse = m + log(p / (1 - p)).

    Args:
        better_B: Scores of the preferred answers.
        worse_B: Scores of the others.
        margin_B: m, by which the better one is to lead; None: 0.
        certainty_B: p, the probability that the preferred one is better; None: 1.
    """
    lead_B = better_B - worse_B
    if margin_B is not None:
        lead_B = lead_B - margin_B
    if certainty_B is None:
        return -logsigmoid(lead_B)
    return -certainty_B * logsigmoid(lead_B) - (1 - certainty_B) * logsigmoid(-lead_B)


def token_contrastive(
    better_BA: Tensor,
    worse_BA: Tensor,
    is_compared_BA: Tensor,
    *,
    margin_B: Tensor | None = None,
    certainty_B: Tensor | None = None,
) -> Tensor:
    """Return the loss of each comparison of two answers token by token, (B,): the mean of `pairwise` over positions.

    The recipe's loss, after DeepSpeed-Chat (arXiv 2308.01320). The critic that starts from such a model has read every
    token before.

    Args:
        better_BA: Readings at the tokens of the preferred answers.
        worse_BA: Readings at those of the others.
        is_compared_BA: True where both are compared, see `is_compared`; at one position of each comparison at least.
        margin_B: As in `pairwise`.
        certainty_B: As in `pairwise`.
    """
    margin_B1 = None if margin_B is None else margin_B.unsqueeze(1)
    certainty_B1 = None if certainty_B is None else certainty_B.unsqueeze(1)
    loss_BA = pairwise(better_BA, worse_BA, margin_B=margin_B1, certainty_B=certainty_B1)
    return loss_BA.where(is_compared_BA, 0.0).sum(dim=1) / is_compared_BA.sum(dim=1)


def is_compared(first_B: Tensor, better_length_B: Tensor, worse_length_B: Tensor, width: int, end: str) -> Tensor:
    """Return the positions (B, A) at which two answers are compared token by token.

    Args:
        first_B: Position of the first token in which the answers differ.
        better_length_B: Tokens of the preferred answers, end token included.
        worse_length_B: Tokens of the others.
        width: A.
        end: One of END_RULES.
    """
    last_B = torch.maximum(better_length_B, worse_length_B)
    if end == "shorter":
        # where one answer begins with the whole of the other, the shorter one's end token is the last to compare
        last_B = torch.maximum(torch.minimum(better_length_B, worse_length_B), first_B + 1)
    position_A = torch.arange(width, device=first_B.device)
    return (position_A >= first_B.unsqueeze(1)) & (position_A < last_B.unsqueeze(1))


def first_difference(better: tuple[int, ...], worse: tuple[int, ...]) -> int:
    """Return the first position in which two answers have different tokens; an answer's end differs from a token."""
    for place, (one, other) in enumerate(zip(better, worse, strict=False)):
        if one != other:
            return place
    return min(len(better), len(worse))


def centring(better_B: Tensor, worse_B: Tensor) -> Tensor:
    """Return how far two scores lie from around 0, (B,): (r_better + r_worse)^2.

    A preference leaves their sum open. Eisenstein et al. 2023 (arXiv 2312.09244), section 2.
    """
    return (better_B + worse_B).square()


def certainty(for_it: float, against: float, *, smoothing: float) -> float:
    """Return the probability that the preferred answer is better, from votes: (k + s) / (n + 2 s).

    The mean of a Beta posterior with prior Beta(s, s); without votes one vote for it is taken as cast.

    Args:
        for_it: Votes for the preferred answer.
        against: Votes for the other.
        smoothing: s; 0 takes the share of the votes as it is.
    """
    if not for_it + against:
        for_it = 1
    return (for_it + smoothing) / (for_it + against + 2 * smoothing)
