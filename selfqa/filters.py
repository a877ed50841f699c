"""Step 4 of Self-QA, prune and filter: every rule has a name, and the first that a pair breaks is reported.

The paper publishes no rules; these are ours. They hold for both backends.
"""

import re

from finlm.figures import narrow, unsupported
from finlm.language import language_of
from finlm.records import Derivation
from selfqa.entities import Filing
from selfqa.expressions import texts_of
from selfqa.grounds import Grounds
from selfqa.names import aliases
from selfqa.pairs import Pair
from selfqa.pointers import pointer_in

MAX_WORDS = 32
"""Longest English answer of the extractive backend, in words."""
MAX_HAN = 110
"""Longest Chinese answer of the extractive backend, in characters."""
_REFUSAL = re.compile(
    r"\b(?:as an ai|i cannot|i can't|i am unable|i'm sorry|not mentioned|does not (?:mention|provide|specify|state)"
    r"|no information)\b"
    r"|抱歉|无法回答|未提及|没有提到|作为.{0,4}(?:人工智能|AI)",
    re.IGNORECASE,
)
_YEAR = re.compile(r"(?:19|20)\d\d")
NEEDS_PERIOD = {"figure", "change", "comparison"}
LONG_KINDS = {"cause", "risk", "summary", "list", "definition"}
"""Types whose answers quote sentences: they may be `LONGER` times as long."""
LONGER = 3


def fault_of(
    pair: Pair, filing: Filing, evidence: str, *, limit_length: bool = True, document: Grounds | None = None
) -> tuple[str, str] | None:
    """Return the rule that a pair breaks and the reason, or None if it may stay.

    Args:
        pair: What was made.
        filing: The document it is about.
        evidence: The document's text at the pair's span.
        limit_length: Hold the answer to one sentence (off for the LLM backend, whose answers explain).
        document: The document's facts, which the answer's figures are held against; without, digits are compared alone.
    """
    question, answer = pair.question.strip(), pair.answer.strip()
    if len(question) < 6 or not re.search(r"\w", answer):
        return "malformed", "question or answer is empty"
    if not filing.company:
        return "no-entity", "no company could be found in the document"
    names = aliases(filing)
    is_refusing = pair.kind == "unanswerable"  # it says that its passage does not, and may ask about another company
    for text in (question,) if is_refusing else (question, answer):
        pointer = pointer_in(text, names)
        if pointer:
            return "refers-to-article", f"{pointer!r} points outside the question"
    if not is_refusing and not any(name in question for name in names):
        return "no-entity", f"the question does not name {filing.short}"
    if pair.kind in NEEDS_PERIOD and not _YEAR.search(narrow(question)):
        return "no-period", "the question names no year"
    if not is_refusing and _REFUSAL.search(answer):
        return "refusal", "the answer is a refusal"
    if language_of(question) != filing.language or language_of(answer) != filing.language:
        return "wrong-language", f"question or answer is not in {filing.language!r}"
    times = LONGER if pair.kind in LONG_KINDS else 1
    if limit_length and _is_long(answer, filing.language, times):
        return "too-long", f"the answer is longer than {times * MAX_WORDS} words or {times * MAX_HAN} characters"
    return _figure_fault(pair, evidence, filing, None if is_refusing else document)


def _is_long(answer: str, language: str, times: int) -> bool:
    return len(answer) > times * MAX_HAN if language == "zh" else len(answer.split()) > times * MAX_WORDS


def _figure_fault(pair: Pair, evidence: str, filing: Filing, document: Grounds | None) -> tuple[str, str] | None:
    """Digits stand in the evidence or are computed from it; figures are the document's for metric and period."""
    expression = ""
    if pair.derivation is not None:
        fault = _derivation_fault(pair.derivation, pair, evidence)
        if fault:
            return fault
        expression = texts_of(pair.derivation.operation, pair.derivation.operands)
    else:
        foreign = unsupported(pair.answer, evidence, pair.question)
        if foreign and (document is None or not document.computes(pair, filing, foreign)):
            return "figure-not-in-evidence", f"{', '.join(foreign)} stands neither in the evidence nor in the question"
    return document.fault(pair, filing, evidence, expression) if document is not None else None


def _derivation_fault(derivation: Derivation, pair: Pair, evidence: str) -> tuple[str, str] | None:
    for operand in derivation.operands:
        if unsupported(operand, evidence, ""):
            return "operand-not-in-evidence", f"{operand!r} is not in the evidence"
    rest = pair.answer.replace(derivation.result, " ")
    if rest == pair.answer or unsupported(rest, evidence, pair.question):
        return "figure-not-in-evidence", "the answer holds another figure than the derived one"
    return None
