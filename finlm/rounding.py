"""Rounding to bfloat16 that loses nothing on average.

A weight of 0.02 has neighbours 1e-4 apart in bfloat16; the first updates of PPO are a hundred times smaller. Rounded to
the nearest, almost all of them return to where they were, and the merged copy goes on sampling as the policy of long
ago. Rounded up or down by chance, in proportion to the distance, every weight is right in expectation, and the sums of
thousands of weights that a model is made of are right to within what its activations lose anyway.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from finlm.hashing import mix as hash_bits
from finlm.hashing import strides

_LOW = 2**16
"""A bfloat16 is the upper half of a float32: this many float32 lie between two neighbours."""


class Chance(NamedTuple):
    """What decides the rounding of a matrix: a hash of a number's place and a salt, so that no draws lie in memory."""

    row_O: Tensor
    column_I: Tensor

    @classmethod
    def of(cls, rows: int, columns: int, salt: int, device: torch.device) -> "Chance":
        """Return the chance of a matrix of this shape; equal salts round equally, on any device."""
        salted = hash_bits(strides(salt + 1, device)[-1:])
        return cls(hash_bits(strides(rows, device) + salted), strides(columns, device))


def stochastically(exact_OI: Tensor, chance: Chance) -> Tensor:
    """Return numbers in bfloat16, each rounded away from zero with a chance of its distance, else towards it.

        P(up) = (x - down) / (up - down)

    Gupta et al. 2015, arXiv 1502.02551, section 3. What bfloat16 can say stays as it is.

    Args:
        exact_OI: Numbers in float32, finite.
        chance: Of the same shape.
    """
    drawn_OI = ((hash_bits(chance.row_O.unsqueeze(1) + chance.column_I) >> 40) & (_LOW - 1)).int()
    bits_OI = exact_OI.contiguous().view(torch.int32).add(drawn_OI).bitwise_and(-_LOW)
    return bits_OI.view(torch.float32).to(torch.bfloat16)
