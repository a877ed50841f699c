"""top-p and top-k in PPO: what is sampled from is what ratios and KL are taken over."""

from typing import Any

import pytest
import torch
from answers import Maker
from transformers import TopKLogitsWarper, TopPLogitsWarper

from alignment.ppo_trainer import PPOTrainer
from finlm.generation import Answer

FILTERED: dict[str, Any] = {"top_p": 0.8, "top_k": 30, "temperature": 1.3, "per_device_train_batch_size": 4}


def sampled(trainer: PPOTrainer) -> tuple[list[list[int]], list[Answer]]:
    prompts = trainer.prompts_of(1)
    return prompts, trainer.sample(prompts, 1)


def left_of(trainer: PPOTrainer, prompt: list[int], answer: Answer) -> torch.Tensor:
    """Probabilities (A, V) that transformers' own samplers leave at each answer token."""
    with torch.no_grad(), trainer.roles("policy"):
        logits = trainer.roles.model(input_ids=torch.tensor([[*prompt, *answer.ids]])).logits[0] / 1.3
    logits = logits[len(prompt) - 1 : -1]
    nothing = torch.zeros(len(logits), 1).long()
    return TopPLogitsWarper(0.8)(nothing, TopKLogitsWarper(30)(nothing, logits)).softmax(dim=-1)


def test_old_log_probs_are_those_that_were_sampled_from(make: Maker) -> None:
    trainer = make(**FILTERED, gradient_accumulation_steps=2)
    prompts, answers = sampled(trainer)
    for item in trainer.measure(prompts, answers):
        for row, index in enumerate(item.batch.index):
            probabilities = left_of(trainer, prompts[index], answers[index])
            wanted = probabilities[torch.arange(len(probabilities)), torch.tensor(answers[index].ids)].log()
            assert bool(wanted.isfinite().all())  # nothing was sampled that the filter leaves out
            got = item.old_BA[row, : len(wanted)]
            torch.testing.assert_close(got, wanted, atol=1e-4, rtol=0)
            torch.testing.assert_close(
                item.entropy_BA[row, : len(wanted)],
                torch.distributions.Categorical(probs=probabilities).entropy(),
                atol=1e-3,
                rtol=0,
            )


def test_the_first_ratio_is_one_to_the_bit_and_later_ones_are_not(make: Maker) -> None:
    trainer = make(**FILTERED, gradient_accumulation_steps=2, learning_rate=1e-2)
    lessons = trainer.credit(trainer.measure(*sampled(trainer)))
    first, second = trainer._step(lessons, update=1), trainer._step(lessons, update=1)
    assert first["val/ratio"] == 1.0
    assert first["val/ratio_var"] == first["policy/approxkl_avg"] == 0.0
    assert second["val/ratio_var"] > 0


def test_a_policy_that_is_the_reference_pays_nothing(make: Maker) -> None:
    trainer = make(**FILTERED, gradient_accumulation_steps=2)
    with torch.no_grad():
        for parameter in trainer.gradients.policy:
            parameter.zero_()
    for item in trainer.measure(*sampled(trainer)):
        assert torch.equal(item.old_BA, item.ref_BA)


@pytest.mark.parametrize("size", [1, 4])
def test_sets_are_cut_with_their_rows(make: Maker, size: int) -> None:
    trainer = make(**FILTERED, gradient_accumulation_steps=2)
    item = trainer.measure(*sampled(trainer))[1]
    assert item.kept_NU is not None
    parts = [item.rows(start, start + size) for start in range(0, 4, size)]
    assert torch.equal(torch.cat([part.kept_NU for part in parts if part.kept_NU is not None]), item.kept_NU)
    assert [len(part.kept_NU) for part in parts if part.kept_NU is not None] == [
        int(part.batch.is_answer_BA.sum()) for part in parts
    ]
