"""中文: from a table's label to a metric that can stand in a sentence, and its unit."""

import re
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal

from finlm.figures import narrow
from selfqa.facts import Dropped, Fact, FactUnit
from selfqa.periods import Period
from selfqa.tables import Line, Table, Value

_MEASURE = re.compile(
    r"收入|成本|利润|费用|资产|负债|权益|现金|股利|所得税|税金|收益|存货|应收|应付|预付|预收|借款|商誉|率$|比重|比例|薪酬|公积|股本|损失|投入"
    r"|资金|款项|产量|销量|销售量|生产量|库存量|工程|数量|人数|补助|支出|毛利|净额|合计$|总额|总计|员工|股份总数|销售额|余额|重$"
)
_BALANCE = re.compile(r"资产|负债|权益|存货|应收|应付|预付|预收|借款|商誉|公积|股本|资金$|工程$|余额|库存量|净资产")
_FLOW = re.compile(
    r"收入|成本|利润|费用|现金流|损失|损益|影响额|收益|支出|投入|补助|率|产量|销|增加|减少|支付|收到|购建|处置|偿还|取得"
)
_REFUSED = re.compile(
    r"^(?:其他$|其中|小计|合计|总计|项目|本期|上期|期初|期末|年初|年末|减|加|一年|账龄|\d|第|[A-Za-z]+$)|变动|调整|\d{4}年|以内|至.年|余额$|影响数?$|公司$"
)
_SCALES = {"元": "元", "千元": "千元", "万元": "万元", "百万元": "百万元", "亿元": "亿元"}
_UNIT_NOTE = re.compile(r"单位\s*[：:]\s*(?:人民币)?\s*((?:千|百万|万|亿)?(?:元|股|吨|千瓦时|台|辆|平方米|人))")
_COLUMN_METRICS = {"营业收入", "营业成本", "毛利率", "销售收入", "主营业务收入", "主营业务成本"}


def chinese_facts(table: Table, is_interim: bool = False) -> Iterator[Fact | Dropped]:
    """Yield a fact, or the reason why there is none, for every value of a table bound to a period."""
    repeated = {label for label, count in Counter(_clean(line.label) for line in table.lines).items() if count > 1}
    note = _UNIT_NOTE.findall(narrow(table.context))
    unit_note = note[-1] if note else ""
    whose = "母公司" if "母公司" in table.title or re.match(r".{0,6}母公司", table.section) else ""
    for row, line in enumerate(table.lines):
        label = _clean(line.label)
        reason = _refusal(label, repeated)
        columns = [value for value in line.values if value.column.period is not None]
        if reason:
            # a product's row is named by its column: 包装饮用水 under 营业收入
            columns = [
                value for value in columns if value.column.rest in _COLUMN_METRICS and reason == "metric-not-a-phrase"
            ]
            if not columns:
                yield Dropped(reason, f"行名“{line.label}”", line.label, line.start, line.end)
                continue
        for value in columns:
            yield _fact(value, label, whose, unit_note, line, table, row)


def _clean(label: str) -> str:
    label = re.sub(r"\s+", "", narrow(label))
    label = re.sub(
        r"\((?:损失|亏损|净亏损|收益|净损失|亏损总额)[^()]*填列\)|\(注?[\d一二三四五六七八九十]*\)|\(如有\)|\(简表\)",
        "",
        label,
    )
    label = re.sub(r"\((?:元|万元|亿元|千元|元/股|%|股|人|吨)\)", "", label)
    label = re.sub(r"^(?:[一二三四五六七八九十]+[、.]|\([一二三四五六七八九十\d]+\)|\d{1,2}[、.](?!\d))+", "", label)
    label = re.sub(r"^(?:其中|减|加)[：:]", "", label)
    label = label.replace("(", "（").replace(")", "）")
    return re.sub(r"\[注?\d*\]", "", label).strip("：:、-—*#")


