"""Answers held against a filing's facts: what a careful reader of the page accepts and rejects, in both languages."""

from decimal import Decimal
from typing import Any

import pytest

from finlm.errors import UserError
from finlm.figures import narrow
from selfqa.claims import claim_fault
from selfqa.entities import Filing
from selfqa.expressions import parse_expression, texts_of
from selfqa.grounds import Grounds
from selfqa.markup import read_html
from selfqa.names import foreign_name
from selfqa.pairs import Pair
from selfqa.period_phrases import When, periods_said
from selfqa.unit_notes import unit_note

ENGLISH = """<html><body><h1>Northwind Bancorp</h1><p>Annual report for the year ended December 31, 2024</p>
<p>CONSOLIDATED STATEMENTS OF INCOME (in millions, except per share amounts)</p>
<table><tr><td></td><td colspan="3">Year Ended December 31,</td></tr>
<tr><td></td><td>2024</td><td>2023</td><td>Change</td></tr>
<tr><td>Net interest income</td><td>$412.6</td><td>$384.2</td><td>7.4%</td></tr>
<tr><td>Other income (expense), net</td><td>(12.5)</td><td>3.1</td><td></td></tr>
<tr><td>Provision for credit losses</td><td>58.3</td><td>41.7</td><td></td></tr>
<tr><td>Net cash used in investing activities</td><td>(120.4)</td><td>(99.9)</td><td></td></tr>
<tr><td>Diluted earnings per share</td><td>1.76</td><td>1.52</td><td></td></tr>
<tr><td>Net interest margin</td><td>3.02%</td><td>2.98%</td><td></td></tr></table>
<p>Northwind Bancorp employed 1,204 people at December 31, 2024. Fee income was $25.1 million and $22.0 million in 2024
and 2023, respectively. Northwind bought Alder Trust for $61 million in 2022.</p></body></html>"""
CHINESE = """<html><body><h>江苏澄谷山泉饮品股份有限公司2024年年度报告</h><p>证券简称：澄谷山泉</p>
<p>合并利润表</p><p>单位：万元</p>
<table><tr><td>项目</td><td>2024 年度</td><td>2023 年度</td></tr>
<tr><td>一、营业收入</td><td>386,241.73</td><td>349,105.20</td></tr>
<tr><td>减：营业成本</td><td>201,330.00</td><td>190,002.50</td></tr>
<tr><td>投资收益（损失以“－”号填列）</td><td>-1,250.60</td><td>880.10</td></tr></table>
<p>单位：元</p><table><tr><td></td><td>第一季度</td><td>第二季度</td></tr>
<tr><td>净利润</td><td>11,000,200.30</td><td>12,500,400.50</td></tr></table>
<p>单位：元</p><table><tr><td>项目</td><td>期末余额</td><td>期初余额</td></tr>
<tr><td>货币资金</td><td>73,992,141.96</td><td>63,189,391.11</td></tr></table></body></html>"""

NORTHWIND = Filing("Northwind Bancorp", "Northwind Bancorp", "en", 2024, 12)
SPRING = Filing("江苏澄谷山泉饮品股份有限公司", "澄谷山泉", "zh", 2024, 12)

