"""The figures of an update: by hand, and as a run leaves them in its files."""

import math
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from answers import ANSWERS, PROMPTS, Maker
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from alignment import ppo_log
from finlm.metrics import read_metrics

TRL = {
    "objective/kl", "objective/entropy", "objective/non_score_reward", "objective/rlhf_reward", "objective/scores",
    "policy/approxkl_avg", "policy/clipfrac_avg", "policy/entropy_avg", "loss/policy_avg", "loss/value_avg",
    "val/clipfrac_avg", "val/ratio", "val/ratio_var", "val/num_eos_tokens", "lr", "episode", "eps",
}  # fmt: skip
"""What TRL 1.12's PPOTrainer logs (its documentation, "Explanation of the logged metrics")."""


@pytest.mark.parametrize(
    ("ids", "wanted"),
    [
        ((1, 2, 3), 0.0),  # no run of four
        ((1, 2, 3, 4, 5, 6), 0.0),
        ((7, 7, 7, 7, 7, 7, 7), 0.75),  # one of four runs is new
        ((1, 2, 3, 4, 1, 2, 3, 4), 0.2),  # 1234, 2341, 3412, 4123, and 1234 again
    ],
)
def test_repetition_by_hand(ids: tuple[int, ...], wanted: float) -> None:
    assert ppo_log.repetition(ids) == pytest.approx(wanted)


def test_counts_add_up_and_everything_else_is_a_mean() -> None:
    steps = [
        {"val/ratio": 1.0, "rollout/policy_steps": 1.0, "rollout/skipped_steps": 0.0},
        {"val/ratio": 3.0, "rollout/policy_steps": 1.0, "rollout/skipped_steps": 1.0},
    ]
    assert ppo_log.over_steps(steps) == {"val/ratio": 2.0, "rollout/policy_steps": 2.0, "rollout/skipped_steps": 1.0}


def test_kl_and_returns_of_a_rollout_equal_plain_sums(make: Maker) -> None:
    trainer = make(per_device_train_batch_size=3, kl_coef=0.3)
    measured = trainer.measure(PROMPTS, ANSWERS)
    lessons = trainer.credit(measured)
    said = ppo_log.summary(measured, ANSWERS, trainer.processes, kl_coef=0.3, kl_estimator="k1")
    said |= ppo_log.of_critic(lessons, trainer.processes)
    differences, returns, errors = [], [], []
    for lesson in lessons:
        item = lesson.measured
        for row, index in enumerate(item.batch.index):
            for t in range(len(ANSWERS[index].ids)):
                differences.append(float(item.old_BA[row, t]) - float(item.ref_BA[row, t]))
                returns.append(float(lesson.return_BA[row, t]))
                errors.append(returns[-1] - float(item.value_BA[row, t]))
    tokens = sum(len(answer.ids) for answer in ANSWERS)
    assert len(returns) == tokens
    assert said["objective/kl"] == pytest.approx(sum(differences) / 8, rel=1e-5)
    assert said["rollout/kl_k1"] == pytest.approx(sum(differences) / tokens, rel=1e-5)
    assert said["rollout/kl_k3"] == pytest.approx(sum(math.exp(-d) - 1 + d for d in differences) / tokens, rel=1e-4)

    def variance(numbers: list[float]) -> float:
        mean = sum(numbers) / len(numbers)
        return sum((number - mean) ** 2 for number in numbers) / len(numbers)

    assert said["rollout/return_mean"] == pytest.approx(sum(returns) / tokens, rel=1e-4)
    assert said["rollout/return_var"] == pytest.approx(variance(returns), rel=1e-4)
    assert said["rollout/explained_variance"] == pytest.approx(1 - variance(errors) / variance(returns), rel=1e-3)


def test_a_run_logs_what_the_notation_promises(make: Maker, tmp_path: Path, root: Path) -> None:
    make(total_episodes=16, engine="compiled", output_dir=str(tmp_path)).train()
    lines = read_metrics(tmp_path / "metrics.jsonl")
    told = (root / "docs" / "notation.md").read_text(encoding="utf-8").partition("metrics.jsonl`:")[2]
    named = set(re.findall(r"`((?:objective|rollout|loss|policy|val|perf)/\w+|lr|episode|eps)`", told))
    assert len(lines) == 2
    for line in lines:
        assert set(line) - {"step"} == named - {"rollout/ptx_loss", "rollout/disagreement"}
        assert set(line) >= TRL
        assert all(math.isfinite(number) for number in line.values())
        assert line["perf/peak_memory_gib"] > 0.01
        seconds = [line[f"perf/{phase}_seconds"] for phase in ("sample", "measure", "credit", "learn")]
        assert line["perf/tokens_per_second"] * sum(seconds) == pytest.approx(8 * line["rollout/answer_tokens"])


def test_tensorboard_shows_the_same(make: Maker, tmp_path: Path) -> None:
    settings = {"save_steps": 1, "output_dir": str(tmp_path)}
    make(**settings, total_episodes=8).train()
    make(**settings, total_episodes=24).train()
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    for name in ("objective/scores", "val/ratio", "rollout/kl_k3"):
        shown = {event.step: event.value for event in board.Scalars(name)}
        lines = {line["step"]: line[name] for line in read_metrics(tmp_path / "metrics.jsonl")}
        assert shown == pytest.approx(lines, rel=1e-5)
        assert sorted(shown) == [1, 2, 3]


def test_without_tensorboard_the_file_is_still_written(
    make: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    make(output_dir=str(tmp_path)).train()
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 1
    assert not (tmp_path / "tensorboard").exists()


def test_masks_decide_what_counts(make: Maker) -> None:
    """Numbers off the answers, whatever they are, are in no figure."""
    trainer = make(per_device_train_batch_size=8, gradient_accumulation_steps=1)
    measured = trainer.measure(PROMPTS, ANSWERS)
    lessons = trainer.credit(measured)
    (item,) = measured
    off = item.batch.is_answer_BA.logical_not()
    spoiled = replace(
        item, old_BA=item.old_BA.masked_fill(off, 50.0), entropy_BA=item.entropy_BA.masked_fill(off, -9.0)
    )
    one = ppo_log.summary(measured, ANSWERS, trainer.processes, kl_coef=0.1, kl_estimator="k3")
    other = ppo_log.summary([spoiled], ANSWERS, trainer.processes, kl_coef=0.1, kl_estimator="k3")
    assert other == pytest.approx(one)
    (lesson,) = lessons
    wrong = replace(lesson, return_BA=lesson.return_BA.masked_fill(off, 1e6))
    assert ppo_log.of_critic([wrong], trainer.processes) == ppo_log.of_critic([lesson], trainer.processes)
