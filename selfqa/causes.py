"""Causes by connectives: "Sales rose due to higher volumes" asks why sales rose, and answers.

AdaptLLM (arXiv 2309.09530) mines such sentences by rules; here the question says whose sales, and when.
"""

import re
from collections.abc import Iterator
from functools import partial

from selfqa.blocks import Block, Row, Source
from selfqa.english_words import MEASURE, Lexicon
from selfqa.entities import Filing
from selfqa.pairs import Pair, possessive
from selfqa.prose import Stretch, chinese_told, cleaned, named, prose_pair, small_first, stands_alone

_LINK = (
    r"(?P<link>(?:(?:primarily|mainly|largely|principally|partly|partially|in part),? )?"
    r"(?:(?:due|attributable|owing)(?: (?:primarily|mainly|largely|principally|in part))? to"
    r"|driven(?: (?:primarily|mainly|largely|principally|in part))? by|as a result of|resulting from|reflecting"
    r"|because(?: of)?))"
)
_NP = r"(?P<np>[A-Z][^.;:$]{2,100}?)"
_MOVED = re.compile(
    rf"^{_NP} (?P<verb>increased|decreased|rose|fell|grew|declined|improved)\b(?P<mid>[^;:]{{0,160}}?),? {_LINK} .+$"
)
_THE_MOVE = re.compile(
    r"^The (?P<move>increase|decrease|growth|decline|change|reduction|improvement)s? in (?P<np>[^.;:$]{3,100}?)"
    r"(?P<when> (?:for|in|during|from|as compared|when compared|compared)\b[^;:]{2,90}?)?,? (?:was|were) "
    + _LINK
    + " .+$"
)
_STATE = re.compile(
    rf"^{_NP} (?P<was>was|were) (?P<state>(?:up|down|higher|lower|flat)\b[^;:]{{0,120}}?),? {_LINK} .+$"
)
_WHY = re.compile(
    r"^(?P<np>[A-Z][^,;:]{3,80}?) (?P<aux>is|are|was|were|has|have|may|can|could|will|would|must)"
    rf"(?P<rest> [^;:]{{8,150}}?),? {_LINK} (?P<cause>[^;:]{{12,}})$"
)
_LEMMAS = {"rose": "rise", "fell": "fall", "grew": "grow", "declined": "decline", "improved": "improve"}
_LEMMAS |= {"increased": "increase", "decreased": "decrease"}
_NO_LINES = frozenset(
    {"Total", "Pre-tax", "Operating", "Net", "Gross", "Income", "Interest", "Research", "Selling", "Other"}
)
"""First words of metrics that are no line of business, however often a document writes them large."""
_YEAR = re.compile(r"\b(?:19|20)\d\d\b")
_RELATIVE = re.compile(
    r"\b(?:year ago|year[- ](?:to|over)[- ]year|prior(?:-|\s)year|previous year|last year|prior period)\b"
)
_CLAUSE = re.compile(
    r"\b(?:that|which|who|because|if|when|while|although|as we|we|it|they|to the extent|have|has|had|did)\b",
    re.IGNORECASE,
)
_ZH_CAUSE = re.compile(
    r"^(?P<topic>[^，。；]{4,40}?)(?P<move>(?:同比|较上年|较年度|较去年|较\d{4}年度?)*(?:大幅)?(?:增长|增加|下降|减少|上升|变动)[^，。；]{0,14})，"
    r"(?P<cause>主要(?:系|是|由于|因)[^。；]{6,120}?)[。；]?$"
)
_ZH_WHY = re.compile(r"^由于(?P<cause>[^。；]{8,80})，(?P<fact>[^。；]{8,80})。$")


def cause_pairs(stretch: Stretch, filing: Filing, lexicon: Lexicon | None, limit: int) -> Iterator[Pair]:
    """Yield a pair for each sentence of a stretch that says why something is so."""
    for number, sentence in enumerate(stretch.sentences):
        made = _english(sentence.text, filing, lexicon) if lexicon else _chinese(sentence.text, filing)
        if made is not None:
            question, answer, topic, rule = made
            yield prose_pair(question, answer, "cause", rule, topic, stretch, [number], limit)


