"""`finlm round`: two rounds by figures from end to end, killed and resumed, and the way back from the second to the
filing."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from on_policy import Runner, begin
from outcome import differences, outcome
from tiny import TEST_SHARE, Tiny
from warm import ENVIRONMENT, Warm

from finlm import data, jsonl, runs, stages
from finlm.errors import MissingInput, UserError
from finlm.lineage import Library
from finlm.records import Candidates, Document, PreferencePair, Prompt, Removal, Response
from finlm.round_settings import OnPolicySettings
from finlm.rounds import Round, round_to_go_on
from reward.judged import read_judged

ROOT = Path(__file__).parent.parent.parent
FIGURES = ("--figures", "true", "--limit", "16")


@pytest.fixture(scope="module")
def two_rounds(chain: Any, warm: Warm, tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run root of two rounds that were never cut off."""
    folder = begin(chain, tiny, tmp_path_factory.mktemp("rounds") / "whole")
    runner = Runner(warm, folder)
    for number in (1, 2):
        said = runner.round(*FIGURES if number == 1 else ())  # the second is as the first was
        assert said.endswith(
            f"Round {number} is finished: runs/rounds/{number}/report.html; finlm round begins the next one.\n"
        )
    assert runner.started == 2 * ["respond", "by_figures", "reward", "prompts", "ppo", "rollouts", "evaluate"]
    return folder


@pytest.fixture
def in_rounds(two_rounds: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Round, Round]:
    monkeypatch.chdir(two_rounds)
    return Round(Path("runs"), 1), Round(Path("runs"), 2)


def unlike(folder: Path, other: Path) -> list[str]:
    """Names of the files in which the first rounds of two folders differ."""
    return differences(*(outcome(one / "runs" / "rounds" / "1") for one in (folder, other)))


def pairs_of(path: Path) -> list[PreferencePair]:
    return list(jsonl.read(path, PreferencePair))


def test_each_rounds_answers_are_those_of_the_policy_before_it(in_rounds: tuple[Round, Round]) -> None:
    first, second = in_rounds
    asked = {one: list(jsonl.read(one.candidates, Candidates)) for one in in_rounds}
    assert {response.model for item in asked[first] for response in item.responses} == {"runs/sft"}
    assert {response.model for item in asked[second] for response in item.responses} == {"runs/rounds/1/ppo"}
    ids = {one: {item.prompt.id for item in items} for one, items in asked.items()}
    assert len(ids[first]) == len(ids[second]) == 16
    assert not ids[first] & ids[second]
    removed = list(jsonl.read(second.candidates.with_suffix("") / "rejected.jsonl", Removal))
    assert {one.record_id for one in removed if one.rule == "asked-before"} == ids[first]


def test_the_reward_model_learns_from_all_rounds_and_no_company_changes_sides(in_rounds: tuple[Round, Round]) -> None:
    first, second = in_rounds
    assert pairs_of(first.learned) == pairs_of(first.preferences)
    assert pairs_of(second.learned) == pairs_of(first.preferences) + pairs_of(second.preferences)
    tested = {one: {record.group for record in read_judged(one.reward)} for one in in_rounds}
    learned = {one: {pair.prompt.group for pair in pairs_of(one.learned)} - tested[one] for one in in_rounds}
    assert tested[first]
    assert learned[first]
    assert not tested[first] & learned[second]
    assert not tested[second] & learned[first]
    for one in in_rounds:  # nor does PPO learn from them
        prompts = list(jsonl.read(one.prompts, Prompt))
        assert not any(data.is_held_out(prompt, test_share=TEST_SHARE) for prompt in prompts)


def test_every_policy_stands_on_sft_and_on_its_own_rounds_reward_model(in_rounds: tuple[Round, Round]) -> None:
    for one in in_rounds:
        state = runs.read_state(one.ppo)
        assert state is not None
        assert state["inputs"]["model"] == "runs/sft/model"
        assert state["inputs"]["reward_model"] == f"runs/rounds/{one.number}/reward/model"
        assert state["input_hashes"]["reward_model"] == runs.fingerprint(one.reward / "model")
    found = runs.read_state(in_rounds[1].folder)
    assert found is not None
    assert found["input_hashes"]["policy of round 1"] == runs.fingerprint(in_rounds[0].ppo / "policy")


