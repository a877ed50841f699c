"""Questions and answers by models, with every quote and figure checked by code: steps 2 to 4 of Self-QA.

One call lists the questions about a passage, by a plan of kinds. Those that survive the filters are answered, a call
each and model. What is kept has quotes that stand in the passage, figures that stand in the quotes or follow from them,
and no claim that the filing's own facts contradict.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from math import floor
from typing import Any

import json_repair

from finlm.figures import amounts_in
from selfqa.agreement import agrees
from selfqa.background import Background
from selfqa.blocks import Source
from selfqa.calls import Backend, Call
from selfqa.contamination import Contamination
from selfqa.crew import Crew
from selfqa.derived import derivation_of
from selfqa.entities import Filing
from selfqa.facts import Dropped
from selfqa.filters import fault_of
from selfqa.grounds import Grounds
from selfqa.pairs import Pair
from selfqa.prompts import (
    answer_call,
    judge_call,
    knowledge,
    merge_call,
    parse_questions,
    question_call,
    stricter,
    wording,
)  # fmt: skip
from selfqa.questions import QuestionRules, question_key
from selfqa.quotes import find_quote

TRIES = 2
"""A reply that cannot be read is asked for once more, with a stricter demand."""


@dataclass(frozen=True)
class Task:
    """A document to ask about."""

    source: Source
    filing: Filing
    passages: Sequence[Background]
    kinds: Mapping[str, float]
    """Share of each kind of question."""
    questions: int
    """Of one passage."""
    limit: int
    """Most characters of an open-book passage."""
    contamination: Contamination | None = None
    """What benchmarks ask, and these questions may not."""

    @cached_property
    def grounds(self) -> Grounds:
        """What answers are held against."""
        return Grounds(self.source, self.filing)

    def known(self, passage: Background) -> str:
        """Return what all prompts about a passage begin with."""
        return knowledge(self.source.text[passage.start : passage.end], self.filing, passage.section)


@dataclass(frozen=True, slots=True)
class Asked:
    """A question about a passage, before its answer."""

    kind: str
    """As the model named it; empty if it did not."""
    question: str
    passage: Background


async def ask_document(task: Task, crew: Crew) -> list[Pair | Dropped]:
    """Return a pair, or what became of it, for every question that a model asked about a document.

    The order is that of the passages, whatever reply comes first.

    Raises:
        UserError: A backend refused, or did not answer before its deadline.
    """
    found: list[Pair | Dropped] = []
    asked: list[Asked] = []
    rules = QuestionRules(task.filing, task.contamination)
    calls = [
        question_call(task.known(passage), task.filing, shared_out(task.questions, task.kinds, number))
        for number, passage in enumerate(task.passages)
    ]
    replies = await gathered([crew.ask(crew.asker, call) for call in calls])
    for passage, reply in zip(task.passages, replies, strict=True):
        questions = parse_questions(reply.text)[: 2 * task.questions]
        if not questions:
            reason = "no question could be read from the reply"
            found.append(Dropped("malformed", reason, reply.text[:400], passage.start, passage.end))
        for kind, question in questions:
            async with crew.computing():
                fault = rules.fault(question)
            if fault:
                found.append(Dropped(*fault, question, passage.start, passage.end))
            else:
                asked.append(Asked(kind, question, passage))
    return found + await gathered([_answered(item, task, crew) for item in asked])


async def gathered(work: Sequence[Any]) -> list[Any]:
    """Return what coroutines return, in their order; the first fault ends the others."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one) for one in work]
    return [task.result() for task in tasks]


def shared_out(number: int, kinds: Mapping[str, float], turn: int) -> dict[str, int]:
    """Return how many questions of each kind a passage is asked for, so that many passages come to the shares.

    Kinds are laid end to end on a circle of length 1 by their shares; `number` evenly spaced points of it are taken,
    turned a little with every passage (systematic sampling; the golden ratio spreads the turns).
    """
    ends: list[tuple[float, str]] = []
    total = 0.0
    for kind, share in kinds.items():
        total += share
        ends.append((total, kind))
    offset = turn * 0.6180339887498949 % 1.0
    points = [(place + offset) / number % 1.0 * total for place in range(number)]
    taken = Counter(next((kind for end, kind in ends if point < end), ends[-1][1]) for point in points)
    return {kind: taken[kind] for kind in kinds if taken[kind]}


def _made(kind: str, question: str, answer: str, start: int, end: int) -> Pair:
    return Pair(
        question=question,
        answer=answer,
        kind=kind or ("figure" if amounts_in(answer) else "fact"),
        start=start,
        end=end,
        rule="answer",
        topic=question_key(question)[:24],
        place=f"passage {start // 2000}",
    )


# --------------------------------------------------------------------------------------------------------- answers


async def _answered(item: Asked, task: Task, crew: Crew) -> Pair | Dropped:
    """Answer by every model, keep the best sound answer, and put it to the last tests."""
    known = task.known(item.passage)
    call = answer_call(known, task.filing, item.question)
    candidates = await gathered([_candidate(item, call, backend, task, crew) for backend in crew.answerers])
    sound = [one for one in candidates if isinstance(one, Pair)]
    if not sound:
        dropped: Dropped = candidates[0]
        return dropped
    if crew.merges and len(sound) > 1:
        merged = merge_call(known, task.filing, item.question, [pair.answer for pair in sound])
        one = await _candidate(item, merged, crew.asker, task, crew)
        sound += [one] if isinstance(one, Pair) else []
    best = sound[0]
    if crew.scores is not None and len(sound) > 1:
        scores = await crew.scores(item.question, [pair.answer for pair in sound])
        best = sound[max(range(len(sound)), key=scores.__getitem__)]
    elif crew.merges and len(sound) > 1:
        best = sound[-1]
    return await _tested(item, best, known, task, crew)


