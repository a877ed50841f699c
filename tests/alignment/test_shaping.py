"""From scores to what is paid, the price of KL and the learning rate: by hand, and over a run that is cut off."""

import json
import math
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from answers import ANSWERS, PROMPTS, Maker

from alignment import objective, ppo_state, rollout
from alignment.kl_control import next_coefficient
from alignment.ppo_trainer import PPOTrainer
from alignment.reward_shaping import RunningMoments, Shaping, shaped, unfinished
from alignment.schedule import share
from finlm.metrics import read_metrics

# ---------------------------------------------------------------------------------------------- KL controller


@pytest.mark.parametrize(
    ("kl", "wanted"),
    [
        (6.0, 0.15),  # on target
        (6.6, 0.15 * 1.00256),  # a tenth above, 256 of 10,000 answers: 1 + 0.1 * 0.0256
        (60.0, 0.15 * 1.00512),  # the error counts for a fifth at most
        (0.0, 0.15 * 0.99488),
        (-1.0, 0.15 * 0.99488),  # an estimate may be negative
    ],
)
def test_beta_follows_the_error(kl: float, wanted: float) -> None:
    got = next_coefficient(0.15, kl, target_nats=6.0, horizon=10_000, answers=256)
    assert got == pytest.approx(wanted, abs=1e-9)


def test_without_a_target_beta_stays() -> None:
    assert next_coefficient(0.05, 99.0, target_nats=0.0, horizon=10_000, answers=256) == 0.05


def test_beta_settles_where_the_kl_meets_its_target() -> None:
    """A policy whose KL is 1 / beta must come to rest at beta = 1 / target."""
    beta = 1.0
    for _ in range(2000):
        beta = next_coefficient(beta, 1 / beta, target_nats=5.0, horizon=1000, answers=50)
    assert beta == pytest.approx(0.2, rel=1e-3)


# ---------------------------------------------------------------------------------------------- running moments


def of(*numbers: float) -> objective.Moments:
    return objective.moments(torch.tensor([numbers]), torch.ones(1, len(numbers), dtype=torch.bool))


def test_running_moments_equal_those_of_all_numbers_at_once() -> None:
    numbers = (torch.randn(500, generator=torch.Generator().manual_seed(0)) * 3 + 7).double()
    running = RunningMoments()
    for part in torch.split(numbers, [1, 99, 300, 100]):
        running = running.with_batch(of(*part.tolist()))
    assert running.count == 500
    assert running.mean == pytest.approx(float(numbers.mean()), rel=1e-6)
    assert running.std == pytest.approx(float(numbers.std(correction=0)), rel=1e-6)


def test_running_moments_by_hand() -> None:
    # 1, 3 and then 8: mean 4, squared distances 9 + 1 + 16
    running = RunningMoments().with_batch(of(1.0, 3.0)).with_batch(of(8.0))
    assert (running.count, running.mean, running.m2) == (3.0, 4.0, pytest.approx(26.0))


def test_without_spread_scores_are_not_divided() -> None:
    assert RunningMoments().std == 1.0
    assert RunningMoments().with_batch(of(2.5, 2.5)).std == 1.0


# ---------------------------------------------------------------------------------------------- scores

RAW, TOKENS, WAS_CUT = torch.tensor([2.0, -6.0, 3.0]), torch.tensor([4, 12, 30]), torch.tensor([False, False, True])
RUNNING = RunningMoments(count=4.0, mean=1.0, m2=16.0)  # standard deviation 2


@pytest.mark.parametrize(
    ("how", "wanted"),
    [
        (Shaping(), [2.0, -6.0, 3.0]),
        (Shaping(normalisation="std"), [1.0, -3.0, 1.5]),
        (Shaping(normalisation="mean_std"), [0.5, -3.5, 1.0]),
        (Shaping(normalisation="mean_std", clip=0.8), [0.5, -0.8, 0.8]),
        (Shaping(missing_eos_penalty=1.5), [2.0, -6.0, 1.5]),
        (Shaping(length_penalty=0.1, length_penalty_from=10), [2.0, -6.2, 1.0]),
        (Shaping(short_penalty=0.5, short_penalty_below=12), [-2.0, -6.0, 3.0]),
        # the clip comes before the penalties: those may go below it
        (Shaping(clip=1.0, length_penalty=0.1, missing_eos_penalty=1.0), [0.6, -2.2, -3.0]),
    ],
)
def test_scores_by_hand(how: Shaping, wanted: list[float]) -> None:
    torch.testing.assert_close(shaped(RAW, TOKENS, WAS_CUT, RUNNING, how), torch.tensor(wanted))