def test_the_evaluation_compares_both_rounds_by_one_reward_model(in_rounds: tuple[Round, Round]) -> None:
    second = in_rounds[1]
    evaluated = json.loads((second.evaluation / "summary.json").read_text(encoding="utf-8"))
    assert list(evaluated) == ["sft", "round 1", "round 2"]
    page = second.page.read_text(encoding="utf-8")
    words = " ".join(re.sub(r"<[^>]+>", " ", page).split())
    assert "Answers of runs/rounds/1/ppo, compared by the figure checker, no person" in words
    assert f"{evaluated['round 2']['reward']:+.2f}" in words
    assert 'href="reward/report.html"' in page
    counts = (runs.read_state(second.folder) or {})["counts"]
    assert (counts["prompts"], counts["pairs"]) == (16, len(pairs_of(second.preferences)))
    assert counts["reward"] == {name: figures["reward"] for name, figures in evaluated.items()}


def test_a_preference_of_round_two_leads_to_the_policy_and_to_the_filing(in_rounds: tuple[Round, Round]) -> None:
    second = in_rounds[1]
    library = Library.read(Path("runs"))
    pair = pairs_of(second.preferences)[0]
    waiting, seen = [library.by_id[pair.id]], []
    while waiting:
        one = waiting.pop()
        seen.append(one)
        waiting += library.parents(one)
    by_kind = {one.kind: one for one in seen}
    assert by_kind["candidates"].path == second.candidates
    document = by_kind["document"].record
    assert isinstance(document, Document)
    span = pair.prompt.provenance
    assert span is not None
    assert document.text[span.start : span.end] in pair.prompt.messages[-1].content
    told = subprocess.run(
        [sys.executable, "-m", "finlm", "trace", pair.id],
        env=os.environ | ENVIRONMENT | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    words = " ".join(told.replace("│", " ").split())
    assert f"made from candidates {by_kind['candidates'].id} runs/rounds/2/candidates.jsonl" in words
    assert "run runs/rounds/1/ppo read reward_model: runs/rounds/1/reward/model" in words
    assert "rests on annual-report.txt, line" in words


def test_killed_in_several_stages_a_round_comes_to_the_same(
    two_rounds: Path, chain: Any, warm: Warm, tiny: Tiny, tmp_path: Path
) -> None:
    folder = begin(chain, tiny, tmp_path / "killed")
    runner = Runner(warm, folder)
    for stage, at in (("respond", 12), ("reward", 12), ("ppo", 40), ("evaluate", 6)):
        runner.kill_at = {stage: at}
        with pytest.raises(UserError, match=rf"The stage '{stage}' ended with exit code -9"):
            runner.round(*FIGURES)
    runner.kill_at = {}
    said = runner.round()  # a round that has begun has its settings where it lies
    assert said.count("finished before") == 5
    assert runner.started.count("respond") == 2
    assert runner.started.count("prompts") == 1
    assert set(unlike(folder, two_rounds)) <= {"report.html"}  # which tells the seconds
    again = runner.round("--number", "1")
    assert again == "Round 1 is finished: runs/rounds/1/report.html; finlm round begins the next one.\n"


def test_both_models_answer_where_they_are_asked_to(
    two_rounds: Path, warm: Warm, monkeypatch: pytest.MonkeyPatch, tiny: Tiny, chain: Any, tmp_path: Path
) -> None:
    folder = begin(chain, tiny, tmp_path / "both")
    (folder / "runs" / "rounds").mkdir()
    (folder / "runs" / "rounds" / "1").symlink_to(two_rounds / "runs" / "rounds" / "1")
    runner = Runner(warm, folder)
    runner.kill_at = {"reward": 1}
    with pytest.raises(UserError, match="The stage 'reward' ended"):
        runner.round(*FIGURES, "--also_sft", "true", "--reward_start", "last")
    items = list(jsonl.read(folder / "runs/rounds/2/candidates.jsonl", Candidates))
    for item in items:
        assert [one.model for one in item.responses].count("runs/rounds/1/ppo") == 2  # of three, dealt out in turn
        assert [one.model for one in item.responses].count("runs/sft") == 1
    reward = runner.commands["reward"]
    assert reward[reward.index("--start") + 1] == "runs/rounds/1/reward"


def test_a_round_needs_the_one_before_it(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match=r"Round 3 needs the policy of round 2, and round 1 is not finished"):
        round_to_go_on(tmp_path, 3)
    runs.write_json(tmp_path / "rounds" / "1" / "run.json", {"status": "finished"})
    runs.write_json(tmp_path / "rounds" / "2" / "run.json", {"status": "running"})
    assert round_to_go_on(tmp_path, 0) == Round(tmp_path, 2)
    assert round_to_go_on(tmp_path, 1) == Round(tmp_path, 1)
    with pytest.raises(MissingInput, match=r"round 2 is not finished; finish it with: finlm round --number 2"):
        round_to_go_on(tmp_path, 3)


def test_bad_settings_and_missing_inputs_are_told(warm: Warm, chain: Any, tiny: Tiny, tmp_path: Path) -> None:
    for wrong, said in (
        ({"number": -1}, "number is -1"),
        ({"least_judged": 1.5}, "least_judged is 1.5"),
        ({"project": "x" * 41}, "41 characters"),
    ):
        with pytest.raises(ValueError, match=said):
            OnPolicySettings(**wrong)  # type: ignore[arg-type]
    empty = tmp_path / "empty"
    empty.mkdir()
    for flags, said in (
        ((), "The fine-tuned model not found at runs/sft; make it with: python alignment/sft.py"),
        (("--accelerate", "none"), "--accelerate none: no such file, and no shipped configuration (fsdp2, multi_gpu"),
    ):
        done = warm.run("finlm.round", *flags, cwd=empty)
        assert done.returncode == 2
        assert said in done.stderr
        assert [path for path in empty.rglob("*") if path.name == "run.json"] == []
    assert stages.accelerate_file("multi_gpu").endswith("configs/accelerate/multi_gpu.yaml")


def test_without_a_server_a_round_says_what_starts_one(warm: Warm, chain: Any, tiny: Tiny, tmp_path: Path) -> None:
    folder = begin(chain, tiny, tmp_path / "alone")
    runner = Runner(warm, folder)
    with pytest.raises(UserError, match="The stage 'annotate_serve' ended with exit code 2"):
        runner.round("--limit", "16")
    assert (
        "No server of runs/annotation/server is running; start it with: finlm annotate serve --detach true"
        in runner.said
    )
    # the answers are kept; other settings than it was begun with are refused
    with pytest.raises(
        UserError, match=r"begun with limit = 16, now it is 17; go on as it was begun, or move runs/round"
    ):
        runner.round("--limit", "17")
    with Round(folder / "runs", 1).only_one(), pytest.raises(UserError, match=r"Round 1 of .*runs is at work already"):
        runner.round("--runs", str(folder / "runs"))


def test_prompts_run_out_and_preferences_may_come_to_nothing(
    warm: Warm, chain: Any, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = begin(chain, tiny, tmp_path / "asked")
    everything = data.questions(
        [folder / "runs/selfqa/instructions.jsonl"], forms=["open-book"], languages=["en"], kinds=["figure"]
    )
    answered = [Candidates(prompt=one, responses=(Response(text="x", model="runs/old"),)) for one in everything]
    jsonl.write(folder / "runs" / "old.jsonl", answered)
    runner = Runner(warm, folder)
    with pytest.raises(UserError, match="The stage 'respond' ended with exit code 2"):
        runner.round(*FIGURES, "--asked_before", '["runs/old.jsonl"]')
    assert (
        f"All {len(everything):,} prompts that could be asked are too long or were asked before, in runs/old.jsonl"
        in runner.said
    )
    monkeypatch.chdir(folder)
    module = runner.module
    now = Round(Path("runs"), 1)
    jsonl.write(now.preferences, [])
    with pytest.raises(UserError, match=r"preferences\.jsonl holds no preference"):
        module.gather(dataclasses.replace(OnPolicySettings(), runs="runs"), now)
    assert not now.learned.exists()


@pytest.mark.slow
def test_killed_itself_a_round_waits_for_the_stage_that_outlived_it(
    two_rounds: Path, chain: Any, tiny: Tiny, tmp_path: Path
) -> None:
    """Typed as a user types it: SIGKILL to the command alone, while a stage of it goes on."""
    folder = begin(chain, tiny, tmp_path / "real")
    command = [sys.executable, str(ROOT / "finlm" / "round.py"), "--configs", "settings/{stage}.yaml", *FIGURES]
    environment = os.environ | ENVIRONMENT
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL) as first:
        while not (folder / "runs/rounds/1/candidates/run.json").is_file():
            assert first.poll() is None
            time.sleep(0.05)
        first.send_signal(signal.SIGKILL)
    refused = 0
    while True:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            break
        assert "Round 1 of runs is at work already" in done.stderr, done.stderr
        refused += 1
        time.sleep(0.5)
    assert refused
    assert set(unlike(folder, two_rounds)) <= {"report.html"}  # which tells the seconds
