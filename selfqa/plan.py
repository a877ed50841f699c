"""What a document's questions shall be like: shares of types, difficulties and sections, alone and jointly, and a limit
per template.

A share is honoured as long as there is material; what is missing goes to the others, and is reported as a shortfall.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from finlm.errors import UserError
from selfqa.pairs import DIFFICULTIES, KINDS, Pair
from selfqa.quotas import ANY, Cell, joint_shares
from selfqa.zones import ZONES

TYPES = {
    "figure": 0.2,
    "change": 0.12,
    "comparison": 0.1,
    "yes-no": 0.1,
    "cause": 0.09,
    "risk": 0.09,
    "fact": 0.08,
    "definition": 0.06,
    "summary": 0.06,
    "list": 0.05,
    "unanswerable": 0.05,
}
"""Default shares of types."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Shares that sum to 1 each; a dimension without shares is left to what the material gives.

    Example:
        Plan(types={"figure": 0.8, "cause": 0.2}, difficulties={}, sections={}, template=0.3)
    """

    types: Mapping[str, float]
    """A type that is not named here is not asked."""
    difficulties: Mapping[str, float]
    sections: Mapping[str, float]
    template: float
    """Most of a document's questions that one template may make."""
    joint: Mapping[Cell, float] = field(default_factory=dict)
    """Share of each type, difficulty and section together."""

    def cell_of(self, kind: str, difficulty: str, section: str) -> Cell | None:
        """Return the cell that a question counts in, the most exact one; None for one that no cell holds."""
        found = [cell for cell in self.joint if cell.holds(kind, difficulty, section)]
        return min(found, key=lambda cell: (cell.difficulty, cell.section).count(ANY), default=None)

    def shares(self, dimension: str) -> Mapping[str, float]:
        """Return the shares of `type`, `difficulty` or `section`."""
        return {"type": self.types, "difficulty": self.difficulties, "section": self.sections}[dimension]


@dataclass(frozen=True, slots=True)
class Share:
    """What became of one share of a document's plan.

    Example:
        Share(dimension="type", name="risk", wanted=27, found=6, kept=6)
    """

    dimension: str
    """`type`, `difficulty`, `section`, or `joint`: all three, as `risk/medium/risk`."""
    name: str
    wanted: int
    found: int
    """Questions of it that broke no rule."""
    kept: int

    @property
    def missing(self) -> int:
        """How many fewer than planned."""
        return max(0, self.wanted - self.kept)

    @property
    def reason(self) -> str:
        """Why some are missing, empty where none are."""
        if not self.missing:
            return ""
        if not self.found:
            return "the document gives none"
        if self.found < self.wanted:
            return "the document gives fewer"
        return "what there is comes from templates that have their share, or other shares came first"


def make_plan(
    types: Mapping[str, float],
    difficulties: Mapping[str, float],
    sections: Mapping[str, float],
    template: float,
    quotas: Mapping[str, float] | None = None,
) -> Plan:
    """Check the shares that a user gave and scale each dimension to 1.

    Args:
        types: Shares of types.
        difficulties: Shares of difficulties, or nothing.
        sections: Shares of sections, or nothing.
        template: Most that one template may make.
        quotas: `type/difficulty/section` -> its share of all questions. A type that they name is planned by them
            alone; the other types share what they leave.

    Raises:
        UserError: A name is unknown, a share is not positive, the quotas are more than the whole, or the template's
            share lies outside 0 to 1.
    """
    if not types:
        raise UserError(f"types is empty; give at least one of {', '.join(KINDS)} a share.")
    if not 0 < template <= 1:
        raise UserError(f"template_share is {template}; it must lie above 0 and at most at 1.")
    known = {"types": KINDS, "difficulties": DIFFICULTIES, "sections": ZONES}
    scaled: dict[str, Mapping[str, float]] = {}
    for name, given in (("types", types), ("difficulties", difficulties), ("sections", sections)):
        for key in given:
            if key not in known[name]:
                raise UserError(f"{name} names {key!r}; it must be one of {', '.join(known[name])}.")
        _check_positive(name, given)
        total = sum(given.values())
        scaled[name] = {key: share / total for key, share in given.items()}
    cells = {Cell.parse(name): share for name, share in (quotas or {}).items()}
    if cells:
        _check_positive("quotas", {cell.name: share for cell, share in cells.items()})
        scaled["types"] = _beside(scaled["types"], cells)
    return Plan(**scaled, template=template, joint=joint_shares(**scaled, quotas=cells))


def _check_positive(name: str, given: Mapping[str, float]) -> None:
    for key, share in given.items():
        if not (isinstance(share, int | float) and math.isfinite(share) and share > 0):
            raise UserError(f"{name} gives {key!r} the share {share!r}; it must be a number above 0.")


def _beside(types: Mapping[str, float], quotas: Mapping[Cell, float]) -> dict[str, float]:
    """Return the types' shares: of those that quotas name their sum, of the others what is left, as they stand."""
    taken: dict[str, float] = defaultdict(float)
    for cell, share in quotas.items():
        taken[cell.type] += share
    left = 1 - sum(quotas.values())
    others = {kind: share for kind, share in types.items() if kind not in taken}
    if left < -1e-9:
        raise UserError(f"quotas sum to {1 - left:g}; they are shares of all questions, at most 1 together.")
    if left < 1e-9 or not others:
        whole = sum(taken.values())
        return {kind: share / whole for kind, share in taken.items()}
    of_others = sum(others.values())
    return {**taken, **{kind: left * share / of_others for kind, share in others.items()}}


def template_limit(pairs: Sequence[Pair], limit: int, share: float) -> int:
    """Return the most questions of one template so that none exceeds `share` of what is kept.

    Fewer templates than 1/share cannot keep to it: then the limit is `limit`, and the report shows the share.
    """
    counts = Counter(pair.rule for pair in pairs)
    if len(counts) * share < 1:
        return limit
    kept = min(limit, len(pairs))
    while True:
        most = max(1, math.floor(share * kept))
        possible = min(kept, sum(min(count, most) for count in counts.values()))
        if possible == kept or most == 1:
            return most
        kept = possible
