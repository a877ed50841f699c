"""Rounding to bfloat16 that loses nothing on average.

A weight of 0.02 has neighbours 1e-4 apart in bfloat16; the first updates of PPO are a hundred times smaller. Rounded to
the nearest, almost all of them return to where they were, and the merged copy goes on sampling as the policy of long
ago. Rounded up or down by chance, in proportion to the distance, every weight is right in expectation, and the sums of
thousands of weights that a model is made of are right to within what its activations lose anyway.
"""

import torch
from torch import Tensor

_LOW = 2**16
"""A bfloat16 is the upper half of a float32: this many float32 lie between two neighbours."""


def stochastically(exact: Tensor, generator: torch.Generator) -> Tensor:
    """Return `exact` in bfloat16, each number rounded away from zero with a chance of its distance, else towards it.

        P(up) = (x - down) / (up - down)

    Gupta et al. 2015, arXiv 1502.02551, section 3. What bfloat16 can say stays as it is.

    Args:
        exact: Numbers in float32, finite.
        generator: Of the tensor's device; equal states round equally.
    """
    chance = torch.randint(_LOW, exact.shape, dtype=torch.int32, device=exact.device, generator=generator)
    bits = exact.contiguous().view(torch.int32).add(chance).bitwise_and_(-_LOW)
    return bits.view(torch.float32).to(torch.bfloat16)
