"""Groups of comparisons as tensors: every answer behind its prompt, one behind the other, no padding.

Axes: N tokens, S samples (a prompt with one answer), R read tokens, B comparisons, L tokens that are predicted.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import NotRequired, TypedDict

import torch
from torch import Tensor

from reward import losses
from reward.groups import Group


class Pass(TypedDict):
    """What the model takes.

    Example:
        samples of 3 and 5 tokens whose answers are their last 1 and 2, every token read: bounds=[0, 3, 8],
        read=[2, 6, 7]
    """

    input_ids: Tensor
    """(N,), int64."""
    bounds: Tensor
    """(S + 1,), int32: where each sample begins, and the end of the last."""
    longest: int
    """Tokens of the longest sample."""
    read: Tensor
    """(R,), int64: the places in N that are read, in order."""
    learned: NotRequired[Tensor]
    """(L,), int64: the places in N whose next token is predicted: those of the preferred answers."""
    following: NotRequired[Tensor]
    """(L,), int64: these next tokens."""


class Comparisons(TypedDict):
    """What is compared of the readings."""

    start_S: Tensor
    """Where in R each sample's readings begin."""
    length_S: Tensor
    """How many they are; with the end rule `pads` pads are among them."""
    width: int
    """The most that they are."""
    score_S: Tensor
    """Where in R each sample's score is: at its true last token."""
    better_B: Tensor
    """Sample of each comparison's preferred answer."""
    worse_B: Tensor
    first_B: Tensor
    """Position of the first answer token in which the two differ."""
    margin_B: Tensor
    certainty_B: Tensor
    weight_B: Tensor
    """Every prompt's sum to the weight of its group."""
    predicted_S: Tensor
    """How many tokens of each sample are predicted; they come in the order of the samples."""


class ComparisonBatch(TypedDict):
    """A micro-batch; dicts, for a Trainer moves their tensors to the device."""

    passed: Pass
    compared: Comparisons


def laid_out(
    groups: Sequence[Group],
    *,
    every_token: bool,
    margins: Sequence[float] = (),
    pad: int | None = None,
    predicted: bool = False,
) -> ComparisonBatch:
    """Lay groups out for one pass.

    Args:
        groups: Prompts with their answers and comparisons.
        every_token: True reads all answer tokens, False the last ones alone.
        margins: Margin of each strength; none: 0 for all.
        pad: Fills the answers of a group up to its longest, for the end rule `pads`; None: nothing does.
        predicted: True has the model predict the tokens of answers that a comparison prefers.
    """
    ids: list[int] = []
    read: list[int] = []
    lengths: list[int] = []
    start, count, score = [], [], []
    learned: list[int] = []
    following: list[int] = []
    told = []
    better, worse, first, margin, certainty, weight = [], [], [], [], [], []
    for group in groups:
        offset = len(lengths)
        width = max(map(len, group.answers))
        preferred = {one.better for one in group.comparisons} if predicted else set()
        for number, answer in enumerate(group.answers):
            begin = len(ids) + len(group.prompt)
            filled = answer if pad is None else (*answer, *[pad] * (width - len(answer)))
            ids += [*group.prompt, *filled]
            lengths.append(len(group.prompt) + len(filled))
            start.append(len(read))
            read += range(begin, begin + len(filled)) if every_token else [begin + len(answer) - 1]
            count.append(len(read) - start[-1])
            score.append(start[-1] + (len(answer) - 1 if every_token else 0))
            told.append(len(answer) if number in preferred else 0)
            learned += range(begin - 1, begin - 1 + told[-1])
            following += answer[: told[-1]]
        for one in group.comparisons:
            better.append(offset + one.better)
            worse.append(offset + one.worse)
            first.append(one.first)
            margin.append(margins[one.pair.strength] if margins else 0.0)
            certainty.append(one.certainty)
            weight.append(group.weight / len(group.comparisons))
    passed = Pass(
        input_ids=torch.tensor(ids),
        bounds=torch.tensor([0, *accumulate(lengths)], dtype=torch.int32),
        longest=max(lengths),
        read=torch.tensor(read),
    )
    if predicted:
        passed |= Pass(learned=torch.tensor(learned), following=torch.tensor(following))  # type: ignore[typeddict-item]
    return ComparisonBatch(
        passed=passed,
        compared=Comparisons(
            start_S=torch.tensor(start),
            length_S=torch.tensor(count),
            width=max(count),
            score_S=torch.tensor(score),
            better_B=torch.tensor(better),
            worse_B=torch.tensor(worse),
            first_B=torch.tensor(first),
            margin_B=torch.tensor(margin),
            certainty_B=torch.tensor(certainty),
            weight_B=torch.tensor(weight),
            predicted_S=torch.tensor(told),
        ),
    )


