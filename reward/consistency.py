"""Whether a reward model judges what answers say: its verdict must not hang on the order of a pair or on looks.

changed = [one for pair in pairs if (one := reformatted(pair, "bullets"))]     answers to score once more
consistency("bullets", …)                                                      both scores compared
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum

from finlm.records import PreferencePair
from reward.formatting import CHANGES
from reward.intervals import Estimate, by_prompt
from reward.judged import Judged


@dataclass(frozen=True, slots=True, kw_only=True)
class Swapping:
    """Scores of the same pairs, their answers given the other way round and in other batches.

    Example:
        Swapping(pairs=512, largest=2e-6, turned=0)
    """

    pairs: int
    largest: float
    """Largest difference between two scores of one answer, score units; 0 if nothing but the answer counts."""
    turned: int
    """Pairs whose verdict changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reformatted:
    """A pair whose answers look different and say the same.

    Example:
        Reformatted(pair_id="9f…", better="- one", worse="- two")
    """

    pair_id: str
    better: str
    worse: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Consistency:
    """What one change of formatting does to the scores.

    Example:
        Consistency(change="bullets", stays=Estimate(…), stays_one_sided=Estimate(…), shift=0.08, drift=-0.02,
                    answers=230)
    """

    change: str
    stays: Estimate
    """Share of pairs whose verdict stays if both answers are changed; one that becomes a tie has not stayed."""
    stays_one_sided: Estimate
    """The same if only one of them is: the mean of either one."""
    shift: float
    """Mean over changed answers of |score after - score before|, in standard deviations of the scores."""
    drift: float
    """The same with its sign: what the change earns."""
    answers: int
    """Answers that the change found something to change in."""


def swapping(records: Sequence[Judged], swapped: Sequence[Judged]) -> Swapping:
    """Compare the scores of pairs with those they got the other way round.

    Args:
        records: Scored with the better answer first.
        swapped: The same pairs in any order, scored with the worse answer first, in other batches.

    Raises:
        ValueError: They are not the same pairs, or there are none.
    """
    again = _by_id(swapped)
    if not records or {record.pair_id for record in records} != set(again):
        raise ValueError(f"{len(records)} pairs and {len(swapped)} swapped ones are not the same pairs")
    both = [(record, again[record.pair_id]) for record in records]
    return Swapping(
        pairs=len(both),
        largest=max(max(abs(one.better - two.better), abs(one.worse - two.worse)) for one, two in both),
        turned=sum(one.hit != two.hit for one, two in both),
    )


def reformatted(pair: PreferencePair, change: str) -> Reformatted | None:
    """Return a pair with the formatting of its answers changed.

    Args:
        pair: The pair.
        change: A name of `formatting.CHANGES`.

    Returns:
        None where neither answer has anything to change, or where the answers, or one changed and the other not, would
        be the same: between those there is no verdict to stay.
    """
    better, worse = (CHANGES[change](text, pair.prompt.language) for text in (pair.chosen, pair.rejected))
    if (better, worse) == (pair.chosen, pair.rejected) or better in (worse, pair.rejected) or worse == pair.chosen:
        return None
    return Reformatted(pair_id=pair.id, better=better, worse=worse)


def consistency(
    change: str,
    before: Sequence[Judged],
    after: Sequence[Judged],
    is_changed: Mapping[str, tuple[bool, bool]],
    *,
    std: float,
    seed: int,
) -> Consistency | None:
    """Compare the scores of pairs with those of the same pairs reformatted.

    Args:
        change: Its name.
        before: Judged pairs; those that are not in `after` do not count.
        after: Those that could be reformatted, with their new scores.
        is_changed: For each of them, whether the better and the worse answer changed.
        std: Standard deviation of the scores on all pairs (`Measures.std`).
        seed: Of the intervals.

    Returns:
        None where no pair could be reformatted.

    Raises:
        ValueError: A reformatted pair is not among the others, or `std` is not above 0.
    """
    if not after:
        return None
    if not std > 0:
        raise ValueError(f"the standard deviation of the scores is {std}; it must be above 0")
    known = _by_id(before)
    if unknown := [record.pair_id for record in after if record.pair_id not in known]:
        raise ValueError(f"pair {unknown[0]} was reformatted and is not among the judged pairs")
    both = [(known[record.pair_id], record) for record in after]
    prompts = [record.prompt_id for record in after]
    moves = [
        move / std
        for old, new in both
        for move, has_changed in zip(
            (new.better - old.better, new.worse - old.worse), is_changed[old.pair_id], strict=True
        )
        if has_changed
    ]
    return Consistency(
        change=change,
        stays=by_prompt([_stays(old, new.better, new.worse) for old, new in both], prompts, seed=seed),
        stays_one_sided=by_prompt([_one_sided(old, new) for old, new in both], prompts, seed=seed),
        shift=fsum(map(abs, moves)) / len(moves),
        drift=fsum(moves) / len(moves),
        answers=len(moves),
    )


def changed_sides(pair: PreferencePair, new: Reformatted) -> tuple[bool, bool]:
    """Return whether the better and the worse answer changed."""
    return new.better != pair.chosen, new.worse != pair.rejected


def _by_id(records: Sequence[Judged]) -> dict[str, Judged]:
    return {record.pair_id: record for record in records}


def _stays(old: Judged, better: float, worse: float) -> float:
    return float(old.hit == (better > worse) + 0.5 * (better == worse))


def _one_sided(old: Judged, new: Judged) -> float:
    return (_stays(old, new.better, old.worse) + _stays(old, old.better, new.worse)) / 2
