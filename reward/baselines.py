"""What a reward model must beat to have learned more than length and words, and a sentence that says whether it does.

Where the longer answer is mostly the better one, preferring it is an accurate judge of nothing. The model is compared
with each baseline pair by pair on the same held-out pairs; it beats one only if the whole interval of the difference is
above zero, over all pairs and, where it can be told, on average over the sources.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reward.bag_of_words import BagOfWords
from reward.intervals import Estimate, by_prompt, macro
from reward.judged import Judged, decided
from reward.measures import MATCHED, accuracy, by_source, is_matched, macro_accuracy

LONGER = "longer answer"
WORDS = "bag of words"


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """A simple judge on the held-out pairs, and how far ahead of it the model is.

    Example:
        Baseline(name="longer answer", accuracy=Estimate(…), macro=Estimate(…), matched=Estimate(…), ahead=Estimate(…),
                 ahead_macro=Estimate(…), ahead_matched=Estimate(…), by_source={"hh_harmless": Estimate(…)})
    """

    name: str
    accuracy: Estimate
    macro: Estimate
    """Mean over the sources."""
    matched: Estimate | None
    """On pairs of matched length; None where there are none."""
    ahead: Estimate
    """Accuracy of the model less the baseline's, pair by pair."""
    ahead_macro: Estimate
    """The same, mean over the sources."""
    ahead_matched: Estimate | None
    by_source: dict[str, Estimate]
    """Accuracy on each source."""
    remark: str = ""

    @property
    def is_beaten(self) -> bool:
        """True if the model is ahead beyond chance, over all pairs and over the sources where that can be told."""
        return self.ahead.is_above(0) and (self.ahead_macro.low is None or self.ahead_macro.is_above(0))


def longer(records: Sequence[Judged]) -> list[Judged]:
    """Return the pairs as judged by a judge who scores an answer's tokens."""
    return [record.scored(record.better_tokens, record.worse_tokens) for record in records]


def by_words(
    records: Sequence[Judged], words: BagOfWords, ids: Mapping[str, tuple[Sequence[int], Sequence[int]]]
) -> list[Judged]:
    """Return the pairs as judged by a bag of words.

    Args:
        records: Judged pairs.
        words: Fitted on pairs that are not among them.
        ids: Tokens of the better and the worse answer, by pair id.
    """
    return [record.scored(*(words.score(answer) for answer in ids[record.pair_id])) for record in records]


def told(words: BagOfWords) -> str:
    """Return in words how the penalty was chosen."""
    if not words.accuracies:
        return f"penalty {words.penalty:g}, the strongest: {words.groups} group leaves none to validate on"
    tried = ", ".join(f"{penalty:g}: {right:.3f}" for penalty, right in words.accuracies.items())
    return f"penalty {words.penalty:g} by accuracy on groups left out in turn ({tried}), {words.groups:,} groups"


def baseline(
    name: str,
    model: Sequence[Judged],
    other: Sequence[Judged],
    *,
    seed: int,
    matched_share: float = MATCHED,
    remark: str = "",
) -> Baseline:
    """Compare the model with another judge of the same pairs.

    Args:
        name: Of the other judge.
        model: The pairs with the model's scores; undecided ones are left out.
        other: The same pairs in the same order with the other judge's.
        seed: Of the intervals.
        matched_share: See `measures.is_matched`.
        remark: What is to be known of the other judge.

    Raises:
        ValueError: The pairs differ, or none is decided.
    """
    if [record.pair_id for record in model] != [record.pair_id for record in other]:
        raise ValueError(f"the model and the {name} were not asked about the same pairs in the same order")
    ours, theirs = decided(model), decided(other)
    # the difference is a number of the pair: it is what is drawn together, so that both judges meet the same prompts
    ahead = {id(record): record.hit - one.hit for record, one in zip(ours, theirs, strict=True)}
    matched = [record for record in ours if is_matched(record, matched_share)]
    theirs_matched = [record for record in theirs if is_matched(record, matched_share)]

    def lead(records: Sequence[Judged]) -> Estimate:
        return by_prompt([ahead[id(record)] for record in records], [record.prompt_id for record in records], seed=seed)

    parts = by_source(theirs, lambda record: record.hit)
    return Baseline(
        name=name,
        accuracy=accuracy(theirs, seed=seed),
        macro=macro_accuracy(theirs, seed=seed),
        matched=accuracy(theirs_matched, seed=seed) if matched else None,
        ahead=lead(ours),
        ahead_macro=macro(by_source(ours, lambda record: ahead[id(record)]), seed=seed),
        ahead_matched=lead(matched) if matched else None,
        by_source={source: by_prompt(*parts[source], seed=seed) for source in sorted(parts)},
        remark=remark,
    )


def verdict(baselines: Sequence[Baseline]) -> str:
    """Say in one or two sentences which baselines the model beats."""
    beaten = [one for one in baselines if one.is_beaten]
    others = [one for one in baselines if not one.is_beaten]
    if not others:
        return f"The reward model beats {_names(beaten, 'and')}: {_differences(beaten)}."
    short = "Its preferences are not shown to hold more than that."
    if beaten:
        return (
            f"The reward model beats {_names(beaten, 'and')} ({_differences(beaten)}), but not {_names(others, 'or')}: "
            f"{_differences(others)}. {short}"
        )
    return f"The reward model does not beat {_names(others, 'or')}: {_differences(others)}. {short}"


def _names(baselines: Sequence[Baseline], word: str) -> str:
    return f" {word} ".join(f"the {one.name}" for one in baselines)


def _differences(baselines: Sequence[Baseline]) -> str:
    return "; ".join(_difference(one) for one in baselines)


def _difference(one: Baseline) -> str:
    parts = [f"{span(one.ahead)} over all pairs"]
    if one.ahead_macro.low is not None and one.ahead_macro != one.ahead:
        parts.append(f"{span(one.ahead_macro)} over the sources")
    return f"ahead of the {one.name} by {' and '.join(parts)}"


def span(one: Estimate) -> str:
    """Return a difference with its interval, as people read it."""
    inside = "no interval" if one.low is None else f"{one.low:+.3f} to {one.high:+.3f}"
    return f"{one.mean:+.3f} ({inside})"
