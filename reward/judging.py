"""A trained reward model asked about held-out comparisons: as they are, the other way round, reformatted."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from finlm.records import PreferencePair
from reward import baselines, consistency, findings
from reward.bag_of_words import TokenPair
from reward.baselines import Baseline
from reward.consistency import Consistency, Swapping
from reward.findings import Findings
from reward.fitted_words import fitted
from reward.formatting import CHANGES
from reward.groups import Group, drawn, encoded
from reward.judged import Judged, judged

Scores = Callable[[Sequence[Group]], list[list[float]]]
"""Reads groups and returns the score of every answer of each."""


def records_of(groups: Sequence[Group], scores: Sequence[Sequence[float]]) -> list[Judged]:
    """Return every comparison with the scores of its answers."""
    return [
        judged(
            one.pair,
            better_tokens=len(group.answers[one.better]),
            worse_tokens=len(group.answers[one.worse]),
            better=its[one.better],
            worse=its[one.worse],
        )
        for group, its in zip(groups, scores, strict=True)
        for one in group.comparisons
    ]


def turned(groups: Sequence[Group]) -> list[Group]:
    """Return the groups in reverse, each with its answers in reverse: other batches, the other side first."""
    return [
        replace(
            group,
            answers=group.answers[::-1],
            comparisons=tuple(
                replace(one, better=len(group.answers) - 1 - one.better, worse=len(group.answers) - 1 - one.worse)
                for one in group.comparisons
            ),
        )
        for group in reversed(groups)
    ]


def swapped(records: Sequence[Judged], groups: Sequence[Group], scores: Scores) -> Swapping:
    """Compare the scores with those that the same answers get the other way round."""
    around = turned(groups)
    return consistency.swapping(records, records_of(around, scores(around)))


def reformatted(
    records: Sequence[Judged],
    groups: Sequence[Group],
    scores: Scores,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    std: float,
    seed: int,
) -> list[Consistency]:
    """Compare the scores with those of the same answers with another look, change by change."""
    pairs = [one.pair for group in groups for one in group.comparisons]
    known = {record.pair_id: record for record in records}
    found = []
    for change in CHANGES:
        old: dict[str, PreferencePair] = {}
        made: list[PreferencePair] = []
        is_changed = {}
        for pair in pairs:
            its = consistency.reformatted(pair, change)
            if its is None:
                continue
            made.append(replace(pair, chosen=its.better, rejected=its.worse, id=""))
            old[made[-1].id] = pair
            is_changed[pair.id] = consistency.changed_sides(pair, its)
        others, _ = encoded(made, tokenizer, max_length=max_length, min_strength=0)
        after = [
            known[old[one.pair.id].id].scored(its[one.better], its[one.worse])
            for group, its in zip(others, scores(others) if others else [], strict=True)
            for one in group.comparisons
        ]
        measured = consistency.consistency(change, records, after, is_changed, std=std, seed=seed)
        found += [measured] if measured is not None else []
    return found


def simpler_judges(
    records: Sequence[Judged], groups: Sequence[Group], train: Sequence[Group], *, cache: Path, seed: int
) -> list[Baseline]:
    """Compare the model with a judge that takes the longer answer, and with one that knows words and no order."""
    words = fitted(
        [
            TokenPair(one.pair.prompt.group or one.pair.prompt.id, group.answers[one.better], group.answers[one.worse])
            for group in train
            for one in group.comparisons
        ],
        cache,
    )
    ids = {
        one.pair.id: (group.answers[one.better], group.answers[one.worse])
        for group in groups
        for one in group.comparisons
    }
    return [
        baselines.baseline("longer answer", records, baselines.longer(records), seed=seed),
        baselines.baseline(
            "bag of words",
            records,
            baselines.by_words(records, words, ids),
            seed=seed,
            remark=baselines.told(words),
        ),
    ]


def findings_of(
    records: Sequence[Judged],
    groups: Sequence[Group],
    train: Sequence[Group],
    scores: Scores,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    std: float,
    scale: float,
    again: int,
    cache: Path,
    seed: int,
) -> Findings:
    """Measure all that the page tells.

    Args:
        records: The judged comparisons, in exported units.
        groups: The same, as token ids.
        train: What was learned from.
        scores: Reads groups, in exported units.
        tokenizer: The tokenizer.
        max_length: Tokens of prompt and answer at most.
        std: Standard deviation of the scores of `records`.
        scale: Exported scores times this are in the units of the loss.
        again: Comparisons that are scored again, swapped and reformatted, at most.
        cache: Folder of bags of words that were fitted before.
        seed: Of the intervals, and of what is scored again.
    """
    some, _ = drawn(groups, again, seed=seed, rule="not-repeated")
    names = {one.pair.id for group in some for one in group.comparisons}
    its = [record for record in records if record.pair_id in names]
    return findings.findings(
        records,
        seed=seed,
        scale=scale,
        baselines=simpler_judges(records, groups, train, cache=cache, seed=seed),
        swapping=swapped(its, some, scores) if some else None,
        consistency=reformatted(its, some, scores, tokenizer, max_length=max_length, std=std, seed=seed)
        if some and std > 0
        else [],
    )
