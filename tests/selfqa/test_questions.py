"""Questions before their answers: good ones pass, each bad one breaks the rule that a reader would name."""

import gzip
import json
from pathlib import Path

import pytest

from finlm.errors import MissingInput
from selfqa.contamination import Contamination
from selfqa.entities import Filing
from selfqa.pointers import pointer_in
from selfqa.questions import QuestionRules

ENGLISH = Filing("Northwind Bancorp, Inc.", "Northwind Bancorp, Inc.", "en", 2024, 12)
CHINESE = Filing("江苏澄谷山泉饮品股份有限公司", "澄谷山泉", "zh", 2024, 12)

GOOD_ENGLISH = [
    "What was Northwind Bancorp's net interest income in fiscal 2024?",
    "What was Northwind Bancorp's net interest income in fiscal 2023?",
    "What was Northwind Bancorp, Inc.'s net interest expense in fiscal 2024?",
    "By how much did Northwind Bancorp's total assets change from 2023 to 2024?",
    "Why did Northwind Bancorp's provision for credit losses rise in 2024?",
    "How does Northwind Bancorp define its efficiency ratio?",
    "Which segments does Northwind Bancorp, Inc. report?",
    "List the risks that Northwind Bancorp names for its deposit base.",
    "Explain how Northwind Bancorp hedges interest rate risk.",
    "Summarize Northwind Bancorp's capital plan as of December 31, 2024.",
    "Was Northwind Bancorp's net income higher in 2024 than in 2023?",
    "Who is the chief financial officer of Northwind Bancorp?",
    "Where did Northwind Bancorp open branches during the third quarter of 2024?",
    "In fiscal 2024, how many employees did Northwind Bancorp have?",
    "Compare Northwind Bancorp's loans and deposits at the end of 2024.",
    "Does Northwind Bancorp pay a quarterly dividend?",
    "What accounting policy does Northwind Bancorp follow for goodwill impairment?",
    "Calculate the growth of Northwind Bancorp's fee income between 2022 and 2024.",
    "Which regulation limits the dividends that Northwind Bancorp may receive from its subsidiary bank?",
    "State Northwind Bancorp's diluted earnings per share for the year ended December 31, 2024.",
    "What does Northwind Bancorp say about the company's exposure to office real estate?",
]
BAD_ENGLISH = [
    ("", "malformed"),
    ("Why?", "malformed"),
    ("3. What was Northwind Bancorp's revenue in 2024?", "malformed"),
    ("Question: What was Northwind Bancorp's revenue in 2024?", "malformed"),
    ("What was Northwind Bancorp's revenue in 2024? Answer: $5 million", "malformed"),
    ("What was Northwind Bancorp's revenue in 2024? And what was its net income in 2024?", "malformed"),
    ("What was Northwind Bancorp's revenue in the", "malformed"),
    ("What were the drivers of Northwind Bancorp's revenue in 2024, such as...", "malformed"),
    ("Northwind Bancorp's revenue rose in 2024.", "malformed"),
    ("What was Northwind Bancorp's {metric} in 2024?", "malformed"),
    ("What was Northwind Bancorp's revenue in 2024, " * 12 + "and why?", "too-long"),
    ("What was the company's net interest income in 2024?", "refers-to-article"),
    ("How did this bank fund its loans in 2024?", "refers-to-article"),
    ("According to the passage, what did Northwind Bancorp open in 2024?", "refers-to-article"),
    ("Based on the text, why did Northwind Bancorp's provision rise in 2024?", "refers-to-article"),
    ("What do these figures say about Northwind Bancorp in 2024?", "refers-to-article"),
    ("Which of the risks mentioned above does Northwind Bancorp hedge?", "refers-to-article"),
    ("Given the table above, what was Northwind Bancorp's margin in 2024?", "refers-to-article"),
    ("What was our net interest income in 2024?", "refers-to-article"),
    ("What was net interest income in 2024?", "no-entity"),
    ("What was Southwind Bancorp's net interest income in 2024?", "no-entity"),
    ("What was Northwind Bancorp's net interest income?", "no-period"),
    ("How many branches does Northwind Bancorp have?", "no-period"),
    ("Northwind Bancorp2024年的净利息收入是多少？", "wrong-language"),
]
GOOD_CHINESE = [
    "澄谷山泉2024年的营业收入是多少？",
    "澄谷山泉2023年的营业收入是多少？",
    "2024年末，澄谷山泉的货币资金为多少？",
    "澄谷山泉2024年的营业收入比2023年增长了百分之几？",
    "澄谷山泉2024年毛利率下降的原因是什么？",
    "请列出澄谷山泉的主要子公司。",
    "澄谷山泉的主营业务是什么？",
    "请概括澄谷山泉2024年的经营情况。",
    "澄谷山泉面临哪些原材料价格风险？",
    "澄谷山泉2024年第三季度的净利润为多少？",
    "江苏澄谷山泉饮品股份有限公司的法定代表人是谁？",
    "澄谷山泉2024年是否进行了现金分红？",
    "澄谷山泉应该如何计提商誉减值准备？",
    "澄谷山泉的成本控制措施有哪些？",
    "澄谷山泉2024年的基本每股收益是多少？",
    "请比较澄谷山泉2023年和2024年的研发费用。",
    "澄谷山泉2024年12月31日的资产总计是多少？",
    "澄谷山泉如何确认包装饮用水的销售收入？",
    "澄谷山泉2024年上半年的经营活动现金流量净额是多少？",
    "请说明澄谷山泉2024年存货增加的主要原因。",
    "澄谷山泉的前五名客户分别是哪些？",
]
BAD_CHINESE = [
    ("为何？", "malformed"),
    ("1、澄谷山泉2024年的营业收入是多少？", "malformed"),
    ("问题：澄谷山泉2024年的营业收入是多少？", "malformed"),
    ("澄谷山泉2024年的营业收入是多少？净利润是多少？", "malformed"),
    ("澄谷山泉2024年的营业收入，", "malformed"),
    ("澄谷山泉2024年的营业收入为38亿元。", "malformed"),
    ("澄谷山泉2024年的营业收入是多少？答案：38亿元", "malformed"),
    ("该公司2024年的营业收入是多少？", "refers-to-article"),
    ("本公司2024年的营业收入是多少？", "refers-to-article"),
    ("根据上述文章，澄谷山泉2024年的营业收入是多少？", "refers-to-article"),
    ("根据材料，澄谷山泉2024年的净利润是多少？", "refers-to-article"),
    ("本文中澄谷山泉的主营业务是什么？", "refers-to-article"),
    ("文中提到澄谷山泉的哪些风险？", "refers-to-article"),
    ("上述风险对澄谷山泉有何影响？", "refers-to-article"),
    ("澄谷山泉这一年的净利润是多少？", "refers-to-article"),
    ("此项目为澄谷山泉带来多少收入？", "refers-to-article"),
    ("从上表看，澄谷山泉2024年哪个产品收入最高？", "refers-to-article"),
    ("澄谷山泉本报告期的营业收入是多少？", "refers-to-article"),
    ("2024年的营业收入是多少？", "no-entity"),
    ("宁德时代2024年的营业收入是多少？", "no-entity"),
    ("澄谷山泉的营业收入是多少？", "no-period"),
    ("澄谷山泉的员工有多少人？", "no-period"),
]


