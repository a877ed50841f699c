"""Guards that end and roll back real runs: what is kept, what is forgotten, the same bytes after a kill anywhere."""

import json
import re
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from chain import Chain
from outcome import differences, outcome
from safetensors.torch import load_file
from test_resume import number_of, start
from tiny import Tiny
from warm import Done, Warm

from finlm import jsonl, model
from finlm.metrics import read_metrics
from finlm.ppo_records import GuardVerdict, read_best, read_guards, read_held_out
from finlm.records import Prompt

OFF = {"length_ratio": 0.0, "entropy_share": 0.0, "ended_fall": 0.0, "anchor_evaluations": 0}
BLOWN_UP = {**OFF, "patience": 2, "kl_target": 0.9, "kl_multiple": 1.0}
"""KL is 0.2 nats in update 2 and beyond 4 in updates 3 and 4 so hot: the run goes back to the policy of update 1."""
# critic_start reward: a critic that is far off is what blows the policy up
HOT = ("--learning_rate", "1e-2", "--critic_start", "reward", "--seed", "1", "--total_episodes", "40")  # five updates
LONGER = (*HOT[:-1], "56")
FORGIVING = {**BLOWN_UP, "roll_backs": 9}


def guarded(warm: Warm, tiny: Tiny, folder: Path, guards: dict[str, Any], *more: str, **how: int) -> Done:
    return start(warm, tiny, "ppo", folder, "--guards", json.dumps(guards), *more, **how)


def made(folder: Path, *but: str) -> dict[str, object]:
    """What a run left; its settings apart, which may tell of another number of roll-backs."""
    return {
        name: content
        for name, content in outcome(folder / "runs" / "ppo").items()
        if name not in ("run.json", "config.yaml", *but)
    }


