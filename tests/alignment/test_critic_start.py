"""The critic's head at the start: a ridge fit against another implementation, and what it is worth in a run."""

from collections.abc import Callable

import pytest
import torch
from answers import ANSWERS, PROMPTS
from torch import Tensor

from alignment.critic_start import RIDGES, Moments, Reading, fits, fitted
from alignment.ppo_trainer import PPOTrainer
from finlm.scorer import Head

Maker = Callable[..., PPOTrainer]


def drawn(tokens: int, width: int, noise: float, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """States with unequal spreads and a mean, a weight, and returns that follow it but for the noise."""
    generator = torch.Generator().manual_seed(seed)
    spread_D = torch.linspace(0.1, 3, width)
    states_ND = torch.randn(tokens, width, generator=generator) * spread_D + 2
    weight_D = torch.randn(width, generator=torch.Generator().manual_seed(9))
    return_N = states_ND @ weight_D - 5 + noise * torch.randn(tokens, generator=generator)
    return states_ND, weight_D, return_N


def test_each_fit_is_that_of_least_squares_with_the_ridge_as_further_rows() -> None:
    states_ND, _, return_N = drawn(200, 12, noise=1.0)
    found = fits(Moments.of(states_ND, return_N))
    x_ND, y_N = states_ND.double(), return_N.double()
    typical = float(x_ND.var(dim=0, unbiased=False).mean())
    for ridge, one in zip(RIDGES, found[:-1], strict=True):
        rows = torch.eye(12, dtype=torch.float64) * (ridge * typical * 200) ** 0.5
        left = torch.cat([x_ND - x_ND.mean(dim=0), rows])
        right = torch.cat([y_N - y_N.mean(), torch.zeros(12, dtype=torch.float64)])
        weight_D = torch.linalg.lstsq(left, right.unsqueeze(1)).solution.squeeze(1)
        torch.testing.assert_close(one.weight_D, weight_D)
        torch.testing.assert_close(one.bias, y_N.mean() - weight_D @ x_ND.mean(dim=0))
    assert not found[-1].weight_D.any()
    assert float(found[-1].bias) == pytest.approx(float(y_N.mean()))


def test_moments_add_up_and_give_the_error_of_a_reading() -> None:
    states_ND, weight_D, return_N = drawn(50, 6, noise=0.5)
    over = Moments.of(states_ND[:20], return_N[:20]).plus(Moments.of(states_ND[20:], return_N[20:]))
    reading = Reading(weight_D.double() * 0.9, torch.tensor(-4.0, dtype=torch.float64))
    wanted = (states_ND.double() @ reading.weight_D + reading.bias - return_N.double()).square().sum()
    assert reading.error(over) == pytest.approx(float(wanted))


def test_what_the_states_tell_is_found() -> None:
    halves = [Moments.of(*drawn(400, 12, noise=0.1, seed=seed)[::2]) for seed in (1, 2)]
    found = fitted((halves[0], halves[1]))
    assert found is not None
    head = Head(12)
    found.write(head)
    states_ND, _, return_N = drawn(400, 12, noise=0.1, seed=3)
    assert float((head(states_ND) - return_N).detach().square().mean()) == pytest.approx(0.01, rel=0.3)


def test_what_they_do_not_tell_is_not_learned_by_heart() -> None:
    """Forty answers of thirty tokens with one return each, and more directions than answers."""
    generator = torch.Generator().manual_seed(4)
    halves = []
    for _ in range(2):
        of_answer = torch.randn(20, 1, 64, generator=generator).expand(-1, 30, -1).reshape(600, 64)
        states_ND = of_answer + 0.1 * torch.randn(600, 64, generator=generator)
        return_N = torch.randn(20, 1, generator=generator).expand(-1, 30).reshape(600)
        halves.append(Moments.of(states_ND, return_N))
    found = fitted((halves[0], halves[1]))
    assert found is not None
    fresh_ND = torch.randn(2000, 64, generator=generator)
    assert float((fresh_ND.double() @ found.weight_D).square().mean()) < 0.15  # the returns' variance is 1


def test_without_a_token_there_is_none_and_of_one_half_the_mean() -> None:
    empty, some = Moments.of(torch.zeros(0, 3), torch.zeros(0)), Moments.of(torch.eye(3), torch.tensor([1.0, 2.0, 6.0]))
    assert fitted((empty, empty)) is None
    found = fitted((empty, some))
    assert found is not None
    assert not found.weight_D.any()
    assert float(found.bias) == 3.0


@pytest.mark.parametrize("bootstrap", [False, True])
def test_values_of_the_first_rollout_lie_about_what_its_answers_came_to(make: Maker, *, bootstrap: bool) -> None:
    """With gamma 1 and no KL, each token of an answer is followed by its score and nothing else."""
    trainer = make(kl_coef=0.0, gamma=1.0, bootstrap_truncated=bootstrap)
    with torch.no_grad():
        trainer.critic_head.bias.fill_(50.0)
    measured = trainer.measure(PROMPTS, ANSWERS)
    found = trainer.start_critic(measured)
    counted = [
        (item.value_BA[row, : int(item.tokens_B[row])], float(item.score_B[row]))
        for item in found
        for row in range(len(item))
        if not (bootstrap and item.was_cut_B[row])
    ]
    values = torch.cat([value_A for value_A, _ in counted])
    returns = torch.cat([torch.full_like(value_A, score) for value_A, score in counted])
    assert float((values - returns).mean()) == pytest.approx(0.0, abs=1e-4)
    assert float((values - returns).square().mean()) <= float((returns - returns.mean()).square().mean()) + 1e-6
    for item, again in zip(found, trainer.measure(PROMPTS, ANSWERS), strict=True):
        torch.testing.assert_close(item.value_BA, again.value_BA)
        if bootstrap:
            assert item.after_B is not None
            assert again.after_B is not None
            torch.testing.assert_close(item.after_B, again.after_B)


def test_a_run_begins_with_it_unless_the_reward_model_reads_every_token(make: Maker) -> None:
    starts = {}
    for start in ("fitted", "reward"):
        trainer = make(critic_start=start, critic_learning_rate=0.0, total_episodes=8)
        before = trainer.critic_head.weight.detach().clone()
        trainer.train()
        starts[start] = torch.equal(trainer.critic_head.weight, before)
    assert starts == {"fitted": False, "reward": True}
