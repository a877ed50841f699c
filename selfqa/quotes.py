"""A model's quotes, found again in the filing to the character."""

from finlm.figures import narrow


def find_quote(quote: str, text: str, start: int, end: int) -> tuple[int, int] | None:
    """Find a quote in text[start:end]: exactly, else with white space, width and quotation marks evened out."""
    at = text.find(quote, start, end)
    if at >= 0:
        return at, at + len(quote)
    wanted, _ = _even(quote, 0)
    given, places = _even(text[start:end], start)
    at = given.find(wanted)
    if not wanted or at < 0:
        return None
    return places[at], places[at + len(wanted) - 1] + 1


def _even(text: str, start: int) -> tuple[str, list[int]]:
    kept, places = [], []
    marks = str.maketrans("“”‘’", "\"\"''")
    for offset, char in enumerate(narrow(text).translate(marks).lower()):
        if not char.isspace():
            kept.append(char)
            places.append(start + offset)
    return "".join(kept), places
