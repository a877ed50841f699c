"""The benchmark scripts of one GPU run to their end on a tiny shape: what they measure is theirs to say, on a GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent


def run(script: str, out: Path, *flags: str) -> Any:
    command = [sys.executable, "-W", "ignore", str(ROOT / "benchmarks" / script), "--shape", "tiny", "--out", str(out)]
    done = subprocess.run([*command, *flags], env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(out.read_text(encoding="utf-8"))["figures"]


def test_a_ppo_step_is_timed_phase_by_phase(tmp_path: Path) -> None:
    flags = ("--workload", "8x8x8", "--micro-batch", "4", "--steps", "1")
    ((workload),) = run("ppo_gpu.py", tmp_path / "ppo.json", *flags)["workloads"]
    roles = {f"score {role}" for role in ("policy", "reference", "critic", "reward")}
    assert workload["phases"].keys() == roles | {"decode", "policy update", "critic update", "rest"}
    assert all(seconds > 0 for seconds in workload["phases"].values())
    assert sum(workload["phases"].values()) == pytest.approx(workload["seconds"])


def test_sampling_counts_the_tokens_it_wrote(tmp_path: Path) -> None:
    (workload,) = run("generation_gpu.py", tmp_path / "gen.json", "--workload", "4x8x6")["workloads"]
    assert workload["tokens_per_second"] * workload["seconds"] == pytest.approx(4 * 6)
