"""Guards: decisions about a run from what it has written down, so that it ends before it is ruined.

PPO finds what its reward model has never seen; the reward then rises while the answers get worse. What gives it away
are KL, length, entropy, ended answers, reward models that disagree, and a measure that does not train. Each guard looks
at one of them and returns a `GuardVerdict`: it warns when the last update lies beyond a limit and acts when several in
a row do. Pure functions of records: a resumed run decides as an unbroken one.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import NamedTuple

from alignment.best import trusted_update
from finlm.ppo_records import Action, GuardVerdict, HeldOutRecord

_SEVERITY: tuple[Action, ...] = ("ok", "warn", "stop", "roll back")


@dataclass(frozen=True, kw_only=True)
class GuardConfig:
    """Limits of the guards, 0 switches one off, and what becomes of a run that they act on."""

    acts: bool = True
    """Stop and roll back; false only warns, and lets a run go on that was stopped."""
    roll_backs: int = 0
    """Times that a run goes on by itself after it was rolled back. Beyond that it is rolled back and stops; the same
    command then goes on from there."""
    kl_coef_factor: float = 2.0
    """After each roll-back kl_coef is multiplied by this, and"""
    learning_rate_factor: float = 0.5
    """both learning rates by this, so that the run does not take the same way again."""
    patience: int = 5
    """Updates in a row beyond a limit before a guard acts; it warns from the first."""
    start_updates: int = 3
    """First updates of a run; their mean is the start that length, entropy and ended answers are measured against. A
    policy that drifts fast is already elsewhere after ten; during the three of the warm-up it hardly moves."""
    kl_target: float = 6.0
    """Nats per answer that a run is meant to spend; 6 is the target of Ziegler et al. 2019."""
    kl_multiple: float = 3.0
    """KL may reach this many times the target. Beyond it the guard rolls back."""
    length_ratio: float = 2.0
    """Mean length may become this many times longer or shorter than at the start. Beyond it the guard stops."""
    entropy_share: float = 0.1
    """Share of the start's entropy per token that must remain. Below it the guard stops."""
    ended_fall: float = 0.25
    """How far the share of ended answers may fall below the start's. Beyond it the guard stops."""
    disagreement_multiple: float = 2.0
    """With several reward models: their disagreement about the answers may reach this many times the start's. Beyond it
    the guard rolls back."""
    anchor_evaluations: int = 5
    """Held-out evaluations over which a falling anchor is looked for, 3 or more. Found, the guard rolls back."""
    anchor_z: float = 3.0
    """Standard errors by which the anchor's slope must be below zero, and the training reward's above."""

    def __post_init__(self) -> None:
        if self.roll_backs < 0:
            raise ValueError(f"roll_backs is {self.roll_backs}; it must be 0 (stop) or a number of times.")
        if self.kl_coef_factor < 1:
            raise ValueError(f"kl_coef_factor is {self.kl_coef_factor}; it must be 1 (no change) or more.")
        if not 0 < self.learning_rate_factor <= 1:
            raise ValueError(
                f"learning_rate_factor is {self.learning_rate_factor}; it must be above 0 and at most 1 (no change)."
            )
        for name in ("patience", "start_updates"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 1 or more.")
        for name in ("kl_target", "kl_multiple"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 0 (off) or more.")
        for name in ("length_ratio", "disagreement_multiple"):
            if getattr(self, name) and getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 0 (off) or more than 1.")
        for name in ("entropy_share", "ended_fall"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 0 (off) or a share below 1.")
        if self.anchor_evaluations < 0 or self.anchor_evaluations in (1, 2):
            raise ValueError(f"anchor_evaluations is {self.anchor_evaluations}; it must be 0 (off) or 3 or more.")
        if self.anchor_z <= 0:
            raise ValueError(f"anchor_z is {self.anchor_z}; it must be above 0.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What the guards look at of one update.

    Example:
        Observed(update=3, score=0.4, kl=1.2, tokens=31.0, entropy=0.7, ended=0.95)
    """

    update: int
    score: float
    """Mean score of the rollout, score units."""
    kl: float
    """Nats per answer."""
    tokens: float
    """Mean length of the answers."""
    entropy: float
    """Nats per token."""
    ended: float
    """Share of answers with an end token."""
    disagreement: float | None = None
    """Standard deviation of the reward models' scores of an answer, mean over answers; None where there is one."""

    @classmethod
    def of(cls, metrics: Mapping[str, float]) -> "Observed":
        """Take one line of `metrics.jsonl`."""
        return cls(
            update=int(metrics["step"]),
            score=metrics["objective/scores"],
            kl=metrics["objective/kl"],
            tokens=metrics["rollout/answer_tokens"],
            entropy=metrics["objective/entropy"] / max(metrics["rollout/answer_tokens"], 1.0),
            ended=metrics["rollout/ended_share"],
            disagreement=metrics.get("rollout/disagreement"),
        )


class Slope(NamedTuple):
    """A trend per update with its standard error."""

    per_update: float
    error: float


def judge(
    config: GuardConfig, observed: Sequence[Observed], evaluations: Sequence[HeldOutRecord] = ()
) -> list[GuardVerdict]:
    """Return the verdicts of all guards that are on after the last observed update.

    Args:
        config: The limits.
        observed: All updates so far, in order; what a run did before it was rolled back is left out.
        evaluations: All held-out evaluations so far, in order.
    """
    if not observed:
        return []
    guards = (kl, length, entropy, ended, disagreement)
    found = [guard(config, observed) for guard in guards]
    return [verdict for verdict in (*found, anchor(config, observed, evaluations)) if verdict is not None]


def news(
    config: GuardConfig, observed: Sequence[Observed], evaluations: Sequence[HeldOutRecord] = ()
) -> list[GuardVerdict]:
    """Return the verdicts, as `judge`, that are not what the guard said an update before, the content ones left out."""
    last = observed[-1].update if observed else 0
    before = judge(config, observed[:-1], [one for one in evaluations if one.update < last])
    known = {verdict.guard: verdict.action for verdict in before}
    return [
        verdict
        for verdict in judge(config, observed, evaluations)
        if verdict.action not in ("ok", known.get(verdict.guard))
    ]


def worst(verdicts: Sequence[GuardVerdict]) -> GuardVerdict | None:
    """Return the verdict to act on, the first of equals; None if there is none."""
    return max(verdicts, key=lambda verdict: _SEVERITY.index(verdict.action), default=None)


# ---------------------------------------------------------------------------------------------- one guard each


def kl(config: GuardConfig, observed: Sequence[Observed]) -> GuardVerdict | None:
    """Roll back where the policy has left the reference: KL per answer above a multiple of its target."""
    limit = config.kl_target * config.kl_multiple
    if not limit:
        return None
    return _patient(
        config,
        observed,
        "kl",
        lambda one: one.kl > limit,
        "roll back",
        f"KL is {_last(observed, lambda one: one.kl, config)} nats per answer, the limit is {limit:g} "
        f"({config.kl_multiple:g} x kl_target {config.kl_target:g})",
        "go back to the best checkpoint and raise kl_coef or lower learning_rate",
    )


def length(config: GuardConfig, observed: Sequence[Observed]) -> GuardVerdict | None:
    """Stop where the reward model pays for length, or for saying nothing."""
    begun = _start(config, observed, lambda one: one.tokens)
    if not config.length_ratio or begun is None:
        return None
    low, high = begun / config.length_ratio, begun * config.length_ratio
    return _patient(
        config,
        observed,
        "length",
        lambda one: not low <= one.tokens <= high,
        "stop",
        f"Answers have {_last(observed, lambda one: one.tokens, config)} tokens, at the start {begun:.1f}; the limits "
        f"are {low:.1f} and {high:.1f} (length_ratio {config.length_ratio:g})",
        "read the last rollouts: if they are not better for it, train the reward model on pairs whose better answer is "
        "not the one of that length, or raise kl_coef",
    )


def entropy(config: GuardConfig, observed: Sequence[Observed]) -> GuardVerdict | None:
    """Stop where the policy says the same thing every time: nothing is left to learn from."""
    begun = _start(config, observed, lambda one: one.entropy)
    if not config.entropy_share or begun is None:
        return None
    limit = begun * config.entropy_share
    return _patient(
        config,
        observed,
        "entropy",
        lambda one: one.entropy < limit,
        "stop",
        f"Entropy is {_last(observed, lambda one: one.entropy, config, 3)} nats per token, at the start {begun:.3f}; "
        f"the limit is {limit:.3f} (entropy_share {config.entropy_share:g})",
        "lower learning_rate or raise kl_coef, and begin from an earlier checkpoint",
    )


def ended(config: GuardConfig, observed: Sequence[Observed]) -> GuardVerdict | None:
    """Stop where fewer and fewer answers come to an end."""
    begun = _start(config, observed, lambda one: one.ended)
    if not config.ended_fall or begun is None:
        return None
    limit = begun - config.ended_fall
    return _patient(
        config,
        observed,
        "ended",
        lambda one: one.ended < limit,
        "stop",
        f"The share of ended answers is {_last(observed, lambda one: one.ended, config, 2)}, at the start {begun:.2f}; "
        f"the limit is {limit:.2f} (ended_fall {config.ended_fall:g})",
        "raise missing_eos_penalty or response_length",
    )


def disagreement(config: GuardConfig, observed: Sequence[Observed]) -> GuardVerdict | None:
    """Roll back where the policy writes what the reward models do not agree about: none of them has seen the like."""
    if not config.disagreement_multiple or any(one.disagreement is None for one in observed):
        return None
    begun = _start(config, observed, _disagreement)
    if not begun:
        return None
    limit = begun * config.disagreement_multiple
    return _patient(
        config,
        observed,
        "disagreement",
        lambda one: _disagreement(one) > limit,
        "roll back",
        f"The reward models' scores of an answer differ by {_last(observed, _disagreement, config, 2)} (standard "
        f"deviation), at the start {begun:.2f}; the limit is {limit:.2f} (disagreement_multiple "
        f"{config.disagreement_multiple:g})",
        "go back to the best checkpoint and raise kl_coef, set reward_reduce to min, or train the reward models on "
        "answers like the last rollouts'",
    )


def _disagreement(one: Observed) -> float:
    return one.disagreement or 0.0


def anchor(
    config: GuardConfig, observed: Sequence[Observed], evaluations: Sequence[HeldOutRecord]
) -> GuardVerdict | None:
    """Roll back where the training reward rises and a measure that does not train falls.

    The anchor is the second reward model's score, or, without one, whether answers are right. Its slope is taken for
    each held-out prompt over the last `anchor_evaluations`; the mean of these slopes has the standard error of a mean
    over prompts, so that neither hard prompts nor the luck of sampling count as a trend. The training reward's slope is
    that of a straight line through the same span of updates, with the error of its residuals.
    """
    window = list(evaluations)[-config.anchor_evaluations :] if config.anchor_evaluations else []
    name = "anchor's score" if window and window[0].anchors else "share of right answers"
    rows = [[float(number) for number in (one.anchors or one.rights)] for one in window]
    if not window or len(window) < config.anchor_evaluations or any(len(row) < 2 for row in rows):
        return None
    first, last = window[0].update, window[-1].update
    updates = [one.update for one in window]
    fall = mean_slope([line_slope(updates, series).per_update for series in zip(*rows, strict=True)])
    trained = [one for one in observed if first < one.update <= last]
    if len(trained) < 3:
        return None
    rise = line_slope([one.update for one in trained], [one.score for one in trained])
    is_falling = fall.per_update < -config.anchor_z * fall.error
    is_rising = rise.per_update > config.anchor_z * rise.error
    facts = (
        f"From update {first} to {last} the training reward changed by {_change(rise, last - first)} and the held-out "
        f"{name} by {_change(fall, last - first)}; the limit is {config.anchor_z:g} standard errors (anchor_z)"
    )
    if not (is_falling and is_rising):
        return GuardVerdict(guard="anchor", update=observed[-1].update, action="ok", sentence=f"{facts}.")
    way_out = "go back to the best checkpoint; the reward model no longer measures what it was trained for"
    return GuardVerdict(
        guard="anchor",
        update=observed[-1].update,
        action="roll back",
        sentence=f"{facts}: {way_out}.",
        since=(trusted_update(evaluations) or 0) + 1,
    )


# ---------------------------------------------------------------------------------------------- arithmetic


def line_slope(x: Sequence[float], y: Sequence[float]) -> Slope:
    """Return the slope of the least-squares line through (x, y) and its standard error.

        b = Sxy / Sxx        se^2 = sum of squared residuals / (n - 2) / Sxx

    Draper and Smith, "Applied Regression Analysis" (1998), section 1.4. Two points have no residuals: their error is 0.

    Raises:
        ValueError: Fewer than two different x.
    """
    count = len(x)
    if len(set(x)) < 2:
        raise ValueError(f"a slope needs two different x, got {sorted(set(x))}")
    mean_x, mean_y = sum(x) / count, sum(y) / count
    spread = sum((one - mean_x) ** 2 for one in x)
    slope = sum((one - mean_x) * (other - mean_y) for one, other in zip(x, y, strict=True)) / spread
    residual = sum((b - mean_y - slope * (a - mean_x)) ** 2 for a, b in zip(x, y, strict=True))
    return Slope(slope, math.sqrt(residual / (count - 2) / spread) if count > 2 else 0.0)


def mean_slope(slopes: Sequence[float]) -> Slope:
    """Return the mean of independent slopes and its standard error, the sample deviation over sqrt(n)."""
    count = len(slopes)
    mean = sum(slopes) / count
    variance = sum((slope - mean) ** 2 for slope in slopes) / (count - 1)
    return Slope(mean, math.sqrt(variance / count))


def _patient(
    config: GuardConfig,
    observed: Sequence[Observed],
    guard: str,
    is_beyond: Callable[[Observed], bool],
    action: Action,
    facts: str,
    way_out: str,
) -> GuardVerdict:
    """Warn if the last update is beyond the limit, act if as many in a row as `patience` are."""
    update = observed[-1].update
    if not is_beyond(observed[-1]):
        return GuardVerdict(guard=guard, update=update, action="ok", sentence=f"{facts}.")
    beyond = list(takewhile(is_beyond, reversed(observed)))
    since = beyond[-1].update - 1  # an update's figures are of the policy that sampled, before it learned
    if len(beyond) >= config.patience:
        return GuardVerdict(guard=guard, update=update, action=action, sentence=f"{facts}: {way_out}.", since=since)
    return GuardVerdict(
        guard=guard,
        update=update,
        action="warn",
        since=since,
        sentence=f"{facts}; after {config.patience} updates in a row: {action}. {way_out[0].upper()}{way_out[1:]}.",
    )


def _start(config: GuardConfig, observed: Sequence[Observed], of: Callable[[Observed], float]) -> float | None:
    """Mean over the run's first updates; None until they are all there."""
    first = observed[: config.start_updates]
    if len(observed) <= config.start_updates:
        return None
    return sum(of(one) for one in first) / len(first)


def _last(observed: Sequence[Observed], of: Callable[[Observed], float], config: GuardConfig, digits: int = 1) -> str:
    """The values of the last updates that count, oldest first."""
    return ", ".join(f"{of(one):.{digits}f}" for one in observed[-config.patience :])


def _change(slope: Slope, updates: int) -> str:
    return f"{slope.per_update * updates:+.2f} (standard error {slope.error * updates:.2f})"