REPEATED, NEAR = "duplicate-question", "near-duplicate"


def test_good_questions_pass_one_after_the_other() -> None:
    """All in one run, so that none is taken for a repetition of another."""
    for filing, questions in ((ENGLISH, GOOD_ENGLISH), (CHINESE, GOOD_CHINESE)):
        assert len(questions) > 20
        rules = QuestionRules(filing)
        assert [(question, rules.fault(question)) for question in questions] == [(one, None) for one in questions]


@pytest.mark.parametrize(
    ("filing", "question", "rule"),
    [(ENGLISH, *row) for row in BAD_ENGLISH] + [(CHINESE, *row) for row in BAD_CHINESE],
)
def test_bad_questions_break_their_rule(filing: Filing, question: str, rule: str) -> None:
    fault = QuestionRules(filing).fault(question)
    assert fault is not None
    assert (fault[0], bool(fault[1])) == (rule, True)


@pytest.mark.parametrize(
    ("filing", "first", "second", "rule"),
    [
        (ENGLISH, GOOD_ENGLISH[0], "what was Northwind Bancorp's net interest income, in fiscal 2024", REPEATED),
        (ENGLISH, GOOD_ENGLISH[4], "Why did Northwind Bancorp's provision for credit losses rise during 2024?", NEAR),
        (ENGLISH, GOOD_ENGLISH[0], GOOD_ENGLISH[1], ""),
        (ENGLISH, GOOD_ENGLISH[0], GOOD_ENGLISH[2], ""),
        (CHINESE, GOOD_CHINESE[4], "请问澄谷山泉2024年毛利率下降的原因是什么？", NEAR),
        (CHINESE, GOOD_CHINESE[0], GOOD_CHINESE[1], ""),
        (CHINESE, "澄谷山泉2024年营业收入增长的原因是什么？", "澄谷山泉2024年营业收入下降的原因是什么？", ""),
        (CHINESE, "澄谷山泉2024年末的存货是多少？", "澄谷山泉2024年初的存货是多少？", ""),
    ],
)  # fmt: skip
def test_repetitions_are_found_and_other_years_are_none(filing: Filing, first: str, second: str, rule: str) -> None:
    rules = QuestionRules(filing)
    assert rules.fault(first) is None
    fault = rules.fault(second)
    assert (fault[0] if fault else "") == rule


