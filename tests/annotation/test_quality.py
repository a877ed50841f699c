"""How people agree and whose votes are not to be trusted: another implementation, by hand, simulated people."""

import math
import random
from collections import Counter, defaultdict
from collections.abc import Sequence

import krippendorff
import numpy as np
import pytest

from annotation import reliability
from annotation.conduct import at_least, at_most, at_most_by_people, findings, holm
from annotation.dawid_skene import PRIOR, consensus
from annotation.ratings import Rating, by_pair, levels_of, sides_of

LEVELS = 8


def drawn(seed: int, pairs: int, people: int, values: int = LEVELS) -> list[list[int | None]]:
    """Ratings by person and pair, some missing, that agree more than by chance."""
    rng = random.Random(seed)
    truth = [rng.randrange(values) for _ in range(pairs)]
    return [
        [
            None if rng.random() < 0.3 else min(values - 1, max(0, value + rng.choice([-2, -1, 0, 0, 0, 1, 2])))
            for value in truth
        ]
        for _ in range(people)
    ]


def of_pairs(table: Sequence[Sequence[int | None]]) -> list[list[int]]:
    return [[one for one in column if one is not None] for column in zip(*table, strict=True)]


# ------------------------------------------------------------------------------------------------------ agreement


@pytest.mark.parametrize("metric", ["nominal", "ordinal"])
@pytest.mark.parametrize("seed", range(6))
def test_alpha_is_that_of_another_implementation(seed: int, metric: reliability.Metric) -> None:
    table = drawn(seed, pairs=40, people=2 + seed)
    data = np.array([[np.nan if one is None else one for one in row] for row in table], dtype=float)
    expected = krippendorff.alpha(data, level_of_measurement=metric, value_domain=list(range(LEVELS)))
    found = reliability.alpha(of_pairs(table), LEVELS, metric, draws=20)
    assert found.value == pytest.approx(expected, abs=1e-9)
    assert found.low is not None
    assert found.high is not None
    assert found.low < expected < found.high


def test_alpha_with_missing_ratings_by_hand() -> None:
    # two pairs rated twice, one once: o(0,0) = 2, o(0,1) = o(1,0) = 1; n = 4, n_0 = 3, n_1 = 1
    # alpha = 1 - (n - 1) (o_01 + o_10) / (2 n_0 n_1) = 1 - 3 * 2 / 6 = 0
    found = reliability.alpha([[0, 0], [0, 1], [1]], 2, "nominal", draws=10)
    assert found.value == pytest.approx(0.0, abs=1e-12)
    assert (found.pairs, found.ratings) == (2, 4)


def test_alpha_where_nothing_can_be_said() -> None:
    assert reliability.alpha([], 2, "nominal").value is None
    assert reliability.alpha([[1], [0]], 2, "nominal").value is None
    assert reliability.alpha([[1, 1], [1, 1]], 2, "nominal").value is None
    assert reliability.alpha([[1, 1], [0, 0]], 2, "nominal").value == 1.0


def test_raw_agreement_by_hand() -> None:
    found = reliability.agreement([[0, 0], [0, 1], [1, 1, 0], [1]])
    assert found.value == pytest.approx((1 + 0 + 1 / 3) / 3)
    assert (found.pairs, found.ratings, found.low) == (3, 7, None)


def test_quadratic_kappa_by_hand() -> None:
    # two of three agree, one is a step apart: observed 1, expected sum over the margins of (i - j)^2
    first, second = [0, 1, 2], [0, 1, 1]
    expected = sum((i - j) ** 2 for i in first for j in second) / 3
    assert reliability.quadratic_kappa(first, second, 3) == pytest.approx(1 - 1 / expected)
    assert reliability.quadratic_kappa([0, 7], [0, 7], 8) == 1.0
    assert reliability.quadratic_kappa([0, 7], [7, 0], 8) == -1.0
    assert reliability.quadratic_kappa([], [], 8) is None
    assert reliability.quadratic_kappa([3, 3], [3, 3], 8) is None


# ------------------------------------------------------------------------------------------------------- consensus


def plain_consensus(votes: Sequence[Sequence[tuple[str, int]]], rounds: int) -> list[float]:
    """Dawid and Skene's two steps as loops over votes."""
    second = [(sum(side for _, side in its) + 0.5) / (len(its) + 1) for its in votes]
    for _ in range(rounds):
        right: dict[tuple[str, int], float] = defaultdict(lambda: PRIOR[0])
        every: dict[tuple[str, int], float] = defaultdict(lambda: sum(PRIOR))
        for chance, its in zip(second, votes, strict=True):
            for name, side in its:
                for true, weight in ((0, 1 - chance), (1, chance)):
                    every[name, true] += weight
                    right[name, true] += weight * (side == true)
        share = (sum(second) + 1) / (len(second) + 2)
        found = []
        for its in votes:
            likely = [1 - share, share]
            for name, side in its:
                for true in (0, 1):
                    rate = right[name, true] / every[name, true]
                    likely[true] *= rate if side == true else 1 - rate
            found.append(likely[1] / sum(likely))
        second = found
    return second


