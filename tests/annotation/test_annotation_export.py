"""The rules by which annotations become preferences; expectations worked out by hand."""

from collections.abc import Sequence
from typing import Any

import pytest
from annotation_helpers import prompt, response, result

from annotation.export import export, read_result
from annotation.logged import Annotation, Pair
from annotation.pairing import Comparison
from annotation.vocabulary import LEVELS
from finlm.records import PreferencePair, Removal

COMPARISON = Comparison(
    prompt=prompt("Q?"), first=response("one"), second=response("two", ended=False), parents=("c1",)
)


def vote(number: int, person: int, level: str, *, at: str = "", flags: Sequence[str] = (), **fields: Any) -> Annotation:
    given: dict[str, Any] = {"kind": "annotation", "annotator": person, "pair_id": COMPARISON.id}
    given["result"] = tuple(result(level, flags))
    return Annotation(id=number, task_id=1, updated_at=at or f"2026-01-01T00:00:{number:02}Z", **{**given, **fields})


def decide(*annotations: Annotation, swapped: bool = False) -> PreferencePair | Removal:
    """The outcome of one pair."""
    made = export({COMPARISON.id: Pair(comparison=COMPARISON, swapped=swapped)}, [COMPARISON.id], annotations)
    outcomes = [*made.preferences, *(one for one in made.removals if not one.record_id.startswith("annotation:"))]
    assert len(outcomes) == 1
    return outcomes[0]


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("level", LEVELS)
def test_a_single_vote_is_unswapped(level: str, swapped: bool) -> None:
    # A shows the first answer ("one") unless swapped
    expected = {("A", False): "one", ("B", False): "two", ("A", True): "two", ("B", True): "one"}[level[0], swapped]
    pair = decide(vote(1, 7, level), swapped=swapped)
    assert isinstance(pair, PreferencePair)
    assert pair.chosen == expected
    assert pair.strength == int(level[1])
    assert (pair.chosen_ended, pair.rejected_ended) == ((True, False) if expected == "one" else (False, True))
    assert pair.provenance.maker == "person:7"
    assert pair.provenance.parents == ("c1",)
    assert pair.source == "label-studio"
    assert [(cast.annotator, cast.annotation_id, cast.side, cast.strength) for cast in pair.votes] == [
        ("person:7", "1", "chosen", int(level[1]))
    ]


@pytest.mark.parametrize(
    ("levels", "chosen", "strength"),
    [
        (("A3", "A2"), "one", 3),  # mean 2.5, half up
        (("A2", "A1"), "one", 2),  # mean 1.5, half up: to even would give 2 as well, half down 1
        (("A1", "A0"), "one", 1),  # mean 0.5, half up: to even would give 0
        (("B3", "B3", "A3"), "two", 1),  # (3 + 3 - 3) / 3
        (("A1", "A1", "B3"), "one", 0),  # (1 + 1 - 3) / 3 is below 0
        (("A0", "A0", "B0"), "one", 0),
        (("B3", "B2", "B1"), "two", 2),
    ],
)
def test_majority_and_mean(levels: tuple[str, ...], chosen: str, strength: int) -> None:
    pair = decide(*(vote(number, number, level) for number, level in enumerate(levels, 1)))
    assert isinstance(pair, PreferencePair)
    assert (pair.chosen, pair.strength) == (chosen, strength)
    assert pair.provenance.maker == ",".join(f"person:{number}" for number in range(1, len(levels) + 1))
    majority = "AB"[chosen == "two"]
    assert [cast.side for cast in pair.votes] == ["chosen" if level[0] == majority else "rejected" for level in levels]


@pytest.mark.parametrize("levels", [("A3", "B3"), ("A3", "B0"), ("A1", "A2", "B1", "B3")])
def test_an_even_split_is_a_tie(levels: tuple[str, ...]) -> None:
    removal = decide(*(vote(number, number, level) for number, level in enumerate(levels, 1)))
    assert isinstance(removal, Removal)
    assert (removal.rule, removal.record_id) == ("tie", COMPARISON.id)


def test_swapping_and_mirroring_cancel() -> None:
    # showing the other order and giving the mirrored level says the same thing about the answers
    mirrored = {"A": "B", "B": "A"}
    for level in LEVELS:
        plain = decide(vote(1, 7, level, flags=("factual_a",)))
        other = decide(vote(1, 7, mirrored[level[0]] + level[1], flags=("factual_b",)), swapped=True)
        assert plain == other


def test_flags_follow_the_answers() -> None:
    # swapped, B better: B showed "one". Flags on side A then belong to the rejected answer
    pair = decide(vote(1, 7, "B2", flags=("factual_a", "unsafe_a", "both_bad")), swapped=True)
    assert isinstance(pair, PreferencePair)
    assert pair.chosen == "one"
    assert pair.votes[0].flags == ("factual_rejected", "unsafe_rejected", "both_bad")


