"""Agreement with annotators by hand, and against a simulation in which the truth is known."""

import random

import pytest
from judging import judged

from reward.agreement import agreement


def test_one_pair_of_three_votes_by_hand() -> None:
    """Two for the better answer, one for the other; the model is with the two.

    Of three pairs of annotators one agrees. The two have others who are split (one half each), the third has others
    who are against him (0); the model gets one half, one half and 1.
    """
    found = agreement([judged("p", 0.4, sides="++-")], seed=0, fewest_votes_listed=1)
    assert found is not None
    assert found.model_and_annotator.mean == pytest.approx(2 / 3)
    assert found.annotator_and_annotator.mean == pytest.approx(1 / 3)
    assert found.model_and_others.mean == pytest.approx((0.5 + 0.5 + 1) / 3)
    assert found.annotator_and_others.mean == pytest.approx((0.5 + 0.5 + 0) / 3)
    assert found.beside_ceiling.mean == pytest.approx(1 / 3)
    assert found.model_and_majority is not None
    assert found.model_and_majority.mean == 1
    assert [(one.annotator, one.model.mean, one.others.mean) for one in found.annotators] == [
        ("person:a", 1, 0.5),
        ("person:b", 1, 0.5),
        ("person:c", 0, 0),
    ]
    assert (found.pairs, found.votes, found.undecided_votes) == (1, 3, 0)


def test_undecided_votes_and_single_ones_are_left_out() -> None:
    records = [
        judged("single", 1.0, sides="+"),
        judged("one is undecided", 1.0, sides="+0"),
        judged("two", -1.0, sides="0+0+"),
        judged("split", 1.0, sides="+-", strength=0),
    ]
    found = agreement(records, seed=0)
    assert found is not None
    assert (found.pairs, found.votes, found.undecided_votes) == (2, 4, 3)
    assert found.model_and_annotator.mean == pytest.approx((0 + 0.5) / 2)
    assert found.annotator_and_annotator.mean == pytest.approx((1 + 0) / 2)
    assert found.model_and_majority is not None
    assert (found.model_and_majority.mean, found.model_and_majority.pairs) == (0, 1)
    assert found.annotators == ()
    assert agreement(records[:2], seed=0) is None
    always_split = agreement([records[3]], seed=0)
    assert always_split is not None
    assert always_split.model_and_majority is None


def test_a_model_that_is_one_more_annotator_reaches_the_ceiling() -> None:
    """Annotators and the model vote by the same chance, pair by pair: what they agree on is p² + (1 - p)²."""
    draw = random.Random(0)
    records, expected = [], []
    for number in range(3000):
        p = draw.choice((0.55, 0.7, 0.9))
        sides = "".join("+" if draw.random() < p else "-" for _ in range(draw.choice((2, 3, 4, 5))))
        records.append(judged(f"p{number}", 1.0 if draw.random() < p else -1.0, sides=sides))
        expected.append(p**2 + (1 - p) ** 2)
    found = agreement(records, seed=0)
    assert found is not None
    wanted = sum(expected) / len(expected)
    for one in (found.model_and_annotator, found.annotator_and_annotator):
        assert one.mean == pytest.approx(wanted, abs=0.02)
    assert found.beside_ceiling.mean == pytest.approx(0, abs=0.02)
    assert found.annotator_and_others.mean > found.annotator_and_annotator.mean  # a majority is surer than one
    assert not found.beside_ceiling.is_above(0)
    assert not found.beside_ceiling.is_below(0)


def test_turning_all_votes_turns_the_model_and_not_the_ceiling() -> None:
    draw = random.Random(1)
    sides = ["".join(draw.choice("++-") for _ in range(3)) for _ in range(60)]
    turned = [side.translate(str.maketrans("+-", "-+")) for side in sides]
    leads = [draw.gauss(0, 1) for _ in sides]
    one, other = (
        agreement([judged(f"p{k}", leads[k], sides=side) for k, side in enumerate(given)], seed=0)
        for given in (sides, turned)
    )
    assert one is not None
    assert other is not None
    assert other.annotator_and_annotator == one.annotator_and_annotator
    assert other.annotator_and_others == one.annotator_and_others
    assert other.model_and_annotator.mean == pytest.approx(1 - one.model_and_annotator.mean)
    assert other.model_and_others.mean == pytest.approx(1 - one.model_and_others.mean)
