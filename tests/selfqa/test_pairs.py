"""Sentences that a template writes: a reader of English must not stumble."""

import pytest

from selfqa import english
from selfqa.pairs import possessive, verb


@pytest.mark.parametrize(
    ("metric", "wanted"),
    [
        ("revenue", "was"),
        ("net sales", "were"),
        ("accounts payable", "were"),
        ("net accounts receivable", "were"),
        ("income taxes payable", "were"),
        ("interest payable", "was"),
        ("goodwill", "was"),
        ("cost of goods sold", "was"),
        ("loans held for sale", "were"),
        ("cash and cash equivalents", "were"),
        ("total stockholders' equity", "was"),
        ("gross profit", "was"),
        ("selling, general and administrative expenses", "were"),
        ("total property, plant and equipment, net", "was"),
        ("cash, cash equivalents and marketable securities", "were"),
        ("accrued payroll and related expenses", "were"),
        ("crude oil, products and merchandise inventories", "were"),
    ],
)
def test_the_verb_agrees_with_the_head_of_the_metric(metric: str, wanted: str) -> None:
    assert verb(metric) == wanted


def test_possessives() -> None:
    assert [possessive(name) for name in ("Apple Inc.", "Alder Foods")] == ["Apple Inc.'s", "Alder Foods'"]


@pytest.mark.parametrize(
    ("note", "scale"),
    [
        ("(Revenues in millions of dollars; carloads in thousands)", ("million", "")),
        ("(In millions, except number of shares, which are reflected in thousands)", ("million", "")),
        ("(Dollars in thousands)", ("thousand", "")),
        ("(Carloads in thousands)", ("thousand", "")),
        ("(thousands of barrels)", ("thousand", "barrels")),
    ],
)
def test_the_scale_of_a_tables_note_is_that_of_its_money(note: str, scale: tuple[str, str]) -> None:
    assert english._scale(note) == scale
