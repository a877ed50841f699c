"""The choice among epochs: each step of the rule decides where it should, and says so."""

import random
from pathlib import Path

import pytest
from judging import judged

from finlm.errors import UserError
from reward.judged import Judged
from reward.selection import ChoiceRule, read_selection, select, write_selection


def epoch(right: int, *, lead: float = 0.5, size: float = 0.5, mean: float = 0.0, count: int = 400) -> list[Judged]:
    """An epoch that is right on the first `right` pairs, by `lead`, and wrong by a little on the others."""
    draw = random.Random(0)
    records = []
    for number in range(count):
        common = mean + draw.gauss(0, size)
        lead_now = lead if number < right else -0.1
        records.append(judged(f"p{number:03}", lead_now, worse=common - lead_now / 2))
    return records


def test_accuracy_comes_first() -> None:
    found = select({1: epoch(220, lead=1.5), 2: epoch(300)}, ChoiceRule(), seed=0)
    assert found.epoch == 2
    assert [one.is_accurate for one in found.epochs] == [False, True]
    assert found.reason.startswith("Epoch 2 is the most accurate (0.750), beyond what chance could do. It keeps to the")


def test_within_chance_of_the_best_scale_decides() -> None:
    found = select({1: epoch(299), 2: epoch(300, mean=3.0), 3: epoch(300, size=5)}, ChoiceRule(), seed=0)
    assert found.epoch == 1
    assert [one.is_accurate for one in found.epochs] == [True, True, True]
    assert [one.is_scaled for one in found.epochs] == [True, False, False]
    assert "cannot tell epochs 1 and 3 apart from it. Of these, only epoch 1 keeps" in found.reason


def test_within_the_scale_the_widest_margin_decides() -> None:
    found = select({1: epoch(300, lead=0.3), 2: epoch(300, lead=0.9), 3: epoch(300, lead=0.6)}, ChoiceRule(), seed=0)
    assert found.epoch == 2
    assert "Of epochs 1, 2 and 3, which keep to the bounds of the scale, epoch 2 has the widest margin" in found.reason


def test_a_margin_is_not_widened_by_scale() -> None:
    """All scores of the second epoch are 1.5 times the first one's: nothing is better, so the earlier one goes on."""
    first = epoch(300)
    second = [record.scored(1.5 * record.better, 1.5 * record.worse) for record in first]
    found = select({1: first, 2: second}, ChoiceRule(), seed=0)
    assert found.epochs[1].margin == pytest.approx(1.5 * found.epochs[0].margin)
    assert found.epochs[1].margin_in_std == pytest.approx(found.epochs[0].margin_in_std)
    assert found.epoch in (1, 2)
    assert select({1: first, 2: first}, ChoiceRule(), seed=0).epoch == 1


def test_outside_all_bounds_the_nearest_is_taken() -> None:
    found = select({1: epoch(300, mean=4.0), 2: epoch(300, mean=2.0)}, ChoiceRule(), seed=0)
    assert found.epoch == 2
    assert (
        "None of them keeps to the bounds of the scale; epoch 2 is nearest. Its scores have mean +1.99" in found.reason
    )
    alone = select({1: epoch(200), 2: epoch(300, mean=2.0)}, ChoiceRule(), seed=0)
    assert (alone.epoch, "It does not keep to the bounds" in alone.reason) == (2, True)


def test_few_prompts_and_one_epoch_are_told() -> None:
    few = select({1: epoch(1, count=3), 2: epoch(2, count=3)}, ChoiceRule(least_std=0), seed=0)
    assert "3 prompts are too few to tell epoch 1 apart from it" in few.reason
    only = select({4: epoch(30, mean=9.0, count=40)}, ChoiceRule(), seed=0)
    assert only.reason.startswith("Epoch 4 is the only one. Its scores have mean +8.9")
    assert "bounds ±1" in only.reason


def test_excess_by_hand() -> None:
    rule = ChoiceRule(mean_limit=1.0, least_std=0.1, most_std=2.0)
    assert rule.excess(-1.0, 2.0) == rule.excess(0.5, 0.1) == 0
    assert rule.excess(-1.5, 2.25) == pytest.approx(0.75)
    assert rule.excess(0.0, 0.0) == pytest.approx(0.1)


def test_epochs_must_be_comparable() -> None:
    with pytest.raises(ValueError, match="no epoch to choose from"):
        select({}, ChoiceRule(), seed=0)
    with pytest.raises(ValueError, match="epochs 1 and 2 were not asked about the same pairs"):
        select({1: epoch(3, count=5), 2: epoch(3, count=6)}, ChoiceRule(), seed=0)
    with pytest.raises(ValueError, match="no pair is decided"):
        select({1: [judged("a", 1.0, strength=0)]}, ChoiceRule(), seed=0)
    for bad in ({"mean_limit": 0.0}, {"least_std": 2.0}, {"least_std": -0.1}):
        with pytest.raises(ValueError, match="it must be"):
            ChoiceRule(**bad)


def test_the_order_of_epochs_and_pairs_changes_nothing() -> None:
    judged_by_epoch = {1: epoch(280), 2: epoch(300, lead=0.7), 3: epoch(290)}
    turned = {number: judged_by_epoch[number][::-1] for number in (3, 1, 2)}
    assert select(turned, ChoiceRule(), seed=0) == select(judged_by_epoch, ChoiceRule(), seed=0)


def test_the_file_holds_it_all(tmp_path: Path) -> None:
    assert read_selection(tmp_path) is None
    found = select({1: epoch(280), 2: epoch(300)}, ChoiceRule(mean_limit=0.7), seed=0)
    write_selection(tmp_path, found)
    assert read_selection(tmp_path) == found
    assert found.chosen.epoch == found.epoch
    path = tmp_path / "selection.json"
    path.write_text(path.read_text().replace(f'"epoch": {found.epoch},\n  "reason"', '"epoch": 9,\n  "reason"'))
    with pytest.raises(UserError, match="not a valid Selection: the chosen epoch 9 is not among the 2 epochs"):
        read_selection(tmp_path)
