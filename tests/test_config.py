"""From a dataclass to a command line: what wins, what is refused and in which words."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from finlm import config, runs
from finlm.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """A section of settings."""

    most: int = 5
    """Most."""
    acts: bool = True
    """Acts."""

    def __post_init__(self) -> None:
        if self.most < 1:
            raise ValueError(f"most is {self.most}; it must be 1 or more.")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of a test."""

    runs: str = field(default_factory=config.default_runs)
    """Run root."""
    output: str = "{runs}/stage"
    """Folder of the run."""
    steps: int = 4
    """Steps."""
    rate: float = 1e-3
    """Rate."""
    kind: Literal["a", "b"] = "a"
    """Kind."""
    names: list[str] = field(default_factory=lambda: ["{runs}/x", "y"])
    """Names."""
    lora: dict[str, Any] = field(default_factory=lambda: {"r": 4, "path": "{runs}/z"})
    """LoRA."""
    limits: Limits = field(default_factory=lambda: Limits())
    """Limits of the stage."""
    overwrite: bool = False
    """Begin afresh."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}; it must be 1 or more.")


@dataclass(frozen=True, kw_only=True)
class Section:
    """Stands for a library's config."""

    r: int = 8
    target: str = "all"
    task: str = ""

    def __post_init__(self) -> None:
        if self.r < 1:
            raise ValueError("r must be positive")


def parsed(*arguments: str, folder: str = "") -> Settings:
    return config.parse(Settings, "A test.", list(arguments), prog="finlm test", folder=folder)


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("FINLM_RUNS", raising=False)
    monkeypatch.chdir(tmp_path)


# ------------------------------------------------------------------------------------------------ what wins


def test_flags_win_over_the_file_and_the_file_over_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("steps: 5\nrate: 5e-4\nlora:\n  r: 2\n", encoding="utf-8")
    found = parsed("--config", str(file), "--steps", "6")
    assert (found.steps, found.rate, found.kind, found.lora) == (6, 0.0005, "a", {"r": 2})
    assert parsed("--steps=6", f"--config={file}").rate == 0.0005
    assert parsed().steps == 4


def test_run_root_stands_in_every_string(monkeypatch: pytest.MonkeyPatch) -> None:
    found = parsed()
    assert (found.output, found.names, found.lora["path"]) == ("runs/stage", ["runs/x", "y"], "runs/z")
    monkeypatch.setenv("FINLM_RUNS", "/data/a")
    assert parsed().output == "/data/a/stage"
    assert parsed("--runs", "b").names == ["b/x", "y"]
    assert parsed("--output", "c").output == "c"


@pytest.mark.parametrize("arguments", [["--out", "x"], ["--out=x"]])
def test_out_is_short_for_where_the_results_go(arguments: list[str]) -> None:
    assert parsed(*arguments).output == "x"
    assert parsed("--names", '["--out"]').names == ["--out"]


def test_lists_and_sections_are_given_on_the_command_line() -> None:
    assert parsed("--names", "[a, b]").names == ["a", "b"]
    assert parsed("--names+", "z").names == ["runs/x", "y", "z"]
    assert parsed("--lora", "{r: 2}").lora == {"r": 2}
    assert parsed("--lora.r", "2").lora["r"] == 2


def test_a_section_may_be_a_dataclass_of_its_own(tmp_path: Path) -> None:
    assert parsed().limits == Limits()
    assert parsed("--limits.most", "7").limits == Limits(most=7)
    assert parsed("--limits", '{"most": 7, "acts": false}').limits == Limits(most=7, acts=False)
    (tmp_path / "a.yaml").write_text("limits:\n  acts: false\n", encoding="utf-8")
    assert parsed("--config", "a.yaml", "--limits.most", "7").limits == Limits(most=7, acts=False)
    begun = parsed("--limits.most", "9", folder="output")
    run = runs.Run.open(begun.output, "test", begun, inputs={})
    (run.folder / "metrics.jsonl").write_text("", encoding="utf-8")
    assert parsed("--limits.acts", "false", folder="output").limits == Limits(most=9, acts=False)


def test_shipped_configurations_are_found_by_name(root: Path) -> None:
    assert Path(config.find_config("ppo_6b")) == root / "configs" / "ppo_6b.yaml"
    assert Path(config.find_config("ppo_6b.yaml")) == root / "configs" / "ppo_6b.yaml"


# ------------------------------------------------------------------------------------------------ a run goes on


def test_run_folder_remembers_its_settings_unless_a_file_or_a_fresh_start_is_asked_for(tmp_path: Path) -> None:
    begun = parsed("--steps", "9", "--output", "here", folder="output")
    run = runs.Run.open(begun.output, "test", begun, inputs={})
    at = ("--output", "here")
    assert parsed(*at, folder="output").steps == 4, "it was refused before it made anything"
    (run.folder / "metrics.jsonl").write_text("", encoding="utf-8")
    assert parsed(*at, folder="output") == begun
    assert parsed(*at, "--steps", "10", folder="output").steps == 10
    assert parsed(*at, "--overwrite", "true", folder="output").steps == 4
    (tmp_path / "a.yaml").write_text("rate: 0.5\n", encoding="utf-8")
    assert parsed(*at, "--config", "a.yaml", folder="output").steps == 4
    assert parsed("--output", "elsewhere", folder="output").steps == 4


def test_fresh_start_is_not_remembered() -> None:
    """The same command without the flag must find the run, not delete it."""
    begun = parsed("--overwrite", "true", folder="output")
    runs.Run.open(begun.output, "test", begun, inputs={}).finish()
    assert parsed(folder="output").overwrite is False


