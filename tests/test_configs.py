"""Every shipped configuration loads through the class that its stage parses it with, down to the libraries' fields."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.launch import prepare_multi_gpu_env
from entry_files import settings_of
from peft import LoraConfig, get_peft_model
from torch.distributed.fsdp import StateDictType
from transformers import LlamaConfig, LlamaForCausalLM, TrainingArguments

from alignment.make_roles import check_fsdp
from finlm import config
from finlm.__main__ import COMMANDS
from finlm.demo import STAGES
from finlm.errors import UserError

CONFIGS = Path(__file__).parent.parent / "configs"
MODULES = {
    "selfqa": "selfqa.generate",
    "sft": "alignment.sft",
    "respond": "alignment.respond",
    "by_figures": "annotation.by_figures",
    "annotate_serve": "annotation.serve",
    "annotate_push": "annotation.push",
    "annotate_pull": "annotation.pull",
    "reward": "reward.train",
    "prompts": "finlm.prompts",
    "ppo": "alignment.ppo",
    "evaluate": "finlm.evaluate",
    "round": "finlm.round",
}
SIZES = ("demo", "6b")
MORE = [("ppo", "6b_full"), ("sft", "6b_full"), ("sft", "6b_stage1"), ("sft", "6b_stage2")]
MORE += [("reward", "6b_full"), ("reward", "6b_general"), ("reward", "6b_finance")]
FILES = [(stage, size) for stage in MODULES for size in SIZES] + MORE
TRAINERS = {"sft": TrainingArguments, "reward": TrainingArguments}
SMOLLM2_LAYERS = 30
"""Layers of SmolLM2-135M, which the demo trains (its model card)."""
STAGE_FILES = sorted(path for path in CONFIGS.glob("*.yaml"))


def loaded(stage: str, size: str) -> Any:
    more = ["--corpus", "filings"] if stage == "selfqa" else []
    return config.parse(settings_of(MODULES[stage]), "", ["--config", f"{stage}_{size}", *more], prog=f"finlm {stage}")


def test_every_file_below_configs_is_known_here() -> None:
    found = {path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*") if path.is_file()}
    expected = {f"{stage}_{size}.yaml" for stage, size in FILES} | {"model/6b.json"}
    accelerate = ("fsdp2", "multi_gpu", "one_process", "sft_fsdp2", "sft_zero3", "zero3")
    assert found == expected | {f"accelerate/{name}.yaml" for name in accelerate}
    assert len(STAGE_FILES) == 31


def test_every_command_whose_settings_depend_on_the_size_has_both() -> None:
    # demo takes every stage's own; of these only the server's address and a page's place are ever set
    pages = {"annotate check", "annotate evaluate", "annotate report", "rollouts", "sft-report", "trace"}
    server = {"annotate adjudicate", "annotate backup", "annotate invite", "annotate listen", "annotate recover"}
    without = (
        pages | server | {"annotate by-passage", "annotate import", "chat", "demo", "reward score", "reward serve"}
    )
    modules = {module for name, (module, _) in COMMANDS.items() if name not in without}
    assert set(MODULES.values()) == modules
    assert {stage.name for stage in STAGES} <= set(MODULES)


@pytest.mark.parametrize(("stage", "size"), FILES)
def test_file_loads_and_what_it_says_is_what_the_stage_gets(stage: str, size: str) -> None:
    settings = loaded(stage, size)
    said = yaml.safe_load((CONFIGS / f"{stage}_{size}.yaml").read_text(encoding="utf-8"))
    assert said, "a configuration that says nothing"
    for name, value in said.items():
        given = getattr(settings, name)
        if name == "corpus":
            assert given == "filings"
            continue
        given = list(given) if isinstance(value, list) else given
        if dataclasses.is_dataclass(given):
            given = {key: getattr(given, key) for key in value}
        assert given == json.loads(json.dumps(value).replace("{runs}", "runs")), name


@pytest.mark.parametrize("path", STAGE_FILES, ids=lambda path: path.stem)
def test_typo_and_wrong_type_are_named(path: Path, tmp_path: Path) -> None:
    stage = next(stage for stage, size in FILES if path.stem == f"{stage}_{size}")
    said = yaml.safe_load(path.read_text(encoding="utf-8"))
    name = next(name for name, value in said.items() if not isinstance(value, bool))
    more = ["--corpus", "filings"] if stage == "selfqa" else []
    faults = (
        ({f"{name}x": said[name]} | {k: v for k, v in said.items() if k != name}, f"Unknown setting '{name}x'"),
        (said | {name: {"not": "this"}}, f"Setting '{name}'"),
    )
    for content, message in faults:
        file = tmp_path / "a.yaml"
        file.write_text(yaml.safe_dump(content), encoding="utf-8")
        if isinstance(said[name], dict):
            continue
        with pytest.raises(UserError, match=message):
            config.parse(settings_of(MODULES[stage]), "", ["--config", str(file), *more], prog=f"finlm {stage}")


# ------------------------------------------------------------------------------------------------ nested sections


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stage", ["sft", "reward", "ppo"])
def test_lora_section_is_pefts(stage: str, size: str) -> None:
    """It builds a LoraConfig, and that adapts the layers it says of a model of the right depth, without dropout."""
    made = config.section("lora", loaded(stage, size).lora, LoraConfig, {"task_type": "CAUSAL_LM"})
    assert made.lora_dropout == 0.0
    layers = SMOLLM2_LAYERS if size == "demo" else 30
    with torch.device("meta"):
        shape = LlamaConfig(
            num_hidden_layers=layers, hidden_size=32, intermediate_size=64, num_attention_heads=4, vocab_size=64
        )
        adapted = get_peft_model(LlamaForCausalLM(shape), made)
    names = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    chosen = set(made.layers_to_transform or range(layers))
    assert {int(name.split(".layers.")[1].split(".")[0]) for name in names} == chosen
    assert len(names) == len(chosen) * 7 * 2  # seven linear maps a layer, A and B


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stage", TRAINERS)
def test_trainer_section_is_its_librarys(stage: str, size: str, tmp_path: Path) -> None:
    ours = {"output_dir": str(tmp_path), "use_cpu": True, "bf16": False, "report_to": "none"}
    given = loaded(stage, size).trainer
    made = config.section("trainer", given, TRAINERS[stage], ours)
    for name, value in given.items():
        assert getattr(made, name) == value
    with pytest.raises(UserError, match=r"Unknown setting 'trainer\.gradient_checkpointin'.*'gradient_checkpointing'"):
        config.section("trainer", {"gradient_checkpointin": True}, TRAINERS[stage], ours)


# ------------------------------------------------------------------------------------------------ what must agree


@pytest.mark.parametrize("size", SIZES)
def test_all_stages_of_one_size_agree(size: str) -> None:
    """A company held out by one stage must not be trained on by another; what is sampled must fit what is learned."""
    stages = {stage: loaded(stage, size) for stage in ("sft", "respond", "reward", "prompts", "ppo", "evaluate")}
    shares = {stage: settings.test_share for stage, settings in stages.items() if hasattr(settings, "test_share")}
    assert set(shares) == {"sft", "reward", "prompts", "evaluate"}
    assert len(set(shares.values())) == 1, shares
    assert {settings.seed for settings in stages.values()} == {0}
    assert len({stages[stage].max_prompt_length for stage in ("respond", "prompts", "ppo", "evaluate")}) == 1
    longest = stages["respond"].max_prompt_length + stages["respond"].max_new_tokens
    assert stages["reward"].max_length >= longest
    assert stages["ppo"].max_prompt_length + stages["ppo"].response_length <= stages["reward"].max_length
    kinds = {tuple(stages[stage].kinds) for stage in ("respond", "prompts", "evaluate")}
    languages = {tuple(stages[stage].languages) for stage in ("respond", "prompts", "evaluate")}
    assert len(kinds) == len(languages) == 1


def test_defaults_of_all_stages_agree() -> None:
    shares = {
        stage: next(
            field.default for field in dataclasses.fields(settings_of(MODULES[stage])) if field.name == "test_share"
        )
        for stage in ("sft", "reward", "prompts", "evaluate")
    }
    assert len(set(shares.values())) == 1, shares


# ------------------------------------------------------------------------------------------------ the others


def test_6b_has_the_parameters_of_its_recipe() -> None:
    """30 layers of width 4096, MLP 11008, 39438 pieces, embeddings untied: counted by hand."""
    shape = LlamaConfig(**json.loads((CONFIGS / "model" / "6b.json").read_text(encoding="utf-8")))
    assert shape.max_position_embeddings == 2048
    layer = 4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096
    with torch.device("meta"):
        assert LlamaForCausalLM(shape).num_parameters() == 2 * 39438 * 4096 + 30 * layer + 4096 == 6_394_580_992


SEVERAL = ("multi_gpu", "fsdp2", "zero3", "sft_fsdp2", "sft_zero3")


@pytest.mark.parametrize(("name", "processes"), [("one_process", 1), *((name, 8) for name in SEVERAL)])
def test_accelerate_reads_its_files(name: str, processes: int) -> None:
    found = load_config_from_file(str(CONFIGS / "accelerate" / f"{name}.yaml"))
    assert found.num_processes == processes
    assert found.mixed_precision == "no"  # the frozen base has its own dtype, adapters are float32


def launched(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set what `accelerate launch --config_file` sets for the processes that it starts."""
    found = load_config_from_file(str(CONFIGS / "accelerate" / f"{name}.yaml"))
    parser = launch_command_parser()
    arguments = parser.parse_args(["--config_file", str(CONFIGS / "accelerate" / f"{name}.yaml"), "ppo.py"])
    arguments, _, _ = _validate_launch_command(arguments)
    assert arguments.num_processes == found.num_processes
    for key, value in prepare_multi_gpu_env(arguments).items():
        if key.startswith(("ACCELERATE_", "FSDP_")):
            monkeypatch.setenv(key, value)


