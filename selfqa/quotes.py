"""Where a model's quote stands in its passage: exactly, evened out, or nearly, but never with another figure."""

import re

from rapidfuzz import fuzz

from finlm.figures import narrow

NEARLY = 92.0
"""Least likeness, of 100, between a quote and the place that it is taken for."""
SHORTEST = 24
"""Characters, white space apart, from which on a quote may be found nearly."""
_MARKS = str.maketrans("“”‘’「」『』–—−", '""\'\'""""---')


def find_quote(quote: str, text: str, start: int, end: int) -> tuple[int, int] | None:
    """Find a quote in text[start:end] and return its place, None where it does not stand there.

    Tried in this order: as it is; with white space, width, case and quotation marks evened out, dots left out for
    "..."; nearly (`NEARLY` of 100 by rapidfuzz's best alignment), where all its numbers stand there in their order.
    """
    at = text.find(quote, start, end)
    if quote and at >= 0:
        return at, at + len(quote)
    wanted = even(re.sub(r"^(?:\.{3}|…+)|(?:\.{3}|…+)$", "", quote.strip()), 0)[0]
    given, places = even(text[start:end], start)
    if not wanted or not given:
        return None
    at = given.find(wanted)
    if at >= 0:
        return places[at], places[at + len(wanted) - 1] + 1
    return _nearly(wanted, given, places) if len(wanted) >= SHORTEST else None


def even(text: str, start: int) -> tuple[str, list[int]]:
    """Return a text without white space and differences of width, case and marks, and each character's offset."""
    kept, places = [], []
    for offset, char in enumerate(narrow(text).translate(_MARKS).lower()):
        if not char.isspace():
            kept.append(char)
            places.append(start + offset)
    return "".join(kept), places


def _nearly(wanted: str, given: str, places: list[int]) -> tuple[int, int] | None:
    if len(wanted) > len(given):
        return None
    found = fuzz.partial_ratio_alignment(wanted, given, score_cutoff=NEARLY)
    if found is None or found.dest_end <= found.dest_start:
        return None
    piece = given[found.dest_start : found.dest_end]
    if _numbers(wanted) != _numbers(piece):
        return None
    return places[found.dest_start], places[found.dest_end - 1] + 1


def _numbers(text: str) -> list[str]:
    return re.findall(r"\d+(?:[.,]\d+)*", text)
