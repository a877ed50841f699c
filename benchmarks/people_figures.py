"""What held-out scores of people's preferences come to: `benchmarks/reward_people.py` writes it down.

Every figure is a mean over pairs; its interval draws units (finlm's prompts, topics and documents that stay together,
benchmarks/people_folds.py) with all of their pairs. Macro is the mean of the sets.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any

from benchmarks.people_folds import unit_of
from reward.baselines import LONGER, WORDS
from reward.intervals import Estimate, by_prompt, macro
from reward.judged import Judged, decided
from reward.measures import is_matched, spread
from reward.selection import ChoiceRule

MODEL = "reward model"
DIRECTED = "length, longer or shorter by set"
BASELINES = (LONGER, DIRECTED, WORDS)
MATCHED_PAIRS = 400
"""Pairs of matched length from which on a set's accuracy on them is a figure."""

Parts = dict[str, tuple[list[float], list[str]]]


def unit(record: Judged) -> str:
    """Return what a pair may not be divided from."""
    return unit_of(record.source, record.group)


def parts(records: Sequence[Judged], number_of: Callable[[int], float]) -> Parts:
    """Return a number of each pair, by its place, and its unit, by set."""
    found: Parts = {}
    for place, record in enumerate(records):
        numbers, units = found.setdefault(record.source, ([], []))
        numbers.append(number_of(place))
        units.append(unit(record))
    return dict(sorted(found.items()))


def directed(records: Sequence[Judged], fold_of: Mapping[str, int]) -> list[Judged]:
    """Return the pairs as judged by length, longer or shorter as is right more often in the set's other folds.

    Args:
        records: Decided pairs.
        fold_of: Fold of each unit.
    """
    ahead: dict[tuple[str, int], float] = defaultdict(float)
    for record in records:
        longer = record.scored(record.better_tokens, record.worse_tokens).hit - 0.5
        ahead[record.source, fold_of[unit(record)]] += longer
        ahead[record.source, -1] += longer
    found = []
    for record in records:
        others = ahead[record.source, -1] - ahead[record.source, fold_of[unit(record)]]
        sign = 1 if others >= 0 else -1
        found.append(record.scored(sign * record.better_tokens, sign * record.worse_tokens))
    return found


def of_judge(records: Sequence[Judged]) -> dict[str, Any]:
    """Return macro accuracy and accuracy by set, over all pairs and over those of matched length.

    Args:
        records: Decided pairs with the judge's scores.
    """
    matched = [record for record in records if is_matched(record)]
    found: dict[str, Any] = {}
    for name, its in (("accuracy", records), ("length_matched", matched)):
        by_set = parts(its, lambda place, its=its: its[place].hit)  # type: ignore[misc]
        found[name] = {source: asdict(by_prompt(*part, seed=0)) for source, part in by_set.items()}
        found[f"{name}_macro"] = asdict(macro(by_set, seed=0)) if by_set else None
    return found


def lead(records: Sequence[Judged], others: Sequence[Judged]) -> dict[str, Any]:
    """Return accuracy less another judge's of the same pairs in the same order, by set and on average over the sets."""
    by_set = parts(records, lambda place: records[place].hit - others[place].hit)
    return {
        "macro": asdict(macro(by_set, seed=0)),
        "by_set": {source: asdict(by_prompt(*part, seed=0)) for source, part in by_set.items()},
    }


def not_beaten(ahead: Mapping[str, Any]) -> list[str]:
    """Return the sets in which the model is not ahead beyond chance."""
    return [source for source, its in ahead["by_set"].items() if its["low"] is None or its["low"] <= 0]


def headline(judges: Mapping[str, Sequence[Judged]], english: set[str]) -> dict[str, Any]:
    """Return the figures of the model that was judged on every fold, beside the baselines.

    Args:
        judges: Judge -> the same decided pairs in the same order, with its scores.
        english: Sets in which prompts and answers are English.
    """
    found = {name: of_judge(records) for name, records in judges.items()}
    model = found[MODEL]
    matched = model["length_matched"]
    counted = {name for name, its in matched.items() if name in english and its["pairs"] >= MATCHED_PAIRS}
    ahead = {name: lead(judges[MODEL], judges[name]) for name in BASELINES}
    return {
        "accuracy_macro": model["accuracy_macro"]["mean"],
        "accuracy": means(model["accuracy"]),
        "accuracy_length_matched": means({name: its for name, its in matched.items() if name in counted}),
        "reported_only": means({name: its for name, its in matched.items() if name not in counted}),
        "baseline_length_macro": found[LONGER]["accuracy_macro"]["mean"],
        "baseline_length_by_set_macro": found[DIRECTED]["accuracy_macro"]["mean"],
        "baseline_bow_macro": found[WORDS]["accuracy_macro"]["mean"],
        "judges": found,
        "ahead": ahead,
        "not_beaten": {name: not_beaten(its) for name, its in ahead.items()},
        "english": sorted(english),
    }


