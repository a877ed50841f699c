"""English: from a table's label to a metric that can stand in a sentence, and its unit."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from decimal import Decimal

from finlm.figures import narrow
from selfqa.english_words import (
    BALANCE,
    CASH_FLOW,
    EITHER,
    FLOW,
    GENERIC,
    MEASURE,
    PER,
    REFUSED,
    UNIT_NOTE,
    Lexicon,
)
from selfqa.facts import Dropped, Fact, FactUnit
from selfqa.periods import MONTHS, Period
from selfqa.tables import Line, Table, Value

_AMBIGUOUS = frozenset(
    {"taxes", "debt", "securities", "notes", "interest", "cash", "depreciation", "dividends", "current assets"}
    | {"current liabilities", "noncurrent assets", "noncurrent liabilities"}
)
"""Labels that mean one thing in a primary statement and something narrower elsewhere."""


def english_facts(table: Table, lexicon: Lexicon, months: int) -> Iterator[Fact | Dropped]:
    """Yield a fact, or the reason why there is none, for every value of a table bound to a period.

    Args:
        table: The table.
        lexicon: How its document writes words.
        months: Length of the period that the document reports; under 12 for an interim report.
    """
    if _has_components(table):
        for line in table.lines:
            reason = "several columns of one period show components that the header names apart"
            yield Dropped("columns-of-components", reason, line.label, line.start, line.end)
        return
    repeated = {
        label for label, count in Counter(_clean(line.label).lower() for line in table.lines).items() if count > 1
    }
    for row, line in enumerate(table.lines):
        metric, reason = _metric(line, table, repeated, lexicon)
        if not metric:
            yield Dropped(reason, f"the label {line.label!r} under {line.parent!r}", line.label, line.start, line.end)
            continue
        for value in line.values:
            period = value.column.period
            if period is not None and months < 12 and period.months == 12 and value.tag is None:
                reason = "an interim report heads a column with a bare year: which months it covers is not said"
                yield Dropped("period-incomplete", reason, line.label, line.start, line.end)
            elif period is not None:
                yield _fact(value, metric, line, table, row)


def _has_components(table: Table) -> bool:
    """Do two columns share a period, as cost and fair value do, or plans at home and abroad?"""
    for line in table.lines:
        periods = [value.column.period for value in line.values if value.column.kind == "amount"]
        if len(periods) > len(set(periods)):
            return True
    return False


def _clean(label: str) -> str:
    label = narrow(label).replace("’", "'")
    label = re.sub(
        r"[*#]|\s*\((?:\w|\d{1,2})\)|\s*\((?:net of|includes?|including|Note|see|in|dollars|millions"
        r"|thousands)\b[^()]*\)",
        "",
        label,
        flags=re.I,
    )
    label = re.sub(r"\s*[—–‒]\s*(net\b|restricted|trade|long-term)", r", \1", label)
    label = re.sub(r"^\s*(?:less|plus|add)\s*[:\s]\s*", "", label, flags=re.I)
    label = re.sub(r"\bU\.S$", "U.S.", " ".join(label.split()).strip(" :;,…|-"))
    return label if re.search(r"\b(?:Inc|Corp|Co|Ltd|U\.S)\.$", label) else label.rstrip(" .")


def _metric(line: Line, table: Table, repeated: set[str], lexicon: Lexicon) -> tuple[str, str]:
    label, parent = _clean(line.label), _clean(line.parent)
    if re.search(r"\s[-—–]\s|—", label):
        return "", "label-not-a-metric"
    if re.search(r"\s[-—–]|,|\binclud", parent) or len(parent) > 50:
        parent = ""
    if re.search(r"percent(?:age)? of (?:total |net )?(?:revenue|sales)|hypothetical|sensitiv", table.context, re.I):
        return "", "relative-table"
    if (
        re.search(r"pro forma|parent company only|segment|reconcil", table.title, re.I)
        and len(table.lines[0].values) > 4
    ):
        return "", "table-by-segment"
    if not label or REFUSED.search(label) or len(label) > 90 or re.search(r"\d{3,}|\?|%|\d\.\d|\bpts\b", label):
        return "", "label-not-a-metric"
    if re.search(r"cash flow", table.context, re.I) and not CASH_FLOW.match(label):
        return "", "cash-flow-adjustment"
    if re.search(r"\bwho\b|\bthe following\b|\([^)]*$|^[^(]*\)|^(?:and|or|of|in)\b|non-gaap|\bplans?$", label, re.I):
        return "", "label-not-a-metric"
    if re.search(r"deferred (?:income )?tax(?:es)? (?:assets|liabilities)", parent, re.I) and not re.match(
        "total", label, re.I
    ):
        return "", "label-alone"  # "depreciation" there is what it defers of the tax
    is_earned = bool(BALANCE.search(label)) and not FLOW.search(label) and re.search(r"income|expense", parent, re.I)
    is_vague = bool(is_earned) or bool(GENERIC.match(label)) or not MEASURE.search(label) or label.lower() in repeated
    if not is_vague:
        is_bare = re.search(r"\b(?:selling|marketing|administrative|development|promotion)$", label, re.I)
        if label.lower() in _AMBIGUOUS and not re.search(
            r"income|operations|earnings|balance|cash flow", table.title, re.I
        ):
            return "", "label-alone"
        return _finish(lexicon.in_sentence(label) + (" expense" if is_bare else "")), ""
    small, head = lexicon.in_sentence(label), lexicon.in_sentence(parent)
    if re.match(r"(?:other|others|all other|subtotal|net|adjustments?)\b\W*$", label, re.I):
        return "", "label-alone"
    if re.search(r"\bper\b", parent) and re.match(r"(?:basic|diluted)", label, re.I):
        return _finish(f"{label.lower()} {head}"), ""
    if (
        parent
        and MEASURE.search(parent)
        and not GENERIC.match(label)
        and not re.search(
            r"^(?:current |non-?current )?(?:assets|liabilities)|equity$|reconcil|supplement|cash flow", parent, re.I
        )
    ):
        joined = _finish(_under(small, head))
        return joined, "" if joined else "label-repeated"
    measure = _measure(table)
    if measure and label.lower() not in repeated:
        measure = lexicon.in_sentence(measure)
        if re.match(r"total\b", label, re.I):
            whole = f"total {measure}" if label.lower() == "total" else f"{small} {measure}"
            return _finish(small if MEASURE.search(small) else whole), ""
        return ("", "label-alone") if GENERIC.match(label) else (_finish(f"{small} {measure}"), "")
    if re.search(r"(?:income|operations|earnings)\b", table.title, re.I) and re.search(
        r" and administrative|^selling|^research and|^marketing|^exploration|^advertising", label, re.I
    ):
        return _finish(f"{small} expense"), ""
    return "", "label-alone" if GENERIC.match(label) else "metric-not-a-phrase"


def _under(label: str, parent: str) -> str:
    """Join a label to what heads it: "electric operating revenues", "interest income from loans"."""
    if re.search(r"\b(?:expenses?|deductions|costs and)\b", parent) and not re.search(
        r"interest expense|cost of", parent
    ):
        return (
            label
            if MEASURE.search(label) and re.search(r"costs?$|expenses?$|fees$|charges?$|taxes$", label)
            else f"{label} expense"
        )
    if re.match(r"total\b", label) and not MEASURE.search(label):
        return parent if parent.startswith("total ") else f"total {parent}"
    if re.search(r"interest expense", parent):
        return f"interest expense on {label}"
    if re.search(r"income(?! tax)", parent):
        return label if re.search(r"\b(?:income|fees|revenues?|gains?|losses)\b", label) else f"{parent} from {label}"
    if MEASURE.search(label):
        return f"{label} on {parent}" if re.search(r"\b(?:gains?|loss(?:es)?)$", label) else ""
    return f"{label} within {parent}" if " and " in parent or parent.startswith("other ") else f"{label} {parent}"


def _measure(table: Table) -> str:
    """Return what all rows of a table measure, from "Net revenue by end market" or "Loans by type" above it."""
    for text in (table.title, *reversed(table.context.split("\n"))):
        found = re.search(
            r"^(?:.*\b(?:shows?|presents?"
            r"|summarizes?)\s+)?((?:[A-Za-z-]+\s){0,3}?[A-Za-z-]+)\s+(?:disaggregated )?by\s+"
            r"(?:reportable |operating |end |significant |major |product |business )*"
            r"(?:segments?|categor\w+|geograph\w+|regions?|products?|markets?|types?|countr\w+|mines?|area|class\w*"
            r"|line)",
            text.strip("*# "),
            re.IGNORECASE,
        )
        if found and MEASURE.search(found[1]):
            return str(re.sub(r"^(?:the|our|total)\s+", "", found[1], flags=re.I))
    note = re.search(r"\(([A-Za-z ]+?) in (?:thousands|millions) of \w+\)", table.context)
    return note[1] if note and MEASURE.search(note[1]) else ""


def _finish(metric: str) -> str:
    metric = re.sub(r"\b(\w+) \1\b", r"\1", metric)
    metric = " ".join(metric.replace(" ,", ",").split())
    metric = re.sub(r", (at (?:fair value|original cost|cost)|including|excluding|net of)", r" \1", metric)
    metric = re.sub(r"^(.+), (basic|diluted|long-term|restricted)$", r"\2 \1", metric)
    metric = re.sub(r"^(total )?(property(?:, plant)? and equipment), net$", r"\1net \2", metric)
    trailing = re.fullmatch(r"((?:total |other )?)(.+), net", metric)
    if trailing and "," not in trailing[2] and " net " not in f" {trailing[2]} ":
        return f"{trailing[1]}net {trailing[2]}"  # "accounts receivable, net" would need a second comma in a sentence
    return metric


# ---------------------------------------------------------------------------------------------- units, signs, periods


def _fact(value: Value, metric: str, line: Line, table: Table, row: int) -> Fact | Dropped:
    figure, period = value.figure, value.column.period
    assert period is not None
    digits_found = re.search(r"[\d,]*\.?\d+", value.cell.text)
    assert digits_found is not None
    digits = digits_found[0]

    def dropped(rule: str, reason: str) -> Dropped:
        return Dropped(rule, reason, f"{line.label} {value.cell.text}", line.start, line.end)

    unit_frame = _unit(value, line, table)
    if unit_frame is None:
        return dropped("unit-unknown", f"neither {line.label!r} nor the table says what {value.cell.text!r} counts")
    unit, frame = unit_frame
    if value.tag is not None:
        period = _tag_period(period, value)
        if period is None:
            return dropped(
                "period-against-tag", f"the header and the tag of {value.cell.text!r} name different periods"
            )
    signed, metric_or_none = _signed(metric, figure.value, value)
    if metric_or_none is not None and re.search(r"\((?!excluding|including)|gains/losses|/\(", metric_or_none):
        return dropped("label-not-a-metric", f"{metric_or_none!r} leaves open what is counted")
    if metric_or_none is None:
        return dropped("sign-ambiguous", f"{value.cell.text!r} is negative and its label does not say what that means")
    if figure.value == 0:
        return dropped("zero", f"{value.cell.text!r} says that there was none")
    if 0 < period.months < 12 and not (period.month or period.quarter):
        return dropped("period-incomplete", f"the header of {value.cell.text!r} names months without their last day")
    placed = _placed(metric_or_none, period, unit, table)
    if placed is None:
        return dropped("balance-over-time", f"{metric_or_none!r} is a balance, but its column is a stretch of time")
    return Fact(
        metric=metric_or_none,
        period=placed,
        amount=frame.format(digits),
        value=signed,
        unit=unit,
        start=line.start,
        end=line.end,
        table=table.number,
        row=row,
        section=table.section,
        rule="xbrl-fact" if value.tag is not None else "table-row",
        frame=frame,
    )


def _unit(value: Value, line: Line, table: Table) -> tuple[FactUnit, str] | None:
    text = f"{line.label} {line.parent}"
    if value.figure.unit == "percent":
        return ("percent", "{}%")
    if value.tag is not None:
        return _tag_unit(value, text)
    shares = _SHARES_NOTE.search(table.context)
    if shares and re.search(r"\bshares\b", text, re.I) and re.fullmatch(r"\d{1,3}(?:,\d{3})+", value.cell.text.strip()):
        return ("quantity", f"{{}} {shares[1].lower()[:-1]}")
    if PER.search(text):
        is_money = (
            "$" in value.cell.text
            or re.search(r"\(dollars\)", text)
            or (
                re.search(r"per (?:\w+ )*share", text, re.I)
                and re.fullmatch(r"\(?\d+\.\d{2}\)?", value.cell.text.strip("$ "))
            )
        )
        return ("per-share", "${}") if is_money else None
    own = re.search(r"\((?:in )?(thousands|millions|billions)(?: of (\w+))?\)", line.label + " " + line.parent, re.I)
    if own:
        scale = own[1].lower()[:-1]
        if "$" in value.cell.text or (own[2] or "").lower() == "dollars":
            return ("currency", f"${{}} {scale}")
        noun = own[2] or ("shares" if "shares" in text else "")
        is_named = bool(re.search(r"\b(?:shares|miles|passengers)\b", text, re.I))
        return ("quantity", f"{{}} {scale} {'' if is_named else noun}".strip()) if noun or is_named else None
    text = re.sub(r"\bmargins?\b", " ", text, flags=re.I) if abs(value.figure.value) >= 1000 else text  # no percentage
    if (
        re.search(
            r"\bshares\b|ratio\b|margin\b|percent|\brate\b|\(cents\)|\bmiles\b|\bfactor\b|customers|employees|%",
            text,
            re.I,
        )
        and "$" not in value.cell.text
    ):
        return None
    scale, noun = _scale(table.context)
    if not scale and "$" in value.cell.text and re.search(r"\baverage\b|\bdaily\b|\bprice\b", text, re.I):
        return ("currency", "${}")
    if not scale:
        return None
    if noun and "dollar" not in noun and "$" not in value.cell.text:
        return ("quantity", f"{{}} {scale} {noun}")
    return ("currency", f"${{}} {scale}")


_SHARES_NOTE = re.compile(
    r"\bshares?(?: data)?,?(?: which)?(?: are)?(?: reflected| presented| stated)? in (thousands|millions)\b",
    re.IGNORECASE,
)
"""Where a note on units says apart what counts of shares are in."""


def _scale(context: str) -> tuple[str, str]:
    """Return the scale word of a table's unit note ("million") and what it counts ("barrels", "" for money)."""
    found: tuple[str, str] = ("", "")
    for match in UNIT_NOTE.finditer(context):
        scale = (match["scale"] or match["scale2"]).lower()[:-1]
        if (match["noun"] or "").lower() in {"shares", "share"}:
            continue  # "net income in millions and shares in thousands"
        noun = (match["of"] or match["of2"] or "").lower()
        if noun in {"shares", "us", "u.s"} or (
            noun
            and noun not in {"dollars", "us dollars", "u.s. dollars", "barrels", "pounds", "tons", "tonnes", "units"}
        ):
            continue
        before = context[: match.start()].split("\n")[-1]
        if re.search(r"shares?[^()\n]{0,40}$", before, re.I):
            continue  # "except number of shares, which are reflected in thousands"
        if found[0] and match["noun"] and not noun and re.search(r"of dollars[;,]\s*$", before, re.I):
            continue  # "revenues in millions of dollars; carloads in thousands"
        found = (scale, "" if "dollar" in noun else noun)
    return found


