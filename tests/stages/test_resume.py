"""Killed anywhere, a run resumes to the same bits: SIGKILL before a durable operation, then the same command again."""

import shutil
from pathlib import Path

import pytest
from chain import MADE, STAGES, Chain
from outcome import differences, outcome
from tiny import Tiny
from warm import Done, Warm

POINTS = {
    "sft": [
        ("optimizer step", 2), ("optimizer step", 3), ("rename .staging/checkpoint-4", 1),
        ("replace sft/.run.json.tmp", 2),
    ],
    "respond": [
        ("replace candidates/.answered.jsonl.tmp", 2), ("replace runs/.candidates.jsonl.tmp", 1),
        ("replace candidates/.run.json.tmp", 2),
    ],
    "by_figures": [("replace runs/.preferences.jsonl.tmp", 1)],
    "reward": [
        ("optimizer step", 4), ("replace checkpoint-2/.manifest.json.tmp", 1), ("rename reward/.model.writing", 1),
    ],
    "prompts": [("replace runs/.prompts.jsonl.tmp", 1)],
    "ppo": [
        ("optimizer step", 6), ("rename checkpoints/.checkpoint-2.writing", 1), ("unlink weights.safetensors", 1),
        ("rename checkpoints/checkpoint-1", 1), ("rename policies/.update-00002.writing", 1),
        ("replace held_out/.update-00000.jsonl.tmp", 1), ("replace ppo/.held_out.jsonl.tmp", 3),
        ("replace ppo/.best.json.tmp", 2),
    ],
    "evaluate": [("replace evaluation/.summary.json.tmp", 1)],
}  # fmt: skip
"""Points of the fast tier: the n-th operation of this name."""


def start(warm: Warm, tiny: Tiny, stage: str, folder: Path, *more: str, **how: int) -> Done:
    return warm.run(STAGES[stage], "--config", tiny.settings(stage), *more, cwd=folder, **how)


def number_of(operations: tuple[str, ...], name: str, nth: int) -> int:
    """The number, from 1, of the `nth` operation of that name."""
    return [number for number, one in enumerate(operations, 1) if one == name][nth - 1]


def unlike(chain: Chain, stage: str, folder: Path) -> list[str]:
    """Names of the files in which a folder differs from the chain up to and including `stage`."""
    stages = list(STAGES)[: list(STAGES).index(stage) + 1]
    names = tuple(name for one in stages for name in MADE[one])
    # the cache holds what several stages keep: the bag of words is the reward model's
    later = "\0" if "reward" in stages else "cache/words/"
    whole = {
        name: content
        for name, content in outcome(chain.runs).items()
        if name.split("/")[0] in names and not name.startswith(later)
    }
    return differences(outcome(folder / "runs"), whole)


def fault_after_kill(chain: Chain, warm: Warm, tiny: Tiny, stage: str, at: int, folder: Path) -> str | None:
    """Kill a stage at one point, start it again, and say what differs from the run that was never cut off."""
    name = chain.done[stage].operations[at - 1]
    chain.before(stage, folder)
    killed = start(warm, tiny, stage, folder, kill_at=at)
    if not killed.was_killed:
        return f"{at} ({name}): was not killed but ended with {killed.returncode}: {killed.said[-500:]}"
    resumed = start(warm, tiny, stage, folder)
    if resumed.returncode:
        return f"{at} ({name}): the second start ended with {resumed.returncode}: {resumed.said[-500:]}"
    differing = unlike(chain, stage, folder)
    return f"{at} ({name}): {differing} differ" if differing else None


def test_every_stage_has_its_points() -> None:
    assert list(POINTS) == list(STAGES)


@pytest.mark.parametrize(
    ("stage", "name", "nth"),
    [
        pytest.param(stage, *point, id=f"{stage}-{point[0]}-{point[1]}")
        for stage, points in POINTS.items()
        for point in points
    ],
)
def test_killed_once(chain: Chain, warm: Warm, tiny: Tiny, stage: str, name: str, nth: int, tmp_path: Path) -> None:
    at = number_of(chain.done[stage].operations, name, nth)
    assert fault_after_kill(chain, warm, tiny, stage, at, tmp_path / "killed") is None


