"""True pairs from an inline-XBRL filing, read by ixbrlparse: the checker reads the same page with code of its own."""

import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

from ixbrlparse import IXBRL

from benchmarks.check_truths import Ground, TruePair, Truth, unambiguous

_UNITS = {"iso4217:USD": "currency", "xbrli:shares": "shares", "xbrli:pure": "percent"}
_MONTHS = {90: "three months", 91: "three months", 272: "nine months", 273: "nine months"}
_SCALES = {0: "", 3: "thousand", 6: "million", 9: "billion"}


def ground_of(path: Path) -> Ground:
    """Read the facts of a filing as truths, in words of the page where those are unambiguous, else of the taxonomy."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parsed = IXBRL.open(str(path))
    facts = [fact for fact in parsed.numeric if fact.unit in _UNITS and fact.value is not None and _period(fact)]
    entity = next(fact.value for fact in parsed.nonnumeric if fact.name == "EntityRegistrantName")
    values: dict[tuple[str, str], set[float]] = defaultdict(set)
    for fact in facts:
        values[_label(fact), _period(fact)].add(fact.value)
    clear = Counter(label for label, _ in values if label)
    for (label, _), found in values.items():
        if len(found) > 1:
            clear[label] = 0
    return Ground(unambiguous(_truth(fact, clear) for fact in facts), str(entity))


def pairs_of(ground: Ground, document: str) -> Iterator[TruePair]:
    """Ask for every truth, and for the change between the two years of a metric."""
    for truth in ground.truths:
        if truth.value:
            yield _figure_pair(truth, ground.entity, document)
    for rows in ground.by_metric.values():
        for new in rows:
            for old in rows:
                if _is_year_before(old, new) and old.value > 0 and new.value > 0 and old.value != new.value:
                    yield from _change_pairs(old, new, ground.entity, document)


def written(value: Decimal, unit: str, scale: str) -> str:
    """Write an amount as a filing does: "$(171) million", "14,902,886 thousand shares", "24%"."""
    power = {word: power for power, word in _SCALES.items()}[scale]
    number = f"{abs(value).scaleb(-power).normalize():,f}"
    tail = f" {scale}" if scale else ""
    if unit == "percent":
        return f"{'-' if value < 0 else ''}{number}%"
    if unit == "shares":
        return f"{'-' if value < 0 else ''}{number}{tail} shares"
    if unit == "per-share":
        number = f"{abs(value):.2f}" if abs(value).normalize().as_tuple().exponent > -3 else number  # type: ignore[operator]
    return f"$({number}){tail}" if value < 0 else f"${number}{tail}"


def _period(fact: Any) -> str:
    when = fact.context
    if when.instant:
        return f"as of {_date(when.instant)}"
    span = _MONTHS.get((when.enddate - when.startdate).days)
    return f"in the {span} ended {_date(when.enddate)}" if span else ""


def _date(day: Any) -> str:
    return f"{day.strftime('%B')} {day.day}, {day.year}"


def _label(fact: Any) -> str:
    """The first cell of the fact's table row, where the page shows the fact with the sign that its tag has."""
    row = fact.soup_tag.find_parent("tr")
    if row is None:
        return ""
    label = " ".join(row.find(["td", "th"]).get_text(" ", strip=True).split())
    label = re.sub(r"\s*\((?:\d|in )[^()]*\)|[®™]|\s+\d$", "", label).strip(" :,")
    cell = fact.soup_tag.find_parent("td").get_text("", strip=True)
    before = fact.soup_tag.find_parent("td").find_previous_sibling("td")
    is_shown_negative = cell.startswith(("(", "$(")) or (
        before is not None and before.get_text(strip=True).endswith("(")
    )
    return label if re.search(r"[a-z]{3}", label) and is_shown_negative == (fact.value < 0) else ""


def _words(name: str) -> str:
    name = re.sub(r"(?:Segment)?Member$", "", name.split(":")[-1])
    pieces = re.sub(r"(?<=[a-z])(?=[A-Z\d])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=\d)(?=[A-Z])", " ", name)
    return " ".join(piece if piece.isupper() and len(piece) > 1 else piece.lower() for piece in pieces.split())


def _truth(fact: Any, clear: Counter[str]) -> Truth:
    label = _label(fact)
    members = [_words(part["value"]).title() for part in fact.context.segments if part.get("tag") == "explicitMember"]
    metric = _words(fact.name) + (f" ({', '.join(members)})" if members else "")
    if clear[label]:
        metric = label[0].lower() + label[1:] if label[1:2].islower() else label
    unit = _UNITS[fact.unit]
    if unit == "currency" and re.search(r"PerShare|PricePer|GrantDateFairValue$", fact.name):
        unit = "per-share"
    value = Decimal(str(fact.value)).normalize()
    return Truth(
        metric=metric,
        period=_period(fact),
        value=value * 100 if unit == "percent" else value,
        unit=unit,  # type: ignore[arg-type]
        currency="USD" if fact.unit == "iso4217:USD" else "",
        scale=_SCALES.get(int(fact.soup_tag.get("scale") or 0), "") if unit != "per-share" else "",
    )


def _figure_pair(truth: Truth, entity: str, document: str) -> TruePair:
    is_large = truth.unit == "currency" and truth.scale == "million" and abs(truth.value) > 10**10
    amount = written(truth.value, truth.unit, truth.scale)
    if is_large and truth.value % 3 == 0:
        amount = written(truth.value, truth.unit, "billion")  # a model says "$23.434 billion" for 23,434
    return TruePair(
        source="ixbrl",
        language="en",
        document=document,
        question=f"What was {entity}'s {truth.metric} {truth.period}?",
        answer=f"{entity}'s {truth.metric} was {amount} {truth.period}.",
        entity=entity,
        metric=truth.metric,
        periods=(truth.period,),
        amount=amount,
        truths=(truth,),
    )


def _is_year_before(old: Truth, new: Truth) -> bool:
    ours, theirs = (re.search(r"(.*?)(\w+ \d+), (\d{4})$", truth.period) for truth in (old, new))
    assert ours
    assert theirs
    is_close = old.unit == new.unit == "currency" and old.scale == new.scale
    return is_close and ours[1] == theirs[1] and int(ours[3]) + 1 == int(theirs[3])


def _change_pairs(old: Truth, new: Truth, entity: str, document: str) -> Iterator[TruePair]:
    moved = "rose" if new.value > old.value else "fell"
    since, until = (re.sub(r"^(?:in|as of)\s", "", truth.period) for truth in (old, new))
    growth = (abs(new.value - old.value) / old.value * 100).quantize(Decimal("0.1"), rounding=ROUND_HALF_UP)
    difference = written(abs(new.value - old.value), new.unit, new.scale)
    for operation, ask, amount in (
        ("growth", "By what percentage", f"{growth}%"),
        ("difference", "By how much", difference),
    ):
        yield TruePair(
            source="ixbrl",
            language="en",
            document=document,
            question=f"{ask} did {entity}'s {new.metric} change from {since} to {until}?",
            answer=f"{entity}'s {new.metric} {moved} by {amount} from {since} to {until}.",
            entity=entity,
            metric=new.metric,
            periods=(since, until),
            amount=amount,
            truths=(old, new),
            operation=operation,  # type: ignore[arg-type]
        )
