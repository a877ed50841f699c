"""What guards and widens an optimizer step: skipped ratios, entropy, early stop, critic warm-up, on a real trainer."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from answers import ANSWERS, PROMPTS, Maker

from alignment import rollout
from alignment.lessons import Lesson
from alignment.ppo_config import PPOConfig
from alignment.ppo_trainer import PPOTrainer
from finlm import likelihood


def weights(trainer: PPOTrainer, name: str) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in getattr(trainer.gradients, name)]


def equal(one: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> bool:
    return all(torch.equal(*pair) for pair in zip(one, other, strict=True))


def lessons_off_by(trainer: PPOTrainer, nats: float) -> list[Lesson]:
    """Lessons of a rollout that a policy sampled whose log-probabilities were all lower by so much."""
    measured = trainer.measure(PROMPTS, ANSWERS)
    shifted = [replace(item, old_BA=item.old_BA - nats * item.batch.is_answer_BA) for item in measured]
    return trainer.credit(shifted)


# ---------------------------------------------------------------------------------------------- ratio guard


@pytest.mark.parametrize(("limit", "is_skipped"), [(1.05, True), (1.2, False), (0.0, False)])
def test_a_step_with_too_large_a_mean_ratio_moves_the_critic_only(make: Maker, limit: float, is_skipped: bool) -> None:
    trainer = make(ratio_limit=limit)
    policy, critic = weights(trainer, "policy"), weights(trainer, "critic")
    figures = trainer.learn(lessons_off_by(trainer, 0.1), update=1)
    assert figures["val/ratio"] == pytest.approx(1.10517, abs=1e-4)  # exp(0.1)
    assert figures["rollout/skipped_steps"] == is_skipped
    assert figures["rollout/policy_steps"] == (not is_skipped)
    assert equal(weights(trainer, "policy"), policy) is is_skipped
    assert not equal(weights(trainer, "critic"), critic)


def test_a_skipped_step_leaves_no_gradient_behind(make: Maker) -> None:
    trainer = make(ratio_limit=1.05)
    trainer.learn(lessons_off_by(trainer, 0.1), update=1)
    assert all(parameter.grad is None for parameter in trainer.gradients.policy)


# ---------------------------------------------------------------------------------------------- entropy


def gradients_of(trainer: PPOTrainer) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []

    def note(name: str, rate: float) -> None:
        if name == "policy":
            found.extend(parameter.grad.clone() for parameter in trainer.gradients.policy)  # type: ignore[union-attr]

    trainer._update = note  # type: ignore[method-assign]
    trainer.learn(lessons_off_by(trainer, 0.0), update=1)
    return found


def test_the_entropy_bonus_is_the_gradient_of_the_mean_entropy(make: Maker) -> None:
    off, on = (gradients_of(make(entropy_coef=coef, max_grad_norm=0.0)) for coef in (0.0, 0.3))
    trainer = make()
    total = torch.tensor(0.0)
    with trainer.roles("policy"):
        for prompt, answer in zip(PROMPTS, ANSWERS, strict=True):
            logits = trainer.roles.model(input_ids=torch.tensor([[*prompt, *answer.ids]])).logits[0]
            total = total + torch.distributions.Categorical(logits=logits[len(prompt) - 1 : -1]).entropy().sum()
    tokens = sum(len(answer.ids) for answer in ANSWERS)
    wanted = torch.autograd.grad(0.3 * total / tokens, trainer.gradients.policy)
    for without, with_bonus, bonus in zip(off, on, wanted, strict=True):
        torch.testing.assert_close(without - with_bonus, bonus, atol=2e-6, rtol=1e-3)


def test_without_a_bonus_entropies_carry_no_gradient(make: Maker) -> None:
    trainer = make()
    item = trainer.measure(PROMPTS, ANSWERS)[0]
    head = likelihood.output_head(trainer.roles.model)
    for learns in (False, True):
        with trainer.roles("policy"):
            logp, entropy = rollout.log_probs(trainer.roles, item.batch, head, temperature=1.0, entropy_learns=learns)
        assert logp.requires_grad
        assert entropy.requires_grad is learns


# ---------------------------------------------------------------------------------------------- early stop


def test_a_rollout_already_too_far_gives_no_step(make: Maker) -> None:
    trainer = make(target_kl=0.01, per_device_train_batch_size=2, gradient_accumulation_steps=2, num_mini_batches=2)
    policy, critic = weights(trainer, "policy"), weights(trainer, "critic")
    figures = trainer.learn(lessons_off_by(trainer, 0.2), update=1)
    assert figures["policy/approxkl_avg"] == pytest.approx(0.02, abs=1e-5)  # half of 0.2 squared
    assert figures["rollout/policy_steps"] == figures["policy/epochs"] == 0
    assert equal(weights(trainer, "policy"), policy)
    assert equal(weights(trainer, "critic"), critic)


def test_learning_stops_within_an_epoch_once_the_policy_is_too_far(make: Maker) -> None:
    settings: dict[str, Any] = {
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 2,
        "num_mini_batches": 4,
        "num_ppo_epochs": 3,
        "learning_rate": 3e-3,
    }
    free = make(**settings)
    taken: list[float] = []
    step = free._step

    def noting(*given: Any, **named: Any) -> dict[str, float]:
        figures = step(*given, **named)
        taken.append(figures["policy/approxkl_avg"])
        return figures

    free._step = noting  # type: ignore[method-assign]
    free.learn(lessons_off_by(free, 0.0), update=1)
    assert len(taken) == 12
    # a limit that step number six, in the middle of the second epoch, is the first to pass
    limit = (max(taken[:5]) + taken[5]) / 2
    assert max(taken[:5]) < limit < taken[5], "choose another learning rate"
    held = make(**settings, target_kl=limit)
    figures = held.learn(lessons_off_by(held, 0.0), update=1)
    assert figures["rollout/policy_steps"] == 5
    assert figures["policy/epochs"] == 5 / 4


# ---------------------------------------------------------------------------------------------- micro-batches


def test_a_bound_on_tokens_makes_smaller_passes_and_the_same_step(make: Maker) -> None:
    settings: dict[str, Any] = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1}
    settings |= {"num_mini_batches": 1, "num_ppo_epochs": 2, "learning_rate": 1e-2}
    found = []
    for tokens in (0, 20):
        trainer = make(**settings, micro_batch_tokens=tokens)
        lessons = trainer.credit(trainer.measure(PROMPTS, ANSWERS))
        assert all(lesson.tokens <= tokens or len(lesson) == 1 for lesson in lessons if tokens)
        assert sum(map(len, lessons)) == len(ANSWERS)
        figures = trainer.learn(lessons, update=1)
        found.append((len(lessons), figures["rollout/policy_steps"], weights(trainer, "policy")))
    (whole, steps, one), (smaller, same_steps, other) = found
    assert (whole, steps, same_steps) == (1, 2, 2)
    assert smaller > 3
    for before, after in zip(one, other, strict=True):
        # AdamW moves every weight by up to 2e-2 here, and makes much of a small gradient's last bits too
        torch.testing.assert_close(before, after, rtol=1e-3, atol=1e-4)


# ---------------------------------------------------------------------------------------------- critic warm-up


def test_the_critic_learns_alone_at_first(make: Maker) -> None:
    trainer = make(total_episodes=24, critic_warmup_updates=2, learning_rate=1e-3, critic_learning_rate=1e-3)
    policy, critic = weights(trainer, "policy"), weights(trainer, "critic")
    for update in (1, 2):
        figures = trainer.learn(lessons_off_by(trainer, 0.0), update=update)
        assert equal(weights(trainer, "policy"), policy)
        assert not equal(weights(trainer, "critic"), critic)
        assert figures["lr"] == figures["policy/grad_norm"] == figures["rollout/policy_steps"] == 0
        assert figures["val/ratio"] == 1
        assert figures["policy/entropy_avg"] > 0
    figures = trainer.learn(lessons_off_by(trainer, 0.0), update=3)
    assert figures["lr"] == 1e-3
    assert figures["rollout/policy_steps"] == 1
    assert not equal(weights(trainer, "policy"), policy)


# ---------------------------------------------------------------------------------------------- settings

REFUSED = [
    ({"dual_clip": 0.5}, "dual_clip is 0.5; it must be above 1, or 0 for off"),
    ({"ratio_limit": 1.0}, "ratio_limit is 1.0; it must be above 1, or 0 for off"),
    ({"entropy_coef": -0.1}, "entropy_coef is -0.1; it must be 0 (off) or more"),
    ({"cliprange_value": -1.0}, "cliprange_value is -1.0; it must be 0 (off) or more"),
    ({"score_normalisation": "mean"}, "score_normalisation is 'mean'; it must be none, std or mean_std"),
    ({"anneal": "step"}, "anneal is 'step'; it must be none, linear or cosine"),
    ({"anneal_floor": 1.5}, "anneal_floor is 1.5; it must be 0 to 1"),
    ({"top_p": 0.0}, "top_p is 0.0; it must be above 0 and at most 1"),
    ({"top_k": -1}, "top_k is -1; it must be 0 (off) or more"),
    ({"ptx_coef": 1.0}, "ptx_instructions names no file"),
    ({"ptx_coef": 1.0, "ptx_instructions": ["a"]}, "ptx_text_share is 0.2, but ptx_text names no file; give one"),
    ({"layout": "full", "engine": "vllm"}, "engine is 'vllm' with layout 'full'; it is sent adapters"),
    ({"adaptive_kl_horizon": 0}, "adaptive_kl_horizon is 0; it must be 1 or more"),
]


@pytest.mark.parametrize(("settings", "message"), REFUSED)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="; ") as refused:
        PPOConfig(**settings)
    assert message in str(refused.value)