def test_an_unfinished_answer_is_paid_its_penalties_only() -> None:
    how = Shaping(length_penalty=0.1, length_penalty_from=10, missing_eos_penalty=1.0)
    score = shaped(RAW, TOKENS, WAS_CUT, RUNNING, how)
    torch.testing.assert_close(unfinished(score, TOKENS, WAS_CUT, how), torch.tensor([2.0, -6.2, -3.0]))


def test_a_cut_answer_is_bootstrapped_from_the_value_after_it(make: Maker) -> None:
    """With gamma = lambda = 1 a return is all that is still to come: here the critic's value after the last token."""
    trainer = make(bootstrap_truncated=True, missing_eos_penalty=0.0, kl_coef=0.0, gamma=1.0, lam=1.0, score_clip=0.0)
    plain = make(missing_eos_penalty=0.0, kl_coef=0.0, gamma=1.0, lam=1.0, score_clip=0.0)
    lessons = trainer.credit(trainer.measure(PROMPTS, ANSWERS))
    without = plain.credit(plain.measure(PROMPTS, ANSWERS))
    cut = 0
    for lesson, other in zip(lessons, without, strict=True):
        (index,) = lesson.measured.batch.index
        if ANSWERS[index].ended:
            assert torch.equal(lesson.return_BA, other.return_BA)
            continue
        cut += 1
        ids = torch.tensor([[*PROMPTS[index], *ANSWERS[index].ids]])
        with torch.no_grad(), trainer.roles("critic"):
            hidden = trainer.roles.model.get_base_model().model(input_ids=ids).last_hidden_state
        after = float(trainer.critic_head(hidden)[0, -1].detach())
        assert lesson.return_BA[0].tolist() == pytest.approx([after] * 6, abs=1e-5)
    assert cut == 2


