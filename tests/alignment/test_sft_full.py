"""Fine-tuning of all weights: what is kept in which dtype, the optimizer of eight bits, and the model that follows."""

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_sft import settings
from transformers import TrainerCallback

from alignment import sft, sft_sharded
from alignment.sft_trainer import PackedTrainer
from finlm import model, runs, tuning
from finlm.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
CPU = torch.device("cpu")
HAS_TORCHAO = importlib.util.find_spec("torchao") is not None
needs_torchao = pytest.mark.skipif(not HAS_TORCHAO, reason="torchao is not installed")
FULL = ("--tune=full", "--learning_rate=1e-3")


def counts(folder: Path) -> dict[str, Any]:
    state = runs.read_state(folder / "runs" / "sft")
    assert state is not None
    return dict(state["counts"])


def test_all_weights_learn_and_the_model_itself_is_exported(tiny: Any, tmp_path: Path) -> None:
    sft.main(settings(tiny, tmp_path, *FULL))
    out = tmp_path / "runs" / "sft"
    found = counts(tmp_path)
    assert found["test_loss"] < found["test_loss_before"]
    assert not (out / "adapter").exists()
    before, after = (load_file(folder / "model.safetensors") for folder in (tiny.base, out / "model"))
    assert before.keys() == after.keys()
    assert all(weight.dtype == torch.bfloat16 for weight in after.values())
    assert not any(weight.float().equal(before[name].float()) for name, weight in after.items())
    # what every later stage does with `runs/sft`
    policy, tokenizer = model.load_policy(out, dtype=torch.float32, device=CPU)
    with torch.no_grad():
        logits = policy(input_ids=torch.tensor([tokenizer("One two.")["input_ids"]])).logits
    assert bool(logits.isfinite().all())
    said = json.loads((out / "model" / "config.json").read_text(encoding="utf-8"))
    was = json.loads((Path(tiny.base) / "config.json").read_text(encoding="utf-8"))
    assert said.pop("dtype") == "bfloat16"
    assert {name: was[name] for name in said if name in was} == said


def test_the_best_of_all_weights_is_exported(tiny: Any, tmp_path: Path) -> None:
    sft.main(settings(tiny, tmp_path, *FULL, "--export=best", "--held_out.every=1", "--learning_rate=0.1"))
    out = tmp_path / "runs" / "sft"
    best, exported = (load_file(folder / "model.safetensors") for folder in (out / "best", out / "model"))
    assert json.loads((out / "best" / "best.json").read_text())["step"] == counts(tmp_path)["exported_step"]
    for name, weight in best.items():
        assert weight.dtype == torch.float32
        assert weight.to(torch.bfloat16).equal(exported[name]), name


@pytest.mark.parametrize(
    ("flags", "kept", "computed"),
    [
        (["--tune=lora", "--dtype=bfloat16"], torch.bfloat16, None),
        (["--tune=lora", "--dtype=float32"], torch.float32, None),
        (["--tune=full", "--dtype=bfloat16"], torch.float32, torch.bfloat16),
        (["--tune=full", "--dtype=float32"], torch.float32, None),
        (["--tune=full", "--dtype=bfloat16", "--optimizer=adamw_8bit"], torch.bfloat16, None),
        (["--tune=full", "--dtype=float32", "--optimizer=adamw_8bit"], torch.float32, None),
    ],
)
def test_weights_are_float32_where_plain_adamw_steps_on_all(
    tiny: Any, tmp_path: Path, flags: list[str], kept: torch.dtype, computed: torch.dtype | None
) -> None:
    given = settings(tiny, tmp_path, *flags)
    assert tuning.kept_in(given, CPU) == kept
    assert tuning.autocast(given, CPU) == computed


