"""Sets of four answers: which are chosen, where they stand, and what the ranks that people give become."""

from collections import Counter
from typing import Any

import pytest
from annotation_helpers import prompt, response

from annotation.answer_sets import AnswerSet, set_from_candidates, shown_order, unshuffled
from annotation.export_ranks import export_ranks
from annotation.logged import Annotation, ShownSet
from annotation.page import labelling_page, read_guidelines, shipped_guidelines
from annotation.vocabulary import guidelines_version, kind_of
from finlm.records import Candidates, Removal

TEXTS = ("first", "second", "third", "fourth")
SET = AnswerSet(prompt=prompt("Q"), answers=tuple(map(response, TEXTS)), parents=("c1",))
SHOWN = ShownSet(answers=SET, order=(2, 0, 3, 1))  # A third, B first, C fourth, D second


def ranked(*ranks: str, **more: list[str]) -> tuple[dict[str, Any], ...]:
    """A result as the page stores it; ranks of the places A to D."""
    given = {f"rank_{place}": [rank] for place, rank in zip("abcd", ranks, strict=False)} | more
    return tuple({"from_name": name, "value": {"choices": chosen}} for name, chosen in given.items())


def annotation(number: int, result: tuple[Any, ...], *, person: int | None = 1, **fields: Any) -> Annotation:
    known: dict[str, Any] = {
        "task_id": 7,
        "pair_id": SET.id,
        "kind": "annotation",
        "updated_at": f"2026-11-{number:02}",
    }
    return Annotation(id=number, result=result, annotator=person, **{**known, **fields})


def test_ranks_go_back_to_their_answers() -> None:
    # A (third) is best, B (first) and C (fourth) tie on 2, D (second) is last
    one = annotation(3, ranked("1", "2", "2", "4", faults_d=["factual", "unsafe"]), page="p1", guidelines="1.2")
    done = export_ranks({SET.id: SHOWN}, [SET.id, "other"], [one])
    assert done.removals == ()
    assert (done.annotations, done.waiting_sets) == (1, 1)
    found = done.rankings[0]
    assert dict(zip(found.responses, found.ranks, strict=True)) == {"third": 1, "first": 2, "fourth": 2, "second": 4}
    assert found.flags == ("factual_2", "unsafe_2")  # of the second response
    assert (found.annotator, found.annotation_id, found.page, found.guidelines) == ("person:1", "3", "p1", "1.2")
    assert found.provenance is not None
    assert found.provenance.parents == ("c1",)


@pytest.mark.parametrize(
    ("result", "told"),
    [
        ((), "answer A has 0 ranks"),
        (ranked("1", "2", "3"), "answer D has 0 ranks"),
        (ranked("1", "2", "3", "5"), "the rank of answer D is '5'"),
        (ranked("1", "2", "3", "4", rank_e=["1"]), "named 'rank_e'"),
        (ranked("1", "2", "3", "4", faults_a=["ugly"]), "flag 'ugly'"),
        ((*ranked("1", "2", "3", "4"), *ranked("2")), "answer A has 2 ranks"),
        (({"from_name": "rank_a"},), "has no value"),
        (({"from_name": {"a": 1}, "value": {}},), "not on the page"),
    ],
)
def test_malformed_results_are_listed(result: tuple[Any, ...], told: str) -> None:
    done = export_ranks({SET.id: SHOWN}, [SET.id], [annotation(1, result)])
    assert done.rankings == ()
    assert [(one.rule, told in one.reason) for one in done.removals] == [("malformed", True)]


