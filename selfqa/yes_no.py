"""Yes or no, from a comparison that code has checked, and from the boxes of a Chinese report.

Which way a comparison is asked follows a hash, so that yes and no are about even.
"""

import re
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise

from finlm.figures import narrow
from selfqa.background import Background
from selfqa.blocks import Source
from selfqa.entities import Filing
from selfqa.facts import Fact
from selfqa.pairs import Pair, beside, hashed, pick, possessive, verb
from selfqa.prose import chinese_told


def english_direction(old: Fact, new: Fact, filing: Filing) -> tuple[str, str]:
    """Ask whether a metric rose or fell from one period to another; the two must differ."""
    owner = f"{possessive(filing.short)} {new.metric}"
    rose = new.value > old.value
    asked = pick(("increase", "decrease"), new.metric, new.period, "direction")
    said = "Yes" if rose == (asked == "increase") else "No"
    since, until = (re.sub(r"^(?:in|as of|at)\s", "", fact.period.in_english()) for fact in (old, new))
    span = f"from {since} to {until}" if new.period.months == 12 else f"between {since} and {until}"
    moved = "rose" if rose else "fell"
    told = f"from {old.amount} {old.period.in_english()} to {new.amount} {new.period.in_english()}"
    return f"Did {owner} {asked} {span}?", f"{said}, {owner} {moved} {told}."


def chinese_direction(old: Fact, new: Fact, filing: Filing) -> tuple[str, str]:
    """问一个指标是否比上一期间增加（减少）。"""
    rose = new.value > old.value
    asked = pick(("增加", "减少"), new.metric, new.period, "direction")
    said = "是" if rose == (asked == "增加") else "否"
    since, until, metric = old.period.in_chinese(), new.period.in_chinese(), new.metric
    unit_free = "上升" if rose else "下降"
    moved = unit_free if new.unit == "percent" else ("增加" if rose else "减少")
    if new.unit == "percent":
        asked = {"增加": "上升", "减少": "下降"}[asked]
    question = f"{filing.short}{until}的{metric}比{since}{asked}了吗？"
    return question, f"{said}，{filing.short}的{metric}由{since}的{old.amount}{moved}到{until}的{new.amount}。"


def english_versus(one: Fact, other: Fact, filing: Filing) -> tuple[str, str]:
    """Ask whether one metric was higher than another of the same period; the two must differ."""
    first, second = (one, other) if hashed(one.metric, other.metric, "order") % 2 else (other, one)
    when, was = first.period.in_english(), verb(first.metric)
    is_higher = first.value > second.value
    question = f"{was.capitalize()} {possessive(filing.short)} {first.metric} higher than its {second.metric} {when}?"
    told = "higher" if is_higher else "lower"
    answer = (
        f"{'Yes' if is_higher else 'No'}, {possessive(filing.short)} {first.metric} {was} {told} {when}: "
        f"{first.amount}, against {second.amount} of {second.metric}."
    )
    return question, answer


def chinese_versus(one: Fact, other: Fact, filing: Filing) -> tuple[str, str]:
    """问同一期间一个指标是否高于另一个指标。"""
    first, second = (one, other) if hashed(one.metric, other.metric, "order") % 2 else (other, one)
    is_higher = first.value > second.value
    when = first.period.in_chinese()
    question = f"{filing.short}{when}的{first.metric}是否高于{beside(second.metric, first.metric)}？"
    told = "高于" if is_higher else "低于"
    answer = (
        f"{'是' if is_higher else '否'}，{filing.short}{when}的{first.metric}为{first.amount}，"
        f"{told}{beside(second.metric, first.metric)}的{second.amount}。"
    )
    return question, answer


_BOX = re.compile(r"^(?:√|☑|[□☐])(?:适用|是)(?:√|☑|[□☐])(?:不适用|否)$")
_ABSENT = re.compile(r"^公司(?:本)?报告期内?(?P<how>不存在|未发生|无|未)(?P<what>[^，。；]{4,36})。?$")
_MAIN_VERB = re.compile(r"^(?:进行|出售|改聘|发行|持有|派发|提出|实施|收购|购买|制定|聘请|变更|对外|发生|开展|转让)")


def chinese_boxes(source: Source, filing: Filing, passages: Sequence[Background]) -> Iterator[Pair]:
    """Yield what a Chinese report answers by a box (□ 是 √ 否) or by "公司报告期不存在…"."""
    if filing.language != "zh" or filing.months != 12:
        return
    texts = [(block, re.sub(r"\s", "", narrow(source.text[block.start : block.end]))) for block in source.blocks]
    for (block, text), (below, box) in pairwise(texts):
        found = _ABSENT.match(text)
        if found is not None:
            made = _absent(found, filing)
            if made is not None:
                yield _boxed(*made, block.start, block.end, source, filing)
            continue
        asked = re.fullmatch(r"(?:报告期内?|公司)?(?:公司)?是否(?P<what>[^，。；：□√]{4,30})[？?]?", text)
        if asked and _BOX.match(box) and _MAIN_VERB.match(asked["what"]):
            is_yes = box.startswith(("√", "☑"))
            what = asked["what"]
            year = f"{filing.short}{filing.fiscal_year}年"
            answer = f"是，{year}{what}。" if is_yes else f"否，{year}没有{what}。"
            yield _boxed(f"{year}是否{what}？", answer, block.start, below.end, source, filing)


def _absent(found: re.Match[str], filing: Filing) -> tuple[str, str] | None:
    year, how = f"{filing.short}{filing.fiscal_year}年", found["how"]
    what = chinese_told(found["what"], filing)
    if what is None or re.search(r"及其|情况说明", what):
        return None
    if how == "不存在":
        return f"{year}是否存在{what}？", f"否，{year}不存在{what}。"
    if how == "未发生":
        return f"{year}是否发生{what}？", f"否，{year}未发生{what}。"
    if how == "无":
        return f"{year}是否有{what}？", f"否，{year}没有{what}。"
    return (f"{year}是否{what}？", f"否，{year}未{what}。") if _MAIN_VERB.match(what) else None


def _boxed(question: str, answer: str, start: int, end: int, source: Source, filing: Filing) -> Pair:
    around = source.text[max(0, start - 160) : min(len(source.text), end + 160)]
    return Pair(
        question=question,
        answer=answer,
        kind="yes-no",
        start=start,
        end=end,
        rule="box",
        topic=question,
        place=f"box {start // 4000}",
        passage=partial(str, "\n".join(line for line in around.split("\n")[1:-1] if line.strip())),
    )
