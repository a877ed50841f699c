"""The figure checker, against figures read by hand."""

from decimal import Decimal

import pytest

from finlm.figures import cell_figure, find_figures, judge, unsupported

FOUND = [
    ("Revenue was $412.6 million.", "412600000", "currency", "USD"),
    ("$412,600,000", "412600000", "currency", "USD"),
    ("4.126亿美元", "412600000", "currency", "USD"),
    ("412.6 million dollars", "412600000", "currency", "USD"),
    ("2233.45万元", "22334500", "currency", "CNY"),
    ("318,024,319.30元", "318024319.30", "currency", "CNY"),
    ("RMB 3.2 billion", "3200000000", "currency", "CNY"),
    ("$5m", "5000000", "currency", "USD"),
    ("net loss of $(58.3) million", "-58300000", "currency", "USD"),
    ("a loss of ($43)", "-43", "currency", "USD"),
    ("下降到-0.64%", "-0.64", "percent", ""),
    ("up 7.4 percent", "7.4", "percent", ""),
    ("1.4 percentage points", "1.4", "points", ""),
    ("提高2.16个百分点", "2.16", "points", ""),
    ("16 basis points", "0.16", "points", ""),
    ("$1.76 per diluted share", "1.76", "per-share", "USD"),
    ("0.65元/股", "0.65", "per-share", "CNY"),
    ("$.20", "0.20", "currency", "USD"),
    ("1.5x", "1.5", "plain", ""),
    ("６１８．５％", "618.5", "percent", ""),
]


@pytest.mark.parametrize(("text", "value", "unit", "currency"), FOUND)
def test_value_and_unit(text: str, value: str, unit: str, currency: str) -> None:
    (figure,) = find_figures(text)
    assert (figure.value, figure.unit, figure.currency) == (Decimal(value), unit, currency)
    assert text[figure.start : figure.end] == figure.text


def test_dates_and_labels_are_marked() -> None:
    figures = find_figures(
        "As of June 28, 2025 (Note 5), COVID-19, form 10-K and 2019-12-31; 2,019 stores, 2015 shares"
    )
    assert [figure.text for figure in figures if figure.is_date] == ["28", "2025", "2019", "12", "31"]
    assert [figure.text for figure in figures if figure.is_label] == ["5", "19", "10"]
    assert [figure.value for figure in figures if not (figure.is_date or figure.is_label)] == [2019, 2015]


def test_chinese_enumeration_is_two_numbers() -> None:
    assert [figure.value for figure in find_figures("分别为100，200")] == [100, 200]


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("(43)", "-43"),
        ("$ 26,974", "26974"),
        ("(3) %", "-3"),
        ("2,019", "2019"),
        ("-13.33%", "-13.33"),
        ("$(58.3)", "-58.3"),
    ],
)
def test_cell(cell: str, value: str) -> None:
    figure = cell_figure(cell)
    assert figure is not None
    assert figure.value == Decimal(value)


@pytest.mark.parametrize("cell", ["—", "", "Total", "2024 Change", "1.2 and 3"])
def test_cell_without_one_figure(cell: str) -> None:
    assert cell_figure(cell) is None


ENGLISH = "Northwind Bancorp's net interest income was $412.6 million in fiscal 2024."
ASKED = "What was Northwind Bancorp's net interest income in fiscal 2024?"
CHANGE = (
    "Northwind Bancorp's revenue rose by 7.4%, from $384.2 million in fiscal 2023 to $412.6 million in fiscal 2024."
)
CHANGE_ASKED = "By what percentage did Northwind Bancorp's revenue change from fiscal 2023 to fiscal 2024?"
HIGHER = "Northwind's net income was higher in fiscal 2024."
HIGHER_ASKED = "Was Northwind's net income higher in fiscal 2023 or in fiscal 2024?"
SEGMENTS = "Apple's reportable segments are the Americas, Europe, Greater China, Japan and Rest of Asia Pacific."
SEGMENTS_ASKED = "What are Apple's reportable segments?"
CHINESE = "澄谷山泉2024年营业收入为3,862,417,305.18元。"
CHINESE_ASKED = "澄谷山泉2024年的营业收入是多少？"

