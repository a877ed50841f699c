"""Shards over two processes are one process with twice the answers: the same step, one decision, one checkpoint.

The processes are real, over gloo, started by torch's launcher; this file is also what they run. Each test runs with
FSDP2, and with ZeRO-3 where deepspeed is installed.
"""

import importlib.util
import json
import os
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from answers import ANSWERS, PROMPTS
from safetensors.torch import load_file, save_file
from two_processes import launch

from finlm import jsonl
from finlm.model import load_policy
from finlm.ppo_records import read_best, read_held_out
from finlm.records import Prompt

SETTINGS: dict[str, Any] = {
    "layout": "full",
    "total_episodes": 24,
    "per_device_train_batch_size": 2,
    "num_mini_batches": 1,
    "num_ppo_epochs": 2,
    "response_length": 6,
    "max_prompt_length": 64,
    "warmup_updates": 0,
    "learning_rate": 1e-3,
    "critic_learning_rate": 1e-3,
    # rounding decides the sign of a gradient near zero, and Adam would take a whole step by it
    "adam_epsilon": 1e-3,
    "max_grad_norm": 0.5,
    "entropy_coef": 0.01,
    "score_normalisation": "mean_std",
    "adaptive_kl_target": 0.5,
    "ptx_coef": 0.3,
    "ptx_text_share": 0.3,
    "ptx_test_share": 0.3,
    "ptx_rows": 6,
    "ptx_max_length": 96,
    "save_steps": 50,
}


def cut_by_zero() -> None:
    """Have full models cut by ZeRO-3, as accelerate's configuration would."""
    from torch.distributed.device_mesh import init_device_mesh

    from alignment import make_roles
    from alignment.zero import ZeRO

    def sharder_of(accelerator: Any, args: Any) -> Any:
        mesh = init_device_mesh("cpu", (accelerator.num_processes,))
        return ZeRO({"zero_optimization": {"stage": 3}}, mesh)

    make_roles.sharder_of = sharder_of


def stage(*arguments: str) -> None:
    """One process of the command itself."""
    from alignment import ppo
    from finlm import config

    sys.argv = ["ppo.py", *arguments]
    config.run(ppo.main, ppo.PPOSettings, "", folder="output_dir")


