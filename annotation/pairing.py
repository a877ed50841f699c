"""From candidates to pairs that people compare: which two answers, and which of them on the left."""

import hashlib
import itertools
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from finlm.records import Candidates, PreferencePair, Prompt, Removal, Response, content_id

Strategy = Literal["random", "different"]


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


def from_candidates(candidates: Candidates, strategy: Strategy, seed: int) -> Comparison | Removal:
    """Choose one pair of the candidates, or say why there is none.

    `random` draws a pair by `seed`; `different` takes the two answers that share the fewest pairs of characters, which
    works for Chinese and English alike.
    """
    answers = distinct_answers(candidates)
    if isinstance(answers, Removal):
        return answers
    pairs = list(itertools.combinations(answers, 2))
    if strategy == "random":
        first, second = random.Random(f"{seed}:{candidates.id}").choice(pairs)
    else:
        first, second = min(pairs, key=lambda pair: similarity(pair[0].text, pair[1].text))
    return Comparison(prompt=candidates.prompt, first=first, second=second, parents=(candidates.id,))


def distinct_answers(candidates: Candidates) -> list[Response] | Removal:
    """Return the answers that are neither empty nor, but for white space, a repetition; two at least."""
    distinct: dict[str, Response] = {}
    for response in candidates.responses:
        if response.text.strip():
            distinct.setdefault(" ".join(response.text.split()), response)
    if len(distinct) < 2:
        told = f"{len(candidates.responses)} responses, {len(distinct)} of them neither empty nor a repetition"
        return Removal(record_id=candidates.id, rule="fewer-than-two-answers", reason=told)
    return list(distinct.values())


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


def similarity(one: str, other: str) -> float:
    """Share of character pairs that two texts have in common, 0 to 1: 2 |A and B| / (|A| + |B|), with repetitions.

    Dice 1945; over character pairs, as for instance in Kondrak 2005, "N-gram similarity and distance".
    """
    counts = [Counter(_bigrams(text)) for text in (one, other)]
    total = sum(counts[0].values()) + sum(counts[1].values())
    return 2 * sum((counts[0] & counts[1]).values()) / total if total else 1.0


def _bigrams(text: str) -> Iterator[str]:
    return ("".join(pair) for pair in itertools.pairwise(" ".join(text.split())))


def is_swapped(swap_seed: str, pair_id: str) -> bool:
    """Whether the second answer stands on the left: a fair coin that only the holder of the seed can repeat."""
    return hashlib.sha256(f"{swap_seed}:{pair_id}".encode()).digest()[0] % 2 == 1
