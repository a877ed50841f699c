"""How often a reward model prefers what people prefer, whole and in parts: pure functions of judged pairs.

Pairs of strength 0 have no better answer; they are counted, seen in the table by strength, and otherwise left out.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import fsum
from statistics import fmean, stdev

from reward.calibration import Calibration, calibration
from reward.intervals import Estimate, by_prompt, macro
from reward.judged import Judged, decided

MATCHED = 0.1
"""Answers are of matched length if the longer one has at most this share more tokens."""
SHARES = (0.1, 0.5)
"""Where the length difference is cut into buckets: tokens that the longer answer has more, per token of the shorter."""
LENGTHS = (32, 64, 128, 256, 512)
"""Where the mean length of both answers is cut into buckets, tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """Accuracy on a part of the pairs.

    Example:
        Slice(by="source", name="hh_harmless", accuracy=Estimate(…))
    """

    by: str
    name: str
    accuracy: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """The figures of a reward model on held-out pairs.

    Example:
        Measures(accuracy=Estimate(…), macro=Estimate(…), matched=Estimate(…), matched_share=0.1, slices=(…),
                 margin=Estimate(…), mean=0.02, std=1.1, calibration=Calibration(…), undecided=12)
    """

    accuracy: Estimate
    """Share of decided pairs whose better answer scores higher; a tie counts half."""
    macro: Estimate
    """Mean of the sources' accuracies."""
    matched: Estimate | None
    """Accuracy on pairs of matched length; None where there are none."""
    matched_share: float
    """How much longer the longer answer of such a pair may be."""
    slices: tuple[Slice, ...]
    """By strength (0 included), category, language, source, length difference and length, and by source among pairs of
    matched length."""
    margin: Estimate
    """Mean score of the better answers less that of the others, score units."""
    mean: float
    """Of both scores of all decided pairs."""
    std: float
    """Standard deviation of the same, with n - 1 in the denominator."""
    calibration: Calibration
    undecided: int
    """Pairs of strength 0, left out of everything but the table by strength."""

    def slices_by(self, by: str) -> list[Slice]:
        """Return the slices of one kind, in their order."""
        return [part for part in self.slices if part.by == by]


def measure(records: Sequence[Judged], *, seed: int, matched_share: float = MATCHED, scale: float = 1.0) -> Measures:
    """Return all figures; their order is that of the records' names, not of the records.

    Args:
        records: Judged pairs.
        seed: Of the intervals.
        matched_share: See `is_matched`.
        scale: See `calibration.calibration`.

    Raises:
        ValueError: No pair is decided.
    """
    known = decided(records)
    if not known:
        raise ValueError(f"none of the {len(records)} pairs has a better answer (strength above 0)")
    matched = [record for record in known if is_matched(record, matched_share)]
    mean, std = spread(known)
    return Measures(
        accuracy=accuracy(known, seed=seed),
        macro=macro_accuracy(known, seed=seed),
        matched=accuracy(matched, seed=seed) if matched else None,
        matched_share=matched_share,
        slices=(
            *slices(records, "strength", lambda record: str(record.strength), seed=seed),
            *slices(known, "category", lambda record: record.category, seed=seed),
            *slices(known, "language", lambda record: record.language, seed=seed),
            *slices(known, "source", lambda record: record.source, seed=seed),
            *slices(matched, "source, matched length", lambda record: record.source, seed=seed),
            *slices(known, "length difference", length_difference, seed=seed, order=DIFFERENCES),
            *slices(known, "length", length, seed=seed, order=length_names()),
        ),
        margin=margin(known, seed=seed),
        mean=mean,
        std=std,
        calibration=calibration(known, seed=seed, scale=scale),
        undecided=len(records) - len(known),
    )


def accuracy(records: Sequence[Judged], *, seed: int) -> Estimate:
    """Return the share of pairs whose better answer scores higher.

    Raises:
        ValueError: There are no pairs.
    """
    return by_prompt([record.hit for record in records], [record.prompt_id for record in records], seed=seed)


def margin(records: Sequence[Judged], *, seed: int) -> Estimate:
    """Return the mean score of the better answers less that of the others.

    Raises:
        ValueError: There are no pairs.
    """
    return by_prompt([record.lead for record in records], [record.prompt_id for record in records], seed=seed)


def spread(records: Sequence[Judged]) -> tuple[float, float]:
    """Return mean and standard deviation (n - 1) of the scores of both answers of all pairs."""
    scores = [score for record in records for score in (record.better, record.worse)]
    return fsum(scores) / len(scores), stdev(scores)


def macro_accuracy(records: Sequence[Judged], *, seed: int) -> Estimate:
    """Return the mean of the sources' accuracies: a set with many pairs counts no more than one with few."""
    return macro(by_source(records, lambda record: record.hit), seed=seed)


def by_source(
    records: Sequence[Judged], number_of: Callable[[Judged], float]
) -> dict[str, tuple[list[float], list[str]]]:
    """Return a number of each pair and its prompt, by source."""
    parts: dict[str, tuple[list[float], list[str]]] = {}
    for record in records:
        numbers, prompts = parts.setdefault(record.source, ([], []))
        numbers.append(number_of(record))
        prompts.append(record.prompt_id)
    return parts


def slices(
    records: Sequence[Judged],
    by: str,
    name_of: Callable[[Judged], str],
    *,
    seed: int,
    order: Sequence[str] = (),
) -> list[Slice]:
    """Return the accuracy of each part of the pairs, by name; names in `order` come first, as they stand there."""
    parts: dict[str, list[Judged]] = defaultdict(list)
    for record in records:
        parts[name_of(record)].append(record)
    names = [*(name for name in order if name in parts), *sorted(parts.keys() - set(order))]
    return [Slice(by=by, name=name or "(none)", accuracy=accuracy(parts[name], seed=seed)) for name in names]


# --------------------------------------------------------------------------------------------------------- length


def is_matched(record: Judged, share: float = MATCHED) -> bool:
    """True if the longer answer has at most `share` more tokens than the shorter one; an empty one matches nothing."""
    shorter, longer = sorted((record.better_tokens, record.worse_tokens))
    # a share is rarely a number that a float holds: 1.1 times 10 is above 11
    return shorter > 0 and longer - shorter <= share * shorter + 1e-9


DIFFERENCES = (
    f"better over {SHARES[1]:.0%} shorter",
    f"better {SHARES[0]:.0%} to {SHARES[1]:.0%} shorter",
    f"within {SHARES[0]:.0%}",
    f"better {SHARES[0]:.0%} to {SHARES[1]:.0%} longer",
    f"better over {SHARES[1]:.0%} longer",
)
"""Buckets of the length difference, measured on the shorter answer of a pair."""


def length_difference(record: Judged) -> str:
    """Return the bucket of the difference between the lengths."""
    if is_matched(record, SHARES[0]):
        return DIFFERENCES[2]
    steps = 1 if is_matched(record, SHARES[1]) else 2
    return DIFFERENCES[2 + (steps if record.better_tokens > record.worse_tokens else -steps)]


def length_names() -> list[str]:
    """Return the buckets of the mean length, shortest first."""
    inner = [f"{low} to {high - 1}" for low, high in pairwise(LENGTHS)]
    return [f"under {LENGTHS[0]}", *inner, f"{LENGTHS[-1]} or more"]


def length(record: Judged) -> str:
    """Return the bucket of the mean length of both answers."""
    mean = fmean((record.better_tokens, record.worse_tokens))
    return length_names()[sum(mean >= limit for limit in LENGTHS)]