# ------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--stepz 3", "Unknown setting 'stepz'; perhaps you meant 'steps'."),
        ("--step 3", "Unknown setting 'step'; perhaps you meant 'steps'."),
        ("--zzz 3", "Unknown setting 'zzz'; finlm test --help lists the settings."),
        ("stray", "Unknown setting 'stray'; finlm test --help lists the settings."),
        ("--steps three", "Setting 'steps' is 'three'; it must be an integer."),
        ("--steps 4.5", "Setting 'steps' is '4.5'; it must be an integer."),
        ("--steps null", "Setting 'steps' is 'None'; it must be an integer."),
        ("--rate x", "Setting 'rate' is 'x'; it must be a number."),
        ("--overwrite maybe", "Setting 'overwrite' is 'maybe'; it must be true or false."),
        ("--kind c", "Setting 'kind' is 'c'; it must be one of 'a', 'b'."),
        ("--names x", "Setting 'names' is 'x'; it must be a list."),
        ("--lora 5", "Setting 'lora' is '5'; it must be a section of keys."),
        ("--steps 0", "steps is 0; it must be 1 or more."),
        ("--limits.most 0", "limits.most is 0; it must be 1 or more."),
        ("--limits.most x", "Setting 'limits.most' is 'x'; it must be an integer."),
        ("--limits.mosst 3", "Unknown setting 'limits.mosst'; perhaps you meant 'limits.most'."),
        ('--limits {"mosst":3}', "Unknown setting 'limits.mosst'; perhaps you meant 'limits.most'."),
        ("--config nowhere.yaml", "--config nowhere.yaml: no such file, and no shipped configuration of that name ("),
    ],
)
def test_refused_on_the_command_line(arguments: str, message: str) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(message)}"):
        parsed(*arguments.split())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"stepz: 3", "Unknown setting 'stepz'; perhaps you meant 'steps'."),
        (b"limits: {mosst: 3}", "Unknown setting 'limits.mosst'; perhaps you meant 'limits.most'."),
        (b"limits: 3", "Setting 'limits' is 3; it must be a section of keys."),
        (b"steps: three", "Setting 'steps' is 'three'; it must be an integer."),
        (b"steps:\nrate: 1.0", "Setting 'steps' has no value in a.yaml; give one or take the line out."),
        (b"", "--config a.yaml: holds no settings;"),
        (b"- steps", "--config a.yaml: holds no settings;"),
        (b"steps: [1", "--config a.yaml: not a YAML file (while parsing"),
        ("kind: 净利润".encode("gb18030"), "--config a.yaml: not a YAML file ('utf-8' codec"),
    ],
)
def test_refused_in_a_file(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.yaml").write_bytes(content)
    with pytest.raises(UserError, match=f"^{re.escape(message)}") as refusal:
        parsed("--config", "a.yaml")
    assert "\n" not in str(refusal.value)


def test_section_takes_the_librarys_fields_and_no_others() -> None:
    made = config.section("lora", {"r": 2}, Section, {"task": "CAUSAL_LM"})
    assert made == Section(r=2, task="CAUSAL_LM")
    for given, message in (
        ({"targt": "x"}, "Unknown setting 'lora.targt': Section has no such field; perhaps you meant 'target'."),
        ({"zzzzz": "x"}, "Unknown setting 'lora.zzzzz': Section has no such field."),
        ({"task": "x"}, "'lora.task' is set by this project and cannot be given in the section 'lora'."),
        ({"r": 0}, "Section 'lora': r must be positive"),
    ):
        with pytest.raises(UserError, match=f"^{re.escape(message)}"):
            config.section("lora", given, Section, {"task": "CAUSAL_LM"})


# ------------------------------------------------------------------------------------------------ how a command ends


def ends(monkeypatch: pytest.MonkeyPatch, main, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["finlm test", *arguments])
    with pytest.raises(SystemExit) as ended:
        config.run(main, Settings, "A test.")
    return ended.value.code


def raising(error: BaseException):
    def main(settings: Settings) -> None:
        raise error

    return main


def test_exit_codes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert ends(monkeypatch, lambda settings: print(settings.steps), "--steps", "7") == 0
    assert capsys.readouterr().out == "7\n"
    assert ends(monkeypatch, raising(UserError("It is so.")), "--steps", "7") == 2
    assert capsys.readouterr().err == "error: It is so.\n"
    assert ends(monkeypatch, print, "--steps", "x") == 2
    assert capsys.readouterr().err == "error: Setting 'steps' is 'x'; it must be an integer.\n"
    assert ends(monkeypatch, raising(KeyboardInterrupt())) == 130
    assert "the same command goes on from the last checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"),
    ],
)
def test_full_disk_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    assert ends(monkeypatch, raising(error)) == 2
    assert re.fullmatch(r"error: the disk is full: .*; free some space, .*\n", capsys.readouterr().err)


def test_fault_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["finlm test"])
    with pytest.raises(ZeroDivisionError):
        config.run(raising(ZeroDivisionError()), Settings, "A test.")


def test_resolved_settings_are_yaml_that_gives_the_same_again(tmp_path: Path) -> None:
    begun = parsed("--names", "[净利润, '5', 'true']", "--rate", "3e-5")
    runs.Run.open(begun.output, "test", begun, inputs={})
    file = tmp_path / "runs" / "stage" / "config.yaml"
    assert yaml.safe_load(file.read_text(encoding="utf-8"))["rate"] == 3e-5
    assert parsed("--config", str(file)) == begun