def test_a_benchmarks_questions_are_kept_out(tmp_path: Path) -> None:
    asked = "Why did Northwind Bancorp's provision for loan losses rise in the year 2024 after loans repriced?"
    (tmp_path / "one.jsonl").write_text(json.dumps({"question": asked}) + "\nnot json\n", encoding="utf-8")
    with gzip.open(tmp_path / "two.json.gz", "wt", encoding="utf-8") as out:
        json.dump([{"题目": "澄谷山泉二〇二四年包装饮用水业务毛利率下降的主要原因是什么？"}], out)
    (tmp_path / "three.csv").write_text(
        "id,question\n1,How does a bank define its efficiency ratio?\n", encoding="utf-8"
    )
    known = Contamination.read(tmp_path)
    assert known.files == 3
    rules = QuestionRules(ENGLISH, known)
    assert rules.fault(asked + " ") == ("benchmark", "it shares a run of words with one.jsonl")
    assert rules.fault(GOOD_ENGLISH[4]) is None  # shares seven words in a row, not ten
    assert known.source_of("请问澄谷山泉二〇二四年包装饮用水业务毛利率下降的主要原因是什么") == "two.json.gz"
    assert known.source_of("How does a bank define its efficiency ratio?") == "three.csv"
    assert known.source_of("How does a bank define its leverage ratio?") == ""
    with pytest.raises(MissingInput, match="no such folder"):
        Contamination.read(tmp_path / "missing")


@pytest.mark.parametrize(
    ("text", "pointer"),
    [
        ("因此成本上升，此外应该关注资本和股本。", ""),
        ("该公司成本上升。", "该"),
        ("如上述所示。", "如上"),
        ("The company grew.", "The company"),
        ("Northwind grew; the company opened branches.", ""),
        ("As mentioned above, Northwind grew.", "As mentioned above"),
    ],
)
def test_words_that_point_outside_a_text(text: str, pointer: str) -> None:
    assert pointer_in(text, {"Northwind"}) == pointer
