"""PPO with the compiled engine: the same interface, exact resume, and a sampler that is held to the training path."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from answers import ANSWERS, PROMPTS, Maker

from alignment import sampler_gap
from alignment.ppo_trainer import PPOConfig, PPOTrainer
from alignment.rollout import Measured
from alignment.sampling import must_release
from alignment.stopping import Stopped
from finlm import compiled
from finlm.compiled import CompiledEngine
from finlm.errors import UserError
from finlm.generation import Answer
from finlm.metrics import read_metrics

SETTINGS: dict[str, Any] = {
    "engine": "compiled",
    "total_episodes": 24,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "num_mini_batches": 2,
    "num_ppo_epochs": 2,
    "local_rollout_forward_batch_size": 4,
    "learning_rate": 1e-2,
    "critic_learning_rate": 1e-2,
    "save_steps": 50,
}


def weights(trainer: PPOTrainer) -> dict[str, torch.Tensor]:
    parameters = [*trainer.roles.model.named_parameters(), *trainer.critic_head.named_parameters()]
    return {name: tensor.detach().clone() for name, tensor in parameters}


def figures_of(trainer: PPOTrainer) -> list[dict[str, Any]]:
    return read_metrics(trainer.folder / "metrics.jsonl")


# ---------------------------------------------------------------------------------------------- the engine in PPO


@pytest.mark.parametrize("merge", [True, False])
def test_ppo_learns_from_what_the_compiled_engine_samples(make: Maker, merge: bool) -> None:
    trainer = make(**SETTINGS, sampler_merge=merge)
    assert trainer.sampler.engine.name == "compiled"
    trainer.train()
    rows = figures_of(trainer)
    assert len(rows) == 3
    for row in rows:  # in float32 merging rounds little away, and both paths compute the same
        assert 0 < row["rollout/sampler_gap"] <= row["rollout/sampler_gap_max"] < 1e-4
        assert ("rollout/retained_share" in row) is merge
        assert row.get("rollout/retained_share", 1) == pytest.approx(1, abs=1e-3)


def test_generate_tells_nothing_of_it(make: Maker) -> None:
    trainer = make()
    assert trainer.sampler.engine.name == "generate"  # auto, on a CPU
    trainer.train()
    (row,) = figures_of(trainer)
    assert not {"rollout/sampler_gap", "rollout/sampler_gap_max", "rollout/retained_share"} & set(row)


def test_merged_or_not_the_newest_policy_answers(make: Maker) -> None:
    merged, through = make(engine="compiled"), make(engine="compiled", sampler_merge=False)
    prompts = merged.prompts_of(1)
    first = [answer.ids for answer in merged.sample(prompts, 1)]
    assert [answer.ids for answer in through.sample(prompts, 1)] == first
    for trainer in (merged, through):
        with torch.no_grad():
            for parameter in trainer.roles.adapter("policy").values():
                parameter.mul_(-2)
    second = [answer.ids for answer in merged.sample(prompts, 1)]
    assert [answer.ids for answer in through.sample(prompts, 1)] == second != first


def test_a_prompt_that_comes_again_gets_another_answer(make: Maker) -> None:
    trainer = make(engine="compiled")
    first = trainer.sample([[5]] * 8, 1)
    assert len({answer.ids for answer in first}) >= 3
    assert [answer.ids for answer in trainer.sample([[5]] * 3, 1)] == [answer.ids for answer in first[:3]]
    assert [answer.ids for answer in trainer.sample([[5]] * 8, 2)] != [answer.ids for answer in first]


def test_another_process_draws_other_answers(make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make(engine="compiled")
    here = trainer.sample([[5]] * 8, 1)
    monkeypatch.setattr(type(trainer.processes), "index", 1)
    there = trainer.sample([[5]] * 8, 1)
    assert [answer.ids for answer in there] != [answer.ids for answer in here]


def test_stopped_while_it_samples_a_run_goes_on_bit_by_bit(
    make: Maker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    straight = make(**SETTINGS)
    straight.train()
    step, calls = CompiledEngine._step, []

    def asked(self: CompiledEngine, *given: Any) -> None:
        calls.append(1)
        if len(calls) == 16 + 3:  # two fills of four slots an update, eight steps each
            os.kill(os.getpid(), signal.SIGTERM)
        step(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(CompiledEngine, "_step", asked)
        begun = make(**SETTINGS, output_dir=str(tmp_path))
        with pytest.raises(Stopped, match="after update 1 of 3"):
            begun.train()
    assert len(calls) == 24  # it went on to the next look, not to the end
    resumed = make(**SETTINGS, output_dir=str(tmp_path))
    resumed.train()
    wanted = weights(straight)
    assert [name for name, tensor in weights(resumed).items() if not torch.equal(tensor, wanted[name])] == []
    assert resumed.progress == straight.progress


# ---------------------------------------------------------------------------------------------- memory


def test_short_of_memory_it_writes_fewer_answers_at_once_and_the_same(
    make: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = [answer.ids for answer in make(engine="compiled").sample(PROMPTS, 1)]
    trainer, asked = make(engine="compiled"), []
    engine = trainer.sampler.engine
    assert isinstance(engine, CompiledEngine)
    zeros = torch.zeros

    def too_small(*given: Any, **named: Any) -> torch.Tensor:
        shape = given[0]
        if isinstance(shape, tuple) and len(shape) == 4:
            asked.append(shape[0])
            if shape[0] > 2:
                raise torch.OutOfMemoryError("CUDA out of memory.")
        return zeros(*given, **named)

    monkeypatch.setattr(compiled.torch, "zeros", too_small)
    assert [answer.ids for answer in trainer.sample(PROMPTS, 1)] == wanted
    assert asked == [8, 4] + [2] * 4  # then keys and values of two layers
    assert trainer.sampler.rows_at_once == 2
    assert [answer.ids for answer in trainer.sample(PROMPTS, 1)] == wanted
    assert len(asked) == 6


@pytest.mark.parametrize(("setting", "is_kept"), [("always", False), ("never", True), ("auto", True)])
def test_the_cache_is_given_back_where_it_is_asked_for(make: Maker, setting: str, is_kept: bool) -> None:
    trainer = make(engine="compiled", release_cache=setting)
    first = trainer.sample(PROMPTS, 1)
    engine = trainer.sampler.engine
    assert isinstance(engine, CompiledEngine)
    assert bool(engine._cache) is is_kept
    assert trainer.sample(PROMPTS, 1) == first


def test_without_a_gpu_auto_keeps_the_cache() -> None:
    cpu = torch.device("cpu")
    assert [must_release(setting, cpu) for setting in ("always", "never", "auto")] == [True, False, False]


# ---------------------------------------------------------------------------------------------- the gap


def told(measured: list[Measured], shift: float, at: dict[int, float]) -> list[Answer]:
    """The answers with log-probabilities `shift` above the training path's, `at` tells another shift for some."""
    made = list(ANSWERS)
    for item in measured:
        for row, index in enumerate(item.batch.index):
            own = item.old_BA[row, : len(ANSWERS[index].ids)] + at.get(index, shift)
            made[index] = Answer(ANSWERS[index].ids, ANSWERS[index].ended, tuple(own.tolist()))
    return made


