"""Passages that an earlier one says nearly word for word, among as many as a thousand filings have.

MinHash signatures (rensa) find whose like may have been there before: two texts that agree in all rows of one band are
compared, and their exact Jaccard similarity decides, so no hash merges what is different. A text of similarity s is
found with probability 1 - (1 - s^ROWS)^BANDS: 99.8 % at 0.8. Memory is the signatures, not the texts' shingles:
`finlm.duplicates.near_duplicates` compares exactly, for sets that fit.
"""

from collections.abc import Callable, Iterable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash

from finlm.duplicates import NEAR_DUPLICATE, jaccard, shingles

BANDS = 12
ROWS = 4
"""Numbers of a signature that a band has."""
SEED = 42


class Signatures:
    """Signatures of texts, in the order of their coming."""

    def __init__(self) -> None:
        self._of_documents: list[NDArray[np.uint32]] = []

    def add(self, texts: Iterable[str]) -> None:
        """Add the signatures of some texts."""
        sets = [sorted(shingles(text)) for text in texts]
        if sets:
            digests = RMinHash.digests_from_token_sets(sets, num_perm=BANDS * ROWS, seed=SEED)
            self._of_documents.append(np.array(digests, dtype=np.uint32))

    def repeats(self, text_of: Callable[[int], str], threshold: float = NEAR_DUPLICATE) -> dict[int, int]:
        """Return position -> position of an earlier text that it repeats and that repeats none itself.

        Args:
            text_of: Gives the text at a position again.
            threshold: Least Jaccard similarity of their shingles.
        """
        if not self._of_documents:
            return {}
        signatures = np.concatenate(self._of_documents)
        candidates = _candidates(signatures)
        of = lru_cache(maxsize=64)(lambda position: shingles(text_of(position)))
        found: dict[int, int] = {}
        for later in sorted(candidates):
            for earlier in sorted({found.get(first, first) for first in candidates[later]}):
                if jaccard(of(later), of(earlier)) >= threshold:
                    found[later] = earlier
                    break
        return found


def _candidates(signatures: NDArray[np.uint32]) -> dict[int, set[int]]:
    """Position -> for each band the first position with the same band, where that is an earlier one."""
    found: dict[int, set[int]] = {}
    for band in range(BANDS):
        rows = np.ascontiguousarray(signatures[:, band * ROWS : (band + 1) * ROWS])
        keys = rows.view([("", rows.dtype)] * ROWS).ravel()
        _, firsts, groups = np.unique(keys, return_index=True, return_inverse=True)
        earliest = firsts[groups.ravel()]
        for later in np.flatnonzero(earliest < np.arange(len(earliest))):
            found.setdefault(int(later), set()).add(int(earliest[later]))
    return found
