"""Fine-tuning in two processes is fine-tuning in one: the same steps, held-out losses, best model and resume.

The processes are real, over gloo, started by torch's launcher; this file is also what they run. accelerate cuts models
on GPUs only, so `cut_on_cpu` tells it to here.
"""

import importlib.util
import json
import math
import os
import sys
from pathlib import Path
from types import MethodType
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file
from two_processes import ROOT, launch

STEPS = 4
needs_deepspeed = pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed")
CUTS = ["ddp", "fsdp", pytest.param("zero", marks=needs_deepspeed)]


def cut_on_cpu() -> None:
    """Have accelerate cut by FSDP2, as configs/accelerate/fsdp2.yaml would on GPUs."""
    from accelerate import accelerator
    from accelerate.state import AcceleratorState, PartialState
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
    from torch.distributed.fsdp import FSDPModule

    begin, cut = AcceleratorState.__init__, accelerator.fsdp2_prepare_model

    def begin_with_shards(self: Any, *given: Any, **named: Any) -> None:
        begin(self, *given, **named)
        if "fsdp_plugin" not in self.__dict__:
            self.fsdp_plugin = FullyShardedDataParallelPlugin(
                fsdp_version=2,
                reshard_after_forward=False,
                auto_wrap_policy="transformer_based_wrap",
                transformer_cls_names_to_wrap=["LlamaDecoderLayer"],
                state_dict_type="FULL_STATE_DICT",
                cpu_ram_efficient_loading=False,
            )
        self.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    def cut_for_gloo(*given: Any) -> Any:
        model = cut(*given)
        for module in model.modules():
            if isinstance(module, FSDPModule):  # gloo has no mean
                module.set_force_sum_reduction_for_comms(True)
        return model

    AcceleratorState.__init__ = begin_with_shards
    accelerator.fsdp2_prepare_model = cut_for_gloo


def cut_on_cpu_by_zero() -> None:
    """Have accelerate cut by DeepSpeed's ZeRO-3, as configs/accelerate/sft_zero3.yaml would on GPUs."""
    from accelerate.state import AcceleratorState, PartialState
    from accelerate.utils import DeepSpeedPlugin, DistributedType

    begin = AcceleratorState.__init__
    os.environ["ACCELERATE_USE_DEEPSPEED"] = "true"

    def begin_with_shards(self: Any, *given: Any, **named: Any) -> None:
        begin(self, *given, **named)
        self.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.DEEPSPEED
        if self.__dict__.get("deepspeed_plugins") is None:
            self.deepspeed_plugins = DeepSpeedPlugin(
                zero_stage=3, zero3_init_flag=False, zero3_save_16bit_model=True, gradient_accumulation_steps="auto"
            )
            # else weights as small as these stay whole
            self.deepspeed_plugins.deepspeed_config["zero_optimization"]["stage3_param_persistence_threshold"] = 0
            self.deepspeed_plugins.set_mixed_precision("no")
            self.deepspeed_plugins.select(_from_accelerator_state=True)

    AcceleratorState.__init__ = begin_with_shards


def samples(stream: Any, count: int, seed: int) -> list[Any]:
    from finlm.samples import Sample

    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        ids = rng.integers(2, 300, rng.integers(2, 30), dtype=np.int32)
        learned = np.arange(len(ids)) > 0
        made.append(Sample(stream, ids, learned, f"{stream}-{number}", "en", f"f:{number}"))
    return made


