"""Report and check of rankings: comparisons by hand, agreement by another implementation, the page from a log."""

import json
import random
from pathlib import Path
from typing import Any

import krippendorff
import numpy as np
import pytest
from annotation_helpers import command, prompt, response

from annotation import reliability
from annotation.answer_sets import AnswerSet
from annotation.api import Task
from annotation.conduct import findings
from annotation.eventlog import EventLog
from annotation.logged import Annotation, ShownSet
from annotation.ranked import (
    PAIRINGS,
    Ranked,
    apart,
    comparisons,
    pairing,
    rankings_from_log,
    ranks_by_answer,
    sides_by_comparison,
)

TEXTS = ("1", "22", "333", "4444")
WHEN = "2026-11-0{}T00:00:00Z"


def made(number: int) -> AnswerSet:
    answers = tuple(response(f"{text} of {number}") for text in TEXTS)
    return AnswerSet(prompt=prompt(f"Question {number}?"), answers=answers)


def result(*ranks: int) -> list[dict[str, Any]]:
    """As the page stores it; ranks of the places A to D."""
    return [
        {"from_name": f"rank_{place}", "value": {"choices": [str(rank)]}}
        for place, rank in zip("abcd", ranks, strict=True)
    ]


def annotation(number: int, of: str, person: int, *ranks: int, **fields: Any) -> Annotation:
    known: dict[str, Any] = {"kind": "annotation", "updated_at": WHEN.format(number), "seconds": 60.0} | fields
    return Annotation(
        id=number, task_id=1, pair_id=of, annotator=person, result=tuple(result(*ranks) if ranks else ()), **known
    )


def ranked(*ranks: int, person: int = 1) -> Ranked:
    return Ranked(set_id="0", annotator=f"person:{person}", ranks=ranks, places=(0, 1, 2, 3), seconds=None)


def test_rankings_of_a_log_are_free_of_places() -> None:
    one, waiting = made(1), made(2)
    shown = ShownSet(answers=one, order=(2, 0, 3, 1))  # A is the third answer, B the first, C the fourth, D the second
    sets = {one.id: shown, waiting.id: ShownSet(answers=waiting, order=(0, 1, 2, 3))}
    work = rankings_from_log(
        sets,
        list(sets),
        [
            annotation(1, one.id, 1, 4, 4, 4, 4),
            annotation(2, one.id, 1, 1, 2, 2, 4),  # again: this one counts
            annotation(3, one.id, 2, kind="skip"),
            annotation(4, one.id, 3),  # says nothing
        ],
    )
    (found,) = work.rankings
    assert (found.ranks, found.places, found.seconds) == ((2, 4, 1, 2), (1, 3, 0, 2), 60.0)
    assert (work.judged, work.count, work.waiting) == (1, 1, 1)
    assert work.left_out == {"judged again": 1, "malformed": 1, "skipped": 1}
    assert work.days == {"2026-11-02": 1}
    assert work.batch("person:1") == (one.id,)
    assert len(work.ratings) == 2


@pytest.mark.parametrize(
    ("set_id", "expected"),
    [
        # ranks 2, 4, 1, 2 of the answers that stand in places 1, 3, 0, 2; texts grow longer
        # 0-1: the first is better by two and stands earlier; 2-3: the third by one, and earlier
        ("0", [(1, True, False), (2, True, False)]),
        # 0-2: the third by one, stands earlier, is longer; 1-3: the fourth by two, earlier, longer
        ("1", [(5, True, True), (6, True, True)]),
        # 0-3: a tie; 1-2: the third by three, earlier, longer
        ("2", [(3, None, None), (7, True, True)]),
    ],
)
def test_comparisons_by_hand(set_id: str, expected: list[tuple[int, bool | None, bool | None]]) -> None:
    one = Ranked(set_id=set_id, annotator="person:1", ranks=(2, 4, 1, 2), places=(1, 3, 0, 2), seconds=60.0)
    shown = ShownSet(answers=made(1), order=(2, 0, 3, 1))
    found = list(comparisons(one, shown))
    assert [(rating.level, rating.is_left, rating.is_longer) for rating in found] == expected
    assert [rating.strength for rating in found] == [
        abs(one.ranks[second] - one.ranks[first]) for first, second in PAIRINGS[int(set_id)]
    ]
    assert [rating.seconds for rating in found] == [60.0, None]  # one time, counted once
    # "Question 1?" has 11 characters, the answers "1 of 1" to "4444 of 1" 6 + 7 + 8 + 9
    assert {rating.characters for rating in found} == {41}


def test_the_two_comparisons_of_a_set_share_no_answer_and_each_pairing_comes_as_often() -> None:
    assert all(sorted(first + second) == [0, 1, 2, 3] for first, second in PAIRINGS)
    drawn = [pairing(made(number).id) for number in range(900)]
    assert all(240 <= drawn.count(one) <= 360 for one in PAIRINGS)  # 300, four standard deviations


