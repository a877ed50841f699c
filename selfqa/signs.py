"""Signs that stand in table cells of their own: `$`, `(`, `)` and `%` belong to the number beside them."""

import re

_PREFIX = re.compile(r"[$€£¥(]{1,2}|US\$|\$\s?\(")
_SUFFIX = re.compile(r"\)?\s?%?\)?")
_BEGINS_NUMBER = re.compile(r"[\d(—–-]")
_ENDS_NUMBER = re.compile(r"[\d—–-]$|\d\)?$")


def belong_together(before: str, text: str) -> bool:
    """Are two neighbours of a row one number: a sign and its digits, or digits and what closes them?"""
    if _PREFIX.fullmatch(before):
        return before.endswith("(") or bool(_BEGINS_NUMBER.search(text))  # "$" beside "%" are the heads of two columns
    return bool(_SUFFIX.fullmatch(text) and _ENDS_NUMBER.search(before))


def is_sign(text: str) -> bool:
    """Is it a sign without its number?"""
    return bool(_PREFIX.fullmatch(text) or _SUFFIX.fullmatch(text))