Made = tuple[str, str, str, str]
"""Question, answer, topic, rule."""


def _english(raw: str, filing: Filing, lexicon: Lexicon) -> Made | None:
    text = cleaned(raw)
    if not stands_alone(text) or re.search(r"\b(?:factors|dynamics|drivers)\b(?! such)", text):
        return None
    for pattern, build in ((_THE_MOVE, _of_the_move), (_MOVED, _of_moved), (_STATE, _of_state)):
        found = pattern.match(text)
        if found:
            return build(found, text, filing, lexicon)
    return _of_why(text, filing, lexicon)


def _owned(phrase: str, filing: Filing, lexicon: Lexicon) -> str:
    """A metric with its owner: "Our effective tax rate" -> "Acme Inc.'s effective tax rate"; empty if it is none."""
    bare = re.sub(r"^(?:Our|our|The Company[’']s|the Company[’']s)\s+", "", phrase).strip()
    if not MEASURE.search(bare) or _CLAUSE.search(bare) or len(bare.split()) > 14 or re.match(r"[Tt]he \w+ in\b", bare):
        return ""
    bare = re.sub(r"^[Tt]he ", "", bare)
    name = re.match(r"[\w’'-]+", bare)
    following = bare[name.end() :].strip() if name else ""
    is_line = (
        name is not None
        and name[0] in lexicon.names - _NO_LINES
        and MEASURE.match(re.sub(r"^(?:net|gross) ", "", following))
    )
    if name is not None and name[0] in _NO_LINES:
        bare = bare[:1].lower() + bare[1:]
    said = named(bare if is_line or "," in bare else small_first(bare, lexicon), filing.short)
    return f"{possessive(filing.short)} {said}" if said else ""


def _dated(text: str, filing: Filing) -> str | None:
    """What makes a statement's period plain: nothing if it names a year, else the filing's; None if neither can."""
    if _YEAR.search(text):
        return ""
    return f" in fiscal {filing.fiscal_year}" if filing.months == 12 and filing.fiscal_year else None


def _of_moved(found: re.Match[str], text: str, filing: Filing, lexicon: Lexicon) -> Made | None:
    owner, dated = _owned(found["np"], filing, lexicon), _dated(f"{found['np']} {found['mid']}", filing)
    mid = named(found["mid"], filing.short)
    if not owner or dated is None or mid is None or _CLAUSE.search(found["mid"]) or found["mid"].count(",") > 2:
        return None
    rest = named(text[len(found["np"]) :], filing.short)
    asked = f"Why did {owner} {_LEMMAS[found['verb']]}{mid}{dated}?"
    return None if rest is None else (asked, f"{owner}{rest}", found["np"], "cause-moved")


def _of_the_move(found: re.Match[str], text: str, filing: Filing, lexicon: Lexicon) -> Made | None:
    owner, when = _owned(found["np"], filing, lexicon), found["when"] or ""
    dated = _dated(when, filing)
    rest = named(text[found.end("np") :], filing.short)
    if not owner or dated is None or rest is None or _CLAUSE.search(when):
        return None
    asked = f"What was behind the {found['move']} in {owner}{when}{dated}?"
    return asked, f"The {found['move']} in {owner}{rest}", found["np"], "cause-of-the-move"


def _of_state(found: re.Match[str], text: str, filing: Filing, lexicon: Lexicon) -> Made | None:
    owner, dated = _owned(found["np"], filing, lexicon), _dated(f"{found['np']} {found['state']}", filing)
    rest = named(text[len(found["np"]) :], filing.short)
    if not owner or dated is None or rest is None or _CLAUSE.search(found["state"]):
        return None
    return f"Why {found['was']} {owner} {found['state']}{dated}?", f"{owner}{rest}", found["np"], "cause-state"


