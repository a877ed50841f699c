"""The confidence filter: prompts whose answers the reward model tells apart, neither hopeless nor always right.

n answers of one prompt are scored. Where the scores hardly differ, a policy gradient has nothing to prefer; where their
mean is extreme, the prompt is out of reach or mastered, or the reward model is not to be trusted. The rest is drawn in
proportion to the standard deviation (XuanYuan3-70B's report; it publishes no thresholds, so the defaults are ours).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite, log
from pathlib import Path
from statistics import fmean, stdev
from typing import Literal

from finlm import jsonl
from finlm.errors import UserError
from finlm.records import Candidates, Prompt, Removal, content_id


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredPrompt:
    """The scores of a prompt's answers.

    Example:
        ScoredPrompt(prompt_id="9f…", scores=(0.4, -1.2, 0.9))
    """

    prompt_id: str
    scores: tuple[float, ...]
    """One number per answer, in the reward model's units."""

    def __post_init__(self) -> None:
        if len(self.scores) < 2:
            raise ValueError(f"prompt {self.prompt_id} has {len(self.scores)} score; a deviation needs 2 or more")
        if not all(isfinite(score) for score in self.scores):
            raise ValueError(f"prompt {self.prompt_id} has a score that is not finite")

    @property
    def mean(self) -> float:
        """Mean of the scores."""
        return fmean(self.scores)

    @property
    def deviation(self) -> float:
        """Standard deviation of the scores, with n - 1 in the denominator."""
        return stdev(self.scores)


@dataclass(frozen=True, kw_only=True)
class ConfidenceSettings:
    """Settings of the confidence filter; without `scores` or `score_with` there is no filter."""

    scores: str = ""
    """File of ScoredPrompt records, {"prompt_id": …, "scores": […]} a line."""
    score_with: str = ""
    """Reward model that scores `candidates` here; the scores are kept in the run's folder."""
    candidates: str = "{runs}/candidates.jsonl"
    """File of Candidates records for `score_with`."""
    thresholds: Literal["quantile", "score"] = "quantile"
    """Unit of the three limits below: quantile (0 to 1, of the category's scored prompts), or score units."""
    least_deviation: float = 0.2
    """Prompts whose scores have a smaller standard deviation go; one of zero always goes."""
    lowest_mean: float = 0.05
    """Prompts with a lower mean score go."""
    highest_mean: float = 0.95
    """Prompts with a higher mean score go."""
    unscored: Literal["keep", "drop"] = "keep"
    """What becomes of prompts without scores; a kept one is drawn like one of mean deviation."""

    def __post_init__(self) -> None:
        if self.scores and self.score_with:
            raise ValueError(f"scores is {self.scores!r} and score_with is {self.score_with!r}; give one of them.")
        if self.lowest_mean > self.highest_mean:
            raise ValueError(f"lowest_mean {self.lowest_mean} is above highest_mean {self.highest_mean}.")
        if self.least_deviation < 0:
            raise ValueError(f"least_deviation is {self.least_deviation}; it must be 0 or more.")
        if self.thresholds == "quantile":
            for name in ("least_deviation", "lowest_mean", "highest_mean"):
                value = getattr(self, name)
                if not 0 <= value <= 1:
                    raise ValueError(f"{name} is {value}; as a quantile it must be 0 to 1 (or set thresholds: score).")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the thresholds come to in one category, in score units.

    Example:
        Limits(category="finance", scored=240, least_deviation=0.31, lowest_mean=-1.9, highest_mean=1.2)
    """

    category: str
    scored: int
    """Prompts of the category that have scores."""
    least_deviation: float
    lowest_mean: float
    highest_mean: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Filtered:
    """The filter's outcome."""

    kept: list[Prompt]
    removals: list[Removal]
    """By the rules `small-deviation`, `extreme-mean` and `no-scores`."""
    weights: dict[str, float]
    """Prompt id -> what its chance to be drawn is proportional to."""
    limits: list[Limits]
    unscored: int
    """Prompts without scores, kept or not."""


def quantile(numbers: Sequence[float], share: float) -> float:
    """Return the number below which `share` of the `numbers` lie, interpolated linearly (type 7 of Hyndman and Fan
    1996, numpy's default).

    Raises:
        ValueError: There are no numbers.
    """
    if not numbers:
        raise ValueError("no numbers to take a quantile of")
    ranked = sorted(numbers)
    place = share * (len(ranked) - 1)
    below = min(int(place), len(ranked) - 2) if len(ranked) > 1 else 0
    above = min(below + 1, len(ranked) - 1)
    return ranked[below] + (place - below) * (ranked[above] - ranked[below])


def limits_of(category: str, scored: Sequence[ScoredPrompt], settings: ConfidenceSettings) -> Limits:
    """Return the thresholds for one category in score units."""
    asked = (settings.least_deviation, settings.lowest_mean, settings.highest_mean)
    if settings.thresholds == "quantile" and scored:
        deviations, means = [one.deviation for one in scored], [one.mean for one in scored]
        asked = (quantile(deviations, asked[0]), quantile(means, asked[1]), quantile(means, asked[2]))
    return Limits(
        category=category,
        scored=len(scored),
        least_deviation=asked[0],
        lowest_mean=asked[1],
        highest_mean=asked[2],
    )


