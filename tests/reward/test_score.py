"""finlm reward score: the numbers of the reward model, nothing lost, nothing cut, the same bytes after a kill."""

import gzip
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from drawn_rewards import CPU, drawn_reward
from safetensors.torch import load_file, save_file
from warm import Done, Warm

from finlm import config, jsonl
from finlm.errors import MissingInput, UserError
from finlm.records import Message, Removal
from finlm.scorer import Scorer
from reward import score

QUESTION = "What was {name} Inc.'s revenue in fiscal 2024?"
NAMES = ("Alder", "Birchwood", "Cedarfield", "Dovecote", "Elmstead", "Fernhill", "Goldcrest")


@pytest.fixture(scope="module")
def folder(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("rewards")
    drawn_reward(tiny.base, home / "a", seed=1)
    drawn_reward(tiny.base, home / "b", seed=2)
    return home


def rows() -> list[dict[str, Any]]:
    """Twenty-one answers, every seventh one too long and one row in between of no use."""
    made: list[dict[str, Any]] = []
    for number in range(21):
        question = QUESTION.format(name=NAMES[number % 7])
        answer = "Revenue grew. " * (1 + number % 4 if number % 7 else 300)
        made.append({"number": number, "prompt": question, "response": answer})
    made.insert(10, {"number": -1, "text": "of no use"})
    return made


def run(*arguments: str | Path) -> None:
    words = [*map(str, arguments), "--dtype", "float32"]
    score.main(config.parse(score.ScoreSettings, "", words, prog="finlm reward score"))


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_scores_are_the_reward_models(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = tmp_path / "rows.jsonl", tmp_path / "deep" / "scored.jsonl"
    jsonl.write(source, rows())
    run("--model", folder / "a", source, "--out", out, "--batch_tokens", "256", "--window", "5")
    found = read(out)
    kept = [row for row in rows() if row["number"] % 7 and row["number"] >= 0]
    assert [{key: row[key] for key in row if key != "score"} for row in found] == kept
    asked = [((Message(role="user", content=row["prompt"]),), row["response"], True) for row in kept]
    wanted = Scorer.load(folder / "a", dtype=torch.float32, device=CPU).score(asked, batch_size=1)
    assert [row["score"] for row in found] == pytest.approx(wanted, abs=1e-5)
    aside = list(jsonl.read(tmp_path / "deep" / "scored" / "rejected.jsonl", Removal))
    assert sorted((one.record_id, one.rule) for one in aside) == [
        ("rows.jsonl:1", "too-long"),
        ("rows.jsonl:11", "unknown-format"),
        ("rows.jsonl:16", "too-long"),
        ("rows.jsonl:8", "too-long"),
    ]
    assert f"{source}:8: " in next(one.reason for one in aside if one.record_id == "rows.jsonl:8")
    assert all("the limit is 512" in one.reason for one in aside if one.rule == "too-long")
    assert f"18 rows with 18 answers scored, 4 set aside ({tmp_path}/deep/scored/rejected.jsonl)" in (
        capsys.readouterr().out
    )
    assert sorted(path.name for path in (tmp_path / "deep" / "scored").iterdir()) == [
        "config.yaml",
        "rejected.jsonl",
        "run.json",
    ]
    run("--model", folder / "a", source, "--out", out, "--batch_tokens", "256", "--window", "5")
    assert "is finished; --overwrite true scores afresh" in capsys.readouterr().out


def test_several_models_say_each_its_own(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "rows.json.gz"
    source.write_bytes(gzip.compress(json.dumps([{"prompt": "Q?", "chosen": "yes", "rejected": "no"}]).encode()))
    for how, fold in (("mean", lambda numbers: math.fsum(numbers) / 2), ("min", min)):
        models = f"[{folder / 'a'}, {folder / 'b'}]"
        run("--input", source, "--model", models, "--reduce", how, "--out", tmp_path / f"{how}.jsonl")
        (row,) = read(tmp_path / f"{how}.jsonl")
        for side in ("chosen", "rejected"):
            assert len(row[f"{side}_scores"]) == 2
            assert row[f"{side}_score"] == pytest.approx(fold(row[f"{side}_scores"]), abs=1e-6)
    run("--input", source, "--model", folder, "--out", tmp_path / "folder.jsonl")
    assert read(tmp_path / "folder.jsonl") == read(tmp_path / "mean.jsonl")


def test_a_shorter_limit_sets_more_aside(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    jsonl.write(source, [{"prompt": "Q?", "responses": ["short", "long " * 30]}, {"prompt": "Q?", "response": "A"}])
    run(source, "--model", folder / "a", "--out", tmp_path / "out.jsonl", "--max_length", "24")
    assert [row["prompt"] for row in read(tmp_path / "out.jsonl")] == ["Q?"]
    (aside,) = jsonl.read(tmp_path / "out" / "rejected.jsonl", Removal)
    assert (aside.record_id, aside.rule) == ("rows.jsonl:1", "too-long")


# ------------------------------------------------------------------------------------------------ killed


@pytest.fixture(scope="module")
def straight(folder: Path, warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    """An unbroken run in a process of its own."""
    home = tmp_path_factory.mktemp("straight")
    done = scored(warm, folder, home)
    assert done.returncode == 0, done.said
    return home, done


def scored(warm: Warm, folder: Path, home: Path, **how: int) -> Done:
    jsonl.write(home / "rows.jsonl", rows())
    sizes = ("--batch_tokens", "200", "--window", "4", "--threads", "1")
    return warm.run("reward.score", "rows.jsonl", "--model", folder, "--out", "out.jsonl", *sizes, cwd=home, **how)


def fault_after_kill(warm: Warm, folder: Path, whole: tuple[Path, Done], at: int, home: Path) -> str | None:
    home.mkdir()
    name = f"{at} ({whole[1].operations[at - 1]})"
    if not scored(warm, folder, home, kill_at=at).was_killed:
        return f"{name}: was not killed"
    resumed = scored(warm, folder, home)
    if resumed.returncode:
        return f"{name}: the second start ended with {resumed.returncode}: {resumed.said[-500:]}"
    for file in ("out.jsonl", "out/rejected.jsonl"):
        if (home / file).read_bytes() != (whole[0] / file).read_bytes():
            return f"{name}: {file} differs"
    return None


def places(done: Done, word: str) -> list[int]:
    return [number for number, name in enumerate(done.operations, 1) if word in name]


def test_killed_between_windows_it_goes_on_to_the_same_bytes(
    folder: Path, warm: Warm, straight: tuple[Path, Done], tmp_path: Path
) -> None:
    done = straight[1]
    keeping = places(done, "replace out/.kept.json")
    assert len(keeping) == 6  # 22 rows in windows of four
    points = [keeping[2], places(done, "fsync out/scored.part")[3], places(done, "replace out/scored.part")[0]]
    assert [fault_after_kill(warm, folder, straight, at, tmp_path / str(at)) for at in points] == [None] * 3


@pytest.mark.slow
def test_killed_anywhere(folder: Path, warm: Warm, straight: tuple[Path, Done], tmp_path: Path) -> None:
    points = range(1, len(straight[1].operations) + 1)
    faults = [fault_after_kill(warm, folder, straight, at, tmp_path / str(at)) for at in points]
    assert [fault for fault in faults if fault] == []


def test_what_was_kept_is_not_scored_again(
    folder: Path, warm: Warm, straight: tuple[Path, Done], tmp_path: Path
) -> None:
    at = places(straight[1], "replace out/.kept.json")[3]
    assert scored(warm, folder, tmp_path, kill_at=at).was_killed
    part = tmp_path / "out" / "scored.part"
    marked = part.read_bytes().replace(b'"number":1,', b'"number":9,')
    part.write_bytes(marked)
    resumed = scored(warm, folder, tmp_path)
    assert "12 rows were read before" in resumed.stderr
    assert b'"number":9,' in (tmp_path / "out.jsonl").read_bytes()[:60]


def test_another_input_or_model_is_not_mixed_in(
    folder: Path, warm: Warm, straight: tuple[Path, Done], tmp_path: Path
) -> None:
    at = places(straight[1], "replace out/.kept.json")[3]
    assert scored(warm, folder, tmp_path, kill_at=at).was_killed
    with (tmp_path / "rows.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"prompt": "Q?", "response": "A."}\n')
    sizes = ("--batch_tokens", "200", "--window", "4", "--threads", "1")
    changed = warm.run("reward.score", "rows.jsonl", "--model", folder, "--out", "out.jsonl", *sizes, cwd=tmp_path)
    assert changed.returncode == 2
    assert "was begun with another input (rows.jsonl has changed since)" in changed.stderr


# ------------------------------------------------------------------------------------------------ bad input


def test_what_cannot_be_is_refused_before_anything_is_written(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    jsonl.write(source, [{"prompt": "Q?", "response": "A"}])
    there = tmp_path / "mine.jsonl"
    there.write_text("precious\n", encoding="utf-8")
    model = ("--model", str(folder / "a"))
    for arguments, message in (
        ((source, *model, "--out", source), "would be replaced by its own scores"),
        ((source, *model, "--out", there), "is there and was not written by this command"),
        ((source, *model, "--out", tmp_path / "x.csv"), r"its name must end in \.jsonl"),
        ((source, *model, "--reduce", "max"), "reduce is 'max'; it must be mean or min"),
        ((source, *model, "--window", "0"), "window is 0; it must be 1 or more"),
        ((source, *model, "--max_length", "-1"), "max_length is -1"),
        ((source, "b.jsonl", *model), "'b.jsonl' stands there beside .*; one file is taken"),
        ((*model,), "input"),
    ):
        with pytest.raises(UserError, match=message):
            run(*arguments)
    with pytest.raises(MissingInput, match="no such file"):
        run(tmp_path / "none.jsonl", *model)
    with pytest.raises(MissingInput, match="holds no reward model"):
        run(source, "--model", tmp_path, "--out", tmp_path / "x.jsonl")
    assert there.read_text(encoding="utf-8") == "precious\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.jsonl", "rows.jsonl"]


def test_a_file_of_nothing_but_useless_rows_says_so_and_keeps_them(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    jsonl.write(source, [{"text": "A"}, {"text": "B"}])
    with pytest.raises(UserError, match=r"no row can be used, the first because of this: .*rows\.jsonl:1: no known"):
        run(source, "--model", folder / "a", "--out", tmp_path / "x.jsonl")
    assert len(list(jsonl.read(tmp_path / "x" / "rejected.jsonl", Removal))) == 2
    assert not (tmp_path / "x.jsonl").exists()


def test_a_score_that_is_no_number_stops(tiny: Any, tmp_path: Path) -> None:
    made = drawn_reward(tiny.base, tmp_path / "nan", seed=1)
    head = load_file(made / "model" / "head.safetensors")
    save_file({name: tensor * float("nan") for name, tensor in head.items()}, made / "model" / "head.safetensors")
    jsonl.write(tmp_path / "rows.jsonl", [{"prompt": "Q?", "response": "A"}])
    with pytest.raises(UserError, match="scores an answer nan; look for damaged weights"):
        run(tmp_path / "rows.jsonl", "--model", made, "--out", tmp_path / "x.jsonl")
    assert not (tmp_path / "x.jsonl").exists()


def test_the_file_may_stand_anywhere_among_the_flags() -> None:
    for arguments in (["a.jsonl", "--window", "9"], ["--window", "9", "a.jsonl"], ["--window=9", "--input", "a.jsonl"]):
        found = config.parse(score.ScoreSettings, "", arguments)
        assert (found.input, found.window) == ("a.jsonl", 9)
    assert config.parse(score.ScoreSettings, "", ["a", "--model", "x"]).model == "x"
    assert config.parse(score.ScoreSettings, "", ["a", "--model", "[x, y]"]).model == ["x", "y"]
