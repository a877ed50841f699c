"""True pairs from cells of a Chinese annual report, read off the page and typed by hand: the checker has no part."""

import json
from collections.abc import Iterator
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

from benchmarks.check_truths import Ground, TruePair, Truth, Unit

CELLS = Path(__file__).parent.parent / "tests" / "selfqa" / "data" / "annual_report_2019_zh.jsonl"
ENTITY = "安靠智电"
_UNITS: dict[str, Unit] = {"元": "currency", "元/股": "per-share", "%": "percent", "套": "plain"}


def ground_of(path: Path = CELLS) -> Ground:
    """Read the typed cells as truths."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return Ground([_truth(row["metric"], row["period"], row["value"], row["unit"]) for row in rows], ENTITY)


def pairs_of(ground: Ground) -> Iterator[TruePair]:
    """Ask for every cell, and for the change between two years of a metric."""
    for number, truth in enumerate(ground.truths):
        yield _figure_pair(truth, number)
    for rows in ground.by_metric.values():
        for new in rows:
            for old in rows:
                is_year_before = old.period == new.period.replace(new.period[:4], str(int(new.period[:4]) - 1))
                if is_year_before and min(old.value, new.value) > 0 and new.unit == "currency":
                    yield from _change_pairs(old, new)


def written(value: Decimal, unit: str, power: int = 0) -> str:
    """Write an amount: 318,024,319.30元, 31,802.43193万元, 7.77%, 9,353套."""
    number = f"{value.scaleb(-power):,f}"
    scale = {0: "", 4: "万", 8: "亿"}[power]
    return f"{number.rstrip('0').rstrip('.') if power else number}{scale}{unit}"


def _truth(metric: str, period: str, value: str, unit: str) -> Truth:
    currency = "CNY" if "元" in unit else ""
    return Truth(
        metric=metric,
        period=period,
        value=Decimal(value.replace(",", "")),
        unit=_UNITS[unit],
        currency=currency,
        scale=unit,
    )


def _figure_pair(truth: Truth, number: int) -> TruePair:
    power = (0, 0, 4, 8)[number % 4] if truth.unit == "currency" and abs(truth.value) > 10**7 else 0
    amount = written(truth.value, truth.scale, power)
    asked = (
        f"{ENTITY}{truth.period}的{truth.metric}是多少？",
        f"{truth.period}，{ENTITY}的{truth.metric}为多少？",
        f"请说明{ENTITY}{truth.period}{truth.metric}的情况。",
    )[number % 3]
    told = (
        f"{ENTITY}{truth.period}{truth.metric}为{amount}。",
        f"{truth.period}，{ENTITY}的{truth.metric}是{amount}。",
    )
    return TruePair(
        source="typed cells",
        language="zh",
        document="annual report 2019",
        question=asked,
        answer=told[number % 2],
        entity=ENTITY,
        metric=truth.metric,
        periods=(truth.period,),
        amount=amount,
        truths=(truth,),
    )


def _change_pairs(old: Truth, new: Truth) -> Iterator[TruePair]:
    growth = (abs(new.value - old.value) / old.value * 100).quantize(Decimal("0.01"), rounding=ROUND_HALF_UP)
    is_up = new.value > old.value
    for operation, ask, moved, amount in (
        ("growth", "变化了百分之几", "增长" if is_up else "下降", f"{growth}%"),
        ("difference", "变化了多少", "增加" if is_up else "减少", written(abs(new.value - old.value), "元")),
    ):
        yield TruePair(
            source="typed cells",
            language="zh",
            document="annual report 2019",
            question=f"{ENTITY}{new.period}的{new.metric}比{old.period}{ask}？",
            answer=f"{ENTITY}{new.period}{new.metric}比{old.period}{moved}{amount}。",
            entity=ENTITY,
            metric=new.metric,
            periods=(old.period, new.period),
            amount=amount,
            truths=(old, new),
            operation=operation,  # type: ignore[arg-type]
        )
