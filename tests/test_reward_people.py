"""The benchmark of the reward model on people: its folds and figures by hand, and all of it on a tiny model."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny import Tiny
from warm import ENVIRONMENT

from annotation import by_passage
from annotation.by_passage import ByPassageSettings
from benchmarks import people_figures, people_folds, people_runs, side_by_side
from benchmarks.people_figures import DIRECTED, MODEL, Arm
from benchmarks.people_folds import Folds
from benchmarks.side_by_side import Job
from finlm import jsonl
from finlm.records import Message, PreferencePair, Prompt, Provenance
from reward.baselines import LONGER, WORDS, longer
from reward.groups import require_apart
from reward.judged import Judged
from reward.selection import ChoiceRule

ROOT = Path(__file__).parent.parent


def pair(source: str, group: str, asked: str = "Why?", answer: str = "So.", strength: int = 1) -> PreferencePair:
    prompt = Prompt(messages=(Message(role="user", content=f"{asked} {group}"),), group=f"{source}:{group}")
    maker = Provenance(maker=f"import:{source}")
    return PreferencePair(
        prompt=prompt, chosen=answer, rejected="No.", strength=strength, source=source, provenance=maker
    )


def judged(name: str, lead: float, *, source: str = "s", group: str = "", tokens: tuple[int, int] = (10, 10)) -> Judged:
    return Judged(
        pair_id=name, prompt_id=name, group=group or f"{source}:{name}", category="general", language="en",
        source=source, strength=1, votes=(), better_tokens=tokens[0], worse_tokens=tokens[1], better=lead, worse=0.0,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ folds


def test_the_largest_units_come_first_and_fill_the_emptiest_fold() -> None:
    found = people_folds.folds_of({"a": 9, "b": 7, "c": 6, "d": 2, "e": 2}, 2)
    # 9 | 7, then 6 to the 7 (13), 2 to the 9 (11), 2 to that again (13)
    assert [found[name] for name in "abc"] == [0, 1, 1]
    assert [found["d"], found["e"]] == [0, 0]
    shuffled = people_folds.folds_of({"e": 2, "c": 6, "a": 9, "d": 2, "b": 7}, 2)
    assert shuffled == found


def test_both_sides_of_a_debate_lie_in_one_fold() -> None:
    assert people_folds.unit_of("ukp_convarg", "ukp_convarg:tv-or-books_tv") == "ukp_convarg:tv-or-books"
    assert people_folds.unit_of("ukp_convarg", "ukp_convarg:tv-or-books_books") == "ukp_convarg:tv-or-books"
    assert people_folds.unit_of("wmt23_zhen", "wmt23_zhen:a_b/c_d") == "wmt23_zhen:a_b/c_d"


def test_folds_are_apart_and_hold_everything(tmp_path: Path) -> None:
    pairs = [
        pair("ukp_convarg", f"debate-{n}_{side}", f"Argue {k}")
        for n in range(7) for side in ("yes", "no") for k in range(n + 1)
    ]  # fmt: skip
    pairs += [pair("hh_harmless", f"{n}", strength=n % 2) for n in range(40)]
    folds = Folds.of(pairs, 3)
    assert sum(folds.pairs("ukp_convarg")) == 56
    assert max(folds.pairs("ukp_convarg")) - min(folds.pairs("ukp_convarg")) <= 4  # the last debate has 4, 2 a side
    assert sorted(folds.pairs("hh_harmless")) == [6, 7, 7]  # twenty of them decided
    seen = []
    for fold in range(3):
        people_folds.write(tmp_path, pairs, folds, fold)
        train, test = (
            list(jsonl.read(path(tmp_path, fold), PreferencePair))
            for path in (people_folds.train_file, people_folds.test_file)
        )
        require_apart((one.prompt for one in train), (one.prompt for one in test))
        debates = [{one.prompt.group.partition("_yes")[0].partition("_no")[0] for one in its} for its in (train, test)]
        assert not debates[0] & debates[1]
        assert {one.id for one in train} | {one.id for one in test} == {one.id for one in pairs}
        seen += [one.id for one in test]
    assert sorted(seen) == sorted(one.id for one in pairs)


def test_corrections_are_learned_from_beside_their_prompts_and_tested_on_nowhere(tmp_path: Path) -> None:
    pairs = [pair("finegrained", f"{n}") for n in range(6)]
    more = [dataclasses.replace(one, source="finegrained_corrected", chosen="Better.", id="") for one in pairs]
    folds = Folds.of(pairs, 3)
    for fold in range(3):
        people_folds.write(tmp_path, pairs, folds, fold, more)
        train, test = (
            list(jsonl.read(path(tmp_path, fold), PreferencePair))
            for path in (people_folds.train_file, people_folds.test_file)
        )
        assert {one.source for one in test} == {"finegrained"}
        assert [sum(one.source == name for one in train) for name in ("finegrained", "finegrained_corrected")] == [4, 4]
        assert not {one.prompt.group for one in test} & {one.prompt.group for one in train}


def test_a_set_is_english_by_its_letters() -> None:
    pairs = [pair("en", "a"), pair("zh", "b", answer="因为如此。"), pair("zh-en", "c", asked="把这一句译成英文")]
    assert people_folds.english_sets(pairs) == {"en"}


# ---------------------------------------------------------------------------------------------------------- figures


def test_length_matched_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten and eleven tokens are within a tenth, ten and twelve are not."""
    monkeypatch.setattr(people_figures, "MATCHED_PAIRS", 2)
    records = [
        judged("1", 1.0, source="a", tokens=(10, 11)), judged("2", 1.0, source="a", tokens=(11, 10)),
        judged("3", -1.0, source="a", tokens=(12, 10)), judged("4", -1.0, source="b", tokens=(20, 20)),
        judged("5", 1.0, source="b", tokens=(30, 20)), judged("6", 1.0, source="zh", tokens=(5, 5)),
        judged("7", 0.0, source="zh", tokens=(5, 5)),
    ]  # fmt: skip
    wrong = [record.scored(0.0, 1.0) for record in records]
    judges = {MODEL: records, LONGER: longer(records), DIRECTED: wrong, WORDS: wrong}
    found = people_figures.headline(judges, {"a", "b"})
    assert found["accuracy"] == {"a": pytest.approx(2 / 3), "b": 0.5, "zh": 0.75}
    assert found["accuracy_macro"] == pytest.approx((2 / 3 + 0.5 + 0.75) / 3)
    assert found["accuracy_length_matched"] == {"a": 1.0}
    assert found["reported_only"] == {"b": 0.0, "zh": 0.75}  # one pair only; not English
    # the longer one is the better one in a 2 of 3 times, in b once and once as long, in zh always as long
    assert found["baseline_length_macro"] == pytest.approx((2 / 3 + 0.75 + 0.5) / 3)
    assert found["baseline_bow_macro"] == 0.0
    assert found["ahead"][LONGER]["by_set"]["zh"]["mean"] == pytest.approx(0.25)
    assert found["not_beaten"][WORDS] == ["a", "b", "zh"]  # of two or three units nothing can be told


