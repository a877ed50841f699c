"""What the log tells, as records: pairs and sets as they were shown, annotations in their newest state."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from annotation.answer_sets import AnswerSet
from annotation.pairing import Comparison
from finlm.records import Prompt

Kind = Literal["annotation", "skip", "deleted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A comparison and how it was shown.

    Example:
        Pair(comparison=Comparison(…), swapped=True)   the second answer stood on the left, as A
    """

    comparison: Comparison
    swapped: bool

    @property
    def prompt(self) -> Prompt:
        """What was asked."""
        return self.comparison.prompt

    @property
    def placed(self) -> tuple[str, ...]:
        """The answers' texts from the left."""
        texts = (self.comparison.first.text, self.comparison.second.text)
        return texts[::-1] if self.swapped else texts


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownSet:
    """Four answers and how they were shown.

    Example:
        ShownSet(answers=AnswerSet(…), order=(2, 0, 3, 1))   the third answer stood first, as A
    """

    answers: AnswerSet
    order: tuple[int, ...]

    @property
    def prompt(self) -> Prompt:
        """What was asked."""
        return self.answers.prompt

    @property
    def placed(self) -> tuple[str, ...]:
        """The answers' texts from A to D."""
        return tuple(self.answers.answers[index].text for index in self.order)


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """The newest known state of one annotation.

    Example:
        Annotation(id=12, task_id=7, pair_id="9f…", kind="annotation", annotator=2, updated_at="2026-…", result=({…},))
    """

    id: int
    task_id: int
    pair_id: str
    """As the task says; empty where it says none."""
    kind: Kind
    annotator: int | None
    updated_at: str
    result: tuple[Mapping[str, Any], ...]
    seconds: float | None = None
    """From opening the task to submitting it, where the server says so."""
    page: str = ""
    """Hash of the labelling page that the project had when this state was pulled."""
    guidelines: str = ""
    """Version of the guidelines on that page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Absorbed:
    """What one pull added to the history, in events.

    Example:
        Absorbed(new=12, edited=1, skipped=1, deleted=0, vanished_tasks=0)
    """

    new: int = 0
    """Annotations seen for the first time, skips not counted."""
    edited: int = 0
    """Annotations seen before and different now."""
    skipped: int = 0
    deleted: int = 0
    vanished_tasks: int = 0

    def __add__(self, other: "Absorbed") -> "Absorbed":
        """Return what two pulls added together."""
        mine, theirs = dataclasses.asdict(self), dataclasses.asdict(other)
        return Absorbed(**{name: mine[name] + theirs[name] for name in mine})

    @property
    def events(self) -> int:
        """Rows added to the history."""
        return self.new + self.edited + self.skipped + self.deleted