def confident(prompts: Sequence[Prompt], scored: dict[str, ScoredPrompt], settings: ConfidenceSettings) -> Filtered:
    """Drop the prompts that the scores speak against, and weigh the rest by their standard deviation.

    Args:
        prompts: The prompts.
        scored: Prompt id -> its scores.
        settings: Thresholds.
    """
    limits = {
        category: limits_of(
            category, [scored[p.id] for p in prompts if p.category == category and p.id in scored], settings
        )
        for category in sorted({prompt.category for prompt in prompts})
    }
    removals: list[Removal] = []
    kept: list[Prompt] = []
    for prompt in prompts:
        removal = _removal(prompt, scored.get(prompt.id), limits[prompt.category], settings.unscored)
        if removal is None:
            kept.append(prompt)
        else:
            removals.append(removal)
    return Filtered(
        kept=kept,
        removals=removals,
        weights=_weights(kept, scored),
        limits=[limits[name] for name in limits if limits[name].scored],
        unscored=sum(prompt.id not in scored for prompt in prompts),
    )


def _removal(prompt: Prompt, scores: ScoredPrompt | None, limits: Limits, unscored: str) -> Removal | None:
    if scores is None:
        reason = "its answers were not scored"
        return None if unscored == "keep" else Removal(record_id=prompt.id, rule="no-scores", reason=reason)
    if scores.deviation < limits.least_deviation or scores.deviation == 0:
        reason = f"standard deviation {scores.deviation:.4g} of {len(scores.scores)} scores"
        return Removal(
            record_id=prompt.id, rule="small-deviation", reason=f"{reason}, the least is {limits.least_deviation:.4g}"
        )
    if not limits.lowest_mean <= scores.mean <= limits.highest_mean:
        reason = f"mean score {scores.mean:.4g}, the band is {limits.lowest_mean:.4g} to {limits.highest_mean:.4g}"
        return Removal(record_id=prompt.id, rule="extreme-mean", reason=reason)
    return None


def _weights(prompts: Iterable[Prompt], scored: dict[str, ScoredPrompt]) -> dict[str, float]:
    """Each prompt's deviation; without scores, the mean deviation of its category (1 where nothing is scored)."""
    by_category: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        by_category.setdefault(prompt.category, []).append(prompt)
    weights = {}
    for members in by_category.values():
        known = [scored[prompt.id].deviation for prompt in members if prompt.id in scored]
        neutral = fmean(known) if known else 1.0
        for prompt in members:
            weights[prompt.id] = scored[prompt.id].deviation if prompt.id in scored else neutral
    return weights


def draw_weighted(prompts: Sequence[Prompt], weights: Mapping[str, float], count: int, *, seed: int) -> list[Prompt]:
    """Draw `count` prompts without replacement, each draw in proportion to the weights of what is left.

    The largest keys log(u) / w, with u uniform in (0, 1), are such a draw (Efraimidis and Spirakis 2006, "Weighted
    random sampling with a reservoir", algorithm A). u comes from the seed and the prompt's id alone, so neither the
    order of the prompts nor other prompts change it.
    """

    def key(prompt: Prompt) -> tuple[float, str]:
        uniform = (int(content_id(seed, "confidence", prompt.id), 16) + 0.5) / 16**16
        weight = weights[prompt.id]
        return (log(uniform) / weight if weight > 0 else -inf, prompt.id)

    return sorted(prompts, key=key, reverse=True)[:count]


# ---------------------------------------------------------------------------------------------- where scores come from


def read_scores(path: str | Path) -> dict[str, ScoredPrompt]:
    """Read a file of scores.

    Raises:
        UserError: A line is no ScoredPrompt, or two lines are of one prompt.
    """
    found: dict[str, ScoredPrompt] = {}
    for scored in jsonl.read(path, ScoredPrompt):
        if scored.prompt_id in found:
            raise UserError(f"{path}: prompt {scored.prompt_id} has two lines of scores; write all of them in one.")
        found[scored.prompt_id] = scored
    return found


def answers_of(path: str | Path, wanted: Iterable[str]) -> dict[str, Candidates]:
    """Return the candidates of the wanted prompts, the answers of several records of one prompt together.

    Raises:
        UserError: A wanted prompt has one answer only.
    """
    ids = set(wanted)
    found: dict[str, Candidates] = {}
    for item in jsonl.read(path, Candidates):
        if item.prompt.id in ids:
            earlier = found[item.prompt.id].responses if item.prompt.id in found else ()
            found[item.prompt.id] = Candidates(prompt=item.prompt, responses=(*earlier, *item.responses))
    for item in found.values():
        if len(item.responses) < 2:
            raise UserError(
                f"{path}: prompt {item.prompt.id} has one answer, a deviation needs 2 or more; sample more: "
                "finlm respond --responses 4"
            )
    return found
