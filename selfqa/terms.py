"""Terms that a filing explains: abbreviations behind their full names, and sentences that say what something is."""

import re
from collections.abc import Iterator

from selfqa.english_words import Lexicon
from selfqa.entities import Filing
from selfqa.pairs import Pair, possessive
from selfqa.prose import Stretch, chinese_told, cleaned, prose_pair, report_name, told

_SHORT = re.compile(
    r"\((?:the |collectively,? the |or )?[“\"](?P<short>[A-Z][A-Z&-]{1,8}s?)[”\"]\)|, or (?P<or>[A-Z]{2,8}s?)\b"
)
_FULL = re.compile(r"(?:[A-Za-z][\w’'&/-]* ){1,8}$")
_IS = re.compile(
    r"^(?P<what>(?:[A-Z][\w.’'-]*|[a-z][A-Z]\w*)(?: (?:[A-Z0-9][\w.’'-]*|of|and|for|the)){0,4}) (?P<be>is|are) "
    r"(?P<told>(?:an?|the) [^;:]{20,})$"
)
_OWN = re.compile(r"^(?P<what>[^,;:]{4,70}?) (?P<be>is|are) (?P<told>(?:an?|the) [^;:]{15,})$")
_ZH_IS = re.compile(r"^(?P<what>[\u4e00-\u9fffA-Za-z（）]{2,14})，?(?:是指|指的是|，指)(?P<told>[^。；]{12,110})。$")
_SMALL = {"of", "and", "the", "for", "to", "in", "on", "or", "by", "with", "a"}


def term_pairs(stretch: Stretch, filing: Filing, lexicon: Lexicon | None, limit: int) -> Iterator[Pair]:
    """Yield a pair for each term that a stretch explains."""
    for number, sentence in enumerate(stretch.sentences):
        if lexicon is None:
            made = _chinese(sentence.text, filing)
            if made:
                yield prose_pair(*made[:2], "definition", made[3], made[2], stretch, [number], limit)
            continue
        for short, full in abbreviations(cleaned(sentence.text)):
            asked = f"What does “{short}” stand for in {possessive(filing.short)} {report_name(filing)}?"
            said = f"In {possessive(filing.short)} {report_name(filing)}, “{short}” stands for {full}."
            yield prose_pair(asked, said, "definition", "abbreviation", short, stretch, [number], limit)
        whole = told(sentence, filing, longest=50)
        made = _english(whole.text, filing) if whole else None
        if made:
            yield prose_pair(*made[:2], "definition", made[3], made[2], stretch, [number], limit)


def abbreviations(text: str) -> Iterator[tuple[str, str]]:
    """Yield abbreviations with what they stand for, where the initials of the words before them prove it.

    Example:
        abbreviations("the Financial Accounting Standards Board (the “FASB”) issued …") gives
        ("FASB", "Financial Accounting Standards Board")
    """
    for found in _SHORT.finditer(text):
        short = found["short"] or found["or"]
        letters = re.sub(r"[^A-Za-z]", "", short).removesuffix("s").upper()
        before = _FULL.search(text[: found.start()].rstrip() + " ")
        if (
            before is None
            or not 2 <= len(letters) <= 8
            or (short != short.upper().replace("S", short[-1:]) and not short.isupper())
        ):
            continue
        words = before[0].split()
        for first in range(len(words) - 1, -1, -1):
            if (
                _initials(words[first:], skipping=False) == letters
                or _initials(words[first:], skipping=True) == letters
            ):
                yield short, " ".join(words[first:])
                break


def _initials(words: list[str], *, skipping: bool) -> str:
    pieces = [piece for word in words for piece in re.split(r"[-/–]", word) if piece]
    return "".join(piece[0].upper() for piece in pieces if not (skipping and piece.lower() in _SMALL))


Made = tuple[str, str, str, str]
"""Question, answer, topic, rule."""


def _english(text: str, filing: Filing) -> Made | None:
    own = _OWN.match(text)
    if own and own["what"].startswith(possessive(filing.short)) and len(own["what"].split()) <= 9:
        return f"What {own['be']} {own['what']}?", text, own["what"], "is-a"
    found = _IS.match(text)
    if found is None or filing.short in found["what"] or found["what"].split(" ")[0].lower() in _NO_TERMS:
        return None
    return f"According to {filing.short}, what {found['be']} {found['what']}?", text, found["what"], "is-a"


_NO_TERMS = frozenset(
    re.findall(r"\w+", "the a an one our each all both most many some any changes these item part note demand")
)


def _chinese(raw: str, filing: Filing) -> Made | None:
    text = chinese_told(raw, filing)
    found = _ZH_IS.match(text) if text else None
    if text is None or found is None or found["what"].startswith(("本", "其", "所")):
        return None
    what = found["what"].rstrip("，")
    return f"在{filing.short}{report_name(filing)}中，“{what}”是指什么？", text, what, "is-a"
