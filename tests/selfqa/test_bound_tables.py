"""Figures of tables that say their period, unit or metric elsewhere than in row and column: as a reader reads them."""

import pytest

from selfqa.bound_sentences import book_of
from selfqa.claims import claim_fault
from selfqa.entities import Filing
from selfqa.markup import read_html
from selfqa.period_phrases import When
from selfqa.rollforward import Movement, movements_of_columns, movements_of_rows

FILING = Filing("", "", "en", 2019, 12)


def page(*rows: str, above: str = "") -> str:
    """A table of rows written with "|" between their cells."""
    cells = ("".join(f"<td>{cell.strip()}</td>" for cell in row.split("|")) for row in rows)
    return f"<html><body><p>{above}</p><table>{''.join(f'<tr>{row}</tr>' for row in cells)}</table></body></html>"


OPTIONS = page(
    "| Number of shares | Price",
    "Outstanding at September 30, 2016 | 3,015,374 | $3.95",
    "Granted | 147,800 | $7.06",
    "Exercised | (235,514) | $2.92",
    "Outstanding at September 30, 2017 | 2,845,866 | $4.21",
    "Granted | 299,397 | $8.60",
    "Exercised | (250,823) | $2.96",
    "Outstanding at September 30, 2018 | 2,806,364 | $4.75",
    above="The activity of the fiscal years ended September 30, 2018 and 2017 was:",
)
GOODWILL = page(
    "(In millions) | Dec 30, 2017 | Acquisitions | Other | Dec 29, 2018",
    "Data center | $5,421 | $3 | $1 | $5,425",
    "Memory | 1,126 | 160 | 43 | 1,329",
)
SUMMARY = page(
    "(in millions) | 2019 | 2018",
    "| Operations data: |",
    "Total revenues | $39,506 | $39,383",
    "| Balance sheet data: |",
    "Working capital | $27,756 | $57,035",
    "Total in-game sales | $3,366 | $4,203",
    "Total sales | $6,388 | $7,262",
    "Deferred taxes, net of allowance | $303 | $286",
    "Deferred taxes | $426 | $395",
    "Allowance | (16) | (15)",
    "Branches | 62 | 57",
)
SHARES = page(
    "(in millions, except per share amounts) | 2019 | 2018",
    "Denominator for basic earnings per share: | |",
    "Weighted average shares outstanding, basic | 44.8 | 44.3",
    "Basic earnings per share (cents per share) | |",
    "Continuing operations | 114.3 | 123.4",
    "Discontinued operations | 91.9 | 9.2",
    "| 206.2 | 132.6",
    "Maturity date | 30/7/2021 | 28/6/2019",
    "| 11/4/2024 | 8/12/2023",
    "Hedged rate | 2.10% | 1.60%",
)
LIVES = page(
    "(dollars in millions) | 2019 | 2018 | Lives (years)",
    "Land | $117.2 | $117.2 | 20 - Indefinite",
    "Buildings | 315.4 | 305.2 | 5 - 40",
    "Discount rate | 3.1% | 3.4% | 2.5% to 4.0%",
)
DEBT = page(
    "(In millions) | December 31, 2019 | December 31, 2018",
    "4.875% notes due December 2022 | $421.9 | $421.1",
    "5.25% notes due April 2023 | 422.0 | 421.2",
)
SEVERANCE = page(
    "| 2019 | 2018 | 2017",
    "Employee severance and related costs | $7,169 | $7,845 | $724",
    "Evaluation of alternatives | 1,286 | - | -",
    "Relocation | - | 2,802 | 2,907",
    "| $8,455 | $10,647 | $3,631",
    above="The following is a summary of the costs incurred in connection with these activities (in thousands):",
)
REGIONS = page(
    "| 2019 | | 2018 |",
    "| $ | % | $ | %",
    "Canada | 96,168 | 18.8% | 70,774 | 20.2%",
    "Mexico | 415,832 | 81.2% | 279,226 | 79.8%",
    "| 512,000 | 100.0% | 350,000 | 100.0%",
    above="The following table presents total external revenues by region, in US $000's:",
)
PRICES = "<h2>Item 5. Market for Common Equity, Related Stockholder Matters and Issuer Purchases</h2>" + page(
    "| 2018 |",
    "| Low | High",
    "First quarter | $5.99 | $8.40",
    "Second quarter | $4.79 | $6.48",
    "Third quarter | $2.66 | $4.63",
    above="The table shows the lowest and highest sale prices per share that were reported on the exchange, and on any "
    "other place of trade of which the registrant knows, for every quarter of the most recent fiscal year:",
)


