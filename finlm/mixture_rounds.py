"""The next mixture of prompts from an evaluation by category: the decisions of a PEI round (docs/pei.md).

Model gain and reward-model agreement are each good, medium or bad, and together they raise, keep or lower a share.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from finlm import jsonl
from finlm.bounded import scaled_to_one
from finlm.category_figures import CategoryFigures
from finlm.errors import MissingInput, UserError
from finlm.prompt_mixture import Cell, Mixture

Grade = Literal["good", "medium", "bad", "unknown"]
Change = Literal["raise", "keep", "lower"]

CHANGES: dict[tuple[Grade, Grade], Change] = {
    # (gain, agreement): a reward model that is right is worth following where little is gained yet, ...
    ("good", "good"): "keep",
    ("medium", "good"): "raise",
    ("bad", "good"): "raise",
    ("good", "medium"): "keep",
    ("medium", "medium"): "keep",
    ("bad", "medium"): "lower",
    # ... one that is wrong teaches the wrong thing, the more the more prompts it has
    ("good", "bad"): "keep",
    ("medium", "bad"): "lower",
    ("bad", "bad"): "lower",
}
"""What becomes of a share. The recipe names the grades and the grid; which field does what is ours."""


@dataclass(frozen=True, kw_only=True)
class RoundSettings:
    """Settings of the next mixture; without `mixture_from` the mixture stays as it is given."""

    mixture_from: str = ""
    """Folder of an evaluation, whose categories.jsonl decides how the shares change."""
    policy: str = "ppo"
    """Name of the policy in that evaluation."""
    gain_by: Literal["right", "reward"] = "right"
    """What gain is: of right answers (in shares), or of the reward model's score (in score units)."""
    gain_good: float = 0.05
    """Least mean gain that is good, in the unit of `gain_by`."""
    gain_bad: float = 0.0
    """A mean gain of this or less is bad."""
    agreement_good: float = 0.7
    """Least agreement of the reward model that is good (0.5 is chance; the recipe's reaches 0.66 to 0.69)."""
    agreement_bad: float = 0.6
    """An agreement of this or less is bad."""
    least_evidence: int = 20
    """Answers, and pairs, below which a grade is unknown and the share is kept."""
    mixture_step: float = 1.25
    """A raised share is multiplied by this, a lowered one divided; then all are scaled to add up to 1."""
    least_share: float = 0.02
    """No share falls below this (one that is already lower stays where it is at least)."""
    most_share: float = 1.0
    """No share rises above this (one that is already higher stays where it is at most)."""

    def __post_init__(self) -> None:
        if self.gain_bad > self.gain_good:
            raise ValueError(f"gain_bad {self.gain_bad} is above gain_good {self.gain_good}.")
        if not 0 <= self.agreement_bad <= self.agreement_good <= 1:
            raise ValueError(
                f"agreement_bad {self.agreement_bad} and agreement_good {self.agreement_good} must be 0 to 1, in order."
            )
        if self.mixture_step <= 1:
            raise ValueError(f"mixture_step is {self.mixture_step}; it must be above 1.")
        if not 0 <= self.least_share <= self.most_share <= 1:
            raise ValueError(
                f"least_share {self.least_share} and most_share {self.most_share} must be 0 to 1, in order."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a round decides for one share.

    Example:
        Decision(category="finance", subfield="accounting", gain=0.02, gain_grade="medium", agreement=0.74,
                 agreement_grade="good", change="raise", before=0.3, after=0.36)
    """

    category: str
    subfield: str
    gain: float | None
    gain_grade: Grade
    agreement: float | None
    agreement_grade: Grade
    change: Change
    before: float
    after: float


def grade(value: float | None, count: int, *, good: float, bad: float, least: int) -> Grade:
    """Grade a figure that `count` observations stand behind."""
    if value is None or count < least:
        return "unknown"
    if value >= good and value > bad:
        return "good"
    return "bad" if value <= bad else "medium"


def decide(mixture: Mixture, figures: Sequence[CategoryFigures], settings: RoundSettings) -> list[Decision]:
    """Return the decision for every share of the mixture.

    Args:
        mixture: The mixture that the evaluated policy was trained with.
        figures: What the evaluation says of the policy.
        settings: Thresholds and bounds.
    """
    own = {Cell(one.category, one.subfield): one for one in figures}
    graded = {cell: _graded(own.get(cell), settings) for cell in mixture.shares}
    changes = {cell: CHANGES.get((one[1], one[3]), "keep") for cell, one in graded.items()}
    after = next_shares(mixture.shares, changes, settings)
    return [
        Decision(
            category=cell.category,
            subfield=cell.subfield,
            gain=graded[cell][0],
            gain_grade=graded[cell][1],
            agreement=graded[cell][2],
            agreement_grade=graded[cell][3],
            change=changes[cell],
            before=share,
            after=after[cell],
        )
        for cell, share in mixture.shares.items()
    ]


def _graded(found: CategoryFigures | None, settings: RoundSettings) -> tuple[float | None, Grade, float | None, Grade]:
    """Gain and agreement of a cell with their grades; None where the evaluation has nothing."""
    if found is None:
        return None, "unknown", None, "unknown"
    by_right = settings.gain_by == "right"
    interval = found.right_gain if by_right else found.reward_gain
    gain = interval.mean if interval else None
    count = found.referenced if by_right else found.answers
    least = settings.least_evidence
    return (
        gain,
        grade(gain, count, good=settings.gain_good, bad=settings.gain_bad, least=least),
        found.agreement,
        grade(found.agreement, found.pairs, good=settings.agreement_good, bad=settings.agreement_bad, least=least),
    )


def next_shares(
    shares: Mapping[Cell, float], changes: Mapping[Cell, Change], settings: RoundSettings
) -> dict[Cell, float]:
    """Apply the changes within the bounds; the result adds up to 1.

    Raised and lowered shares are multiplied and divided by the step; all are then scaled to sum to 1.
    """
    if not any(change != "keep" for change in changes.values()):
        return dict(shares)
    factors = {"raise": settings.mixture_step, "keep": 1.0, "lower": 1 / settings.mixture_step}
    wanted = {cell: share * factors[changes[cell]] for cell, share in shares.items()}
    lowest = {cell: min(settings.least_share, share) for cell, share in shares.items()}
    highest = {cell: max(settings.most_share, share) for cell, share in shares.items()}
    return scaled_to_one(wanted, lowest, highest)


def read_figures(folder: str | Path, policy: str) -> list[CategoryFigures]:
    """Read what an evaluation says of a policy, category by category.

    Raises:
        MissingInput: The folder holds no such evaluation.
        UserError: The evaluation does not know the policy.
    """
    path = Path(folder) / "categories.jsonl"
    if not path.is_file():
        raise MissingInput(f"{folder} holds no categories.jsonl; make it with: finlm evaluate --output {folder}")
    figures = list(jsonl.read(path, CategoryFigures))
    known = sorted({one.model for one in figures})
    if policy not in known:
        raise UserError(f"{path} has figures of {', '.join(known) or 'no model'}, not of {policy!r}; set policy.")
    return [one for one in figures if one.model == policy]
