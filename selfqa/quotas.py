"""Joint quotas: how many questions of a type shall be of a difficulty and stand on a section, each three together."""

from collections.abc import Mapping
from dataclasses import dataclass

from finlm.errors import UserError
from selfqa.pairs import DIFFICULTIES, KINDS
from selfqa.zones import ZONES

ANY = "*"
"""Stands for every difficulty or section."""


@dataclass(frozen=True, slots=True)
class Cell:
    """Questions of one type, difficulty and section; difficulty and section may be `ANY`.

    Example:
        Cell(type="cause", difficulty="*", section="discussion")
    """

    type: str
    difficulty: str = ANY
    section: str = ANY

    @classmethod
    def parse(cls, name: str) -> "Cell":
        """Read `cause/*/discussion`.

        Raises:
            UserError: It has not three parts, or names what is not there.
        """
        parts = name.split("/")
        known = (KINDS, (*DIFFICULTIES, ANY), (*ZONES, ANY))
        if len(parts) != 3:
            raise UserError(f"quotas names {name!r}; a quota is type/difficulty/section, like cause/{ANY}/discussion.")
        for part, options in zip(parts, known, strict=True):
            if part not in options:
                raise UserError(f"quotas names {name!r}; {part!r} must be one of {', '.join(options)}.")
        return cls(*parts)

    @property
    def name(self) -> str:
        """As settings and report write it."""
        return f"{self.type}/{self.difficulty}/{self.section}"

    def holds(self, kind: str, difficulty: str, section: str) -> bool:
        """Is a question of these one of its own?"""
        return self.type == kind and self.difficulty in {ANY, difficulty} and self.section in {ANY, section}


def joint_shares(
    types: Mapping[str, float],
    difficulties: Mapping[str, float],
    sections: Mapping[str, float],
    quotas: Mapping[Cell, float],
) -> dict[Cell, float]:
    """Return the share of each cell: the quotas as given; of other types the product of the three shares.

    Args:
        types: Share of each type, those of the quotas included.
        difficulties: Shares of difficulties, empty if none are planned.
        sections: Likewise of sections.
        quotas: Shares given jointly; their types have no other cells.
    """
    joint = dict(quotas)
    for kind, share in types.items():
        if any(cell.type == kind for cell in quotas):
            continue
        for difficulty, easy in (difficulties or {ANY: 1.0}).items():
            for section, here in (sections or {ANY: 1.0}).items():
                joint[Cell(kind, difficulty, section)] = share * easy * here
    return joint
