"""The endpoint backend: a model asks and answers, code checks every quote and every figure.

Steps 2 and 3 of Self-QA: ten questions by one call, then one call per question that survives the first filter.
"""

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import json_repair

from finlm.figures import find_figures, narrow
from selfqa.background import Background
from selfqa.blocks import Source
from selfqa.entities import Filing
from selfqa.facts import Dropped
from selfqa.filters import fault_of, question_key
from selfqa.pairs import Pair
from selfqa.prompts import answer_prompt, parse_questions, question_prompt


class Asker(Protocol):
    """What answers prompts: an `Endpoint`."""

    def ask(self, prompt: str, *, wants_json: bool) -> str:
        """Return the reply to one user message."""
        ...


@dataclass(frozen=True, slots=True)
class Asked:
    """A question about a passage, before its answer."""

    question: str
    background: Background


def ask_and_answer(
    source: Source,
    filing: Filing,
    passages: Sequence[Background],
    endpoint: Asker,
    *,
    questions: int,
    parallel: int,
    passage_limit: int,
) -> Iterator[Pair | Dropped]:
    """Yield a pair, or what became of it, for every question that a model asked about a document.

    The order is that of the passages, however many calls run side by side.
    """

    def text_of(passage: Background) -> str:
        return source.text[passage.start : passage.end]

    with ThreadPoolExecutor(max_workers=parallel) as pool:
        replies = list(
            pool.map(lambda p: endpoint.ask(question_prompt(text_of(p), filing, questions), wants_json=False), passages)
        )
        asked: list[Asked] = []
        known: set[str] = set()
        for passage, reply in zip(passages, replies, strict=True):
            found = parse_questions(reply)[: 2 * questions]
            if not found:
                yield Dropped(
                    "malformed", "no question could be read from the reply", reply[:400], passage.start, passage.end
                )
            for question in found:
                fault = _question_fault(question, filing, known)
                if fault:
                    yield Dropped(*fault, question, passage.start, passage.end)
                else:
                    known.add(question_key(question))
                    asked.append(Asked(question, passage))
        answers = pool.map(
            lambda item: endpoint.ask(answer_prompt(text_of(item.background), filing, item.question), wants_json=True),
            asked,
        )
        for item, reply in zip(asked, answers, strict=True):
            yield _pair(item, reply, source, filing, passage_limit)


def _question_fault(question: str, filing: Filing, known: set[str]) -> tuple[str, str] | None:
    """Filter before paying for an answer."""
    if question_key(question) in known:
        return "duplicate-question", "asked before about this document"
    if len(question) > 400:
        return "too-long", "the question is longer than 400 characters"
    candidate = _made(question, _placeholder(filing), 0, 0)
    return fault_of(candidate, filing, "", limit_length=False)


def _placeholder(filing: Filing) -> str:
    return "待答" if filing.language == "zh" else "pending"


def _made(question: str, answer: str, start: int, end: int) -> Pair:
    has_amount = any(not (figure.is_date or figure.is_label) for figure in find_figures(answer))
    return Pair(
        question=question,
        answer=answer,
        kind="figure" if has_amount else "fact",
        start=start,
        end=end,
        rule="answer",
        topic=question_key(question)[:24],
        place=f"passage {start // 2000}",
    )


def _pair(item: Asked, reply: str, source: Source, filing: Filing, limit: int) -> Pair | Dropped:
    background = item.background

    def dropped(rule: str, reason: str) -> Dropped:
        return Dropped(rule, reason, f"{item.question} {reply[:400]}", background.start, background.end)

    parsed = json_repair.loads(reply)
    if not isinstance(parsed, dict) or not isinstance(parsed.get("answer"), str):
        return dropped("malformed", "the reply is no JSON object with an answer")
    quotes = parsed.get("evidence")
    quotes = [quotes] if isinstance(quotes, str) else quotes
    if (
        not isinstance(quotes, list)
        or not quotes
        or not all(isinstance(quote, str) and quote.strip() for quote in quotes)
    ):
        return dropped("no-evidence", "the reply quotes nothing")
    spans = [find_quote(quote, source.text, background.start, background.end) for quote in quotes]
    missing = [quote for quote, span in zip(quotes, spans, strict=True) if span is None]
    if missing:
        return dropped("quote-not-found", f"{missing[0][:120]!r} does not stand in the passage")
    found = [span for span in spans if span is not None]
    start, end = min(span[0] for span in found), max(span[1] for span in found)
    pair = _made(item.question, parsed["answer"].strip(), start, end)
    fault = fault_of(pair, filing, source.text[start:end], limit_length=False)
    if fault:
        return dropped(*fault)
    return replace(pair, passage=partial(_window, source.text, start, end, background, limit))


def find_quote(quote: str, text: str, start: int, end: int) -> tuple[int, int] | None:
    """Find a quote in text[start:end]: exactly, else with white space, width and quotation marks evened out."""
    at = text.find(quote, start, end)
    if at >= 0:
        return at, at + len(quote)
    wanted, _ = _even(quote, 0)
    given, places = _even(text[start:end], start)
    at = given.find(wanted)
    if not wanted or at < 0:
        return None
    return places[at], places[at + len(wanted) - 1] + 1


def _even(text: str, start: int) -> tuple[str, list[int]]:
    kept, places = [], []
    marks = str.maketrans("“”‘’", "\"\"''")
    for offset, char in enumerate(narrow(text).translate(marks).lower()):
        if not char.isspace():
            kept.append(char)
            places.append(start + offset)
    return "".join(kept), places


def _window(text: str, start: int, end: int, background: Background, limit: int) -> str:
    """The evidence with what stands around it in its passage, cut at sentence or line ends."""
    room = max(0, limit - (end - start)) // 2
    left, right = max(background.start, start - room), min(background.end, end + room)
    before = text[left:start]
    if left > background.start:
        cut = re.search(r"[.。!?\n]\s*", before)
        before = before[cut.end() :] if cut else ""
    after = text[end:right]
    if right < background.end:
        ends = [found.end() for found in re.finditer(r"[.。!?](?=\s|$|[\u4e00-\u9fff])|\n", after)]
        after = after[: ends[-1]] if ends else ""
    return re.sub(r"\n{2,}", "\n", f"{before}{text[start:end]}{after}").strip()
