"""Two processes over gloo are one process with twice the answers: the same step, one decision to stop, one checkpoint.
If one is killed or hangs, the other says so and ends.

The processes are real, started by torch's launcher; this file is also what they run.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from answers import ANSWERS, PROMPTS
from two_processes import search_path

SETTINGS: dict[str, Any] = {
    "total_episodes": 24,
    "per_device_train_batch_size": 2,
    "num_mini_batches": 1,
    "num_ppo_epochs": 2,
    "response_length": 6,
    "max_prompt_length": 64,
    "warmup_updates": 0,
    "learning_rate": 1e-2,
    "critic_learning_rate": 1e-2,
    "score_normalisation": "mean_std",
    "whiten_rewards": True,
    "adaptive_kl_target": 0.5,
    "ptx_coef": 0.3,
    "ptx_text_share": 0.3,
    "ptx_test_share": 0.3,
    "ptx_rows": 6,
    "ptx_max_length": 96,
    "save_steps": 50,
}
SIGNALS = {"stop": signal.SIGTERM, "die": signal.SIGKILL, "hang": signal.SIGSTOP}
"""Task -> what the second process gets in the middle of the second update."""


def child(base: str, reward: str, tiny: str, out: str, task: str) -> None:
    """One process: learns from the eight answers, its share of them, or trains until one process gets SIGTERM."""
    import torch
    from peft import LoraConfig

    from alignment.ppo_trainer import PPOConfig, PPOTrainer
    from alignment.processes import LostProcess
    from alignment.stopping import EXIT_CODE, Stopped
    from finlm import generation
    from finlm.model import device_of_this_process, load_causal
    from finlm.tokenizer import load_tokenizer

    torch.set_num_threads(1)
    on_gpus = "ACCELERATE_USE_CPU" not in os.environ
    device = device_of_this_process() if on_gpus else torch.device("cpu")
    count = int(os.environ.get("WORLD_SIZE", "1"))
    tokenizer = load_tokenizer(base)
    torch.manual_seed(11)
    files: dict[str, Any] = {"ptx_instructions": [f"{tiny}/instructions.jsonl"], "ptx_text": [f"{tiny}/text.txt"]}
    files["ptx_cache"] = f"{out}-cache"
    trainer = PPOTrainer(
        args=PPOConfig(**SETTINGS, **files, output_dir=out, gradient_accumulation_steps=4 // count, engine="generate"),
        processing_class=tokenizer,
        model=load_causal(Path(base), dtype=torch.float32, device=device),
        ref_model=None,
        reward_model=reward,
        train_dataset=[{"input_ids": tokenizer(text)["input_ids"]} for text in ("One.", "Two two.", "Three?")],
        peft_config=LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    generator = torch.Generator().manual_seed(12)
    with torch.no_grad():
        for parameter in trainer.gradients.policy:
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    if task == "learn":
        mine = slice(trainer.processes.index * (8 // count), (trainer.processes.index + 1) * (8 // count))
        most = trainer.processes.max(float(trainer.processes.index))
        measured = trainer.measure(PROMPTS[mine], ANSWERS[mine])
        figures = trainer.learn(trainer.credit(measured), update=1)
        weights = [*trainer.gradients.policy, *trainer.gradients.critic]
        sums = [float(weight.detach().double().square().sum()) for weight in weights]
        scores = trainer.progress.scores
        said = {"figures": figures, "most": most, "weights": sums, "scores": [scores.count, scores.mean, scores.m2]}
        Path(out, f"said-{trainer.processes.index}.json").write_text(json.dumps(said), encoding="utf-8")
        return
    if task in SIGNALS:
        straight, calls = generation.pad_left, []

        def pad_left(*given: Any) -> Any:
            calls.append(1)
            if trainer.processes.index == 1 and len(calls) == 2:  # only one process gets it, while it samples
                os.kill(os.getpid(), SIGNALS[task])
            return straight(*given)

        generation.pad_left = pad_left
    try:
        trainer.train()
    except LostProcess as lost:
        print(f"error: {lost}", file=sys.stderr)
        sys.exit(2)
    except Stopped as stopped:
        Path(out, f"stopped-{trainer.processes.index}.txt").write_text(str(stopped), encoding="utf-8")
        sys.exit(EXIT_CODE)


ENVIRONMENT = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}


def apart(*arguments: str | Path, on_gpus: bool = False) -> list[subprocess.Popen[str]]:
    """Start two processes without a launcher, which would end both when one ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    here = {} if on_gpus else ENVIRONMENT
    here = here | {"PYTHONPATH": search_path(), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    return [
        subprocess.Popen(
            [sys.executable, __file__, *map(str, arguments)],
            env=os.environ | here | {"RANK": str(index), "LOCAL_RANK": str(index)},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for index in (0, 1)
    ]


def launch(count: int, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count)]
    launcher = [sys.executable, *(several if count > 1 else [])]
    environment = ENVIRONMENT | {"PYTHONPATH": search_path()}
    return subprocess.run(
        [*launcher, __file__, *map(str, arguments)],
        env=os.environ | environment,
        text=True,
        capture_output=True,
        timeout=300,
        check=False,
    )


@pytest.mark.slow
def test_two_processes_take_the_step_of_one(tiny: Any, reward_model: Path, tmp_path: Path) -> None:
    said: dict[int, list[Any]] = {}
    for count in (1, 2):
        out = tmp_path / str(count)
        out.mkdir()
        done = launch(count, tiny.base, reward_model, tiny.folder, out, "learn")
        assert done.returncode == 0, done.stderr[-3000:]
        said[count] = [json.loads((out / f"said-{index}.json").read_text()) for index in range(count)]
    (one,), two = said[1], said[2]
    assert two[0] == two[1]  # to the bit: both processes decide alike
    assert (one["most"], two[0]["most"]) == (0, 1)
    assert two[0]["weights"] == pytest.approx(one["weights"], rel=1e-4, abs=1e-7)
    assert two[0]["scores"] == pytest.approx(one["scores"], rel=1e-5)
    for name, figure in one["figures"].items():
        assert two[0]["figures"][name] == pytest.approx(figure, rel=1e-3, abs=1e-6), name


@pytest.mark.slow
def test_one_process_is_asked_to_stop_and_both_do(tiny: Any, reward_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "cut"
    out.mkdir()
    stopped = launch(2, tiny.base, reward_model, tiny.folder, out, "stop")
    assert stopped.returncode != 0
    assert [path.name for path in out.glob("checkpoints/checkpoint-*")] == ["checkpoint-1"], stopped.stderr[-3000:]
    for index in (0, 1):
        told = (out / f"stopped-{index}.txt").read_text(encoding="utf-8")
        assert told.startswith("stopped by SIGTERM after update 1 of 3")
    straight = tmp_path / "straight"
    straight.mkdir()
    for folder in (out, straight):
        done = launch(2, tiny.base, reward_model, tiny.folder, folder, "train")
        assert done.returncode == 0, done.stderr[-3000:]
    files = ("weights.safetensors", "policy_optimizer.safetensors", "critic_optimizer.safetensors", "progress.json")
    for name in files:
        at = Path("checkpoints/checkpoint-3") / name
        assert (out / at).read_bytes() == (straight / at).read_bytes(), name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "said"),
    [
        ("die", "Process 0 of 2 no longer reaches the others"),
        ("hang", "Process 1 has given no sign of life for 40 seconds"),
    ],
)
def test_a_lost_process_ends_the_other_with_a_message(
    tiny: Any, reward_model: Path, tmp_path: Path, task: str, said: str
) -> None:
    out = tmp_path / "lost"
    out.mkdir()
    the_other_ends(apart(tiny.base, reward_model, tiny.folder, out, task), said)


