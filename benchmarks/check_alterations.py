"""False copies of true pairs, one piece altered: figure, scale, sign, period, entity, unit, metric.

Strings are altered, never records of the checker. An altered pair that the ground says is true as well, or that
nothing tells from the true one, is marked; the benchmark counts it and leaves it out.
"""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from benchmarks.check_truths import Ground, TruePair, Truth

KINDS = ("figure", "scale", "sign", "period", "entity", "unit", "metric")
Where = Literal["answer", "question and answer"]

OTHER_ENTITIES = {
    "en": ("Microsoft Corporation", "Exxon Mobil Corporation", "Walmart", "Samsung Electronics", "Tesla, Inc."),
    "zh": ("宁德时代", "贵州茅台", "中国平安保险（集团）股份有限公司", "万科A", "比亚迪股份有限公司"),
}
_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
_EN_SCALES = ("thousand", "million", "billion")
_ZH_SCALES = ("万亿", "百万", "千", "万", "亿")
_POWERS = {
    "": 0,
    "cell": 0,
    "thousand": 3,
    "million": 6,
    "billion": 9,
    "千": 3,
    "万": 4,
    "百万": 6,
    "亿": 8,
    "万亿": 12,
}
_MEANS_MINUS = re.compile(r"loss|deficit|used|repayment|payment|expense|cost|decrease|decline|亏损|损失|支出|流出|减少")
_MEANS_PLUS = re.compile(r"income|gain|provided|proceeds|profit|increase|净额|收益|利润")
_OPPOSITE = {"rose": "fell", "fell": "rose", "增长": "下降", "下降": "增长", "增加": "减少", "减少": "增加"}


@dataclass(frozen=True, slots=True)
class Altered:
    """A pair with one piece altered."""

    kind: str
    where: Where
    question: str
    answer: str
    is_also_true: bool = False


def altered(pair: TruePair, ground: Ground) -> Iterator[Altered]:
    """Yield an altered copy of each kind that the pair offers something to alter for."""
    makers = {
        "figure": _figure,
        "scale": _scale,
        "sign": _sign,
        "period": _period,
        "entity": _entity,
        "unit": _unit,
        "metric": _metric,
    }
    for kind, make in makers.items():
        made = make(pair, ground, pair.rng(kind))
        if made is not None and (made.question, made.answer) != (pair.question, pair.answer):
            yield made


def _in_answer(pair: TruePair, kind: str, amount: str, *, is_also_true: bool = False) -> Altered:
    answer = amount if pair.answer == pair.amount else pair.answer.replace(pair.amount, amount, 1)
    return Altered(kind, "answer", pair.question, answer, is_also_true)


def _everywhere(pair: TruePair, kind: str, old: str, new: str, rng: random.Random, *, is_also_true: bool) -> Altered:
    """Alter the answer alone where it says the piece and the draw says so, else question and answer alike."""
    if old in pair.answer and old in pair.question and rng.random() < 0.5:
        return Altered(kind, "answer", pair.question, pair.answer.replace(old, new), is_also_true)
    question, answer = pair.question.replace(old, new), pair.answer.replace(old, new)
    return Altered(kind, "question and answer", question, answer, is_also_true)


def _claims(pair: TruePair, ground: Ground, *, metric: str = "", period: str = "") -> bool:
    """Would the pair be true of another metric or period?"""
    (truth,) = pair.truths
    unit = (truth.unit, truth.currency)
    return ground.says(metric or truth.metric, period or truth.period, truth.value, *unit)


# ---------------------------------------------------------------------------------------------- the figure


def _figure(pair: TruePair, ground: Ground, rng: random.Random) -> Altered | None:
    """One digit misread, or the number of another figure of the document."""
    number = _NUMBER.search(pair.amount)
    if number is None:
        return None
    others = [truth for truth in ground.truths if truth.unit == pair.truths[0].unit and truth.scale]
    new = _misread(number[0], rng)
    if others and not pair.operation and rng.random() < 0.5:
        other = rng.choice(others)
        new = f"{abs(other.value).scaleb(-_POWERS.get(other.scale, 0)).normalize():,f}"
    amount = pair.amount[: number.start()] + new + pair.amount[number.end() :]
    return _in_answer(pair, "figure", amount, is_also_true=_number(new) == _number(number[0]))


def _number(text: str) -> Decimal:
    return Decimal(text.replace(",", ""))


def _misread(number: str, rng: random.Random) -> str:
    place = rng.choice([at for at, char in enumerate(number) if char.isdigit()])
    digit = rng.choice([digit for digit in "123456789" if digit != number[place]])
    return number[:place] + digit + number[place + 1 :]


def _scale(pair: TruePair, ground: Ground, rng: random.Random) -> Altered | None:
    """Another scale word, one put where there was none, or one taken away."""
    if "%" in pair.amount or "点" in pair.amount or "percent" in pair.amount:
        return None
    number = _NUMBER.search(pair.amount)
    assert number
    head, tail = pair.amount[: number.end()], pair.amount[number.end() :]
    words = _EN_SCALES if pair.language == "en" else _ZH_SCALES
    found = re.match(r"(\)?\s?)(" + "|".join(words) + ")", tail)
    if found:
        options = [word for word in words if word != found[2]]
        new = head + found[1] + rng.choice(options) + tail[found.end() :]
    elif pair.language == "zh":
        new = head + rng.choice(("万", "亿")) + tail
    else:
        closing = ")" if tail.startswith(")") else ""
        new = f"{head}{closing} {rng.choice(_EN_SCALES)}{tail.removeprefix(')')}"
    return _in_answer(pair, "scale", new)


