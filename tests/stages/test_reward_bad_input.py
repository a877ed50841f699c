"""Bad preferences and foreign heads: each ends the reward model's run, or is set aside, in one clear line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from chain import Chain
from safetensors.torch import load_file, save_file
from test_bad_input import made, refused
from test_resume import start
from tiny import TEST_SHARE, Tiny
from warm import Done, Warm

from finlm import data, jsonl
from finlm.records import PreferencePair, Removal

Row = dict[str, Any]
PREFERENCES = "runs/preferences.jsonl"


@pytest.fixture
def folder(chain: Chain, tmp_path: Path) -> Path:
    """Where the tiny loop lies up to the reward model."""
    return chain.before("reward", tmp_path / "here")


def rows_of(folder: Path) -> list[Row]:
    return [json.loads(line) for line in (folder / PREFERENCES).read_text(encoding="utf-8").splitlines()]


def rewrite(folder: Path, rows: list[Row], name: str = PREFERENCES) -> None:
    (folder / name).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def is_held_out(row: Row) -> bool:
    pair: PreferencePair = next(iter(decoded([row])))
    return data.is_held_out(pair.prompt, test_share=TEST_SHARE)


def decoded(rows: list[Row]) -> list[PreferencePair]:
    import msgspec

    return [msgspec.json.decode(json.dumps(row), type=PreferencePair) for row in rows]


def trained(warm: Warm, tiny: Tiny, folder: Path, *flags: str) -> Done:
    return start(warm, tiny, "reward", folder, "--steps", "1", *flags)


# ------------------------------------------------------------------------------------------------ a row


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda row: {**row, "rejected": row["chosen"]}, ("both answers to prompt", "are the same")),
        (lambda row: {name: row[name] for name in row if name != "rejected"}, ("missing required field `rejected`",)),
        (lambda row: {**row, "chosen": None}, ("Expected `str`, got `null` - at `$.chosen`",)),
        (lambda row: {**row, "strength": 4}, ("strength 4 must be 0 to 3",)),
        (lambda row: {**row, "strength": -1}, ("strength -1 must be 0 to 3",)),
        (lambda row: {**row, "strength": 1.5}, ("Expected `int`, got `float` - at `$.strength`",)),
    ],
    ids=["equal", "missing", "null", "too-strong", "negative", "fraction"],
)
def test_a_row_that_is_no_pair_is_named_by_file_and_line(
    warm: Warm, tiny: Tiny, folder: Path, spoil: Callable[[Row], Row], words: tuple[str, ...]
) -> None:
    rows = rows_of(folder)
    rows[6] = {**spoil(rows[6]), "id": ""}
    rewrite(folder, rows)
    before = made(folder)
    refused(trained(warm, tiny, folder), f"{PREFERENCES}:7: not a valid PreferencePair: ", *words)
    assert made(folder) == before


def test_pairs_that_cannot_be_compared_are_set_aside_and_counted(warm: Warm, tiny: Tiny, folder: Path) -> None:
    """Contradicting pairs are one, as most of their votes say; the same pair twice, a tie and a long one are named."""
    learned = [row for row in rows_of(folder) if not is_held_out(row)]
    kept = [row for row in rows_of(folder) if is_held_out(row)] + learned[5:]

    def votes(row: Row, *sides: str) -> Row:
        each = [
            {"annotator": f"person:{n}", "annotation_id": f"{row['chosen'][:9]}-{n}", "side": side, "strength": 2}
            for n, side in enumerate(sides)
        ]
        return {**row, "votes": each, "id": ""}

    turned = {**learned[0], "chosen": learned[0]["rejected"], "rejected": learned[0]["chosen"]}
    turned |= {"chosen_ended": learned[0]["rejected_ended"], "rejected_ended": learned[0]["chosen_ended"]}
    added = [
        votes(learned[0], "chosen"),
        votes(turned, "chosen", "chosen", "chosen"),
        learned[1],
        learned[1],
        {**learned[2], "strength": 0},
        {**learned[3], "chosen": "It was more. " * 60, "id": ""},
    ]
    rewrite(folder, kept + added)
    done = trained(warm, tiny, folder, "--test_pairs", "1000")
    assert done.returncode == 0, done.said
    by_rule = {one.rule: one for one in jsonl.read(folder / "runs/reward/rejected.jsonl", Removal)}
    assert set(by_rule) == {"contradiction", "duplicate", "weak", "too-long"}
    (for_it, winner, twin, _, tie, long) = decoded([{**row, "id": ""} for row in added])
    assert by_rule["contradiction"].record_id == for_it.id
    assert f"2 pairs of the same two answers, kept as {winner.id} with strength 1" in by_rule["contradiction"].reason
    assert by_rule["duplicate"].record_id == twin.id
    assert (by_rule["weak"].record_id, by_rule["weak"].reason) == (tie.id, "strength 0, the least is 1")
    assert by_rule["too-long"].record_id == long.id
    assert by_rule["too-long"].reason.endswith(" tokens, the limit is 128")
    said = " ".join(done.stderr.split())
    assert "4 set aside (" in said
    assert all(f"{rule} 1" in said for rule in by_rule)


# ------------------------------------------------------------------------------------------------ a split


def test_pairs_of_which_none_is_better_teach_nothing(warm: Warm, tiny: Tiny, folder: Path) -> None:
    rows = rows_of(folder)
    soft = ("--min_strength", "0", "--soft_labels", "true")
    rewrite(folder, [{**row, "strength": 0} for row in rows])
    refused(trained(warm, tiny, folder), f"{PREFERENCES} holds no pair to train on (set aside were weak {len(rows)},")
    refused(trained(warm, tiny, folder, *soft), f"{PREFERENCES}: all", "pairs to train on have strength 0")
    rewrite(folder, [{**row, "strength": 0} if is_held_out(row) else row for row in rows])
    refused(trained(warm, tiny, folder), f"{PREFERENCES} holds no pair to test on (set aside were weak")
    refused(trained(warm, tiny, folder, *soft), f"{PREFERENCES}: all", "pairs to test on have strength 0")


def test_an_empty_test_split_is_refused(warm: Warm, tiny: Tiny, folder: Path) -> None:
    words = ("no group of prompts fell into the test share of 0: raise test_share", "test_preferences")
    refused(trained(warm, tiny, folder, "--test_share", "0"), f"{PREFERENCES} holds no pair to test on", *words)
    (folder / "none.jsonl").write_text("", encoding="utf-8")
    done = trained(warm, tiny, folder, "--test_preferences", "none.jsonl")
    refused(done, "none.jsonl holds no pair to test on (nothing was set aside)", "give other pairs")


def test_a_prompt_on_both_sides_is_refused(warm: Warm, tiny: Tiny, folder: Path) -> None:
    rows = rows_of(folder)
    rewrite(folder, rows[4:5], "test.jsonl")
    done = trained(warm, tiny, folder, "--test_preferences", "test.jsonl")
    (pair,) = decoded(rows[4:5])
    refused(done, f"Prompt {pair.prompt.id} of the test pairs is trained on as well", "take its pairs out of one of")
    renamed = {**rows[4], "id": "", "prompt": {**rows[4]["prompt"], "id": ""}}
    renamed["prompt"]["messages"] = [{"role": "user", "content": "Another question of that company?"}]
    rewrite(folder, [renamed], "test.jsonl")
    done = trained(warm, tiny, folder, "--test_preferences", "test.jsonl")
    refused(done, "is trained on as well", f"group {rows[4]['prompt']['group']}")


# ------------------------------------------------------------------------------------------------ a head


def test_a_head_for_another_width_is_refused_wherever_it_is_read(
    chain: Chain, warm: Warm, tiny: Tiny, tmp_path: Path
) -> None:
    folder = chain.before("evaluate", tmp_path / "run")
    head = folder / "runs/reward/model/head.safetensors"
    state = load_file(head)
    save_file({"weight": torch.zeros(1, 64), "bias": state["bias"]}, head)
    shutil.rmtree(folder / "runs/ppo")
    words = ("runs/reward/model reads states 64 wide, those of its base are 48 wide", "trained on this base")
    refused(start(warm, tiny, "ppo", folder), *words)
    models = ("--models", '{"sft": "runs/sft"}')
    refused(start(warm, tiny, "evaluate", folder, *models), *words)
    refused(trained(warm, tiny, folder, "--start", "runs/reward", "--output", "second"), *words)
    refused(warm.run("reward.score", PREFERENCES, cwd=folder), *words)
    refused(warm.run("reward.serve", "--port", "0", cwd=folder), *words)
    head.write_bytes(head.read_bytes()[:40])
    refused(warm.run("reward.score", PREFERENCES, cwd=folder), "head.safetensors cannot be read")
    (head.parent / "reward.json").write_text('{"mean": 0.0}', encoding="utf-8")
    done = warm.run("reward.score", PREFERENCES, cwd=folder)
    refused(done, "reward.json: not a valid RewardDescription", "missing required field `std`")


def test_an_adapter_of_another_shape_is_not_gone_on_from(chain: Chain, warm: Warm, tiny: Tiny, tmp_path: Path) -> None:
    folder = chain.before("prompts", tmp_path / "run")
    more = ("--start", "runs/reward", "--output", "second")
    for lora in ('{"r": 2, "target_modules": "all-linear"}', '{"r": 4, "target_modules": ["q_proj"]}'):
        done = trained(warm, tiny, folder, *more, "--lora", lora, "--overwrite", "true")
        refused(done, "The reward model in runs/reward has another adapter (", "set lora as its run's config.yaml")
