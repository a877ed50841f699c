"""The benchmark of forgetting: what it compares, by hand, and all of it on a tiny model."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny import Tiny
from warm import ENVIRONMENT

from benchmarks import sft_forgetting
from finlm.sft_records import CategoryLoss, HeldOutLoss

ROOT = Path(__file__).parent.parent


def test_arms_have_the_same_instruction_tokens_by_their_steps() -> None:
    for arm in sft_forgetting.ARMS:
        shares, steps = sft_forgetting.shares_of(arm), sft_forgetting.steps_of(arm, 240)
        assert sum(shares.values()) == pytest.approx(1)
        of_instructions = shares["instructions-general"] + shares["instructions-finance"]
        assert of_instructions * steps == pytest.approx(144)
        assert steps % sft_forgetting.ROUNDS == 0


def test_losses_are_means_over_tokens() -> None:
    rows: list[tuple[Any, str, float, int]] = [
        ("text-general", "en", 3.0, 300), ("text-general", "zh", 5.0, 100), ("instructions-general", "zh", 2.0, 30),
        ("instructions-finance", "zh", 4.0, 10), ("instructions-finance", "en", 1.5, 20),
    ]  # fmt: skip
    categories = tuple(
        CategoryLoss(stream=stream, language=language, loss=loss, tokens=tokens, samples=1)
        for stream, language, loss, tokens in rows
    )
    found = sft_forgetting.losses(HeldOutLoss(step=0, categories=categories))
    assert found["text-general"] == pytest.approx(3.5)
    assert found["answers zh"] == pytest.approx(2.5)
    assert found["answers en"] == pytest.approx(1.5)
    assert found["instructions-finance zh"] == 4.0


def test_verdicts_by_hand() -> None:
    before = {"text-general": 3.0, "text-general en": 3.0, "answers en": 2.0, "instructions-general en": 2.0}

    def arm(text: float, answers: float) -> dict[str, Any]:
        after = {"text-general": text, "text-general en": text, "answers en": answers}
        return {"before": before, "after": after | {"instructions-general en": answers}}

    found = sft_forgetting.verdicts({"instructions": arm(3.4, 1.5), "mixed": arm(3.1, 1.6), "moving": arm(3.0, 1.5)})
    assert found["general_text_rise"]["instructions"]["text-general en"] == pytest.approx(0.4)
    assert found["general_text_rise"]["mixed"]["text-general"] == pytest.approx(0.1)
    assert found["answers_rise"]["moving"] == {"answers en": pytest.approx(-0.5)}
    assert found["worst_category"] == {"name": "text-general en", "mixed": 3.1, "moving": 3.0}


@pytest.mark.slow
def test_the_whole_benchmark_on_a_tiny_model(tiny: Tiny, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for folder in ("instructions", "corpus"):
        (data / folder).mkdir(parents=True)
    for name, what in (("fin_disc_zh", "利润"), ("general_en", "weather")):
        rows = [{"instruction": f"What of {what} {n}?", "output": f"It is {what} {n % 7}."} for n in range(60)]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (data / "instructions" / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    for name in ("gen_en", "fin_en"):
        lines = "".join(json.dumps({"text": f"Note {n} of {name}. It rained on day {n}."}) + "\n" for n in range(60))
        (data / "corpus" / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    (data / "corpus" / "words.txt").write_text("word\t1\n", encoding="utf-8")
    out = tmp_path / "results" / "forgetting.json"
    changed = {"model": str(tiny.base), "max_length": 128, "dtype": "float32", "threads": 1}
    command = [sys.executable, "-W", "ignore", str(ROOT / "benchmarks" / "sft_forgetting.py"), "--out", str(out)]
    command += ["--data", str(data), "--runs", str(tmp_path / "runs"), "--steps", "12", "--rows", "4", "--samples", "8"]
    for name, value in changed.items():
        command += ["--set", f"all.{name}={value if isinstance(value, str) else json.dumps(value)}"]
    done = subprocess.run(command, env=os.environ | ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    figures = json.loads(out.read_text(encoding="utf-8"))["figures"]
    assert list(figures["arms"]) == list(sft_forgetting.ARMS)
    instructions, mixed = figures["arms"]["instructions"], figures["arms"]["mixed"]
    assert instructions["before"] == mixed["before"]
    assert instructions["drawn"]["text-general"]["tokens"] == 0 < mixed["drawn"]["text-general"]["tokens"]
    assert instructions["instruction_tokens"] == pytest.approx(mixed["instruction_tokens"], rel=0.25)
    assert [one["step"] for one in mixed["curve"]] == [0, 2, 4, 6, 8, 10, 12]
    assert {"answers en", "answers zh"} <= figures["answers_rise"]["mixed"].keys()
    assert len(figures["arms"]["moving"]["rounds"]) == sft_forgetting.ROUNDS
    page = out.with_suffix(".md").read_text(encoding="utf-8")
    assert "](forgetting.svg)" in page
    assert (tmp_path / "runs" / "report.html").is_file()
    the_arms_are_compared_where_all_of_them_were(command, figures, tmp_path)


def the_arms_are_compared_where_all_of_them_were(command: list[str], whole: Any, folder: Path) -> None:
    cut = folder / "runs" / "moving"
    lines = (cut / "held_out.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (cut / "held_out.jsonl").write_text("".join(lines[:3]), encoding="utf-8")
    out = folder / "cut.json"
    done = subprocess.run(
        [*command, "--gather", "--out", str(out)],
        env=os.environ | ENVIRONMENT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(out.read_text(encoding="utf-8"))["figures"]
    assert found["evaluations"] == 2 < found["evaluations_planned"] == whole["evaluations"]
    for arm, its in found["arms"].items():
        curve = whole["arms"][arm]["curve"]
        assert its["curve"] == curve[:3]
        assert {name: its["after"][name] for name in curve[2] if name in its["after"]} == {
            name: value for name, value in curve[2].items() if name not in ("step", "tokens")
        }
    third = whole["arms"]["mixed"]["instruction_tokens"] / 3
    assert found["arms"]["mixed"]["instruction_tokens"] == pytest.approx(third, abs=1)
    assert len(found["arms"]["moving"]["rounds"]) == 2
