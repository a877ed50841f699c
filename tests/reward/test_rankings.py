"""Rankings as comparisons: by hand, and as the groups that the reward model learns from."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from finlm import jsonl
from finlm.errors import UserError
from finlm.records import Message, PreferencePair, Prompt, Ranking
from reward.groups import encoded, settled
from reward.rankings import read_pairs

PROMPT = Prompt(messages=(Message(role="user", content="Which?"),))


def ranking(*ranks: int, person: int = 1, responses: tuple[str, ...] = ("a", "b", "c", "d")) -> Ranking:
    return Ranking(prompt=PROMPT, responses=responses[: len(ranks)], ranks=ranks, annotator=f"person:{person}")


def pairs(found: list[PreferencePair]) -> set[tuple[str, str, int]]:
    return {(one.chosen, one.rejected, one.strength) for one in found}


def test_a_ranking_of_four_is_six_comparisons(tmp_path: Path, tiny: Any) -> None:
    """b before a, d at equal ranks with a, c last and far behind."""
    jsonl.write(tmp_path / "ranked.jsonl", [ranking(2, 1, 6, 2)])
    found, removals = read_pairs(tmp_path / "ranked.jsonl")
    assert removals == []
    assert pairs(found) == {("b", "a", 1), ("b", "d", 1), ("b", "c", 3), ("a", "d", 0), ("a", "c", 3), ("d", "c", 3)}
    assert {(vote.annotator, vote.side) for one in found for vote in one.votes} == {("person:1", "chosen")}
    (group,), left = encoded(found, AutoTokenizer.from_pretrained(tiny.base), max_length=40)
    assert (len(group.answers), len(group.comparisons)) == (4, 5)
    assert [one.rule for one in left] == ["weak"]


def test_rankings_of_several_people_are_settled_by_their_votes(tmp_path: Path) -> None:
    """Two of three put a first; one who puts c between them is no vote on a and b less."""
    three = [ranking(1, 2, person=1), ranking(1, 3, 2, person=2), ranking(2, 1, person=3)]
    jsonl.write(tmp_path / "ranked.jsonl", three)
    kept, removals = settled(read_pairs(tmp_path / "ranked.jsonl")[0])
    assert pairs(kept) == {("a", "b", 1), ("a", "c", 1), ("c", "b", 1)}  # (1 + 2 - 1) / 3, rounded
    of_both = next(one for one in kept if (one.chosen, one.rejected) == ("a", "b"))
    assert sorted((vote.annotator, vote.side) for vote in of_both.votes) == [
        ("person:1", "chosen"), ("person:2", "chosen"), ("person:3", "rejected"),
    ]  # fmt: skip
    assert {one.rule for one in removals} == {"contradiction"}


def test_the_same_answer_twice_is_set_aside(tmp_path: Path) -> None:
    jsonl.write(tmp_path / "ranked.jsonl", [ranking(1, 2, 3, responses=("a", "a", "b"))])
    found, (removal,) = read_pairs(tmp_path / "ranked.jsonl")
    assert pairs(found) == {("a", "b", 2), ("a", "b", 1)}
    assert (removal.rule, removal.text) == ("equal-responses", "a")


def test_pairs_stay_pairs_and_no_file_holds_both(tmp_path: Path) -> None:
    (one,) = read_pairs_of(tmp_path, ranking(1, 2))
    jsonl.write(tmp_path / "pairs.jsonl", [one])
    assert read_pairs(tmp_path / "pairs.jsonl") == ([one], [])
    jsonl.write(tmp_path / "both.jsonl", [ranking(1, 2), one])
    with pytest.raises(UserError, match=r"both\.jsonl:2: not a valid Ranking"):
        read_pairs(tmp_path / "both.jsonl")
    jsonl.write(tmp_path / "who.jsonl", [replace(ranking(1, 2), annotator="somebody", id="")])
    with pytest.raises(UserError, match=r"who\.jsonl: ranking \w+ gives no votes: annotator 'somebody' must start"):
        read_pairs(tmp_path / "who.jsonl")
    (tmp_path / "none.jsonl").write_text("")
    assert read_pairs(tmp_path / "none.jsonl") == ([], [])


def read_pairs_of(folder: Path, *rankings: Ranking) -> list[PreferencePair]:
    jsonl.write(folder / "some.jsonl", rankings)
    return read_pairs(folder / "some.jsonl")[0]