def test_what_is_no_ranking_is_counted_with_its_rule() -> None:
    fine = ranked("1", "2", "3", "4")
    annotations = [
        annotation(1, fine),
        annotation(2, ranked("4", "3", "2", "1")),  # the same person again: this one counts
        annotation(3, (), person=2, kind="skip"),
        annotation(4, (), person=3, kind="deleted"),
        annotation(5, fine, person=4, pair_id="unknown"),
        annotation(6, ranked("1", "2", "2", "2", faults_a=["unsafe"]), person=5),
        annotation(7, ranked("1", "1", "2", "2", faults_c=["unsafe"], faults_d=["unsafe"]), person=6),
        annotation(8, fine, person=None),
    ]
    done = export_ranks({SET.id: SHOWN}, [SET.id], annotations)
    assert [(one.annotator, one.annotation_id) for one in done.rankings] == [("person:1", "2"), ("person:6", "7")]
    assert done.removed == {
        "deleted": 1, "judged-again": 1, "malformed": 1, "skipped": 1, "unknown-pair": 1, "unsafe-above-safe": 1,
    }  # fmt: skip
    assert done.annotations == len(done.rankings) + len(done.removals) == 8


def test_a_question_that_half_find_faulty_gives_no_ranking() -> None:
    fine = ranked("1", "2", "3", "4")
    faulty = ranked("1", "2", "3", "4", flags=["bad_prompt"])
    done = export_ranks({SET.id: SHOWN}, [SET.id], [annotation(1, fine), annotation(2, faulty, person=2)])
    assert done.removed == {"faulty-question": 2}
    done = export_ranks(
        {SET.id: SHOWN}, [SET.id], [annotation(number, fine, person=number) for number in (1, 2)]
        + [annotation(3, faulty, person=3)],
    )  # fmt: skip
    assert len(done.rankings) == 3
    assert done.rankings[2].flags == ("bad_prompt",)


def test_places_are_a_fair_shuffle_of_the_seed() -> None:
    orders = [shown_order("seed", f"{number:016x}") for number in range(2400)]
    assert orders == [shown_order("seed", f"{number:016x}") for number in range(2400)]
    assert all(sorted(order) == [0, 1, 2, 3] for order in orders)
    # each of the 24 orders 100 times, 5 standard deviations are 49
    counts = Counter(orders)
    assert len(counts) == 24
    assert all(51 <= count <= 149 for count in counts.values())
    assert sum(one == shown_order("other", f"{number:016x}") for number, one in enumerate(orders)) < 149


def test_unshuffled_by_hand() -> None:
    assert unshuffled((10, 20, 30, 40), (2, 0, 3, 1)) == (20, 40, 10, 30)
    assert SHOWN.placed == ("third", "first", "fourth", "second")


def test_sets_are_chosen_from_more_than_four() -> None:
    texts = ["Revenue was 412.6 million.", "Revenue was 412.7 million.", "毛利率下降。", "abc def", "一二三四五"]
    candidates = Candidates(prompt=prompt("Q"), responses=tuple(map(response, texts)))
    made = set_from_candidates(candidates, "different", 0)
    assert isinstance(made, AnswerSet)
    assert len({one.text for one in made.answers} & set(texts[:2])) == 1  # the two that are nearly the same
    drawn = [set_from_candidates(candidates, "random", seed) for seed in range(100)]
    assert len({one.id for one in drawn if isinstance(one, AnswerSet)}) == 5  # 5 choose 4
    few = set_from_candidates(Candidates(prompt=prompt("Q"), responses=candidates.responses[:3]), "different", 0)
    assert isinstance(few, Removal)
    assert few.rule == "fewer-than-four-answers"
    with pytest.raises(ValueError, match="has 4 answers, got 3"):
        AnswerSet(prompt=prompt("Q"), answers=tuple(map(response, "abc")))


def test_a_page_tells_its_kind_and_its_guidelines() -> None:
    for language in ("zh", "en"):
        for kind in ("pairs", "ranks"):
            page = labelling_page(kind, language, read_guidelines(shipped_guidelines(language, kind)))
            assert (kind_of(page), guidelines_version(page)) == (kind, "1.0")
    assert guidelines_version('<View><Panel value="Something else"/></View>') == ""
    assert guidelines_version("<View>") == ""
