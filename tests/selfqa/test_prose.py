"""Sentences of prose and the questions that they become. The expected sentences were written by hand."""

import pytest

from selfqa.background import backgrounds
from selfqa.entities import Filing
from selfqa.extractive import extract
from selfqa.pairs import Pair
from selfqa.plain import read_markdown
from selfqa.prose import chinese_told, named
from selfqa.terms import abbreviations

ACME = Filing("Acme Rope, Inc.", "Acme Rope, Inc.", "en", 2024, 12)
SHANYUE = Filing("山岳重工股份有限公司", "山岳重工", "zh", 2024, 12)


def asked(text: str, filing: Filing) -> dict[str, Pair]:
    """The pairs of a text by their questions."""
    source = read_markdown(text)
    passages, _ = backgrounds(source, 2400, 0)
    pairs = extract(source, filing, passages, 450, ("Birch Kettles, Inc.",)).pairs
    for pair in pairs:
        assert source.text[pair.start : pair.end].strip()
    return {pair.question: pair for pair in pairs}


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("We expect our costs to rise.", "Acme Rope, Inc. expects its costs to rise."),
        ("The Company’s mills are old.", "Acme Rope, Inc.'s mills are old."),
        ("Our mills serve us well.", "Acme Rope, Inc.'s mills serve it well."),
        ("In May, we repaid the notes.", "In May, Acme Rope, Inc. repaid the notes."),
        ("We generally rely on rail.", "Acme Rope, Inc. generally relies on rail."),
        ("We have no debt.", "Acme Rope, Inc. has no debt."),
        ("The Company has one mill.", "Acme Rope, Inc. has one mill."),
        ("The Bank of Arden lends to mills.", "The Bank of Arden lends to mills."),
        # a second verb would have to change too, or the verb is unknown: no sentence rather than a wrong one
        ("We design and sell rope.", None),
        ("We will grow and have hired.", None),
        ("We twine rope.", None),
    ],
)
def test_a_filings_own_words_in_the_third_person(said: str, wanted: str | None) -> None:
    assert named(said, "Acme Rope, Inc.") == wanted


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("报告期内，公司销售增长。", "2024年，山岳重工销售增长。"),
        ("本公司设立子公司。", "山岳重工设立子公司。"),
        ("河口重机有限公司是公司的子公司。", "河口重机有限公司是山岳重工的子公司。"),
        ("公司章程规定了分红比例。", "公司章程规定了分红比例。"),
        ("上述因素影响公司。", None),
    ],
)
def test_a_chinese_reports_own_words_in_the_third_person(said: str, wanted: str | None) -> None:
    assert chinese_told(said, SHANYUE) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            "the Financial Accounting Standards Board (the “FASB”) issued it",
            [("FASB", "Financial Accounting Standards Board")],
        ),
        ("research and development (“R&D”) expense", [("R&D", "research and development")]),
        ("Department of Justice (the “DOJ”)", [("DOJ", "Department of Justice")]),
        ("application programming interfaces, or APIs, are", [("APIs", "application programming interfaces")]),
        ("the Lender Group (“ABC”)", []),
        ("notes due 2028 (the “Notes”)", []),
    ],
)
def test_initials_prove_what_an_abbreviation_stands_for(text: str, wanted: list[tuple[str, str]]) -> None:
    assert list(abbreviations(text)) == wanted


ENGLISH = """# Acme Rope, Inc.

# Item 1. Business

## Products

Our products include hemp rope, steel cable, netting and twine. As of December 31, 2024, we had about 1,250 full-time
employees. Rope cable is a rope that is laid from three ropes and stretched for use on ships.

# Item 1A. Risk Factors

If we fail to renew our rail contract, our deliveries could be delayed by several weeks. Severe winter storms could
damage our mills. Our margins may be adversely affected by the price of hemp. These risks could harm us.

# Item 7. Management's Discussion and Analysis

## Results

Hemp rope sales increased in fiscal 2024 compared to fiscal 2023, primarily due to higher demand from shipyards. The
decrease in freight expense in fiscal 2024 was driven by lower rail rates. Revenue was down for the reasons described
above.

# Notes to Consolidated Financial Statements

Inventories are stated at the lower of cost and net realizable value. We recognize revenue when control of the rope
passes to the customer.
"""


