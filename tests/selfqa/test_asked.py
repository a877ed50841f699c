"""Questions that wait on disk: what comes back, which of them are one, whose they are, and what memory they take."""

import tracemalloc
from pathlib import Path

import pytest

from finlm.records import Derivation, Operation, Provenance
from selfqa.asked import Asked
from selfqa.documents import Read
from selfqa.entities import Filing
from selfqa.keeping import Keeping, keep
from selfqa.library import Place, Shelf, read_all
from selfqa.output import Made
from selfqa.pairs import Pair
from selfqa.plan import TYPES, make_plan

ACME = Filing("Acme Rope", "Acme Rope", "en", 2024, 12)


def reads(folder: Path, *texts: str) -> list[Read]:
    """Documents of these texts, in a cache of their own."""
    corpus = folder / "corpus"
    corpus.mkdir()
    files = []
    for number, text in enumerate(texts):
        files.append(corpus / f"{number}.txt")
        files[-1].write_text(text + " Acme Rope makes ropes of hemp and steel." * 9)
    shelf = Shelf(corpus, folder / "parsed")
    found: list[Read] = []
    for path, (place,) in zip(files, read_all(files, shelf, 1), strict=True):
        assert isinstance(place, Place)
        found.append(Read(shelf, place, ACME, f"document-{len(found)}", path.name))
    return found


def pair(question: str, answer: str, start: int = 0, **more: object) -> Pair:
    said = {"kind": "figure", "end": start + 4, "rule": "table-row", "topic": question, "place": "table 1", **more}
    return Pair(question=question, answer=answer, start=start, **said)  # type: ignore[arg-type]


def test_what_comes_back_is_what_went_in(tmp_path: Path) -> None:
    one, two = reads(tmp_path, "Revenue was 5.", "Revenue was 6.")
    derived = Derivation(operation="growth", operands=("$5", "$6"), result="20.0%")
    beside = (Provenance(maker="rule:across-filings", document_id=one.id, start=3, end=9),)
    whole = pair(
        "Why?", "So.", 7, derivation=derived, beside=beside, is_open_only=True, rank=2, passage=lambda: "净利润"
    )
    for with_passages, passage in ((True, "净利润"), (False, "")):
        asked = Asked([one, two], with_passages=with_passages)
        asked.add(two, whole)
        asked.add(one, pair("Which?", "That."))
        read, back = asked[0]
        assert read is two
        assert back.passage() == passage
        for name in ("question", "answer", "kind", "start", "end", "rule", "topic", "place", "derivation", "beside"):
            assert getattr(back, name) == getattr(whole, name)
        assert (back.is_open_only, back.rank, back.difficulty) == (True, 2, "hard")
        assert asked[1][0] is one
        assert len(asked) == 2


def test_equal_questions_are_found_whatever_their_marks(tmp_path: Path) -> None:
    one, two = reads(tmp_path, "a 1", "b 2")
    asked = Asked([one, two])
    for read, question in (
        (two, "What was X?"),
        (one, "Why?"),
        (two, "what was x"),
        (one, "WHY ?"),
        (one, "What was Y?"),
    ):
        asked.add(read, pair(question, "5"))
    assert asked.repeated() == [[0, 2], [1, 3]]
    assert list(asked.by_document(without=[])) == [(two, [0, 2]), (one, [1, 3, 4])]
    assert list(asked.by_document(without=[0, 1, 2])) == [(one, [3, 4])]
    assert list(asked.by_document(without=range(5))) == []


def test_one_absent_question_beside_two_passages_is_two_questions(tmp_path: Path) -> None:
    (one,) = reads(tmp_path, "a 1")
    asked = Asked([one])
    for start, place in ((5, "table 1"), (5, "table 1"), (9, "table 1"), (5, "table 2")):
        asked.add(one, pair("What was X?", "Not said.", start, is_open_only=True, place=place))
    assert asked.repeated() == [[0, 1]]


def keeping(*computations: Operation) -> Keeping:
    """As the settings have it by default, but for the computations."""
    return Keeping(400, make_plan(TYPES, {}, {}, 1.0), computations, ("closed-book",), lambda one: f"rule:{one.rule}")


def test_a_question_whose_answer_needs_another_computation_is_left_out(tmp_path: Path) -> None:
    (one,) = reads(tmp_path, "Acme Rope 3 4")
    asked, made = Asked([one]), Made()
    share = Derivation(operation="ratio", operands=("3", "4"), result="75.0%")
    rise = Derivation(operation="difference", operands=("3", "4"), result="1")
    asked.add(one, pair("What share of sales did ropes make up in 2024?", "75.0%", derivation=share))
    asked.add(one, pair("By how much did sales rise in 2024?", "By 1.", derivation=rise))
    asked.add(one, pair("What were sales in 2024?", "4."))
    keep(asked, keeping("difference", "sum"), made)
    assert [row.messages[1].content for row in made.conversations] == ["By 1.", "4."]
    assert [(row.rule, row.reason) for row in made.removals] == [("not-planned", "computations names no ratio")]


@pytest.mark.parametrize(
    ("answers", "kept", "rules"),
    [
        (
            ("Revenue was $183,824 thousand.", "Revenue was $183.8 million."),
            1,
            ["duplicate-question"],
        ),  # one is rounded
        (("Revenue was $183,824 thousand.", "Revenue was $183.9 million."), 0, ["contradiction", "contradiction"]),
        (("5 ropes", "6 ropes", "5 ropes"), 0, ["contradiction"] * 3),
    ],
)
def test_two_documents_answers_agree_or_neither_stays(
    answers: tuple[str, ...], kept: int, rules: list[str], tmp_path: Path
) -> None:
    documents = reads(tmp_path, *(f"{number} Acme Rope {answer}" for number, answer in enumerate(answers)))
    asked, made = Asked(documents), Made()
    for read, answer in zip(documents, answers, strict=True):
        asked.add(read, pair("What was Acme Rope's revenue in 2024?", answer))
    keep(asked, keeping(), made)
    assert [one.rule for one in made.removals] == rules
    assert made.counts["kept"] == kept
    for row in made.conversations:
        assert row.provenance is not None
        assert [one.document_id for one in (row.provenance, *row.also_from)] == [read.id for read in documents]


def test_questions_that_wait_take_no_memory(tmp_path: Path) -> None:
    (one,) = reads(tmp_path, "a 1")
    asked = Asked([one])

    def add(numbers: range) -> int:
        for number in numbers:
            asked.add(
                one,
                pair(
                    f"What was Acme Rope's revenue of rope {number} in 2024?", "It was $5.", passage=lambda: "x" * 900
                ),
            )
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = add(range(9_000))  # by now the first megabytes are full and lie on disk
        after = add(range(9_000, 29_000))
    finally:
        tracemalloc.stop()
    assert (after - before) / 20_000 < 40  # bytes a question, of more than a thousand
    assert asked.repeated() == []