async def _candidate(item: Asked, call: Call, backend: Backend, task: Task, crew: Crew) -> Pair | Dropped:
    parsed, text = await _read(call, backend, task, crew)
    if parsed is None:
        return _dropped(item, "malformed", "the reply is no JSON object with an answer", text)
    async with crew.computing():
        pair = _pair(item, parsed, text, task)
    return replace(pair, rule=backend.name) if isinstance(pair, Pair) else pair


async def _read(call: Call, backend: Backend, task: Task, crew: Crew) -> tuple[dict[str, Any] | None, str]:
    """Return a reply's JSON object, None if it has none after all tries, and the last reply's text.

    A reply that breaks off is repaired to an object that lacks its last fields: it is asked for once more too.
    """
    found: dict[str, Any] | None = None
    text = ""
    for number in range(TRIES):
        wanted = call if not number else stricter(call, task.filing.language)
        text = (await crew.ask(backend, wanted)).text
        parsed = json_repair.loads(text) if text.strip() else None
        if isinstance(parsed, dict) and ("answer" in parsed or "grade" in parsed):
            found = parsed
            if ("evidence" if "answer" in parsed else "reason") in parsed:
                break
    return found, text


def _dropped(item: Asked, rule: str, reason: str, text: str) -> Dropped:
    return Dropped(rule, reason, f"{item.question} {text[:400]}", item.passage.start, item.passage.end)


def _pair(item: Asked, parsed: Mapping[str, Any], text: str, task: Task) -> Pair | Dropped:
    """Check one answer against the passage and the document's facts."""
    answer = parsed["answer"].strip() if isinstance(parsed["answer"], str) else ""
    is_absent = parsed.get("answerable") is False
    if is_absent or item.kind == "unanswerable":
        return _unanswerable(item, task, text, is_absent=is_absent)
    spans, fault = _spans(parsed.get("evidence"), item.passage, task.source)
    if fault:
        return _dropped(item, *fault, text)
    start, end = min(span[0] for span in spans), max(span[1] for span in spans)
    evidence = task.source.text[start:end]
    pair = _made(item.kind, item.question, answer, start, end)
    pair = replace(pair, derivation=derivation_of(answer, evidence, item.question))
    found = fault_of(pair, task.filing, evidence, limit_length=False, document=task.grounds)
    if found:
        return _dropped(item, *found, text)
    return replace(pair, passage=partial(_window, task.source.text, start, end, item.passage, task.limit))


def _unanswerable(item: Asked, task: Task, text: str, *, is_absent: bool) -> Pair | Dropped:
    """A question that was meant to have no answer and has none is a pair, for its passage only."""
    if item.kind != "unanswerable":
        return _dropped(item, "not-answerable", "the passage does not answer the question", text)
    if not is_absent:
        return _dropped(item, "answerable", "the question was to have no answer, and has one", text)
    passage = item.passage
    made = _made(item.kind, item.question, wording(task.filing.language).absent, passage.start, passage.end)
    shown = task.source.text[passage.start : passage.end].strip()
    return replace(made, is_open_only=True, passage=partial(str, shown))


def _spans(quotes: object, passage: Background, source: Source) -> tuple[list[tuple[int, int]], tuple[str, str] | None]:
    """Find every quote in the passage; returns their places, or the rule that is broken and the reason."""
    quotes = [quotes] if isinstance(quotes, str) else quotes
    if not isinstance(quotes, list) or not quotes or not all(isinstance(one, str) and one.strip() for one in quotes):
        return [], ("no-evidence", "the reply quotes nothing")
    spans = []
    for quote in quotes:
        span = find_quote(quote, source.text, passage.start, passage.end)
        if span is None:
            return [], ("quote-not-found", f"{quote[:120]!r} does not stand in the passage")
        spans.append(span)
    return spans, None


# ---------------------------------------------------------------------------------------------------------- tests


async def _tested(item: Asked, pair: Pair, known: str, task: Task, crew: Crew) -> Pair | Dropped:
    """Answer again from the quotes alone, and have the answer graded, where the run does so."""
    if pair.kind == "unanswerable":
        return pair
    if crew.checker is not None:
        quoted = knowledge(task.source.text[pair.start : pair.end], task.filing, "")
        again, text = await _read(
            answer_call(quoted, task.filing, item.question, task="again"), crew.checker, task, crew
        )
        said = str(again.get("answer", "")) if again and again.get("answerable") is not False else ""
        if not agrees(pair.answer, said):
            return _dropped(item, "round-trip", "its quotes alone lead to another answer", f"{pair.answer} | {text}")
    if crew.judge is not None:
        grade, text = await _read(judge_call(known, task.filing, item.question, pair.answer), crew.judge, task, crew)
        given = _grade(grade)
        if given < crew.least_grade:
            reason = f"the judge's grade is {given:g} of 5, {crew.least_grade} is the least"
            return _dropped(item, "judge", reason, f"{pair.answer} | {text}")
    return pair


def _grade(parsed: Mapping[str, Any] | None) -> float:
    """Return a grade, 0 where the judge gave none."""
    try:
        return floor(float(parsed["grade"])) if parsed else 0.0
    except (TypeError, ValueError):
        return 0.0


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
