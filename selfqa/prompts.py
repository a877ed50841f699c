"""What a model is asked: the passage first, so that its prefix is shared by all calls about it, then the task.

The wording lies in `prompt_files/`, a file a language with a version. The demands are those of Self-QA (arXiv
2305.11952): questions as diverse as possible, about facts, understanding, evaluation, extraction and summary; no word
that points to an article the asker does not have; then one question a call with the same passage. New here: the kinds
of questions are planned, and the answer comes as JSON with quotes, so that code can check it.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

import yaml

from selfqa.calls import Call
from selfqa.entities import Filing
from selfqa.pairs import KINDS

ANSWER_SCHEMA = {
    "type": "object",
    "properties": {
        "answerable": {"type": "boolean"},
        "answer": {"type": "string"},
        "evidence": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["answerable", "answer", "evidence"],
    "additionalProperties": False,
}
GRADE_SCHEMA = {
    "type": "object",
    "properties": {"grade": {"type": "integer", "minimum": 1, "maximum": 5}, "reason": {"type": "string"}},
    "required": ["grade", "reason"],
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """A language's prompt file.

    Example:
        Wording(version="en-2", knowledge="…", questions="…", kinds={"fact": "…"}, answer="…", …)
    """

    version: str
    knowledge: str
    questions: str
    kinds: Mapping[str, str]
    """What is wanted of each kind, by its name."""
    answer: str
    strict: str
    """Behind a prompt whose reply could not be read."""
    judge: str
    merge: str
    absent: str
    """The answer to a question that the passage does not answer."""

    def __post_init__(self) -> None:
        if set(self.kinds) != set(KINDS):
            raise ValueError(f"prompt file {self.version} must describe {', '.join(KINDS)}, each once.")


@cache
def wording(language: str) -> Wording:
    """Return the prompts of a language, `en` or `zh`."""
    file = resources.files("selfqa").joinpath("prompt_files", f"{language}.yaml")
    return Wording(**yaml.safe_load(file.read_text(encoding="utf-8")))


def versions() -> str:
    """Return the versions of all prompt files, as a data set's card names them."""
    return ", ".join(wording(language).version for language in ("en", "zh"))


def filled(template: str, **values: str) -> str:
    """Put values in without reading their own braces as fields; braces that are no field stay."""
    pieces = re.split(r"(\{[a-z]+\})", template)
    return "".join(values.get(piece[1:-1], piece) if piece.startswith("{") else piece for piece in pieces)


def escaped(passage: str) -> str:
    """Return a filing's text in which no mark of a chat format stands: a space parts each.

    Quotes are found again all the same, since white space does not count there (`selfqa.quotes.find_quote`).
    """
    text = re.sub(r"(?<=\|)>", " >", re.sub(r"<(?=\||/?s>)", "< ", passage))
    return re.sub(r"\[(?=/?(?:INST|SYS)\])", "[ ", text)


def knowledge(passage: str, filing: Filing, section: str) -> str:
    """Return the part that all prompts about a passage begin with.

    The fence has a digest of the passage in it, which no passage can hold of itself, so none closes its own fence.
    """
    mark = hashlib.sha256(passage.encode("utf-8")).hexdigest()[:8]
    where = f", {' '.join(escaped(section).split())[:80]}" if section else ""
    return filled(
        wording(filing.language).knowledge,
        company=filing.company,
        period=str(filing.fiscal_year or ""),
        section=where,
        open=f"[[[{mark}",
        close=f"{mark}]]]",
        passage=escaped(passage),
    )


def question_call(known: str, filing: Filing, kinds: Mapping[str, int]) -> Call:
    """Ask for questions about a passage.

    Args:
        known: See `knowledge`.
        filing: The document.
        kinds: How many of each kind.
    """
    words = wording(filing.language)
    wanted = "\n".join(f"- {count} x {kind}: {words.kinds[kind]}" for kind, count in kinds.items())
    asked = filled(words.questions, number=str(sum(kinds.values())), kinds=wanted, company=filing.short)
    return Call(f"{known}\n\n{asked}", "questions", None, words.version)


def answer_call(known: str, filing: Filing, question: str, *, task: str = "answer") -> Call:
    """Ask one question about a passage; `task` again asks anew for what is remembered under another task."""
    words = wording(filing.language)
    asked = filled(words.answer, question=question)
    return Call(f"{known}\n\n{asked}", task, ANSWER_SCHEMA, words.version)


def judge_call(known: str, filing: Filing, question: str, answer: str) -> Call:
    """Ask for a grade, 1 to 5, of an answer."""
    words = wording(filing.language)
    asked = filled(words.judge, question=question, answer=answer)
    return Call(f"{known}\n\n{asked}", "judge", GRADE_SCHEMA, words.version)


def merge_call(known: str, filing: Filing, question: str, answers: Sequence[str]) -> Call:
    """Ask for one answer out of several."""
    words = wording(filing.language)
    asked = filled(words.merge, question=question, answers="\n".join(f"- {answer}" for answer in answers))
    return Call(f"{known}\n\n{asked}", "merge", ANSWER_SCHEMA, words.version)


def stricter(call: Call, language: str) -> Call:
    """Return the call once more, with the demand that its reply can be read."""
    return Call(f"{call.prompt}\n{wording(language).strict}", call.task, call.schema, call.version)


_LINE = re.compile(
    r"\s*(?:[-*]\s+)?(?:\d{1,2}\s*[.)、:：]\s*)?(?:\*\*)?"
    r"(?P<mark>(?:Question|问题|Instruction|指令|Q)\s*\d{0,2}\s*(?:[\[(（【]\s*(?P<kind>[a-z-]+)\s*[\])）】])?\s*[:：])?"
    r"(?:\*\*)?\s*(?P<body>.+)"
)


def parse_questions(reply: str) -> list[tuple[str, str]]:
    """Read one question a line, `Question [figure]: …`, `问题[fact]：…`, `3. …`; returns kind (or empty) and text."""
    found = []
    for line in reply.splitlines():
        match = _LINE.match(line)
        if match and (match["mark"] or re.match(r"\s*\d{1,2}\s*[.)、]", line)):
            body = match["body"].strip().strip('*"“”').strip()
            kind = match["kind"] if match["kind"] in KINDS else ""
            found.append((kind or "", body))
    return [(kind, question) for kind, question in found if len(question) > 5]