def child(base: str, out: str, tune: str, cut: str, *also: str) -> None:
    """One process: fine-tunes, and writes down what it has.

    Args:
        base: Folder of the model.
        out: Folder of the run.
        tune: lora or full.
        cut: ddp, fsdp or zero.
        also: kill (die after the third step), poison (one process's gradients are NaN), tied (embeddings), bfloat16
            (the base of adapters), fused (adapters, as on a GPU).
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import TrainerCallback, TrainingArguments

    from alignment.sft_plan import Plan
    from alignment.sft_trainer import HeldOutSettings, PackedTrainer
    from finlm import fused_lora, packed_loss
    from finlm.checkpoints import FiniteGradients
    from finlm.errors import UserError
    from finlm.mixture_moves import MixtureMoves
    from finlm.model import load_causal, save_trained

    torch.set_num_threads(1)
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if cut == "fsdp" and count > 1:
        cut_on_cpu()
    if cut == "zero" and count > 1:
        cut_on_cpu_by_zero()
    dtype = torch.bfloat16 if "bfloat16" in also else torch.float32
    model: Any = load_causal(Path(base), dtype=dtype, device=torch.device("cpu"))
    if "tied" in also:
        model.config.tie_word_embeddings = True
        model.tie_weights()
    packed_loss.install(model)
    torch.manual_seed(11)
    if tune == "lora":
        model = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"))
        generator = torch.Generator().manual_seed(12)
        for name, one in model.named_parameters():
            if "lora_B" in name:
                one.data.copy_(torch.randn(one.shape, generator=generator) * 0.1)
    if "fused" in also:
        for layer in model.modules():
            if isinstance(layer, fused_lora.LoraLinear):
                layer.forward = MethodType(fused_lora._forward, layer)
    folder = Path(out)
    shares = {"text-general": 0.25, "instructions-finance": 0.75}
    streams = {name: samples(name, 50, seed) for seed, name in enumerate(shares)}
    trainer = PackedTrainer(
        plan=Plan(streams, shares, room=64, rows=8, seed=5, folder=folder),
        held_out={name: samples(name, 6, seed) for seed, name in enumerate(shares, 2)},
        moves=MixtureMoves(),
        settings=HeldOutSettings(every=2),
        folder=folder,
        model=model,
        args=TrainingArguments(
            output_dir=str(folder / "checkpoints"), max_steps=STEPS, per_device_train_batch_size=2,
            gradient_accumulation_steps=4 // count, learning_rate=1e-2 if tune == "lora" else 1e-3, seed=3,
            save_strategy="steps", save_steps=2, logging_steps=1, report_to=[], use_cpu=True, disable_tqdm=True,
            adam_epsilon=1e-3, max_grad_norm=0.1, ddp_find_unused_parameters=False,
        ),
    )  # fmt: skip

    class Kill(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 3:
                os._exit(9)

    class Poison(TrainerCallback):
        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if args.process_index == 1:
                gradient = next(one.grad for one in trainer.model.parameters() if one.grad is not None)
                gradient.to_local().fill_(math.nan)

    if "kill" in also:
        trainer.add_callback(Kill())
    if "poison" in also:
        trainer.add_callback(Poison())
        trainer.add_callback(FiniteGradients())
    try:
        trainer.go_on()
    except UserError as error:
        (folder / f"error-{trainer.args.process_index}.txt").write_text(str(error), encoding="utf-8")
        return
    trainer.take_up()
    trainer.evaluated()
    weights = trainer.whole_weights()
    if trainer.args.should_save:
        save_trained(trainer.model, folder / "made", weights)
        (folder / "said.json").write_text(
            json.dumps([line for line in trainer.state.log_history if "grad_norm" in line])
        )


def made(folder: Path) -> dict[str, Any]:
    (path,) = (folder / "made").glob("*.safetensors")
    return load_file(path)


@pytest.mark.slow
@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("tune", [["lora"], ["full"], ["full", "tied"]], ids="-".join)
def test_two_processes_take_the_steps_of_one(tiny: Any, tmp_path: Path, tune: list[str], cut: str) -> None:
    import torch

    for count in (1, 2):
        done = launch(count, Path(__file__), tiny.base, tmp_path / str(count), tune[0], cut, *tune[1:])
        assert done.returncode == 0, done.stderr[-3000:]
    one, two = tmp_path / "1", tmp_path / "2"
    for name, weight in made(one).items():
        torch.testing.assert_close(made(two)[name], weight, atol=2e-6, rtol=1e-5)
    pairs = zip(*(json.loads((folder / "said.json").read_text()) for folder in (one, two)), strict=True)
    for line, same in pairs:
        assert same["loss"] == pytest.approx(line["loss"], rel=1e-5)
        assert same["grad_norm"] == pytest.approx(line["grad_norm"], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("cut", CUTS)
def test_adapters_beside_a_base_in_half_precision(tiny: Any, tmp_path: Path, cut: str) -> None:
    """Float32 adapters, fused as on a GPU: what is trained on a GPU, to the precision of bfloat16."""
    for count in (1, 2):
        done = launch(count, Path(__file__), tiny.base, tmp_path / str(count), "lora", cut, "bfloat16", "fused")
        assert done.returncode == 0, done.stderr[-3000:]
    pairs = zip(*(json.loads((tmp_path / count / "said.json").read_text()) for count in ("1", "2")), strict=True)
    for line, same in pairs:
        assert same["loss"] == pytest.approx(line["loss"], rel=2e-3)
        assert same["grad_norm"] == pytest.approx(line["grad_norm"], rel=2e-2)


@pytest.mark.slow
@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("tune", ["lora", "full"])
def test_a_killed_run_of_two_processes_goes_on_to_the_bit(tiny: Any, tmp_path: Path, tune: str, cut: str) -> None:
    """Killed before its last step, taken up, and taken up again where nothing is left to do."""
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    assert launch(2, Path(__file__), tiny.base, straight, tune, cut).returncode == 0
    assert launch(2, Path(__file__), tiny.base, broken, tune, cut, "kill").returncode != 0
    assert [path.name for path in broken.glob("checkpoints/checkpoint-*")] == ["checkpoint-2"]
    for _ in range(2):
        done = launch(2, Path(__file__), tiny.base, broken, tune, cut)
        assert done.returncode == 0, done.stderr[-3000:]
        for name, weight in made(straight).items():
            assert weight.equal(made(broken)[name]), name
        for name in ("held_out.jsonl", "best/best.json"):
            assert (broken / name).read_bytes() == (straight / name).read_bytes()


@pytest.mark.slow
def test_no_process_steps_where_anothers_shard_is_not_finite(tiny: Any, tmp_path: Path) -> None:
    done = launch(2, Path(__file__), tiny.base, tmp_path, "full", "fsdp", "poison")
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = ((tmp_path / f"error-{index}.txt").read_text(encoding="utf-8") for index in (0, 1))
    assert "The gradient of a weight in another process at step 1 is not finite" in first
    assert "The gradient of model.embed_tokens.weight at step 1 is not finite" in second


@pytest.mark.slow
@pytest.mark.parametrize("tune", ["lora", "full"])
def test_the_command_runs_in_two_processes(tiny: Any, tmp_path: Path, tune: str) -> None:
    found = []
    for count in (1, 2):
        given = {
            "model": tiny.base, "instructions_finance": f'["{tiny.instructions}"]', "text_finance": f'["{tiny.text}"]',
            "test_share": 0.3, "steps": 4, "batch_size": 8, "micro_batch": 2, "max_length": 128, "save_steps": 2,
            "learning_rate": 1e-3, "dtype": "float32", "tune": tune, "export": "best", "threads": 1,
            "runs": tmp_path / str(count),
        }  # fmt: skip
        flags = [f"--{name}={value}" for name, value in given.items()]
        done = launch(count, ROOT / "alignment" / "sft.py", *flags)
        assert done.returncode == 0, done.stderr[-3000:]
        out = tmp_path / str(count) / "sft"
        found.append(json.loads((out / "run.json").read_text(encoding="utf-8"))["counts"])
        assert (out / "model" / "model.safetensors").is_file()
        assert (out / "report.html").is_file()
    one, two = found
    assert two.pop("test_loss") == pytest.approx(one.pop("test_loss"), rel=1e-4)
    assert two.pop("test_loss_before") == pytest.approx(one.pop("test_loss_before"), rel=1e-6)
    assert one == two
    assert found[0]["steps"] == 4


if __name__ == "__main__":
    child(*sys.argv[1:])