def test_sides_and_distances_by_hand() -> None:
    its = [ranked(1, 2, 2, 4), ranked(2, 1, 3, 4)]
    #                  0-1     0-2     0-3     1-2  1-3     2-3;  the first person's tie of 1 and 2 names no side
    assert sides_by_comparison(its) == [[0, 1], [0, 0], [0, 0], [0], [0, 0], [0, 0]]
    # five comparisons with two sides, four of them the same
    assert reliability.agreement_together([sides_by_comparison(its)]).value == pytest.approx(4 / 5)
    assert apart(its) == 1
    assert apart([ranked(1, 2, 3, 4), ranked(4, 3, 2, 1)]) == 3
    assert apart([ranked(1, 2, 3, 4), ranked(3, 2, 1, 4), ranked(2, 2, 2, 2)]) == 2
    assert apart([ranked(1, 1, 3, 4), ranked(1, 2, 2, 4)]) == 0  # ties order nothing
    assert apart([ranked(1, 2, 3, 4)]) == 0


@pytest.mark.parametrize("seed", range(3))
def test_alpha_of_ranks_is_that_of_another_implementation(seed: int) -> None:
    rng = random.Random(seed)
    sets = []
    for _ in range(30):
        truth = rng.sample(range(1, 5), 4)
        given = [tuple(min(4, max(1, rank + rng.choice([-1, 0, 0, 1]))) for rank in truth) for _ in range(3)]
        sets.append([ranked(*one) for one in given])
    groups = list(map(ranks_by_answer, sets))
    data = np.array(
        [[one.ranks[answer] - 1 for its in sets for one in [its[who]] for answer in range(4)] for who in range(3)]
    )
    expected = krippendorff.alpha(data, level_of_measurement="ordinal", value_domain=[0, 1, 2, 3])
    found = reliability.alpha_together(groups, 4, "ordinal")
    assert found.value == pytest.approx(expected, abs=1e-9)
    assert (found.pairs, found.ratings) == (30, 360)
    assert found.low is not None
    assert found.high is not None
    assert found.low < expected < found.high


def test_intervals_draw_sets_and_not_answers() -> None:
    """Four units that are copies of each other say no more than one: the interval is that of a fourth of the units."""
    rng = random.Random(4)
    units = [[value, min(3, max(0, value + rng.choice([-1, 0, 1])))] for value in rng.choices(range(4), k=40)]
    apart_, together = (
        reliability.alpha_together(groups, 4, "ordinal", seed=1)
        for groups in ([[its] for its in units], [[its] * 4 for its in units])
    )
    assert None not in (apart_.low, apart_.high, together.low, together.high)
    width = (apart_.high or 0) - (apart_.low or 0)
    assert (together.high or 0) - (together.low or 0) == pytest.approx(width, rel=0.02)


def people_at_work(log: EventLog, sets: int, project: str = "1@a") -> None:
    """Four people who mostly see the same order, and person 5, who ranks by place."""
    rng = random.Random(6)
    log.add_sets([made(number) for number in range(sets)])
    tasks, number = [], 0
    for name, shown in log.sets().items():
        truth = rng.sample(range(1, 5), 4)  # of the answers
        its = []
        for person in range(1, 6):
            ranks = [truth[answer] for answer in shown.order]
            if rng.random() < 0.3:
                one = rng.randrange(3)
                better, worse = ranks.index(one + 1), ranks.index(one + 2)
                ranks[better], ranks[worse] = ranks[worse], ranks[better]
            number += 1
            its.append({
                "id": number, "was_cancelled": False, "updated_at": WHEN.format(1 + number % 3), "lead_time": 60.0,
                "completed_by": person, "result": result(*(ranks if person < 5 else (1, 2, 3, 4))),
            })  # fmt: skip
        tasks.append(Task(id=len(tasks) + 1, data={"pair_id": name}, updated_at=WHEN.format(1), annotations=tuple(its)))
    log.absorb(project, "<View/>", tasks, [])
    log.mark(project, [*log.sets(), "f" * 16], "sent")  # one waits


def test_who_ranks_by_place_is_named_and_the_others_are_not(tmp_path: Path) -> None:
    with EventLog(tmp_path / "log.sqlite") as log:
        people_at_work(log, 60)
        work = rankings_from_log(log.sets(), list(log.deliveries("1@a")), log.annotations("1@a"))
    named = {(one.annotator, one.test) for one in findings(work.ratings) if one.is_named}
    assert named == {("person:5", "left"), ("person:5", "others")}


def test_report_and_check_of_ranks(tmp_path: Path) -> None:
    with EventLog(tmp_path / "log.sqlite") as log:
        people_at_work(log, 60)
    done = command("report", "--log", "log.sqlite", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "300 rankings of 60 sets by 5 people" in done.stdout
    page = (tmp_path / "runs/annotation/report.html").read_text(encoding="utf-8")
    for said in (
        "Sets ranked",
        "1 are waiting",
        "alpha of the ranks",
        "Places on the page",
        "To discuss",
        "Two by two",
    ):
        assert said in page
    redo = page[page.index("Batches to do again") :]
    assert "person:5" in redo[: redo.index("Two by two")]
    assert "person:2" not in redo[: redo.index("Two by two")]

    done = command("check", "--log", "log.sqlite", cwd=tmp_path)
    assert done.returncode == 1
    assert "1 of 61 sets are not judged" in done.stdout
    assert "person:5 should do 60 sets again: " in done.stdout
    assert "300 rankings of 60 sets by 5 people" in done.stdout
    (batch,) = map(json.loads, (tmp_path / "runs/annotation/redo.jsonl").read_text(encoding="utf-8").splitlines())
    assert (batch["annotator"], len(batch["pairs"])) == ("person:5", 60)
