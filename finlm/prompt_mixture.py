"""The mixture of prompts: shares by category and sub-field, the quotas that they come to, and the draw.

    shares:
      finance: {accounting: 0.3, markets: 0.2, "*": 0.1}     "*": every other sub-field
      general: 0.3                                           the same as {"*": 0.3}
      safety: 0.1

Shares are of the whole collection and add up to 1. A quota that cannot be met stays short and is reported: no other
sub-field fills it.
"""

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor, isfinite
from pathlib import Path
from typing import Any, get_args

import yaml

from finlm import confidence, data
from finlm.errors import MissingInput, UserError
from finlm.records import Category, Prompt, Removal

OTHERS = "*"
"""Stands for every sub-field of a category that has no share of its own."""
TOLERANCE = 1e-6
"""How far the sum of shares may be from 1."""
CATEGORIES: tuple[str, ...] = get_args(Category)


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """A category, or one sub-field of it.

    Example:
        Cell("finance", "accounting")
    """

    category: str
    subfield: str = OTHERS

    def __str__(self) -> str:
        return self.category if self.subfield == OTHERS else f"{self.category}/{self.subfield}"


@dataclass(frozen=True, slots=True)
class Mixture:
    """Shares of cells, 1 together.

    Example:
        Mixture({Cell("finance", "accounting"): 0.6, Cell("general"): 0.4})
    """

    shares: dict[Cell, float]

    def __post_init__(self) -> None:
        for cell, share in self.shares.items():
            if not (isfinite(share) and 0 < share <= 1):
                raise ValueError(f"the share of {cell} is {share}; it must be above 0 and at most 1 (or leave it out).")
        total = sum(self.shares.values())
        if self.shares and abs(total - 1) > TOLERANCE:
            told = ", ".join(f"{cell} {share:g}" for cell, share in self.shares.items())
            raise ValueError(f"the shares add up to {total:.6g}, they must add up to 1 ({told}).")

    @classmethod
    def of(cls, shares: Mapping[str, Any]) -> "Mixture":
        """Read the nested mapping of a YAML file.

        Raises:
            ValueError: An unknown category, something that is no share, or a sum other than 1.
        """
        found: dict[Cell, float] = {}
        for category, given in shares.items():
            if category not in CATEGORIES:
                near = difflib.get_close_matches(str(category), CATEGORIES, n=1)
                hint = f"perhaps you meant {near[0]!r}" if near else f"the categories are {', '.join(CATEGORIES)}"
                raise ValueError(f"shares has the category {category!r}; {hint}.")
            parts = given if isinstance(given, Mapping) else {OTHERS: given}
            if not parts:
                raise ValueError(f"shares: {category} has no sub-field; give a share or leave it out.")
            for subfield, share in parts.items():
                if isinstance(share, bool) or not isinstance(share, int | float):
                    raise ValueError(f"shares: {category}/{subfield} is {share!r}; it must be a number above 0.")
                found[Cell(category, str(subfield))] = float(share)
        return cls(found)

    def nested(self) -> dict[str, Any]:
        """Return the mapping that `of` reads."""
        made: dict[str, Any] = {}
        for cell, share in self.shares.items():
            made.setdefault(cell.category, {})[cell.subfield] = share
        return {name: parts[OTHERS] if list(parts) == [OTHERS] else parts for name, parts in made.items()}

    def cell_of(self, prompt: Prompt) -> Cell | None:
        """Return the cell that a prompt belongs to; None where the mixture has no share for it."""
        own, others = Cell(prompt.category, prompt.subfield), Cell(prompt.category)
        if prompt.subfield and own in self.shares:
            return own
        return others if others in self.shares else None


