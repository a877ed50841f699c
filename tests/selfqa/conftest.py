"""Runs of Self-QA that several tests look at."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Rows = list[dict[str, Any]]


class Made:
    """What a run wrote."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def rows(self, name: str) -> Rows:
        return [json.loads(line) for line in (self.folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]

    @property
    def summary(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads((self.folder / "summary.json").read_text(encoding="utf-8"))
        return loaded


Generate = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def generate(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Generate:
    """Run `python selfqa/generate.py` as a user does, from another folder."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")

    def run(*flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(root / "selfqa" / "generate.py"), *flags]
        variables = {**os.environ, "COLUMNS": "200", **environment}
        return subprocess.run(
            command, cwd=elsewhere, env=variables, capture_output=True, text=True, timeout=300, check=False
        )

    return run


@pytest.fixture(scope="session")
def real(shared_data: Path, generate: Generate, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The seven real filings."""
    folder = tmp_path_factory.mktemp("real") / "out"
    done = generate("--corpus", str(shared_data / "filings"), "--output", str(folder))
    assert done.returncode == 0, done.stderr
    return Made(folder)


@pytest.fixture(scope="session")
def examples(root: Path, generate: Generate, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The fictional filings of this project, with the demo's configuration."""
    folder = tmp_path_factory.mktemp("examples") / "out"
    flags = ("--config", "selfqa_demo", "--corpus", str(root / "examples" / "filings"), "--output", str(folder))
    done = generate(*flags)
    assert done.returncode == 0, done.stderr
    return Made(folder)
