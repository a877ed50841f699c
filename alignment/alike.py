"""Answers that say the same twice: who is asked to choose between them says nothing by it."""

from collections.abc import Sequence

from rapidfuzz import fuzz

from finlm.figures import amounts_in


def are_alike(one: str, other: str, least: float) -> bool:
    """Return whether two answers are nearly identical.

    Their letters agree by at least `least` (0 to 1: 2 x common / all of them, rapidfuzz's ratio, white space counted
    once) and their amounts entirely: "$412.6 million" and "$413.6 million" share nine letters of ten and are the
    difference that an annotator looks for.

    Args:
        one: An answer.
        other: Another one to the same prompt.
        least: Share of agreeing letters; above 1 nothing is alike.
    """
    first, second = " ".join(one.split()), " ".join(other.split())
    if fuzz.ratio(first, second, score_cutoff=100 * least) < 100 * least:
        return False
    return [figure.value for figure in amounts_in(first)] == [figure.value for figure in amounts_in(second)]


def repeats(texts: Sequence[str], least: float) -> list[int]:
    """Return the places of the answers that are nearly identical to an earlier one that is kept."""
    kept: list[str] = []
    found = []
    for place, text in enumerate(texts):
        if any(are_alike(text, other, least) for other in kept):
            found.append(place)
        else:
            kept.append(text)
    return found