def _sign(pair: TruePair, ground: Ground, rng: random.Random) -> Altered | None:
    """A minus put or taken away; of a change, the other direction."""
    for word, opposite in _OPPOSITE.items():
        if pair.operation and pair.metric and word in pair.answer:
            return Altered("sign", "answer", pair.question, pair.answer.replace(word, opposite))
    number = _NUMBER.search(pair.amount)
    assert number
    is_negative = bool(re.search(r"[-−(]", pair.amount[: number.start()]))
    if is_negative:
        text = re.sub(r"income tax|net of tax", "", (pair.metric or pair.question).lower())
        is_said = bool(_MEANS_MINUS.search(text)) and not _MEANS_PLUS.search(text)  # "cash used was $5" for (5)
        return _in_answer(pair, "sign", re.sub(r"[-−()]", "", pair.amount), is_also_true=is_said)
    if pair.language == "en" and pair.amount.startswith("$") and rng.random() < 0.5:
        return _in_answer(pair, "sign", f"$({number[0]}){pair.amount[number.end() :]}")
    return _in_answer(pair, "sign", f"-{pair.amount}", is_also_true=not pair.truths[0].value)


def _unit(pair: TruePair, ground: Ground, rng: random.Random) -> Altered | None:
    """Another currency, a number of things in place of money, a percentage in place of an amount."""
    amount = pair.amount
    if "%" in amount:
        options = [amount.replace("%", " percentage points" if pair.language == "en" else "个百分点")]
        options.append("$" + amount.replace("%", " million") if pair.language == "en" else amount.replace("%", "万元"))
        if pair.operation != "growth":
            options = options[1:]  # "2.1 percentage points" may say what "2.1 %" means
    elif "$" in amount:
        number = amount.replace("$", "")
        options = [amount.replace("$", "€"), f"RMB {number}", f"{number} shares", f"{number} employees"]
    elif "元" in amount:
        number = amount.replace("元/股", "").replace("元", "")
        options = [amount.replace("元", "美元"), amount.replace("元", "港元"), f"{number}股", f"{number}%"]
    elif "套" in amount:
        options = [amount.replace("套", "万元"), amount.replace("套", "%")]
    elif "shares" in amount:
        number = amount.replace(" shares", "")
        options = [f"${number}", f"{number}%"]
    else:
        number = _NUMBER.search(amount)
        if number is None or not re.fullmatch(r"[-−(]?\d[\d,.]*\)?(?: (?:thousand|million|billion))?", amount):
            return None
        options = [f"{number[0]}%"]
    return _in_answer(pair, "unit", rng.choice(options))


# ---------------------------------------------------------------------------------------------- what it is about


def _period(pair: TruePair, ground: Ground, rng: random.Random) -> Altered | None:
    """Another period that the document tells of, or a year that it does not."""
    if not pair.metric:
        return None
    if pair.operation:
        return _periods(pair, ground, rng)
    old = pair.periods[0]
    own = pair.truths[0].period
    others = sorted({truth.period for truth in ground.truths} - {own})
    told = [period for period in others if ground.by_key.get((pair.metric, period))]
    near = told or others
    drawn = rng.random()
    new = _year_moved(own, rng.choice((-1, 1))) if drawn < 0.3 or not near else rng.choice(near)
    if new == own:
        return None
    is_also_true = _claims(pair, ground, period=new) or _same_time(own, new)
    return _everywhere(pair, "period", old, new, rng, is_also_true=is_also_true)


def _same_time(one: str, other: str) -> bool:
    """Does one of two phrases say no more than the other: 2019年 and 2019年末?"""
    return re.sub("12月31日|[末度]", "", one) == re.sub("12月31日|[末度]", "", other)


def _periods(pair: TruePair, ground: Ground, rng: random.Random) -> Altered | None:
    """Both periods of a change a year earlier or later, in question and answer alike."""
    by = rng.choice((-1, 1))
    question, answer = (_year_moved(text, by) for text in (pair.question, pair.answer))
    return Altered("period", "question and answer", question, answer)


def _year_moved(text: str, by: int) -> str:
    return re.sub(r"(?<![\d,.])(?:19|20)\d\d(?![\d,.%]\d)(?=\D|$)", lambda found: str(int(found[0]) + by), text)


def _entity(pair: TruePair, ground: Ground, rng: random.Random) -> Altered | None:
    if not pair.entity:
        return None
    new = rng.choice(OTHER_ENTITIES[pair.language])
    return _everywhere(pair, "entity", pair.entity, new, rng, is_also_true=False)


def _metric(pair: TruePair, ground: Ground, rng: random.Random) -> Altered | None:
    """The figure said of another metric of the same period and unit."""
    if pair.operation or not pair.metric:
        return None
    own: Truth = pair.truths[0]
    others = [
        truth
        for truth in ground.truths
        if truth.period == own.period and truth.unit == own.unit and truth.metric != own.metric
    ]
    if not others:
        return None
    new = rng.choice(others).metric
    return _everywhere(pair, "metric", pair.metric, new, rng, is_also_true=_claims(pair, ground, metric=new))
