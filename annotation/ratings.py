"""What people said of pairs, as numbers that statistics are made of: one rating a person and pair."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from annotation.vocabulary import LEVELS


@dataclass(frozen=True, slots=True, kw_only=True)
class Rating:
    """One person's judgement of one pair, free of the sides that it was shown on.

    Example:
        Rating(pair_id="9f…", annotator="person:7", level=1, is_left=True, is_longer=False, seconds=41.0, gold=None)
    """

    pair_id: str
    annotator: str
    level: int
    """0 (the first answer, clearly) to 7 (the second answer, clearly)."""
    is_left: bool | None
    """True if the preferred answer stood on the left; None where nobody knows."""
    is_longer: bool | None
    """True if the preferred answer is the longer one; None where both are equally long."""
    seconds: float | None
    """From opening the task to submitting it; None where the server did not say."""
    characters: int = 0
    """Of prompt and answers together."""
    gold: int | None = None
    """0 or 1, the answer that is known to be the better one; None where nothing is known."""

    def __post_init__(self) -> None:
        if not 0 <= self.level < len(LEVELS):
            raise ValueError(f"level {self.level} must be 0 to {len(LEVELS) - 1}")

    @property
    def side(self) -> int:
        """0 for the first answer, 1 for the second."""
        return int(self.level >= len(LEVELS) // 2)

    @property
    def strength(self) -> int:
        """0 (nearly the same) to 3 (clearly better)."""
        return len(LEVELS) // 2 - 1 - self.level if not self.side else self.level - len(LEVELS) // 2


def by_pair(ratings: Iterable[Rating]) -> dict[str, list[Rating]]:
    """Return the ratings of each pair, pairs and annotators in order of their names."""
    found: dict[str, list[Rating]] = defaultdict(list)
    for rating in sorted(ratings, key=lambda one: (one.pair_id, one.annotator)):
        found[rating.pair_id].append(rating)
    return dict(found)


def by_annotator(ratings: Iterable[Rating]) -> dict[str, list[Rating]]:
    """Return the ratings of each annotator, annotators and pairs in order of their names."""
    found: dict[str, list[Rating]] = defaultdict(list)
    for rating in sorted(ratings, key=lambda one: (one.annotator, one.pair_id)):
        found[rating.annotator].append(rating)
    return dict(found)


def levels_of(pairs: Mapping[str, Sequence[Rating]]) -> list[list[int]]:
    """Return the levels of each pair."""
    return [[rating.level for rating in its] for its in pairs.values()]


def sides_of(pairs: Mapping[str, Sequence[Rating]]) -> list[list[int]]:
    """Return the sides of each pair, those of ratings that say "nearly the same" left out: they name no side."""
    return [[rating.side for rating in its if rating.strength] for its in pairs.values()]


def votes_of(pairs: Mapping[str, Sequence[Rating]]) -> list[list[tuple[str, int]]]:
    """Return (annotator, side) of each pair; ratings that say "nearly the same" are no vote."""
    return [[(rating.annotator, rating.side) for rating in its if rating.strength] for its in pairs.values()]
