"""Two filings of one company: what only both together can answer."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from finlm import jsonl
from finlm.records import Conversation, Document

OLDER = """# Acme Rope, Inc.

Annual report for the fiscal year ended December 31, 2022

Consolidated Statements of Income (in millions)

| | 2022 | 2021 |
|---|---|---|
| Revenue | $ 400 | $ 380 |
| Cost of revenue | 250 | 240 |
| Operating income | 60 | 55 |
"""
NEWER = """# Acme Rope, Inc.

Annual report for the fiscal year ended December 31, 2024

Consolidated Statements of Income (in millions)

| | 2024 | 2023 |
|---|---|---|
| Revenue | $ 500 | $ 450 |
| Cost of revenue | 240 | 260 |
| Operating income | 60 | 70 |
"""
CHINESE = """# 山岳重工股份有限公司{year}年年度报告

## 合并利润表

单位：元

| 项目 | {year}年度 | {before}年度 |
|---|---|---|
| 营业收入 | {a} | {b} |
| 营业成本 | {c} | {d} |
"""


@pytest.fixture(scope="module")
def made(generate: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    corpus = tmp_path_factory.mktemp("two")
    (corpus / "acme-10-k-2022.md").write_text(OLDER, encoding="utf-8")
    (corpus / "acme-10-k-2024.md").write_text(NEWER, encoding="utf-8")
    for year, numbers in (
        (2022, ("800.00", "700.00", "500.00", "450.00")),
        (2024, ("1,000.00", "900.00", "610.00", "580.00")),
    ):
        text = CHINESE.format(year=year, before=year - 1, **dict(zip("abcd", numbers, strict=True)))
        (corpus / f"山岳重工-{year}.md").write_text(text, encoding="utf-8")
    folder = tmp_path_factory.mktemp("made") / "out"
    done = generate("--corpus", str(corpus), "--output", str(folder), "--template_share", "1")
    assert done.returncode == 0, done.stderr
    return folder


def across(folder: Path) -> list[Conversation]:
    rows = jsonl.read(folder / "instructions.jsonl", Conversation)
    return [row for row in rows if row.provenance and row.provenance.maker.startswith("rule:across-")]


def test_periods_of_two_filings_are_compared(made: Path) -> None:
    """By hand: 500 over 400 is 25 % more, 240 is 10 below 250; 1,000 over 800 is 25 % more, 610 is 110 above 500."""
    answers = {row.messages[-1].content for row in across(made) if row.form == "closed-book"}
    revenue = {
        "Acme Rope, Inc.'s revenue rose by 25.0% from fiscal 2022 to fiscal 2024.",
        "Acme Rope, Inc.'s revenue rose by $100 million from fiscal 2022 to fiscal 2024.",
    }
    cost = {
        "Acme Rope, Inc.'s cost of revenue fell by 4.0% from fiscal 2022 to fiscal 2024.",
        "Acme Rope, Inc.'s cost of revenue fell by $10 million from fiscal 2022 to fiscal 2024.",
    }
    chinese = {
        "山岳重工股份有限公司2024年营业收入比2022年增长25.0%。",
        "山岳重工股份有限公司2024年营业收入比2022年增加200.00元。",
    }
    for wanted in (revenue, cost, chinese):
        assert len(answers & wanted) == 1, sorted(answers)
    level = [answer for answer in answers if "operating income" in answer and "2024" in answer and "2022" in answer]
    assert not level  # 60 and 60: nothing to compare


def test_only_what_no_filing_holds_together_is_asked_here(made: Path) -> None:
    for row in across(made):
        years = set(re.findall(r"20\d\d", row.messages[-1].content + row.messages[0].content.rsplit("\n\n", 1)[-1]))
        assert not years <= {"2024", "2023"}
        assert not years <= {"2022", "2021"}


def test_the_evidence_stands_in_both_filings(made: Path) -> None:
    documents = {one.id: one for one in jsonl.read(made / "documents.jsonl", Document)}
    rows = across(made)
    assert {row.language for row in rows} == {"en", "zh"}
    assert {row.kind for row in rows} == {"change", "comparison", "yes-no"}
    for row in rows:
        assert row.provenance is not None
        spans = [row.provenance, row.also_from[0]]
        assert len({span.document_id for span in spans}) == 2
        shown = [documents[span.document_id].text[span.start : span.end] for span in spans]
        if row.derivation is not None:
            old, new = (re.sub(r"[^\d.,]", "", operand) for operand in row.derivation.operands)
            assert new in shown[0]
            assert old in shown[1]
        if row.form == "open-book":
            passage = row.messages[0].content.rsplit("\n\n", 1)[0]
            assert len(passage.split("\n")) == 2
            assert "2022" in passage.split("\n")[0]
            assert "2024" in passage.split("\n")[1]


def test_it_can_be_switched_off(generate: Any, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "acme-10-k-2022.md").write_text(OLDER, encoding="utf-8")
    (corpus / "acme-10-k-2024.md").write_text(NEWER, encoding="utf-8")
    done = generate("--corpus", str(corpus), "--output", str(tmp_path / "out"), "--across_filings", "false")
    assert done.returncode == 0, done.stderr
    assert not across(tmp_path / "out")
    assert json.loads((tmp_path / "out" / "summary.json").read_text("utf-8"))["kept"] > 0