def _tag_unit(value: Value, value_label: str) -> tuple[FactUnit, str] | None:
    tag = value.tag
    assert tag is not None
    written = abs(value.figure.value)
    scale = {
        Decimal(1): "",
        Decimal(10) ** 3: " thousand",
        Decimal(10) ** 6: " million",
        Decimal(10) ** 9: " billion",
    }.get(abs(tag.value) / written if written else Decimal(1))
    if scale is None:
        return None
    if tag.unit == "USD":
        return ("currency", f"${{}}{scale}")
    if tag.unit == "USD/shares":
        return ("per-share", "${}")
    if tag.unit == "shares":
        return ("quantity", f"{{}}{scale}" if "shares" in value_label.lower() else f"{{}}{scale} shares")
    return None


def _tag_period(period: Period, value: Value) -> Period | None:
    """The tag's dates are the truth; a header that contradicts them was read wrongly."""
    tag = value.tag
    assert tag is not None
    until = date.fromisoformat(tag.until)
    year, month, day = until.year, until.month, until.day
    if not tag.since:
        return Period(year, 0, month, day) if abs(year - period.year) <= 1 else None
    months = round((until - date.fromisoformat(tag.since)).days / 91.3) * 3
    if months not in (3, 6, 9, 12):
        return None
    if months == 12:
        return Period(year, 12, month, day) if period.month else Period(period.year, 12)
    return replace(period, year=year, months=months, month=month, day=day)