def test_models_of_several_seeds_score_in_their_own_deviations() -> None:
    """Scores 3 1 / 0 0 deviate by the root of 2, tenfold scores tenfold: neither outvotes the other."""
    narrow = [judged("1", 0.0).scored(3, 1), judged("2", 0.0).scored(0, 0)]
    wide = [judged("2", 0.0).scored(30, 10), judged("1", 0.0).scored(0, 0)]
    first, second = people_figures.averaged([narrow, wide])
    assert (first.pair_id, second.pair_id) == ("1", "2")
    assert [first.better, first.worse] == pytest.approx([1.5 / 2**0.5, 0.5 / 2**0.5])
    assert [second.better, second.worse] == pytest.approx([1.5 / 2**0.5, 0.5 / 2**0.5])
    with pytest.raises(ValueError, match="other pairs: 1, 3"):
        people_figures.averaged([narrow[:1], [judged("3", 0.0).scored(1, 2)]])


def test_the_direction_of_length_is_learned_on_the_other_folds() -> None:
    records = [judged("1", 0.0, tokens=(9, 5)), judged("2", 0.0, tokens=(9, 5)), judged("3", 0.0, tokens=(5, 9))]
    fold_of = {"s:1": 0, "s:2": 1, "s:3": 2}
    # beside 1 stand one longer and one shorter: longer; beside 2 likewise; beside 3 two longer ones
    assert [one.hit for one in people_figures.directed(records, fold_of)] == [1.0, 1.0, 0.0]
    flipped = [judged(name, 0.0, tokens=(5, 9)) for name in "123"]
    assert [one.hit for one in people_figures.directed(flipped, fold_of)] == [1.0, 1.0, 1.0]


