"""A task of several tokens that a random model learns: count from the prompt's number to the last one, then end.

The vocabulary is padding, end and the numbers 2 to 9. To the prompt `6` the answer is `7 8 9 </s>`. The score is the
share of the wanted tokens that stand right before the first wrong one, so the optimum is 1 and a random model, whose
chance of each token is about a tenth, begins near 0.05. Nothing but PPO trains it.
"""

from pathlib import Path
from typing import Any

import pytest
import small
import torch
from torch import Tensor

from alignment import rollout
from alignment.guards import GuardConfig
from finlm.metrics import read_metrics

LAST = 9
PROMPTS = [[number] for number in range(3, LAST)]


def wanted(first: int) -> list[int]:
    return [*range(first + 1, LAST + 1), small.END]


def score(prompt: list[int], answer: list[int]) -> float:
    """Share of the wanted tokens that are there before the first wrong one."""
    right = 0
    for token, other in zip(answer, wanted(prompt[-1]), strict=False):
        if token != other:
            break
        right += 1
    return right / len(wanted(prompt[-1]))


def test_the_score_is_what_it_says() -> None:
    assert score([6], [7, 8, 9, 1]) == 1.0
    assert score([6], [7, 8, 9]) == 0.75
    assert score([6], [7, 7, 9, 1]) == 0.25
    assert score([6], [1]) == 0.0


def climb(folder: Path, monkeypatch: pytest.MonkeyPatch, *, seed: int, updates: int) -> list[float]:
    """Train from random weights; return the mean score of each update."""
    torch.set_num_threads(1)
    answers = 192
    trainer = small.trainer(
        small.base(vocabulary=LAST + 1, width=32, seed=seed, head_scale=1.3),
        small.tokenizer(LAST + 1),
        PROMPTS,
        folder,
        adapter=small.lora(16),
        total_episodes=answers * updates,
        per_device_train_batch_size=answers,
        local_rollout_forward_batch_size=answers,
        num_ppo_epochs=4,
        response_length=8,
        missing_eos_penalty=0.0,
        learning_rate=2e-3,
        critic_learning_rate=2e-3,
        kl_coef=0.0,
        save_steps=updates,
        seed=seed,
        guards=GuardConfig(acts=False),  # the optimum is one answer to each prompt: its entropy and KL end other runs
    )

    def pay(roles: Any, batch: rollout.MicroBatch, head: Any) -> Tensor:
        scores = []
        for ids, is_token, answer, is_answer in zip(
            batch.ids_BT, batch.is_token_BT, batch.answer_BA, batch.is_answer_BA, strict=True
        ):
            said = answer[is_answer].tolist()
            scores.append(score(ids[is_token].tolist()[: -len(said)], said))
        return torch.tensor(scores)

    monkeypatch.setattr(rollout, "scores", pay)
    trainer.train()
    return [line["objective/scores"] for line in read_metrics(folder / "ppo" / "metrics.jsonl")]


def test_it_begins_to_climb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fast tier: a few updates at least treble the score."""
    curve = climb(tmp_path, monkeypatch, seed=0, updates=12)
    assert sum(curve[-3:]) / 3 > 3 * curve[0]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_climbs_to_the_optimum(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last twenty updates keep 90 % of the optimum, sampling included; 40 to 50 seconds a seed on one core."""
    curve = climb(tmp_path, monkeypatch, seed=seed, updates=150)
    assert curve[0] < 0.15
    assert sum(curve[-20:]) / 20 > 0.9, [round(number, 2) for number in curve[::10]]
