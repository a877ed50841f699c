"""Run folders: whole or not there, found again, never mixed up."""

import json
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import yaml

from finlm import runs
from finlm.errors import MissingInput, UserError
from finlm.runs import Run


@dataclass(frozen=True, kw_only=True)
class Settings:
    runs: str = "runs"
    steps: int = 4
    names: tuple[str, ...] = ("a", "b")
    overwrite: bool = False


def opened(folder: Path, settings: Settings = Settings(), **more) -> Run:
    return Run.open(folder, "stage", settings, inputs=more.pop("inputs", {}), **more)


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


# ------------------------------------------------------------------------------------------------ whole or not there


def test_text_is_replaced_in_one_step(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "a.txt"
    runs.write_text(file, "one")
    runs.write_text(file, "净利润")
    assert file.read_text(encoding="utf-8") == "净利润"
    assert names(tmp_path) == ["deep", "deep/a.txt"]


def test_folder_is_sealed_with_what_sha256sum_says(tmp_path: Path) -> None:
    with runs.whole_folder(tmp_path / "model") as aside:
        (aside / "sub").mkdir()
        (aside / "sub" / "a.txt").write_text("abc", encoding="utf-8")
        assert not (tmp_path / "model").exists()
    manifest = json.loads((tmp_path / "model" / "manifest.json").read_text(encoding="utf-8"))
    # the first test vector of FIPS 180
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert manifest == {"sub/a.txt": {"bytes": 3, "sha256": digest}}
    assert runs.damage(tmp_path / "model") is None


def test_folder_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    with runs.whole_folder(tmp_path / "model") as aside:
        (aside / "a.txt").write_text("old", encoding="utf-8")

    def fail() -> None:
        with runs.whole_folder(tmp_path / "model") as aside:
            (aside / "a.txt").write_text("new", encoding="utf-8")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        fail()
    assert (tmp_path / "model" / "a.txt").read_text(encoding="utf-8") == "old"
    assert runs.damage(tmp_path / "model") is None
    assert names(tmp_path) == ["model", "model/a.txt", "model/manifest.json"]


def test_folder_takes_the_place_of_the_old_one_and_of_torsos(tmp_path: Path) -> None:
    for torso in (".model.writing", ".model.old"):
        (tmp_path / torso).mkdir()
        (tmp_path / torso / "torso.txt").write_text("", encoding="utf-8")
    for text in ("one", "two"):
        with runs.whole_folder(tmp_path / "model") as aside:
            (aside / f"{text}.txt").write_text(text, encoding="utf-8")
    assert names(tmp_path) == ["model", "model/manifest.json", "model/two.txt"]


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    with runs.whole_folder(tmp_path / "sealed") as aside:
        (aside / "a.bin").write_bytes(bytes(range(100)))
        (aside / "b.bin").write_bytes(b"")
    return tmp_path / "sealed"


def test_damage_is_named(sealed: Path) -> None:
    good = (sealed / "a.bin").read_bytes()
    (sealed / "a.bin").write_bytes(good[:-1])
    assert "a.bin has 99 bytes, 100 were written" in str(runs.damage(sealed))
    (sealed / "a.bin").write_bytes(good[:50] + b"\xff" + good[51:])
    assert "a.bin is not what was written" in str(runs.damage(sealed))
    (sealed / "a.bin").unlink()
    assert "a.bin is missing" in str(runs.damage(sealed))


@pytest.mark.parametrize("content", ["", "{", "[]", '{"a.bin": 3}', '{"a.bin": {"bytes": 3}}', "\x00\x01"])
def test_damaged_manifest_is_damage(sealed: Path, content: str) -> None:
    (sealed / "manifest.json").write_text(content, encoding="utf-8")
    assert "manifest.json is not what was written" in str(runs.damage(sealed))
    (sealed / "manifest.json").unlink()
    assert "has no manifest.json" in str(runs.damage(sealed))


def checkpoints(folder: Path, *numbers: int) -> None:
    for number in numbers:
        with runs.whole_folder(folder / f"checkpoint-{number}") as aside:
            (aside / "a.txt").write_text(str(number), encoding="utf-8")


def test_newest_is_by_number_and_whole(tmp_path: Path) -> None:
    assert runs.newest_whole(tmp_path / "nowhere", "checkpoint-*") == (None, [])
    checkpoints(tmp_path, 9, 10, 100)
    (tmp_path / "checkpoint-best").mkdir()
    assert runs.newest_whole(tmp_path, "checkpoint-*") == (tmp_path / "checkpoint-100", [])
    (tmp_path / "checkpoint-100" / "a.txt").unlink()
    newest, complaints = runs.newest_whole(tmp_path, "checkpoint-*")
    assert newest == tmp_path / "checkpoint-10"
    assert complaints == [f"{tmp_path / 'checkpoint-100' / 'a.txt'} is missing"]
    assert runs.newest_whole(tmp_path, "checkpoint-*", lambda path: path.name != "checkpoint-10") == (
        tmp_path / "checkpoint-9",
        complaints,
    )
    runs.keep_newest(tmp_path, "checkpoint-*", 2, also=[9])
    assert list(runs.numbered(tmp_path, "checkpoint-*")) == [9, 10, 100]
    runs.keep_newest(tmp_path, "checkpoint-*", 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-100", "checkpoint-best"]


# ------------------------------------------------------------------------------------------------ fingerprints


def test_fingerprint_changes_with_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a" / "deep").mkdir(parents=True)
    (tmp_path / "a" / "deep" / "one.txt").write_text("1", encoding="utf-8")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert runs.fingerprint(tmp_path / "a") == runs.fingerprint(tmp_path / "b")
    (tmp_path / "b" / "deep" / "one.txt").rename(tmp_path / "b" / "two.txt")
    assert runs.fingerprint(tmp_path / "a") != runs.fingerprint(tmp_path / "b")
    (tmp_path / "a" / "deep" / "one.txt").write_text("2", encoding="utf-8")
    before = runs.fingerprint(tmp_path / "a")
    (tmp_path / "a" / "empty.txt").write_text("", encoding="utf-8")
    assert runs.fingerprint(tmp_path / "a") != before
    with pytest.raises(MissingInput, match=r"nowhere: no such file or folder\."):
        runs.fingerprint(tmp_path / "nowhere")


# ------------------------------------------------------------------------------------------------ runs


def test_run_begins_resumes_and_ends(tmp_path: Path) -> None:
    folder = tmp_path / "stage"
    run = opened(folder)
    assert (run.resumes, run.is_finished, run.counts) == (False, False, {})
    again = opened(folder)
    assert (again.resumes, again.is_finished) == (True, False)
    again.finish(rows=3)
    done = opened(folder)
    assert (done.resumes, done.is_finished, done.counts) == (True, True, {"rows": 3})
    assert yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))["steps"] == 4
    assert runs.read_state(folder)["versions"]["torch"]