ASKED = "What was Northwind Bancorp's {} in {}?"
SAID: list[tuple[str, str, str]] = [
    # question, answer, rule
    (ASKED.format("net interest income", 2024), "Northwind's net interest income was $412.6 million in 2024.", ""),
    (ASKED.format("net interest income", 2024), "$412.6 million", ""),
    (ASKED.format("net interest income", 2024), "It came to $412,600,000.", ""),
    (ASKED.format("net interest income", 2024), "About $413 million.", ""),
    (ASKED.format("net interest income", 2024), "$421.6 million", "figure-unknown"),
    (ASKED.format("net interest income", 2024), "$412.6 billion", "wrong-scale"),
    (ASKED.format("net interest income", 2024), "$412.6", "wrong-scale"),
    (ASKED.format("net interest income", 2024), "€412.6 million", "wrong-unit"),
    (ASKED.format("net interest income", 2024), "412.6 million shares", "wrong-unit"),
    (ASKED.format("net interest income", 2024), "$(412.6) million", "wrong-sign"),
    (ASKED.format("net interest income", 2024), "$384.2 million", "wrong-period"),
    (ASKED.format("net interest income", 2022), "$412.6 million", "wrong-period"),
    (ASKED.format("net interest income", 2024), "$58.3 million", "wrong-metric"),
    (ASKED.format("provision for credit losses", 2023), "The provision was $41.7 million in 2023.", ""),
    (ASKED.format("other income (expense), net", 2024), "It was $(12.5) million.", ""),
    (ASKED.format("other income (expense), net", 2024), "It was $12.5 million.", "wrong-sign"),
    (ASKED.format("net cash used in investing activities", 2024), "It used $120.4 million.", ""),
    (ASKED.format("diluted earnings per share", 2024), "$1.76 per share", ""),
    (ASKED.format("diluted earnings per share", 2024), "$1.76 million", "wrong-scale"),
    (ASKED.format("net interest margin", 2024), "3.02%", ""),
    (ASKED.format("net interest margin", 2024), "3.02 percentage points", "wrong-unit"),
    (ASKED.format("net interest margin", 2024), "2.98%", "wrong-period"),
    (ASKED.format("fee income", 2023), "Fee income was $22.0 million in 2023.", ""),
    (ASKED.format("fee income", 2023), "Fee income was $25.1 million in 2023.", "wrong-period"),
    ("How many people did Northwind employ at December 31, 2024?", "It employed 1,204 people.", ""),
    ("How many people did Northwind employ at December 31, 2024?", "It employed 1,402 people.", "figure-unknown"),
    # computed here from two facts
    ("By how much did net interest income change from 2023 to 2024?", "It rose by $28.4 million.", ""),
    ("By how much did net interest income change from 2023 to 2024?", "It fell by $28.4 million.", "wrong-sign"),
    ("By how much did net interest income change from 2023 to 2024?", "It rose by $29.4 million.", "figure-unknown"),
    ("By how much did net interest income change from 2022 to 2023?", "It rose by $28.4 million.", "figure-unknown"),
    ("By what percentage did net interest income change from 2023 to 2024?", "It grew by 7.4%.", ""),
    ("By what percentage did net interest income change from 2023 to 2024?", "It fell by 7.4%.", "wrong-sign"),
    ("By what percentage did the provision change from 2023 to 2024?", "It increased by 39.8%.", ""),
    ("What was the total net interest income in 2023 and 2024?", "The total was $796.8 million.", ""),
    ("What was the average provision for credit losses in 2023 and 2024?", "The average was $50.0 million.", ""),
    # which of two periods
    ("Was net interest income higher in 2023 or in 2024?", "Net interest income was higher in 2024.", ""),
    (
        "Was net interest income higher in 2023 or in 2024?",
        "Net interest income was higher in 2023.",
        "wrong-comparison",
    ),
    ("Was the provision for credit losses lower in 2023 or in 2024?", "It was lower in 2023.", ""),
    # a figure beside its own year and metric
    (
        "How did net interest income develop?",
        "Net interest income rose from $384.2 million in 2023 to $412.6 million in 2024.",
        "",
    ),
    (
        "How did net interest income develop?",
        "Net interest income rose from $412.6 million in 2023 to $384.2 million in 2024.",
        "wrong-period",
    ),
]
SAID_CHINESE: list[tuple[str, str, str]] = [
    ("澄谷山泉2024年的营业收入是多少？", "澄谷山泉2024年营业收入为386,241.73万元。", ""),
    ("澄谷山泉2024年的营业收入是多少？", "38.624173亿元", ""),
    ("澄谷山泉2024年的营业收入是多少？", "3,862,417,300元", ""),
    ("澄谷山泉2024年的营业收入是多少？", "386,241.73元", "wrong-scale"),
    ("澄谷山泉2024年的营业收入是多少？", "386,241.73亿元", "wrong-scale"),
    ("澄谷山泉2024年的营业收入是多少？", "386,241.73万美元", "wrong-unit"),
    ("澄谷山泉2024年的营业收入是多少？", "386,241.73万股", "wrong-unit"),
    ("澄谷山泉2024年的营业收入是多少？", "-386,241.73万元", "wrong-sign"),
    ("澄谷山泉2024年的营业收入是多少？", "349,105.20万元", "wrong-period"),
    ("澄谷山泉2023年的营业收入是多少？", "澄谷山泉2024年营业收入为349,105.20万元。", "wrong-period"),
    ("澄谷山泉2024年的营业收入是多少？", "201,330.00万元", "wrong-metric"),
    ("澄谷山泉2024年的投资收益是多少？", "投资收益为-1,250.60万元。", ""),
    ("澄谷山泉2024年的投资收益是多少？", "投资收益为1,250.60万元。", "wrong-sign"),
    ("澄谷山泉2024年第一季度的净利润是多少？", "11,000,200.30元", ""),
    ("澄谷山泉2024年第二季度的净利润是多少？", "11,000,200.30元", "wrong-period"),
    ("澄谷山泉2024年的净利润是多少？", "11,000,200.30元", "wrong-period"),
    ("澄谷山泉2024年末的货币资金是多少？", "73,992,141.96元", ""),
    ("澄谷山泉2023年末的货币资金是多少？", "63,189,391.11元", ""),
    ("澄谷山泉2024年末的货币资金是多少？", "63,189,391.11元", "wrong-period"),
    ("澄谷山泉的营业收入在2023年和2024年中哪个更高？", "澄谷山泉的营业收入在2024年更高。", ""),
    ("澄谷山泉的营业收入在2023年和2024年中哪个更高？", "澄谷山泉的营业收入在2023年更高。", "wrong-comparison"),
    ("澄谷山泉2024年的营业收入比2023年变化了多少？", "增加37,136.53万元。", ""),
    ("澄谷山泉2024年的营业收入比2023年变化了多少？", "减少37,136.53万元。", "wrong-sign"),
    ("澄谷山泉2024年的营业收入比2023年变化了百分之几？", "澄谷山泉2024年营业收入比2023年增长10.64%。", ""),
    (
        "澄谷山泉2024年的营业收入比2023年变化了百分之几？",
        "澄谷山泉2024年营业收入比2023年增长11.64%。",
        "figure-unknown",
    ),
]


