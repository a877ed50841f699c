"""A cell's value as the sheet shows it: `#,##0.00;(#,##0.00)` turns -1234.5 into (1,234.50).

The part of the format language that money, shares, percentages and dates are written in (ECMA-376 part 1, 18.8.31).
"""

import datetime
import re
from decimal import ROUND_HALF_UP, Decimal

_UNPRINTED = re.compile(r"\[[^\]$]*\]|[_*].")
"""Colours, conditions, and a blank as wide as the next character."""
_DIGITS = re.compile(r"[#0?][#0?,]*(?:\.[#0?]+)?,*")


def shown(value: object, number_format: str) -> str:
    """Return a cell's text.

    Args:
        value: What openpyxl read: None, text, a truth value, a number or a time.
        number_format: The cell's format code, `General` where it has none.
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, datetime.datetime):
        return value.date().isoformat() if value.time() == datetime.time() else value.isoformat(" ", "seconds")
    if isinstance(value, int | float):
        return _number(Decimal(repr(value)) if isinstance(value, float) else Decimal(value), number_format)
    return str(value)


def _number(value: Decimal, number_format: str) -> str:
    sections = [_UNPRINTED.sub("", part) for part in _sections(number_format)]
    if value < 0 and len(sections) > 1:
        section, value = sections[1], -value
    elif value == 0 and len(sections) > 2:
        section = sections[2]
    else:
        section = sections[0]
    pattern = _DIGITS.search(_without_text(section))
    if section in ("General", "@", "") or pattern is None:
        literal = _literal(section) if pattern is None and section not in ("General", "@", "") else ""
        return literal or f"{value.normalize():f}"
    before, digits, after = section[: pattern.start()], pattern[0], section[pattern.end() :]
    value *= Decimal(100) ** _without_text(section).count("%")
    whole = digits.rstrip(",")
    value /= Decimal(1000) ** (len(digits) - len(whole))  # each comma at the end divides by a thousand
    places = len(whole.partition(".")[2])
    rounded = abs(value).quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP)
    written = f"{rounded:,f}" if "," in whole else f"{rounded:f}"
    if not rounded and "0" not in whole:  # `#` and `?` show no zero
        written = ""
    sign = "-" if value < 0 and rounded else ""
    return f"{sign}{_literal(before)}{written}{_literal(after)}".strip()


def _sections(number_format: str) -> list[str]:
    return re.findall(r'(?:"[^"]*"|\\.|[^;])+|(?<=;)(?=;|$)', number_format) or ["General"]


def _without_text(section: str) -> str:
    """Blank out quoted text, so that places stay."""
    return re.sub(r'"[^"]*"|\\.|\[\$[^\]]*\]', lambda found: "\0" * len(found[0]), section)


def _literal(part: str) -> str:
    part = re.sub(r"\[\$([^\]-]*)(?:-[^\]]*)?\]", r"\1", part)
    return re.sub(r'"([^"]*)"|\\(.)', lambda found: found[1] or found[2] or "", part)
