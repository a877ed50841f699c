"""What must not hurt a run: damaged checkpoints, a full disk, numbers that are not finite."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from chain import Chain
from outcome import outcome
from safetensors.torch import load_file, save_file
from test_resume import number_of, start, unlike
from tiny import Tiny
from warm import Done, Warm

from finlm import runs

TRACEBACK = "Traceback (most recent call last)"


def ended_well(done: Done, code: int) -> None:
    assert done.returncode == code, done.said
    assert TRACEBACK not in done.said


# ------------------------------------------------------------------------------------------------ checkpoints


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x10
    file.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("stage", "operation", "file", "harm"),
    [
        ("ppo", "mkdir ppo/.policy.writing", "weights.safetensors", flip),
        ("ppo", "mkdir ppo/.policy.writing", "manifest.json", truncate),
        ("sft", "mkdir sft/.adapter.writing", "optimizer.pt", truncate),
        ("reward", "mkdir reward/.model.writing", "adapter_model.safetensors", flip),
        pytest.param("ppo", "mkdir ppo/.policy.writing", "weights.safetensors", truncate, marks=pytest.mark.slow),
        pytest.param("ppo", "mkdir ppo/.policy.writing", "manifest.json", flip, marks=pytest.mark.slow),
        pytest.param("sft", "mkdir sft/.adapter.writing", "optimizer.pt", flip, marks=pytest.mark.slow),
        pytest.param(
            "reward", "mkdir reward/.model.writing", "adapter_model.safetensors", truncate, marks=pytest.mark.slow
        ),
    ],
)
def test_damaged_newest_checkpoint_is_passed_over(
    chain: Chain, warm: Warm, tiny: Tiny, tmp_path: Path, stage: str, operation: str, file: str, harm: Callable
) -> None:
    """Killed before its export, a run has two checkpoints; with the newer one damaged it goes on from the older one."""
    folder = chain.before(stage, tmp_path / "run")
    at = number_of(chain.done[stage].operations, operation, 1)
    assert start(warm, tiny, stage, folder, kill_at=at).was_killed
    checkpoints = folder / "runs" / stage / "checkpoints"
    newest, complaints = runs.newest_whole(checkpoints, "checkpoint-*")
    assert newest is not None
    assert complaints == []
    harm(newest / file)
    resumed = start(warm, tiny, stage, folder)
    ended_well(resumed, 0)
    said = " ".join(resumed.stderr.split())
    assert "skipped a damaged checkpoint" in said
    assert f"{newest.name}/" in said
    assert unlike(chain, stage, folder) == []


def test_all_checkpoints_damaged_begins_again(chain: Chain, warm: Warm, tiny: Tiny, tmp_path: Path) -> None:
    folder = chain.before("ppo", tmp_path / "run")
    at = number_of(chain.done["ppo"].operations, "mkdir ppo/.policy.writing", 1)
    assert start(warm, tiny, "ppo", folder, kill_at=at).was_killed
    for checkpoint in (folder / "runs/ppo/checkpoints").iterdir():
        truncate(checkpoint / "policy_optimizer.safetensors")
    resumed = start(warm, tiny, "ppo", folder)
    ended_well(resumed, 0)
    assert resumed.stderr.count("skipped a damaged checkpoint") == 2
    assert unlike(chain, "ppo", folder) == []


# ------------------------------------------------------------------------------------------------ a full disk


@pytest.mark.parametrize(
    ("stage", "operation"),
    [
        ("ppo", "mkdir checkpoints/.checkpoint-2.writing"),
        ("ppo", "mkdir ppo/.policy.writing"),
        ("sft", "mkdir .staging/checkpoint-4"),
        ("reward", "mkdir reward/.model.writing"),
        pytest.param("sft", "mkdir sft/.model.writing", marks=pytest.mark.slow),
        pytest.param("reward", "mkdir .staging/checkpoint-4", marks=pytest.mark.slow),
        ("respond", "mkdir runs/candidates"),
    ],
)
def test_full_disk_is_one_sentence_and_the_run_goes_on_once_there_is_room(
    chain: Chain, warm: Warm, tiny: Tiny, tmp_path: Path, stage: str, operation: str
) -> None:
    folder = chain.before(stage, tmp_path / "run")
    at = number_of(chain.done[stage].operations, operation, 4 if stage == "respond" else 1)
    stopped = start(warm, tiny, stage, folder, full_at=at)
    ended_well(stopped, 2)
    assert "error:" in stopped.stderr
    assert "free some space" in stopped.stderr
    for checkpoint in (folder / "runs" / stage).glob("checkpoints/checkpoint-*"):
        assert runs.damage(checkpoint) is None
    ended_well(start(warm, tiny, stage, folder), 0)
    assert unlike(chain, stage, folder) == []


# ------------------------------------------------------------------------------------------------ not finite


def poison(file: Path, name: str | None = None) -> None:
    """Write one NaN into a weight."""
    tensors = load_file(file)
    tensors[name or next(iter(tensors))].view(-1)[0] = float("nan")
    save_file(tensors, file, metadata={"format": "pt"})


def test_nan_score_stops_ppo_before_any_step(chain: Chain, warm: Warm, tiny: Tiny, tmp_path: Path) -> None:
    folder = chain.before("ppo", tmp_path / "run")
    poison(folder / "runs/reward/model/head.safetensors", "weight")
    done = start(warm, tiny, "ppo", folder)
    ended_well(done, 2)
    assert "The reward model scores an answer nan" in done.stderr
    assert "optimizer step" not in done.operations
    assert not (folder / "runs/ppo/checkpoints").exists()
    assert not (folder / "runs/ppo/policy").exists()


def test_nan_score_later_leaves_the_checkpoints_as_they_were(
    chain: Chain, warm: Warm, tiny: Tiny, tmp_path: Path
) -> None:
    """A finished run is to train on, and its reward model is damaged in between (its seal says otherwise)."""
    folder = chain.before("evaluate", tmp_path / "run")
    before = {k: v for k, v in outcome(folder / "runs").items() if k.startswith(("ppo/checkpoints", "ppo/policy"))}
    poison(folder / "runs/reward/model/head.safetensors", "weight")
    done = start(warm, tiny, "ppo", folder, "--total_episodes", "40")
    ended_well(done, 2)
    after = outcome(folder / "runs")
    assert {name: after.get(name) for name in before} == before


@pytest.mark.parametrize("stage", ["sft", "reward"])
def test_nan_gradient_stops_training_before_any_step(
    chain: Chain, warm: Warm, tiny: Tiny, tmp_path: Path, stage: str
) -> None:
    folder = chain.before(stage, tmp_path / "run")
    base = tmp_path / "base"
    shutil.copytree(tiny.base, base)
    poison(base / "model.safetensors", "model.layers.1.mlp.down_proj.weight")
    done = start(warm, tiny, stage, folder, "--model", str(base))
    ended_well(done, 2)
    assert "is not finite; no step was taken" in done.stderr
    assert "optimizer step" not in done.operations
    assert not (folder / "runs" / stage / "model").exists()
    assert list((folder / "runs" / stage).glob("checkpoints/checkpoint-*")) == []


def test_nan_in_the_critics_loss_moves_neither_critic_nor_policy(chain: Chain, monkeypatch, tmp_path: Path) -> None:
    from peft import LoraConfig

    from alignment import objective
    from alignment.ppo_trainer import PPOConfig, PPOTrainer
    from finlm import jsonl, model
    from finlm.errors import UserError
    from finlm.records import Prompt
    from finlm.tokenizer import load_tokenizer

    base = chain.runs / "sft" / "model"
    cpu = torch.device("cpu")
    trainer = PPOTrainer(
        args=PPOConfig(
            output_dir=str(tmp_path),
            total_episodes=8,
            per_device_train_batch_size=4,
            gradient_accumulation_steps=2,
            response_length=12,
            max_prompt_length=128,
            critic_start="reward",  # no weight is to move, and the fit of the head is no step
        ),
        processing_class=load_tokenizer(base),
        model=model.load_causal(base, dtype=torch.float32, device=cpu),
        ref_model=None,
        reward_model=chain.runs / "reward",
        train_dataset=list(jsonl.read(chain.runs / "prompts.jsonl", Prompt)),
        peft_config=LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    weights = {
        name: tensor.detach().clone()
        for name, tensor in [*trainer.roles.model.named_parameters(), *trainer.critic_head.named_parameters()]
    }
    straight = objective.value_loss

    def not_a_number(*given: torch.Tensor, **named: float) -> objective.ValueLoss:
        loss = straight(*given, **named)
        return loss._replace(loss=loss.loss * float("nan"))

    monkeypatch.setattr(objective, "value_loss", not_a_number)
    with pytest.raises(UserError, match="The critic's gradient norm is nan; no step was taken"):
        trainer.train()
    for name, tensor in [*trainer.roles.model.named_parameters(), *trainer.critic_head.named_parameters()]:
        assert torch.equal(tensor, weights[name]), name