@pytest.mark.gpu
@pytest.mark.parametrize("task", ["die", "hang"])
def test_a_lost_process_ends_the_other_over_nccl(tiny: Any, reward_model: Path, tmp_path: Path, task: str) -> None:
    import torch

    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    out = tmp_path / "lost"
    out.mkdir()
    processes = apart(tiny.base, reward_model, tiny.folder, out, task, on_gpus=True)
    the_other_ends(processes, "Process 1 has given no sign of life for 40 seconds")


def the_other_ends(processes: list[subprocess.Popen[str]], said: str) -> None:
    """Check that the first process ends by itself, saying why."""
    first, second = processes
    try:
        # a minute is promised, a slow machine takes as long to start
        _, told = first.communicate(timeout=240)
        assert first.returncode == 2, told[-3000:]
        assert said in told
        assert "The same command goes on from the last checkpoint." in told
    finally:
        second.kill()
        second.communicate()
    assert second.returncode == -signal.SIGKILL


@pytest.mark.slow
def test_a_lost_process_ends_a_launched_run_which_then_goes_on(tiny: Any, reward_model: Path, tmp_path: Path) -> None:
    out, straight = tmp_path / "lost", tmp_path / "straight"
    for folder in (out, straight):
        folder.mkdir()
    lost = launch(2, tiny.base, reward_model, tiny.folder, out, "die")
    assert lost.returncode != 0
    assert "Signal 9 (SIGKILL)" in lost.stderr
    for folder in (out, straight):
        done = launch(2, tiny.base, reward_model, tiny.folder, folder, "train")
        assert done.returncode == 0, done.stderr[-3000:]
    at = Path("checkpoints/checkpoint-3/weights.safetensors")
    assert (out / at).read_bytes() == (straight / at).read_bytes()


if __name__ == "__main__":
    child(*sys.argv[1:])