def test_fsdp2_says_what_ppo_shards_by(monkeypatch: pytest.MonkeyPatch) -> None:
    launched("fsdp2", monkeypatch)
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2
    assert plugin.reshard_after_forward is True
    check_fsdp(plugin)
    assert not plugin.cpu_ram_efficient_loading  # each process loads the frozen model whole
    monkeypatch.setenv("FSDP_OFFLOAD_PARAMS", "true")
    with pytest.raises(UserError, match="fsdp_offload_params is true"):
        check_fsdp(FullyShardedDataParallelPlugin())
    plugin.fsdp_version = 1
    with pytest.raises(UserError, match="fsdp_version is 1"):
        check_fsdp(plugin)


def test_sft_fsdp2_says_what_fine_tuning_shards_by(monkeypatch: pytest.MonkeyPatch) -> None:
    launched("sft_fsdp2", monkeypatch)
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2
    assert plugin.reshard_after_forward is False
    assert plugin.state_dict_type == StateDictType.FULL_STATE_DICT  # checkpoints are whole
    assert plugin.transformer_cls_names_to_wrap == ["LlamaDecoderLayer"]
    assert plugin.mixed_precision_policy is None
    assert not plugin.cpu_ram_efficient_loading


def test_sft_zero3_lets_the_model_be_saved_and_steps_be_gathered() -> None:
    """Read as it lies there: the plugin that accelerate makes of it needs deepspeed."""
    said = load_config_from_file(str(CONFIGS / "accelerate" / "sft_zero3.yaml")).deepspeed_config
    assert said["zero3_save_16bit_model"] is True
    assert said["gradient_accumulation_steps"] == said["gradient_clipping"] == "auto"  # a Trainer's are refused else


