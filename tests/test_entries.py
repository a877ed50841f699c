"""Every entry runs as a file from any folder, as a module, and by its command; the same head makes it so."""

import ast
import dataclasses
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from chain import STAGES, Chain
from entry_files import ENTRIES, PACKAGES, ROOT, module_of, name_of, settings_of
from stages.outcome import differences, outcome
from tiny import Tiny
from warm import ENVIRONMENT, Done, Warm

from finlm.__main__ import COMMANDS

HEAD = """import os
import sys

if not __package__:  # run as a file: import from this checkout, not from this folder or from an older install
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

"""


def real(*command: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a user would, without the warm server."""
    return subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=os.environ | ENVIRONMENT | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


# ------------------------------------------------------------------------------------------------ what they say


def test_commands_are_the_entries() -> None:
    assert {module for module, _ in COMMANDS.values()} == {module_of(path) for path in ENTRIES}
    assert len(ENTRIES) == 29


@pytest.mark.parametrize("path", ENTRIES, ids=name_of)
def test_head_is_the_same_two_statements(path: Path) -> None:
    """After the docstring and before any other import, character by character."""
    source = path.read_text(encoding="utf-8")
    docstring = ast.parse(source).body[0]
    after = "\n".join(source.splitlines()[docstring.end_lineno :]).lstrip("\n")
    assert after.startswith(HEAD)
    assert source.count("sys.path") == 1


@pytest.mark.parametrize("path", ENTRIES, ids=name_of)
def test_entries_are_imported_by_nothing(path: Path) -> None:
    """They are the roof: a file run as a script is `__main__`, so what others imported from it would exist twice."""
    package, _, name = module_of(path).rpartition(".")
    importing = re.compile(rf"^\s*(from {package} import .*\b{name}\b|(from|import) {package}\.{name}\b)", re.MULTILINE)
    for other in (file for folder in PACKAGES for file in (ROOT / folder).rglob("*.py")):
        assert not importing.search(other.read_text(encoding="utf-8")), other


@pytest.mark.parametrize("path", ENTRIES, ids=name_of)
def test_help_shows_every_setting_with_its_text_and_default(path: Path, warm: Warm, tmp_path: Path) -> None:
    done = warm.run(path, "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []
    shown = " ".join(done.stdout.split())
    fields = documented_fields(path)
    assert {"runs"} < fields.keys()
    for name, text in fields.items():
        entry = re.search(rf" --{name}[ ,].*?\((required, )?type: .*?\)", shown)
        assert entry, f"--{name} is not shown"
        assert " ".join(text.split())[:40] in shown, f"--{name} is not explained"
    required = {"selfqa/generate": {"corpus"}, "annotation/importing": {"input"}, "reward/score": {"input"}}.get(
        name_of(path), set()
    )
    sections = {name.partition(".")[0] for name in fields if "." in name}  # their fields have defaults
    assert shown.count(" default: ") >= len(fields.keys() - required - sections)
    assert shown.count("(required, type:") == len(required)


def documented_fields(path: Path) -> dict[str, str]:
    """Field -> docstring, of an entry's settings, of those that they extend, and of the sections within them."""
    return texts_of(settings_of(module_of(path)))


def texts_of(settings: type) -> dict[str, str]:
    fields: dict[str, str] = {}
    for made in reversed([one for one in settings.__mro__ if dataclasses.is_dataclass(one)]):
        (node,) = ast.parse(inspect.getsource(made)).body
        assert isinstance(node, ast.ClassDef)
        types = {field.name: field.type for field in dataclasses.fields(made)}
        for field, text in zip(node.body, [*node.body[1:], None], strict=True):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                name = field.target.id
                assert isinstance(text, ast.Expr), f"{node.name}.{name} has no docstring"
                assert isinstance(text.value, ast.Constant)
                fields[name] = str(text.value.value)
                section = types[name]
                if isinstance(section, type) and dataclasses.is_dataclass(section):
                    fields |= {f"{name}.{key}": value for key, value in texts_of(section).items()}
    return fields


def test_finlm_lists_its_commands(tmp_path: Path) -> None:
    for flag in ((), ("--help",)):
        done = real(sys.executable, "-m", "finlm", *flag, cwd=tmp_path)
        assert done.returncode == 0
        for name, (_, remark) in COMMANDS.items():
            assert re.search(rf"^  finlm {name} +{re.escape(remark)}$", done.stdout, re.MULTILINE)
    unknown = real(sys.executable, "-m", "finlm", "sftt", cwd=tmp_path)
    assert unknown.returncode == 2
    assert "no command 'sftt'" in unknown.stderr
    told = real(sys.executable, "-m", "finlm", "rollouts", "--help", cwd=tmp_path, COLUMNS="200")
    assert told.stdout.startswith("usage: finlm rollouts ")
    assert "Which update to show; 0 shows the newest. (type: int, default: 0)" in told.stdout
    version = real(sys.executable, "-m", "finlm", "--version", cwd=tmp_path)
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", version.stdout)


# ------------------------------------------------------------------------------------------------ the three uses


FILING = """ACME LTD
FORM 10-K
For the fiscal year ended December 31, 2024

Acme Ltd makes anvils.

Revenue was $412.6 million in fiscal 2024, compared with $384.2 million in fiscal 2023.
Net income was $51.3 million in fiscal 2024, compared with $47.0 million in fiscal 2023.
"""


def test_self_qa_as_a_file_from_another_folder(tmp_path: Path) -> None:
    (tmp_path / "filings").mkdir()
    (tmp_path / "filings" / "acme-10-k.txt").write_text(FILING, encoding="utf-8")
    # names that would shadow ours and the standard library's if the folder of the call or of the script counted
    (tmp_path / "finlm.py").write_text("raise SystemExit('the wrong finlm')\n", encoding="utf-8")
    done = real(sys.executable, ROOT / "selfqa" / "generate.py", "--corpus", "filings/", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    made = (tmp_path / "runs" / "selfqa" / "instructions.jsonl").read_text(encoding="utf-8").splitlines()
    documents = (tmp_path / "runs" / "selfqa" / "documents.jsonl").read_text(encoding="utf-8").splitlines()
    (document,) = map(json.loads, documents)
    assert made
    for line in map(json.loads, made):
        evidence = document["text"][line["provenance"]["start"] : line["provenance"]["end"]]
        assert evidence
        assert line["provenance"]["document_id"] == document["id"]


def test_ppo_by_accelerate_without_a_flag_resumes_then_says_that_it_is_finished(
    chain: Chain, warm: Warm, tiny: Tiny, tmp_path: Path
) -> None:
    """Begun with settings of its own and killed, a run goes on with them and ends with the same bits."""
    folder = chain.before("ppo", tmp_path / "elsewhere")
    at = list(chain.done["ppo"].operations).index("mkdir checkpoints/.checkpoint-2.writing") + 1
    assert warm.run("alignment.ppo", "--config", tiny.settings("ppo"), cwd=folder, kill_at=at).was_killed
    launch = [sys.executable, "-m", "accelerate.commands.launch"]
    launch += ["--config_file", str(ROOT / "configs" / "accelerate" / "one_process.yaml")]
    resumed = real(*launch, ROOT / "alignment" / "ppo.py", cwd=folder)
    assert resumed.returncode == 0, resumed.stderr[-2000:]
    assert "PPO: 3 updates, policy in runs/ppo/policy" in resumed.stdout
    whole = {k: v for k, v in outcome(chain.runs).items() if not k.startswith("evaluation/")}
    assert differences(outcome(folder / "runs"), whole) == []
    again = warm.run(ROOT / "alignment" / "ppo.py", cwd=folder)
    assert again.returncode == 0
    assert "runs/ppo is finished (24 episodes); --total_episodes with a higher number trains on" in again.stdout


def test_ppo_without_a_flag_takes_what_the_stages_before_it_left(chain: Chain, warm: Warm, tmp_path: Path) -> None:
    """Its defaults are the recipe's: it is ended once it has found everything and is about to sample."""
    folder = chain.before("ppo", tmp_path / "fresh")
    at = list(chain.done["ppo"].operations).index("unlink ppo/.rejected.jsonl.tmp") + 1
    assert warm.run(ROOT / "alignment" / "ppo.py", cwd=folder, kill_at=at).was_killed
    begun = json.loads((folder / "runs" / "ppo" / "run.json").read_text(encoding="utf-8"))
    assert begun["inputs"] == {
        "model": "runs/sft/model",
        "reward_model": "runs/reward/model",
        "prompts": "runs/prompts.jsonl",
        "runs/prompts/held_out.jsonl": "runs/prompts/held_out.jsonl",
    }
    assert begun["settings"]["kl_coef"] == 0.05


# ------------------------------------------------------------------------------------------------ missing stages

MISSING = [
    ("alignment.sft", (), "make it with: python selfqa/generate.py --corpus filings/"),
    ("alignment.respond", (), "make it with: python alignment/sft.py"),
    ("annotation.by_figures", (), "make it with: python alignment/respond.py"),
    ("reward.train", (), "make it with: python alignment/sft.py"),
    ("reward.train", ("sft",), "make it with: finlm annotate push, then finlm annotate pull"),
    ("finlm.prompts", (), "make it with: finlm annotate push, then finlm annotate pull"),
    ("alignment.ppo", (), "make it with: python alignment/sft.py"),
    ("alignment.ppo", ("sft",), "make it with: python reward/train.py"),
    ("alignment.ppo", ("sft", "reward"), "make it with: finlm prompts"),
    ("finlm.evaluate", (), "make it with: python selfqa/generate.py --corpus filings/"),
]


def refused(done: Done, message: str) -> None:
    assert done.returncode == 2, done.said
    assert re.fullmatch(r"error: [^\n]+\n", done.stderr), done.stderr
    assert message in done.stderr


@pytest.mark.parametrize(("module", "there", "message"), MISSING)
def test_missing_stage_is_named_with_its_command(
    chain: Chain, warm: Warm, tmp_path: Path, module: str, there: tuple[str, ...], message: str
) -> None:
    folder = tmp_path / "empty"
    (folder / "runs").mkdir(parents=True)
    for name in there:
        shutil.copytree(chain.runs / name, folder / "runs" / name)
    done = warm.run(module, cwd=folder)
    refused(done, message)
    assert sorted(path.name for path in (folder / "runs").iterdir()) == sorted(there)


def test_unfinished_stage_is_named_with_its_command(chain: Chain, warm: Warm, tiny: Tiny, tmp_path: Path) -> None:
    folder = chain.before("sft", tmp_path / "half")
    at = list(chain.done["sft"].operations).index("optimizer step") + 1
    assert warm.run("alignment.sft", "--config", tiny.settings("sft"), cwd=folder, kill_at=at).was_killed
    for stage in ("respond", "reward", "ppo"):
        done = warm.run(STAGES[stage], cwd=folder)
        refused(done, "runs/sft is not finished; go on with: python alignment/sft.py")


def test_run_root_moves_by_flag_and_by_environment(warm: Warm, tmp_path: Path) -> None:
    named = warm.run("annotation.by_figures", "--runs", "a", cwd=tmp_path)
    refused(named, "Candidates not found at a/candidates.jsonl")
    told = warm.run("annotation.by_figures", cwd=tmp_path, environment={"FINLM_RUNS": "b"})
    refused(told, "Candidates not found at b/candidates.jsonl")


# ------------------------------------------------------------------------------------------------ names others use


def test_foreign_package_of_the_same_name(tmp_path: Path) -> None:
    """`alignment` is also what another distribution installs: a file wins over it, a command says so and stops."""
    foreign = tmp_path / "site"
    (foreign / "alignment").mkdir(parents=True)
    (foreign / "alignment" / "__init__.py").write_text("raise SystemExit('the wrong alignment')\n", encoding="utf-8")
    path = {"PYTHONPATH": str(foreign)}
    command = real(sys.executable, "-m", "finlm", "ppo", cwd=tmp_path, **path)
    assert command.returncode == 2
    assert re.fullmatch(r"error: 'alignment' is .*site/alignment/__init__\.py, not .*\n", command.stderr)
    file = real(sys.executable, ROOT / "alignment" / "respond.py", cwd=tmp_path, **path)
    assert file.returncode == 2
    assert "make it with: python alignment/sft.py" in file.stderr