def test_normalisation_counts_every_score_once(make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make(score_normalisation="mean_std", score_clip=0.0, missing_eos_penalty=0.0)

    def scores(roles: Any, batch: rollout.MicroBatch, head: Any) -> torch.Tensor:
        return torch.tensor([float(index) for index in batch.index])

    monkeypatch.setattr(rollout, "scores", scores)
    for rollouts in (1, 2):
        measured = trainer.measure(PROMPTS, ANSWERS)
        assert trainer.progress.scores.count == 8 * rollouts
        assert trainer.progress.scores.mean == pytest.approx(3.5)
        assert trainer.progress.scores.std == pytest.approx(math.sqrt(5.25))  # of 0 to 7
        for item in measured:
            wanted = [(index - 3.5) / math.sqrt(5.25) for index in item.batch.index]
            assert item.score_B.tolist() == pytest.approx(wanted, abs=1e-6)
            assert item.raw_B.tolist() == list(item.batch.index)


# ---------------------------------------------------------------------------------------------- learning rates


@pytest.mark.parametrize(
    ("anneal", "wanted"),
    [
        ("none", [0.5, 1, 1, 1, 1, 1]),
        ("linear", [0.5, 1, 1, 0.775, 0.55, 0.325]),  # from 1 to 0.1 in four equal parts
        # 0.1 + 0.9 (1 + cos(0, pi/4, pi/2, 3 pi/4)) / 2
        ("cosine", [0.5, 1, 1, 0.868198, 0.55, 0.231802]),
    ],
)
def test_rates_of_six_updates(anneal: str, wanted: list[float]) -> None:
    got = [share(update, 6, warmup=2, anneal=anneal, floor=0.1) for update in range(1, 7)]
    assert got == pytest.approx(wanted, abs=1e-6)


def test_the_floor_is_what_comes_after_the_last_update() -> None:
    for anneal in ("linear", "cosine"):
        assert share(7, 6, warmup=2, anneal=anneal, floor=0.1) == pytest.approx(0.1)
        assert share(99, 6, warmup=2, anneal=anneal, floor=0.1) == pytest.approx(0.1)


def test_rates_of_odd_runs() -> None:
    assert share(1, 1, warmup=0, anneal="linear", floor=0.0) == 1.0
    assert share(3, 3, warmup=5, anneal="cosine", floor=0.0) == pytest.approx(0.6)
    assert share(0, 3, warmup=0, anneal="none", floor=0.0) == 0.0
    with pytest.raises(ValueError, match="none, linear, cosine"):
        share(1, 1, warmup=0, anneal="step", floor=0.0)


# ---------------------------------------------------------------------------------------------- over a run

ALL = {
    "total_episodes": 32,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "num_mini_batches": 2,
    "num_ppo_epochs": 2,
    "learning_rate": 1e-2,
    "critic_learning_rate": 1e-2,
    "save_steps": 1,
    "warmup_updates": 1,
    "anneal": "cosine",
    "critic_warmup_updates": 1,
    "adaptive_kl_target": 0.5,
    "adaptive_kl_horizon": 40,
    "score_normalisation": "mean_std",
    "length_penalty": 0.05,
    "length_penalty_from": 3,
    "short_penalty": 0.02,
    "short_penalty_below": 5,
    "bootstrap_truncated": True,
    "entropy_coef": 0.01,
    "cliprange_high": 0.3,
    "dual_clip": 3.0,
    "top_p": 0.95,
    "top_k": 60,
}
"""Everything with a state or a schedule at once."""


def trained(trainer: PPOTrainer) -> dict[str, torch.Tensor]:
    parameters = [*trainer.roles.model.named_parameters(), *trainer.critic_head.named_parameters()]
    return {name: tensor.detach().clone() for name, tensor in parameters}


def test_a_run_with_everything_on_goes_on_bit_by_bit(
    make: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = make(**ALL, output_dir=str(tmp_path / "straight"))
    straight.train()

    begun = make(**ALL, output_dir=str(tmp_path / "cut"))
    credit, calls = begun.credit, []

    def dying(measured: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return credit(measured)

    begun.credit = dying  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        begun.train()
    resumed = make(**ALL, output_dir=str(tmp_path / "cut"))
    resumed.train()

    assert all(torch.equal(tensor, trained(straight)[name]) for name, tensor in trained(resumed).items())
    assert asdict(resumed.progress) == asdict(straight.progress)
    assert resumed.progress.scores.count == 32
    assert resumed.progress.kl_coef != 0.05
    lines = [
        [{k: v for k, v in line.items() if not k.startswith("perf/") and k != "eps"} for line in read_metrics(path)]
        for path in (tmp_path / "straight/metrics.jsonl", tmp_path / "cut/metrics.jsonl")
    ]
    assert lines[0] == lines[1]
    assert len(lines[0]) == 4


def test_beta_and_rates_of_a_run_are_logged_as_the_formulas_have_them(make: Maker, tmp_path: Path) -> None:
    make(**ALL, output_dir=str(tmp_path)).train()
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert lines[0]["rollout/kl_coef"] == 0.05
    for line, following in pairwise(lines):
        error = max(-0.2, min(0.2, (line["objective/kl"] - 0.5) / 0.5))
        assert following["rollout/kl_coef"] == pytest.approx(line["rollout/kl_coef"] * (1 + error * 8 / 40))
    # the policy begins at the second of four updates, warms up in one, and then falls over two: cos 0, cos pi/2
    assert [line["lr"] for line in lines] == pytest.approx([0.0, 1e-2, 1e-2, 5e-3])


def test_a_run_trained_on_follows_the_longer_curve(make: Maker, tmp_path: Path) -> None:
    settings = {"learning_rate": 1e-3, "save_steps": 1, "anneal": "linear"}
    make(**settings, total_episodes=16, output_dir=str(tmp_path)).train()
    make(**settings, total_episodes=32, output_dir=str(tmp_path)).train()
    # two updates of two, then the third and fourth of four
    assert [line["lr"] for line in read_metrics(tmp_path / "metrics.jsonl")] == pytest.approx(
        [1e-3, 0.5e-3, 0.5e-3, 0.25e-3]
    )


def test_a_checkpoint_of_an_older_version_is_read(tmp_path: Path) -> None:
    (tmp_path / "progress.json").write_text(json.dumps({"update": 3, "episode": 24}), encoding="utf-8")
    assert ppo_state.Progress.read(tmp_path / "progress.json") == ppo_state.Progress(update=3, episode=24)
