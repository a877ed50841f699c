"""Sentences with figures: "Gaming revenue for fiscal year 2023 was $9.07 billion" asks and answers itself."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

from finlm.figures import narrow
from selfqa.background import Background
from selfqa.blocks import Source
from selfqa.english_words import MEASURE, Lexicon
from selfqa.entities import Filing
from selfqa.facts import Dropped
from selfqa.pairs import Pair, possessive, verb

_AMOUNT = (
    r"(?:approximately |about )?(?P<amount>\$\d[\d,]*(?:\.\d+)?(?: (?:thousand|million|billion))?"
    r"|\d+(?:\.\d+)?%(?! of\b))"
)
_DATE = r"(?:as of|at) (?P<date>[A-Z][a-z]+ \d{1,2}, (?:19|20)\d\d)"
_LEVEL = (
    re.compile(
        rf"^(?P<np>[A-Z][^.,;:$%\d]{{3,70}}?) (?:in |for |during )(?:the )?(?P<year>(?:fiscal(?: year)? )?(?:19"
        rf"|20)\d\d) (?:was"
        rf"|were|totaled|amounted to) {_AMOUNT}(?=[,.; ])"
    ),
    re.compile(
        rf"^(?P<np>[A-Z][^.,;:$%\d]{{3,70}}?) (?:was|were|totaled|amounted to|increased to|decreased to|rose to"
        rf"|fell to) {_AMOUNT}[^.;]{{0,40}}? (?:in"
        rf"|for|during) (?:the )?(?P<year>(?:fiscal(?: year)? )?(?:19|20)\d\d)(?=[,.; ])"
    ),
    re.compile(
        rf"^(?P<np>[A-Z][^.,;:$%\d]{{3,70}}?) (?:was|were|totaled|amounted to) {_AMOUNT}(?: of [a-z ]+?)? {_DATE}"
    ),
    re.compile(
        rf"^(?P<np>[A-Z][^.,;:$%\d]{{3,70}}?) (?:increased|decreased|rose|fell|grew"
        rf"|declined) [\d.]+% to {_AMOUNT} in (?P<year>(?:fiscal(?: year)? )?(?:19"
        rf"|20)\d\d)"
    ),
)
_MOVE = re.compile(
    r"^(?P<np>[A-Z][^.,;:$%\d]{3,70}?) (?P<verb>increased|decreased|rose|fell|grew"
    r"|declined) (?:by )?(?P<amount>\d+(?:\.\d+)?%)"
    r"(?: to \$\d[\d,.]*\d(?: (?:thousand|million|billion))?)? in (?P<year>(?:fiscal(?: year)? )?(?:19|20)\d\d)"
)
_MONEY = r"(?:\$\d[\d,]*(?:\.\d+)?(?: (?:thousand|million|billion))?|\d+(?:\.\d+)?%)"
_AGAINST = re.compile(
    rf"^(?P<np>[A-Z][^.,;:$%\d]{{3,70}}?) (?:was|were) (?P<newer>{_MONEY})(?:, or [^,]+)?,? compared (?:with|to) "
    rf"(?P<older>{_MONEY})(?:, or [^,]+,)? (?:in|for) (?:the )?(?P<year>(?:fiscal(?: year)? )?(?:19"
    rf"|20)\d\d)(?=[,.; ])"
)
_SHARE = re.compile(r"\b(?:margin|rate|ratio|percentage|yield|occupancy|share|factor|utilization|return)\b", re.I)
_PAST = {"increased": "rose", "grew": "rose", "decreased": "fell", "declined": "fell"}
_ZH_LEVEL = re.compile(
    r"(?P<np>[\u4e00-\u9fff]{2,24}?)(?:为|达到?|共计|合计)?(?P<amount>\d[\d,]*(?:\.\d+)?(?:万|亿)?元)"
    r"(?:，(?:较上年)?(?:同比)(?P<move>增长|下降|减少|增加)(?P<percent>\d+(?:\.\d+)?%))?"
)
_ZH_MEASURE = re.compile(r"(?:收入|利润|成本|费用|资产|负债|投入|现金流量净额|销售额|产值|净额|支出)$")


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of a paragraph and its place in the document."""

    start: int
    end: int
    text: str


def sentences_of(source: Source, start: int, end: int) -> list[Sentence]:
    """Split a paragraph; abbreviations and decimals do not end a sentence."""
    text = source.text[start:end]
    cuts = [0]
    for found in re.finditer(r"(?<=[.!?])[\"”)]?\s+(?=[A-Z“\"(])|(?<=[。！？])[”）]?(?=\S)|\n{2,}", text):
        before = text[max(0, found.start() - 12) : found.start()]
        if not re.search(r"\b(?:Inc|Corp|Co|Ltd|No|vs|U\.S|Mr|Ms|Dr|St|approx|[A-Z])\.$", before):
            cuts.append(found.end())
    cuts.append(len(text))
    pieces = []
    for left, right in pairwise(cuts):
        body = text[left:right]
        inner = start + left + len(body) - len(body.lstrip())
        if body.strip():
            pieces.append(Sentence(inner, inner + len(body.strip()), body.strip()))
    return pieces


