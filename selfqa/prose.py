"""Sentences of a filing as an outsider would say them: "our revenue" becomes "Acme Inc.'s revenue".

A filing speaks of itself ("we", "the Company", 公司). A question and its answer stand alone, so they name it. Where the
grammar is in doubt (a second verb that would have to change too), there is no outsider's sentence and None comes back.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from finlm.figures import narrow
from selfqa.background import Background
from selfqa.blocks import Block, Source
from selfqa.english_words import Lexicon
from selfqa.entities import Filing
from selfqa.pairs import Pair, possessive
from selfqa.sentences import Sentence, sentences_of
from selfqa.zones import Zones

_COMPANY = r"(?:the|our) (?:Company|Corporation|Registrant|Partnership|(?:Group|Bank|Trust)(?! of))"
_OPENERS = re.compile(
    r"^(?:In addition|Additionally|However|Further|Furthermore|Moreover|Also|Finally|Similarly|Accordingly|Therefore"
    r"|Consequently|Nevertheless|Conversely|In particular|For example|For instance|As a result|As such|Instead"
    r"|Specifically|Generally|In general|In turn|Thus|Historically), "
)
_POINTERS = re.compile(
    r"\b(?:this|these|those|such|foregoing|aforementioned|herein|thereof|hereof|above|below|following|latter|former"
    r"|respectively|same|other factors|refer to|see|described|discussed|Note \d+|Notes? to|Items? \d|Part I{1,2}"
    r"|Form (?:10|8)-?\w*|Exhibit|Annual Report|table|graph|section|he|she|his|her|there can be no assurance)\b",
    re.IGNORECASE,
)
_SHALLOW_START = re.compile(
    r"^(?:it|its|they|their|them|that|which|who|and|or|but|so|both|each|either|another|one|some|others?|here|there|when"
    r"|while|although|since|because|in those|at that|to the extent)\b",
    re.IGNORECASE,
)
_KEPT_VERBS = frozenset(
    re.findall(
        r"\w+",
        """may might can could will would shall should must did had made sold began saw grew paid held led built spent
        became took gave got kept lost met bought brought chose drew fell found left ran sent went knew cannot repaid
        rose won sought withdrew drove""",
    )
)
"""Verbs that are the same after "we" and after "it"."""
_TURNED = {"are": "is", "have": "has", "were": "was", "do": "does", "go": "goes"}
_BASE = "|".join(
    re.findall(
        r"\w+",
        """rely depend expect believe use sell design develop compete face operate own lease provide offer
        manage enter maintain make take continue record recognize estimate evaluate invest buy purchase work
        need plan intend generate experience hold incur market distribute manufacture seek strive include
        support require engage conduct build create deliver conclude assess monitor review test focus aim
        pay employ perform serve apply consider determine measure classify utilize adjust report issue fail
        account allocate calculate capitalize combine defer describe disclose elect establish extend fund
        grant grow hedge help identify join know launch leverage license look mitigate obtain overestimate
        underestimate partner participate pursue receive reflect regard remain repurchase retain return run
        see settle ship specialize spend strengthen target think track train transfer treat try understand
        update value view wish lose breach acquire introduce encounter undertake become fall find get give
        go keep lead leave meet bring begin choose carry comply accrue exclude deploy enable
        enjoy ensure anticipate assume""",
    )
)
_ADVERBS = r"(?:(?:also|often|now|still|never|always|then|further|not only|(?!rely|apply|supply|comply)\w+ly) )*"
_SECOND_VERB = re.compile(rf"\b(?:and|or|but),? (?:also )?(?:\w+ly )?(?:{_BASE})\b")
_SECOND_AUXILIARY = re.compile(r"\b(?:and|or|but),? (?:also )?(?:\w+ly )?(?:are|have|do|were)\b")


@dataclass(frozen=True, slots=True)
class Told:
    """A sentence of the filing and how an outsider says it, to be quoted in an answer."""

    sentence: Sentence
    text: str


@dataclass(frozen=True, slots=True)
class Stretch:
    """The paragraphs under one heading: all their sentences, in order."""

    heading: str
    start: int
    zone: str
    sentences: tuple[Sentence, ...]
    blocks: tuple[Block, ...]
    following: str = ""
    """The next heading."""


def stretches(source: Source, zones: Zones, passages: Sequence[Background]) -> Iterator[Stretch]:
    """Yield the paragraphs under each heading, boilerplate (what lies in none of `passages`) left out."""
    starts = [passage.start for passage in passages]
    heading, start, blocks = "", 0, list[Block]()
    for block in [*source.blocks, Block("heading", len(source.text), len(source.text))]:
        if block.kind == "table":
            heading = heading if blocks else ""  # what stands right above a table is a part of it
        elif block.kind == "heading" and source.text[block.start : block.start + 1] != "•":
            if blocks:
                sentences = [one for block in blocks for one in sentences_of(source, block.start, block.end)]
                following = source.text[block.start : block.end]
                yield Stretch(heading, start, zones.at(blocks[0].start), tuple(sentences), tuple(blocks), following)
            heading, start, blocks = source.text[block.start : block.end], block.start, []
        else:
            passage = bisect_right(starts, block.start) - 1
            if passage >= 0 and block.start < passages[passage].end:
                blocks.append(block)


def cleaned(text: str) -> str:
    """A sentence in one line, without trade marks, footnote marks and the word that ties it to the one before."""
    text = " ".join(re.sub(r"[®™]|(?<=[a-z])SM\b", "", text).split())
    text = re.sub(r"\s+([,.;])", r"\1", text)
    bare = _OPENERS.sub("", text)
    return bare if re.match(r"[a-z][A-Z]", bare) else bare[:1].upper() + bare[1:]  # iPad begins a sentence as it is


def stands_alone(text: str, longest: int = 60) -> bool:
    """True if an English sentence is whole and points at nothing outside itself."""
    words = text.split()
    return (
        6 <= len(words) <= longest
        and (text[0].isupper() or text[1].isupper())
        and text.endswith(".")
        and not _POINTERS.search(text)
        and not _SHALLOW_START.match(text)
        and text.count("(") == text.count(")")
        and text.count("“") == text.count("”")
        and not re.search(r"[•|:]|\.{3}", text)
    )


def named(text: str, name: str) -> str | None:
    """Say a sentence about `name` in the third person, or None where that takes more than changing a word.

    Example:
        named("We expect our costs to rise.", "Acme Inc.") == "Acme Inc. expects its costs to rise."
    """
    text = text.replace("’", "'")
    text = re.sub(rf"\b{_COMPANY}'s\b", possessive(name), text, flags=re.IGNORECASE)
    text = re.sub(rf"\b{_COMPANY}\b(?!-)", name, text, flags=re.IGNORECASE)
    out, rest = "", text
    while found := re.search(r"\b(we|us|our|ours|ourselves)\b", rest, re.IGNORECASE):
        if found[0] == "US":
            return None
        before, word, after = rest[: found.start()], found[0].lower(), rest[found.end() :]
        if word in {"ours", "ourselves"}:
            return None
        subject, owner = ("it", "its") if name in out + before else (name, possessive(name))
        if word == "we":
            turned = _agreeing(after)
            if turned is None:
                return None
            after = turned
        said = owner if word == "our" else subject
        at_start = not (out + before).strip() or (out + before).rstrip().endswith((".", "“"))
        out += before + (said[:1].upper() + said[1:] if at_start else said)
        rest = after
    return out + rest


def _agreeing(after: str) -> str | None:
    """What follows "we", its verb in the third person: " expect costs" -> " expects costs"."""
    found = re.match(rf" ({_ADVERBS})([a-z']+)\b", after)
    if found is None:
        return None
    verb, rest = found[2], after[found.end() :]
    clause = re.split(r"[;.]", rest)[0]
    if _SECOND_AUXILIARY.search(clause):
        return None
    if verb in _KEPT_VERBS or (verb.endswith("ed") and verb not in {"need", "proceed", "exceed", "succeed"}):
        return after
    if verb in _TURNED:
        turned = _TURNED[verb]
    elif not re.fullmatch(_BASE, verb):
        return None
    elif re.search(r"[^aeiou]y$", verb):
        turned = verb[:-1] + "ies"
    else:
        turned = verb + ("es" if verb.endswith(("ch", "sh", "x", "z", "o", "ss")) else "s")
    return None if _SECOND_VERB.search(clause) else f" {found[1]}{turned}{rest}"


def told(sentence: Sentence, filing: Filing, longest: int = 60) -> Told | None:
    """Return an English sentence as an outsider says it, or None if it cannot stand alone."""
    text = cleaned(sentence.text)
    if not stands_alone(text, longest):
        return None
    said = named(text, filing.short)
    return None if said is None else Told(sentence, said)


def small_first(text: str, lexicon: Lexicon) -> str:
    """A phrase as it stands inside a sentence: its first word small, unless the document writes it as a name."""
    first = re.match(r"[\w’'-]+", text)
    is_title = re.match(r"[A-Z][\w’'-]+ [A-Z]", text) is not None  # Greater China, Apple Inc.
    if first is None or is_title or first[0][1:] != first[0][1:].lower() or lexicon.is_name(first[0]):
        return text
    return text[:1].lower() + text[1:]


def report_name(filing: Filing) -> str:
    """How a question names the filing: `fiscal 2024 annual report`, 2019年年度报告."""
    if filing.language == "zh":
        return f"{filing.fiscal_year}年" + {12: "年度报告", 6: "半年度报告"}.get(filing.months, "季度报告")
    return f"fiscal {filing.fiscal_year} {'annual' if filing.months == 12 else 'quarterly'} report"


_ZH_SELF = re.compile(
    r"(?<![子分母总该股贵各家等司限\u201c团])(?:本公司|本集团|我公司|公司)(?!法|章程|名称|债|[（(]|全称|制|类型|股东名|治理准则|与)"
)
_ZH_POINTERS = re.compile(
    r"上述|下述|该等|该(?!项目)|此(?!外|类)|前述|如下|以下|见(?!证|效)|详见|参见|附注|本节|同上|后附|下表|上表|本报告|如前|其[中他]?[，：]|[一二三四五六七八九十]、"
)


def chinese_told(text: str, filing: Filing) -> str | None:
    """把公司自己说的话改成第三者的说法；指向句外的返回 None。"""
    text = narrow(re.sub(r"\s+", "", text)).translate(str.maketrans("(),;", "（），；"))
    text = re.sub(r"(?<=\d)，(?=\d{3}(?!\d))", ",", text)
    text = re.sub(r"^(?:[（(]?[\d一二三四五六七八九十]+[）)]?[、.．]|同时，|此外，|因此，|另外，|其中，)+", "", text)
    year = f"{filing.fiscal_year}年"
    text = re.sub(r"(?:本)?报告期内?(?!末)|本年度?", year, text)
    text = re.sub(rf"({year})(?:{year}|，{year})", r"\1", text)
    if _ZH_POINTERS.search(text) or re.match(r"[，。；、]|其|该|此|但|而|并|且|即|故", text):
        return None
    return _ZH_SELF.sub(filing.short, text)


def around(sentences: Sequence[Sentence], chosen: Sequence[int], limit: int) -> str:
    """The chosen sentences with as many neighbours as fit, in their order, white space unified."""
    kept = list(chosen)
    size = sum(len(" ".join(sentences[number].text.split())) + 1 for number in kept)
    first, last = min(chosen), max(chosen)
    for near in (last + 1, first - 1, last + 2, first - 2, last + 3, first - 3):
        if 0 <= near < len(sentences):
            length = len(" ".join(sentences[near].text.split())) + 1
            if size + length <= limit:
                kept.append(near)
                size += length
    joined = [" ".join(sentences[number].text.split()) for number in sorted(kept)]
    return ("" if re.search(r"[\u4e00-\u9fff]", joined[0]) else " ").join(joined)


def prose_pair(
    question: str, answer: str, kind: str, rule: str, topic: str, stretch: Stretch, chosen: Sequence[int], limit: int
) -> Pair:
    """A pair whose evidence is some sentences of a stretch, first to last."""
    return Pair(
        question=question,
        answer=answer,
        kind=kind,
        start=stretch.sentences[min(chosen)].start,
        end=stretch.sentences[max(chosen)].end,
        rule=rule,
        topic=topic,
        place=stretch.heading or f"paragraph {stretch.start}",
        passage=partial(around, stretch.sentences, tuple(chosen), limit),
    )