def test_float32_weights_that_compute_in_bfloat16_learn(tiny: Any, tmp_path: Path) -> None:
    """The losses of the first steps are those of float32 to the precision of bfloat16."""
    found = []
    for dtype in ("bfloat16", "float32"):
        sft.main(settings(tiny, tmp_path / dtype, *FULL, f"--dtype={dtype}"))
        found.append(counts(tmp_path / dtype)["test_loss"])
        kept = load_file(tmp_path / dtype / "runs" / "sft" / "checkpoints" / "checkpoint-4" / "model.safetensors")
        assert all(weight.dtype == torch.float32 for weight in kept.values())
    assert found[0] != found[1]
    assert found[0] == pytest.approx(found[1], rel=5e-3)


def test_eight_bits_are_for_all_weights(tiny: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="adamw_8bit is for tune: full"):
        settings(tiny, tmp_path, "--optimizer=adamw_8bit")


def test_eight_bits_without_torchao_name_the_way_out(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"torchao is not installed: pip install 'finlm\[cuda\]', or set optimizer"):
        sft.main(settings(tiny, tmp_path, *FULL, "--optimizer=adamw_8bit"))
    assert not (tmp_path / "runs" / "sft").exists()


def test_eight_bits_are_for_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    tuning.require("adamw_8bit", 1)
    tuning.require("adamw", 8)
    with pytest.raises(UserError, match=r"in 8 processes, and is for one: .* configs/accelerate/sft_fsdp2\.yaml"):
        tuning.require("adamw_8bit", 8)


def test_deepspeed_must_let_the_model_be_saved() -> None:
    """As `configs/accelerate/zero3.yaml`, which is PPO's, would not."""
    config: dict[str, Any] = {"zero_optimization": {"stage": 3}}
    state = SimpleNamespace(deepspeed_plugin=SimpleNamespace(deepspeed_config=config))
    trainer: Any = SimpleNamespace(
        accelerator=SimpleNamespace(state=state), is_fsdp_enabled=False, is_deepspeed_enabled=True, model=None
    )
    with pytest.raises(UserError, match="no model could be saved: set zero3_save_16bit_model"):
        sft_sharded.prepare(trainer, torch.bfloat16)
    config["zero_optimization"][sft_sharded.SAVES] = True
    sft_sharded.prepare(trainer, torch.bfloat16)
    assert config["bf16"] == {"enabled": True}


def test_a_norm_that_is_not_finite_ends_the_run() -> None:
    sft_sharded.check_norm(1e30, 3)
    with pytest.raises(UserError, match="norm at step 3 is nan; the checkpoints keep the weights from before"):
        sft_sharded.check_norm(float("nan"), 3)


class Killed(Exception):
    pass


class Kill(TrainerCallback):
    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 3:
            raise Killed


@needs_torchao
@pytest.mark.slow
def test_eight_bits_lower_the_loss_and_resume_to_the_bit(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torchao compiles its step, here for a CPU: half a minute."""
    flags = (*FULL, "--optimizer=adamw_8bit", "--dtype=bfloat16")
    sft.main(settings(tiny, tmp_path / "straight", *flags))
    found = counts(tmp_path / "straight")
    assert found["test_loss"] < found["test_loss_before"]
    straight = PackedTrainer.go_on

    def go_on(self: PackedTrainer) -> None:
        self.add_callback(Kill())
        straight(self)

    with monkeypatch.context() as patch:
        patch.setattr(PackedTrainer, "go_on", go_on)
        with pytest.raises(Killed):
            sft.main(settings(tiny, tmp_path / "cut", *flags))
    sft.main(settings(tiny, tmp_path / "cut", *flags))
    ours, theirs = (load_file(tmp_path / name / "runs/sft/model/model.safetensors") for name in ("cut", "straight"))
    for name, weight in theirs.items():
        assert weight.equal(ours[name]), name
    state = torch.load(
        tmp_path / "straight/runs/sft/checkpoints/checkpoint-4/optimizer.pt", map_location="cpu", weights_only=True
    )
    assert {type(one["exp_avg"]).__name__ for one in state["state"].values() if one["exp_avg"].numel() >= 4096} == {
        "OptimState8bit"
    }