def read_mixture(path: str | Path) -> Mixture:
    """Read the `shares` of a YAML file, such as the mixture.yaml that a collection leaves in its run folder.

    Raises:
        MissingInput: No such file.
        UserError: It has no shares, or they are none.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingInput(f"{path}: no such mixture; a finished finlm prompts leaves mixture.yaml in its run folder.")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Mixture.of(content["shares"])
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, KeyError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: holds no mixture ({reason}); write shares: and below it category: share.") from error
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


def observed(prompts: Sequence[Prompt]) -> Mixture:
    """Return the mixture that prompts have, each sub-field with its own share."""
    counts = Counter(Cell(prompt.category, prompt.subfield or OTHERS) for prompt in prompts)
    return Mixture({cell: counts[cell] / len(prompts) for cell in sorted(counts)})


def quotas(total: int, shares: Mapping[Cell, float]) -> dict[Cell, int]:
    """Split `total` by shares into whole numbers that add up to it (largest remainders, Hamilton 1792).

    Of equal remainders the larger share, then the first name comes first.
    """
    exact = {cell: total * share for cell, share in shares.items()}
    whole = {cell: floor(amount + 1e-9) for cell, amount in exact.items()}
    left = total - sum(whole.values())
    order = sorted(exact, key=lambda cell: (-round(exact[cell] - whole[cell], 9), -shares[cell], cell))
    return {cell: whole[cell] + (cell in order[:left]) for cell in shares}


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """What was wanted of one cell from one source, and what was found.

    Example:
        Quota(category="finance", subfield="accounting", source="new", share=0.3, wanted=30, available=12, taken=12)
    """

    category: str
    subfield: str
    source: str
    """`preferences` or `new`."""
    share: float
    wanted: int
    available: int
    taken: int

    @property
    def short(self) -> int:
        """How many prompts are missing."""
        return self.wanted - self.taken


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """What was drawn from one source."""

    prompts: list[Prompt]
    quotas: list[Quota]
    removals: list[Removal]
    """By the rules `no-share` and `over-quota`, or `over-limit` where there are no shares."""


def draw(
    prompts: Sequence[Prompt],
    total: int,
    mixture: Mixture,
    *,
    source: str,
    weights: Mapping[str, float],
    seed: int,
) -> Drawn:
    """Draw `total` prompts of one source, by quotas where the mixture has shares.

    Within a cell, prompts with weights are drawn in proportion to them; others are spread over their groups.

    Args:
        prompts: The prompts.
        total: How many are wanted.
        mixture: The shares; empty for none.
        source: `preferences` or `new`.
        weights: Prompt id -> weight; empty for none.
        seed: Decides the draw.
    """
    if not mixture.shares:
        taken = _take(prompts, total, weights, seed)
        removals = data.beyond(prompts, taken, rule="over-limit", reason=f"{total} prompts of {source} are wanted")
        return Drawn(prompts=taken, quotas=[], removals=removals)
    cells = {prompt.id: mixture.cell_of(prompt) for prompt in prompts}
    homeless = [prompt for prompt in prompts if cells[prompt.id] is None]
    removals = data.beyond(homeless, [], rule="no-share", reason="its category and sub-field have no share")
    drawn: list[Prompt] = []
    met: list[Quota] = []
    for cell, wanted in quotas(total, mixture.shares).items():
        members = [prompt for prompt in prompts if cells[prompt.id] == cell]
        taken = _take(members, wanted, weights, seed)
        reason = f"{wanted} prompts of {cell} ({source}) are wanted"
        removals += data.beyond(members, taken, rule="over-quota", reason=reason)
        drawn += taken
        met.append(
            Quota(
                category=cell.category,
                subfield=cell.subfield,
                source=source,
                share=mixture.shares[cell],
                wanted=wanted,
                available=len(members),
                taken=len(taken),
            )
        )
    return Drawn(prompts=drawn, quotas=met, removals=removals)


def _take(prompts: Sequence[Prompt], count: int, weights: Mapping[str, float], seed: int) -> list[Prompt]:
    if len(prompts) <= count:
        return list(prompts)
    if weights:
        return confidence.draw_weighted(prompts, weights, count, seed=seed)
    return data.spread(prompts, count, seed=seed) if count else []
