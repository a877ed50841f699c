"""SIGTERM to a real process: exit code 143, one sentence, and the same bytes once the command is given again."""

import re
from pathlib import Path

import pytest
from chain import Chain
from test_resume import number_of, start, unlike
from tiny import Tiny
from warm import Warm

from alignment.faults import FaultyAnswer
from finlm import jsonl, runs


@pytest.mark.parametrize(
    ("name", "nth", "whole"),
    [
        ("optimizer step", 2, 0),  # learning, in the first update
        ("optimizer step", 6, 1),
        ("replace rollouts/.update-00002.jsonl.tmp", 1, 2),  # writing what was learned from
        ("mkdir checkpoints/.checkpoint-2.writing", 1, 2),  # saving
        ("rename checkpoints/.checkpoint-3.writing", 1, 3),  # saving the last one
    ],
)
def test_ppo_ends_with_143_and_goes_on(
    chain: Chain, warm: Warm, tiny: Tiny, tmp_path: Path, name: str, nth: int, whole: int
) -> None:
    folder = chain.before("ppo", tmp_path / "run")
    at = number_of(chain.done["ppo"].operations, name, nth)
    stopped = start(warm, tiny, "ppo", folder, terminate_at=at)
    assert stopped.returncode == 143, stopped.said
    assert f"stopped by SIGTERM after update {whole} of 3; the same command goes on from there." in stopped.stderr
    assert "Traceback" not in stopped.stderr
    resumed = start(warm, tiny, "ppo", folder)
    assert resumed.returncode == 0, resumed.said
    assert unlike(chain, "ppo", folder) == []


@pytest.mark.parametrize(
    ("name", "nth", "step"),
    [
        ("optimizer step", 1, 1),
        ("optimizer step", 3, 3),  # where no checkpoint is due
        ("rename .staging/checkpoint-2", 1, 3),  # saving
        ("optimizer step", 4, 4),
    ],
)
def test_sft_ends_with_143_and_a_checkpoint_and_goes_on(
    chain: Chain, warm: Warm, tiny: Tiny, tmp_path: Path, name: str, nth: int, step: int
) -> None:
    folder = chain.before("sft", tmp_path / "run")
    at = number_of(chain.done["sft"].operations, name, nth)
    stopped = start(warm, tiny, "sft", folder, terminate_at=at)
    assert stopped.returncode == 143, stopped.said
    assert f"stopped by SIGTERM behind step {step} of 4; the same command goes on from there." in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert runs.damage(folder / "runs" / "sft" / "checkpoints" / f"checkpoint-{step}") is None
    assert not (folder / "runs" / "sft" / "model").exists()
    resumed = start(warm, tiny, "sft", folder)
    assert resumed.returncode == 0, resumed.said
    # of the checkpoints the two newest are kept: one more was written
    assert [one for one in unlike(chain, "sft", folder) if not one.startswith("sft/checkpoints/")] == []


def test_ppo_with_mixed_in_text_names_its_files_and_resumes(
    chain: Chain, warm: Warm, tiny: Tiny, tmp_path: Path
) -> None:
    mixed = ("--ptx_coef", "0.5", "--ptx_rows", "4", "--ptx_max_length", "96")
    folder = chain.before("ppo", tmp_path / "run")
    missing = start(warm, tiny, "ppo", folder, *mixed)
    assert missing.returncode == 2
    assert re.search(r"error: What ptx_coef mixes in not found at runs/selfqa/instructions\.jsonl", missing.stderr)
    mixed += ("--ptx_instructions", f'["{tiny.instructions}"]', "--ptx_text", f'["{tiny.text}"]')
    straight, cut = chain.before("ppo", tmp_path / "straight"), chain.before("ppo", tmp_path / "cut")
    whole = start(warm, tiny, "ppo", straight, *mixed)
    assert whole.returncode == 0, whole.said
    at = number_of(whole.operations, "optimizer step", 11)
    assert start(warm, tiny, "ppo", cut, *mixed, kill_at=at).was_killed
    assert start(warm, tiny, "ppo", cut, *mixed).returncode == 0
    for name in ("policy/adapter_model.safetensors", "checkpoints/checkpoint-3/weights.safetensors", "rejected.jsonl"):
        assert (cut / "runs/ppo" / name).read_bytes() == (straight / "runs/ppo" / name).read_bytes(), name
    plain = chain.runs / "ppo/policy/adapter_model.safetensors"
    assert (straight / "runs/ppo/policy/adapter_model.safetensors").read_bytes() != plain.read_bytes()
    assert '"ptx_coef": 0.5' in (straight / "runs/ppo/run.json").read_text(encoding="utf-8")


def test_a_fault_is_kept_where_the_sentence_says(chain: Chain, warm: Warm, tiny: Tiny, tmp_path: Path) -> None:
    folder = chain.before("ppo", tmp_path / "run")
    done = start(warm, tiny, "ppo", folder, "--learning_rate", "1e30", "--warmup_updates", "0")
    assert done.returncode == 2, done.said
    found = re.search(r"error: [^\n]*no step was taken[^\n]* is in (\S+\.jsonl)\.\n", done.stderr)
    assert found, done.stderr
    (faulty, *_) = jsonl.read(folder / found.group(1), FaultyAnswer)
    assert faulty.prompt_ids
    assert faulty.answer_ids
