"""What a run writes, on real and on fictional filings: promises that hold for every record."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from finlm import jsonl
from finlm.figures import judge
from finlm.records import Conversation, Document, Removal
from selfqa.blocks import Source
from selfqa.entities import read_filing
from selfqa.extractive import extract
from selfqa.reading import read_file


@pytest.fixture(params=["real", "examples"])
def made(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def digits(text: str) -> set[str]:
    return set(re.findall(r"[0-9]+", text))


def test_files_are_valid_records(made: Any) -> None:
    for name, record in (("instructions", Conversation), ("documents", Document), ("rejected", Removal)):
        assert len(list(jsonl.read(made.folder / f"{name}.jsonl", record))) == len(made.rows(name))


def test_every_run_of_digits_stands_in_evidence_or_question_or_was_computed(made: Any) -> None:
    texts = {row["id"]: row["text"] for row in made.rows("documents")}
    for row in made.rows("instructions"):
        span = row["provenance"]
        evidence = texts[span["document_id"]][span["start"] : span["end"]]
        for other in row["also_from"]:  # the other filing of a comparison across filings, or an equal record's place
            evidence += " " + texts[other["document_id"]][other["start"] : other["end"]]
        question = row["messages"][0]["content"].rsplit("\n\n", 1)[-1]
        foreign = digits(row["messages"][-1]["content"]) - digits(evidence) - digits(question)
        if foreign:
            derivation = row["derivation"]
            assert derivation is not None, row
            assert foreign <= digits(derivation["result"])
            for operand in derivation["operands"]:
                assert digits(operand) <= digits(evidence)


def test_derivations_are_right(made: Any) -> None:
    """Recomputed with binary floats from the operands as text: another arithmetic than the code's."""

    def number(text: str) -> float:
        found = re.search(r"[\d,]*\.?\d+", text)
        assert found
        return float(found[0].replace(",", ""))

    derived = [row["derivation"] for row in made.rows("instructions") if row["derivation"]]
    assert len(derived) > 50
    for row in derived:
        old, new = (number(operand) for operand in row["operands"])
        expected = {"growth": abs(new - old) / old * 100, "ratio": old / new * 100, "difference": abs(new - old)}
        exact = 1e-6 if row["operation"] == "difference" else 0.0501
        assert number(row["result"]) == pytest.approx(expected[row["operation"]], abs=exact)


def test_open_book_passages_hold_the_answer_among_others_and_are_short(made: Any) -> None:
    rows = [row for row in made.rows("instructions") if row["form"] == "open-book"]
    assert rows
    for row in rows:
        passage, question = row["messages"][0]["content"].rsplit("\n\n", 1)
        assert "\n" not in question
        answer_digits = re.findall(r"\d[\d,]*\.\d+|\d{3,}[\d,]*", row["messages"][-1]["content"])
        if row["derivation"] is None and row["kind"] == "figure":
            assert all(found in passage or found in question for found in answer_digits), row
    long = [row for row in rows if len(row["messages"][0]["content"].rsplit("\n\n", 1)[0]) > 450]
    assert len(long) <= 0.02 * len(rows)  # evidence that is itself longer is not cut


def test_questions_are_unique_and_name_company_and_period(made: Any) -> None:
    documents = {row["id"]: row for row in made.rows("documents")}
    seen: Counter[str] = Counter()
    for row in made.rows("instructions"):
        question = row["messages"][0]["content"].rsplit("\n\n", 1)[-1]
        if row["kind"] != "unanswerable":
            seen[row["form"] + question] += 1
        company = documents[row["provenance"]["document_id"]]["entity"]
        assert row["group"] == company
        is_absent = row["kind"] == "unanswerable"
        assert company in question or row["language"] == "zh" or is_absent
        if row["kind"] in {"figure", "change", "comparison"}:
            assert re.search(r"(?:19|20)\d\d", question)
        assert not re.search(
            r"\b(?:this|these|those|the company|the article|the passage)\b|本文|上述|该公司|本公司", question
        )
    assert max(seen.values()) == 1


def test_language_is_the_documents(made: Any) -> None:
    for row in made.rows("instructions"):
        has_han = bool(re.search(r"[一-鿿]", row["messages"][-1]["content"]))
        assert has_han == (row["language"] == "zh")


def test_answers_are_short_and_in_one_line(made: Any) -> None:
    for row in made.rows("instructions"):
        answer = row["messages"][-1]["content"]
        assert answer[-1] in ".。"
        quotes = row["kind"] in {"cause", "risk", "summary", "list", "definition"}
        assert len(answer.split()) <= (96 if quotes else 32)
        assert "\n" not in answer


def test_every_answer_is_right_by_the_figure_checker(made: Any) -> None:
    for row in made.rows("instructions"):
        question, answer = (message["content"] for message in row["messages"])
        assert judge(answer, answer, question).is_right, row


def test_counts_add_up(made: Any) -> None:
    summary = made.summary
    rejected = Counter(row["rule"] for row in made.rows("rejected"))
    assert summary["rejected_by_rule"] == dict(rejected)
    assert summary["rejected"] == sum(rejected.values())
    assert summary["records"] == len(made.rows("instructions")) == sum(summary["records_by_kind"].values())
    assert summary["documents"] == len(made.rows("documents"))
    assert summary["questions"] == summary["kept"] + summary["questions_rejected"]
    absent = summary["records_by_kind"].get("unanswerable", 0)  # only beside their passages
    assert summary["kept"] == summary["records_by_form"]["closed-book"] + absent
    assert summary["kept"] == sum(document["kept"] for document in summary["coverage"].values())
    state = json.loads((made.folder / "run.json").read_text(encoding="utf-8"))
    assert state["status"] == "finished"