@pytest.fixture(scope="module")
def northwind() -> Grounds:
    return Grounds(read_html(ENGLISH), NORTHWIND)


@pytest.fixture(scope="module")
def spring() -> Grounds:
    return Grounds(read_html(CHINESE), SPRING)


@pytest.mark.parametrize(("question", "answer", "rule"), SAID)
def test_english_answers(northwind: Grounds, question: str, answer: str, rule: str) -> None:
    fault = claim_fault(question, answer, northwind.book, NORTHWIND)
    assert (fault[0] if fault else "") == rule


@pytest.mark.parametrize(("question", "answer", "rule"), SAID_CHINESE)
def test_chinese_answers(spring: Grounds, question: str, answer: str, rule: str) -> None:
    fault = claim_fault(question, answer, spring.book, SPRING)
    assert (fault[0] if fault else "") == rule


LISTED = [
    # question, answer, computation, rule
    ("What was the change in the provision from 2023 to 2024?", "16.6 million", "58.3 - 41.7", ""),
    ("What was the change in the provision from 2023 to 2024?", "-16.6 million", "58.3 - 41.7", "wrong-derivation"),
    ("What was the change in the provision from 2023 to 2024?", "17.6 million", "58.3 - 41.7", "wrong-derivation"),
    ("What was the change in the provision from 2023 to 2024?", "16.6 billion", "58.3 - 41.7", "wrong-derivation"),
    ("What was the change in the provision from 2023 to 2024?", "16.6%", "58.3 - 41.7", "wrong-derivation"),
    ("What was the change in the provision from 2023 to 2024?", "17.6 million", "59.3 - 41.7", "wrong-operand"),
    ("What was the change in the provision from 2022 to 2023?", "16.6 million", "58.3 - 41.7", "wrong-period"),
    ("What was the growth of the provision from 2023 to 2024?", "39.81%", "(58.3 - 41.7) / 41.7", ""),
    ("What was the average provision in 2023 and 2024?", "50 million", "(58.3 + 41.7) / 2", ""),
    ("What was the average margin in 2023 and 2024?", "3%", "(3.02% + 2.98%) / 2", ""),
    ("What was the provision's share of net interest income in 2024?", "14.13%", "58.3 / 412.6", ""),
    ("What was the average provision in 2023 and 2024?", "50 million", "half of it", "wrong-derivation"),
]


