"""Packed rows as tensors: all tokens of a micro-batch one behind the other, no padding at all."""

from collections.abc import Sequence
from itertools import accumulate, chain
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor

from finlm.samples import Row

IGNORE = -100
"""The label of a token that is not learned, as torch's cross entropy has it."""


class PackedBatch(TypedDict):
    """What a packed pass takes; a dict, for a Trainer moves its tensors to the device.

    Example:
        packed([Row(samples=(a, b))]) for samples of 3 and 2 tokens: bounds=[0, 3, 5], longest=3
    """

    input_ids: Tensor
    """(N,), int64."""
    labels: Tensor
    """(N,): the token that each place is to predict, `IGNORE` where it is not learned and at a sample's end."""
    learned: Tensor
    """(L,), int64: the places whose label is no `IGNORE`; found here, for a GPU would have to be waited for."""
    bounds: Tensor
    """(S + 1,), int32: where each sample begins, and the end of the last."""
    longest: int
    """Tokens of the longest sample."""


def packed(rows: Sequence[Row]) -> PackedBatch:
    """Lay the samples of rows one behind the other.

    Raises:
        ValueError: There are no samples.
    """
    samples = list(chain.from_iterable(row.samples for row in rows))
    if not samples:
        raise ValueError("a batch has no samples")
    ids = np.concatenate([sample.ids for sample in samples]).astype(np.int64)
    learned = np.concatenate([sample.is_learned for sample in samples])
    bounds = [0, *accumulate(map(len, samples))]
    labels = np.where(learned, ids, IGNORE)
    # a sample's first token is not learned, so that the next sample's beginning is no one's target
    labels = np.append(labels[1:], IGNORE)
    return PackedBatch(
        input_ids=torch.from_numpy(ids),
        labels=torch.from_numpy(labels),
        learned=torch.from_numpy(np.flatnonzero(labels != IGNORE)),
        bounds=torch.tensor(bounds, dtype=torch.int32),
        longest=max(map(len, samples)),
    )
