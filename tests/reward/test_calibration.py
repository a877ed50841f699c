"""Calibration against its definition on turned pairs, hand arithmetic, and models whose calibration is known."""

import math
import random
from itertools import pairwise

import pytest
from judging import judged

from reward.calibration import calibration, confidence
from reward.judged import Judged


def drawn(count: int, *, sharpness: float, seed: int = 0) -> list[Judged]:
    """Leads of which each is right with the probability sigmoid(sharpness |d|): sharpness 1 is calibrated."""
    draw = random.Random(seed)
    records = []
    for number in range(count):
        size = abs(draw.gauss(0, 1.5))
        is_right = draw.random() < confidence(size, sharpness)
        records.append(judged(f"p{number}", size if is_right else -size))
    return records


def on_turned_pairs(records: list[Judged], edges: list[float]) -> float:
    """The error from its definition: every pair both ways, (p, right) and (1 - p, wrong), bins of given edges."""
    points = []
    for record in records:
        p = 1 / (1 + math.exp(-record.lead))
        points += [(p, 1.0), (1 - p, 0.0)]
    total = 0.0
    for low, high in pairwise(edges):
        inside = [point for point in points if low <= point[0] < high]
        if inside:
            total += abs(sum(label for _, label in inside) - sum(p for p, _ in inside))
    return total / len(points)


def test_it_is_the_usual_error_of_pairs_turned_both_ways() -> None:
    records = drawn(500, sharpness=0.4)
    found = calibration(records, seed=0, bins=8)
    upper = [one.lowest - 1e-12 for one in found.bins] + [1.0]
    upper[0] = 0.5
    mirrored = [0.0, *(1 - edge for edge in reversed(upper[1:-1])), *upper]
    assert found.error == pytest.approx(on_turned_pairs(records, mirrored))
    assert len(found.bins) == 8
    assert {one.right.pairs for one in found.bins} <= {62, 63}


def test_by_hand() -> None:
    """Leads ln 3 (sure by 3/4), right twice and wrong twice, and 0 (a tie): |2 - 3| of five pairs."""
    records = [judged(name, sign * math.log(3)) for name, sign in (("a", 1), ("b", 1), ("c", -1), ("d", -1))]
    found = calibration([*records, judged("e", 0.0)], seed=0, bins=2)
    assert [one.confidence for one in found.bins] == pytest.approx([0.5, 0.75])
    assert [one.right.mean for one in found.bins] == [0.5, 0.5]
    assert found.error == pytest.approx(1 / 5)


def test_a_calibrated_model_has_the_error_of_chance_and_others_more() -> None:
    calibrated = calibration(drawn(4000, sharpness=1.0), seed=0)
    assert calibrated.error < 1.6 * calibrated.error_if_calibrated
    overconfident = calibration(drawn(4000, sharpness=0.3), seed=0)
    assert overconfident.error > 5 * overconfident.error_if_calibrated
    assert all(one.right.mean < one.confidence for one in overconfident.bins[2:])


def test_the_scale_brings_scores_back_to_the_units_of_the_loss() -> None:
    records = drawn(300, sharpness=1.0)
    divided = [record.scored(record.better / 2.5, record.worse / 2.5) for record in records]
    assert calibration(divided, seed=0, scale=2.5).error == pytest.approx(calibration(records, seed=0).error)
    assert calibration(divided, seed=0).error > calibration(records, seed=0).error


def test_order_and_ties_change_nothing() -> None:
    records = drawn(200, sharpness=0.5) + [judged(f"t{number}", (-1) ** number * 0.7) for number in range(100)]
    found = calibration(records, seed=0)
    again = calibration(random.Random(1).sample(records, 300), seed=0)
    assert again.error == pytest.approx(found.error)
    assert [one.right.pairs for one in again.bins] == [one.right.pairs for one in found.bins]
    assert again.error_if_calibrated == pytest.approx(found.error_if_calibrated)
    shared = [one for one in found.bins if one.lowest <= confidence(0.7) <= one.highest]
    assert len(shared) == 1  # a hundred equal confidences lie in one bin


def test_huge_leads_and_no_pairs() -> None:
    assert confidence(-1e9) == 1.0
    assert calibration([judged("p", 1e9)], seed=0).error == 0.0
    with pytest.raises(ValueError, match="no pairs to calibrate on"):
        calibration([], seed=0)
