"""How well a reward model agrees with people, beside how well they agree with each other.

No judge can be expected to agree with annotators more than they do among themselves. Two comparisons are fair, since
both sides of each are asked about the same votes:

    one annotator with another            beside    the model with the same annotators
    one annotator with the others' majority    beside    the model with the same majorities

Votes of strength 0 (nearly the same) name no better answer and are left out, as is a majority that is evenly split.
Each pair counts once, whatever its votes: what its annotators say is averaged first.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
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
    others: Estimate | None
    """How often they prefer what the majority of the other annotators does; None where it is always split."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """The model and the annotators; each number is a share of pairs, 0 to 1.

    Example:
        Agreement(model_and_majority=Estimate(…), model_and_annotator=Estimate(…), annotator_and_annotator=Estimate(…),
                  model_and_others=Estimate(…), annotator_and_others=Estimate(…), below_ceiling=Estimate(…),
                  annotators=(…), pairs=1880, votes=7930, undecided_votes=2210)
    """

    model_and_majority: Estimate | None
    """With the majority of all votes."""
    model_and_annotator: Estimate
    """With each single vote."""
    annotator_and_annotator: Estimate
    """The ceiling of that: with each other's."""
    model_and_others: Estimate | None
    """With the majority of all votes but one, in turn."""
    annotator_and_others: Estimate | None
    """The ceiling of that: the one left out with that majority."""
    below_ceiling: Estimate | None
    """The last less the one before it, pair by pair; an interval around 0 means as good as one more annotator."""
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
    """A pair as its annotators see it; shares are None where nothing can be said."""

    prompt: str
    with_majority: float | None
    with_annotator: float
    among: float
    with_others: float | None
    one_with_others: float | None


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

    def over(numbers: Iterable[float | None]) -> Estimate | None:
        known = [(number, one.prompt) for number, one in zip(numbers, seen, strict=True) if number is not None]
        return by_prompt([number for number, _ in known], [prompt for _, prompt in known], seed=seed) if known else None

    with_annotator, among = over(one.with_annotator for one in seen), over(one.among for one in seen)
    assert with_annotator is not None  # every pair that is asked has both
    assert among is not None
    return Agreement(
        model_and_majority=over(one.with_majority for one in seen),
        model_and_annotator=with_annotator,
        annotator_and_annotator=among,
        model_and_others=over(one.with_others for one in seen),
        annotator_and_others=over(one.one_with_others for one in seen),
        below_ceiling=over(
            None if one.with_others is None or one.one_with_others is None else one.one_with_others - one.with_others
            for one in seen
        ),
        annotators=_annotators(asked, seed=seed, fewest=fewest_votes_listed),
        pairs=len(asked),
        votes=sum(len(_sides(record.votes)) for record in asked),
        undecided_votes=sum(vote.strength == 0 for record in records for vote in record.votes),
    )


def _sides(votes: Iterable[Vote]) -> list[tuple[str, int]]:
    """Annotator and side of each decided vote: 1 for the better answer, -1 for the other."""
    return [(vote.annotator, 1 if vote.side == "chosen" else -1) for vote in votes if vote.strength > 0]


def _agrees(model: float, side: int) -> float:
    """1 if the model's lead has the side's sign, 0.5 without a lead."""
    return 0.5 if model == 0 else float((model > 0) == (side > 0))


def _asked(record: Judged) -> _Asked:
    sides = [side for _, side in _sides(record.votes)]
    total = sum(sides)
    others = [(side, total - side) for side in sides if total != side]
    votes, for_it = len(sides), sides.count(1)
    against = votes - for_it
    same = for_it * (for_it - 1) + against * (against - 1)
    return _Asked(
        prompt=record.prompt_id,
        with_majority=_agrees(record.lead, total) if total else None,
        with_annotator=fmean(_agrees(record.lead, side) for side in sides),
        among=same / (votes * (votes - 1)),
        with_others=fmean(_agrees(record.lead, rest) for _, rest in others) if others else None,
        one_with_others=fmean(float((side > 0) == (rest > 0)) for side, rest in others) if others else None,
    )


def _annotators(records: Sequence[Judged], *, seed: int, fewest: int) -> tuple[AnnotatorAgreement, ...]:
    with_model: dict[str, list[tuple[float, str]]] = defaultdict(list)
    with_others: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for record in records:
        sides = _sides(record.votes)
        total = sum(side for _, side in sides)
        for annotator, side in sides:
            with_model[annotator].append((_agrees(record.lead, side), record.prompt_id))
            if total != side:
                with_others[annotator].append((float((side > 0) == (total - side > 0)), record.prompt_id))

    def over(known: Sequence[tuple[float, str]]) -> Estimate:
        return by_prompt([number for number, _ in known], [prompt for _, prompt in known], seed=seed)

    listed = sorted((name for name, own in with_model.items() if len(own) >= fewest), key=lambda name: name)
    listed.sort(key=lambda name: -len(with_model[name]))
    return tuple(
        AnnotatorAgreement(
            annotator=name,
            model=over(with_model[name]),
            others=over(with_others[name]) if with_others[name] else None,
        )
        for name in listed
    )