def test_killed_again_and_again(chain: Chain, warm: Warm, tiny: Tiny, tmp_path: Path) -> None:
    """Each start gets one checkpoint further and is killed in the middle of the next."""
    folder = chain.before("ppo", tmp_path / "killed")
    starts = 0
    while start(warm, tiny, "ppo", folder, kill_at=80).was_killed:
        starts += 1
        assert starts < 6, "it does not get on"
    assert starts >= 2
    assert unlike(chain, "ppo", folder) == []


@pytest.mark.slow
@pytest.mark.parametrize("stage", list(STAGES))
def test_killed_at_every_point(chain: Chain, warm: Warm, tiny: Tiny, stage: str, tmp_path: Path) -> None:
    faults = []
    for at in range(1, len(chain.done[stage].operations) + 1):
        fault = fault_after_kill(chain, warm, tiny, stage, at, tmp_path / "at" / "killed")
        faults += [fault] if fault else []
        shutil.rmtree(tmp_path / "at")
    assert faults == []


# ------------------------------------------------------------------------------------------------ going on


def test_same_commands_elsewhere_give_the_same_bytes(chain: Chain, tiny: Tiny, tmp_path: Path) -> None:
    """In another folder and in processes of another server: Python orders its sets in another way there."""
    folder = tmp_path / "again"
    folder.mkdir()
    with Warm() as other:
        for stage in STAGES:
            assert start(other, tiny, stage, folder).returncode == 0
    assert differences(outcome(folder / "runs"), outcome(chain.runs)) == []
    assert [path.name for path in folder.iterdir()] == ["runs"]


@pytest.mark.parametrize("stage", list(STAGES))
def test_finished_stage_says_so_and_changes_nothing(
    chain: Chain, warm: Warm, tiny: Tiny, stage: str, tmp_path: Path
) -> None:
    folder = tmp_path / "finished"
    shutil.copytree(chain.folder, folder)
    done = start(warm, tiny, stage, folder)
    assert done.returncode == 0
    assert "is finished" in done.stdout
    assert "--overwrite true" in done.stdout
    assert differences(outcome(folder / "runs"), outcome(chain.runs)) == []


def test_total_episodes_trains_on_to_where_a_longer_run_would_be(
    chain: Chain, warm: Warm, tiny: Tiny, tmp_path: Path
) -> None:
    on, straight = chain.before("evaluate", tmp_path / "on"), chain.before("ppo", tmp_path / "straight")
    longer = ("--total_episodes", "40")
    assert start(warm, tiny, "ppo", on, *longer).returncode == 0
    assert start(warm, tiny, "ppo", straight, *longer).returncode == 0
    assert (on / "runs/ppo/rollouts/update-00005.jsonl").is_file()
    assert differences(outcome(on / "runs"), outcome(straight / "runs")) == []


def test_other_settings_are_refused_and_overwrite_begins_afresh(
    chain: Chain, warm: Warm, tiny: Tiny, tmp_path: Path
) -> None:
    folder = chain.before("evaluate", tmp_path / "run")
    refused = start(warm, tiny, "ppo", folder, "--learning_rate", "0.002")
    assert refused.returncode == 2
    assert "learning_rate = 0.003, now it is 0.002" in refused.stderr
    assert "--overwrite true" in refused.stderr
    assert unlike(chain, "ppo", folder) == []
    again = start(warm, tiny, "ppo", folder, "--overwrite", "true")
    assert again.returncode == 0
    assert unlike(chain, "ppo", folder) == []


def test_overwrite_killed_anywhere_is_still_a_run(chain: Chain, warm: Warm, tiny: Tiny, tmp_path: Path) -> None:
    """The old run is set aside in one step: killed while it is deleted, neither start takes a torso for a run."""
    folder = chain.before("reward", tmp_path / "run")
    flag = ("--overwrite", "true")
    for at in (2, 4, 6, 8):
        assert start(warm, tiny, "by_figures", folder, *flag, kill_at=at).was_killed
        assert start(warm, tiny, "by_figures", folder, *flag).returncode == 0
    assert unlike(chain, "by_figures", folder) == []
