"""What real people voted in published sets, as ground that simulated annotators stand on.

The project's own importer reads the sets (`finlm annotate import`, all pairs of a prompt). A pair's truth is the answer
with more of its votes; votes that call both the same count for neither. Left out are pairs with fewer than two votes
for a side, and those with as many for either.
"""

import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import krippendorff
import numpy as np

from annotation import reliability
from annotation.judged import from_preferences
from annotation.pairing import Comparison
from annotation.ratings import by_pair, levels_of, sides_of
from annotation.vocabulary import LEVELS
from finlm import jsonl
from finlm.records import PreferencePair, Response, content_id

CHECKOUT = Path(__file__).resolve().parent.parent
SETS = ("ukp_convarg", "wmt23_zhen")
CLEAR = 0.8
"""Share of a pair's votes on one side from which a lead would take it for a gold pair."""
SETTLED = 60
"""Votes from which a person's agreement with the others says something."""

Votes = Sequence[Sequence[tuple[str, int]]]
"""Of each pair (annotator, side)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RealPair:
    """A pair and all that real people said of it.

    Example:
        RealPair(comparison=Comparison(…), votes=((0, 1), (0, 1), (1, 0), (0, 1)), truth=0)
    """

    comparison: Comparison
    votes: tuple[tuple[int, int], ...]
    """(side, strength), one a person; at strength 0 the side means nothing."""
    truth: int
    """0 for the first answer, 1 for the second."""

    @property
    def share(self) -> float:
        """Of the votes for a side, those for the truth."""
        sides = [side for side, strength in self.votes if strength]
        return sides.count(self.truth) / len(sides)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """A set's pairs.

    Example:
        Pool(name="ukp_convarg", pairs=(…), left_out={"as many votes for either answer": 1217}, preferences=(…),
             strengths=(1, 3, …), right=0.87, split=0.09)
    """

    name: str
    pairs: tuple[RealPair, ...]
    left_out: dict[str, int]
    preferences: tuple[PreferencePair, ...]
    """All of them, as they were imported."""

    strengths: tuple[int, ...]
    """Of all votes for a side."""

    right: float
    """Share of the votes for a side that name the truth, pairs counting alike."""
    split: float
    """How often a second vote would put a wrong one right: the mean of p (1 - p) over pairs, p that share of a pair."""


def load(data: Path, folder: Path, *, names: Sequence[str] = SETS, limit: int = 0) -> list[Pool]:
    """Import the sets as a user does and return a pool of each.

    Args:
        data: Folder of the published sets.
        folder: Where the records go.
        names: Of the sets.
        limit: Pairs of each set at most; 0 takes all.
    """
    pools = []
    for name in names:
        command = [sys.executable, str(CHECKOUT / "annotation" / "importing.py"), "--runs", str(folder / name)]
        command += ["--input", str(data / f"{name}.jsonl.xz"), "--pairs_per_prompt", "0", "--limit", str(limit)]
        subprocess.run(command, check=True, capture_output=True)
        pools.append(pool_of(name, tuple(jsonl.read(folder / name / "preferences.jsonl", PreferencePair))))
    return pools


def pool_of(name: str, preferences: Sequence[PreferencePair]) -> Pool:
    """Take the pairs whose votes come to a side."""
    pairs, left_out = [], Counter[str]()
    for one in preferences:
        sides = [vote.side for vote in one.votes if vote.strength]
        lead = 2 * sides.count("chosen") - len(sides)
        if len(sides) < 2:
            left_out["fewer than two votes for a side"] += 1
        elif not lead:
            left_out["as many votes for either answer"] += 1
        else:
            pairs.append(_real_pair(one, "chosen" if lead > 0 else "rejected"))
    strengths = [strength for pair in pairs for _, strength in pair.votes if strength]
    shares = [pair.share for pair in pairs]
    return Pool(
        name=name,
        pairs=tuple(pairs),
        left_out=dict(left_out),
        preferences=tuple(preferences),
        strengths=tuple(strengths),
        right=fmean(shares),
        split=fmean(share * (1 - share) for share in shares),
    )


def _real_pair(one: PreferencePair, better: str) -> RealPair:
    """Which answer comes first is drawn by the pair's id, or truth would have a side."""
    order = ("chosen", "rejected") if int(content_id(one.id), 16) % 2 else ("rejected", "chosen")
    texts = {"chosen": one.chosen, "rejected": one.rejected}
    first, second = (Response(text=texts[name], model=one.source) for name in order)
    return RealPair(
        comparison=Comparison(prompt=one.prompt, first=first, second=second, parents=(one.id,)),
        votes=tuple((order.index(vote.side), vote.strength) for vote in one.votes),
        truth=order.index(better),  # type: ignore[arg-type]
    )


def spread(votes: Votes) -> float:
    """Return how far people differ: the standard deviation of how often they vote with the majority of the others.

    By moments: the variance of people's shares around that of all, less what so many draws vary by chance.
    """
    with_others: dict[str, list[bool]] = defaultdict(list)
    for its in votes:
        for name, side in its:
            lead = sum(1 if other == side else -1 for who, other in its if who != name)
            if lead:
                with_others[name].append(lead > 0)
    mean = fmean(one for its in with_others.values() for one in its)
    settled = [its for its in with_others.values() if len(its) >= SETTLED]
    between = fmean((fmean(its) - mean) ** 2 - mean * (1 - mean) / len(its) for its in settled)
    return float(max(0.0, between) ** 0.5)


def alphas(pool: Pool) -> dict[str, dict[str, float]]:
    """Return the product's alpha of the real votes beside that of the package krippendorff (Castro)."""
    pairs = by_pair(from_preferences(pool.preferences).ratings)
    found = {}
    kinds: list[tuple[str, list[list[int]], int, reliability.Metric]] = [
        ("levels, ordinal", levels_of(pairs), len(LEVELS), "ordinal"),
        ("side, nominal", sides_of(pairs), 2, "nominal"),
    ]
    for name, values, count, metric in kinds:
        ours = reliability.alpha(values, count, metric, draws=200)
        counts = np.array([np.bincount(its, minlength=count) for its in values])
        theirs = krippendorff.alpha(value_counts=counts, value_domain=list(range(count)), level_of_measurement=metric)
        assert ours.value is not None
        found[name] = {
            "alpha": ours.value, "low": ours.low, "high": ours.high, "krippendorff": float(theirs),
            "difference": abs(ours.value - float(theirs)), "pairs": ours.pairs, "ratings": ours.ratings,
        }  # fmt: skip
    return found
