"""Out of memory: the same weights, from smaller pieces. The error is thrown by hand where a batch is too large."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from answers import ANSWERS, PROMPTS, Maker

from alignment import rollout
from alignment.halving import Halving
from alignment.ppo_trainer import PPOTrainer
from finlm import generation
from finlm.errors import UserError
from finlm.metrics import read_metrics


@dataclass(frozen=True)
class Numbers:
    all: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.all)

    @property
    def tokens(self) -> int:
        return 10 * len(self.all)

    def rows(self, start: int, stop: int) -> "Numbers":
        return Numbers(self.all[start:stop])


def at_most(limit: int, seen: list[int]) -> Callable[[Numbers], list[int]]:
    def work(batch: Numbers) -> list[int]:
        seen.append(len(batch))
        if len(batch) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return list(batch.all)

    return work


@pytest.mark.parametrize(("rows", "limit"), [(8, 8), (8, 4), (8, 3), (7, 2), (5, 1)])
def test_pieces_are_all_rows_once_in_order(rows: int, limit: int) -> None:
    pieces = Halving()(Numbers(tuple(range(rows))), at_most(limit, []))
    assert [number for piece in pieces for number in piece] == list(range(rows))
    assert max(len(piece) for piece in pieces) <= limit


def test_what_was_too_large_once_is_not_tried_again() -> None:
    halving, seen = Halving(), []
    for _ in range(3):
        halving(Numbers(tuple(range(8))), at_most(4, seen))
    assert seen == [8, 4, 4, 4, 4, 4, 4]
    assert halving.splits == 1
    halving(Numbers(tuple(range(7))), at_most(4, seen))  # smaller than what failed: it is tried
    assert seen[7:] == [7, 3, 4]
    assert halving.splits == 2


def test_a_single_row_that_is_too_large_is_a_users_matter() -> None:
    with pytest.raises(UserError, match=r"a single answer of 10 tokens.*lower response_length or max_prompt_length"):
        Halving()(Numbers((1, 2)), at_most(0, []))


def test_other_errors_are_none_of_its_business() -> None:
    def work(batch: Numbers) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        Halving()(Numbers((1, 2)), work)


def test_main_memory_has_an_error_of_its_own() -> None:
    def work(batch: Numbers) -> int:
        if len(batch) > 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes.")
        return 1

    assert Halving()(Numbers((1, 2, 3)), work) == [1, 1, 1]


# ---------------------------------------------------------------------------------------------- in PPO

SETTINGS: dict[str, Any] = {
    "total_episodes": 24,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 1,
    "num_mini_batches": 2,
    "num_ppo_epochs": 2,
    "learning_rate": 1e-3,
    "critic_learning_rate": 1e-3,
    "kl_coef": 0.1,
}


def too_small(monkeypatch: pytest.MonkeyPatch, name: str, *, rows: int, half_done: bool = False) -> list[int]:
    """Let a function of `rollout` run out of memory on batches of more rows, now and then only after its work."""
    straight, failed, draw = getattr(rollout, name), [], random.Random(0)

    def function(roles: Any, batch: rollout.MicroBatch, *given: Any, **named: Any) -> Any:
        if len(batch) > rows:
            failed.append(len(batch))
            if half_done and draw.random() < 0.5:
                straight(roles, batch, *given, **named)
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return straight(roles, batch, *given, **named)

    monkeypatch.setattr(rollout, name, function)
    return failed


def weights(trainer: PPOTrainer) -> dict[str, torch.Tensor]:
    parameters = [*trainer.roles.model.named_parameters(), *trainer.critic_head.named_parameters()]
    return {name: tensor.detach().clone() for name, tensor in parameters}


@pytest.mark.parametrize(("layers", "more"), [(None, {}), ([1], {"top_p": 0.9, "bootstrap_truncated": True})])
@pytest.mark.parametrize("name", ["log_probs", "values_and_after", "scores"])
def test_a_run_short_of_memory_ends_with_the_same_weights(
    make: Maker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, more: dict[str, Any], layers: Any
) -> None:
    plenty = make(**SETTINGS, **more, layers=layers)
    plenty.train()
    failed = too_small(monkeypatch, name, rows=1, half_done=True)
    short = make(**SETTINGS, **more, layers=layers, output_dir=str(tmp_path))
    short.train()
    assert failed
    for key, tensor in weights(short).items():
        torch.testing.assert_close(tensor, weights(plenty)[key], atol=2e-5, rtol=1e-3, msg=lambda m, k=key: f"{k} {m}")
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["perf/splits"] for line in lines][-1] >= 2
    assert lines[-1]["rollout/policy_steps"] == 4  # the mini-batches are what they were


def test_a_backward_pass_that_fails_leaves_no_half_gradient(make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error comes when some gradients are there and others are not."""
    plenty, short = (make(per_device_train_batch_size=8, gradient_accumulation_steps=1) for _ in range(2))
    plenty.learn(plenty.credit(plenty.measure(PROMPTS, ANSWERS)), update=1)
    lessons = short.credit(short.measure(PROMPTS, ANSWERS))
    middle = short.gradients.policy[len(short.gradients.policy) // 2]
    failed: list[int] = []

    def fail_once(gradient: torch.Tensor) -> None:
        if not failed:
            failed.append(1)
            raise torch.OutOfMemoryError("CUDA out of memory.")

    middle.register_hook(fail_once)
    short.learn(lessons, update=1)
    assert failed
    assert short.gradients.splits == 1
    for name, tensor in weights(short).items():
        torch.testing.assert_close(tensor, weights(plenty)[name], atol=2e-6, rtol=1e-3)


def test_lower_layers_short_of_memory_give_the_same_states(make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make(layers=[1], per_device_train_batch_size=8)
    (whole,) = trainer.measure(PROMPTS, ANSWERS)
    straight = trainer.roles.trunk.states

    def states(ids: torch.Tensor, is_token: torch.Tensor) -> torch.Tensor:
        if len(ids) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return straight(ids, is_token)

    monkeypatch.setattr(trainer.roles.trunk, "states", states)
    (cut,) = trainer.measure(PROMPTS, ANSWERS)
    torch.testing.assert_close(cut.batch.lower_BTD, whole.batch.lower_BTD, atol=1e-6, rtol=0)
    torch.testing.assert_close(cut.old_BA, whole.old_BA, atol=1e-5, rtol=0)


def test_sampling_goes_on_with_fewer_rows_at_once(make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make()
    straight, sizes = generation.sample, []

    def sample(*given: Any, **named: Any) -> list[generation.Answer]:
        sizes.append(named["batch_size"])
        if named["batch_size"] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return straight(*given, **named)

    monkeypatch.setattr(generation, "sample", sample)
    prompts = trainer.prompts_of(1)
    assert len(trainer.sample(prompts, 1)) == 8
    assert len(trainer.sample(prompts, 2)) == 8
    assert sizes == [8, 4, 2, 2]


def test_sampling_a_single_row_too_many_is_told(make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make()

    def sample(*given: Any, **named: Any) -> list[generation.Answer]:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(generation, "sample", sample)
    with pytest.raises(UserError, match="Out of memory while sampling a single answer"):
        trainer.sample(trainer.prompts_of(1), 1)