def means(by_set: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Return the plain numbers."""
    return {name: its["mean"] for name, its in by_set.items()}


def alone(records: Sequence[Judged]) -> dict[str, Any]:
    """Return the plain accuracies of one seed's models, over all pairs and over those of matched length.

    Args:
        records: Decided pairs of every fold.
    """
    found = of_judge(records)
    return {
        "accuracy_macro": found["accuracy_macro"]["mean"],
        "accuracy": means(found["accuracy"]),
        "length_matched": means(found["length_matched"]),
    }


def averaged(by_seed: Sequence[Sequence[Judged]]) -> list[Judged]:
    """Return the pairs of one fold as judged by its models of several seeds together: the mean of their scores.

    Each model's scores are taken in its own standard deviations, as `finlm.ensemble` takes those of exported models:
    else the seed whose scores spread widest would decide alone.

    Args:
        by_seed: Of each seed the same pairs, in any order.

    Raises:
        ValueError: The seeds judged other pairs.
    """
    deviations = [spread(records)[1] for records in by_seed]
    in_order = [sorted(records, key=lambda record: record.pair_id) for records in by_seed]
    found = []
    for same in zip(*in_order, strict=True):
        if len({record.pair_id for record in same}) > 1:
            raise ValueError(f"the seeds judged other pairs: {', '.join(record.pair_id for record in same)}")
        better = fmean(record.better / deviation for record, deviation in zip(same, deviations, strict=True))
        worse = fmean(record.worse / deviation for record, deviation in zip(same, deviations, strict=True))
        found.append(same[0].scored(better, worse))
    return found


# ------------------------------------------------------------------------------------------------------------- arms


@dataclass(frozen=True, slots=True)
class Arm:
    """A way of learning, with what it made of the same held-out pairs under each seed.

    Example:
        Arm(loss="token", margin="small", by_seed={0: (Judged(…), …), 1: (Judged(…), …)})
    """

    loss: str
    margin: str
    by_seed: dict[int, tuple[Judged, ...]]
    """Decided pairs in one order, scores in the units of the loss."""

    @property
    def name(self) -> str:
        """Its name in tables and folders."""
        return name_of(self.loss, self.margin)

    @property
    def hits(self) -> list[float]:
        """Of each pair the mean over the seeds."""
        return [fmean(record.hit for record in same) for same in zip(*self.by_seed.values(), strict=True)]

    def figures(self) -> dict[str, Any]:
        """Return what the table of arms has of it."""
        seeds = {}
        for seed, records in sorted(self.by_seed.items()):
            found = of_judge(records)
            mean, std = spread(records)
            margin = fmean(record.lead for record in records)
            seeds[str(seed)] = {
                "accuracy_macro": found["accuracy_macro"]["mean"],
                "length_matched_macro": found["length_matched_macro"]["mean"]
                if found["length_matched_macro"]
                else None,
                "accuracy": means(found["accuracy"]),
                "mean": mean,
                "std": std,
                "margin": margin,
            }
        own = [its["accuracy_macro"] for its in seeds.values()]
        return {
            "arm": self.name,
            "loss": self.loss,
            "margin": self.margin,
            "seeds": seeds,
            "accuracy_macro": fmean(own),
            "spread": stdev(own) if len(own) > 1 else None,
        }


def name_of(loss: str, margin: str) -> str:
    """Return the name of an arm."""
    return f"{loss}-{'plain' if margin == 'none' else 'margin'}"


def choose(arms: Sequence[Arm], rule: ChoiceRule) -> tuple[Arm, str]:
    """Choose among arms as the recipe does among checkpoints, and say why: accuracy, scale, margin.

    As accurate as the most accurate one, as far as the held-out pairs can tell (macro, hits averaged over the seeds);
    mean and deviation of the scores within the rule's bounds; of these the widest margin in standard deviations.

    Raises:
        ValueError: There are no arms.
    """
    if not arms:
        raise ValueError("no arm to choose from")
    hits = {arm.name: arm.hits for arm in arms}
    records = {arm.name: next(iter(arm.by_seed.values())) for arm in arms}
    accuracy = {name: _macro(records[name], its) for name, its in hits.items()}
    best = max(arms, key=lambda arm: accuracy[arm.name].mean)
    behind = {
        name: _macro(records[name], [top - own for top, own in zip(hits[best.name], its, strict=True)])
        for name, its in hits.items()
    }
    level = [arm for arm in arms if arm is best or not behind[arm.name].is_above(0)]
    scales = {arm.name: _scale(arm) for arm in arms}
    excess = {name: rule.excess(mean, std) for name, (mean, std, _) in scales.items()}
    scaled = [arm for arm in level if not excess[arm.name]]
    chosen = (
        max(scaled, key=lambda arm: scales[arm.name][2]) if scaled else min(level, key=lambda arm: excess[arm.name])
    )
    said = f"{best.name} is the most accurate ({accuracy[best.name].mean:.3f}, macro, mean of its seeds)"
    others = [arm.name for arm in level if arm is not best]
    said += f"; the held-out pairs cannot tell {', '.join(others)} apart from it." if others else ", beyond chance."
    if not scaled:
        return chosen, f"{said} None of them keeps to the bounds of the scale; {chosen.name} is nearest."
    mean, std, margin = scales[chosen.name]
    said += f" Within the bounds of the scale ({', '.join(arm.name for arm in scaled)}), {chosen.name} has the widest "
    return chosen, said + f"margin: {margin:.2f} standard deviations (mean {mean:+.2f}, standard deviation {std:.2f})."


def _macro(records: Sequence[Judged], numbers: Sequence[float]) -> Estimate:
    return macro(parts(records, lambda place: numbers[place]), seed=0)


def _scale(arm: Arm) -> tuple[float, float, float]:
    """Mean and deviation of the scores and margin in deviations, each the mean over the seeds."""
    found = []
    for records in arm.by_seed.values():
        mean, std = spread(records)
        found.append((mean, std, fmean(record.lead for record in records) / std if std else 0.0))
    mean, std, margin = (fmean(column) for column in zip(*found, strict=True))
    return mean, std, margin


def decided_in_order(records: Sequence[Judged]) -> tuple[Judged, ...]:
    """Return the decided pairs by their ids: the order that judges are compared in."""
    return tuple(sorted(decided(records), key=lambda record: record.pair_id))