def test_other_settings_and_inputs_are_refused(tmp_path: Path) -> None:
    folder, source = tmp_path / "stage", tmp_path / "in.txt"
    source.write_text("1", encoding="utf-8")
    opened(folder, inputs={"source": source})
    (folder / "weights.bin").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match=r"begun with steps = 4, now it is 5; .* --overwrite true"):
        opened(folder, Settings(steps=5), inputs={"source": source})
    with pytest.raises(UserError, match=r"was begun with another source \(.*in\.txt has changed since\)"):
        opened(folder)
    source.write_text("2", encoding="utf-8")
    with pytest.raises(UserError, match=r"was begun with another source"):
        opened(folder, inputs={"source": source})
    with pytest.raises(UserError, match=r"holds a run of 'stage', not of 'other'; choose another --output"):
        Run.open(folder, "other", Settings(), inputs={})
    with pytest.raises(MissingInput, match=r"nowhere: no such file or folder"):
        opened(folder, inputs={"source": tmp_path / "nowhere"})


def test_settings_of_a_start_that_made_nothing_bind_no_one(tmp_path: Path) -> None:
    """A model that was refused is named rightly the second time: that is no change of a run."""
    folder = tmp_path / "stage"
    opened(folder)
    (folder / "rejected.jsonl").write_text("", encoding="utf-8")
    (folder / ".weights.bin.4242.tmp").write_text("", encoding="utf-8")
    assert not runs.has_begun(folder)
    other = opened(folder, Settings(steps=5))
    assert not other.resumes
    assert runs.read_state(folder)["settings"]["steps"] == 5
    other.finish()
    assert runs.has_begun(folder)
    with pytest.raises(UserError, match="begun with steps = 5, now it is 4"):
        opened(folder)
    with pytest.raises(UserError, match="holds a run of 'stage', not of 'other'"):
        Run.open(folder, "other", Settings(), inputs={})


def test_place_of_the_run_root_is_no_setting(tmp_path: Path) -> None:
    opened(tmp_path / "stage", Settings(runs="here"))
    assert opened(tmp_path / "stage", Settings(runs="there", overwrite=False)).resumes


def test_growing_field_trains_a_finished_run_on(tmp_path: Path) -> None:
    folder = tmp_path / "stage"
    opened(folder).finish()
    (folder / "weights.bin").write_text("", encoding="utf-8")
    longer = opened(folder, Settings(steps=8), grows=("steps",))
    assert (longer.resumes, longer.is_finished) == (True, False)
    assert yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))["steps"] == 8
    with pytest.raises(UserError, match="begun with steps = 8, now it is 4"):
        opened(folder, Settings(steps=4), grows=("steps",))


