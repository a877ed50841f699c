"""Which pairs are made, and which side each answer takes."""

import pytest
from annotation_helpers import prompt, response

from annotation.choosing import similarity
from annotation.pairing import Comparison, from_candidates, from_preference, is_swapped
from finlm.records import Candidates, PreferencePair, Provenance, Removal


def test_similarity_by_hand() -> None:
    # night: ni ig gh ht; nacht: na ac ch ht. One of four is shared: 2 * 1 / (4 + 4)
    assert similarity("night", "nacht") == 0.25
    assert similarity("增长7%", "增长7%") == 1.0
    assert similarity("ab", "cd") == 0.0
    assert similarity("aaaa", "aa") == 2 * 1 / (3 + 1)


def test_the_most_different_answers_are_paired() -> None:
    texts = ["Revenue was 412.6 million.", "Revenue was 412.7 million.", "毛利率下降了两个百分点。"]
    made = from_candidates(Candidates(prompt=prompt("Q"), responses=tuple(map(response, texts))), "different", 0)
    assert isinstance(made, Comparison)
    assert texts[2] in {made.first.text, made.second.text}


def test_random_pairs_repeat_by_seed_and_reach_all() -> None:
    candidates = Candidates(prompt=prompt("Q"), responses=tuple(response(text) for text in "abcd"))
    assert from_candidates(candidates, "random", 3) == from_candidates(candidates, "random", 3)
    made = [from_candidates(candidates, "random", seed) for seed in range(200)]
    assert len({one.id for one in made if isinstance(one, Comparison)}) == 6  # 4 choose 2


@pytest.mark.parametrize("texts", [("same  text", "same text", ""), ("only",), ("", " ")])
def test_too_few_answers_are_a_removal(texts: tuple[str, ...]) -> None:
    candidates = Candidates(prompt=prompt("Q"), responses=tuple(map(response, texts)))
    made = from_candidates(candidates, "different", 0)
    assert isinstance(made, Removal)
    assert (made.record_id, made.rule) == (candidates.id, "fewer-than-two-answers")


def test_the_id_ignores_order_but_nothing_else() -> None:
    a, b = response("a"), response("b")
    one = Comparison(prompt=prompt("Q"), first=a, second=b)
    assert Comparison(prompt=prompt("Q"), first=b, second=a).id == one.id
    assert Comparison(prompt=prompt("R"), first=a, second=b).id != one.id
    assert Comparison(prompt=prompt("Q"), first=response("a", ended=False), second=b).id != one.id
    assert "sft" not in one.id


def test_judged_pairs_can_be_put_before_people() -> None:
    fields = {"prompt": prompt("Q"), "strength": 3, "source": "rule:figures", "provenance": Provenance(maker="rule:x")}
    pair = PreferencePair(chosen="right", rejected="wrong", rejected_ended=False, **fields)
    made = from_preference(pair)
    assert isinstance(made, Comparison)
    assert {(made.first.text, made.first.ended), (made.second.text, made.second.ended)} == {
        ("right", True),
        ("wrong", False),
    }
    assert made.parents == (pair.id,)
    empty = from_preference(PreferencePair(chosen="right", rejected=" ", **fields))
    assert isinstance(empty, Removal)
    assert empty.rule == "empty-answer"
    same = from_preference(PreferencePair(chosen="x y", rejected="x  y", **fields))
    assert isinstance(same, Removal)
    assert same.rule == "answers-look-the-same"


def test_sides_are_a_fair_coin_of_the_seed() -> None:
    ids = [f"{number:016x}" for number in range(2000)]
    swapped = [is_swapped("seed", pair_id) for pair_id in ids]
    assert swapped == [is_swapped("seed", pair_id) for pair_id in ids]
    # 2000 fair tosses lie within 1000 +- 112 but for five standard deviations
    assert 888 < sum(swapped) < 1112
    agree = sum(one == is_swapped("other", pair_id) for one, pair_id in zip(swapped, ids, strict=True))
    assert 888 < agree < 1112
