"""Inline-XBRL tags as bound facts: concept, members and dates are the filer's own."""

import re
from collections.abc import Sequence

from finlm.figures import Unit, cell_figure
from selfqa.binding import BoundFact
from selfqa.blocks import Tag
from selfqa.concepts import camel_words, tokens
from selfqa.gathered import Gathered, line_of
from selfqa.period_phrases import When, of_dates
from selfqa.word_index import Words


def tag_fact(
    reader: Gathered,
    tag: Tag,
    own: frozenset[str],
    around: frozenset[str],
    table: int,
    label: str = "",
    named: Sequence[When] = (),
) -> None:
    """Bind a tag; where it fills a table's cell, the row's words, its surroundings and its column's periods help."""
    concept, members = _tag_words(reader, tag)
    wordings = tuple(dict.fromkeys(bag for bag in (own, own | members, concept | members) if bag))
    line = line_of(reader, Words(wordings, around | concept | members, table, members - own - around))
    unit, currency, things = _tag_unit(tag, label)
    value = tag.value * 100 if unit == "percent" else tag.value
    shown = cell_figure(reader.source.text[tag.start : tag.end])
    reader.facts.append(
        BoundFact(
            value=value,
            unit=unit,
            currency=currency,
            periods=_tag_periods(tag, named),
            line=line,
            start=tag.start,
            end=tag.end,
            origin="tag",
            written=abs(shown.value) if shown else abs(value),
            things=things,
        )
    )


def _tag_periods(tag: Tag, named: Sequence[When]) -> tuple[When, ...]:
    """The tag's dates, and the year that its column gives to a year that ends early in the next: fiscal 2024."""
    when = of_dates(tag.since, tag.until)
    is_named = any(other.is_bare_year and other.year == when.year - 1 for other in named)
    return (when, When(when.year - 1, when.months)) if is_named and when.month <= 2 else (when,)


def _tag_words(reader: Gathered, tag: Tag) -> tuple[frozenset[str], frozenset[str]]:
    concept = tokens(camel_words(tag.concept), "en")
    members = tokens(" ".join(camel_words(member) for member in tag.dimensions), "en")
    return concept, members


def _tag_unit(tag: Tag, label: str) -> tuple[Unit, str, str]:
    if tag.unit == "pure":
        return "percent", "", ""
    if "/" in tag.unit or re.search(r"PerShare|GrantDateFairValue$", tag.concept):
        return "per-share", tag.unit.split("/")[0], ""
    if tag.unit == "shares":
        return "plain", "", "shares"
    return ("currency", tag.unit, "") if re.fullmatch(r"[A-Z]{3}", tag.unit) else ("plain", "", "")


def loose_tags(reader: Gathered, inside: set[int], tables: int) -> None:
    """Tags in running text: the sentence around them lends its words."""
    text = reader.source.text
    for tag in reader.source.tags:
        if tag.start in inside:
            continue
        left = max(text.rfind("\n", 0, tag.start), text.rfind(". ", 0, tag.start)) + 1
        right = text.find("\n", tag.end)
        sentence = text[left : right if right > 0 else None][:400]
        tag_fact(reader, tag, frozenset(), reader.words(sentence), tables + 1)
