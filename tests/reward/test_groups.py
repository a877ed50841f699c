"""From preference pairs to groups of comparisons: what is kept, what is set aside and why."""

from dataclasses import replace
from typing import Any, Literal

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from finlm import chat_format
from finlm.errors import UserError
from finlm.records import Message, PreferencePair, Prompt, Provenance, Vote
from reward import groups


@pytest.fixture(scope="module")
def tokenizer(tiny: Any) -> PreTrainedTokenizerBase:
    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(tiny.base)
    return loaded


def pair(chosen: str, rejected: str, question: str = "Which?", **named: Any) -> PreferencePair:
    prompt = Prompt(messages=(Message(role="user", content=question),), group=named.pop("group", ""))
    named = {"strength": 2, "source": "set", "provenance": Provenance(maker="import:set"), **named}
    return PreferencePair(prompt=prompt, chosen=chosen, rejected=rejected, **named)


def vote(who: int, side: Literal["chosen", "rejected"] = "chosen", strength: int = 1) -> Vote:
    return Vote(annotator=f"person:{who}", annotation_id=f"{who}", side=side, strength=strength)


def test_a_ranking_of_four_is_one_group_that_reads_each_answer_once(tokenizer: PreTrainedTokenizerBase) -> None:
    ranked = ["best", "good", "fair", "bad"]
    pairs = [pair(ranked[i], ranked[j]) for i in range(4) for j in range(i + 1, 4)]
    (group,), removals = groups.encoded([*pairs, pair("yes", "no", "Other?")][:6], tokenizer, max_length=100)
    assert not removals
    assert len(group.answers) == 4
    assert [(one.better, one.worse) for one in group.comparisons] == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    assert group.prompt == chat_format.encode(tokenizer, pairs[0].prompt.messages).ids
    assert group.tokens == 4 * len(group.prompt) + sum(map(len, group.answers))
    assert all(answer[-1] == tokenizer.eos_token_id for answer in group.answers)
    assert not group.has_cut


def test_a_prompt_counts_for_the_comparisons_that_do_not_follow_from_others(tokenizer: PreTrainedTokenizerBase) -> None:
    """A ranking of four holds three, a pair one, two pairs without a common answer two."""
    ranked = ["best", "good", "fair", "bad"]
    whole = [pair(ranked[i], ranked[j]) for i in range(4) for j in range(i + 1, 4)]
    found, _ = groups.encoded(
        [*whole, pair("a", "b", "One?"), pair("a", "b", "Two?"), pair("c", "d", "Two?")], tokenizer, max_length=100
    )
    assert [group.weight for group in found] == [1, 1, 1]
    assert [group.weight for group in groups.weighed(found)] == [3, 1, 2]


def test_what_cannot_be_learned_from_is_set_aside_with_its_reason(tokenizer: PreTrainedTokenizerBase) -> None:
    weak, long, fine = pair("a", "b", strength=0), pair("word " * 90, "c"), pair("d", "e")
    found, removals = groups.encoded([weak, long, fine], tokenizer, max_length=60)
    assert [one.pair.id for group in found for one in group.comparisons] == [fine.id]
    assert {one.record_id: one.rule for one in removals} == {weak.id: "weak", long.id: "too-long"}
    assert "the limit is 60" in next(one.reason for one in removals if one.rule == "too-long")
    kept, _ = groups.encoded([weak], tokenizer, max_length=60, min_strength=0, smoothing=0.0)
    assert kept[0].comparisons[0].certainty == 0.5


def test_a_cut_answer_has_no_end_token(tokenizer: PreTrainedTokenizerBase) -> None:
    (group,), _ = groups.encoded([pair("a", "b", rejected_ended=False)], tokenizer, max_length=60)
    assert group.has_cut
    assert [answer[-1] == tokenizer.eos_token_id for answer in group.answers] == [True, False]
    assert groups.unusable(3, (5, 1), (5, 1), max_length=9) == ("equal-responses", "both answers have the same tokens")
    assert groups.unusable(3, (5, 1), (), max_length=9) == ("missing-side", "an answer has no tokens")


@pytest.mark.parametrize(
    ("votes", "smoothing", "wanted"),
    [
        ((), 0.0, 1.0),
        ((vote(1), vote(2), vote(3, "rejected")), 0.0, 2 / 3),
        ((vote(1), vote(2), vote(3, "rejected")), 1.0, 0.6),
        ((vote(1), vote(2, strength=0)), 0.0, 0.75),
        ((vote(1, "rejected", 3), vote(2, "rejected", 3), replace(vote(3), is_verdict=True)), 0.0, 1.0),
    ],
)
def test_soft_labels_are_the_votes(votes: tuple[Vote, ...], smoothing: float, wanted: float) -> None:
    assert groups.certainty_of(pair("a", "b", votes=votes), smoothing=smoothing) == pytest.approx(wanted)


