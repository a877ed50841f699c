"""All comparisons of one prompt as token ids: each answer is read once, however many comparisons it is in."""

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from transformers import PreTrainedTokenizerBase

from finlm import chat_format
from finlm.data import is_held_out
from finlm.errors import UserError
from finlm.records import Candidates, PreferencePair, Prompt, Removal, Vote
from reward import losses


@dataclass(frozen=True, slots=True)
class Comparison:
    """Which of a prompt's answers is better.

    Example:
        Comparison(pair=PreferencePair(…), better=0, worse=2, first=3, certainty=0.8)
    """

    pair: PreferencePair
    better: int
    """Place of the preferred answer in its group."""
    worse: int
    first: int
    """Position of the first answer token in which they differ."""
    certainty: float
    """Probability that the preferred answer is better."""


@dataclass(frozen=True, slots=True)
class Group:
    """A prompt with its answers and what was said of them.

    Example:
        Group(prompt=(216, 17), answers=((40, 2), (41, 9, 2)), comparisons=(Comparison(…),))
    """

    prompt: tuple[int, ...]
    answers: tuple[tuple[int, ...], ...]
    """Ids, end tokens included where the answer ended."""
    comparisons: tuple[Comparison, ...]
    weight: float = 1.0
    """What its comparisons count for together in the mean over a step's prompts."""

    @property
    def independent(self) -> int:
        """Comparisons that do not follow from others: the answers, less the parts that no comparison joins."""
        part = list(range(len(self.answers)))
        for one in self.comparisons:
            part = [part[one.better] if its == part[one.worse] else its for its in part]
        return len(self.answers) - len(set(part))

    def __post_init__(self) -> None:
        for one in self.comparisons:
            if one.first >= max(len(self.answers[one.better]), len(self.answers[one.worse])):
                raise ValueError("two answers of one comparison are the same")

    @property
    def tokens(self) -> int:
        """Tokens that reading it takes: the prompt before each answer."""
        return sum(len(self.prompt) + len(answer) for answer in self.answers)

    @property
    def has_cut(self) -> bool:
        """True if an answer has no end token."""
        return any(not (one.pair.chosen_ended and one.pair.rejected_ended) for one in self.comparisons)


# ------------------------------------------------------------------------------------------- which pairs are learned


def settled(pairs: Iterable[PreferencePair]) -> tuple[list[PreferencePair], list[Removal]]:
    """Return one pair for each two answers to a prompt, as their votes decide; and what that removed.

    The same pair twice is one pair with the votes of both. Pairs that contradict each other are one pair, turned as
    most votes say (a pair without votes is one vote, for its chosen answer); its strength is their leading side's mean
    less the other's, rounded, 0 where the votes are equal.
    """
    by_answers: dict[tuple[str, frozenset[tuple[str, bool]]], list[PreferencePair]] = defaultdict(list)
    for pair in pairs:
        by_answers[pair.prompt.id, frozenset(_sides(pair))].append(pair)
    kept, removals = [], []
    for same in by_answers.values():
        pair = same[0] if len(same) == 1 else _joined(same)
        kept.append(pair)
        rule = "contradiction" if len({one.id for one in same}) > 1 else "duplicate"
        reason = f"{len(same)} pairs of the same two answers, kept as {pair.id} with strength {pair.strength}"
        others = list(same)
        others.remove(next(one for one in same if one.id == pair.id))
        removals += [Removal(record_id=one.id, rule=rule, reason=reason) for one in others]
    return kept, removals


def _sides(pair: PreferencePair) -> tuple[tuple[str, bool], tuple[str, bool]]:
    """Chosen and rejected answer, each with whether it ended."""
    return (pair.chosen, pair.chosen_ended), (pair.rejected, pair.rejected_ended)


def _joined(same: Sequence[PreferencePair]) -> PreferencePair:
    """Return pairs of the same two answers as one."""
    first = same[0]
    votes: list[Vote] = []
    for pair in same:
        own = pair.votes or (Vote(annotator="rule:pair", annotation_id=pair.id, side="chosen", strength=pair.strength),)
        is_turned = pair.id != first.id
        votes += [replace(vote, side=_other(vote.side)) if is_turned else vote for vote in own]
    unique = list({(vote.annotator, vote.annotation_id, vote.side): vote for vote in votes}.values())
    deciding = heard(unique)
    balance = sum((vote.strength or 0.5) * (1 if vote.side == "chosen" else -1) for vote in deciding)
    strength = min(3, round(abs(balance) / len(deciding)))
    if balance >= 0:
        return replace(first, strength=strength, votes=tuple(unique), id="")
    turned = next(pair for pair in same if pair.id != first.id)
    turned_votes = tuple(replace(vote, side=_other(vote.side)) for vote in unique)
    return replace(turned, strength=strength, votes=turned_votes, id="")


def _other(side: Literal["chosen", "rejected"]) -> Literal["chosen", "rejected"]:
    return "rejected" if side == "chosen" else "chosen"


def certainty_of(pair: PreferencePair, *, smoothing: float) -> float:
    """Return the probability that the chosen answer is better, from the pair's votes; those of strength 0 are halves.

    Args:
        pair: The pair; a tie (strength 0) of a pair without votes is as likely the one as the other.
        smoothing: See `losses.certainty`.
    """
    if not pair.votes:
        return losses.certainty(1, 0, smoothing=smoothing) if pair.strength else 0.5
    votes = heard(pair.votes)
    for_it = sum(0.5 if vote.strength == 0 else float(vote.side == "chosen") for vote in votes)
    return losses.certainty(for_it, len(votes) - for_it, smoothing=smoothing)