def test_the_gap_by_hand(make: Maker) -> None:
    trainer = make(per_device_train_batch_size=2, gradient_accumulation_steps=4)
    measured = trainer.measure(PROMPTS, ANSWERS)
    tokens = sum(len(answer.ids) for answer in ANSWERS)
    found = sampler_gap.checked(measured, told(measured, 0.25, {2: -0.75}), trainer.processes, limit=0)
    # answer 2 has six tokens
    wanted = ((tokens - 6) * 0.25 + 6 * 0.75) / tokens
    assert found["rollout/sampler_gap"] == pytest.approx(wanted, abs=1e-5)
    assert found["rollout/sampler_gap_max"] == pytest.approx(0.75, abs=1e-5)
    assert sampler_gap.checked(measured, ANSWERS, trainer.processes, limit=0.1) == {}
    assert sampler_gap.checked(measured, told(measured, 0.09, {}), trainer.processes, limit=0.1)


def test_beyond_the_limit_the_run_stops_before_it_learns(make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sampler keeps the weights it had at first, while the policy is another by now."""
    trainer = make(**SETTINGS)
    engine = trainer.sampler.engine
    trainer.sample(trainer.prompts_of(1), 1)
    monkeypatch.setattr(engine, "refresh", lambda adapter: None)
    with torch.no_grad():
        for parameter in trainer.roles.adapter("policy").values():
            parameter.mul_(-3)
    before = weights(trainer)
    with pytest.raises(
        UserError, match=r"nats per token away .*, sampler_gap_limit is 0.2; set sampler_merge to false"
    ):
        trainer.train()
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(trainer).items())
    assert trainer.progress.update == 0
    assert not (trainer.folder / "metrics.jsonl").exists()


@pytest.mark.parametrize("shift", [float("nan"), float("inf")])
def test_a_gap_that_is_no_number_stops_without_a_limit_too(make: Maker, shift: float) -> None:
    trainer = make(per_device_train_batch_size=2, gradient_accumulation_steps=4)
    measured = trainer.measure(PROMPTS, ANSWERS)
    with pytest.raises(UserError, match="away from the training path's"):
        sampler_gap.checked(measured, told(measured, shift, {}), trainer.processes, limit=0)


def test_with_filters_both_tell_of_the_restricted_distribution(make: Maker) -> None:
    trainer = make(**SETTINGS, top_p=0.8, top_k=40, temperature=0.9)
    trainer.train()
    assert all(row["rollout/sampler_gap_max"] < 1e-3 for row in figures_of(trainer))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"engine": "fast"}, "engine is 'fast'; it must be auto, generate, compiled or vllm"),
        ({"release_cache": "sometimes"}, "release_cache is 'sometimes'; it must be auto, always or never"),
        ({"sampler_gap_limit": -1.0}, "sampler_gap_limit is -1.0"),
        ({"vllm_memory_share": 1.5}, "vllm_memory_share is 1.5; it must be 0 to 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PPOConfig(**settings)
