"""What a reward model made of one held-out comparison: everything that its figures are taken from.

<run>/judged.jsonl                    one Judged a pair
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from finlm import jsonl
from finlm.records import PreferencePair, Vote

JUDGED = "judged.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A held-out pair and its two scores.

    Example:
        Judged(pair_id="9f…", prompt_id="3c…", group="Acme", category="finance", language="en", source="label-studio",
               strength=2, votes=(Vote(…),), better_tokens=31, worse_tokens=28, better=0.8, worse=-0.4)
    """

    pair_id: str
    prompt_id: str
    """Pairs of one prompt are no independent evidence: intervals keep them together."""
    group: str
    category: str
    language: str
    source: str
    strength: int
    """0 (nearly the same) to 3 (clearly better); at 0 `better` and `worse` mean nothing."""
    votes: tuple[Vote, ...]
    better_tokens: int
    """Tokens of the preferred answer, its end token included."""
    worse_tokens: int
    better: float
    """Score of the preferred answer, in score units."""
    worse: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.better) and math.isfinite(self.worse)):
            raise ValueError(f"pair {self.pair_id} has the scores {self.better} and {self.worse}; both must be finite")
        if min(self.better_tokens, self.worse_tokens) < 0:
            raise ValueError(f"pair {self.pair_id} has answers of {self.better_tokens} and {self.worse_tokens} tokens")

    @property
    def lead(self) -> float:
        """Score of the preferred answer less the other's."""
        return self.better - self.worse

    @property
    def hit(self) -> float:
        """1 if the preferred answer scores higher, 0.5 for a tie, else 0."""
        return (self.better > self.worse) + 0.5 * (self.better == self.worse)

    @property
    def is_decided(self) -> bool:
        """True if one of the answers is held to be better."""
        return self.strength > 0

    def scored(self, better: float, worse: float) -> "Judged":
        """Return the same pair with the scores of another judge."""
        return replace(self, better=float(better), worse=float(worse))


def judged(pair: PreferencePair, *, better_tokens: int, worse_tokens: int, better: float, worse: float) -> Judged:
    """Return a pair with the scores of its answers.

    Args:
        pair: The pair; `chosen` is the better answer.
        better_tokens: Tokens of the chosen answer, its end token included.
        worse_tokens: Tokens of the rejected one.
        better: Score of the chosen answer.
        worse: Score of the rejected one.

    Raises:
        ValueError: A score is not finite.
    """
    return Judged(
        pair_id=pair.id,
        prompt_id=pair.prompt.id,
        group=pair.prompt.group,
        category=pair.prompt.category,
        language=pair.prompt.language,
        source=pair.source,
        strength=pair.strength,
        votes=pair.votes,
        better_tokens=better_tokens,
        worse_tokens=worse_tokens,
        better=float(better),
        worse=float(worse),
    )


def decided(records: Sequence[Judged]) -> list[Judged]:
    """Return the pairs of which one answer is held to be better."""
    return [record for record in records if record.is_decided]


def read_judged(folder: Path) -> list[Judged]:
    """Return the judged pairs of a run; none where it has none.

    Raises:
        UserError: The file is damaged.
    """
    path = folder / JUDGED
    return list(jsonl.read(path, Judged)) if path.is_file() else []


def write_judged(folder: Path, records: Sequence[Judged]) -> None:
    """Write `judged.jsonl`, whole or not at all."""
    jsonl.write(folder / JUDGED, records)