def test_the_second_stage_of_fine_tuning_begins_with_the_firsts_model() -> None:
    first, second = loaded("sft", "6b_stage1"), loaded("sft", "6b_stage2")
    assert second.model == f"{first.output}/model"
    assert second.output == loaded("sft", "6b").output  # what candidates, reward model and PPO stand on
    assert first.by_stream["text-finance"] == first.by_stream["instructions-finance"] == 0
    for kind in ("text", "instructions"):  # the recipe's general : finance
        assert second.by_stream[f"{kind}-general"] == pytest.approx(4 * second.by_stream[f"{kind}-finance"])
    processes = load_config_from_file(str(CONFIGS / "accelerate" / "sft_fsdp2.yaml")).num_processes
    for stage in (first, second):
        assert stage.batch_size % (stage.micro_batch * processes) == 0
        assert (stage.tune, stage.optimizer) == ("full", "adamw")
    assert loaded("sft", "6b_full").optimizer == "adamw_8bit"


def test_full_6b_takes_the_same_answers_a_step_as_the_6b_with_adapters() -> None:
    adapters, full = loaded("ppo", "6b"), loaded("ppo", "6b_full")
    processes = load_config_from_file(str(CONFIGS / "accelerate" / "fsdp2.yaml")).num_processes
    assert adapters.layout == "adapters"
    assert full.layout == "full"
    assert full.local_batch_size * processes == adapters.local_batch_size
    same = (
        "total_episodes",
        "max_prompt_length",
        "response_length",
        "seed",
        "kl_coef",
        "temperature",
        "num_ppo_epochs",
    )
    assert [getattr(adapters, name) for name in same] == [getattr(full, name) for name in same]
