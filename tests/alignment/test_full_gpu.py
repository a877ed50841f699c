"""Whole models in shards on real GPUs: the benchmark's comparison and its run, as a test."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from two_processes import ROOT, search_path


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_take_the_step_of_one_and_begin_at_the_reference(tmp_path: Path) -> None:
    script = [str(ROOT / "benchmarks" / "full_gpus.py"), "--folder", str(tmp_path / "run"), "--updates", "2"]
    done = subprocess.run(
        [sys.executable, *script, "--out", str(tmp_path / "figures.json")],
        env=os.environ | {"PYTHONPATH": search_path()},
        text=True,
        capture_output=True,
        timeout=550,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    figures = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))["figures"]
    assert figures["compared"]["one"]["first_kl"] == figures["compared"]["several"]["first_kl"] == 0.0
    assert figures["compared"]["relative"] < 1e-2
    first = [updates[0] for updates in figures["trained"]]
    assert len(first) == 2
    # the policy computes in bfloat16 with the reference's own weights, in FSDP2's layers instead of plain ones
    assert all(abs(metrics["objective/kl"]) < 1e-2 for metrics in first)
    assert all(abs(metrics["val/ratio"] - 1) < 2e-2 for metrics in first)
