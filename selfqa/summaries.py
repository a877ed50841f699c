"""Summaries from headings: what a filing says about the topic that stands above some paragraphs.

The answer is extractive: the sentences of the stretch that share most words with the rest of it, in their order
(a plain form of TextRank, Mihalcea and Tarau 2004: one step of it, similarity by shared content words).
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from selfqa.english_words import Lexicon
from selfqa.entities import Filing
from selfqa.lists import below, level_of
from selfqa.pairs import Pair, pick
from selfqa.prose import Stretch, chinese_told, prose_pair, report_name, told

MAX_WORDS = 75
"""Longest English summary."""
MAX_HAN = 180
"""Longest Chinese summary, in characters."""
LEAD = 3
"""Paragraphs under a heading that a summary may take sentences from."""
MOST_SENTENCES = 16
"""Of a stretch: what tells more than that has no summary of three sentences."""
_DULL = re.compile(
    r"signature|available information|forward-looking|exhibit|where you can find|unresolved|mine safety|reserved"
    r"|item \d|^part |notes to|note \d|table of|^index|page|pursuant|page|continued|unaudited|independent|opinion"
    r"|basis for|index to|holders$|other information|reports? of|critical audit|responsibilit|period end|filing date"
    r"|description|employee$|^other$",
    re.IGNORECASE,
)
_ZH_DULL = re.compile(
    r"适用|说明|其他|释义|目录|备查|审计|签字|声明|提示|承诺|登记|附注|单位|会议|不适用|披露|企业会计准则|税"
)
_SMALL = frozenset(re.findall(r"\w+", "the and for with from are was were been that its their has have company our"))


def summary_pairs(stretch: Stretch, filing: Filing, lexicon: Lexicon | None, limit: int) -> Iterator[Pair]:
    """Yield the pair of a stretch whose heading is a topic and whose sentences can stand alone."""
    topic = _english_topic(stretch) if lexicon else _chinese_topic(stretch)
    if not topic or not filing.fiscal_year or not 2 <= len(stretch.sentences) <= MOST_SENTENCES:
        return
    texts = _told(stretch, filing)
    chosen = _central([text or "" for text in texts], MAX_HAN if filing.language == "zh" else MAX_WORDS)
    if not chosen:
        return
    if chosen[0] != 0:
        return  # without what it begins with, nobody knows what the rest is about
    said = [texts[number] or "" for number in chosen]
    if filing.language == "en" and not said[0].startswith(filing.short) and filing.short not in said[0]:
        return
    if len(said[0]) < (30 if filing.language == "zh" else 60) and len(said) == 1:
        return
    answer = ("" if filing.language == "zh" else " ").join(said)
    yield prose_pair(_asked(topic, filing), answer, "summary", "summary", topic, stretch, chosen, limit)


def _told(stretch: Stretch, filing: Filing) -> list[str | None]:
    """The sentences that stand alone and keep to what the stretch begins with, as an outsider says them."""
    begun = _content(stretch.heading) | _content(stretch.sentences[0].text)
    lead = stretch.blocks[min(LEAD, len(stretch.blocks)) - 1].end
    texts: list[str | None] = []
    for sentence in stretch.sentences:
        if filing.language == "zh":
            text = chinese_told(sentence.text, filing)
            is_whole = text is not None and text.endswith("。") and 14 <= len(text) <= 120
        else:
            said = told(sentence, filing, longest=50)
            text, is_whole = (said.text, True) if said else (None, False)
        is_on_topic = sentence.start < lead and len(_content(sentence.text) & begun) >= 2
        texts.append(text if is_whole and is_on_topic else None)
    return texts


def _english_topic(stretch: Stretch) -> str:
    heading = " ".join(stretch.heading.split()).rstrip(".:")
    words = heading.split(" ")
    if not 1 <= len(words) <= 8 or _DULL.search(heading) or re.search(r"[\d•|$%☐☒(@]|\.$", heading):
        return ""
    if not words[0][:1].isupper() or stretch.zone in {"other", "statements"} or stretch.heading.endswith(":"):
        return ""
    if not all(
        word[:1].isupper() or word in {"and", "of", "the", "to", "for", "in", "on", "with", "or"} for word in words
    ):
        return ""
    return heading


def _chinese_topic(stretch: Stretch) -> str:
    heading = re.sub(r"\s", "", stretch.heading)
    topic = re.sub(r"^(?:第[一二三四五六七八九十]+节|[（(]?[\d一二三四五六七八九十]+[）)]?[、.．]?)", "", heading)
    if not re.fullmatch(r"[\u4e00-\u9fffA-Z、和]{4,20}", topic) or _ZH_DULL.search(topic):
        return ""
    is_leaf = level_of(stretch.following) in {"", "节"} or level_of(stretch.following) not in below(level_of(heading))
    return topic if stretch.zone in {"business", "discussion"} and is_leaf and not topic.endswith("风险") else ""


def _central(texts: Sequence[str], most: int) -> list[int]:
    """Return the places of the sentences that tell most of the rest, as many as fit, in order; at most three."""
    words = [_content(text) for text in texts]
    scores = []
    for number, mine in enumerate(words):
        shared = sum(
            len(mine & other) / (1 + math.log(1 + len(mine)) + math.log(1 + len(other)))
            for at, other in enumerate(words)
            if at != number
        )
        scores.append((-shared * (1.5 if number == 0 else 1), number))
    chosen: list[int] = []
    size = 0
    for _, number in sorted(scores):
        length = len(texts[number]) if re.search(r"[\u4e00-\u9fff]", texts[number]) else len(texts[number].split())
        if texts[number] and size + length <= most and len(chosen) < 3:
            chosen.append(number)
            size += length
    return sorted(chosen)


def _content(text: str) -> frozenset[str]:
    if re.search(r"[\u4e00-\u9fff]", text):
        return frozenset(text[at : at + 2] for at in range(len(text) - 1))
    counted = Counter(re.findall(r"[a-z]{3,}", text.lower()))
    return frozenset(counted) - _SMALL


def _asked(topic: str, filing: Filing) -> str:
    report = report_name(filing)
    if filing.language == "zh":
        options = (
            "请概括{name}{report}中“{topic}”部分的主要内容。",
            "{name}{report}在“{topic}”部分主要讲了什么？",
            "用一两句话概括{name}{report}关于“{topic}”的论述。",
        )
    else:
        options = (
            "Summarize what {name} says about “{topic}” in its {report}.",
            "In brief, what does {name} write under “{topic}” in its {report}?",
            "What are the main points that {name} makes about “{topic}” in its {report}?",
        )
    return pick(options, filing.short, topic).format(name=filing.short, report=report, topic=topic)
