"""The benchmark scripts of one GPU run to their end on a tiny shape: what they measure is theirs to say, on a GPU."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from warm import Warm

from benchmarks import reward_gpu, reward_sides, sft_gpu, sft_sides, six_billion

ROOT = Path(__file__).parent.parent


def run(warm: Warm, script: str, out: Path, *flags: str, shape: tuple[str, ...] = ("--shape", "tiny")) -> Any:
    done = warm.run(ROOT / "benchmarks" / script, *shape, "--out", out, *flags, cwd=out.parent)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(out.read_text(encoding="utf-8"))["figures"]


def of_side(warm: Warm, name: str, out: Path, *flags: str) -> dict[str, Any]:
    run(warm, "sft_gpu.py", out, "--side", name, *flags)
    found = json.loads(out.read_text(encoding="utf-8"))
    (side,) = found["sides"] if "sides" in found else found["figures"]["sides"]
    assert set(side["phases"]) == {"forward", "backward", "optimizer", "rest"}
    assert sum(side["phases"].values()) == pytest.approx(side["seconds"])
    assert side["tokens_per_second"] * side["seconds"] == pytest.approx(side["tokens"])
    return dict(side)


def test_a_ppo_step_is_timed_phase_by_phase(warm: Warm, tmp_path: Path) -> None:
    flags = ("--workload", "8x8x8", "--micro-batch", "4", "--steps", "1")
    ((workload),) = run(warm, "ppo_gpu.py", tmp_path / "ppo.json", *flags)["workloads"]
    roles = {f"score {role}" for role in ("policy", "reference", "critic", "reward")}
    assert workload["phases"].keys() == roles | {"decode", "policy update", "critic update", "rest"}
    assert all(seconds > 0 for seconds in workload["phases"].values())
    assert sum(workload["phases"].values()) == pytest.approx(workload["seconds"])


def test_sampling_counts_the_tokens_it_wrote(warm: Warm, tmp_path: Path) -> None:
    (workload,) = run(warm, "generation_gpu.py", tmp_path / "gen.json", "--workload", "4x8x6")["workloads"]
    assert workload["tokens_per_second"] * workload["seconds"] == pytest.approx(4 * 6)


def drawn(count: int) -> list[int]:
    """Tokens of each document that the benchmark of fine-tuning draws."""
    return [len(document) for document in sft_sides.documents(six_billion.shape("tiny"), count)]


@pytest.mark.parametrize("tune", ["lora", "full"])
def test_our_fine_tuning_step_counts_every_token_of_its_rows_once(warm: Warm, tmp_path: Path, tune: str) -> None:
    flags = ("--documents", "12", "--steps", "1", "--tune", tune, "--micro-batch", "1", "--accumulate", "2")
    flags += ("--optimizer", "adamw")  # that of eight bits may not be installed
    side = of_side(warm, "ours", tmp_path / "sft.json", *flags)
    assert sum(step["tokens"] for step in side["steps"]) == round(side["rows_filled"] * 2 * 2 * 2048)
    assert 0 < side["rows_filled"] <= 1
    assert side["token_share"] == 1
    assert side["documents_apart"] is True
    assert side["steps"][0]["loss"] == pytest.approx(math.log(512), abs=0.1)  # nothing is known of 512 pieces


@pytest.mark.slow
def test_two_processes_share_the_rows_of_one(warm: Warm, tmp_path: Path) -> None:
    flags = ("--documents", "24", "--steps", "1")
    one = of_side(warm, "ours", tmp_path / "one.json", *flags, "--micro-batch", "2")
    two = of_side(warm, "ours", tmp_path / "two.json", *flags, "--micro-batch", "1", "--processes", "2")
    assert (one["processes"], two["processes"]) == (1, 2)
    assert [step["tokens"] for step in two["steps"]] == [step["tokens"] for step in one["steps"]]
    losses = [[step["loss"] for step in side["steps"]] for side in (one, two)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-3)  # bfloat16 weights, sums in another order


def test_trl_pads_its_documents_and_the_padding_is_not_counted(warm: Warm, tmp_path: Path) -> None:
    side = of_side(warm, "trl-default", tmp_path / "sft.json", "--documents", "5", "--steps", "0")
    assert side["tokens"] == sum(drawn(5))
    assert side["token_share"] == pytest.approx(sum(drawn(5)) / (5 * max(drawn(5))))
    assert side["gradient_checkpointing"] is True
    assert side["optimizer"] == "adamw_torch_fused"
    assert side["steps"][0]["loss"] == pytest.approx(math.log(512), abs=0.1)


@pytest.mark.slow
def test_sides_run_apart_and_are_gathered(warm: Warm, tmp_path: Path) -> None:
    out = tmp_path / "sft.json"
    figures = run(warm, "sft_gpu.py", out, "--documents", "6", "--steps", "1")
    found = json.loads(out.read_text(encoding="utf-8"))
    sides = {side["side"]: side for side in found["sides"]}
    assert sides.keys() == {"ours", "trl-best", "trl-default"}
    assert figures["tokens_per_second"] == sides["ours"]["tokens_per_second"]
    assert figures["trl_tokens_per_second"] == sides["trl-best"]["tokens_per_second"]
    assert figures["trl_default_tokens_per_second"] == sides["trl-default"]["tokens_per_second"]
    assert sides["trl-best"]["tokens"] == sum(drawn(6))  # packed in one pass
    assert sides["trl-best"]["liger"] is False  # no GPU
    assert [one["hardware"] for one in found["runs"]] == ["CPU"] * 3
    assert [one["command"].split("--side ")[1].split()[0] for one in found["runs"]] == list(sides)


def test_filled_rows_cut_documents_which_then_see_each_other(warm: Warm, tmp_path: Path) -> None:
    flags = ("--set", "packing_strategy=wrapped", "--documents", "6", "--steps", "0", "--micro-batch", "1")
    side = of_side(warm, "trl-best", tmp_path / "sft.json", *flags)
    assert side["documents_apart"] is False


def test_figures_are_of_the_fastest_run_of_each_side() -> None:
    def side(name: str, speed: float, **named: Any) -> dict[str, Any]:
        given = {"side": name, "tune": "lora", "processes": 1, "set": [], "tokens_per_second": speed}
        given |= {"documents_apart": True, "sharder": None}
        return given | {"peak_gib": speed / 100, "ceiling_share": 0.5} | named

    sides = [
        side("ours", 90.0),
        side("ours", 100.0),
        side("ours", 50.0, tune="full"),
        side("ours", 190.0, processes=2, sharder="sft_fsdp2"),
        side("trl-best", 40.0),
        side("trl-best", 45.0, set=["packing_strategy=wrapped"], documents_apart=False),
        side("ours", 195.0, processes=2, sharder="multi_gpu"),
        side("trl-default", 20.0),
        side("trl-default", 30.0, set=["packing=true"]),  # no longer its defaults
    ]
    assert sft_gpu.headline(sides) == {
        "tokens_per_second": 100.0,
        "trl_tokens_per_second": 45.0,
        "trl_apart_tokens_per_second": 40.0,
        "trl_default_tokens_per_second": 20.0,
        "full_ft_tokens_per_second": 50.0,
        "peak_gib": 1.0,
        "ceiling_share": 0.5,
        "two_gpu_speedup": 1.9,
        "two_gpu_copies_speedup": 1.95,
    }
    assert sft_gpu.headline(sides[5:6]) == {"trl_tokens_per_second": 45.0}


def test_drawn_pairs_have_a_prompt_in_common_and_differ() -> None:
    config = six_billion.shape("tiny")
    equal, ragged = (reward_sides.pairs(config, 40, is_ragged=is_ragged) for is_ragged in (False, True))
    assert {len(row) for pair in equal for row in pair} == {1024}
    lengths = [len(row) for pair in ragged for row in pair]
    assert max(lengths) <= 1024
    assert min(lengths) < 200
    for better, worse in equal + ragged:
        assert better != worse
        assert better[-1] == worse[-1] == six_billion.END
        assert six_billion.PAD not in better + worse
        group = reward_sides.as_group((better, worse))
        assert len(group.prompt) == min(len(better), len(worse)) // 2
        assert [[*group.prompt, *answer] for answer in group.answers] == [better, worse]


def reward_side(warm: Warm, name: str, out: Path) -> dict[str, Any]:
    """One step over eight pairs of equal rows, and one over eight of ragged ones."""
    (side,) = run(warm, "reward_gpu.py", out, "--side", name, "--pairs", "8", "--steps", "0")["sides"]
    return dict(side)


@pytest.mark.slow
def test_our_reward_step_and_trls_have_the_same_loss(warm: Warm, tmp_path: Path) -> None:
    """The same weights, head and pairs; adapters begin as nothing. bfloat16 leaves a few thousandths of 0.7 nats."""
    ours, theirs = (reward_side(warm, name, tmp_path / "reward.json") for name in ("ours", "trl-default"))
    for name in ("trained_weights", "optimizer", "max_grad_norm"):
        assert ours[name] == theirs[name], name
    for place, rows in enumerate(
        reward_sides.pairs(six_billion.shape("tiny"), 8, is_ragged=it) for it in (False, True)
    ):
        tokens = sum(len(row) for pair in rows for row in pair)
        assert ours["steps"][place]["tokens"] == theirs["steps"][place]["tokens"] == tokens
    assert ours["steps"][0]["loss"] == pytest.approx(theirs["steps"][0]["loss"], abs=3e-3)
    assert (ours["token_share"], ours["ragged"]["token_share"], theirs["token_share"]) == (1, 1, 1)
    assert theirs["ragged"]["token_share"] < 0.8
    assert ours["pairs_per_second"] * ours["steps"][0]["seconds"] == pytest.approx(8)
    assert ours["ragged"]["pairs_per_second"] * ours["steps"][1]["seconds"] == pytest.approx(8)
    assert (ours["gradient_checkpointing"], theirs["gradient_checkpointing"]) == (False, True)


@pytest.mark.slow
def test_sides_of_the_reward_model_run_apart_and_are_gathered(warm: Warm, tmp_path: Path) -> None:
    out = tmp_path / "reward.json"
    figures = run(warm, "reward_gpu.py", out, "--pairs", "8", "--steps", "1")
    sides = {side["side"]: side for side in json.loads(out.read_text(encoding="utf-8"))["sides"]}
    assert figures["pairs_per_second"] == sides["ours"]["pairs_per_second"]
    assert figures["trl_pairs_per_second"] == sides["trl-best"]["pairs_per_second"]
    assert figures["trl_default_pairs_per_second"] == sides["trl-default"]["pairs_per_second"]
    assert sides["trl-best"]["ragged"]["token_share"] > sides["trl-default"]["ragged"]["token_share"]
    totals = {sum(step["tokens"] for step in side["steps"]) for side in sides.values()}
    assert len(totals) == 1  # all went through all pairs


def test_pairs_per_second_are_of_the_fastest_run_of_each_side() -> None:
    def side(name: str, speed: float, **named: Any) -> dict[str, Any]:
        given = {"side": name, "set": [], "micro_batch": 8, "pairs_per_second": speed, "peak_gib": speed * 10}
        return given | {"ceiling_share": 0.5, "ragged": {"pairs_per_second": speed * 2}} | named

    sides = [side("ours", 6.0), side("ours", 7.0), side("trl-best", 3.5), side("trl-best", 3.0, micro_batch=4)]
    sides += [side("trl-default", 2.0), side("trl-default", 2.5, set=["bf16=false"])]
    found = reward_gpu.headline(sides)
    assert (found["pairs_per_second"], found["trl_pairs_per_second"], found["trl_default_pairs_per_second"]) == (
        7,
        3.5,
        2,
    )
    assert (found["over_trl"], found["over_trl_default"]) == (2, 3.5)
    assert (found["ragged_pairs_per_second"], found["trl_peak_gib"]) == (14, 35)
    assert "over_trl" not in reward_gpu.headline(sides[:2])


def test_the_ceiling_of_the_6b_is_what_was_computed_for_it() -> None:
    """Rows of 2,048 at 798 TFLOP/s: 29,900 tokens/s for LoRA, 20,400 for all weights."""
    work = six_billion.Work.of(six_billion.shape("6b"))
    lora, full = (work.tuning_flop([2048], full=full) / 2048 for full in (False, True))
    assert 798e12 / lora == pytest.approx(29_900, rel=0.005)
    assert 798e12 / full == pytest.approx(20_400, rel=0.005)


def test_a_reward_models_ceiling_leaves_the_head_over_the_vocabulary_out() -> None:
    """30 layers of 4 x 4096^2 + 3 x 4096 x 11008 weights, 4 FLOP each; attention 3.5 x 2 x 30 x 4096 x length."""
    work = six_billion.Work.of(six_billion.shape("6b"))
    wanted = 4 * 30 * (4 * 4096**2 + 3 * 4096 * 11008) + 3.5 * 2 * 30 * 4096 * 1024
    assert work.tuning_flop([1024, 1024], head=False) / 2048 == pytest.approx(wanted)


def test_the_data_alone_is_encoded_once_and_laid_out_step_by_step(warm: Warm, tmp_path: Path, tiny: Any) -> None:
    talks = ("--instructions-finance", str(tiny.instructions))
    flags = ("--text-general", str(tiny.text), "--steps", "2", "--rows", "2", "--micro-batch", "1")
    found = run(warm, "sft_data.py", tmp_path / "data.json", "--tokenizer", str(tiny.base), *talks, *flags, shape=())
    assert found["tokens"] == round(found["rows_filled"] * 2 * 2 * 2048)
    assert 0 < found["rows_filled"] <= 1
    assert found["stored_tokens"] > 0
    apart = [1 / found[f"{part}_tokens_per_second"] for part in ("encode", "draw", "layout")]
    assert 1 / found["tokens_per_second"] == pytest.approx(sum(apart))
    assert 1 / found["cached_tokens_per_second"] == pytest.approx(sum(apart[1:]))
