"""Preferences by rule: wrong copies are wrong, right answers are right, and every pair says who judged."""

import random
from pathlib import Path
from typing import Any

import pytest

from annotation import alter, by_figures
from annotation.by_figures import ByFiguresSettings, altered, pairs_of
from finlm import jsonl
from finlm.errors import UserError
from finlm.figures import judge
from finlm.records import Candidates, Conversation, Message, PreferencePair, Prompt, Provenance, Removal, Response

PASSAGE = "Acme Inc. Revenue was $412.6 million in fiscal 2024 and $384.2 million in fiscal 2023. Margins were 12.1%."
QUESTION = "What was Acme Inc.'s revenue in fiscal 2024?"
REFERENCE = "Acme Inc. had revenue of $412.6 million in fiscal 2024."
ENTITIES = ["Acme Inc.", "Birch Co.", "Cedar Ltd."]


def prompt(question: str = QUESTION, reference: str = REFERENCE) -> Prompt:
    asked = Message(role="user", content=f"{PASSAGE}\n\n{question}")
    return Prompt(messages=(asked,), reference=reference, group="Acme Inc.", language="en")


def candidates(*texts: tuple[str, bool], of: Prompt | None = None) -> Candidates:
    return Candidates(
        prompt=of or prompt(), responses=tuple(Response(text=text, model="m", ended=ended) for text, ended in texts)
    )


SAMPLED = candidates(
    ("Revenue was $412.6 million in fiscal 2024.", True),
    ("Revenue was $384.2 million in fiscal 2024.", True),
    ("Revenue was $412.6 million in fiscal 2023.", True),
    ("Revenue was $412.6 million", False),
    ("", True),
)


def judged(pair: PreferencePair) -> tuple[bool, bool]:
    """Whether chosen and rejected are right answers that ended."""
    one = judge(pair.chosen, pair.prompt.reference, pair.prompt.question).is_right and pair.chosen_ended
    other = judge(pair.rejected, pair.prompt.reference, pair.prompt.question).is_right and pair.rejected_ended
    return one, other


def test_every_pair_sets_a_right_answer_above_a_wrong_one_and_names_its_maker() -> None:
    faults = set()
    for seed in range(30):
        pairs = list(pairs_of(SAMPLED, ENTITIES, ByFiguresSettings(seed=seed, sampled_pairs=4, altered_pairs=6)))
        assert len(pairs) == 4 + 6
        for pair in pairs:
            assert judged(pair) == (True, False)
            assert (pair.source, pair.provenance.maker, pair.votes) == ("rule:figures", "rule:figures", ())
            assert pair.provenance.parents == (pair.prompt.id, SAMPLED.id)
            assert pair.rejected_fault
            faults.add(pair.rejected_fault)
    assert faults >= {"figure", "period", "entity", "run-on", "missing", "cut-off", "empty"}


def test_sampled_answers_get_the_fault_that_a_reader_sees() -> None:
    pairs = pairs_of(SAMPLED, ENTITIES, ByFiguresSettings(sampled_pairs=9, altered_pairs=0))
    seen = {pair.rejected: (pair.rejected_fault, pair.strength, pair.rejected_ended) for pair in pairs}
    assert seen == {
        "Revenue was $384.2 million in fiscal 2024.": ("figure", 3, True),
        "Revenue was $412.6 million in fiscal 2023.": ("period", 3, True),
        "Revenue was $412.6 million": ("cut-off", 2, False),
        "": ("empty", 3, True),
    }


def test_limits_are_kept_and_the_seed_decides() -> None:
    def made(seed: int, sampled: int = 2, copies: int = 3) -> list[PreferencePair]:
        settings = ByFiguresSettings(seed=seed, sampled_pairs=sampled, altered_pairs=copies)
        return list(pairs_of(SAMPLED, ENTITIES, settings))

    assert len(made(0)) == 5
    assert len(made(0, sampled=1, copies=0)) == 1
    assert made(0) == made(0)
    assert any(made(0) != made(seed) for seed in range(1, 5))


@pytest.mark.parametrize(
    ("question", "reference"),
    [
        (QUESTION, REFERENCE),
        ("What was the margin?", "Margins were 12.1%."),
        ("Acme公司2024年的收入是多少？", "Acme公司2024年的收入为4.126亿美元。"),
        ("Who audits Acme Inc.?", "Acme Inc. is audited by a firm in London with two partners."),
    ],
)
def test_altered_copies_are_never_right(question: str, reference: str) -> None:
    asked = prompt(question, reference)
    assert judge(reference, reference, question).is_right
    found = 0
    for seed in range(40):
        for wrong in altered(asked, ENTITIES, random.Random(seed)):
            found += 1
            assert wrong.text != reference
            if wrong.ended:
                assert not judge(wrong.text, reference, question).is_right
            else:
                assert reference.startswith(wrong.text)
    assert found


