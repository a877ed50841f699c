"""Rules for a question before its answer is paid for: well formed, self-contained, new, and no benchmark's.

`QuestionRules` remembers what was asked; each rule has a name, and the first that a question breaks is reported.
"""

import re
from collections import defaultdict

from finlm.duplicates import differ_in_substance, jaccard, normalised
from finlm.figures import narrow
from finlm.language import language_of
from selfqa.contamination import Contamination
from selfqa.entities import Filing
from selfqa.names import aliases
from selfqa.period_phrases import periods_said
from selfqa.pointers import pointer_in

LONGEST = 400
"""Characters of a question."""
NEAR = 0.7
"""Two questions about a company that share this much of their runs of three characters are one, figures aside."""
_ASKS_FIGURE = re.compile(
    r"\bhow (?:much|many|high|large|big)\b|\b(?:what|state|give|calculate|compute|determine|report)\b"
    r".{0,90}\b(?:revenues?|sales|income|earnings|profits?|loss(?:es)?|margins?|expenses?|costs?|assets|liabilities|equity|debt|cash|ratio"
    r"|rate|percentage|amount|value|total|number|growth|change|increase|decrease|dividends?|price|balance|provision)\b"
    r"|\bby (?:how much|what percentage)\b|多少|百分之几|几(?:个|家|名|项|亿|万)"
    r"|金额|数额|增幅|降幅|增长率|比例是|占比",
    re.IGNORECASE,
)
_TOLD_WHY = re.compile(
    r"\b(?:why|explain|how (?:do|does|did|is|are|can|could|will|would|should))\b|为什么|为何|原因|如何|怎样|解释"
)
_START = re.compile(
    r"(?:what|which|who|whom|whose|when|where|why|how|is|are|was|were|do|does|did|has|have|had|can|could|will|would|should"
    r"|in|as|at|by|for|from|on|of|to|during|between|among|after|before|under|according|if|given|state|list|name|describe"
    r"|explain|summari[sz]e|compare|give|provide|identify|calculate|compute|discuss|analy[sz]e|evaluate|outline|define"
    r"|determine|assess|tell|show|extract|report|write|translate|classify|rank)\b",
    re.IGNORECASE,
)
_ZH_ASKS = re.compile(
    r"[？?]$|吗|呢|多少|什么|哪|谁|何|几|是否|怎|请|说明|列出|解释|概括|总结|分析|比较|计算|描述|简述|评价|写出|指出|提取|介绍|阐述"
)
_LEFTOVER = re.compile(
    r"^(?:\d+\s*[.)、:：]|[-*•]|Q(?:uestion)?\s*\d*\s*[:：]|问题?\s*\d*\s*[:：])|(?:Answer|A)\s?[:：]|答案?[:：]|\n|<\|?\w+|```|\{\w*\}"
)

Fault = tuple[str, str]


class QuestionRules:
    """Says which rule a question breaks; one for each document and run.

    Args:
        filing: Company, language and year that its questions are about.
        contamination: What benchmarks ask; None to leave that out.
    """

    def __init__(self, filing: Filing, contamination: Contamination | None = None) -> None:
        self.filing = filing
        self.contamination = contamination
        self._names = aliases(filing)
        self._keys: set[str] = set()
        self._asked: dict[str, list[tuple[str, set[str]]]] = defaultdict(list)

    def fault(self, question: str) -> Fault | None:
        """Return rule and reason if a question breaks one; else remember it and return None."""
        text = question.strip()
        fault = (
            form_fault(text)
            or self._reference_fault(text)
            or self._self_contained_fault(text)
            or self._repeat_fault(text)
            or self._benchmark_fault(text)
        )
        if fault is None:
            self._keys.add(question_key(text))
            self._asked[self._figures(text)].append((text, self._runs(text)))
        return fault

    def _reference_fault(self, text: str) -> Fault | None:
        pointer = pointer_in(text, self._names)
        if pointer:
            return "refers-to-article", f"{pointer!r} points outside the question"
        if language_of(text) != self.filing.language:
            return "wrong-language", f"the question is not in {self.filing.language!r}"
        return None

    def _self_contained_fault(self, text: str) -> Fault | None:
        if not any(name in text for name in self._names):
            return "no-entity", f"the question does not name {self.filing.short}"
        has_period = bool(periods_said(text, self.filing.language))
        if _ASKS_FIGURE.search(text) and not _TOLD_WHY.search(text) and not has_period:
            return "no-period", "the question asks for a figure and names no period"
        return None

    def _repeat_fault(self, text: str) -> Fault | None:
        if question_key(text) in self._keys:
            return "duplicate-question", "asked before about this document"
        runs = self._runs(text)
        for other, others in self._asked[self._figures(text)]:
            if jaccard(runs, others) >= NEAR and not differ_in_substance(text, other):
                return "near-duplicate", f"nearly asked before: {other!r}"
        return None

    def _benchmark_fault(self, text: str) -> Fault | None:
        source = self.contamination.source_of(text) if self.contamination else ""
        return ("benchmark", f"it shares a run of words with {source}") if source else None

    def _figures(self, text: str) -> str:
        """Numbers and periods in their order: "in 2024" and "in 2025" are never compared."""
        return " ".join(re.findall(r"\d+(?:[.,]\d+)*|[一二三四]季度|\bQ[1-4]\b|[初末](?=的|，|$)", narrow(text)))

    def _runs(self, text: str) -> set[str]:
        """Runs of three characters of what is left without the company's name, which all questions share."""
        for name in sorted(self._names, key=len, reverse=True):
            text = text.replace(name, " ")
        bare = re.sub(r"[\W_]+", " ", normalised(text))
        return {bare[at : at + 3] for at in range(max(1, len(bare) - 2))}


def form_fault(text: str) -> Fault | None:
    """Return the fault of a question's form: empty, too long, cut off, several at once, left-over marks."""
    if len(text) < 6 or not re.search(r"\w{2}", text):
        return "malformed", "the question is empty or nearly so"
    if len(text) > LONGEST:
        return "too-long", f"the question is longer than {LONGEST} characters"
    left = _LEFTOVER.search(text)
    if left:
        return "malformed", f"{left[0]!r} is no part of a question"
    if re.search(r"[,;:，；：、…(（-]$|\.\.\.$|\b(?:and|or|of|the|a|an|in|to|for|with|by)[?.]?$", text):
        return "malformed", "the question is cut off"
    if len(re.findall(r"[?？]", text)) > 1:
        return "malformed", "several questions at once"
    is_chinese = bool(re.search(r"[一-鿿]", text))
    asks = _ZH_ASKS.search(text) if is_chinese else (text.endswith("?") or _START.match(text))
    if not asks:
        return "malformed", "neither a question nor a task"
    if not is_chinese and len(text.split()) < 4:
        return "malformed", "too few words to ask anything"
    return None


def question_key(question: str) -> str:
    """What is left of a question when case, spaces and marks are taken away: equal keys are one question."""
    return re.sub(r"[\W_]+", "", narrow(question).lower())
