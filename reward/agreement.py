"""How well a reward model agrees with people, beside how well they agree with each other.

No judge can be expected to agree with annotators more than they do among themselves. Two comparisons are fair, since
both sides of each are asked about the same votes:

    one annotator with another            beside    the model with the same annotators
    one annotator with the others' majority    beside    the model with the same majorities

Votes of strength 0 (nearly the same) name no better answer and are left out. Where the others are evenly split,
agreement is a half for both: to leave such votes out would keep the dissenter of three to two, whose others are not
split, and drop those who agree. Each pair counts once, whatever its votes: what its annotators say is averaged first.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from finlm.records import Vote
from reward.intervals import Estimate, by_prompt
from reward.judged import Judged

FEWEST_VOTES = 2
"""Decided votes that a pair needs to say how annotators agree."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotatorAgreement:
    """One annotator.

    Example:
        AnnotatorAgreement(annotator="person:7", model=Estimate(…), others=Estimate(…))
    """

    annotator: str
    model: Estimate
    """How often the model prefers what they prefer."""
    others: Estimate
    """How often they prefer what the majority of the other annotators does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """The model and the annotators; each number is a share of pairs, 0 to 1.

    Example:
        Agreement(model_and_majority=Estimate(…), model_and_annotator=Estimate(…), annotator_and_annotator=Estimate(…),
                  model_and_others=Estimate(…), annotator_and_others=Estimate(…), beside_ceiling=Estimate(…),
                  annotators=(…), pairs=1880, votes=7930, undecided_votes=2210)
    """

    model_and_majority: Estimate | None
    """With the majority of all votes, where they are not evenly split; None where they always are."""
    model_and_annotator: Estimate
    """With each single vote."""
    annotator_and_annotator: Estimate
    """The ceiling of that: with each other's."""
    model_and_others: Estimate
    """With the majority of all votes but one, in turn."""
    annotator_and_others: Estimate
    """The ceiling of that: the one left out with that majority."""
    beside_ceiling: Estimate
    """The one before less the last, pair by pair; an interval around 0: as good as one more annotator, as far as can be
    told."""
    annotators: tuple[AnnotatorAgreement, ...]
    """Most votes first."""
    pairs: int
    """Pairs with two decided votes or more."""
    votes: int
    """Their decided votes."""
    undecided_votes: int
    """Votes of strength 0 on all pairs."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A pair as its annotators see it, in shares."""

    prompt: str
    with_majority: float | None
    """None: evenly split."""
    with_annotator: float
    among: float
    with_others: float
    one_with_others: float


def agreement(records: Sequence[Judged], *, seed: int, fewest_votes_listed: int = 20) -> Agreement | None:
    """Compare the model with the annotators; None where no pair has two decided votes.

    Args:
        records: Judged pairs, undecided ones too: annotators who disagree make a pair undecided.
        seed: Of the intervals.
        fewest_votes_listed: Votes from which an annotator is listed.
    """
    asked = [record for record in records if len(_sides(record.votes)) >= FEWEST_VOTES]
    if not asked:
        return None
    seen = [_asked(record) for record in asked]
    split = [one for one in seen if one.with_majority is not None]

    def over(number_of: Callable[[_Asked], float]) -> Estimate:
        return by_prompt([number_of(one) for one in seen], [one.prompt for one in seen], seed=seed)

    return Agreement(
        model_and_majority=by_prompt(
            [one.with_majority for one in split if one.with_majority is not None],
            [one.prompt for one in split],
            seed=seed,
        )
        if split
        else None,
        model_and_annotator=over(lambda one: one.with_annotator),
        annotator_and_annotator=over(lambda one: one.among),
        model_and_others=over(lambda one: one.with_others),
        annotator_and_others=over(lambda one: one.one_with_others),
        beside_ceiling=over(lambda one: one.with_others - one.one_with_others),
        annotators=_annotators(asked, seed=seed, fewest=fewest_votes_listed),
        pairs=len(asked),
        votes=sum(len(_sides(record.votes)) for record in asked),
        undecided_votes=sum(vote.strength == 0 for record in records for vote in record.votes),
    )


def _sides(votes: Iterable[Vote]) -> list[tuple[str, int]]:
    """Annotator and side of each decided vote: 1 for the better answer, -1 for the other."""
    return [(vote.annotator, 1 if vote.side == "chosen" else -1) for vote in votes if vote.strength > 0]


def _agrees(one: float, other: float) -> float:
    """1 if both prefer the same answer, 0.5 if one of them prefers none; negative numbers prefer the worse one."""
    return 0.5 if one == 0 or other == 0 else float((one > 0) == (other > 0))


def _asked(record: Judged) -> _Asked:
    sides = [side for _, side in _sides(record.votes)]
    total, votes, for_it = sum(sides), len(sides), sides.count(1)
    same = for_it * (for_it - 1) + (votes - for_it) * (votes - for_it - 1)
    return _Asked(
        prompt=record.prompt_id,
        with_majority=_agrees(record.lead, total) if total else None,
        with_annotator=fmean(_agrees(record.lead, side) for side in sides),
        among=same / (votes * (votes - 1)),
        with_others=fmean(_agrees(record.lead, total - side) for side in sides),
        one_with_others=fmean(_agrees(side, total - side) for side in sides),
    )


def _annotators(records: Sequence[Judged], *, seed: int, fewest: int) -> tuple[AnnotatorAgreement, ...]:
    votes: dict[str, list[tuple[float, float, str]]] = defaultdict(list)
    for record in records:
        sides = _sides(record.votes)
        total = sum(side for _, side in sides)
        for annotator, side in sides:
            votes[annotator].append((_agrees(record.lead, side), _agrees(side, total - side), record.prompt_id))
    listed = sorted(
        (name for name, own in votes.items() if len(own) >= fewest), key=lambda name: (-len(votes[name]), name)
    )
    found = []
    for name in listed:
        with_model, with_others, prompts = zip(*votes[name], strict=True)
        found.append(
            AnnotatorAgreement(
                annotator=name,
                model=by_prompt(with_model, prompts, seed=seed),
                others=by_prompt(with_others, prompts, seed=seed),
            )
        )
    return tuple(found)
