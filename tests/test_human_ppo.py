"""The benchmark of PPO on human preferences: what it splits and counts, by hand, and all of it on a tiny model."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny import Tiny
from warm import ENVIRONMENT

from benchmarks import human_figures, human_ppo
from benchmarks.human_figures import Evaluation
from finlm import jsonl
from finlm.data import is_held_out
from finlm.evaluation import AnswerRecord
from finlm.ppo_records import HeldOutRecord
from finlm.records import Conversation, Message, PreferencePair, Prompt, Provenance

ROOT = Path(__file__).parent.parent


def pair(question: str, group: str, chosen: str = "Yes, gladly.", strength: int = 1) -> PreferencePair:
    prompt = Prompt(messages=(Message(role="user", content=question),), group=group, source="set")
    maker = Provenance(maker="import:set")
    return PreferencePair(
        prompt=prompt, chosen=chosen, rejected="No.", strength=strength, source="set", provenance=maker
    )


def answer(score: float, *, ended: bool, tokens: int = 10) -> AnswerRecord:
    return AnswerRecord(
        model="m", prompt_id="p", prompt="?", reference="", text="", ended=ended, tokens=tokens, score=score,
        is_right=False, fault="", kl_nats=0.0,
    )  # fmt: skip


def evaluation(update: int, rewards: list[float], independents: list[float], tokens: list[int]) -> Evaluation:
    paid, ended = tuple(rewards), (True,) * len(rewards)
    prompts = tuple(str(place) for place in range(len(rewards)))
    return Evaluation(update, prompts, tuple(rewards), tuple(independents), paid, tuple(tokens), ended, kl_nats=0.5)


def test_no_group_spans_two_parts(tmp_path: Path) -> None:
    pairs = [pair(f"Question {n} of {group}?", f"set:{group}") for group in range(60) for n in range(2)]
    pairs.append(pair("x" * 50, "set:long"))
    jsonl.write(tmp_path / "preferences.jsonl", pairs)
    counts = human_ppo.prepare(tmp_path, 49, 400, 10)
    assert counts["pairs"] == 121
    assert counts["too_long"] == 1
    read = {
        name: list(jsonl.read(tmp_path / f"preferences-{name}.jsonl", PreferencePair)) for name in ("first", "second")
    }
    held_out = {one.id for one in pairs[:-1] if is_held_out(one.prompt, test_share=human_ppo.TEST_SHARE)}
    groups = {name: {one.prompt.group for one in half if one.id not in held_out} for name, half in read.items()}
    assert not groups["first"] & groups["second"]
    assert all(held_out <= {one.id for one in half} for half in read.values())
    assert counts["pairs_first"] + counts["pairs_second"] + counts["held_out_pairs"] == 120
    asked = list(jsonl.read(tmp_path / "prompts.jsonl", Prompt))
    tested = list(jsonl.read(tmp_path / "held_out.jsonl", Prompt))
    assert len(tested) == counts["held_out_prompts"] == 10
    assert {one.group for one in asked} == groups["first"] | groups["second"]
    assert not {one.group for one in asked} & {one.group for one in tested}


def test_sft_learns_better_answers_that_are_short_enough() -> None:
    pairs = [pair("A?", "a", chosen="Short."), pair("A?", "a", chosen="L" * 41), pair("B?", "b", chosen="L" * 41)]
    pairs.append(pair("C?", "c", strength=0))
    (row,) = human_ppo.better_answers(pairs, 40)
    assert isinstance(row, Conversation)
    assert [message.content for message in row.messages] == ["A?", "Short."]


def test_what_a_missing_end_costs_is_added_back_for_both_models() -> None:
    record = HeldOutRecord(
        update=20, reward=0.0, kl_nats=1.0, tokens=10.0, ended=0.5, anchor=0.0, right=None,
        rewards=(0.5, -0.25), anchors=(1.0, -0.5),
    )  # fmt: skip
    found = human_figures.evaluation_of(record, [answer(0.5, ended=True), answer(0.75, ended=False)])
    assert found.rewards == (0.5, 0.75)
    assert found.independents == (1.0, 0.5)
    assert found.paid == (0.5, -0.25)


def test_gains_are_paired_by_prompt() -> None:
    count = 40
    first = evaluation(0, [0.0] * count, [1.0] * count, [10] * count)
    # both models see a rise of 1 in the first half; in the second one sees a rise of 2, the other a fall of 1
    rewards, independents = [1.0] * 20 + [2.0] * 20, [2.0] * 20 + [0.0] * 20
    last = evaluation(120, rewards, independents, [12] * 20 + [30] * 20)
    found = human_figures.compare(first, last, ["a"] * 20 + ["b"] * 15 + ["c"] * 5)
    assert found["reward_gain"]["mean"] == pytest.approx(1.5)
    assert found["reward_gain"]["low"] > 1.0
    assert found["independent_gain"]["mean"] == pytest.approx(0.0)
    assert found["agreement_in_sign"] == 0.5
    assert found["tokens"] == [10.0, 21.0]
    # 12 tokens are within a quarter of 10, 30 are not
    assert found["same_length"]["prompts"] == 20
    assert found["same_length"]["independent_gain"]["mean"] == pytest.approx(1.0)
    assert found["by_set"]["a"]["reward_gain"]["mean"] == pytest.approx(1.0)
    assert found["by_set"]["b"] == {"prompts": 15}


def changes(tiny: Tiny) -> dict[str, Any]:
    """Settings that make every stage small."""
    lora = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"}
    learned = {"steps": 2, "batch_size": 4, "micro_batch": 4, "max_length": 160, "lora": lora, "dtype": "float32"}
    learned["threads"] = 1
    reward = {**learned, "test_pairs": 8, "normalise_on": 8}
    return {
        "sft": {**learned, "model": str(tiny.base), "held_out.samples": 4, "batch_size": 4, "micro_batch": 4},
        "reward": reward,
        "independent": reward,
        "ppo": {
            "total_episodes": 16, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2,
            "local_rollout_forward_batch_size": 8, "response_length": 8, "save_steps": 1, "evaluation.every": 1,
            "policy_steps": 1, "lora": lora, "dtype": "float32", "threads": 1,
        },
    }  # fmt: skip


def test_the_whole_benchmark_on_a_tiny_model(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "sets").mkdir()
    said = {"chosen": "Yes, of", "rejected": "No"}
    rows = [
        {side: f"\n\nHuman: What of {n}?\n\nAssistant: {words} {n}." for side, words in said.items()} for n in range(60)
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "sets" / "hh_harmless.jsonl").write_text(lines, encoding="utf-8")
    out = tmp_path / "results" / "human.json"
    command = [sys.executable, "-W", "ignore", str(ROOT / "benchmarks" / "human_ppo.py"), "--out", str(out)]
    command += ["--preferences", str(tmp_path / "sets"), "--runs", str(tmp_path / "runs")]
    for stage, values in changes(tiny).items():
        for name, value in values.items():
            command += ["--set", f"{stage}.{name}={value if isinstance(value, str) else json.dumps(value)}"]
    done = subprocess.run(command, env=os.environ | ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    written = json.loads(out.read_text(encoding="utf-8"))
    figures = written["figures"]
    assert {"command", "commit", "hardware", "versions"} < written.keys()
    assert [one["update"] for one in figures["curve"]] == [0, 1, 2]
    assert set(figures["seconds"]) == {"import", "sft", "reward", "independent", "ppo"}
    assert figures["counts"]["pairs"] == 60
    assert figures["stopped"] == ""
    assert figures["by_set"].keys() == {"hh_harmless"}
    described = json.loads((tmp_path / "runs" / "reward" / "model" / "reward.json").read_text(encoding="utf-8"))
    assert described["learned_from_cut"] is False  # people saw whole answers
    page = out.with_suffix(".md").read_text(encoding="utf-8")
    assert f"| all | {figures['held_out_prompts']} | " in page
    assert "](human.svg)" in page
    assert "held out: independent" in out.with_suffix(".svg").read_text(encoding="utf-8")
