"""`finlm trace`: from an answer back to the line of a filing and to the person who preferred it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from finlm import jsonl, trace
from finlm.errors import UserError
from finlm.evaluation import AnswerRecord
from finlm.lineage import Library
from finlm.records import (
    Candidates,
    Conversation,
    Document,
    Message,
    PreferencePair,
    Prompt,
    Provenance,
    Response,
    RolloutRecord,
    Vote,
)

TEXT = "Acme annual report\nRevenue was $412.6 million in 2024.\nIt rose by 7.4%."
ASKED = "What was Acme's revenue in 2024?"


def rounds(folder: Path) -> dict[str, Any]:
    """Write two run roots: a filing, instruction and candidates in the first, a person's preference in the second."""
    document = Document(text=TEXT, source="acme.html", sha256="ab", language="en", entity="Acme")
    start = TEXT.index("Revenue")
    span = Provenance(
        maker="rule:table-row", document_id=document.id, start=start, end=start + 35, page=7, section="Item 7"
    )
    asked, said = Message(role="user", content=ASKED), Message(role="assistant", content="Revenue was $412.6 million.")
    conversation = Conversation(messages=(asked, said), provenance=span)
    prompt = Prompt(messages=(asked,), reference=said.content, provenance=span)
    answers = tuple(Response(text=f"It was ${n} million.", model="runs/sft", seed=5) for n in (412.6, 99))
    candidates = Candidates(prompt=prompt, responses=answers)
    vote = Vote(
        annotator="person:7",
        annotation_id="1532",
        side="chosen",
        strength=2,
        guidelines="3",
        reason="99 [sic] is wrong",
    )
    preference = PreferencePair(
        prompt=prompt, chosen=answers[0].text, rejected=answers[1].text, strength=2, source="label-studio",
        votes=(vote,), provenance=Provenance(maker="person:7", parents=(candidates.id,)),
    )  # fmt: skip
    rollout = RolloutRecord(
        update=4,
        prompt_id=prompt.id,
        prompt=ASKED,
        response="About $412.6 million.",
        score=0.7,
        kl_nats=0.1,
        tokens=6,
        ended=True,
    )
    for path, record in {
        "one/selfqa/documents.jsonl": document, "one/selfqa/instructions.jsonl": conversation,
        "one/candidates.jsonl": candidates, "two/preferences.jsonl": preference,
        "two/ppo/rollouts/update-00004.jsonl": rollout,
    }.items():  # fmt: skip
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        jsonl.write(folder / path, [record])
    return {"preference": preference, "candidates": candidates, "prompt": prompt, "document": document}


def traced(folder: Path, *flags: str) -> str:
    command = [sys.executable, "-m", "finlm", "trace", *flags]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return " ".join(done.stdout.replace("│", " ").split())


def test_a_preference_leads_to_its_person_and_over_rounds_to_the_line(tmp_path: Path) -> None:
    made = rounds(tmp_path)
    said = traced(tmp_path, made["preference"].id[:8], "--runs", "two", "--more", '["one"]')
    assert "person:7 preferred the chosen answer, strength 2 of 3; annotation 1532; guidelines 3" in said
    assert "99 [sic] is wrong" in said  # a person's words are no markup
    assert f"made from candidates {made['candidates'].id} one/candidates.jsonl:1" in said
    assert "runs/sft (temperature 0, top-p 1, seed 5): It was $99 million." in said
    assert "acme.html, line 2, page 7, Item 7, characters 19 to 54, found by rule:table-row" in said
    assert said.endswith("Revenue was $412.6 million in 2024.")
    assert said.count("acme.html") == 1


def test_a_held_out_answer_leads_to_the_instruction_whose_question_it_answers(tmp_path: Path) -> None:
    made = rounds(tmp_path)
    answer = AnswerRecord(
        model="ppo", prompt_id=made["prompt"].id, prompt=ASKED, reference="", text="I see $99 million.", ended=True,
        tokens=5, score=-0.2, is_right=False, fault="figure", kl_nats=0.1,
    )  # fmt: skip
    (tmp_path / "one" / "evaluation").mkdir()
    jsonl.write(tmp_path / "one" / "evaluation" / "ppo.jsonl", [answer])
    said = traced(tmp_path, "I see $99", "--runs", "one")
    assert "answer of ppo: I see $99 million." in said
    assert "not right: figure" in said
    assert "made from instruction" in said
    assert "acme.html, line 2" in said


def test_an_answer_is_found_by_its_words(tmp_path: Path) -> None:
    made = rounds(tmp_path)
    said = traced(tmp_path, "About $412.6", "--runs", "two", "--more", '["one"]')
    assert said.startswith(f"PPO answer {made['prompt'].id} two/ppo/rollouts/update-00004.jsonl:1")
    assert "sampled by PPO's policy at update 4" in said
    assert "acme.html, line 2" in said
    said = traced(tmp_path, "412.6 million", "--runs", "one", "--limit", "1")
    assert "1 more match (candidates); --limit 2 tells them all." in said


def test_a_parent_that_is_not_here_is_named(tmp_path: Path) -> None:
    made = rounds(tmp_path)
    said = traced(tmp_path, made["preference"].id, "--runs", "two")
    assert f"rests on document {made['document'].id}, characters 19 to 54 (not here)" in said


def test_what_cannot_be_found_is_told(tmp_path: Path) -> None:
    rounds(tmp_path)
    for what, runs, said in (
        ("", "two", "Name a record"),
        ("nothing of it", "two", "None of the 2 records"),
        ("x", "no", "is no folder"),
    ):
        with pytest.raises(UserError, match=said):
            trace.main(trace.TraceSettings(what=what, runs=str(tmp_path / runs)))
    with pytest.raises(ValueError, match="limit is 0"):
        trace.TraceSettings(what="x", limit=0)


def test_every_answer_of_a_whole_loop_leads_to_its_prompt(chain: Any) -> None:
    library = Library.read(chain.runs)
    assert "held-out answer" in {one.kind for one in library.found}  # their prompts are made of a file elsewhere
    answers = [one for one in library.found if one.kind not in {"prompt", "held-out answer"}]
    assert {one.kind for one in answers} == {"preference", "candidates", "PPO answer"}
    for one in answers:
        waiting, prompts = [one], set()
        while waiting:
            parent = waiting.pop()
            prompts |= {parent.id} if isinstance(parent.record, Prompt) else set()
            waiting += library.parents(parent)
        assert len(prompts) == 1, one