def test_alterations_by_hand() -> None:
    rng = random.Random(0)
    assert alter.other_figure("no amount here", PASSAGE, rng) is None
    assert alter.other_period("no year here", PASSAGE, rng) is None
    assert alter.other_period("in 2024", "2023 and 2024", rng) == "in 2023"
    assert alter.other_period("in 2024", "", rng) in {"in 2023", "in 2025"}
    assert alter.other_entity("Acme Inc. grew.", "Acme Inc.", ["Acme Inc.", "Birch Co."], rng) == "Birch Co. grew."
    assert alter.other_entity("It grew.", "Acme Inc.", ENTITIES, rng) is None
    assert alter.other_entity("Acme Inc. grew.", "Acme Inc.", ["Acme Inc."], rng) is None
    assert alter.cut_off("too short to cut", rng) is None
    assert alter.stub("too short", rng) is None
    for _ in range(20):
        cut = alter.cut_off("one two three four five six seven eight", rng)
        assert cut in {"one two three four", "one two three four five", "one two three four five six"}


TABLE = "Item | 2024 | 2023\nAssets | $1,953 thousand | $1,841 thousand\nDebt | $104 thousand | $98 thousand"
PROSE = "Debt was $5 million in 2024 and $6 million in 2023. Equity was $8 million in 2024 and $9 million in 2023."


@pytest.mark.parametrize(
    ("answer", "passage", "wrong"),
    [
        ("Debt was $98 thousand in 2023.", TABLE, "Debt was $104 thousand in 2023."),
        ("Assets were $1,953 thousand.", TABLE, "Assets were $1,841 thousand."),
        ("Equity was $8 million in 2024.", PROSE, "Equity was $9 million in 2024."),
        ("Debt was $6 million in 2023.", PROSE, "Debt was $5 million in 2023."),
        ("2024年营业收入为4.12亿元。", "2024年营业收入为4.12亿元，2023年为3.98亿元。", "2024年营业收入为3.98亿元。"),
        ("Margins were 12.1%.", PASSAGE, None),  # nothing of its unit stands beside it
        ("Debt was $7 million.", PROSE, None),  # not a figure of the passage
    ],
)
def test_the_neighbour_is_the_other_column(answer: str, passage: str, wrong: str | None) -> None:
    assert {alter.neighbour(answer, passage, random.Random(seed)) for seed in range(10)} == {wrong}


def test_the_neighbour_is_always_among_the_pairs() -> None:
    for seed in range(20):
        (pair,) = pairs_of(SAMPLED, ENTITIES, ByFiguresSettings(seed=seed, sampled_pairs=0, altered_pairs=1))
        assert pair.rejected == "Acme Inc. had revenue of $384.2 million in fiscal 2024."
        assert (pair.rejected_fault, pair.strength) == ("neighbour", 3)


def test_of_sampled_answers_those_of_the_passages_words_come_first() -> None:
    nonsense = candidates(
        ("Acme tankers crystalballs were 36.0 right.", True), ("Revenue was $384.2 million in fiscal 2024.", True)
    )
    for seed in range(20):
        (pair,) = pairs_of(nonsense, ENTITIES, ByFiguresSettings(seed=seed, sampled_pairs=1, altered_pairs=0))
        assert pair.rejected == "Revenue was $384.2 million in fiscal 2024."


@pytest.mark.parametrize("number", ["412.6", "7", "1,204", "$3.07"])
def test_another_figure_differs_in_its_value(number: str) -> None:
    for seed in range(50):
        changed = alter.other_figure(f"It was {number} million.", "", random.Random(seed))
        assert changed is not None
        assert changed != f"It was {number} million."
        assert changed.endswith(" million.")