def _refusal(label: str, repeated: set[str]) -> str:
    if not re.search(r"[\u4e00-\u9fff]{2}", label) or len(label) > 32:
        return "label-not-a-metric"
    if label in {"合计", "总计", "小计", "其他"}:
        return "label-alone"
    if _REFUSED.search(label) and not label.startswith(("加权", "减值")):
        return "label-not-a-metric"
    if label in repeated:
        return "label-repeated"
    return "" if _MEASURE.search(label) else "metric-not-a-phrase"


def _fact(value: Value, label: str, whose: str, note: str, line: Line, table: Table, row: int) -> Fact | Dropped:
    period, rest = value.column.period, value.column.rest
    assert period is not None
    found = re.search(r"-?[\d,]*\.?\d+", narrow(value.cell.text))
    assert found is not None

    def dropped(rule: str, reason: str) -> Dropped:
        return Dropped(rule, reason, f"{line.label} {value.cell.text}", line.start, line.end)

    metric = _with_section(label, table)
    if rest in _COLUMN_METRICS:
        metric = f"{label}{rest}" if label != rest else rest
    elif re.fullmatch(r"占(?:营业收入|营业成本|总资产|净资产)的?(?:比重|比例)", rest) and not re.search(
        r"合计|总计", label
    ):
        metric = f"{label}{rest}"
    elif rest not in {"", "金额", "账面价值", "合并", "(经审计)", "发生额"}:
        return dropped("column-not-a-metric", f"列名“{rest}”说明的不是{label}本身")
    unit_frame = _unit(value, line, rest, note)
    if unit_frame is None:
        return dropped("unit-unknown", f"“{line.label}”和表头都没有说明“{value.cell.text}”的单位")
    placed = _placed(metric, period, table)
    if placed is None:
        return dropped("balance-over-time", f"“{metric}”是时点数，所在列是一段时间")
    unit, frame = unit_frame
    number = Decimal(found[0].replace(",", ""))
    if narrow(value.cell.text).strip().startswith("("):
        number = -abs(number)
    digits = found[0] if number >= 0 or found[0].startswith("-") else "-" + found[0]
    return Fact(
        metric=whose + metric,
        period=placed,
        amount=frame.format(digits),
        value=number,
        unit=unit,
        start=line.start,
        end=line.end,
        table=table.number,
        row=row,
        section=table.section,
        rule="table-row",
        frame=frame,
    )


def _with_section(label: str, table: Table) -> str:
    """A row of a note is part of what the note is about: 政府补助 under "74、营业外收入" is 营业外收入中的政府补助."""
    section = re.fullmatch(
        r"(?:\d+、|[（(]\d+[）)]、?)([\u4e00-\u9fff]{3,9}?)(?:分类|构成|列示|明细|(?<=费用)表)?", table.section.strip()
    )
    if (
        section is None
        or re.search(r"报表|资产负债表|利润表|现金流|概述|情况|构成", section[1])
        or not _MEASURE.search(section[1])
    ):
        return label
    return label if section[1] in label or label in section[1] else f"{section[1]}中的{label}"


def _unit(value: Value, line: Line, rest: str, note: str) -> tuple[FactUnit, str] | None:
    label = narrow(line.label)
    if value.figure.unit == "percent" or re.search(r"\(%\)", label + rest):
        return ("percent", "{}%")
    if re.search(r"元/股|每股", label):
        return ("per-share", "{}元/股")
    own = re.search(r"\(((?:千|百万|万|亿)?元|股|人|吨|万吨|万股)\)", label)
    unit = own[1] if own else note
    if re.search(r"率$|比例$|比重$|数量|人数", line.label) and not own:
        return None
    if unit.endswith("元"):
        return ("currency", "{}" + unit)
    return ("quantity", "{}" + unit) if unit else None


def _placed(metric: str, period: Period, table: Table) -> Period | None:
    is_balance = bool(_BALANCE.search(metric)) and not _FLOW.search(metric)
    if not is_balance or period.months == 0:
        return period
    if "现金流量" in table.title or "利润表" in table.title:
        return None
    return Period(period.year, 0) if period.months == 12 else None
