"""Do two answers to one question say the same? For a question that was answered again from its quotes alone."""

import re
from collections import Counter

from finlm.figures import amounts_in, narrow

LEAST_OVERLAP = 0.3
"""Least F1 of the words of two answers without figures."""
_YES = re.compile(r"^\W*(yes|no|是|否|不是)", re.IGNORECASE)


def agrees(answer: str, again: str) -> bool:
    """True if both hold the same amounts, or, where the first holds none, share enough words; yes is not no."""
    verdicts = [found[1].lower() if (found := _YES.match(text)) else "" for text in (answer, again)]
    if all(verdicts) and verdicts[0].startswith(("n", "否", "不")) != verdicts[1].startswith(("n", "否", "不")):
        return False
    ours, theirs = _amounts(answer), _amounts(again)
    if ours and theirs:
        return bool(ours & theirs) and (ours <= theirs or theirs <= ours)
    return overlap(answer, again) >= LEAST_OVERLAP


def _amounts(text: str) -> set[tuple[str, str]]:
    return {(str(abs(figure.value).normalize()), figure.unit) for figure in amounts_in(text)}


def overlap(one: str, other: str) -> float:
    """Return the F1 of two texts' tokens: English words, pairs of Chinese characters."""
    ours, theirs = Counter(_tokens(one)), Counter(_tokens(other))
    common = (ours & theirs).total()
    return 2 * common / (ours.total() + theirs.total()) if common else 0.0


def _tokens(text: str) -> list[str]:
    text = narrow(text).lower()
    pairs = [run[at : at + 2] for run in re.findall(r"[\u4e00-\u9fff]+", text) for at in range(max(1, len(run) - 1))]
    return [word for word in re.findall(r"[a-z][a-z'-]+", text) if len(word) > 2] + pairs
