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

from finlm.figures import find_figures
from selfqa.background import Background
from selfqa.blocks import Source
from selfqa.contamination import Contamination
from selfqa.entities import Filing
from selfqa.facts import Dropped
from selfqa.filters import fault_of
from selfqa.grounds import Grounds
from selfqa.pairs import Pair
from selfqa.prompts import answer_prompt, parse_questions, question_prompt
from selfqa.questions import QuestionRules, question_key
from selfqa.quotes import find_quote


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
    contamination: Contamination | None = None,
) -> Iterator[Pair | Dropped]:
    """Yield a pair, or what became of it, for every question that a model asked about a document.

    The order is that of the passages, however many calls run side by side. Questions are filtered before an answer is
    paid for; `contamination` knows what benchmarks ask.
    """
    rules = QuestionRules(filing, contamination)
    grounds = Grounds(source, filing)

    def text_of(passage: Background) -> str:
        return source.text[passage.start : passage.end]

    with ThreadPoolExecutor(max_workers=parallel) as pool:
        replies = list(
            pool.map(lambda p: endpoint.ask(question_prompt(text_of(p), filing, questions), wants_json=False), passages)
        )
        asked: list[Asked] = []
        for passage, reply in zip(passages, replies, strict=True):
            found = parse_questions(reply)[: 2 * questions]
            if not found:
                yield Dropped(
                    "malformed", "no question could be read from the reply", reply[:400], passage.start, passage.end
                )
            for question in found:
                fault = rules.fault(question)
                if fault:
                    yield Dropped(*fault, question, passage.start, passage.end)
                else:
                    asked.append(Asked(question, passage))
        answers = pool.map(
            lambda item: endpoint.ask(answer_prompt(text_of(item.background), filing, item.question), wants_json=True),
            asked,
        )
        for item, reply in zip(asked, answers, strict=True):
            yield _pair(item, reply, grounds, passage_limit)


def _made(question: str, answer: str, start: int, end: int, computation: str) -> Pair:
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
        computation=computation,
    )


def _pair(item: Asked, reply: str, grounds: Grounds, limit: int) -> Pair | Dropped:
    background, source, filing = item.background, grounds.source, grounds.filing

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
    computation = parsed.get("computation")
    pair = _made(
        item.question, parsed["answer"].strip(), start, end, computation if isinstance(computation, str) else ""
    )
    evidence = "\n".join(source.text[span[0] : span[1]] for span in found)
    fault = fault_of(pair, filing, evidence, limit_length=False, document=grounds)
    if fault:
        return dropped(*fault)
    return replace(pair, passage=partial(_window, source.text, start, end, background, limit))


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
