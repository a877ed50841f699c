"""SplitMix64 on tensors: random bits that a place decides, not the next draw of a generator.

Steele, Lea and Flood 2014, figure 16. The same on every device and in every order of computation.
"""

import torch
from torch import Tensor

# as signed numbers: torch has no arithmetic on unsigned ones
GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_FIRST = 0xBF58476D1CE4E5B9 - 2**64
_SECOND = 0x94D049BB133111EB - 2**64


def mix(x: Tensor) -> Tensor:
    """Return the finaliser of 64-bit integers, which shift arithmetically here: the masks undo that."""
    x = (x ^ ((x >> 30) & (2**34 - 1))) * _FIRST
    x = (x ^ ((x >> 27) & (2**37 - 1))) * _SECOND
    return x ^ ((x >> 31) & (2**33 - 1))


def strides(size: int, device: torch.device) -> Tensor:
    """Return n times SplitMix64's increment for n from 0, (size,), int64.

    Made outside of what is compiled: torch 2.11's compiler takes 0 to n for 32-bit numbers and cannot multiply them.
    """
    return torch.arange(size, device=device) * GOLDEN
