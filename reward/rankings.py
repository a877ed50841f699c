"""Preferences as a file holds them: PreferencePair records, or Ranking records, each of which is several pairs.

A ranking of four answers is six comparisons. How much better an answer is, is the distance of the ranks, at most 3;
equal ranks are a tie. Each comparison has its annotator's vote, so rankings of several people are settled by votes, and
by the verdict's alone where there is one.
"""

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

from finlm import jsonl
from finlm.errors import UserError
from finlm.records import PreferencePair, Provenance, Ranking, Removal, Vote

MOST = 3
"""The strength of the widest distance."""


def read_pairs(path: str | Path) -> tuple[list[PreferencePair], list[Removal]]:
    """Return the pairs of a file, and what of its rankings gives none; its first row says which records it holds.

    Raises:
        MissingInput: There is no such file.
        UserError: A row is no such record; the message has file and line.
    """
    first = next(iter(jsonl.read(path, dict)), {})
    if "ranks" not in first:
        return list(jsonl.read(path, PreferencePair)), []
    found: list[PreferencePair | Removal] = []
    for ranking in jsonl.read(path, Ranking):
        try:
            found += pairs_of(ranking)
        except ValueError as error:  # a ranking does not say as strictly as a vote who may cast it
            raise UserError(f"{path}: ranking {ranking.id} gives no votes: {error}.") from error
    pairs = [one for one in found if isinstance(one, PreferencePair)]
    return pairs, [one for one in found if isinstance(one, Removal)]


def pairs_of(ranking: Ranking) -> Iterator[PreferencePair | Removal]:
    """Yield each two answers of a ranking as a pair, the better one first; equal texts as a Removal."""
    ordered = sorted(zip(ranking.ranks, ranking.responses, strict=True), key=lambda one: one[0])
    for (rank, better), (below, worse) in combinations(ordered, 2):
        if better == worse:
            reason = "the ranking has the same answer twice"
            yield Removal(record_id=ranking.id, rule="equal-responses", reason=reason, text=better)
            continue
        strength = min(MOST, below - rank)
        yield PreferencePair(
            prompt=ranking.prompt,
            chosen=better,
            rejected=worse,
            strength=strength,
            source="ranking",
            votes=(
                Vote(
                    annotator=ranking.annotator,
                    annotation_id=ranking.annotation_id or ranking.id,
                    side="chosen",
                    strength=strength,
                    is_verdict=ranking.is_verdict,
                ),
            ),
            provenance=Provenance(maker=ranking.annotator, parents=(ranking.id,)),
        )