def by_answer(reading_R: Tensor, start_B: Tensor, length_B: Tensor, width: int) -> Tensor:
    """Return the readings of some answers side by side, (B, A); beyond its last token each stands still.

    Args:
        reading_R: Readings of all answers, one behind the other.
        start_B: Where each answer's begin.
        length_B: How many they are.
        width: A.
    """
    position_A = torch.arange(width, device=reading_R.device)
    place_BA = torch.minimum(position_A.unsqueeze(0), length_B.unsqueeze(1) - 1)
    return reading_R[start_B.unsqueeze(1) + place_BA]


def comparison_losses(reading_R: Tensor, compared: Comparisons, *, loss: str, end: str) -> Tensor:
    """Return the loss of each comparison, (B,).

    Args:
        reading_R: What the model read.
        compared: What is compared of it.
        loss: `pairwise`: scores alone; `token`: every answer token from the first difference on.
        end: One of `losses.END_RULES`, for `token`; `pads` wants a batch that was filled up.
    """
    better_B, worse_B = compared["better_B"], compared["worse_B"]
    named = {"margin_B": compared["margin_B"], "certainty_B": compared["certainty_B"]}
    if loss == "pairwise":
        score_S = reading_R[compared["score_S"]]
        return losses.pairwise(score_S[better_B], score_S[worse_B], **named)
    length_S = compared["length_S"]
    width = compared["width"]
    is_compared_BA = losses.is_compared(compared["first_B"], length_S[better_B], length_S[worse_B], width, end)
    better_BA, worse_BA = (
        by_answer(reading_R, compared["start_S"][sample_B], length_S[sample_B], width)
        for sample_B in (better_B, worse_B)
    )
    return losses.token_contrastive(better_BA, worse_BA, is_compared_BA, **named)


def centring(reading_R: Tensor, compared: Comparisons) -> Tensor:
    """Return how far the two scores of each comparison lie from around 0, (B,)."""
    score_S = reading_R[compared["score_S"]]
    return losses.centring(score_S[compared["better_B"]], score_S[compared["worse_B"]])


def surprise(nll_L: Tensor, compared: Comparisons) -> Tensor:
    """Return the mean negative log-likelihood a token of each comparison's preferred answer, (B,), nats.

    Args:
        nll_L: Of the predicted tokens, one sample's behind the other's.
        compared: What they belong to; every preferred answer has some.
    """
    count_S = compared["predicted_S"]
    sample_L = torch.repeat_interleave(count_S, output_size=len(nll_L))
    total_S = nll_L.new_zeros(len(count_S)).index_add(0, sample_L, nll_L)
    better_B = compared["better_B"]
    return total_S[better_B] / count_S[better_B]


def micro_batches(groups: Sequence[Group], tokens: int) -> list[list[Group]]:
    """Gather groups in order, as many as `tokens` hold; one that is larger goes alone."""
    found: list[list[Group]] = []
    size = 0
    for group in groups:
        if not found or size + group.tokens > tokens:
            found.append([])
            size = 0
        found[-1].append(group)
        size += group.tokens
    return found


def most_tokens(groups: Sequence[Group], most_groups: int, tokens: int) -> int:
    """Return how many tokens a pass has at most, whatever groups come together.

    Args:
        groups: All groups.
        most_groups: Groups of a pass, at most.
        tokens: As `micro_batches` takes them; 0 is no limit.
    """
    longest = sorted((group.tokens for group in groups), reverse=True)[:most_groups]
    return min(sum(longest), max(tokens, longest[0])) if tokens else sum(longest)
