"""The benchmark of simulated annotators, small: its ground, its people, and that nothing of it favours anybody."""

import random
from pathlib import Path

import pytest

from annotation.logged import Pair
from annotation.ratings import by_annotator, by_pair
from benchmarks.annotators_drawn import RIGHT, Outcome, Person, accuracies, draw, judge, vote
from benchmarks.annotators_page import figures_of, power
from benchmarks.annotators_real import Pool, alphas, load, pool_of, spread
from finlm.records import Message, PreferencePair, Prompt, Provenance, Vote


@pytest.fixture(scope="module")
def translations(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Pool:
    """Pairs of professional raters."""
    return load(shared_data / "preferences", tmp_path_factory.mktemp("sets"), names=("wmt23_zhen",), limit=1200)[0]


def preference(number: int, *votes: tuple[str, int]) -> PreferencePair:
    return PreferencePair(
        prompt=Prompt(messages=(Message(role="user", content=f"Question {number}?"),)),
        chosen=f"Right {number}.", rejected=f"Wrong answer {number}.", strength=1, source="test",
        provenance=Provenance(maker="import:test"),
        votes=tuple(
            Vote(annotator=f"person:{who}", annotation_id=f"{number}-{who}", side=side, strength=strength)  # type: ignore[arg-type]
            for who, (side, strength) in enumerate(votes)
        ),
    )  # fmt: skip


def test_the_truth_is_what_most_votes_say() -> None:
    for_it, against, same = ("chosen", 1), ("rejected", 2), ("chosen", 0)
    rows = [
        preference(1, for_it, for_it, against),
        preference(2, against, against, against, for_it),  # the record's order does not decide
        preference(3, for_it, against, same),
        preference(4, for_it, same, same),
    ]
    pool = pool_of("test", rows)
    better = [one.comparison.shown[one.truth].text for one in pool.pairs]
    assert better == ["Right 1.", "Wrong answer 2."]
    assert [one.share for one in pool.pairs] == [pytest.approx(2 / 3), pytest.approx(3 / 4)]
    assert pool.left_out == {"as many votes for either answer": 1, "fewer than two votes for a side": 1}
    assert sorted(pool.strengths) == [1, 1, 1, 2, 2, 2, 2]
    assert pool.split == pytest.approx((2 / 9 + 3 / 16) / 2)


def test_people_of_one_mind_do_not_differ_and_others_do() -> None:
    rng = random.Random(3)

    def made(rates: list[float]) -> list[list[tuple[str, int]]]:
        return [[(f"p{who}", int(rng.random() < rate)) for who, rate in enumerate(rates)] for _ in range(2000)]

    assert spread(made([0.8] * 9)) < 0.01
    # half agree with the others in 0.9, half in 0.7: 0.1 about their mean
    assert spread(made([0.9, 0.7] * 5)) == pytest.approx(0.1, abs=0.02)


def test_everybody_votes_as_their_kind(translations: Pool) -> None:
    project = draw(translations, 120, list(RIGHT), has_gold=True, seed="x")
    people = by_annotator(project.work.ratings)
    assert {len(its) for its in people.values()} <= {119, 120, 121}
    assert {len(its) for its in by_pair(project.work.ratings).values()} == {3}
    kinds = {one.kind: people[one.name] for one in project.people if one.kind}
    assert sum(bool(one.is_left) for one in kinds["always left"]) >= 105
    assert sum(one.is_longer is not False for one in kinds["always longer"]) >= 105
    assert all(one.seconds is not None and one.seconds <= 4 for one in kinds["too fast and random"])
    right = [one.side == project.truth[one.pair_id] for one in kinds["noisy"]]
    assert 52 <= sum(right) <= 92  # 72 of 120, four standard deviations
    gold = {one.pair_id: one.gold for one in project.work.ratings if one.gold is not None}
    assert len(gold) == round(0.1 * len(project.truth))
    assert all(project.truth[name] == side for name, side in gold.items())


def test_ordinary_people_are_as_often_right_as_the_real_ones(translations: Pool) -> None:
    rng = random.Random(5)
    person = Person(id=1, kind="", better=0.0, speed=0.04)
    made = []
    for _ in range(5000):
        real = rng.choice(translations.pairs)
        side, strength = vote(person, Pair(comparison=real.comparison, swapped=False), real, translations, rng)
        made += [side == real.truth] if strength else []
    # pairs weigh by their votes for a side here, which shifts the mean a little
    assert sum(made) / len(made) == pytest.approx(translations.right, abs=0.03)


def test_the_product_names_bad_ones_and_finds_the_truth(translations: Pool) -> None:
    outcome = judge(draw(translations, 120, ["always left", "random"], has_gold=False, seed="y"), 120)
    named = dict(outcome.bad)
    assert "left" in named["always left"]
    assert "others" in named["random"]
    assert outcome.innocents == ()
    assert 0.8 < outcome.majority < outcome.consensus <= 1
    perfect = draw(translations, 30, [], has_gold=False, seed="z")
    assert accuracies(perfect)[0] == pytest.approx(
        sum(
            0.5 if 2 * sides.count(1) == len(sides) else float((2 * sides.count(1) > len(sides)) == perfect.truth[name])
            for name, its in by_pair(perfect.work.ratings).items()
            if (sides := [one.side for one in its if one.strength])
        )
        / sum(any(one.strength for one in its) for its in by_pair(perfect.work.ratings).values())
    )


def test_alpha_of_real_votes_is_that_of_another_package(translations: Pool) -> None:
    for found in alphas(translations).values():
        assert found["difference"] <= 1e-9
        assert found["low"] < found["krippendorff"] < found["high"]


def test_figures_count_people_and_projects() -> None:
    def outcome(bad: tuple[tuple[str, tuple[str, ...]], ...], innocents: tuple[str, ...], gain: float) -> Outcome:
        return Outcome(
            votes_each=30, has_gold=False, bad=bad, innocents=innocents, majority=0.8, consensus=0.8 + gain
        )  # fmt: skip

    bad = [
        outcome((("random", ("left",)), ("random", ("others", "left"))), ("fast",), 0.1),
        outcome((("noisy", ()),), (), 0),
    ]
    found = figures_of([*bad, outcome((), ("left", "left"), 0), outcome((), (), 0)])
    assert (found["alarms"]["all"]["hits"], found["alarms"]["all"]["of"]) == (1, 2)
    assert found["alarms"]["all"]["tests"] == {"left": 2}
    assert (found["alarms_beside_bad"]["30"]["hits"], found["alarms_beside_bad"]["30"]["of"]) == (1, 2)
    random_ones = power(bad, "random")
    assert (random_ones["hits"], random_ones["of"], random_ones["rightly"]) == (2, 2, 1)
    assert found["votes_some_bad"]["all"]["gain"] == pytest.approx(0.05)