JUDGED = [
    (ENGLISH, ENGLISH, ASKED, ""),
    ("$412.6 million", ENGLISH, ASKED, ""),
    ("Net interest income was $412,600,000.", ENGLISH, ASKED, ""),
    ("In fiscal 2024, the company reported net interest income of $412.6 million.", ENGLISH, ASKED, ""),
    ("", ENGLISH, ASKED, "empty"),
    (" . ", ENGLISH, ASKED, "empty"),
    (ENGLISH + " It was a good year.", ENGLISH, ASKED, "run-on"),
    (ENGLISH + "\nHuman: And now?", ENGLISH, ASKED, "run-on"),
    ("Net interest income was $412.6 million in fiscal 2024 in fiscal 2024 in fiscal 2024.", ENGLISH, ASKED, "run-on"),
    (ENGLISH.replace("2024", "2023"), ENGLISH, ASKED, "period"),
    (ENGLISH.replace("412.6", "384.2"), ENGLISH, ASKED, "figure"),
    (ENGLISH.replace("million", "billion"), ENGLISH, ASKED, "figure"),
    ("Net interest income was 412.6 million.", ENGLISH, ASKED, "figure"),
    ("Northwind Bancorp's net interest income was", ENGLISH, ASKED, "missing"),
    ("Net interest income was $412.6 million and $384.2 million.", ENGLISH, ASKED, "extra"),
    ("$412.6 million $384.2 million $58.3 million", ENGLISH, ASKED, "extra"),
    (ENGLISH[:-1] + " and the company also reported growth.", ENGLISH, ASKED, "extra"),
    (ENGLISH.replace("Northwind", "Southwind"), ENGLISH, ASKED, "entity"),
    (ENGLISH.replace("net interest income", "net interest expense"), ENGLISH, ASKED, "metric"),
    (ENGLISH.replace("net interest income", "net income"), ENGLISH, ASKED, "metric"),
    (ENGLISH[:-1] + " and oper", ENGLISH, ASKED, "missing"),
    (CHANGE, CHANGE, CHANGE_ASKED, ""),
    (CHANGE.replace("rose", "fell"), CHANGE, CHANGE_ASKED, "figure"),
    (CHANGE.replace("384.2", "x").replace("412.6", "384.2").replace("x", "412.6"), CHANGE, CHANGE_ASKED, "period"),
    ("Revenue rose by 7.4%.", CHANGE, CHANGE_ASKED, "missing"),
    (HIGHER, HIGHER, HIGHER_ASKED, ""),
    ("It was higher in fiscal 2024 than in fiscal 2023.", HIGHER, HIGHER_ASKED, ""),
    ("It was higher in fiscal 2023 than in fiscal 2024.", HIGHER, HIGHER_ASKED, "period"),
    (HIGHER_ASKED, HIGHER, HIGHER_ASKED, "extra"),
    ("The Americas, Europe, Greater China, Japan and Rest of Asia Pacific.", SEGMENTS, SEGMENTS_ASKED, ""),
    ("Apple's reportable segments are the Americas and Europe.", SEGMENTS, SEGMENTS_ASKED, "missing"),
    (CHINESE, CHINESE, CHINESE_ASKED, ""),
    ("38.6241730518亿元", CHINESE, CHINESE_ASKED, ""),
    ("营业收入为3,862,417,305.18元。", CHINESE, CHINESE_ASKED, ""),
    (CHINESE.replace("2024", "2023"), CHINESE, CHINESE_ASKED, "period"),
    (CHINESE.replace("3,862", "3,491"), CHINESE, CHINESE_ASKED, "figure"),
    (CHINESE.replace("元", "万元"), CHINESE, CHINESE_ASKED, "figure"),
    (CHINESE.replace("营业收入", "营业成本"), CHINESE, CHINESE_ASKED, "metric"),
    (CHINESE.replace("营业收入", "净利润"), CHINESE, CHINESE_ASKED, "metric"),
    (CHINESE.replace("澄谷山泉", "北方银行"), CHINESE, CHINESE_ASKED, "entity"),
    (CHINESE + "公司发展良好。", CHINESE, CHINESE_ASKED, "run-on"),
    ("澄谷山泉2024年营业收入为", CHINESE, CHINESE_ASKED, "missing"),
]


@pytest.mark.parametrize(("answer", "reference", "question", "fault"), JUDGED)
def test_judge(answer: str, reference: str, question: str, fault: str) -> None:
    judgement = judge(answer, reference, question)
    assert (judgement.is_right, judgement.fault) == (not fault, fault)


def test_an_open_book_passage_gives_no_figure_away() -> None:
    passage = (
        "Northwind Bancorp's net interest income was $412.6 million in fiscal 2024 and $384.2 million in fiscal 2023."
    )
    wrong = ENGLISH.replace("412.6", "384.2")
    assert judge(ENGLISH, ENGLISH, f"{passage}\n\n{ASKED}").is_right
    assert judge(wrong, ENGLISH, f"{passage}\n\n{ASKED}").fault == "figure"
    assert not judge(passage, ENGLISH, f"{passage}\n\n{ASKED}").is_right


def test_unsupported_numbers() -> None:
    evidence = "Net sales $ 391,035 $ 383,285"
    assert unsupported("Sales were $391,035 million in 2024.", evidence, "And in 2024?") == ()
    assert unsupported("Sales were $391,036 million in 2025.", evidence, "And in 2024?") == ("391,036", "2025")
    assert unsupported("412.6", "412 and 6", "") == ("412.6",)
    assert unsupported("营业收入为３１８元", "营业收入 318", "") == ()