def simulated(
    seed: int, pairs: int, people: dict[str, float], each: int
) -> tuple[list[int], list[list[tuple[str, int]]]]:
    """Sides that are true, and votes of `each` people a pair who are right at their own rates."""
    rng = random.Random(seed)
    truth = [rng.randrange(2) for _ in range(pairs)]
    names = list(people)
    votes = [
        [(name, side if rng.random() < people[name] else 1 - side) for name in rng.sample(names, each)]
        for side in truth
    ]
    return truth, votes


def test_consensus_is_that_of_a_plain_loop() -> None:
    _, votes = simulated(1, 60, {"a": 0.9, "b": 0.6, "c": 0.8, "d": 0.5}, 3)
    found = consensus([*votes, []])
    assert list(found.second) == pytest.approx(plain_consensus([*votes, []], found.rounds), abs=1e-9)
    assert consensus([]).second == ()


def test_consensus_is_at_least_as_often_right_as_the_majority() -> None:
    people = {f"p{number}": rate for number, rate in enumerate([0.95, 0.9, 0.85, 0.8, 0.6, 0.55, 0.5, 0.5])}
    right: Counter[str] = Counter()
    for seed in range(8):
        truth, votes = simulated(seed, 300, people, 5)
        found = consensus(votes)
        for true, chance, its in zip(truth, found.second, votes, strict=True):
            right["consensus"] += (chance > 0.5) == bool(true)
            right["majority"] += (2 * sum(side for _, side in its) > len(its)) == bool(true)
        assert found.accuracy["p0"] == pytest.approx(0.95, abs=0.07)
        assert found.accuracy["p6"] < 0.65
    assert right["consensus"] > right["majority"]


def test_one_vote_is_not_certain() -> None:
    (chance,) = consensus([[("a", 1)]]).second
    assert 0.5 < chance < 0.95


# --------------------------------------------------------------------------------------------------------- conduct


def project(seed: int, bad: dict[str, str], people: int = 12, pairs: int = 400, each: int = 3) -> list[Rating]:
    """Ratings of a project; who is not in `bad` is right in 80 to 92 of 100 pairs and reads at a speed of their own."""
    rng = random.Random(seed)
    names = [f"person:{number}" for number in range(people)]
    skill = {name: rng.uniform(0.8, 0.92) for name in names}
    speed = {name: rng.uniform(0.03, 0.05) for name in names}
    made = []
    for number in range(pairs):
        truth, longer, characters = rng.randrange(2), rng.randrange(2), rng.randrange(400, 3000)
        for name in rng.sample(names, each):
            left = rng.randrange(2)  # the answer that stands on the left
            side = truth if rng.random() < skill[name] else 1 - truth
            seconds = characters * speed[name] * rng.lognormvariate(0, 0.4)
            kind = bad.get(name)
            if kind == "left":
                side = left
            elif kind == "longer":
                side = longer
            elif kind == "random":
                side = rng.randrange(2)
            elif kind == "fast":
                seconds = rng.uniform(1, 3)
            strength = rng.choice([1, 2, 3])
            level = 3 - strength if side == 0 else 4 + strength
            made.append(
                Rating(
                    pair_id=f"pair-{number:04}", annotator=name, level=level, is_left=side == left,
                    is_longer=side == longer, seconds=seconds, characters=characters,
                    gold=truth if number % 10 == 0 else None,
                )
            )  # fmt: skip
    return made


def test_bad_annotators_are_named_with_their_fault() -> None:
    bad = {"person:1": "left", "person:4": "longer", "person:7": "random", "person:9": "fast"}
    named = defaultdict(set)
    for finding in findings(project(3, bad, pairs=1000)):
        if finding.is_named:
            named[finding.annotator].add(finding.test)
    assert set(named) == set(bad)
    assert "left" in named["person:1"]
    assert "longer" in named["person:4"]
    assert "others" in named["person:7"]
    assert named["person:9"] == {"fast"}