def test_the_whole_stage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unknown = candidates(("Anything.", True), of=Prompt(messages=(Message(role="user", content="Hello?"),)))
    jsonl.write(tmp_path / "candidates.jsonl", [SAMPLED, unknown])

    def made(name: str) -> list[PreferencePair]:
        out = tmp_path / f"{name}.jsonl"
        by_figures.main(ByFiguresSettings(candidates=str(tmp_path / "candidates.jsonl"), output=str(out)))
        return list(jsonl.read(out, PreferencePair))

    first = made("one")
    assert first == made("two")
    assert len(first) == 5
    assert all(judged(pair) == (True, False) and pair.provenance.maker == "rule:figures" for pair in first)
    removals = list(jsonl.read(tmp_path / "one" / "rejected.jsonl", Removal))
    assert [(removal.record_id, removal.rule) for removal in removals] == [(unknown.id, "no-reference")]
    assert "5 pairs by rule" in capsys.readouterr().out


def test_answers_of_self_qa_are_set_above_altered_copies_without_a_model(tmp_path: Path) -> None:
    asked = [Message(role="user", content=f"{PASSAGE}\n\n{QUESTION}"), Message(role="assistant", content=REFERENCE)]
    closed = [Message(role="user", content=QUESTION), Message(role="assistant", content=REFERENCE)]
    jsonl.write(
        tmp_path / "instructions.jsonl",
        [
            Conversation(
                messages=tuple(messages), form=form, language="en", kind="figure", group="Acme Inc.",
                provenance=Provenance(maker="rule:table-row"),
            )
            for messages, form in ((asked, "open-book"), (closed, "closed-book"))
        ],
    )  # fmt: skip
    out = tmp_path / "preferences.jsonl"
    given = [str(tmp_path / "instructions.jsonl")]
    by_figures.main(ByFiguresSettings(candidates="", instructions=given, output=str(out), altered_pairs=9))
    found = list(jsonl.read(out, PreferencePair))
    assert {pair.chosen for pair in found} == {REFERENCE}
    assert {pair.rejected_fault for pair in found} >= {"neighbour", "period", "run-on", "cut-off"}
    assert all(judged(pair) == (True, False) and pair.prompt.passage == PASSAGE for pair in found)
    with pytest.raises(ValueError, match="one of them must say what is judged"):
        ByFiguresSettings(candidates="")


def test_questions_of_self_qa_are_taken_by_language_and_kind_and_spread_over_companies(tmp_path: Path) -> None:
    def asked(number: int, company: str, **its: str) -> Conversation:
        passage = PASSAGE.replace("Acme Inc.", company)
        question = f"What was {company}'s revenue in fiscal 2024, asked for the {number}. time?"
        turns = (Message(role="user", content=f"{passage}\n\n{question}"), Message(role="assistant", content=REFERENCE))
        told = {"language": "en", "kind": "figure"} | its
        maker = Provenance(maker="rule:table-row")
        return Conversation(messages=turns, form="open-book", group=company, provenance=maker, **told)

    file = tmp_path / "instructions.jsonl"
    many = [asked(number, "Acme Inc.") for number in range(9)] + [asked(0, "Birch Co.")]
    jsonl.write(file, [*many, asked(20, "Cedar Ltd.", language="zh"), asked(21, "Cedar Ltd.", kind="list")])

    def companies(**changes: Any) -> list[str]:
        out = tmp_path / f"{len(list(tmp_path.iterdir()))}.jsonl"
        by_figures.main(ByFiguresSettings(candidates="", instructions=[str(file)], output=str(out), **changes))
        prompts = {pair.prompt.id: pair.prompt.group for pair in jsonl.read(out, PreferencePair)}
        return sorted(prompts.values())

    assert companies() == 9 * ["Acme Inc."] + ["Birch Co."] + 2 * ["Cedar Ltd."]
    assert companies(instruction_languages=["en"], instruction_kinds=["figure"]) == 9 * ["Acme Inc."] + ["Birch Co."]
    assert companies(instruction_limit=3) == ["Acme Inc.", "Birch Co.", "Cedar Ltd."]
    with pytest.raises(ValueError, match="instruction_limit is -1"):
        ByFiguresSettings(instruction_limit=-1)


def test_candidates_without_any_reference_are_an_error(tmp_path: Path) -> None:
    unknown = candidates(("Anything.", True), of=Prompt(messages=(Message(role="user", content="Hello?"),)))
    jsonl.write(tmp_path / "candidates.jsonl", [unknown])
    settings = ByFiguresSettings(candidates=str(tmp_path / "candidates.jsonl"), output=str(tmp_path / "p.jsonl"))
    with pytest.raises(UserError, match="none of its 1 prompts has a reference"):
        by_figures.main(settings)
    assert not (tmp_path / "p.jsonl").exists()