def test_english_prose_is_asked_about_by_its_form() -> None:
    pairs = asked(ENGLISH, ACME)
    wanted = {
        "What do Acme Rope, Inc.'s products include?": (
            "list",
            "Acme Rope, Inc.'s products include hemp rope, steel cable, netting and twine.",
        ),
        "How many full-time employees did Acme Rope, Inc. have as of December 31, 2024?": (
            "fact",
            "As of December 31, 2024, Acme Rope, Inc. had about 1,250 full-time employees.",
        ),
        "What could happen if Acme Rope, Inc. fails to renew its rail contract?": (
            "risk",
            "If Acme Rope, Inc. fails to renew its rail contract, its deliveries could be delayed by several weeks.",
        ),
        "How could severe winter storms affect Acme Rope, Inc.?": (
            "risk",
            "Severe winter storms could damage Acme Rope, Inc.'s mills.",
        ),
        "What may adversely affect Acme Rope, Inc.'s margins?": (
            "risk",
            "Acme Rope, Inc.'s margins may be adversely affected by the price of hemp.",
        ),
        "Why did Acme Rope, Inc.'s hemp rope sales increase in fiscal 2024 compared to fiscal 2023?": (
            "cause",
            "Acme Rope, Inc.'s hemp rope sales increased in fiscal 2024 compared to fiscal 2023, primarily due to "
            "higher demand from shipyards.",
        ),
        "What was behind the decrease in Acme Rope, Inc.'s freight expense in fiscal 2024?": (
            "cause",
            "The decrease in Acme Rope, Inc.'s freight expense in fiscal 2024 was driven by lower rail rates.",
        ),
        "How are Acme Rope, Inc.'s inventories stated?": (
            "fact",
            "Inventories are stated at the lower of cost and net realizable value.",
        ),
        "When does Acme Rope, Inc. recognize revenue?": (
            "fact",
            "Acme Rope, Inc. recognizes revenue when control of the rope passes to the customer.",
        ),
    }
    for question, (kind, answer) in wanted.items():
        assert question in pairs, sorted(pairs)
        assert (pairs[question].kind, pairs[question].answer) == (kind, answer)
    assert not [question for question in pairs if "these risks" in question.lower() or "described" in question]


CHINESE = """# 山岳重工股份有限公司2024年年度报告

# 第四节 管理层讨论与分析

## （三）公司面临的风险

### 1、原材料风险

公司主要原材料为钢材，占成本比重较高。如果钢材价格大幅上涨，可能对公司盈利能力产生不利影响。

### 2、汇率风险

公司出口收入以美元结算。若人民币升值，将可能导致公司出口收入减少。

# 第五节 重要事项

公司报告期不存在重大诉讼事项。

报告期内是否发行公司债券

□ 是 √ 否

商誉，是指购买方支付的合并成本超过可辨认净资产公允价值的部分。
"""


def test_chinese_prose_is_asked_about_by_its_form() -> None:
    pairs = asked(CHINESE, SHANYUE)
    wanted = {
        "山岳重工2024年年度报告披露了哪些风险？": (
            "list",
            "山岳重工2024年年度报告披露的风险包括原材料风险和汇率风险。",
        ),
        "原材料风险可能给山岳重工带来什么影响？": (
            "risk",
            "如果钢材价格大幅上涨，可能对山岳重工盈利能力产生不利影响。",
        ),
        "山岳重工2024年是否存在重大诉讼事项？": ("yes-no", "否，山岳重工2024年不存在重大诉讼事项。"),
        "山岳重工2024年是否发行公司债券？": ("yes-no", "否，山岳重工2024年没有发行公司债券。"),
        "在山岳重工2024年年度报告中，“商誉”是指什么？": (
            "definition",
            "商誉，是指购买方支付的合并成本超过可辨认净资产公允价值的部分。",
        ),
    }
    for question, (kind, answer) in wanted.items():
        assert question in pairs, sorted(pairs)
        assert (pairs[question].kind, pairs[question].answer) == (kind, answer)