def test_free_field_may_change_between_two_starts(tmp_path: Path) -> None:
    folder = tmp_path / "stage"
    opened(folder)
    (folder / "weights.bin").write_text("", encoding="utf-8")
    other = opened(folder, Settings(steps=2), free=("steps",))
    assert (other.resumes, other.is_finished) == (True, False)
    assert runs.read_state(folder)["settings"]["steps"] == 2
    assert yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))["steps"] == 2
    other.finish()
    assert opened(folder, Settings(steps=3), free=("steps",)).is_finished
    with pytest.raises(UserError, match="begun with names"):
        opened(folder, Settings(names=("c",)), free=("steps",))


def test_folder_of_others_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter1.tex").write_text("…", encoding="utf-8")
    for overwrite in (False, True):
        with pytest.raises(UserError, match=r"thesis holds files but no run\.json: it is no run folder"):
            opened(folder, overwrite=overwrite)
    assert names(folder) == ["chapter1.tex"]


def test_overwrite_deletes_the_old_run(tmp_path: Path) -> None:
    folder = tmp_path / "stage"
    opened(folder).finish()
    (folder / "weights.bin").write_text("old", encoding="utf-8")
    run = opened(folder, overwrite=True)
    assert (run.resumes, run.is_finished) == (False, False)
    assert names(tmp_path) == ["stage", "stage/config.yaml", "stage/run.json"]


def test_what_killed_processes_leave_does_not_stop_a_start_and_is_gone_at_the_end(tmp_path: Path) -> None:
    folder = tmp_path / "stage"
    folder.mkdir()
    (folder / ".run.json.4242.tmp").write_text("{", encoding="utf-8")
    run = opened(folder)
    (folder / "rollouts").mkdir()
    for stray in (folder / "rollouts" / ".update-1.jsonl.4242.tmp", tmp_path / ".stage.jsonl.4242.tmp"):
        stray.write_text("", encoding="utf-8")
    for torso in (folder / ".policy.old", folder / ".model.writing", tmp_path / ".stage.deleted"):
        torso.mkdir()
        (torso / "a.txt").write_text("", encoding="utf-8")
    (tmp_path / ".other.jsonl.4242.tmp").write_text("", encoding="utf-8")
    (folder / ".hidden").write_text("a user's own", encoding="utf-8")
    run.finish()
    left = [".other.jsonl.4242.tmp", "stage"]
    left += [f"stage/{name}" for name in (".hidden", "config.yaml", "rollouts", "run.json")]
    assert names(tmp_path) == left


def test_run_killed_before_its_config_gets_it_at_the_next_start(tmp_path: Path) -> None:
    opened(tmp_path / "stage")
    (tmp_path / "stage" / "config.yaml").unlink()
    assert opened(tmp_path / "stage").resumes
    assert (tmp_path / "stage" / "config.yaml").is_file()


def test_damaged_state_is_named(tmp_path: Path) -> None:
    opened(tmp_path / "stage")
    (tmp_path / "stage" / "run.json").write_text('{"stage": ', encoding="utf-8")
    with pytest.raises(UserError, match=r"run\.json is damaged .*; move .* away or choose another --output"):
        opened(tmp_path / "stage")


def test_seconds_add_up_over_starts(tmp_path: Path) -> None:
    folder = tmp_path / "stage"
    opened(folder)
    state = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    (folder / "run.json").write_text(json.dumps(state | {"seconds": 1000.0}), encoding="utf-8")
    run = opened(folder)
    run.checkpointed()
    assert 1000.0 <= runs.read_state(folder)["seconds"] < 1060.0
    assert runs.read_state(tmp_path / "nowhere") is None


def test_missing_input_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match=r"^The model not found at .*sft; make it with: python alignment/sft\.py$"):
        runs.require(tmp_path / "sft", what="The model", made_by="python alignment/sft.py")
    assert runs.require(tmp_path, what="", made_by="") == tmp_path


def test_too_little_disk_is_named(tmp_path: Path) -> None:
    runs.need_disk(tmp_path / "not" / "there" / "yet", 0.0)
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize / 1e9
    with pytest.raises(UserError, match=r"yet: .* GB of disk are free, this stage writes up to .* GB; free some space"):
        runs.need_disk(tmp_path / "yet", free + 1000)


def test_settings_are_compared_as_they_are_stored(tmp_path: Path) -> None:
    """A tuple is a list in JSON: the same settings must not look like others."""
    opened(tmp_path / "stage", replace(Settings(), names=("x", "y")))
    assert opened(tmp_path / "stage", replace(Settings(), names=("x", "y"))).resumes
