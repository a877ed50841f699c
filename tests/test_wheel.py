"""The wheel: what it holds, and that it runs from a folder that is no checkout."""

import os
import re
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
import yaml
from warm import ENVIRONMENT

from finlm.__main__ import COMMANDS

ROOT = Path(__file__).parent.parent
PACKAGES = {"finlm", "alignment", "reward", "selfqa", "annotation"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build it as a release would, without fetching the build's own requirements."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, installed into a folder of its own; its dependencies are those of this environment."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(folder)]
    done = subprocess.run([*command, str(wheel)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture
def away(tmp_path: Path) -> Path:
    """A working folder without a checkout above it."""
    return tmp_path


def run(site: Path, away: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command with the installed wheel before everything else."""
    environment = os.environ | ENVIRONMENT | {"PYTHONPATH": str(site)}
    return subprocess.run(command, cwd=away, env=environment, capture_output=True, text=True, check=False, timeout=300)


def names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_wheel_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in names(wheel)}
    (metadata,) = [top for top in tops if top.endswith(".dist-info")]
    assert tops - {metadata} == PACKAGES
    for package in PACKAGES:
        sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / package).rglob("*.py")}
        assert {name for name in names(wheel) if name.startswith(f"{package}/") and name.endswith(".py")} == sources
    assert not [name for name in names(wheel) if "__pycache__" in name or name.endswith(".pyc")]


def test_wheel_holds_configurations_and_page_templates(wheel: Path) -> None:
    shipped = {path.relative_to(ROOT / "configs").as_posix() for path in (ROOT / "configs").rglob("*.*")}
    assert {name.removeprefix("finlm/configs/") for name in names(wheel) if "finlm/configs/" in name} == shipped
    for package in ("finlm", "annotation"):
        pages = {path.relative_to(ROOT).as_posix() for path in (ROOT / package / "pages").iterdir()}
        assert pages
        assert pages <= set(names(wheel))


def test_metadata(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("/METADATA")]
        about = Parser().parsestr(archive.read(name).decode())
        entry_points = archive.read(name.replace("METADATA", "entry_points.txt")).decode()
    assert about["Name"] == "finlm"
    assert about["Requires-Python"] == ">=3.11"
    assert "finlm = finlm.__main__:main" in entry_points
    # TRL 1 is what SFT and the reward model are written for
    assert any(re.fullmatch(r"trl(<2,>=1\.16|>=1\.16,<2)", need) for need in about.get_all("Requires-Dist") or [])


def test_command_comes_from_the_wheel(site: Path, away: Path) -> None:
    where = run(site, away, sys.executable, "-c", "import finlm, alignment; print(finlm.__file__, alignment.__file__)")
    assert where.stdout.split() == [str(site / name / "__init__.py") for name in ("finlm", "alignment")], where.stderr
    done = run(site, away, str(site / "bin" / "finlm"), "--help")
    assert done.returncode == 0, done.stderr
    assert all(f"finlm {name} " in done.stdout for name in COMMANDS)


def test_shipped_configuration_is_found_by_name(site: Path, away: Path) -> None:
    done = run(site, away, str(site / "bin" / "finlm"), "prompts", "--config", "prompts_demo", "--print_config")
    assert done.returncode == 0, done.stderr
    said = yaml.safe_load((ROOT / "configs" / "prompts_demo.yaml").read_text(encoding="utf-8"))
    shown = yaml.safe_load(done.stdout)
    assert shown | said == shown
    find = "from finlm import config; print(config.find_config('ppo_6b'))"
    done = run(site, away, sys.executable, "-c", find)
    assert done.stdout.strip() == str(site / "finlm" / "configs" / "ppo_6b.yaml")


def test_self_qa_from_the_wheel(site: Path, away: Path) -> None:
    (away / "filings").mkdir()
    text = "Acme Ltd\n\nRevenue was $412.6 million in fiscal 2024, compared with $384.2 million in fiscal 2023.\n"
    (away / "filings" / "acme.txt").write_text(text, encoding="utf-8")
    done = run(site, away, str(site / "bin" / "finlm"), "selfqa", "--corpus", "filings")
    assert done.returncode == 0, done.stderr
    assert (away / "runs" / "selfqa" / "instructions.jsonl").read_text(encoding="utf-8")


def test_ppo_as_a_module_from_the_wheel(site: Path, away: Path) -> None:
    done = run(site, away, sys.executable, "-m", "alignment.ppo", "--kl_coef", "0.1")
    assert done.returncode == 2
    assert done.stderr == ("error: The fine-tuned model not found at runs/sft; make it with: python alignment/sft.py\n")


def test_report_page_from_the_wheel(site: Path, away: Path) -> None:
    code = "from finlm.report import Notes, Page, write; write(Page('Title', '', (Notes('A', 'B'),)), 'page.html')"
    done = run(site, away, sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr
    assert "<title>Title" in (away / "page.html").read_text(encoding="utf-8")
