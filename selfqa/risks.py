"""Risks: what may happen, under which condition and with what effect, from Item 1A or 风险.

A sentence of an English risk section is asked about by its form: "If …, … could …", "… could harm …", "… may be
affected by …". A Chinese risk has a heading, and its paragraph says what it is.
"""

import re
from collections.abc import Iterator

from selfqa.english_words import Lexicon
from selfqa.entities import Filing
from selfqa.filters import MAX_HAN
from selfqa.pairs import Pair
from selfqa.prose import Stretch, chinese_told, prose_pair, report_name, small_first, told

_EFFECT = re.compile(
    r"(?:then )?(?:(?:its?|the|an?|any|there|they|some|all)\b|(?:[\w'.&-]+ ){1,7}?(?:may|could|might|would|will|can)\b)"
    r".*\b(?:may|could|might|would|will|can)\b"
)
_MODAL = r"(?P<modal>can|could|may|might)"
_DEGREE = r"(?:(?:also|materially|adversely|negatively|significantly|seriously|substantially|further|and) )*"
_AFFECTED = re.compile(
    rf"^(?P<what>[A-Z][^,;]{{4,110}}?) {_MODAL} be (?P<degree>{_DEGREE})(?P<verb>affected|impacted|harmed|influenced"
    r"|disrupted|damaged|reduced|limited) by (?P<by>.+)$"
)
_HARMS = re.compile(
    rf"^(?P<what>[A-Z][^;]{{6,150}}?) {_MODAL} (?P<degree>{_DEGREE})(?P<verb>affect|impact|harm|reduce|increase|disrupt"
    r"|damage|limit|delay|cause|result in|lead to|expose|subject|prevent|impair"
    r"|have an? \w+(?: \w+)? (?:impact|effect))\b.+$"
)
_VAGUE = re.compile(
    r"^(?:the|any|some|many|certain|other|new|additional|restrictive) (?:\w+ )?(?:requirements?|measures|events|actions"
    r"|changes?|factors|risks|failures?|regulations|rules|laws|restrictions|efforts|results|costs|impacts?)$"
    r"|^(?:restrictive measures|the failure|other factors|the market|the loss)$"
    r"|(?:not to comply|do so|does not comply|fails? to comply|not successful|unsuccessful|occurs?|happens?|so)$",
    re.IGNORECASE,
)
"""What leaves open which requirements, events or failures are meant."""
_INFINITIVES = {"harmed": "harm", "limited": "limit", "damaged": "damage", "disrupted": "disrupt", "reduced": "reduce"}
_INFINITIVES |= {"affected": "affect", "impacted": "impact", "influenced": "influence"}
_FINITE = re.compile(
    r"\b(?:is|are|was|were|has|have|had|can|could|may|might|will|would|do|does|did|because|if|when|while|there|it|they"
    r"|we|which|that|who|involves?|requires?|depends?|includes?|remains?|continues?|exists?|arises?)\b",
    re.IGNORECASE,
)
_ZH_HEAD = re.compile(
    r"^(?:[（(]?[\d一二三四五六七八九十]+[）)]?[、.．]?\s*)(?P<risk>[\u4e00-\u9fff、]{2,18}风险)[：:]?$"
)


def risk_pairs(stretch: Stretch, filing: Filing, lexicon: Lexicon | None, limit: int) -> Iterator[Pair]:
    """Yield the pairs of a stretch of a risk section."""
    if lexicon is None:
        yield from _chinese(stretch, filing, limit)
        return
    if stretch.zone != "risk":
        return
    for number, sentence in enumerate(stretch.sentences):
        said = told(sentence, filing)
        made = _english(said.text, filing, lexicon) if said else None
        if made is not None:
            question, answer, topic, rule = made
            yield prose_pair(question, answer, "risk", rule, topic, stretch, [number], limit)


def _english(text: str, filing: Filing, lexicon: Lexicon) -> tuple[str, str, str, str] | None:
    name = filing.short
    condition = _condition(text, name)
    if condition:
        where = "" if name in condition else f" to {name}"
        if _VAGUE.search(condition) or (re.match(r"(?:it|they|its)\b", condition) and name not in condition):
            return None
        return f"What could happen{where} if {condition}?", text, condition, "risk-condition"
    found = _AFFECTED.match(text)
    if found and name in found["what"] and not _FINITE.search(found["what"]):
        degree = " and ".join(re.findall(r"materially|adversely|negatively|significantly", found["degree"]))
        verb = _INFINITIVES[found["verb"]]
        return (
            f"What {found['modal']} {f'{degree} ' if degree else ''}{verb} {found['what']}?",
            text,
            found["what"],
            "risk-affected",
        )
    found = _HARMS.match(text)
    if found is None or _FINITE.search(found["what"]) or _VAGUE.search(found["what"]) or found["what"].count(",") > 3:
        return None
    what = found["what"].rstrip(", ")
    pause = "," if "," in what else ""
    if what.startswith(name):
        return None
    what = small_first(what, lexicon)
    if name in what:
        return f"What effect {found['modal']} {what} have?", text, what, "risk-effect"
    if name in text:
        return f"How {found['modal']} {what}{pause} affect {name}?", text, what, "risk-effect"
    return None


def _condition(text: str, name: str) -> str:
    """What follows "If", up to the comma behind which the effect begins; empty where there is none."""
    if not text.startswith("If ") or ";" in text:
        return ""
    for comma in re.finditer(", ", text):
        effect = text[comma.end() :]
        if comma.start() > 15 and (_EFFECT.match(effect) or effect.startswith(name)):
            return text[3 : comma.start()] if comma.start() < 200 else ""
    return ""


def _chinese(stretch: Stretch, filing: Filing, limit: int) -> Iterator[Pair]:
    """A risk's paragraph whole, and the sentence that says what may follow."""
    found = _ZH_HEAD.match(re.sub(r"\s", "", stretch.heading))
    if found is None or not stretch.sentences or stretch.zone in {"statements", "notes"}:
        return
    risk = found["risk"]
    texts = [chinese_told(sentence.text, filing) or "" for sentence in stretch.sentences]
    if all(texts) and len("".join(texts)) <= 3 * MAX_HAN and len(texts) > 1:
        everything = range(len(texts))
        asked = f"请说明{filing.short}在{report_name(filing)}中披露的{risk}。"
        yield prose_pair(asked, "".join(texts), "risk", "risk-whole", risk, stretch, everything, limit)
    effects = [
        number
        for number, text in enumerate(texts)
        if re.search(r"(?:可能|将).{0,40}(?:不利影响|下降|减少|风险|损失|影响)", text) and len(text) <= 150
    ]
    if effects:
        asked = f"{risk}可能给{filing.short}带来什么影响？"
        last = effects[-1]  # a risk's paragraph ends with what may follow
        yield prose_pair(asked, texts[last], "risk", "risk-effect", risk, stretch, [last], limit)
