"""The records of a run root by their ids, and what each was made from: the way back to a filing or to a person.

Every record knows its parents by id (`Provenance.parents`, a prompt inside candidates, a document's span), so the files
alone are walked: no database is kept beside them.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finlm import jsonl
from finlm.records import (
    Candidates,
    Conversation,
    Document,
    PreferencePair,
    Prompt,
    Provenance,
    Ranking,
    RolloutRecord,
)
from finlm.rounds import rounds_of

FILES: tuple[tuple[str, type[Any]], ...] = (
    ("selfqa/documents.jsonl", Document),
    ("selfqa/instructions.jsonl", Conversation),
    ("prompts.jsonl", Prompt),
    ("prompts/held_out.jsonl", Prompt),
    ("candidates.jsonl", Candidates),
    ("preferences.jsonl", PreferencePair),
    ("rankings.jsonl", Ranking),
    ("ppo/rollouts/*.jsonl", RolloutRecord),
)
"""Where records lie below a run root, in the order in which stages write them."""
ANSWERS = ("ppo/held_out/*.jsonl", "evaluation/*.jsonl")
"""Answers to held-out prompts, with what was measured on them."""
KINDS = {
    "Document": "document",
    "Conversation": "instruction",
    "Prompt": "prompt",
    "Candidates": "candidates",
    "PreferencePair": "preference",
    "Ranking": "ranking",
    "RolloutRecord": "PPO answer",
    "AnswerRecord": "held-out answer",
}


@dataclass(frozen=True, slots=True)
class Found:
    """A record and where it stands.

    Example:
        Found(record=Prompt(…), path=Path("runs/prompts.jsonl"), line=12)
    """

    record: Any
    path: Path
    line: int

    @property
    def kind(self) -> str:
        """What it is, in a word."""
        return KINDS[type(self.record).__name__]

    @property
    def id(self) -> str:
        """Its id; of an answer that has none its prompt's."""
        return str(getattr(self.record, "id", "") or getattr(self.record, "prompt_id", ""))


@dataclass(slots=True)
class Library:
    """All records of a run root.

    Attributes:
        found: Every record with an id or an answer, in the stages' order.
        by_id: The first record of each id; prompts that stand inside other records too, and an instruction also under
            the id of the prompt that its question makes.
    """

    found: list[Found] = field(default_factory=list)
    by_id: dict[str, Found] = field(default_factory=dict)

    @classmethod
    def read(cls, root: Path, more: Iterable[Path] = ()) -> "Library":
        """Read a run root, with the rounds of `finlm round` that lie below it.

        Args:
            root: The folder that all stages write below.
            more: Further run roots: theirs are the parents that are missing here.

        Raises:
            UserError: A line is no valid record.
        """
        library = cls()
        for folder in (root, *(one.folder for one in rounds_of(root)), *more):
            for path, kind in files_of(folder):
                for line, record in enumerate(jsonl.read(path, kind), start=1):
                    library.add(Found(record, path, line))
        return library

    def add(self, one: Found) -> None:
        """Take a record in."""
        self.found.append(one)
        record = one.record
        if getattr(record, "id", ""):
            self.by_id.setdefault(record.id, one)
        inner = getattr(record, "prompt", None)
        if isinstance(inner, Prompt):
            self.by_id.setdefault(inner.id, Found(inner, one.path, one.line))
        if isinstance(record, Conversation):  # the prompt that is made of its question has the question's id
            self.by_id.setdefault(Prompt(messages=record.messages[:-1]).id, one)

    def matching(self, wanted: str) -> list[Found]:
        """Return the records of an id (or its first digits, six or more), else those whose text holds `wanted`."""
        if len(wanted) >= 6 and all(letter in "0123456789abcdef" for letter in wanted):
            found = [one for name, one in self.by_id.items() if name.startswith(wanted)]
            if found:
                return found
        words = " ".join(wanted.split())
        return [one for one in self.found if any(words in " ".join(text.split()) for text in texts_of(one.record))]

    def parents(self, one: Found) -> list[Found]:
        """Return the records that a record was made from, the nearest first, as far as they are here."""
        record = one.record
        names = [*parents_of(record), *(provenance.document_id for provenance in provenances_of(record))]
        known = [self.by_id[name] for name in dict.fromkeys(names) if name in self.by_id]
        found = [parent for parent in known if parent.record is not record]
        # what comes of a parent anyway is not told twice
        names = [name for parent in found for name in parents_of(parent.record)]
        covered = {id(self.by_id[name].record) for name in names if name in self.by_id}
        return [parent for parent in found if id(parent.record) not in covered]


def files_of(root: Path) -> Iterator[tuple[Path, type[Any]]]:
    """Yield the files of records below a run root, and what each holds."""
    for pattern, kind in FILES:
        for path in sorted(root.glob(pattern)):
            yield path, kind
    answers = [path for pattern in ANSWERS for path in sorted(root.glob(pattern)) if path.stem not in {"pairs"}]
    if answers:
        from finlm.evaluation import AnswerRecord  # brings torch; a run root without answers does without

        for path in answers:
            if holds_answers(path):
                yield path, AnswerRecord


def holds_answers(path: Path) -> bool:
    """Whether the first line of a file is an answer: a folder of evaluations holds other records too."""
    with jsonl.opened(path) as content:
        first = content.readline()
    return b'"prompt_id"' in first and b'"is_right"' in first


def provenances_of(record: Any) -> list[Provenance]:
    """Return where the evidence of a record stands."""
    own = getattr(record, "provenance", None)
    return [*([own] if own else []), *getattr(record, "also_from", ())]


def parents_of(record: Any) -> list[str]:
    """Return the ids of the records that a record was made from."""
    inner = getattr(record, "prompt", None)
    found = [name for provenance in provenances_of(record) for name in provenance.parents]
    found += [inner.id] if isinstance(inner, Prompt) else []
    found += [record.prompt_id] if getattr(record, "prompt_id", "") else []
    return found


def texts_of(record: Any) -> Iterator[str]:
    """Yield the texts of a record that somebody would look for: answers and questions, no documents."""
    if isinstance(record, Document):
        return
    for message in getattr(record, "messages", ()):
        yield message.content
    for name in ("chosen", "rejected", "response", "text"):
        if isinstance(its := getattr(record, name, None), str):
            yield its
    for response in getattr(record, "responses", ()):
        yield response if isinstance(response, str) else response.text
    inner = getattr(record, "prompt", None)
    if isinstance(inner, Prompt):
        yield inner.messages[-1].content
