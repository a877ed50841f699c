"""The files of a run in other formats, its card and its page: read back by the readers that training uses."""

import json
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from finlm import instruction_files, streams, text_files
from finlm.records import Conversation, Document, Removal
from finlm.tokenizer import load_tokenizer

Turns = tuple[tuple[str, str], ...]


@pytest.fixture(scope="module")
def made(root: Path, generate: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two filings, English and Chinese, in every format."""
    corpus = tmp_path_factory.mktemp("corpus")
    for name in ("quillhaven-bancorp-10-k-2024.html", "澄谷山泉饮品-2024年年度报告.html"):
        (corpus / name).write_bytes((root / "examples" / "filings" / name).read_bytes())
    folder = tmp_path_factory.mktemp("made") / "out"
    flags = ("--corpus", str(corpus), "--output", str(folder), "--formats", "[alpaca, sharegpt, parquet, text]")
    done: subprocess.CompletedProcess[str] = generate(*flags)
    assert done.returncode == 0, done.stderr
    return folder


def conversations(path: Path) -> list[Conversation]:
    found = list(instruction_files.conversations(path, category="finance"))
    assert not [one for one in found if isinstance(one, Removal)]
    return [one.record for one in found if not isinstance(one, Removal)]


def turns(row: Conversation) -> Turns:
    return tuple((message.role, message.content) for message in row.messages)


def test_every_format_is_read_back_to_the_same_conversations(made: Path) -> None:
    own = conversations(made / "instructions.jsonl")
    assert {row.form for row in own} == {"closed-book", "open-book"}
    assert [turns(row) for row in conversations(made / "sharegpt.jsonl")] == [turns(row) for row in own]
    assert conversations(made / "instructions.parquet") == own
    for ours, theirs in zip(own, conversations(made / "alpaca.jsonl"), strict=True):
        assert theirs.messages[-1] == ours.messages[-1]
        # Alpaca puts the question first and its input, our passage, behind it
        passage, _, question = ours.messages[0].content.rpartition("\n\n")
        wanted = f"{question}\n\n{passage}" if ours.form == "open-book" else ours.messages[0].content
        assert theirs.messages[0].content == wanted


def test_other_formats_keep_where_an_answer_stands(made: Path) -> None:
    documents = {row["id"]: row for row in map(json.loads, (made / "documents.jsonl").read_text("utf-8").splitlines())}
    for name in ("alpaca", "sharegpt"):
        for row in map(json.loads, (made / f"{name}.jsonl").read_text("utf-8").splitlines()):
            assert documents[row["document_id"]]["text"][row["start"] : row["end"]].strip()
            assert row["maker"].startswith("rule:")


def test_running_text_has_each_question_behind_its_passage_once(made: Path) -> None:
    found = [one.record for one in text_files.documents(made / "text.jsonl") if not isinstance(one, Removal)]
    assert all(isinstance(row, Document) for row in found)
    assert {row.language for row in found} == {"en", "zh"}
    whole = "\n\n".join(row.text for row in found)
    closed = [row for row in conversations(made / "instructions.jsonl") if row.form == "closed-book"]
    asked = Counter(re.findall(r"^(?:Question: |问题：)(.+)$", whole, re.MULTILINE))
    assert set(asked.values()) == {1}
    assert len(asked) >= 0.9 * len(closed)  # the rest stands on boilerplate or on repeats, which are no text to learn
    for row in found[:5]:
        assert row.text.strip()


def test_fine_tuning_reads_every_format_into_its_streams(made: Path, tiny: Any, tmp_path: Path) -> None:
    """The four streams of mixed fine-tuning: the same samples from each format of records, text from text.jsonl."""
    tokenizer = load_tokenizer(tiny.base)
    counts = {}
    for name in ("instructions.jsonl", "sharegpt.jsonl", "instructions.parquet", "alpaca.jsonl"):
        files = {"instructions-finance": [str(made / name)], "text-finance": [str(made / "text.jsonl")]}
        loaded = streams.load(
            files,  # type: ignore[arg-type]
            tokenizer,
            max_length=4096,
            forms=["closed-book", "open-book", ""],
            test_share=0.0,
            test_samples=0,
            cache=tmp_path / "cache",
        )
        counts[name] = len(loaded.train["instructions-finance"])
        assert len(loaded.train["text-finance"]) >= 2
        assert not [removal for removal in loaded.removals if removal.rule not in {"duplicate", "too-long"}]
    assert len(set(counts.values())) == 1
    assert counts["instructions.jsonl"] == len(conversations(made / "instructions.jsonl"))


def test_the_card_adds_up_and_a_hub_can_read_its_head(made: Path) -> None:
    card = (made / "README.md").read_text(encoding="utf-8")
    head = yaml.safe_load(card.split("---")[1])
    assert head["language"] == ["en", "zh"]
    own = conversations(made / "instructions.jsonl")
    summary = json.loads((made / "summary.json").read_text(encoding="utf-8"))
    records = card.split("## Records")[1].split("## Yield")[0]
    totals = re.findall(r"\| ([\d,]+) \|$", records, re.MULTILINE)
    assert sum(int(total.replace(",", "")) for total in totals) == len(own)
    for rule, count in summary["rejected_by_rule"].items():
        assert f"| {rule} | {count:,} |" in card
    for name in re.findall(r"^\| `([^`]+)` \|", card, re.MULTILINE):
        assert (made / name).is_file(), name
    assert "templates 3" in card


def test_the_page_shows_the_funnel_and_both_languages(made: Path) -> None:
    page = (made / "report.html").read_text(encoding="utf-8")
    summary = json.loads((made / "summary.json").read_text(encoding="utf-8"))
    for said in ("kept by the plan", "Kept, en", "Kept, zh", "Left out, for example", f"{summary['kept']:,}"):
        assert said in page
    for rule in summary["rejected_by_rule"]:
        assert rule in page
    assert "<script" not in page
    assert not re.search(r"(?:src|href)=", page)  # self-contained


def test_text_of_a_filing_is_never_live_html(generate: Any, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    text = (
        "# Acme Rope, Inc.\n\n# Item 1A. Risk Factors\n\n"
        "If we fail to sell <script>alert(1)</script> rope, our sales could fall in fiscal 2024.\n"
    )
    (corpus / "acme-10-k-2024.md").write_text(text, encoding="utf-8")
    done = generate("--corpus", str(corpus), "--output", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert "alert(1)" in (tmp_path / "out" / "instructions.jsonl").read_text(encoding="utf-8")
    assert "<script" not in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_an_unknown_format_is_named(generate: Any, root: Path, tmp_path: Path) -> None:
    corpus = str(root / "examples" / "filings")
    done = generate("--corpus", corpus, "--output", str(tmp_path / "o"), "--formats", "[csv]")
    assert done.returncode == 2
    assert "formats" in done.stderr
    assert not (tmp_path / "o").exists()