def child(base: str, reward: str, tiny: str, out: str, task: str, *also: str) -> None:
    """One process: learns from the eight answers, or its share of them, or trains; `also` changes how.

    Args:
        base: Folder of the model.
        reward: Folder of the reward model.
        tiny: Folder with text and instructions to mix in.
        out: Folder of the run.
        task: learn, train, stop (one process gets SIGTERM while it learns), poison (one process learns from NaN) or
            resume (takes up the newest checkpoint and writes the weights down).
        also: tied (embeddings), bfloat16, checkpointing.
    """
    from alignment import ppo_state, sharding
    from alignment.ppo_trainer import PPOConfig, PPOTrainer
    from alignment.stopping import EXIT_CODE, Stopped
    from finlm.errors import UserError
    from finlm.model import load_causal
    from finlm.tokenizer import load_tokenizer

    torch.set_num_threads(1)
    count = int(os.environ.get("WORLD_SIZE", "1"))
    tokenizer = load_tokenizer(base)
    dtype = torch.bfloat16 if "bfloat16" in also else torch.float32
    model = load_causal(Path(base), dtype=dtype, device=torch.device("cpu"))
    if "tied" in also:
        model.config.tie_word_embeddings = True
        model.tie_weights()
    torch.manual_seed(11)
    files: dict[str, Any] = {"ptx_instructions": [f"{tiny}/instructions.jsonl"], "ptx_text": [f"{tiny}/text.txt"]}
    files["ptx_cache"] = f"{out}-cache"
    trainer = PPOTrainer(
        args=PPOConfig(
            **SETTINGS,
            **files,
            output_dir=out,
            gradient_accumulation_steps=4 // count,
            gradient_checkpointing="checkpointing" in also,
        ),
        processing_class=tokenizer,
        model=model,
        ref_model=None,
        reward_model=reward,
        train_dataset=[{"input_ids": tokenizer(text)["input_ids"]} for text in ("One.", "Two two.", "Three?")],
    )
    index = trainer.processes.index
    if task in ("learn", "poison"):
        mine = slice(index * (8 // count), (index + 1) * (8 // count))
        measured = trainer.measure(PROMPTS[mine], ANSWERS[mine])
        lessons = trainer.credit(measured)
        first = trainer.gradients.policy[0]
        cut = type(first.cut).__name__ if isinstance(first, sharding.Shard) else None
        said: dict[str, Any] = {"cut": cut, "kl": max(float((one.old_BA - one.ref_BA).abs().max()) for one in measured)}
        if task == "poison":
            if index == 1:
                lessons[1].advantage_BA[0, 0] = float("nan")
            before = {name: one.detach().clone() for name, one in trainer.roles.parameters("policy").items()}
            with pytest.raises(UserError, match="no step was taken"):
                trainer.learn(lessons, update=1)
            after = trainer.roles.parameters("policy")
            said["unchanged"] = all(torch.equal(one, after[name]) for name, one in before.items())
        else:
            said["figures"] = trainer.learn(lessons, update=1)
            said["ratio"] = said["figures"]["val/ratio"]
            trainer.progress = replace(trainer.progress, update=1)
            trainer.save()
            trainer.roles.refresh()
            if index == 0:
                trainer.save_policy(Path(out, "policy"), base="")
        Path(out, f"said-{index}.json").write_text(json.dumps(said), encoding="utf-8")
        return
    if task == "resume":
        trainer.take_up()
        save_file(
            {
                name: tensor.detach().clone()
                for name, tensor in ppo_state._trained(trainer.roles, trainer.critic_head).items()
            },
            Path(out, "resumed.safetensors"),
        )
        return
    if task == "stop":
        straight, calls = trainer.gradients._of_policy, []

        def of_policy(*given: Any, **named: Any) -> Any:
            calls.append(1)
            if index == 1 and len(calls) == 6:  # in the second update; only one process is asked
                os.kill(os.getpid(), signal.SIGTERM)
            return straight(*given, **named)

        trainer.gradients._of_policy = of_policy  # type: ignore[method-assign]
    try:
        trainer.train()
    except Stopped as stopped:
        Path(out, f"stopped-{index}.txt").write_text(str(stopped), encoding="utf-8")
        sys.exit(EXIT_CODE)


ZERO3 = {"SHARDER": "zero3", "DS_ACCELERATOR": "cpu"}
"""DeepSpeed is content without a GPU; accelerate is not, and counts one process: so `cut_by_zero` stands in for it."""


@pytest.fixture(params=["fsdp2", "zero3"])
def environment(request: pytest.FixtureRequest) -> dict[str, str]:
    """What the two processes are cut by."""
    if request.param == "fsdp2":
        return {}
    if importlib.util.find_spec("deepspeed") is None:
        pytest.skip("deepspeed is not installed")
    return ZERO3


def run(tiny: Any, reward: Path, out: Path, count: int, task: str, *also: str, **environment: str) -> list[Any]:
    """Run processes to their end; return what each says."""
    out.mkdir(exist_ok=True)
    done = launch(count, Path(__file__), tiny.base, reward, tiny.folder, out, task, *also, **environment)
    assert (done.returncode == 0) == (task != "stop"), done.stderr[-3000:]
    return [json.loads(path.read_text()) for path in sorted(out.glob("said-*.json"))]


@pytest.mark.slow
@pytest.mark.parametrize("also", [(), ("tied", "checkpointing")], ids=["", "tied-checkpointing"])
def test_two_processes_take_the_step_of_one(
    tiny: Any, reward_model: Path, tmp_path: Path, also: tuple[str, ...], environment: dict[str, str]
) -> None:
    also = also if not environment else tuple(one for one in also if one != "tied")
    (one,) = run(tiny, reward_model, tmp_path / "1", 1, "learn", *also)
    two = run(tiny, reward_model, tmp_path / "2", 2, "learn", *also, **environment)
    assert one["cut"] is None
    assert {other["cut"] for other in two} == {"EngineCut" if environment else "DTensorCut"}
    assert one["kl"] == two[0]["kl"] == two[1]["kl"] == 0.0
    assert two[0]["figures"] == two[1]["figures"]
    for name, figure in one["figures"].items():
        assert two[0]["figures"][name] == pytest.approx(figure, rel=1e-3, abs=1e-6), name
    for file in ("weights", "policy_optimizer", "critic_optimizer"):
        wanted, found = (load_file(tmp_path / n / f"checkpoints/checkpoint-1/{file}.safetensors") for n in ("1", "2"))
        assert wanted.keys() == found.keys()
        for name, tensor in wanted.items():
            torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=2e-6, msg=f"{file} {name}")
    weights = load_file(tmp_path / "2/checkpoints/checkpoint-1/weights.safetensors")
    exported = load_file(tmp_path / "2/policy/model.safetensors")
    for name, tensor in exported.items():
        assert torch.equal(tensor, weights[f"policy.{name}"]), name
    assert ("lm_head.weight" in exported) != ("tied" in also)


@pytest.mark.slow
def test_bfloat16_begins_at_the_reference_and_keeps_float32_weights(
    tiny: Any, reward_model: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    said = run(tiny, reward_model, tmp_path / "run", 2, "learn", "bfloat16", **environment)
    assert [one["kl"] for one in said] == [0.0, 0.0]
    weights = load_file(tmp_path / "run/checkpoints/checkpoint-1/weights.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    exported = load_file(tmp_path / "run/policy/model.safetensors")
    assert {tensor.dtype for tensor in exported.values()} == {torch.bfloat16}
    # steps far below bfloat16's grain are not lost
    moved = [float((weights[f"policy.{n}"] != one.float()).float().mean()) for n, one in exported.items()]
    assert sum(moved) / len(moved) > 0.9


@pytest.mark.slow
def test_a_fault_in_one_process_stops_both_before_the_step(
    tiny: Any, reward_model: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    said = run(tiny, reward_model, tmp_path / "run", 2, "poison", **environment)
    assert [one["unchanged"] for one in said] == [True, True]
    assert list((tmp_path / "run/faults").glob("update-00001-process-1.jsonl"))


@pytest.mark.slow
def test_one_process_is_asked_to_stop_and_both_go_on_bit_by_bit(
    tiny: Any, reward_model: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    out, straight = tmp_path / "cut", tmp_path / "straight"
    run(tiny, reward_model, out, 2, "stop", **environment)
    assert [path.name for path in out.glob("checkpoints/checkpoint-*")] == ["checkpoint-1"]
    for index in (0, 1):
        told = (out / f"stopped-{index}.txt").read_text(encoding="utf-8")
        assert told.startswith("stopped by SIGTERM after update 1 of 3")
    run(tiny, reward_model, out, 2, "train", **environment)
    run(tiny, reward_model, straight, 2, "train", **environment)
    for file in sorted((straight / "checkpoints/checkpoint-3").iterdir()):
        assert file.read_bytes() == (out / "checkpoints/checkpoint-3" / file.name).read_bytes(), file.name


@pytest.mark.slow
def test_one_process_goes_on_from_the_checkpoint_of_two(
    tiny: Any, reward_model: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    run(tiny, reward_model, tmp_path / "run", 2, "learn", **environment)
    run(tiny, reward_model, tmp_path / "run", 1, "resume")
    wanted = load_file(tmp_path / "run/checkpoints/checkpoint-1/weights.safetensors")
    found = load_file(tmp_path / "run/resumed.safetensors")
    assert wanted.keys() == found.keys()
    for name, tensor in wanted.items():
        assert torch.equal(tensor, found[name]), name


@pytest.mark.slow
def test_the_stage_evaluates_keeps_and_exports_whole_models(
    tiny: Any, reward_model: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    """The command itself; three held-out prompts, which two processes cannot share evenly."""
    prompts = list(jsonl.read(tiny.new_prompts, Prompt))
    jsonl.write(tmp_path / "prompts.jsonl", prompts[3:])
    jsonl.write(tmp_path / "held_out.jsonl", prompts[:3])
    shutil.copytree(reward_model, tmp_path / "reward" / "model")
    lies = {name: str(tmp_path / f"{name}.jsonl") for name in ("prompts", "held_out")}
    lies |= {"model": str(tiny.base), "reward_model": str(tmp_path / "reward"), "output_dir": str(tmp_path / "ppo")}
    sizes = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "total_episodes": 16}
    sizes |= {"response_length": 6, "max_prompt_length": 64, "policy_steps": 1, "evaluation.every": 1, "save_steps": 1}
    rest = {"layout": "full", "dtype": "bfloat16", "learning_rate": 1e-4, "export": "best"}
    arguments = [one for name, value in (lies | sizes | rest).items() for one in (f"--{name}", str(value))]
    done = launch(2, Path(__file__), *arguments, **environment)
    assert done.returncode == 0, done.stderr[-3000:]
    records = read_held_out(tmp_path / "ppo")
    assert [record.update for record in records] == [0, 1, 2]
    assert all(len(record.rewards) == 3 for record in records)
    assert records[0].kl_nats == 0.0 != records[2].kl_nats
    best = read_best(tmp_path / "ppo")
    assert best is not None
    exported, _ = load_policy(tmp_path / "ppo", dtype=torch.bfloat16, device=torch.device("cpu"))
    kept = load_file(tmp_path / "ppo" / best.policy / "model.safetensors")
    for name, parameter in exported.named_parameters():
        assert torch.equal(parameter, kept[name]), name
    first, last = (load_file(tmp_path / f"ppo/policies/update-0000{n}/model.safetensors") for n in (0, 2))
    assert not torch.equal(first["lm_head.weight"], last["lm_head.weight"])


if __name__ == "__main__":
    if os.environ.get("SHARDER") == "zero3":
        cut_by_zero()
    (stage if sys.argv[1].startswith("--") else child)(*sys.argv[1:])
