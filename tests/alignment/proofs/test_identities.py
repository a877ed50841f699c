"""What must hold whatever the model: identities that cost nothing to check."""

from pathlib import Path
from typing import Any

import pytest
import small
import torch

from alignment import ppo_log, rollout
from alignment.objective import advantages, token_rewards
from alignment.ppo_trainer import PPOTrainer
from finlm.generation import Answer

PROMPTS = [[5, 9, 13], [20] * 5, [7, 8, 9, 10, 11, 12], [2, 3], [4] * 4, [15, 3]]
ANSWERS = [
    Answer((10, 11, 1), ended=True), Answer((12, 1), ended=True), Answer((13, 14, 15, 16, 17, 18), ended=False),
    Answer((1,), ended=True), Answer((19, 20, 21, 1), ended=True), Answer((22, 23, 2, 3, 1), ended=True),
]  # fmt: skip


def make(folder: Path, **settings: Any) -> PPOTrainer:
    made: PPOTrainer = small.trainer(
        small.base(vocabulary=24),
        small.tokenizer(24),
        PROMPTS,
        folder,
        **{"total_episodes": 6, "per_device_train_batch_size": 6, "response_length": 6, **settings},
    )
    return made


def test_a_policy_that_is_the_reference_has_no_kl(tmp_path: Path) -> None:
    """A new LoRA adds zero: log-probabilities equal the reference's to the bit, in the training path."""
    trainer = make(tmp_path)
    measured = trainer.measure(PROMPTS, ANSWERS)
    for item in measured:
        assert torch.equal(item.old_BA, item.ref_BA)
    for estimator in ("k1", "k2", "k3"):
        said = ppo_log.summary(measured, ANSWERS, trainer.processes, kl_coef=0.5, kl_estimator=estimator)
        assert said["objective/kl"] == said["objective/non_score_reward"] == 0.0
        assert said["objective/rlhf_reward"] == said["objective/scores"]


def test_with_gamma_and_lambda_one_the_advantage_is_reward_to_go_minus_value(tmp_path: Path) -> None:
    trainer = make(tmp_path, adapter_scale=0.2, gamma=1.0, lam=1.0, kl_coef=0.3)
    for lesson in trainer.credit(trainer.measure(PROMPTS, ANSWERS)):
        item, mask = lesson.measured, lesson.measured.batch.is_answer_BA
        reward = token_rewards(item.score_B, item.old_BA - item.ref_BA, mask, kl_coef=0.3)
        raw = advantages(reward, item.value_BA, mask, gamma=1.0, lam=1.0).advantage_BA
        for row, place in enumerate(item.batch.index):
            length = len(ANSWERS[place].ids)
            for t in range(length):
                to_go = float(item.score_B[row]) - 0.3 * float((item.old_BA - item.ref_BA)[row, t:length].sum())
                assert float(raw[row, t]) == pytest.approx(to_go - float(item.value_BA[row, t]), abs=1e-5)
                assert float(lesson.return_BA[row, t]) == pytest.approx(to_go, abs=1e-5)


def test_the_critic_begins_as_the_reward_model(tmp_path: Path) -> None:
    """The value before a token is the score of the answer up to there."""
    trainer = make(tmp_path)
    longer = [Answer((*answer.ids, 7), ended=False) for answer in ANSWERS]
    for item, further in zip(trainer.measure(PROMPTS, ANSWERS), trainer.measure(PROMPTS, longer), strict=True):
        with torch.no_grad():
            score_B = rollout.scores(trainer.roles, item.batch, trainer.reward_head)
        assert item.batch.index == further.batch.index
        for row, place in enumerate(item.batch.index):
            value = further.value_BA[row, len(ANSWERS[place].ids)]
            torch.testing.assert_close(value, score_B[row], atol=1e-5, rtol=0)


def test_the_order_of_a_rollout_changes_no_gradient(tmp_path: Path) -> None:
    def gradients(order: list[int], folder: Path, **settings: Any) -> list[torch.Tensor]:
        trainer = make(folder, adapter_scale=0.2, max_grad_norm=0.0, **settings)
        found: list[torch.Tensor] = []
        trainer._update = lambda name, rate: found.extend(  # type: ignore[method-assign]
            parameter.grad.clone() for parameter in trainer.optimizers[name].param_groups[0]["params"]
        )
        measured = trainer.measure([PROMPTS[place] for place in order], [ANSWERS[place] for place in order])
        trainer.learn(trainer.credit(measured), update=1)
        return found

    one = gradients([0, 1, 2, 3, 4, 5], tmp_path / "one", num_ppo_epochs=1)
    assert one
    assert any(gradient.any() for gradient in one)
    other = gradients([4, 2, 0, 5, 3, 1], tmp_path / "other", num_ppo_epochs=1)
    split = gradients(
        [3, 5, 1, 0, 2, 4], tmp_path / "split",
        num_ppo_epochs=1, per_device_train_batch_size=2, gradient_accumulation_steps=3,
    )  # fmt: skip
    for first, second, third in zip(one, other, split, strict=True):
        torch.testing.assert_close(second, first, atol=1e-6, rtol=1e-4)
        torch.testing.assert_close(third, first, atol=1e-6, rtol=1e-4)
