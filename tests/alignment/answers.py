"""Eight prompts with answers of the tiny model's vocabulary: some end, two were cut off at six tokens."""

from collections.abc import Callable

import torch

from alignment.ppo_trainer import PPOTrainer
from finlm.generation import Answer

CPU = torch.device("cpu")
Maker = Callable[..., PPOTrainer]
"""Takes settings of PPO and returns a trainer."""

PROMPTS = [[5, 9, 13], [20] * 11, [7, 8, 9, 10, 11, 12], [30, 31], [40] * 5, [50, 3], [60, 61, 62, 63], [70] * 8]
ANSWERS = [
    Answer((100, 101, 1), ended=True),
    Answer((102, 1), ended=True),
    Answer((103, 104, 105, 106, 107, 108), ended=False),
    Answer((1,), ended=True),
    Answer((109, 110, 111, 1), ended=True),
    Answer((112, 113, 114, 115, 1), ended=True),
    Answer((116, 1), ended=True),
    Answer((117, 118, 119, 120, 121, 122), ended=False),
]