@pytest.fixture(scope="module")
def rolled_back(chain: Chain, warm: Warm, tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    """A run that was rolled back and went on by itself to its end."""
    folder = chain.before("ppo", tmp_path_factory.mktemp("rolled") / "back")
    done = guarded(warm, tiny, folder, FORGIVING, *HOT)
    assert done.returncode == 0, done.said
    return folder, done


# ------------------------------------------------------------------------------------------------ roll back


def test_a_kl_blow_up_goes_back_and_stops_and_the_same_command_goes_on(
    chain: Chain, warm: Warm, tiny: Tiny, rolled_back: tuple[Path, Done], tmp_path: Path
) -> None:
    folder = chain.before("ppo", tmp_path / "run")
    ended = guarded(warm, tiny, folder, BLOWN_UP, *HOT)
    assert ended.returncode == 2, ended.said
    said = " ".join(ended.stderr.split())
    assert "error: rolled back from update 4 to update 1 by the guard 'kl'. KL is " in said
    assert "The same command goes on from there with kl_coef x 2 and learning rates x 0.5" in said
    run = folder / "runs" / "ppo"
    assert [line["step"] for line in read_metrics(run / "metrics.jsonl")] == [1]
    assert [record.update for record in read_held_out(run)] == [0, 1]
    assert sorted(path.name for path in (run / "policies").iterdir()) == [f"update-0000{n}" for n in (0, 1)]
    assert max(int(path.name.rsplit("-")[-1]) for path in (run / "checkpoints").iterdir()) == 1
    verdicts = read_guards(run)
    assert [(one.guard, one.update, one.action, one.back_to) for one in verdicts] == [
        ("kl", 3, "warn", None),
        ("kl", 4, "roll back", 1),
    ]
    best = read_best(run)
    assert best is not None
    assert best.update in (0, 1)
    assert not (run / "policy").exists()

    starts = 1
    while (ended := guarded(warm, tiny, folder, BLOWN_UP, *HOT)).returncode == 2:
        assert "rolled back" in ended.stderr
        starts += 1
        assert starts < 9, "it does not get on"
    assert ended.returncode == 0, ended.said
    # stopping at each roll-back or going on by itself: the same run
    assert differences(made(folder), made(rolled_back[0])) == []


def test_what_follows_a_roll_back_learns_more_slowly_and_pays_more_for_kl(rolled_back: tuple[Path, Done]) -> None:
    folder, done = rolled_back
    assert "rolled back from update 4 to update 1" in " ".join(done.stderr.split())
    run = folder / "runs" / "ppo"
    back = [one for one in read_guards(run) if one.back_to is not None]
    lines = read_metrics(run / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(1, 6))
    times = len(back)
    assert lines[-1]["rollout/kl_coef"] == 0.05 * 2**times
    assert lines[-1]["lr"] == 1e-2 * 0.5**times
    assert [one.roll_backs for one in back] == list(range(times))


def test_who_comes_to_the_same_trouble_again_goes_back_further(
    chain: Chain, warm: Warm, tiny: Tiny, tmp_path: Path
) -> None:
    folder = chain.before("ppo", tmp_path / "run")
    done = guarded(warm, tiny, folder, FORGIVING, *LONGER)
    assert done.returncode == 0, done.said
    back = [(one.update, one.back_to) for one in read_guards(folder / "runs/ppo") if one.back_to is not None]
    again = [(one, other) for one, other in pairwise(back) if other[0] <= one[0]]
    assert again, "each roll-back led past the last; the test needs another limit"
    assert all(other[1] < one[1] or other[1] == 0 for one, other in again)


POINTS = [
    ("replace ppo/.guards.jsonl.tmp", 2), ("rename checkpoints/checkpoint-3", 1), ("replace ppo/.metrics.jsonl.tmp", 1),
    pytest.param("rename checkpoints/checkpoint-4", 1, marks=pytest.mark.slow),
    pytest.param("rename policies/update-00003", 1, marks=pytest.mark.slow),
]  # fmt: skip
"""Before the roll-back is written down, and while what it made void is cleared away."""


def fault_after_kill(
    chain: Chain, warm: Warm, tiny: Tiny, whole: tuple[Path, Done], at: int, folder: Path
) -> str | None:
    """Kill the run that rolls back at one point, start it again, and say what differs."""
    chain.before("ppo", folder)
    name = f"{at} ({whole[1].operations[at - 1]})"
    if not guarded(warm, tiny, folder, FORGIVING, *HOT, kill_at=at).was_killed:
        return f"{name}: was not killed"
    resumed = guarded(warm, tiny, folder, FORGIVING, *HOT)
    if resumed.returncode:
        return f"{name}: the second start ended with {resumed.returncode}: {resumed.said[-500:]}"
    differing = differences(made(folder), made(whole[0]))
    return f"{name}: {differing} differ" if differing else None


@pytest.mark.parametrize(("name", "nth"), POINTS)
def test_killed_while_rolling_back(
    chain: Chain, warm: Warm, tiny: Tiny, rolled_back: tuple[Path, Done], tmp_path: Path, name: str, nth: int
) -> None:
    at = number_of(rolled_back[1].operations, name, nth)
    assert fault_after_kill(chain, warm, tiny, rolled_back, at, tmp_path / "killed") is None


@pytest.mark.slow
def test_killed_at_many_points(
    chain: Chain, warm: Warm, tiny: Tiny, rolled_back: tuple[Path, Done], tmp_path: Path
) -> None:
    """Twenty points evenly over the whole run, and every third from the first roll-back's verdict to the next step.

    Every point of a run without roll-backs is in test_resume.py.
    """
    operations = rolled_back[1].operations
    verdict = number_of(operations, "replace ppo/.guards.jsonl.tmp", 2)
    after = next(number for number in range(verdict, len(operations)) if operations[number] == "optimizer step")
    evenly = {round(share * (len(operations) - 1) / 19) + 1 for share in range(20)}
    points = sorted({*evenly, *range(verdict - 1, after + 2, 3)})
    assert len(evenly) == 20
    faults = []
    for at in points:
        fault = fault_after_kill(chain, warm, tiny, rolled_back, at, tmp_path / "at" / "killed")
        faults += [fault] if fault else []
        shutil.rmtree(tmp_path / "at")
    assert faults == []


def test_a_checkpoint_that_sigterm_left_changes_no_roll_back(
    chain: Chain, warm: Warm, tiny: Tiny, tmp_path: Path
) -> None:
    """Checkpoints fall due every second update; stopped after the fifth, a run has one that others have not."""
    how = ("--learning_rate", "8e-3", *HOT[2:-1], "80", "--seed", "2", "--save_steps", "2")
    free, straight, cut = (chain.before("ppo", tmp_path / name) for name in ("free", "straight", "cut"))
    assert guarded(warm, tiny, free, {**OFF, "kl_target": 0.0}, *how).returncode == 0
    kl = [line["objective/kl"] for line in read_metrics(free / "runs/ppo/metrics.jsonl")]
    rises = {at + 1: (max(kl[:at]), kl[at]) for at in range(5, len(kl)) if kl[at] > max(kl[:at])}
    update, (before, after) = max(rises.items(), key=lambda item: item[1][1] - item[1][0])
    guards = {**BLOWN_UP, "patience": 1, "kl_target": (before + after) / 2}  # which that update is the first beyond
    whole = guarded(warm, tiny, straight, guards, *how)
    assert whole.returncode == 2, whole.said
    (first,) = [one for one in read_guards(straight / "runs/ppo") if one.back_to is not None]
    assert first.update == update
    assert first.back_to in {2, 4, 6, 8}
    at = number_of(whole.operations, "replace rollouts/.update-00005.jsonl.tmp", 1)
    assert guarded(warm, tiny, cut, guards, *how, terminate_at=at).returncode == 143
    assert (cut / "runs/ppo/checkpoints/checkpoint-5").is_dir()
    resumed = guarded(warm, tiny, cut, guards, *how)
    assert resumed.returncode == 2, resumed.said
    assert differences(made(cut), made(straight)) == []


# ------------------------------------------------------------------------------------------------ stop


def test_a_stopped_run_keeps_its_state_and_goes_on_when_told(
    chain: Chain, warm: Warm, tiny: Tiny, tmp_path: Path
) -> None:
    stopping = {**OFF, "patience": 1, "start_updates": 1, "length_ratio": 1.05}
    folder, never = chain.before("ppo", tmp_path / "run"), chain.before("ppo", tmp_path / "never")
    for _ in range(2):  # started again, it says the same again
        ended = guarded(warm, tiny, folder, stopping, "--total_episodes", "40")
        assert ended.returncode == 2, ended.said
        said = " ".join(ended.stderr.split())
        found = re.search(r"error: stopped after update (\d) of 5 by the guard 'length'\. Answers have ", said)
        assert found, said
        assert "with --guards.acts false whatever the guards say" in said
        update = int(found.group(1))
        assert (folder / f"runs/ppo/checkpoints/checkpoint-{update}").is_dir()
        assert not (folder / "runs/ppo/policy").exists()
    (verdict,) = read_guards(folder / "runs/ppo")
    assert (verdict.guard, verdict.action, verdict.update) == ("length", "stop", update)
    plain = ("--total_episodes", "40")
    assert guarded(warm, tiny, folder, stopping | {"acts": False}, *plain).returncode == 0
    assert guarded(warm, tiny, never, stopping | {"acts": False}, *plain).returncode == 0
    assert differences(outcome(folder / "runs"), outcome(never / "runs")) == []


# ------------------------------------------------------------------------------------------------ best policies


def test_the_best_is_exported_where_it_is_asked_for(chain: Chain, warm: Warm, tiny: Tiny, tmp_path: Path) -> None:
    cooler = ("--learning_rate", "4e-3", *HOT[2:-2])  # at which the held-out reward only falls
    whole = start(warm, tiny, "ppo", chain.before("ppo", tmp_path / "last"), *cooler)
    assert whole.returncode == 0, whole.said
    last = tmp_path / "last" / "runs" / "ppo"
    best = read_best(last)
    assert best is not None
    records = read_held_out(last)
    assert [record.update for record in records] == [0, 1, 2, 3]
    assert best.update == max(records, key=lambda record: (record.reward, -record.update)).update
    assert best.update < 3, "the tiny run's best is its last; the test needs another"
    assert f"runs/ppo/policies/update-0000{best.update} did best" in whole.stdout
    weights = "adapter_model.safetensors"
    assert (last / "policy" / weights).read_bytes() == (last / "policies/update-00003" / weights).read_bytes()

    folder = chain.before("ppo", tmp_path / "run")
    done = start(warm, tiny, "ppo", folder, *cooler, "--export", "best")
    assert done.returncode == 0, done.said
    assert f"(that of update {best.update}), the best on held-out prompts" in done.stdout
    run = folder / "runs" / "ppo"
    assert (run / "policy" / weights).read_bytes() == (run / best.policy / weights).read_bytes()
    # both load, and each names its base from where it lies
    for path in (run, run / best.policy):
        policy, _ = model.load_policy(path, dtype=torch.float32, device=torch.device("cpu"))
        stored = load_file(run / "policy" / weights)
        found = {name.replace(".default", ""): tensor for name, tensor in policy.named_parameters() if "lora" in name}
        assert all(torch.equal(found[name], tensor) for name, tensor in stored.items())


def test_the_best_cannot_be_exported_where_nothing_was_compared(
    chain: Chain, warm: Warm, tiny: Tiny, tmp_path: Path
) -> None:
    folder = chain.before("ppo", tmp_path / "run")
    kept_none = start(warm, tiny, "ppo", folder, "--export", "best", "--policy_steps", "0")
    assert kept_none.returncode == 2
    assert "export is 'best', but policy_steps is 0" in kept_none.stderr
    (folder / "runs/prompts/held_out.jsonl").unlink()
    blind = start(warm, tiny, "ppo", folder, "--export", "best")
    assert blind.returncode == 2
    assert "export is 'best', but there are no held-out prompts" in blind.stderr


# ------------------------------------------------------------------------------------------------ held-out prompts


def test_without_held_out_prompts_ppo_trains_and_says_what_makes_them(
    chain: Chain, warm: Warm, tiny: Tiny, tmp_path: Path
) -> None:
    folder = chain.before("ppo", tmp_path / "run")
    prompts = folder / "runs/prompts/held_out.jsonl"
    content = prompts.read_bytes()
    prompts.unlink()
    at = number_of(chain.done["ppo"].operations, "optimizer step", 5)
    killed = start(warm, tiny, "ppo", folder, kill_at=at - 20)
    assert killed.was_killed
    assert "there are no held-out prompts at runs/prompts/held_out.jsonl; make them with: finlm prompts" in " ".join(
        killed.stderr.split()
    )
    prompts.write_bytes(content)  # the run goes on as it was begun
    done = start(warm, tiny, "ppo", folder)
    assert done.returncode == 0, done.said
    assert "it was begun before there was runs/prompts/held_out.jsonl" in " ".join(done.stderr.split())
    run = folder / "runs" / "ppo"
    assert not (run / "held_out.jsonl").exists()
    assert not (run / "best.json").exists()
    # an evaluation changes nothing of what is learned
    name = "policy/adapter_model.safetensors"
    assert (run / name).read_bytes() == (chain.runs / "ppo" / name).read_bytes()
    assert sorted(path.name for path in (run / "policies").iterdir()) == [f"update-0000{n}" for n in (1, 2, 3)]


def test_a_named_file_must_be_there(chain: Chain, warm: Warm, tiny: Tiny, tmp_path: Path) -> None:
    folder = chain.before("ppo", tmp_path / "run")
    done = start(warm, tiny, "ppo", folder, "--held_out", "elsewhere.jsonl")
    assert done.returncode == 2
    assert "Held-out prompts not found at elsewhere.jsonl; make it with: finlm prompts" in done.stderr


def test_a_held_out_prompt_that_is_trained_on_is_refused(chain: Chain, warm: Warm, tiny: Tiny, tmp_path: Path) -> None:
    folder = chain.before("ppo", tmp_path / "run")
    (trained, *_) = jsonl.read(folder / "runs/prompts.jsonl", Prompt)
    held_out = list(jsonl.read(folder / "runs/prompts/held_out.jsonl", Prompt))
    jsonl.write(folder / "runs/prompts/held_out.jsonl", [*held_out, trained])
    done = start(warm, tiny, "ppo", folder)
    assert done.returncode == 2
    assert f"The held-out prompt {trained.id} (" in done.stderr
    assert "is also trained on" in done.stderr
    assert "optimizer step" not in done.operations


def test_an_anchor_scores_the_answers_too(chain: Chain, warm: Warm, tiny: Tiny, tmp_path: Path) -> None:
    """The reward model itself as anchor, on a base of its own: the same scores."""
    folder = chain.before("ppo", tmp_path / "run")
    done = start(warm, tiny, "ppo", folder, "--anchor", "runs/reward")
    assert done.returncode == 0, done.said
    for record, plain in zip(read_held_out(folder / "runs/ppo"), read_held_out(chain.runs / "ppo"), strict=True):
        assert record.rewards == plain.rewards
        same = [a == pytest.approx(b, abs=1e-4) for a, b in zip(record.anchors, record.rewards, strict=True)]
        assert sum(same) >= 4  # BPE need not encode its own text as it was sampled
    assert GuardVerdict not in [type(one) for one in read_guards(folder / "runs/ppo")]