def test_the_demo_asks_for_no_shares(examples: Any) -> None:
    """A model of 135 million parameters cannot divide."""
    asked = [row["messages"][0]["content"].rsplit("\n\n", 1)[-1] for row in examples.rows("instructions")]
    assert not [question for question in asked if re.search(r"What share of|占.+的比例", question)]
    left = [row["text"] for row in examples.rows("rejected") if row["reason"] == "computations names no ratio"]
    assert any(text.startswith("What share of") for text in left)
    assert any(re.search("占.+的比例是多少", text) for text in left)


def test_no_document_floods_the_set(made: Any) -> None:
    per_document = Counter(row["provenance"]["document_id"] for row in made.rows("instructions"))
    assert max(per_document.values()) <= 2 * 400


def test_every_real_file_is_read_and_asked_about(real: Any, shared_data: Path) -> None:
    files = [path for path in (shared_data / "filings").rglob("*") if path.is_file()]
    assert len(files) == 7
    documents = {row["id"]: row for row in real.rows("documents")}
    assert len(documents) == 7
    per_document = Counter(row["provenance"]["document_id"] for row in real.rows("instructions"))
    assert all(per_document[identity] >= 40 for identity in documents)
    companies = {Path(row["source"]).name[:6]: row["entity"] for row in documents.values()}
    assert companies["Nvidia"] == "NVIDIA Corporation"
    assert companies["aapl-1"] == "Apple Inc."
    assert companies["ibm-10"] == "International Business Machines Corporation"
    assert companies["xom-10"] == "Exxon Mobil Corporation"
    assert companies["ex21_x"] == "Exxon Mobil Corporation"  # an exhibit that says "the Registrant"
    assert companies["2020-0"] == "江苏安靠智能输电工程科技股份有限公司"


def test_each_annual_report_gives_300_questions_of_six_types_from_no_one_template(real: Any) -> None:
    full = [name for name in real.summary["coverage"] if re.search(r"10-K|10-k|年度报告", name)]
    assert len(full) == 3
    for name in full:
        document = real.summary["coverage"][name]
        assert document["kept"] >= 300
        assert len(document["types"]) >= 6
        assert document["largest_template_share"] <= 0.3


KNOWN = {
    # read in the filings by a person
    "en/aapl-10-k-2024-11-01.txt": {
        "Apple Inc.'s total net sales were $391,035 million in fiscal 2024.",
        "Apple Inc.'s net income was $93,736 million in fiscal 2024.",
        "Apple Inc.'s diluted earnings per share were $6.08 in fiscal 2024.",
        "Apple Inc.'s iPhone net sales were $201,183 million in fiscal 2024.",
        "Apple Inc.'s total assets were $364,980 million as of September 28, 2024.",
    },
    "en/Nvidia.10-K.txt": {
        "NVIDIA Corporation's revenue was $26,974 million in the fiscal year ended January 29, 2023.",
        "NVIDIA Corporation's diluted net income per share was $1.74 in the fiscal year ended January 29, 2023.",
    },
    "en/aapl-10-q-2025-08-01.html": {
        "Apple Inc.'s net income was $23,434 million in the three months ended June 28, 2025.",
        "Apple Inc.'s Services net sales were $80,408 million in the nine months ended June 28, 2025.",
    },
    "zh": {
        "安靠智电2019年营业收入为318,024,319.30元。",
        "安靠智电2019年基本每股收益为0.65元/股。",
        "安靠智电2019年末货币资金为73,992,141.96元。",
    },
}


@pytest.mark.parametrize("place", KNOWN)
def test_figures_read_by_a_person_are_found(place: str, shared_data: Path) -> None:
    folder = shared_data / "filings"
    path = folder / place if "." in place else next((folder / place).iterdir())
    (source,) = read_file(path, folder)
    assert isinstance(source, Source)
    pairs = extract(source, read_filing(source), [], 450).pairs
    assert {pair.answer for pair in pairs} >= KNOWN[place]
    per_share = [pair.answer for pair in pairs if re.search(r"per share (?:was|were) ", pair.answer)]
    per_share = [answer for answer in per_share if "shares used" not in answer]
    assert not [answer for answer in per_share if "million" in answer or "thousand" in answer]


def test_examples_give_each_company_enough_to_train_on(examples: Any) -> None:
    rows = [row for row in examples.rows("instructions") if row["form"] == "open-book"]
    english = Counter(row["group"] for row in rows if row["language"] == "en")
    assert len(english) >= 18
    assert min(english.values()) >= 20
    assert sum(row["language"] == "zh" for row in rows) >= 40


def test_two_runs_are_byte_equal(root: Path, generate: Any, tmp_path: Path) -> None:
    corpus = tmp_path / "filings"
    corpus.mkdir()
    for path in sorted((root / "examples" / "filings").iterdir())[::9]:
        (corpus / path.name).write_bytes(path.read_bytes())
    for name, seed in (("one", "1"), ("two", "7")):
        done = generate("--corpus", str(corpus), "--output", str(tmp_path / name), PYTHONHASHSEED=seed)
        assert done.returncode == 0, done.stderr
    for name in (
        "instructions.jsonl",
        "documents.jsonl",
        "rejected.jsonl",
        "summary.json",
        "samples.md",
        "README.md",
        "report.html",
    ):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_finished_run_says_so_and_names_the_flag(examples: Any, root: Path, generate: Any) -> None:
    flags = ("--config", "selfqa_demo", "--corpus", str(root / "examples" / "filings"))
    before = (examples.folder / "instructions.jsonl").stat().st_mtime_ns
    done = generate(*flags, "--output", str(examples.folder))
    assert done.returncode == 0
    assert "--overwrite true" in done.stderr
    assert (examples.folder / "instructions.jsonl").stat().st_mtime_ns == before
