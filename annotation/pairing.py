"""From candidates to pairs that people compare: which two answers, and which of them on the left."""

import hashlib
from dataclasses import dataclass, field

from annotation.choosing import Scores, Strategy, choose
from finlm.records import Candidates, PreferencePair, Prompt, Removal, Response, content_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two answers to one prompt that wait for a judgement. The id does not depend on their order.

    Example:
        Comparison(prompt=Prompt(…), first=Response(…), second=Response(…), parents=("9f…",))
    """

    prompt: Prompt
    first: Response
    second: Response
    parents: tuple[str, ...] = ()
    """Ids of the records that the answers were taken from."""
    id: str = field(default="")

    def __post_init__(self) -> None:
        answers = sorted([response.text, response.ended] for response in (self.first, self.second))
        object.__setattr__(self, "id", content_id("Comparison", self.prompt.id, answers))

    @property
    def shown(self) -> tuple[Response, ...]:
        """The answers, in an order that tells nothing of how they are placed."""
        return self.first, self.second


def from_candidates(
    candidates: Candidates, strategy: Strategy, seed: int, scores: Scores | None = None
) -> Comparison | Removal:
    """Choose one pair of the candidates, or say why there is none."""
    answers = choose(candidates, 2, strategy, seed, scores)
    if isinstance(answers, Removal):
        return answers
    return Comparison(prompt=candidates.prompt, first=answers[0], second=answers[1], parents=(candidates.id,))


def from_preference(pair: PreferencePair) -> Comparison | Removal:
    """Put a pair that something else judged before people, without telling them the earlier judgement."""
    if not pair.chosen.strip() or not pair.rejected.strip():
        return Removal(record_id=pair.id, rule="empty-answer", reason="one of the answers has no text to show")
    if pair.chosen.split() == pair.rejected.split():
        reason = "the answers differ only in white space or in their end, which the page does not show"
        return Removal(record_id=pair.id, rule="answers-look-the-same", reason=reason)
    return Comparison(
        prompt=pair.prompt,
        first=Response(text=pair.chosen, model=pair.source, ended=pair.chosen_ended),
        second=Response(text=pair.rejected, model=pair.source, ended=pair.rejected_ended),
        parents=(pair.id,),
    )


def is_swapped(swap_seed: str, pair_id: str) -> bool:
    """Whether the second answer stands on the left: a fair coin that only the holder of the seed can repeat."""
    return hashlib.sha256(f"{swap_seed}:{pair_id}".encode()).digest()[0] % 2 == 1