@pytest.mark.parametrize(("question", "answer", "computation", "rule"), LISTED)
def test_listed_computations(northwind: Grounds, question: str, answer: str, computation: str, rule: str) -> None:
    fault = claim_fault(question, answer, northwind.book, NORTHWIND, computation)
    assert (fault[0] if fault else "") == rule


@pytest.mark.parametrize(
    ("text", "result", "degree"),
    [
        ("1,452.4 - 1,146.2", "306.2", 1),
        ("($166.3-$513.3)/$513.3", "-0.6760", 0),
        ("(709 + 707 + 429) / 3", "615", 1),
        ("-114 - (71)", "-43", 1),
        ("3 + (13) + 26", "16", 1),
        ("[(1,062+1,018)/2] - [(1,018+950)/2]", "56", 1),
        ("22,224 / 30,890 - 1", "-0.2805", 0),
        ("2,338 + 1,975", "4313", 1),
        ("-228 - 0", "-228", 1),
        ("10.5 × 4", "42", 1),
    ],
)
def test_computations_as_people_write_them(text: str, result: str, degree: int) -> None:
    found = parse_expression(text)
    assert (round(found.result, 4), found.degree) == (Decimal(result), degree)


@pytest.mark.parametrize("text", ["", "1 +", "up by 5", "__import__('os')", "2 ** 9", "5 / 0", "f(3)", "[1, 2]"])
def test_what_is_no_computation(text: str) -> None:
    with pytest.raises(UserError, match="is no computation"):
        parse_expression(text)


def test_a_records_derivation_as_a_computation() -> None:
    assert texts_of("growth", ("$384.2 million", "$412.6 million")) == "(412.6 - 384.2) / 384.2"
    assert texts_of("ratio", ("58.3万元", "1,412.6万元")) == "58.3 / 1,412.6"
    assert texts_of("difference", ("$384.2 million", "$1.2 billion")) == ""
    assert texts_of("sum", ("1", "2", "3")) == "1 + 2 + 3"


NAMES = [
    (NORTHWIND, "Northwind Bancorp's income was $5 million.", ""),
    (NORTHWIND, "Northwind's income was $5 million.", ""),
    (NORTHWIND, "Alder Trust's price was $61 million.", ""),
    (NORTHWIND, "Microsoft Corporation's income was $5 million.", "Microsoft Corporation"),
    (NORTHWIND, "In 2024, Walmart's income was $5 million.", "Walmart"),
    (SPRING, "澄谷山泉2024年营业收入为5万元。", ""),
    (SPRING, "2024年营业收入为5万元。", ""),
    (SPRING, "宁德时代2024年营业收入为5万元。", "宁德时代"),
    (SPRING, "2024年，贵州茅台的营业收入为5万元。", "贵州茅台"),
    (SPRING, "中国平安保险（集团）股份有限公司2024年营业收入为5万元。", "中国平安保险（集团）股份有限公司"),
]


@pytest.mark.parametrize(("filing", "answer", "name"), NAMES)
def test_whose_figures_an_answer_tells(filing: Filing, answer: str, name: str) -> None:
    text = read_html(ENGLISH if filing is NORTHWIND else CHINESE).text
    assert foreign_name("", answer, filing, text) == narrow(name)


def pair(question: str, answer: str) -> Any:
    return Pair(question=question, answer=answer, kind="figure", start=0, end=1, rule="answer", topic="", place="")


def test_a_quotation_needs_no_fact_beside_it(northwind: Grounds) -> None:
    evidence = "Northwind bought Alder Trust for $61 million in 2022."
    asked = "What did Northwind Bancorp pay for Alder Trust in 2024?"
    assert northwind.fault(pair(asked, evidence), NORTHWIND, evidence) is None
    fault = northwind.fault(pair(asked, "It paid $61 million in 2024."), NORTHWIND, evidence)
    assert fault is not None
    assert fault[0] == "wrong-period"
    foreign = northwind.fault(pair(asked, "Walmart's price was $61 million in 2022."), NORTHWIND, evidence)
    assert foreign is not None
    assert foreign[0] == "wrong-entity"


