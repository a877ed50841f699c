"""What something consists of, where a sentence enumerates it or numbered headings do."""

import re
from collections.abc import Iterator, Sequence
from functools import partial

from finlm.figures import narrow
from selfqa.blocks import Block, Source
from selfqa.english_words import Lexicon
from selfqa.entities import Filing
from selfqa.pairs import Pair, possessive
from selfqa.prose import Stretch, prose_pair, report_name, small_first, told

_ENUMERATED = re.compile(
    r"^(?P<what>[^,;:]{4,100}?) (?P<verb>consists? (?:primarily |mainly |principally |mostly )?of|includes?|comprises?"
    r"|(?:is|are) comprised of) (?P<items>[^;:]+, [^;:]+,? (?:and|or) [^;:]+)\.$"
)
_NOT_A_THING = re.compile(
    r"\b(?:is|are|was|were|has|have|will|may|can|could|would|that|which|who|if|when|not|it|its|they|because|to|also)\b",
    re.IGNORECASE,
)
_VAGUE = re.compile(r"^\w+$|^fiscal year|^(?:other|qualitative|such|these|certain) |\bfactors$|^effective ")
_NUMBERED = re.compile(
    r"^(?:[（(]?(?P<number>\d+|[一二三四五六七八九十]+)[）)]?[、.．]?)(?P<title>[\u4e00-\u9fff、]{3,16})$"
)
_DULL = re.compile(
    r"说明|适用|其他|情况|信息|数据|指标|披露|事项|附注|报表|项目|会计|收入与成本|费用|现金流|概述|研发投入|关联|变动|资产|产品"
)
LEVELS = ("节", "一、", "（一）", "1")
"""Kinds of numbers, outermost first."""
_ORDER = "一二三四五六七八九十"


def list_pairs(stretch: Stretch, filing: Filing, lexicon: Lexicon, limit: int) -> Iterator[Pair]:
    """Yield a pair for each English sentence that says what something consists of, three things or more."""
    for number, sentence in enumerate(stretch.sentences):
        said = told(sentence, filing, longest=55)
        found = _ENUMERATED.match(said.text) if said else None
        if said is None or found is None or _NOT_A_THING.search(found["what"]) or found["items"].count(",") < 2:
            continue
        what = re.sub(r"^(?:the|an?) ", "", small_first(re.sub(r"^(?:The|An?) ", "", found["what"]), lexicon))
        if _VAGUE.search(what) or re.search(r"\b(?:which|excludes?)\b", found["items"]):
            continue
        asked = _asked(what, found["verb"], filing)
        yield prose_pair(asked, said.text, "list", "enumeration", what, stretch, [number], limit)


def _asked(what: str, verb: str, filing: Filing) -> str:
    is_plural = not re.match(r"(?:consists|includes|comprises|is)\b", verb)
    if "comprised" in verb:
        ask = f"what {'are' if is_plural else 'is'} {{}} comprised of?"
    else:
        bare = re.sub(r"\b(consist|include|comprise)s\b", r"\1", verb)
        ask = f"what {'do' if is_plural else 'does'} {{}} {bare}?"
    if what.startswith(possessive(filing.short)):
        return (ask[:1].upper() + ask[1:]).format(what)
    if filing.short.split(" ")[0] in what or (" " in what and not what[0].islower()):
        return f"According to {filing.short}, {ask.format('the ' + what if 'platform' in what else what)}"
    return (ask[:1].upper() + ask[1:]).format(f"{possessive(filing.short)} {what}")


def heading_lists(source: Source, filing: Filing) -> Iterator[Pair]:
    """Yield which points a part of a Chinese report makes: its numbered headings, three or more in a row."""
    if filing.language != "zh" or not filing.fiscal_year:
        return
    heads = [block for block in source.blocks if block.kind == "heading" and block.end - block.start < 40]
    texts = [re.sub(r"\s", "", narrow(source.text[block.start : block.end])) for block in heads]
    for at, text in enumerate(texts):
        title = _title(text)
        level = level_of(text)
        if not title or _DULL.search(title) or level in {"", "1"}:
            continue
        children = _children(texts, at)
        if len(children) >= 2 and not any(re.search(r"说明|适用|情况", texts[child]) for child in children):
            yield _listed(title, [_title(texts[child]) for child in children], heads[at], heads[children[-1]], filing)


def _title(text: str) -> str:
    found = _NUMBERED.match(text.translate(str.maketrans("()", "（）")))
    return found["title"] if found and not found["title"].startswith("、") else ""


def level_of(text: str) -> str:
    """Which kind of number a heading has: 第一节, 一、, （一）, 1、, or none."""
    if re.match(r"第[一二三四五六七八九十]+[节章]", text):
        return "节"
    if re.match(r"[（(][一二三四五六七八九十]", text):
        return "（一）"
    return "一、" if re.match(r"[一二三四五六七八九十]+[、.]", text) else "1" if re.match(r"[（(]?\d", text) else ""


def below(level: str) -> tuple[str, ...]:
    """The kinds of numbers that stand below a kind."""
    return LEVELS[LEVELS.index(level) + 1 :] if level else ()


def _children(texts: Sequence[str], at: int) -> list[int]:
    """The headings below the one at `at`, numbered from one without a gap, up to the next of its own level."""
    found: list[int] = []
    inner = ""
    for below in range(at + 1, len(texts)):
        level = level_of(texts[below])
        if level and LEVELS.index(level) <= LEVELS.index(level_of(texts[at])):
            break
        inner = inner or level
        if not level:
            continue
        if level == inner:
            number = re.match(r"[（(]?(\d+|[一二三四五六七八九十]+)", texts[below])
            wanted = len(found) + 1
            is_next = number is not None and number[1] in {str(wanted), _ORDER[min(wanted, 10) - 1]}
            if not is_next or not _title(texts[below]):
                return []
            found.append(below)
    return found


def _listed(title: str, names: Sequence[str], first: Block, last: Block, filing: Filing) -> Pair:
    where = f"{filing.short}{report_name(filing)}"
    joined = f"{'、'.join(names[:-1])}和{names[-1]}"
    if title.endswith("风险"):
        question, answer = f"{where}披露了哪些风险？", f"{where}披露的风险包括{joined}。"
    elif title.endswith(("措施", "举措")):
        question, answer = f"{where}提出的{title}有哪些？", f"{where}提出的{title}包括{joined}。"
    else:
        question, answer = f"{where}的“{title}”部分包括哪几个方面？", f"{where}的“{title}”部分包括{joined}。"
    return Pair(
        question=question,
        answer=answer,
        kind="list",
        start=first.start,
        end=last.end,
        rule="headings",
        topic=title,
        place=title,
        passage=partial(str, "\n".join([title, *names])),
    )