def _signed(metric: str, number: Decimal, value: Value) -> tuple[Decimal, str | None]:
    """Return the number without its parentheses and the metric that says what they meant."""
    both = re.search(rf"\b((?:provided|generated) by|{EITHER})\s?/?\s?\(({EITHER}|used (?:in|by|for))\)", metric)
    if both:
        word = both[2] if number < 0 else both[1]
        return abs(number), metric.replace(both[0], word)
    if number >= 0 and not (value.tag is not None and value.tag.value < 0):
        return number, metric
    if value.tag is not None and value.tag.value > 0:
        return abs(number), metric
    is_told_negative = value.tag is not None and value.tag.value < 0
    if (
        not is_told_negative
        and not re.search(r"\bgains?\b|\bincome/", metric)
        and re.search(
            r"\b(?:loss|losses|expense|deficit|allowance|accumulated depreciation|taxes|charges|payments|purchases"
            r"|repurchases|dividends)\b|^(?!.*\bincome\b).*\bexpenses\b",
            metric,
        )
    ):
        return abs(number), metric
    return number, None


def _placed(metric: str, period: Period, unit: FactUnit, table: Table) -> Period | None:
    """A balance is asked for at a day: a column headed by a bare year takes the day that the context names."""
    is_balance = bool(BALANCE.search(metric)) and not FLOW.search(metric)
    if not is_balance or unit == "percent" or period.months == 0:
        return period
    if period.months != 12 or re.search(r"cash flow|statements? of (?:income|operations|earnings)", table.title, re.I):
        return None
    month = "|".join(MONTHS)
    found = re.search(rf"({month})\s+(\d{{1,2}}),\s+{period.year}", table.context)
    if found and period.month == 0:
        return replace(period, months=0, month=1 + MONTHS.index(found[1]), day=int(found[2]))
    return replace(period, months=0) if period.month == 0 else None