@pytest.mark.parametrize(
    ("table", "question", "answer", "computation", "rule"),
    [
        # a line without a label is the total of what adds up to it
        (SEVERANCE, "What are the total costs incurred in 2019?", "$8,455 thousand", "", ""),
        (SEVERANCE, "What are the total costs incurred in 2019?", "$10,647 thousand", "", "wrong-period"),
        (REGIONS, "What are the total external revenues from Canada in 2019?", "512,000 thousand", "", "wrong-metric"),
        # years in a list without spaces, a range of years, the year with which an average begins
        (SEVERANCE, "What is the average for 2017,2018 and 2019?", "7,577.67 thousand", "(3,631+10,647+8,455)/3", ""),
        (
            SEVERANCE,
            "What is the average for 2017,2018 and 2020?",
            "7,577.67 thousand",
            "(3,631+10,647+8,455)/3",
            "wrong-period",
        ),
        (
            SEVERANCE,
            "What is severance for 2019 to 2017?",
            "$7,169 thousand, $7,845 thousand and $724 thousand",
            "",
            "",
        ),
        (
            SEVERANCE,
            "What is severance for 2017 to 2019?",
            "$724 thousand, $7,845 thousand and $7,169 thousand",
            "",
            "",
        ),
        (
            SEVERANCE,
            "What is severance for 2017 to 2019?",
            "$7,169 thousand, $7,845 thousand and $724 thousand",
            "",
            "wrong-period",
        ),
        (
            SEVERANCE,
            "What is the change between 2018 and 2019 average severance?",
            "3,222.5 thousand",
            "(7,169+7,845)/2 - (7,845+724)/2",
            "",
        ),
        (
            SEVERANCE,
            "What is the average severance in 2018 and 2019?",
            "4,284.5 thousand",
            "(7,845+724)/2",
            "wrong-period",
        ),
        # columns of money beside columns of percentages
        (REGIONS, "What are the external revenues from Canada in 2019?", "96,168 thousand", "", ""),
        (REGIONS, "What are the external revenues from Canada in 2019?", "96,168%", "", "wrong-scale"),
        (REGIONS, "What share of external revenues is from Canada in 2018?", "20.2%", "", ""),
        # a section's long name does not hide the line above a table
        (PRICES, "What is the sale price per share of each quarter in 2018?", "$5.99, $4.79 and $2.66", "", ""),
        (OPTIONS, "How many shares were granted in 2017?", "147,800 shares", "", ""),
        (OPTIONS, "How many shares were granted in 2018?", "147,800 shares", "", "wrong-period"),
        (OPTIONS, "How many shares were granted in 2018?", "299,397 shares", "", ""),
        (OPTIONS, "What was paid for the exercised between 2016 and 2017?", "687,700.88", "235,514 * 2.92", ""),
        (
            OPTIONS,
            "What was paid for the exercised between 2017 and 2018?",
            "687,700.88",
            "235,514 * 2.92",
            "wrong-period",
        ),
        (GOODWILL, "What were the acquisitions of Memory in 2018?", "$160 million", "", ""),
        (GOODWILL, "What were the acquisitions of Memory in 2017?", "$160 million", "", "wrong-period"),
        (SUMMARY, "What was the working capital in 2018?", "$57,035 million", "", ""),
        (SUMMARY, "What was the working capital in 2019?", "$57,035 million", "", "wrong-period"),
        (SUMMARY, "What were the total in-game sales in 2019?", "$3,366 million", "", ""),
        (SUMMARY, "What were the total in-game sales in 2019?", "$6,388 million", "", "wrong-metric"),
        (SUMMARY, "What were deferred taxes in 2019?", "$426 million", "", ""),
        (SUMMARY, "What were deferred taxes in 2019?", "$303 million", "", "wrong-metric"),
        (SUMMARY, "What was the allowance in 2019?", "(16) million", "", ""),
        (SUMMARY, "What was the allowance in 2019?", "(17)", "", "figure-unknown"),
        (SUMMARY, "What were the branches in 2019?", "75", "", "figure-unknown"),
        (SHARES, "What was the weighted average shares outstanding, basic, in 2019?", "44.8 million", "", ""),
        (SHARES, "What were total basic earnings per share (cents per share) in 2019?", "206.2", "", ""),
        (SHARES, "What was the hedged rate in 2018?", "1.60%", "", ""),
        (SHARES, "What was the hedged rate in 2019?", "1.60%", "", "wrong-period"),
        (DEBT, "What are the notes due by April 2023 at December 31, 2019?", "843.9 million", "421.9 + 422.0", ""),
        (
            DEBT,
            "What are the notes due by April 2023 at December 31, 2018?",
            "843.9 million",
            "421.9 + 422.0",
            "wrong-period",
        ),
        (LIVES, "How many years is the longest life of buildings?", "40", "", ""),
        (LIVES, "How many years is the longest life of buildings?", "20", "", "wrong-metric"),
        (LIVES, "How many years is the shortest life of land?", "20", "", ""),
        (LIVES, "What is the lowest discount rate?", "2.5%", "", ""),
        (LIVES, "What is the lowest discount rate?", "2.6%", "", "figure-unknown"),
        # a dash has no fact, but no column of the table is of 2020
        (DEBT, "How did notes change from 2018 to 2019?", "421.1 million", "421.1 - 0", ""),
        (DEBT, "How did notes change from 2019 to 2020?", "421.9 million", "421.9 - 0", "wrong-period"),
    ],
)
def test_what_a_table_says_elsewhere(table: str, question: str, answer: str, computation: str, rule: str) -> None:
    """A careful reader of the page says the same."""
    fault = claim_fault(question, answer, book_of(read_html(table), FILING), FILING, computation)
    assert (fault[0] if fault else "") == rule, fault