def test_the_best_are_not_named_for_the_longer_answers_that_the_others_miss() -> None:
    """Where the best are alone, others are wrong, and the better answer is the longer one in 73 of 100, as in ukp."""
    count = of = 0
    for seed in range(6):
        rng = random.Random(seed)
        made = []
        for number in range(1000):
            truth, is_longer = rng.randrange(2), rng.random() < 0.73  # the better answer
            for name in rng.sample(range(10), 3):
                right = rng.random() < (0.93 if name == 0 else 0.84)
                side = truth if right else 1 - truth
                made.append(
                    Rating(
                        pair_id=f"pair-{number:04}", annotator=f"person:{name}", level=6 if side else 1, is_left=None,
                        is_longer=is_longer == right, seconds=None,
                    )
                )  # fmt: skip
        tests = {(one.annotator, one.test): one for one in findings(made)}
        assert not any(one.is_named for one in tests.values())
        count, of = count + tests["person:0", "longer"].count, of + tests["person:0", "longer"].of
    assert at_least(count, of, 0.5) < 1e-6  # half is not what the best have


def test_people_who_hurry_do_not_hide_each_other() -> None:
    """Three of twelve give a quarter of the votes: the fastest twentieth of all votes is theirs."""
    hurried = {"person:1", "person:4", "person:9"}
    found = findings(project(5, dict.fromkeys(hurried, "fast")))
    assert {one.annotator for one in found if one.is_named and one.test == "fast"} == hurried


def test_nobody_is_named_where_nobody_is_to_blame_in_nineteen_of_twenty_projects() -> None:
    alarms = sum(any(finding.is_named for finding in findings(project(seed, {}, pairs=200))) for seed in range(40))
    assert at_least(alarms, 40, 0.05) > 0.01  # not more than chance explains


@pytest.mark.parametrize(("count", "of", "share"), [(17, 25, 0.8), (180, 250, 0.775), (0, 12, 0.6), (12, 12, 0.9)])
def test_tails_over_people_are_the_binomial_ones_on_average(count: int, of: int, share: float) -> None:
    """Averaged over people by a fine sum: rates of mean `share` and deviation 0.05, as a beta distribution has them."""
    weight = share * (1 - share) / 0.0025 - 1
    rates = (np.arange(20_000) + 0.5) / 20_000
    density = np.exp((share * weight - 1) * np.log(rates) + ((1 - share) * weight - 1) * np.log1p(-rates))
    density /= density.sum()
    assert (density @ rates, density @ rates**2 - share**2) == (pytest.approx(share), pytest.approx(0.0025, rel=1e-3))
    tails = np.zeros_like(rates)
    for k in range(count + 1):
        tails += math.comb(of, k) * rates**k * (1 - rates) ** (of - k)
    assert at_most_by_people(count, of, share) == pytest.approx(density @ tails, rel=1e-5)


def test_where_all_agree_a_careful_person_may_still_differ_once() -> None:
    assert at_most_by_people(19, 20, 1.0) > 0.2
    assert at_most_by_people(20, 20, 1.0) == pytest.approx(1.0)


def test_binomial_tails_by_hand() -> None:
    assert at_least(2, 3, 0.5) == pytest.approx(0.5)
    assert at_most(0, 4, 0.5) == pytest.approx(1 / 16)
    assert at_least(0, 5, 0.3) == pytest.approx(1.0)
    assert at_least(10, 10, 0.8) == pytest.approx(0.8**10)
    assert at_most(5000, 10_000, 0.5) == pytest.approx(0.504, abs=1e-3)
    assert (at_least(1, 3, 0.0), at_least(0, 3, 0.0), at_least(3, 3, 1.0)) == (0.0, 1.0, 1.0)


def test_holms_steps_by_hand() -> None:
    assert holm([0.001, 0.02, 0.03, 0.04], 0.05) == [True, False, False, False]
    assert holm([0.01, 0.016, 0.02, 0.05], 0.05) == [True, True, True, True]


def test_ratings_are_sides_and_strengths() -> None:
    ratings = [
        Rating(pair_id="a", annotator=f"person:{level}", level=level, is_left=True, is_longer=None, seconds=None)
        for level in range(LEVELS)
    ]
    assert [(one.side, one.strength) for one in ratings] == [
        (0, 3), (0, 2), (0, 1), (0, 0), (1, 0), (1, 1), (1, 2), (1, 3)
    ]  # fmt: skip
    assert levels_of(by_pair(ratings)) == [list(range(LEVELS))]
    assert sides_of(by_pair(ratings)) == [[0, 0, 0, 1, 1, 1]]
    with pytest.raises(ValueError, match="must be 0 to 7"):
        Rating(pair_id="a", annotator="person:1", level=8, is_left=True, is_longer=None, seconds=None)
    assert math.isclose(sum(one.strength for one in ratings), 12)
