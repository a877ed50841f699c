"""Which of a prompt's candidates people see: as many as the page shows, by a strategy.

    random      any, by the seed
    different   those that have least in common: quickest to judge and least often a tie
    uncertain   those between which the reward model is least certain: they teach it most
    between     answers of different models, any by the seed: people compare the models, blind

Of all choices the one is taken whose pairs are worth most together.
"""

import itertools
import math
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from typing import Literal

from finlm.records import Candidates, Message, Prompt, Removal, Response

Strategy = Literal["random", "different", "uncertain", "between"]

AnswerKey = tuple[str, str, bool]
"""An answer: its prompt's id, its text, whether it ended."""
Scores = Mapping[AnswerKey, tuple[float, ...]]
"""Each answer's scores, one a reward model, in the same order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredResponse:
    """An answer as `finlm reward score` writes it.

    Example:
        ScoredResponse(text="…", score=0.4, scores=(0.3, 0.5))
    """

    text: str
    score: float
    ended: bool = True
    scores: tuple[float, ...] = ()
    """One a reward model; empty where one model scored."""

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (self.score, *self.scores))):
            raise ValueError(f"the score of {self.text[:40]!r} is not finite")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredCandidates:
    """A prompt and its answers as `finlm reward score` writes them.

    Example:
        ScoredCandidates(prompt=Prompt(…), responses=(ScoredResponse(…), ScoredResponse(…)))
    """

    prompt: Prompt
    responses: tuple[ScoredResponse, ...]


def scores_of(rows: Iterable[ScoredCandidates]) -> dict[AnswerKey, tuple[float, ...]]:
    """Return the scores of all answers of some rows."""
    return {
        (row.prompt.id, response.text, response.ended): response.scores or (response.score,)
        for row in rows
        for response in row.responses
    }


def score_by(reward: str, asked: Sequence[Candidates]) -> dict[AnswerKey, tuple[float, ...]]:
    """Return the scores of all answers by a reward model, or by those of a folder.

    Raises:
        MissingInput: There is no reward model in the folder.
        UserError: An answer is longer than the base has positions for.
    """
    from finlm import model  # torch is loaded for those alone who ask for it
    from finlm.ensemble import Ensemble
    from finlm.errors import UserError

    device = model.device_of_this_process()
    judge = Ensemble.load(reward, dtype=model.choose_dtype("auto", device), device=device)
    answers: dict[AnswerKey, tuple[tuple[Message, ...], Response]] = {
        (one.prompt.id, response.text, response.ended): (one.prompt.messages, response)
        for one in asked
        for response in one.responses
    }
    rows = [judge.encode(messages, one.text, ended=one.ended) for messages, one in answers.values()]
    too_long = max(map(len, rows), default=0)
    if too_long > judge.longest:
        raise UserError(f"an answer has {too_long} tokens, the reward model in {reward} reads {judge.longest}.")
    score_KN = judge.score(rows, batch_tokens=8192)
    return {key: tuple(map(float, score_KN[:, place])) for place, key in enumerate(answers)}


def distinct_answers(candidates: Candidates) -> list[Response]:
    """Return the answers that are neither empty nor, but for white space, a repetition."""
    distinct: dict[str, Response] = {}
    for response in candidates.responses:
        if response.text.strip():
            distinct.setdefault(" ".join(response.text.split()), response)
    return list(distinct.values())


def choose(
    candidates: Candidates, count: int, strategy: Strategy, seed: int, scores: Scores | None = None
) -> tuple[Response, ...] | Removal:
    """Choose `count` of the candidates, or say why there are none.

    Args:
        candidates: A prompt with its answers.
        count: How many the page shows.
        strategy: See above.
        seed: Of `random` and `between`.
        scores: For `uncertain`.
    """
    answers = distinct_answers(candidates)
    if len(answers) < count:
        words = {2: "two", 4: "four"}
        told = f"{len(candidates.responses)} responses, {len(answers)} of them neither empty nor a repetition"
        return Removal(record_id=candidates.id, rule=f"fewer-than-{words[count]}-answers", reason=told)
    groups = list(itertools.combinations(answers, count))
    if strategy == "between":
        groups = [group for group in groups if len({one.model for one in group}) == count]
        if not groups:
            reason = f"its answers are of {len({one.model for one in answers})} models, {count} are to be compared"
            return Removal(record_id=candidates.id, rule="too-few-models", reason=reason)
    if strategy in {"random", "between"}:
        return random.Random(f"{seed}:{candidates.id}").choice(groups)
    if strategy == "different":
        worth = {
            (one.text, other.text): 1 - similarity(one.text, other.text)
            for one, other in itertools.combinations(answers, 2)
        }
    else:
        assert scores is not None  # the settings see to it
        known = {one.text: scores.get((candidates.prompt.id, one.text, one.ended)) for one in answers}
        missing = [text for text, its in known.items() if its is None]
        if missing:
            reason = f"{len(missing)} of its {len(answers)} answers have no score"
            return Removal(record_id=candidates.id, rule="not-scored", reason=reason, text=missing[0])
        worth = {
            (one.text, other.text): uncertainty(known[one.text] or (), known[other.text] or ())
            for one, other in itertools.combinations(answers, 2)
        }
    return max(groups, key=lambda group: fsum(worth[pair] for pair in _texts_of_pairs(group)))


def worth_of(prompt: Prompt, answers: Sequence[Response], scores: Scores) -> float:
    """Mean uncertainty of the pairs of some answers, bits: which prompts to ask about first."""
    pairs = [
        uncertainty(*(scores[prompt.id, one.text, one.ended] for one in pair))
        for pair in itertools.combinations(answers, 2)
    ]
    return fsum(pairs) / len(pairs)


def uncertainty(first: Sequence[float], second: Sequence[float]) -> float:
    """Entropy of the preference that K reward models predict together, bits: H(mean over k of sigmoid(r1_k - r2_k)).

    1 where they are undecided or contradict each other, 0 where all are sure of one side. The predictive entropy of an
    ensemble (Lakshminarayanan et al. 2017, arXiv 1612.01474) of Bradley-Terry models.

    Args:
        first: The first answer's scores, one a model.
        second: The second answer's, by the same models.
    """
    chances = [_sigmoid(one - other) for one, other in zip(first, second, strict=True)]
    chance = fsum(chances) / len(chances)
    return 0.0 if chance in {0.0, 1.0} else -fsum(p * math.log2(p) for p in (chance, 1 - chance))


def similarity(one: str, other: str) -> float:
    """Share of character pairs that two texts have in common, 0 to 1: 2 |A and B| / (|A| + |B|), with repetitions.

    Dice 1945; over character pairs, as for instance in Kondrak 2005, "N-gram similarity and distance"; it works for
    Chinese and English alike.
    """
    counts = [Counter(_bigrams(text)) for text in (one, other)]
    total = sum(counts[0].values()) + sum(counts[1].values())
    return 2 * sum((counts[0] & counts[1]).values()) / total if total else 1.0


def _bigrams(text: str) -> Iterator[str]:
    return ("".join(pair) for pair in itertools.pairwise(" ".join(text.split())))


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))


def _texts_of_pairs(group: Sequence[Response]) -> Iterator[tuple[str, str]]:
    return itertools.combinations((one.text for one in group), 2)