def heard(votes: Sequence[Vote]) -> Sequence[Vote]:
    """Return the votes that decide: the verdicts where a disagreement was settled, else all of them."""
    return [vote for vote in votes if vote.is_verdict] or votes


def require_apart(train: Iterable[Prompt], test: Iterable[Prompt]) -> None:
    """Refuse a prompt, or a group of prompts, that is trained on and tested on.

    Raises:
        UserError: There is one.
    """
    names = {name: prompt for prompt in train for name in _names(prompt)}
    for prompt in test:
        shared = next((name for name in _names(prompt) if name in names), None)
        if shared is not None:
            raise UserError(
                f"Prompt {prompt.id} of the test pairs is trained on as well ({shared}); take its pairs out of one of "
                "the two files."
            )


def _names(prompt: Prompt) -> list[str]:
    return [f"prompt {prompt.id}", *([f"group {prompt.group}"] if prompt.group else [])]


# ------------------------------------------------------------------------------------------------------- as token ids


def encoded(
    pairs: Iterable[PreferencePair],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    min_strength: int = 1,
    smoothing: float | None = None,
) -> tuple[list[Group], list[Removal]]:
    """Gather pairs by their prompt and encode them; weak and over-long ones are set aside with their reason.

    Args:
        pairs: One for each two answers, see `settled`.
        tokenizer: The tokenizer.
        max_length: Tokens of prompt and answer at most.
        min_strength: Pairs below it are left out; 0 keeps ties, which soft labels can be learned from.
        smoothing: Of soft labels, see `losses.certainty`; None: the preferred answer is better for sure.
    """
    by_prompt: dict[str, list[PreferencePair]] = defaultdict(list)
    removals = []
    for pair in pairs:
        if pair.strength < min_strength:
            reason = f"strength {pair.strength}, the least is {min_strength}"
            removals.append(Removal(record_id=pair.id, rule="weak", reason=reason))
        else:
            by_prompt[pair.prompt.id].append(pair)
    groups = []
    for its in by_prompt.values():
        prompt = tuple(chat_format.encode(tokenizer, its[0].prompt.messages).ids)
        said = {side for pair in its for side in _sides(pair)}  # a text is in many pairs, and encoding takes its time
        ids = {side: tuple(chat_format.encode_answer(tokenizer, side[0], ended=side[1])) for side in said}
        answers: dict[tuple[int, ...], int] = {}
        comparisons = []
        for pair in its:
            better, worse = (ids[side] for side in _sides(pair))
            problem = unusable(len(prompt), better, worse, max_length=max_length)
            if problem is not None:
                removals.append(Removal(record_id=pair.id, rule=problem[0], reason=problem[1]))
                continue
            one, other = (answers.setdefault(answer, len(answers)) for answer in (better, worse))
            first = losses.first_difference(better, worse)
            sure = 1.0 if smoothing is None else certainty_of(pair, smoothing=smoothing)
            comparisons.append(Comparison(pair, one, other, first, sure))
        if comparisons:
            groups.append(Group(prompt, tuple(answers), tuple(comparisons)))
    return groups, removals


def unusable(
    prompt_tokens: int, better: tuple[int, ...], worse: tuple[int, ...], *, max_length: int
) -> tuple[str, str] | None:
    """Return rule and reason why two encoded answers cannot be compared; None if they can."""
    longest = prompt_tokens + max(len(better), len(worse))
    if longest > max_length:
        return "too-long", f"{longest} tokens, the limit is {max_length}"
    if better == worse:
        return "equal-responses", "both answers have the same tokens"
    if not better or not worse:
        return "missing-side", "an answer has no tokens"
    return None


def weighed(found: Sequence[Group]) -> list[Group]:
    """Return the groups, each counting for its independent comparisons: n answers that were all compared for n - 1."""
    return [replace(group, weight=float(group.independent)) for group in found]


def drawn(
    found: Sequence[Group], comparisons: int, *, seed: int, rule: str = "over-limit"
) -> tuple[list[Group], list[Removal]]:
    """Return the groups if they have at most so many comparisons, else some, drawn by the seed, and what is beyond.

    Both are in their order. A file's beginning would be no sample: it is often of one source.
    """
    kept: set[int] = set()
    size = 0
    for place in random.Random(seed).sample(range(len(found)), len(found)):
        if size + len(found[place].comparisons) <= comparisons:
            kept.add(place)
            size += len(found[place].comparisons)
    reason = f"beyond {comparisons} pairs, drawn by prompts"
    removals = [
        Removal(record_id=one.pair.id, rule=rule, reason=reason)
        for place, group in enumerate(found)
        if place not in kept
        for one in group.comparisons
    ]
    return [group for place, group in enumerate(found) if place in kept], removals


def ended_answers(
    candidates: Iterable[Candidates],
    tokenizer: PreTrainedTokenizerBase,
    *,
    test_share: float,
    limit: int,
) -> list[list[int]]:
    """Return ids of prompt and answer for sampled answers that ended, of groups that are trained on."""
    rows: list[list[int]] = []
    for item in candidates:
        if is_held_out(item.prompt, test_share=test_share):
            continue
        prompt = chat_format.encode(tokenizer, item.prompt.messages).ids
        for response in item.responses:
            if response.ended and len(rows) < limit:
                rows.append([*prompt, *chat_format.encode_answer(tokenizer, response.text)])
    return rows
