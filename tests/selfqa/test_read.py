"""The benchmark of pairs read by a person: what is drawn, and how verdicts are counted."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from benchmarks.selfqa_read import Verdict, draw, figures_of
from finlm import jsonl
from finlm.records import Conversation


def test_draws_are_seeded_and_spread_over_types(examples: Any) -> None:
    rows = list(jsonl.read(examples.folder / "instructions.jsonl", Conversation))
    drawn = draw(rows, "en", 7, 60)
    assert drawn == draw(list(reversed(rows)), "en", 7, 60)
    assert drawn != draw(rows, "en", 8, 60)
    assert {row.language for row in drawn} == {"en"}
    counts = Counter(row.kind for row in drawn)
    assert max(counts.values()) - min(counts.values()) <= 1 or min(counts.values()) < 60 // len(counts)
    makers = {row.provenance.maker for row in draw(rows, "table", 7, 60) if row.provenance}
    assert "rule:table-row" in makers
    assert "rule:subsidiaries" not in makers


def test_shares_have_wilsons_interval() -> None:
    """By hand: 9 of 10 is 0.9, Wilson's 95 % interval 0.5958 to 0.9821."""
    read = [Verdict(str(n), "en", "figure", "rule:table-row", "right" if n == 0 else "") for n in range(10)]
    read += [Verdict("z", "zh", "figure", "rule:table-row", ""), Verdict("t", "table", "list", "rule:total-parts", "")]
    figures = figures_of(read)
    assert figures["en"]["share"] == 0.9
    assert figures["en"]["interval"] == pytest.approx((0.5958, 0.9821), abs=1e-4)
    assert figures["en"]["faults"] == {"right": 1}
    assert figures["en"]["types"] == {"figure": [9, 10]}


def test_a_sheet_is_read_and_counted(examples: Any, root: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(root / "benchmarks" / "selfqa_read.py"), str(examples.folder), "--seed", "3"]
    sheet = subprocess.run([*command, "--count", "5"], capture_output=True, text=True, check=True).stdout
    first = next(line.split()[1] for line in sheet.splitlines() if line.startswith("[1]"))
    faults = tmp_path / "faults.json"
    faults.write_text(json.dumps({first: "self-contained"}), encoding="utf-8")
    more = ("--count", "5", "--faults", str(faults), "--reader", "a test", "--out", str(tmp_path / "out.json"))
    subprocess.run([*command, *more], capture_output=True, text=True, check=True, cwd=root)
    made = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert made["figures"]["en"]["accepted"] == 4
    assert len(made["verdicts"]) == 15
    assert {"question", "answer", "text"}.isdisjoint(made["verdicts"][0])
    assert "4 | 80%" in (tmp_path / "out.md").read_text(encoding="utf-8")