def sentence_pairs(
    source: Source, filing: Filing, lexicon: Lexicon | None, limit: int, passages: Sequence[Background]
) -> Iterator[Pair | Dropped]:
    """Yield pairs from the paragraphs of a document that lie in one of `passages`: boilerplate asks nothing."""
    section = ""
    for block in source.blocks:
        if block.kind == "heading":
            section = source.text[block.start : block.end]
        if block.kind != "paragraph" or not any(p.start <= block.start < p.end for p in passages):
            continue
        sentences = sentences_of(source, block.start, block.end)
        for number, sentence in enumerate(sentences):
            made = list(_english(sentence, filing, lexicon) if lexicon else _chinese(sentence, filing))
            for question, answer, kind, topic, evidence in made:
                yield Pair(
                    question=question,
                    answer=answer,
                    kind=kind,
                    start=evidence.start,
                    end=evidence.end,
                    rule="sentence",
                    topic=topic,
                    place=section or f"paragraph {block.start}",
                    passage=partial(_around, sentences, number, limit),
                )


def _around(sentences: list[Sentence], number: int, limit: int) -> str:
    """The sentence with as many neighbours as fit, in their order, white space unified."""
    chosen = [number]
    joined = " ".join(sentences[number].text.split())
    size = len(joined)
    for near in (number + 1, number - 1, number + 2, number - 2):
        if not 0 <= near < len(sentences):
            continue
        length = len(" ".join(sentences[near].text.split())) + 1
        if size + length <= limit:
            chosen.append(near)
            size += length
    is_chinese = bool(re.search(r"[\u4e00-\u9fff]", joined))
    return ("" if is_chinese else " ").join(" ".join(sentences[at].text.split()) for at in sorted(chosen))


Made = tuple[str, str, str, str, Sentence]


def _english(sentence: Sentence, filing: Filing, lexicon: Lexicon) -> Iterator[Made]:
    text = " ".join(sentence.text.split())
    for pattern in _LEVEL:
        found = pattern.match(text)
        if found and found["amount"].endswith("%") and not _SHARE.search(found["np"]):
            continue  # "revenue was 10%": of what, the sentence says elsewhere
        if found is None or (filing.months < 12 and "date" not in found.groupdict()):
            continue  # a bare year in an interim report may mean a quarter
        topic = _subject(found["np"], lexicon)
        if not topic:
            return
        when = f"as of {found['date']}" if "date" in found.groupdict() else _fiscal(found["year"])
        was = verb(topic)
        question = f"What {was} {possessive(filing.short)} {topic} {when}?"
        yield question, f"{possessive(filing.short)} {topic} {was} {found['amount']} {when}.", "fact", topic, sentence
        break
    against = _AGAINST.match(text)
    if against and filing.months == 12:
        topic = _subject(against["np"], lexicon)
        was, year = verb(topic), int(against["year"][-4:])
        told = [(against["older"], year)] + [(against["newer"], year + 1)] * (year + 1 == filing.fiscal_year)
        is_sound = topic and (not against["newer"].endswith("%") or _SHARE.search(topic))
        for amount, of in told if is_sound else []:
            question = f"What {was} {possessive(filing.short)} {topic} in fiscal {of}?"
            yield (
                question,
                f"{possessive(filing.short)} {topic} {was} {amount} in fiscal {of}.",
                "fact",
                topic,
                sentence,
            )
    moved = _MOVE.match(text) if filing.months == 12 else None
    if moved:
        topic = _subject(moved["np"], lexicon)
        if topic:
            when, past = _fiscal(moved["year"]), _PAST.get(moved["verb"], moved["verb"])
            question = f"By what percentage did {possessive(filing.short)} {topic} change {when}?"
            yield (
                question,
                f"{possessive(filing.short)} {topic} {past} by {moved['amount']} {when}.",
                "change",
                topic,
                sentence,
            )


def _fiscal(year: str) -> str:
    return "in fiscal " + year[-4:]


def _subject(phrase: str, lexicon: Lexicon) -> str:
    """The metric a sentence talks of, or nothing where it points outside itself."""
    phrase = re.sub(r"^(?:Our|The Company's|The Company’s|The)\s+", "", phrase).strip()
    if re.search(
        r"\b(?:this|these|those|such|it|they|which|that|we|he|she|there|their|its|our|increase|decrease|change"
        r"|excluding)\b",
        phrase,
        re.I,
    ):
        return ""
    if not MEASURE.search(phrase) or len(phrase.split()) > 9:
        return ""
    return lexicon.in_sentence(phrase)


def _chinese(sentence: Sentence, filing: Filing) -> Iterator[Made]:
    text = narrow(sentence.text).replace(" ", "")
    year = re.search(r"((?:19|20)\d\d)年", text)
    other = {found for found in re.findall(r"((?:19|20)\d\d)年", text) if int(found) != filing.fiscal_year}
    if (
        other
        or re.search(r"上年同期|预计|计划|累计|截[止至]|[一二三]季度|月份", text)
        or (year is None and filing.fiscal_year == 0)
    ):
        return
    when = f"{filing.fiscal_year}年"
    for clause in re.split(r"[;；。]", text):
        for found in _ZH_LEVEL.finditer(clause):
            topic = re.sub(r"^(?:年?度|报告期内|同时|其中|全年|公司|共|实现|完成|取得|了)+", "", found["np"])
            if (
                topic.startswith("的")
                or not _ZH_MEASURE.search(topic)
                or re.search(r"该|此|上述|本|较|从|由|其|按|每", topic)
                or len(topic) < 4
            ):
                continue
            name = filing.short
            yield f"{name}{when}的{topic}是多少？", f"{name}{when}{topic}为{found['amount']}。", "fact", topic, sentence
            if found["percent"]:
                yield (
                    f"{name}{when}的{topic}同比变化了百分之几？",
                    f"{name}{when}{topic}同比{found['move']}{found['percent']}。",
                    "change",
                    topic,
                    sentence,
                )