def test_a_sentence_of_another_years_change_tells_none_of_this_one() -> None:
    """2019 against 2018 is not 2018 against 2017."""
    text = "<html><body><p>Net bookings decreased by $572 million in 2019, as compared to 2018.</p></body></html>"
    book = book_of(read_html(text), FILING)
    asked = "What was the decrease in net bookings in {}, as compared to {}?"
    assert claim_fault(asked.format(2019, 2018), "$572 million", book, FILING) is None
    fault = claim_fault(asked.format(2018, 2017), "$572 million", book, FILING)
    assert fault is not None


def test_movements_stand_between_balances_of_a_year() -> None:
    """No year leads from 2015 to 2018, and a balance of January 1 closes the year before."""
    first, second, late = When(2016, 0, 9, 30), When(2017, 0, 9, 30), When(2021, 0, 9, 30)
    labels = ["Balance at", "Granted", "Balance at", "Granted", "Balance at"]
    rows = movements_of_rows(labels, [[first], [], [second], [], [late]])
    assert rows == {1: Movement(first, When(2017))}
    (_, inner, _) = movements_of_columns([[When(2018, 0, 1, 1)], [], [When(2019, 0, 1, 1)]])
    assert inner == Movement(When(2018, 0, 1, 1), When(2018))
    assert movements_of_columns([[When(2018)], [], [When(2019)]]) == [None, None, None]  # no days, no balances