def arm(loss: str, margin: str, right: int, lead: float, spread: float) -> Arm:
    """Of two sets with 40 prompts each, so many right; scores spread around `lead`."""

    def records(seed: int) -> tuple[Judged, ...]:
        its = []
        for n in range(80):
            size = lead + spread * (n % 5)
            its.append(judged(f"{n:02d}", size if n % 40 < right else -size, source="ab"[n // 40]))
        return tuple(its)

    return Arm(loss, margin, {seed: records(seed) for seed in range(2)})


def test_the_choice_is_accuracy_then_scale_then_margin() -> None:
    rule = ChoiceRule()
    accurate, poor = arm("pairwise", "none", 30, 0.5, 0.1), arm("token", "none", 12, 0.5, 0.0)
    chosen, reason = people_figures.choose([poor, accurate], rule)
    assert chosen is accurate
    assert reason.startswith("pairwise-plain is the most accurate (0.750")
    assert "beyond chance" in reason
    # one pair of forty less cannot be told apart, and its scores vary less around a wider margin
    wider = arm("token", "small", 29, 0.5, 0.0)
    chosen, reason = people_figures.choose([accurate, wider], rule)
    assert chosen is accurate
    assert "cannot tell token-margin apart" in reason
    huge = arm("pairwise", "small", 30, 50.0, 0.0)
    assert people_figures.choose([huge, accurate], rule)[0] is accurate
    with pytest.raises(ValueError, match="no arm"):
        people_figures.choose([], rule)


def test_an_arms_table_has_its_spread_over_seeds() -> None:
    found = Arm("token", "none", {0: (judged("1", 1.0), judged("2", 1.0)), 1: (judged("1", 1.0), judged("2", -1.0))})
    table = found.figures()
    assert table["accuracy_macro"] == 0.75
    assert table["spread"] == pytest.approx(0.125**0.5)  # of 1 and 0.5, n - 1
    assert table["seeds"]["1"]["margin"] == 0.0
    assert found.hits == [1.0, 0.5]


# -------------------------------------------------------------------------------------------------------- processes


def test_processes_share_gpus_and_cores_in_turn() -> None:
    found = side_by_side.places(2, 3, 32)
    assert [one["CUDA_VISIBLE_DEVICES"] for one in found] == ["0", "1", "0", "1", "0", "1"]
    assert {one["OMP_NUM_THREADS"] for one in found} == {"5"}
    assert [one.get("CUDA_VISIBLE_DEVICES") for one in side_by_side.places(0, 2, 1)] == [None, None]


def test_a_process_that_fails_stops_no_other(tmp_path: Path) -> None:
    def job(name: str, code: str) -> Job:
        return Job(name, (sys.executable, "-c", code), tmp_path / "logs" / f"{name}.log")

    seen: list[str] = []
    jobs = [job("a", "raise SystemExit(3)"), job("b", "import os; print(os.environ['PLACE'])"), job("c", "print(1)")]
    ended = side_by_side.run(jobs, [{"PLACE": "here"}], lambda one: seen.append(one.job.name))
    assert [one.returncode for one in ended] == [3, 0, 0]
    assert seen == ["a", "b", "c"]
    assert jobs[1].log.read_text() == "here\n"


def test_what_was_run_under_other_settings_is_not_taken_for_these(tmp_path: Path) -> None:
    path = tmp_path / "flags.json"
    people_runs.refuse_others(path, ["--steps=2"])
    people_runs.refuse_others(path, ["--steps=2"])
    with pytest.raises(SystemExit, match="was begun with other settings"):
        people_runs.refuse_others(path, ["--steps=3"])


def test_the_learning_rate_is_that_of_the_most_accurate_run() -> None:
    assert people_runs.best_rate({"0.0003": 0.61, "0.001": 0.64, "0.003": 0.5}) == 0.001


# ------------------------------------------------------------------------------------------------------ all of it


def sets(folder: Path) -> None:
    """Two published sets: dialogues, and votes on debates of two sides."""
    folder.mkdir()
    said = {"chosen": "Yes, of", "rejected": "No"}
    rows: list[dict[str, Any]] = [
        {side: f"\n\nHuman: What of {n}?\n\nAssistant: {words} {n}." for side, words in said.items()} for n in range(16)
    ]
    debates = [
        {
            "topic": f"debate-{n}_{side}", "title": f"Debate {n}", "description": "Which?", "stance": side,
            "a1": f"{side}, for reason {k} and {n}.", "a2": f"{side} {k}.", "votes": ["a1", "a1", "a2"],
            "workers": ["x", "y", "z"], "gold": "a1",
        }
        for n in range(4) for side in ("yes", "no") for k in range(2)
    ]  # fmt: skip
    for name, its in (("hh_harmless", rows), ("ukp_convarg", debates)):
        lines = "".join(json.dumps(row) + "\n" for row in its)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")


@pytest.mark.slow
def test_the_whole_benchmark_on_a_tiny_model(tiny: Tiny, tmp_path: Path) -> None:
    sets(tmp_path / "sets")
    out, runs = tmp_path / "results" / "reward.json", tmp_path / "runs"
    command = [sys.executable, "-W", "ignore", str(ROOT / "benchmarks" / "reward_people.py"), "--out", str(out)]
    command += ["--preferences", str(tmp_path / "sets"), "--runs", str(runs), "--model", str(tiny.base)]
    command += ["--folds", "2", "--seeds", "0", "--parallel", "2", "--fold-epochs", "1", "--fold-seeds", "0", "1"]
    lora = json.dumps({"r": 4, "lora_alpha": 8, "target_modules": "all-linear"})
    for change in ("max_length=160", "steps=2", "batch_size=4", "micro_batch=4", "dtype=float32", f"lora={lora}"):
        command += ["--set", change]

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | ENVIRONMENT
        return subprocess.run([*command, *more], env=environment, capture_output=True, text=True, check=False)

    done = run()
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    written = json.loads(out.read_text(encoding="utf-8"))
    figures = written["figures"]
    assert {"command", "commit", "hardware", "versions"} < written.keys()
    assert figures["accuracy"].keys() == {"hh_harmless", "ukp_convarg"}
    assert sum(figures["accuracy"].values()) / 2 == pytest.approx(figures["accuracy_macro"])
    assert figures["accuracy_length_matched"] == {}
    assert [one["arm"] for one in figures["arms"]] == [
        "pairwise-plain", "pairwise-margin", "token-plain", "token-margin"
    ]  # fmt: skip
    assert len([name for name in figures["seconds"] if name != "all"]) == 7  # that of fold 0 is an arm's
    assert figures["alone"].keys() == {"0", "1"}
    assert figures["judges"][MODEL]["accuracy"]["hh_harmless"]["pairs"] == 16
    assert figures["judges"][MODEL]["accuracy"]["ukp_convarg"]["pairs"] == 16
    assert [len(its) for its in figures["data"]["debates_by_fold"]] == [2, 2]
    page = out.with_suffix(".md").read_text(encoding="utf-8")
    assert "| **mean of the sets** |" in page
    assert "](reward.svg)" in page
    assert "matched length" in out.with_suffix(".svg").read_text(encoding="utf-8")
    again = run()
    assert again.returncode == 0, again.stderr[-3000:]
    assert "of 2 seeds" in page
    assert " of 4: " in done.stdout
    assert ", accuracy " not in again.stdout  # nothing is repeated

    # a first phase of other texts, and the arms as they were compared before
    first = tmp_path / "first.jsonl"
    texts = tmp_path / "texts.jsonl"
    mills = "".join(
        json.dumps({"id": n, "text": " ".join(f"Mill {n} of {k} made {n * k + k} barrels of flour." for k in range(9))})
        + "\n"
        for n in range(120)
    )
    texts.write_text(mills, encoding="utf-8")
    by_passage.main(ByPassageSettings(texts=[str(texts)], output=str(first), shortest=150, longest=200))
    later = tmp_path / "results" / "later.json"
    root = tmp_path / "later"
    changes = ("--runs", str(root), "--out", str(later), "--set", "max_length=400")
    done = run("--first", str(first), "--arms-of", str(out), *changes)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    new = json.loads(later.read_text(encoding="utf-8"))["figures"]
    assert new["arms"] == figures["arms"]
    assert new["chosen"] == figures["chosen"]
    assert new["arms_of"]["file"] == f"reward.json, commit {written['commit']}"
    assert new["data"]["first_phase"]["accuracy"].keys() == {"0", "1"}
    assert sorted(path.name for path in (root / "runs").iterdir() if path.name.startswith("first")) == [
        "first-phase-seed-0", "first-phase-seed-1"
    ]  # fmt: skip
    for seed in (0, 1):
        run_of = next(path for path in (root / "runs").iterdir() if f"-seed-{seed}-fold-1-" in path.name)
        started = json.loads((run_of / "run.json").read_text(encoding="utf-8"))["inputs"]["start"]
        assert Path(started).parts[-2:] == (f"first-phase-seed-{seed}", "model")
    assert "went on from a first phase" in later.with_suffix(".md").read_text(encoding="utf-8")
