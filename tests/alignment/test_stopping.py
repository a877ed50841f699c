"""SIGTERM in every phase: a checkpoint of the last whole update, from which the run ends with the same bits."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from answers import Maker

from alignment import lessons, ppo_state, rollout
from alignment.ppo_trainer import PPOTrainer
from alignment.stopping import Stopped, StopSignal
from finlm import generation

SETTINGS: dict[str, Any] = {
    "total_episodes": 32,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "num_mini_batches": 2,
    "num_ppo_epochs": 2,
    "local_rollout_forward_batch_size": 4,
    "learning_rate": 1e-2,
    "critic_learning_rate": 1e-2,
    "score_normalisation": "mean_std",
    "adaptive_kl_target": 0.5,
    "save_steps": 50,
}


def weights(trainer: PPOTrainer) -> dict[str, torch.Tensor]:
    parameters = [*trainer.roles.model.named_parameters(), *trainer.critic_head.named_parameters()]
    return {name: tensor.detach().clone() for name, tensor in parameters}


def terminate_at(monkeypatch: pytest.MonkeyPatch, where: Any, name: str, call: int) -> list[int]:
    """Send this process SIGTERM when a function is called for the `call`-th time."""
    straight, calls = getattr(where, name), []

    def function(*given: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGTERM)
        return straight(*given, **named)

    monkeypatch.setattr(where, name, function)
    return calls


@pytest.fixture(scope="module")
def straight(make: Maker) -> PPOTrainer:
    trainer = make(**SETTINGS)
    trainer.train()
    return trainer


PHASES = {
    # two batches are sampled in an update, eight answers are scored in four micro-batches, and each micro-batch is
    # learned from twice, four to an epoch, two to a step
    "sampling": (generation, "pad_left", 2 * 2 + 1, 2, 2 * 2 + 1),
    "sampling at once": (generation, "pad_left", 1, 0, 1),
    "measuring": (rollout, "scores", 2 * 4 + 2, 2, 2 * 4 + 2),
    "learning": (lessons, "of_critic", 2 * 8 + 1, 2, 2 * 8 + 1),
    "learning after a step": (lessons, "of_critic", 2 * 8 + 4, 2, 2 * 8 + 4),
    "learning in the last epoch": (lessons, "of_critic", 3 * 8 + 7, 3, 3 * 8 + 7),
    "learning at first": (lessons, "of_critic", 3, 0, 3),
    "saving": (ppo_state, "save", 1, 4, 2),
}
"""Phase -> where SIGTERM comes, at which call, whole updates before it, and calls until the run stopped."""


@pytest.mark.parametrize("phase", PHASES)
def test_a_run_stopped_in_any_phase_goes_on_bit_by_bit(
    make: Maker, straight: PPOTrainer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, phase: str
) -> None:
    where, name, call, whole, until = PHASES[phase]
    begun = make(**SETTINGS, output_dir=str(tmp_path))
    with monkeypatch.context() as patch:
        calls = terminate_at(patch, where, name, call)
        with pytest.raises(Stopped, match=f"stopped by SIGTERM after update {whole} of 4; the same command goes on"):
            begun.train()
    assert len(calls) == until  # it did not go on to the end of its phase
    checkpoints = [path.name for path in (tmp_path / "checkpoints").glob("checkpoint-*")]
    assert checkpoints == ([f"checkpoint-{whole}"] if whole else [])
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL

    resumed = make(**SETTINGS, output_dir=str(tmp_path))
    resumed.train()
    wanted = weights(straight)
    assert [key for key, tensor in weights(resumed).items() if not torch.equal(tensor, wanted[key])] == []
    assert resumed.progress == straight.progress


def test_stopped_again_and_again_it_still_gets_there(
    make: Maker, straight: PPOTrainer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for _ in range(3):
        with monkeypatch.context() as patch:
            terminate_at(patch, lessons, "of_critic", 8 + 3)  # one update further each time
            trainer = make(**SETTINGS, output_dir=str(tmp_path))
            assert stops(trainer.train) is (trainer.progress.update < 4)
    trainer = make(**SETTINGS, output_dir=str(tmp_path))
    trainer.train()
    assert trainer.progress == straight.progress
    assert all(torch.equal(tensor, weights(straight)[name]) for name, tensor in weights(trainer).items())


def stops(train: Callable[[], object]) -> bool:
    try:
        train()
    except Stopped:
        return True
    return False


def test_weights_are_rolled_back_in_place(make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a caller still holds after the stop is the last whole update, not a step of the next."""
    two = make(**{**SETTINGS, "total_episodes": 16})
    two.train()
    stopped = make(**SETTINGS)
    terminate_at(monkeypatch, lessons, "of_critic", 2 * 8 + 4)
    with pytest.raises(Stopped):
        stopped.train()
    assert all(torch.equal(tensor, weights(two)[name]) for name, tensor in weights(stopped).items())
    for name, optimizer in stopped.optimizers.items():
        for index, state in two.optimizers[name].state_dict()["state"].items():
            for key, number in state.items():
                assert torch.equal(optimizer.state_dict()["state"][index][key], number)


# ---------------------------------------------------------------------------------------------- several processes


class Others:
    """Processes of which another one was asked to stop, or not."""

    def __init__(self, *, stop: bool) -> None:
        self._stop = stop

    def any(self, is_here: bool) -> bool:
        return is_here or self._stop


def test_all_stop_if_one_was_asked_and_none_before_its_work_is_done() -> None:
    done: list[str] = []
    with pytest.raises(Stopped):
        StopSignal().together(Others(stop=True), lambda: done.append("work"))  # type: ignore[arg-type]
    assert done == ["work"]
    assert StopSignal().together(Others(stop=False), lambda: 5) == 5  # type: ignore[arg-type]


def test_work_that_was_abandoned_still_comes_to_the_agreement() -> None:
    stop, asked = StopSignal(), []

    class Noting(Others):
        def any(self, is_here: bool) -> bool:
            asked.append(is_here)
            return super().any(is_here)

    def work() -> None:
        stop.has_come = True
        stop.poll()
        raise AssertionError("poll went on")

    with pytest.raises(Stopped):
        stop.together(Noting(stop=False), work)  # type: ignore[arg-type]
    assert asked == [True]


def test_a_signal_between_two_agreements_is_not_lost() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.has_come
    assert signal.getsignal(signal.SIGTERM) == before