def _of_why(text: str, filing: Filing, lexicon: Lexicon) -> Made | None:
    """ "GPUs are more efficient than other chips because they …": any statement with an auxiliary and a reason."""
    found = _WHY.match(text)
    if (
        found is None
        or re.search(r"\b(?:including|reflecting|not limited)$", found["rest"])
        or _CLAUSE.search(found["np"])
    ):
        return None
    if not re.match(r"because\b(?! of)|due|as a result|owing", found["link"]) or "," in found["rest"]:
        return None
    if re.search(
        r"\b(?:primarily|mainly|largely|losses|changes?|declines?|delays?|costs?|closures|disruptions|risks?|taxes"
        r"|amounts?)$",
        found["rest"],
    ):
        return None  # "declines due to wildfires": the link belongs to the noun
    if re.match(r"(?:The )?(?:increase|decrease|change|growth|decline)\b", found["np"]):
        return None
    subject = named(found["np"], filing.short)
    answer = named(text, filing.short)
    rest = named(found["rest"], filing.short)
    if subject is None or answer is None or rest is None or re.match(r"(?i)we\b", found["np"]):
        return None
    question = f"{found['aux']} {small_first(subject, lexicon)}{rest}?"
    question = f"Why {question}" if filing.short in question else f"According to {filing.short}, why {question}"
    return question, answer, found["np"], "cause-because"


def _chinese(raw: str, filing: Filing) -> Made | None:
    text = chinese_told(raw, filing)
    if text is None or len(text) > 170:
        return None
    found = _ZH_CAUSE.match(text)
    year = f"{filing.fiscal_year}年"
    if found:
        topic = re.sub(rf"^(?:{filing.short}|{year}|的)+", "", found["topic"])
        if re.search(r"\d{4}年", topic) or len(topic) < 3:
            return None
        asked = re.sub(r"较年度", "", found["move"])
        said = f"{filing.short}{year}{topic}{found['move']}，{found['cause']}。"
        return f"{filing.short}{year}{topic}{asked}的主要原因是什么？", said, topic, "cause-moved"
    found = _ZH_WHY.match(text)
    if found and filing.short in found["fact"] and "因此" not in found["fact"]:
        return f"为什么{found['fact']}？", text, found["fact"][:12], "cause-because"
    return None


_ZH_REASONS = re.compile(r"(?:重大)?变动(?:原因|情况)?说明|变动原因|形成原因(?:说明)?|原因说明")


def reason_pairs(source: Source, filing: Filing) -> Iterator[Pair]:
    """Yield the pairs of Chinese tables with a column of reasons: 重大变动说明, 形成原因说明."""
    if filing.language != "zh" or not filing.fiscal_year:
        return
    for number, block in enumerate(source.blocks):
        heads = [cell for row in block.rows[:2] for cell in row.cells if _ZH_REASONS.fullmatch(_bare(cell.text))]
        for row in block.rows if heads else ():
            label = row.cells[0]
            reasons = [cell for cell in row.cells[1:] if re.match(r"主要(?:系|是|由于|因)", _bare(cell.text))]
            told = chinese_told(_bare(reasons[0].text), filing) if reasons else None
            if not told:
                continue
            metric = _bare(label.text)
            if not re.fullmatch(r"[\u4e00-\u9fff（）]{3,16}", metric):
                continue
            how = "形成" if "形成" in heads[0].text else "变动"
            whose = f"{filing.short}{filing.fiscal_year}年{'末' if '资产' in _title_of(source, number) else ''}{metric}"
            yield Pair(
                question=f"{whose}{how}的主要原因是什么？",
                answer=f"{whose}{how}的原因：{told.rstrip('。；;')}。",
                kind="cause",
                start=row.start,
                end=row.end,
                rule="reason-column",
                topic=metric,
                place=f"reasons {number}",
                passage=partial(_row_lines, source.text, block, row),
            )


def _row_lines(text: str, block: Block, row: Row) -> str:
    """A row of reasons with the rows beside it."""
    at = block.rows.index(row)
    near = block.rows[max(0, at - 1) : at + 2]
    return "\n".join(" ".join(text[one.start : one.end].split()) for one in near)


def _title_of(source: Source, number: int) -> str:
    above = [block for block in source.blocks[max(0, number - 4) : number] if block.kind == "heading"]
    return source.text[above[-1].start : above[-1].end] if above else ""


def _bare(text: str) -> str:
    return re.sub(r"\s", "", text)
