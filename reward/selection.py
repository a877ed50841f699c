"""Which epoch of a reward model goes on: a rule that is written down before it is applied.

The recipe keeps one checkpoint an epoch and chooses by test accuracy, scale of the scores and margin. Here, in this
order: an epoch must be as accurate as the most accurate one, as far as the held-out pairs can tell; its scores must lie
within bounds; and of what is left the widest margin wins, in standard deviations, since the export brings every epoch
to the same scale.

    <run>/selection.json                  the Selection
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from finlm import jsonl, runs
from reward.intervals import Estimate, by_prompt
from reward.judged import Judged, decided
from reward.measures import accuracy, margin, spread

SELECTION = "selection.json"


@dataclass(frozen=True, kw_only=True)
class ChoiceRule:
    """Bounds of the choice among epochs: where mean and deviation of the scores may lie, units of the loss."""

    mean_limit: float = 1.0
    """Farthest that the mean score may lie from 0, in the units of the loss."""
    least_std: float = 0.1
    """Standard deviation of the scores at least, same units: below it the model hardly tells answers apart."""
    most_std: float = 2.0
    """At most: beyond it, scores grow by being surer of what is known already."""

    def __post_init__(self) -> None:
        if not self.mean_limit > 0:
            raise ValueError(f"mean_limit is {self.mean_limit}; it must be above 0.")
        if not 0 <= self.least_std < self.most_std:
            raise ValueError(
                f"least_std is {self.least_std} and most_std {self.most_std}; it must be 0 <= least_std < most_std."
            )

    def excess(self, mean: float, std: float) -> float:
        """How far mean and standard deviation lie outside the bounds, added up; 0 inside."""
        return max(abs(mean) - self.mean_limit, 0.0) + max(self.least_std - std, std - self.most_std, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """The figures of one epoch that the choice looks at.

    Example:
        Epoch(epoch=2, accuracy=Estimate(…), behind=Estimate(…), mean=0.1, std=0.9, margin=0.5, is_accurate=True,
              is_scaled=True)
    """

    epoch: int
    """From 1."""
    accuracy: Estimate
    behind: Estimate
    """Accuracy of the most accurate epoch less this one's, pair by pair."""
    mean: float
    """Of all scores, in the units of the loss."""
    std: float
    margin: float
    """Mean score of the better answers less that of the others, same units."""
    is_accurate: bool
    """True if it is not shown to be less accurate than the most accurate epoch."""
    is_scaled: bool
    """True if mean and standard deviation keep to the bounds."""

    @property
    def margin_in_std(self) -> float:
        """Margin in standard deviations; 0 where all scores are the same."""
        return self.margin / self.std if self.std else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The whole of `selection.json`.

    Example:
        Selection(epoch=2, reason="…", rule=ChoiceRule(), epochs=(Epoch(…), Epoch(…)))
    """

    epoch: int
    """The chosen one."""
    reason: str
    rule: ChoiceRule
    epochs: tuple[Epoch, ...]

    def __post_init__(self) -> None:
        if self.epoch not in [one.epoch for one in self.epochs]:
            raise ValueError(f"the chosen epoch {self.epoch} is not among the {len(self.epochs)} epochs")

    @property
    def chosen(self) -> Epoch:
        """The figures of the chosen epoch."""
        return next(one for one in self.epochs if one.epoch == self.epoch)


def select(judged: Mapping[int, Sequence[Judged]], rule: ChoiceRule, *, seed: int) -> Selection:
    """Choose among epochs by what they make of the same held-out pairs.

    Args:
        judged: Epoch -> its judged pairs, in the units of the loss (before the export brings them to one scale).
        rule: The bounds.
        seed: Of the intervals.

    Raises:
        ValueError: There are no epochs, they were not asked about the same pairs, or none of those is decided.
    """
    epochs = _epochs(judged, rule, seed=seed)
    accurate = [one for one in epochs if one.is_accurate]
    scaled = [one for one in accurate if one.is_scaled]
    if scaled:
        chosen = max(scaled, key=lambda one: (one.margin_in_std, -one.epoch))
    else:
        chosen = min(accurate, key=lambda one: (rule.excess(one.mean, one.std), one.epoch))
    return Selection(epoch=chosen.epoch, reason=_reason(chosen, epochs, rule), rule=rule, epochs=tuple(epochs))


def _epochs(judged: Mapping[int, Sequence[Judged]], rule: ChoiceRule, *, seed: int) -> list[Epoch]:
    if not judged:
        raise ValueError("no epoch to choose from")
    pairs = {epoch: {record.pair_id: record for record in decided(records)} for epoch, records in judged.items()}
    first = min(pairs)
    if different := [epoch for epoch in pairs if pairs[epoch].keys() != pairs[first].keys()]:
        raise ValueError(f"epochs {first} and {min(different)} were not asked about the same pairs")
    if not pairs[first]:
        raise ValueError("no pair is decided: there is nothing to choose by")
    hits = {epoch: sum(record.hit for record in its.values()) for epoch, its in pairs.items()}
    best = max(sorted(hits), key=lambda epoch: hits[epoch])
    epochs = []
    for epoch in sorted(pairs):
        its = pairs[epoch]
        known = list(its.values())
        mean, std = spread(known)
        behind = by_prompt(
            [pairs[best][name].hit - record.hit for name, record in its.items()],
            [record.prompt_id for record in its.values()],
            seed=seed,
        )
        epochs.append(
            Epoch(
                epoch=epoch,
                accuracy=accuracy(known, seed=seed),
                behind=behind,
                mean=mean,
                std=std,
                margin=margin(known, seed=seed).mean,
                is_accurate=epoch == best or not behind.is_above(0),
                is_scaled=rule.excess(mean, std) == 0,
            )
        )
    return epochs


def _reason(chosen: Epoch, epochs: Sequence[Epoch], rule: ChoiceRule) -> str:
    if len(epochs) == 1:
        return f"Epoch {chosen.epoch} is the only one.{_broken(chosen, rule)}"
    most = max(epochs, key=lambda one: (one.accuracy.mean, -one.epoch))
    level = [one for one in epochs if one.is_accurate and one is not most]
    scaled = [one for one in (most, *level) if one.is_scaled]
    said = f"Epoch {most.epoch} is the most accurate ({most.accuracy.mean:.3f})"
    if not level:
        said += ", beyond what chance could do."
    elif most.accuracy.low is None:
        said += f"; {most.accuracy.prompts} prompts are too few to tell {_listed(level)} apart from it."
    else:
        said += f"; the held-out pairs cannot tell {_listed(level)} apart from it."
    if not scaled:
        which = "None of them keeps" if level else "It does not keep"
        return f"{said} {which} to the bounds of the scale; epoch {chosen.epoch} is nearest.{_broken(chosen, rule)}"
    if len(scaled) > 1:
        ranked = _listed(sorted(scaled, key=lambda one: one.epoch))
        return (
            f"{said} Of {ranked}, which keep to the bounds of the scale, epoch {chosen.epoch} has the widest margin: "
            f"{chosen.margin_in_std:.2f} standard deviations."
        )
    only = f"Of these, only epoch {chosen.epoch} keeps" if level else "It keeps"
    return f"{said} {only} to the bounds of the scale (mean {chosen.mean:+.2f}, standard deviation {chosen.std:.2f})."


def _broken(one: Epoch, rule: ChoiceRule) -> str:
    if one.is_scaled:
        return ""
    return (
        f" Its scores have mean {one.mean:+.2f} (bounds ±{rule.mean_limit:g}) and standard deviation {one.std:.2f} "
        f"(bounds {rule.least_std:g} to {rule.most_std:g})."
    )


def _listed(epochs: Sequence[Epoch]) -> str:
    *others, last = (str(one.epoch) for one in epochs)
    return f"epochs {', '.join(others)} and {last}" if others else f"epoch {last}"


def write_selection(folder: Path, selection: Selection) -> None:
    """Write `selection.json`, whole or not at all."""
    runs.write_json(folder / SELECTION, asdict(selection))


def read_selection(folder: Path) -> Selection | None:
    """Return the choice of a run; None where none was made.

    Raises:
        UserError: The file is damaged.
    """
    return jsonl.read_whole(folder / SELECTION, Selection)