def test_numbers_that_follow_from_facts(northwind: Grounds) -> None:
    asked = "By how much did Northwind Bancorp's net interest income change from 2023 to 2024?"
    assert northwind.computes(pair(asked, "It rose by $28.4 million."), NORTHWIND, ("28.4",))
    assert not northwind.computes(pair(asked, "It rose by $29.4 million."), NORTHWIND, ("29.4",))


@pytest.mark.parametrize(
    ("text", "language", "periods"),
    [
        ("in the three months ended June 28, 2025", "en", [(2025, 3, 6, 28)]),
        ("as of September 30, 2019 and 2018", "en", [(2019, 0, 9, 30), (2018, 0, 9, 30)]),
        ("at June 30 and December 31, 2019", "en", [(2019, 0, 6, 30), (2019, 0, 12, 31)]),
        ("in fiscal 2024", "en", [(2024, -1, 0, 0)]),
        ("in the third quarter of fiscal 2025", "en", [(2025, 3, 0, 0)]),
        ("in 2018/2019 from 2017/2018", "en", [(2019, -1, 0, 0), (2018, -1, 0, 0)]),
        ("FY19", "en", [(2019, -1, 0, 0)]),
        ("2017,2018 and 2019", "en", [(2017, -1, 0, 0), (2018, -1, 0, 0), (2019, -1, 0, 0)]),
        ("$2019 of 2,019 stores and 2019 shares", "en", []),
        ("2019年末", "zh", [(2019, 0, 12, 31)]),
        ("2019年初", "zh", [(2018, 0, 12, 31)]),
        ("2019年第三季度", "zh", [(2019, 3, 0, 0)]),
        ("2018和2019年", "zh", [(2018, -1, 0, 0), (2019, -1, 0, 0)]),
        ("2025年1-6月", "zh", [(2025, 6, 0, 0)]),
        ("2019-12-31", "zh", [(2019, 0, 12, 31)]),
        ("报告期末比上年末", "zh", [(2024, 0, 12, 31), (2023, 0, 0, 0)]),
    ],
)
def test_periods_as_text_says_them(text: str, language: str, periods: list[tuple[int, ...]]) -> None:
    found = periods_said(text, language, 2024)
    assert [(when.year, when.months, when.month, when.day) for when in found] == periods


def test_a_period_agrees_with_what_does_not_contradict_it() -> None:
    year = When(2019)
    assert year.agrees(When(2019, 12, 12, 31))
    assert year.agrees(When(2020, 12, 1, 3))  # fiscal 2019 of 53 weeks
    assert not year.agrees(When(2020, 12, 1, 31))
    assert not When(2025, 3, 6, 28).agrees(When(2025, 9, 6, 28))
    assert not When(2025, 0, 6, 28).agrees(When(2024, 0, 6, 29))


@pytest.mark.parametrize(
    ("text", "power", "currency"),
    [
        ("(in millions, except number of shares, which are reflected in thousands)", 6, ""),
        ("(Dollars in thousands)", 3, "USD"),
        ("$’000", 3, "USD"),
        ("£m", 6, "GBP"),
        ("(RMB in millions)", 6, "CNY"),
        ("Shares in thousands", 0, ""),
        ("we sold millions of devices", 0, ""),
        ("$000s", 3, "USD"),
        ("(000s omitted)", 3, ""),
        ("EUR m", 6, "EUR"),
        ("USD m", 6, "USD"),
        ("CHF million", 6, ""),
        ("MEUR", 6, "EUR"),
        ("T€", 3, "EUR"),
        ("$’m", 6, "USD"),
        ("(mn)", 6, ""),
        ("the EUR market", 0, ""),
        ("00 SEK made", 0, ""),
        ("单位：万元", 4, "CNY"),
        ("金额（亿元）", 8, "CNY"),
        ("单位：元 币种：人民币", 0, "CNY"),
    ],
)
def test_unit_notes(text: str, power: int, currency: str) -> None:
    note = unit_note(text)
    assert (note.power, note.currency) == (power, currency)


