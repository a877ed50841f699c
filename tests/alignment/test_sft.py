"""The entry of four streams on a tiny model: from files to a merged model, its records and its page."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from safetensors.torch import load_file

from alignment import sft
from alignment.sft import SFTSettings
from finlm import config, jsonl, runs
from finlm.errors import UserError
from finlm.records import Removal
from finlm.sft_records import HeldOutLoss, Mixed

# transformers renames settings from release to release; this stage names those that both supported releases have
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


def settings(tiny: Any, folder: Path, *flags: str) -> SFTSettings:
    given = {
        "model": tiny.base, "instructions_finance": f'["{tiny.instructions}"]', "text_general": f'["{tiny.text}"]',
        "text_finance": "[]", "shares.text_general": 0.2, "shares.text_finance": 0, "test_share": 0.3, "steps": 4,
        "batch_size": 8, "micro_batch": 4, "max_length": 128, "learning_rate": 3e-3, "save_steps": 2, "threads": 1,
        "dtype": "float32", "held_out.samples": 8, "mixture.every": 2, "runs": folder / "runs",
        "lora": '{"r": 4, "lora_alpha": 8, "target_modules": "all-linear"}',
    }  # fmt: skip
    return config.parse(SFTSettings, "", [f"--{name}={value}" for name, value in given.items()] + list(flags))


def test_from_files_to_a_model(tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = settings(tiny, tmp_path)
    sft.main(given)
    out = tmp_path / "runs" / "sft"
    state = runs.read_state(out)
    assert state is not None
    counts = state["counts"]
    assert counts["rows"] == 4 * 8
    assert counts["test_loss"] < counts["test_loss_before"]
    history = list(jsonl.read(out / "held_out.jsonl", HeldOutLoss))
    assert [one.step for one in history] == [0, 2, 4]
    mixed = msgspec.json.decode((out / "mixture.json").read_bytes(), type=Mixed)
    assert [one.first_step for one in mixed.rounds] == [0, 2]
    assert sum(counts["drawn_tokens"].values()) >= mixed.filled * mixed.rows * 128
    assert counts["set_aside"] == len(list(jsonl.read(out / "rejected.jsonl", Removal)))
    before, after = (load_file(folder / "model.safetensors") for folder in (tiny.base, out / "model"))
    assert before.keys() == after.keys()
    assert "forgotten" in (out / "report.html").read_text(encoding="utf-8").lower()
    assert f"{counts['test_loss']:.3f}" in capsys.readouterr().out
    sft.main(given)
    assert "is finished" in capsys.readouterr().out


def test_the_best_model_is_exported_where_it_is_asked_for(tiny: Any, tmp_path: Path) -> None:
    sft.main(settings(tiny, tmp_path, "--export=best", "--held_out.every=1", "--learning_rate=0.3"))
    state = runs.read_state(tmp_path / "runs" / "sft")
    assert state is not None
    best = json.loads((tmp_path / "runs" / "sft" / "best" / "best.json").read_text(encoding="utf-8"))
    assert state["counts"]["exported_step"] == best["step"]
    assert state["counts"]["test_loss"] == best["loss"]


def test_a_preview_makes_no_run(tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sft.main(settings(tiny, tmp_path, "--preview=8"))
    shown = capsys.readouterr().err
    for name in ("instructions-finance", "text-general", tiny.instructions.name):
        assert name in shown
    assert not (tmp_path / "runs" / "sft").exists()


def test_shares_and_empty_streams_are_named(tiny: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"sum to 0\.9000, not 1"):
        settings(tiny, tmp_path, "--shares.text_general=0.1")
    with pytest.raises(UserError, match=r"instructions-general has a share of 0\.2 and no files"):
        settings(tiny, tmp_path, "--shares.text_general=0", "--shares.instructions_general=0.2")
    with pytest.raises(
        UserError, match=r"no samples to train on \(what its files gave: .*held-out\); lower test_share, or set its"
    ):
        sft.main(settings(tiny, tmp_path, "--test_share=1"))
    # what was set aside is told all the same
    assert {one.rule for one in jsonl.read(tmp_path / "runs" / "sft" / "rejected.jsonl", Removal)} == {
        "too-long",
        "over-limit",
    }
