"""Bags of words that were fitted before: runs on the same pairs, with other losses and seeds, fit one once.

<runs>/cache/words/<id>.json          a BagOfWords, named by what it was fitted to; may be deleted at any time
"""

from collections.abc import Sequence
from pathlib import Path

from finlm import jsonl
from finlm.errors import UserError
from finlm.records import content_id
from reward import bag_of_words
from reward.bag_of_words import FOLDS, PENALTIES, BagOfWords, TokenPair


def fitted(pairs: Sequence[TokenPair], cache: Path) -> BagOfWords:
    """Return the bag of words of pairs, from the cache where it is there; else fit it and keep it.

    Which groups are left out together to choose the penalty is the same for all runs (seed 0): a baseline is to depend
    on the data alone.

    Raises:
        ValueError: There are no pairs.
    """
    named = [[pair.group, list(pair.better), list(pair.worse)] for pair in pairs]
    file = cache / f"{content_id('bag of words', bag_of_words.GRADIENT, PENALTIES, FOLDS, named)}.json"
    try:
        known = jsonl.read_whole(file, BagOfWords)
    except UserError:  # damaged: it is fitted again
        known = None
    if known is not None:
        return known
    found = bag_of_words.fit(pairs, seed=0)
    jsonl.write(file, [found])
    return found