NOTES = """<html><body><h1>Northwind Bancorp</h1><p>Annual report for the year ended December 31, 2024</p>
<p>(US dollars in thousands, unless otherwise stated)</p>
<p>Income before tax of $88,848 and $70,112 in 2024 and 2023, respectively, was earned at home.</p>
<p>The charge for share-based payment was $4.3 million (2023 $19.6 million).</p>
<table><tr><td>December 31, 2024</td><td>Carrying amount</td></tr>
<tr><td>6.50% Senior Notes due 2030</td><td>424,000</td></tr>
<tr><td>4.875% Senior Notes due 2032</td><td>421,900</td></tr></table>
<table><tr><td>2024</td><td>Useful life (in years)</td><td>Fair value</td></tr>
<tr><td>Trademarks</td><td>5.0</td><td>2,500</td></tr><tr><td>Customer lists</td><td>2.5</td><td>1,300</td></tr></table>
<table><tr><td>Year ended December 31, 2024</td>
<td>Balance at beginning of period</td><td>Balance at end of period</td></tr>
<tr><td>Accounts receivable</td><td>90,831</td><td>97,948</td></tr></table>
<p>Sales to China were 53% of the revenue of $23.4 million in 2024, and Northwind paid $5.3 million to its 1,027 dealers
in 2024.</p></body></html>"""


@pytest.mark.parametrize(
    ("question", "answer", "computation", "rule"),
    [
        # amounts of sentences are in thousands too, as the head of the notes says
        ("income before tax in 2024", "88,848 thousand", "", ""),
        ("income before tax in 2024", "88,848 million", "", "wrong-scale"),
        # what stands before a parenthesis with a year is of the year that the report is for
        ("charge for share-based payment in 2024", "$4.3 million", "", ""),
        ("charge for share-based payment in 2023", "$19.6 million", "", ""),
        ("charge for share-based payment in 2023", "$4.3 million", "", "wrong-period"),
        # the rate in a bond's name makes no percentages of its amounts
        ("4.875% Senior Notes' carrying amount in 2024", "$421.9 million", "", ""),
        ("total Senior Notes in 2024", "845.9 million", "424,000 + 421,900", ""),
        # years are no dollars
        ("lives' difference between trademarks and lists in 2024", "2.5", "5.0 - 2.5", ""),
        ("lives' difference between trademarks and lists in 2024", "2.5 thousand", "5.0 - 2.5", "wrong-derivation"),
        # the beginning of a year is the end of the one before
        ("total accounts receivable at the end of 2023 and 2024", "188,779 thousand", "90,831 + 97,948", ""),
        ("accounts receivable at the end of 2022", "90,831 thousand", "", "wrong-period"),
        # a share of an amount, an amount for each
        ("revenue from China in 2024", "12.402 million", "53% * 23.4", ""),
        ("revenue from China in 2024", "12.402 billion", "53% * 23.4", "wrong-derivation"),
        ("revenue from China in 2024", "12.402%", "53% * 23.4", "wrong-derivation"),
        ("payment to each dealer in 2024", "$0.0052 million", "5.3 / 1,027", ""),
        ("payment to each dealer in 2024", "$0.0052 billion", "5.3 / 1,027", "wrong-derivation"),
    ],
)  # fmt: skip
def test_notes_to_the_statements(question: str, answer: str, computation: str, rule: str) -> None:
    book = Grounds(read_html(NOTES), NORTHWIND).book
    fault = claim_fault(f"What was Northwind Bancorp's {question}?", answer, book, NORTHWIND, computation)
    assert (fault or ("",))[0] == rule, fault


def test_ages_that_nothing_dates_are_of_any_date() -> None:
    page = "<p>Northwind Bancorp</p><table><tr><td>Name</td><td>Age</td></tr><tr><td>Ada Ash</td><td>47</td></tr>"
    page += "<tr><td>Ben Birch</td><td>52</td></tr></table>"
    undated = Filing("Northwind Bancorp", "Northwind Bancorp", "en", 0, 12)
    book = Grounds(read_html(page), undated).book
    asked = "What was the average age of Northwind Bancorp's officers in 2024?"
    assert claim_fault(asked, "49.5", book, undated, "(47 + 52) / 2") is None
    assert claim_fault(asked, "49.5", book, undated, "(47 + 53) / 2") is not None
