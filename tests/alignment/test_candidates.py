"""Candidates of several voices: who answers how much, what is drawn again, and that a killed run goes on the same."""

import json
from pathlib import Path
from typing import Any

import pytest

from alignment.alike import are_alike, repeats
from alignment.respond import RespondSettings
from finlm import config, jsonl
from finlm.errors import UserError
from finlm.records import Candidates


def test_figures_make_answers_differ_and_white_space_does_not() -> None:
    said = "Net revenue of Acme was $412.6 million in fiscal 2024, up from a year ago."
    assert are_alike(said, said.replace(" was ", "  was\n"), 0.95)
    assert are_alike(said, said.replace("up", "Up"), 0.95)
    assert not are_alike(said, said.replace("412.6", "413.6"), 0.95)  # one letter of seventy-five
    assert not are_alike(said, said, 1.01)
    # 2 x 8 common letters of 8 + 12
    assert are_alike("abcdefgh", "abcdefghwxyz", 0.8)
    assert not are_alike("abcdefgh", "abcdefghwxyz", 0.81)


def test_a_repeat_is_one_of_an_answer_that_is_kept() -> None:
    assert repeats(["Yes, it did.", "Yes, it did!", "No.", "Yes, it did.", "No."], 0.9) == [1, 3, 4]
    assert repeats([], 0.9) == []


def test_answers_are_dealt_out_in_turn(tmp_path: Path) -> None:
    also = json.dumps([{"model": "{runs}/ppo", "temperature": 0.5}, {"model": "other", "top_p": 0.9}])
    settings = config.parse(RespondSettings, "", ["--also", also, "--runs", str(tmp_path), "--responses", "5"])
    assert [voice.model for voice in settings.voices] == [f"{tmp_path}/sft", f"{tmp_path}/ppo", "other"]
    assert [voice.temperature for voice in settings.voices] == [1.0, 0.5, 1.0]
    assert settings.shares == [2, 2, 1]
    with pytest.raises(UserError, match="responses is 2, and 3 models are to answer"):
        config.parse(RespondSettings, "", ["--also", also, "--responses", "2"])
    with pytest.raises(UserError, match="redraws is -1"):
        config.parse(RespondSettings, "", ["--redraws", "-1"])


def candidates(folder: Path) -> list[Candidates]:
    return list(jsonl.read(folder / "runs" / "candidates.jsonl", Candidates))


def test_two_models_answer_and_a_killed_run_goes_on_to_the_same(
    chain: Any, warm: Any, tiny: Any, tmp_path: Path
) -> None:
    also = json.dumps([{"model": str(tiny.base), "temperature": 0.7}])
    run = ("alignment.respond", "--config", tiny.settings("respond"), "--also", also, "--batch_size", "6")
    whole = chain.before("respond", tmp_path / "whole")
    done = warm.run(*run, cwd=whole)
    assert done.returncode == 0, done.said
    found = candidates(whole)
    assert len(found) == 24
    for item in found:
        assert [(one.model, one.temperature) for one in item.responses] == [
            ("runs/sft", 1.0), ("runs/sft", 1.0), (str(tiny.base), 0.7)
        ]  # fmt: skip
    # a model that learned and one that did not, and three draws: their answers are not each other's
    assert sum(len({one.text for one in item.responses}) == 3 for item in found) > 12

    cut = chain.before("respond", tmp_path / "cut")
    kept = cut / "runs" / "candidates" / "answered.jsonl"
    assert warm.run(*run, cwd=cut).returncode == 0
    halved = [
        Candidates(prompt=item.prompt, responses=item.responses[: 3 if place < 12 else 2])
        for place, item in enumerate(jsonl.read(kept, Candidates))
    ]
    jsonl.write(kept, halved)  # as a kill leaves it while the second model answers
    state = json.loads((cut / "runs" / "candidates" / "run.json").read_text(encoding="utf-8"))
    (cut / "runs" / "candidates" / "run.json").write_text(json.dumps(state | {"status": "running"}), encoding="utf-8")
    (cut / "runs" / "candidates.jsonl").unlink()
    assert warm.run(*run, cwd=cut).returncode == 0
    assert (cut / "runs" / "candidates.jsonl").read_bytes() == (whole / "runs" / "candidates.jsonl").read_bytes()


def test_what_is_alike_is_drawn_again_and_counted(chain: Any, warm: Any, tiny: Any, tmp_path: Path) -> None:
    """Nearly at temperature 0 every draw is the same: nothing helps, it is told. At 1 fewer are alike than before."""
    run = ("alignment.respond", "--config", tiny.settings("respond"))
    counts = {}
    for name, flags in {
        "cold": ("--temperature", "0.01"),
        "once": ("--redraws", "0"),
        "again": ("--redraws", "4"),
    }.items():
        folder = chain.before("respond", tmp_path / name)
        done = warm.run(*run, "--alike", "0.5", *flags, cwd=folder)
        assert done.returncode == 0, done.said
        counts[name] = json.loads((folder / "runs" / "candidates" / "run.json").read_text(encoding="utf-8"))["counts"]
        assert f"{counts[name]['alike']} like another one of their prompt" in " ".join(done.stdout.split())
    assert counts["cold"]["alike"] >= 40  # of 2 x 24 second and third answers
    assert counts["again"]["alike"] < counts["once"]["alike"]


def test_models_of_other_tokenizers_are_refused(chain: Any, warm: Any, tiny: Any, tmp_path: Path) -> None:
    folder = chain.before("respond", tmp_path / "run")
    other = tmp_path / "other"
    other.mkdir()
    for path in tiny.base.iterdir():
        text = path.read_bytes()
        (other / path.name).write_bytes(text)
    tokenizer = json.loads((other / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    first, second = list(vocabulary)[300:302]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    done = warm.run(
        "alignment.respond",
        "--config",
        tiny.settings("respond"),
        "--also",
        json.dumps([{"model": str(other)}]),
        cwd=folder,
    )
    assert done.returncode == 2
    assert "have other tokenizers" in done.stderr