def test_duplicates_are_one_pair_with_all_votes() -> None:
    twice = [pair("a", "b", votes=(vote(1),)), pair("a", "b", votes=(vote(1), vote(2)))]
    (kept,), (removal,) = groups.settled([*twice])
    assert kept.id == twice[0].id == removal.record_id
    assert [one.annotator for one in kept.votes] == ["person:1", "person:2"]
    assert removal.rule == "duplicate"


def test_a_contradiction_goes_as_most_votes_say() -> None:
    """Two votes for a (strength 1), three for b (3): (2 x 1 - 3 x 3) / 5 = -1.4, so b with strength 1."""
    of_a = pair("a", "b", strength=1, votes=(vote(1), vote(2)))
    of_b = pair("b", "a", strength=3, votes=(vote(3, strength=3), vote(4, strength=3), vote(5, strength=3)))
    (kept,), (removal,) = groups.settled([of_a, of_b])
    assert (kept.chosen, kept.rejected, kept.strength, kept.id) == ("b", "a", 1, of_b.id)
    assert [(one.annotator, one.side) for one in kept.votes] == [
        ("person:1", "rejected"), ("person:2", "rejected"), ("person:3", "chosen"), ("person:4", "chosen"),
        ("person:5", "chosen"),
    ]  # fmt: skip
    assert (removal.record_id, removal.rule) == (of_a.id, "contradiction")
    assert groups.certainty_of(kept, smoothing=0) == pytest.approx(0.6)


def test_a_verdict_settles_a_contradiction() -> None:
    """Three strong votes for b weigh nothing beside the one verdict for a, of strength 1."""
    of_a = pair("a", "b", strength=1, votes=(vote(1), replace(vote(2), is_verdict=True)))
    of_b = pair("b", "a", strength=3, votes=(vote(3, strength=3), vote(4, strength=3), vote(5, strength=3)))
    (kept,), _ = groups.settled([of_a, of_b])
    assert (kept.chosen, kept.strength, len(kept.votes)) == ("a", 1, 5)


def test_a_contradiction_of_equal_votes_is_a_tie() -> None:
    (kept,), (removal,) = groups.settled([pair("a", "b", strength=2), pair("b", "a", strength=2)])
    assert kept.strength == 0
    assert removal.rule == "contradiction"
    assert groups.certainty_of(kept, smoothing=0) == 0.5


def test_a_prompt_or_group_in_both_splits_is_refused() -> None:
    one, other = pair("a", "b", group="Acme").prompt, pair("a", "b", "Else?", group="Acme").prompt
    groups.require_apart([one], [pair("a", "b", "Else?").prompt])
    with pytest.raises(UserError, match=f"Prompt {one.id} of the test pairs is trained on"):
        groups.require_apart([one], [one])
    with pytest.raises(UserError, match="group Acme"):
        groups.require_apart([one], [other])


def test_equal_answers_are_no_comparison() -> None:
    one = groups.Comparison(pair("yes", "no"), better=0, worse=1, first=3, certainty=1.0)
    with pytest.raises(ValueError, match="the same"):
        groups.Group((5, 6), ((7, 8, 1), (7, 8, 1)), (one,))


def test_what_is_beyond_a_limit_is_drawn_from_the_whole_file(tokenizer: PreTrainedTokenizerBase) -> None:
    """Forty prompts of two sources, one behind the other in the file; every fourth has a ranking of three."""
    pairs = []
    for number in range(40):
        source = "one" if number < 20 else "other"
        answers = ["a", "b", "c"][: 3 if number % 4 == 0 else 2]
        pairs += [
            pair(better, worse, f"Which of {number}?", source=source)
            for place, better in enumerate(answers)
            for worse in answers[place + 1 :]
        ]
    found, _ = groups.encoded(pairs, tokenizer, max_length=60)
    assert groups.drawn(found, 60, seed=0) == (found, [])
    assert groups.drawn(found, 0, seed=0)[0] == []
    kept, removals = groups.drawn(found, 30, seed=0)
    sizes = [sum(len(group.comparisons) for group in its) for its in (found, kept)]
    assert sizes[0] == 60
    assert 28 <= sizes[1] <= 30
    assert len(removals) == 60 - sizes[1]
    assert {one.rule for one in removals} == {"over-limit"}
    left = {one.record_id for one in removals}
    assert left | {one.pair.id for group in kept for one in group.comparisons} == {pair.id for pair in pairs}
    assert [found.index(group) for group in kept] == sorted(found.index(group) for group in kept)
    sources = [group.comparisons[0].pair.source for group in kept]
    assert min(sources.count("one"), sources.count("other")) >= 5
    assert groups.drawn(found, 30, seed=0) == (kept, removals)
    assert any(groups.drawn(found, 30, seed=seed)[0] != kept for seed in (1, 2))
