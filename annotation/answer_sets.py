"""From candidates to sets of four answers that people put in order, and the order in which they are shown."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from annotation.choosing import Scores, Strategy, choose
from annotation.vocabulary import PLACES
from finlm.records import Candidates, Prompt, Removal, Response, content_id


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerSet:
    """Answers to one prompt that wait for an order. The id does not depend on theirs.

    Example:
        AnswerSet(prompt=Prompt(…), answers=(Response(…), Response(…), Response(…), Response(…)), parents=("9f…",))
    """

    prompt: Prompt
    answers: tuple[Response, ...]
    parents: tuple[str, ...] = ()
    """Ids of the records that the answers were taken from."""
    id: str = field(default="")

    def __post_init__(self) -> None:
        if len(self.answers) != len(PLACES):
            raise ValueError(f"a set has {len(PLACES)} answers, got {len(self.answers)}")
        answers = sorted([response.text, response.ended] for response in self.answers)
        object.__setattr__(self, "id", content_id("AnswerSet", self.prompt.id, answers))

    @property
    def shown(self) -> tuple[Response, ...]:
        """The answers, in an order that tells nothing of how they are placed."""
        return self.answers


def set_from_candidates(
    candidates: Candidates, strategy: Strategy, seed: int, scores: Scores | None = None
) -> AnswerSet | Removal:
    """Choose four of the candidates, or say why there are none."""
    answers = choose(candidates, len(PLACES), strategy, seed, scores)
    if isinstance(answers, Removal):
        return answers
    return AnswerSet(prompt=candidates.prompt, answers=answers, parents=(candidates.id,))


def shown_order(swap_seed: str, set_id: str, count: int = len(PLACES)) -> tuple[int, ...]:
    """Which answer stands in each place, as indices: a fair shuffle that only the holder of the seed can repeat."""
    return tuple(
        sorted(range(count), key=lambda index: hashlib.sha256(f"{swap_seed}:{set_id}:{index}".encode()).digest())
    )


def unshuffled(shown: Sequence[int], order: Sequence[int]) -> tuple[int, ...]:
    """Bring what was said of the places into the order of the answers: `order[place]` is the answer shown there."""
    found = [0] * len(order)
    for said, answer in zip(shown, order, strict=True):
        found[answer] = said
    return tuple(found)