def test_flags_that_take_a_pair_out() -> None:
    faulty = decide(vote(1, 1, "A3", flags=("bad_prompt",)), vote(2, 2, "A3"))
    assert isinstance(faulty, Removal)
    assert faulty.rule == "faulty-question"
    outvoted = decide(vote(1, 1, "A3", flags=("bad_prompt",)), vote(2, 2, "A3"), vote(3, 3, "A3"))
    assert isinstance(outvoted, PreferencePair)
    unsafe = decide(vote(1, 1, "B2", flags=("unsafe_b",)))
    assert isinstance(unsafe, Removal)
    assert unsafe.rule == "chosen-is-unsafe"


def test_every_annotation_is_counted_once() -> None:
    known = {COMPARISON.id: Pair(comparison=COMPARISON, swapped=False)}
    annotations = [
        vote(1, 1, "A3", at="2026-01-01T00:00:01Z"),
        vote(2, 1, "B1", at="2026-01-01T00:00:02Z"),  # the same person again: the later one counts
        vote(3, 2, "A1", kind="skip"),
        vote(4, 3, "A1", kind="deleted", annotator=None),
        vote(5, 4, "C9"),
        vote(6, 5, "A1", pair_id="elsewhere"),
        vote(7, 6, "A1", result=()),
        vote(8, 6, "B2", annotator=None),
    ]
    made = export(known, [COMPARISON.id, "waiting"], annotations)
    assert made.removed == {"deleted": 1, "judged-again": 1, "malformed": 3, "skipped": 1, "unknown-pair": 1}
    assert [pair.chosen for pair in made.preferences] == ["two"]
    assert made.annotations == 8 == made.votes + sum(made.removed.values())
    assert (made.judged_pairs, made.waiting_pairs) == (1, 1)
    # pure: neither the order of the log nor a second call changes anything
    assert export(known, [COMPARISON.id, "waiting"], annotations[::-1]) == made


@pytest.mark.parametrize(
    ("regions", "complaint"),
    [
        ([], "0 levels"),
        (["text"], "no value"),
        ([{"from_name": "preference", "value": None}], "no value"),
        (result("A3") + result("B3"), "2 levels"),
        (result("A4"), "'A4'"),
        (result("A3", ("haste",)), "'haste'"),
        ([*result("A3"), {"from_name": "mood", "value": {}}], "'mood'"),
    ],
)
def test_what_the_server_lets_through_is_named(regions: list[Any], complaint: str) -> None:
    told = read_result(regions)
    assert isinstance(told, str)
    assert complaint in told


def with_verdicts(*verdicts: Annotation) -> list[PreferencePair | Removal]:
    """The outcomes of a pair on which A3 and B2 were voted, and the verdicts' own removals."""
    known = {COMPARISON.id: Pair(comparison=COMPARISON, swapped=False)}
    made = export(known, [COMPARISON.id], [vote(1, 7, "A3"), vote(2, 8, "B2")], verdicts=verdicts)
    assert made.annotations == made.votes + sum(one.record_id.startswith("annotation:") for one in made.removals)
    return [*made.preferences, *made.removals]


def test_the_newest_verdict_decides_and_all_votes_stay() -> None:
    pair, earlier = with_verdicts(vote(3, 9, "A1"), vote(4, 10, "B1"))
    assert isinstance(pair, PreferencePair)
    assert (pair.chosen, pair.strength) == ("two", 1)
    assert [(one.annotator, one.side, one.is_verdict) for one in pair.votes] == [
        ("person:7", "rejected", False),
        ("person:8", "chosen", False),
        ("person:10", "chosen", True),
    ]
    assert isinstance(earlier, Removal)
    assert (earlier.record_id, earlier.rule) == ("annotation:3", "judged-again")


def test_a_verdict_can_throw_a_pair_out() -> None:
    assert [getattr(one, "rule", "") for one in with_verdicts(vote(3, 9, "A1", flags=["bad_prompt"]))] == [
        "faulty-question"
    ]
    assert [getattr(one, "rule", "") for one in with_verdicts(vote(3, 9, "A1", flags=["unsafe_a"]))] == [
        "chosen-is-unsafe"
    ]
    # a skipped verdict is none: the votes are tied as before
    skipped = vote(3, 9, "A1", kind="skip")
    assert sorted(getattr(one, "rule", "") for one in with_verdicts(skipped)) == ["skipped", "tie"]


def test_one_person_may_vote_and_give_the_verdict() -> None:
    (pair,) = with_verdicts(vote(3, 7, "B3"))
    assert isinstance(pair, PreferencePair)
    assert pair.provenance.maker == "person:7,person:8"
    assert (pair.chosen, pair.strength) == ("two", 3)
