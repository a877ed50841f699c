"""Quotes found again to the character: exactly, evened out, nearly, but never with another figure."""

import pytest

from selfqa.quotes import find_quote

TEXT = (
    "Net interest income rose 7.4% to $412.6 million in 2024, because loans repriced at higher rates.\n"
    "The bank opened four branches in Tulliver. 营业收入为３１８，０２４元，较上期增长７．４％，主要系销量增加所致"
)


@pytest.mark.parametrize(
    ("quote", "found"),
    [
        ("The bank opened four branches", "The bank opened four branches"),
        ("the bank opened\nfour  branches", "The bank opened four branches"),
        ("...opened four branches in Tulliver.", "opened four branches in Tulliver."),
        ("营业收入为318,024元", ""),
        ("较上期增长7.4%，主要系销量增加所致", "较上期增长７．４％，主要系销量增加所致"),
        ("Net interest income rose 7.4% to $412.6 million in 2024 because loans were repriced", "Net interest income"),
        ("Net interest income rose 7.4% to $412.9 million in 2024, because loans repriced", ""),
        ("Net interest income rose 7.4% to $412.6 million in 2023, because loans repriced", ""),
        ("The bank closed many offices in Granby Forks and elsewhere", ""),
        ("four brunches", ""),
        ("", ""),
        ("   ", ""),
    ],
)
def test_where_a_quote_stands(quote: str, found: str) -> None:
    span = find_quote(quote, TEXT, 0, len(TEXT))
    assert (TEXT[span[0] : span[1]] if span else "").startswith(found)
    assert bool(span) == bool(found)


def test_only_within_the_passage() -> None:
    at = TEXT.index("The bank")
    assert find_quote("Net interest income", TEXT, at, len(TEXT)) is None
    assert find_quote("four branches", TEXT, at, len(TEXT)) == (TEXT.index("four"), TEXT.index("four") + 13)
