"""A bandit whose optimum is known: PPO must find it, reward and KL.

One prompt, answers of one token, a reward for each token of a vocabulary of twelve. Among all policies,
E[r] - beta KL(pi || pi_ref) is largest for

    pi*(a) = pi_ref(a) exp(r(a) / beta) / Z

(Rafailov et al. 2023, arXiv 2305.18290, equation 4), whose expected reward and KL are sums over the vocabulary. What
PPO reaches is summed the same way, from the policy's own probabilities, so that no sampling blurs the comparison.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import small
import torch
from torch import Tensor

from alignment import rollout
from alignment.ppo_trainer import PPOTrainer

VOCABULARY = 12
PROMPT = [5, 9, 3]


class Point(NamedTuple):
    reward: float
    kl: float
    objective: float


def point(logp_V: Tensor, ref_V: Tensor, reward_V: Tensor, beta: float) -> Point:
    """Expected reward, KL to the reference, and what PPO maximises."""
    probability_V = logp_V.double().exp()
    reward = float((probability_V * reward_V).sum())
    kl = float((probability_V * (logp_V - ref_V).double()).sum())
    return Point(reward, kl, reward - beta * kl)


@torch.no_grad()
def log_policy(trainer: PPOTrainer, role: Any) -> Tensor:
    with trainer.roles(role):
        return torch.log_softmax(trainer.roles.model(input_ids=torch.tensor([PROMPT])).logits[0, -1].double(), dim=-1)


def learned(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, beta: float, updates: int, answers: int, rate: float
) -> tuple[Point, Point, Point]:
    """Train; return where the policy began, the optimum, and where it ended."""
    torch.set_num_threads(1)
    trainer = small.trainer(
        small.base(vocabulary=VOCABULARY, width=32, layers=1, head_scale=1.5),
        small.tokenizer(VOCABULARY),
        [PROMPT],
        folder,
        adapter=small.lora(8),
        total_episodes=answers * updates,
        per_device_train_batch_size=answers,
        local_rollout_forward_batch_size=answers,
        num_ppo_epochs=2,
        response_length=1,
        missing_eos_penalty=0.0,
        critic_learning_rate=rate,
        kl_coef=beta,
    )
    reward_V = small.drawn("bandit reward", (VOCABULARY,), 1.0)

    def pay(roles: Any, batch: rollout.MicroBatch, head: Any) -> Tensor:
        return reward_V[batch.answer_BA[:, 0]]

    monkeypatch.setattr(rollout, "scores", pay)
    ref_V = log_policy(trainer, "reference")
    for update in range(1, updates + 1):
        # the rate falls to zero: advantages are whitened, so that steps do not shrink by themselves at the optimum
        trainer.args = replace(trainer.args, learning_rate=rate * (1 - (update - 1) / updates))
        prompts = trainer.prompts_of(update)
        trainer.learn(trainer.credit(trainer.measure(prompts, trainer.sample(prompts, update))), update)
    best_V = torch.log_softmax(ref_V + reward_V.double() / beta, dim=-1)
    return (
        point(ref_V, ref_V, reward_V, beta),
        point(best_V, ref_V, reward_V, beta),
        point(log_policy(trainer, "policy"), ref_V, reward_V, beta),
    )


def test_ppo_comes_near_the_optimum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fast tier: few updates, within 10 %."""
    begun, best, got = learned(tmp_path, monkeypatch, beta=0.5, updates=40, answers=128, rate=1e-2)
    assert got.reward == pytest.approx(best.reward, rel=0.10)
    assert got.kl == pytest.approx(best.kl, rel=0.10)
    assert begun.objective < got.objective <= best.objective + 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("beta", [0.3, 0.5, 1.0])
def test_ppo_reaches_the_optimum(beta: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Expected reward and KL within 2 % of the analytic values, at three prices of KL."""
    begun, best, got = learned(tmp_path, monkeypatch, beta=beta, updates=150, answers=256, rate=1e-2)
    assert begun.kl == 0
    assert best.kl > 0.1
    assert best.reward > begun.reward + 0.2, "the optimum is too near the start to prove anything"
    assert got.reward == pytest.approx(best.reward, rel=0.02)
    assert got.kl == pytest.approx(best.kl, rel=0.02)
    # no policy is better than the optimum, so a higher value would show a fault of the comparison
    assert got.objective <= best.objective + 1e-9
