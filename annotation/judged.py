"""Ratings out of the annotations of a Label Studio project, or out of preferences that keep their votes."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from annotation.export import Judgement, judge
from annotation.logged import Annotation, Pair
from annotation.ratings import Rating
from annotation.vocabulary import LEVELS
from finlm.records import PreferencePair, Removal, content_id

J = TypeVar("J")


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A pair as a report shows it; its answers in the order that levels count in.

    Example:
        Compared(id="9f…", prompt="What was …?", answers=("…", "…"), category="finance")
    """

    id: str
    prompt: str
    answers: tuple[str, str]
    category: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Pairs and what people said of them."""

    asked: ClassVar[str] = "pairs"
    given: ClassVar[str] = "ratings"
    pairs: dict[str, Compared]
    ratings: tuple[Rating, ...]
    waiting: int
    """Pairs that nobody has judged."""
    left_out: dict[str, int]
    """Annotations that are no rating, by reason."""
    days: dict[str, int]
    """Ratings by day, where it is known."""

    @property
    def judged(self) -> int:
        """Pairs that somebody judged."""
        return len(self.pairs)

    @property
    def count(self) -> int:
        """Ratings."""
        return len(self.ratings)

    def batch(self, annotator: str) -> tuple[str, ...]:
        """Ids of the pairs that a person judged."""
        return tuple(sorted(one.pair_id for one in self.ratings if one.annotator == annotator))


def longer(side: int, first: str, second: str) -> bool | None:
    """Whether the preferred answer is the longer one; None where both are equally long."""
    return None if len(first) == len(second) else (side == 1) == (len(second) > len(first))


def from_log(
    pairs: Mapping[str, Pair],
    pushed: Sequence[str],
    annotations: Iterable[Annotation],
    gold: Mapping[str, int] | None = None,
) -> Work:
    """Return a project's ratings: one a person and pair, the newest; `gold` has the better answer where it is known."""
    known = gold or {}
    newest, left_out = newest_of(annotations, lambda annotation: judge(annotation, pairs))
    ratings = [
        _rating(pairs[pair_id], annotator, annotation, judgement, known.get(pair_id))
        for (pair_id, annotator), (annotation, judgement) in sorted(newest.items())
    ]
    judged = {pair_id for pair_id, _ in newest}
    return Work(
        pairs={name: _compared(pairs[name]) for name in sorted(judged)},
        ratings=tuple(ratings),
        waiting=len(set(pushed) - judged),
        left_out=left_out,
        days=days_of(annotation for annotation, _ in newest.values()),
    )


def days_of(annotations: Iterable[Annotation]) -> dict[str, int]:
    """Return how many of the annotations were last changed on each day, in order."""
    return dict(sorted(Counter(annotation.updated_at[:10] for annotation in annotations).items()))


def newest_of(
    annotations: Iterable[Annotation], judge_one: Callable[[Annotation], J | Removal]
) -> tuple[dict[tuple[str, int], tuple[Annotation, J]], dict[str, int]]:
    """Return each person's newest judgement by (task's id, person), and how many annotations are none, by reason."""
    newest: dict[tuple[str, int], tuple[Annotation, J]] = {}
    left_out: Counter[str] = Counter()
    for annotation in sorted(annotations, key=lambda one: (one.updated_at, one.id)):
        judgement = judge_one(annotation)
        if isinstance(judgement, Removal):
            left_out[judgement.rule.replace("-", " ")] += 1
            continue
        assert annotation.annotator is not None  # judge_by saw to it
        key = annotation.pair_id, annotation.annotator
        left_out["judged again"] += key in newest
        newest[key] = annotation, judgement
    return newest, dict(sorted((+left_out).items()))


def _compared(pair: Pair) -> Compared:
    shown = pair.comparison
    prompt = "\n\n".join(turn.content for turn in shown.prompt.messages)
    answers = (shown.first.text, shown.second.text)
    return Compared(id=shown.id, prompt=prompt, answers=answers, category=shown.prompt.category)


def _rating(pair: Pair, annotator: int, annotation: Annotation, judgement: Judgement, gold: int | None) -> Rating:
    as_shown = LEVELS.index(judgement.level)
    level = len(LEVELS) - 1 - as_shown if pair.swapped else as_shown
    seen = _compared(pair)
    return Rating(
        pair_id=seen.id,
        annotator=f"person:{annotator}",
        level=level,
        is_left=as_shown < len(LEVELS) // 2,
        is_longer=longer(int(level >= len(LEVELS) // 2), *seen.answers),
        seconds=annotation.seconds,
        characters=len(seen.prompt) + sum(map(len, seen.answers)),
        gold=gold,
    )


def from_preferences(preferences: Iterable[PreferencePair]) -> Work:
    """Return the ratings that preferences keep as votes; which answer stood on the left they do not say.

    Which answer comes first here is drawn by the pair's texts: were it the chosen one, everybody would seem to agree on
    the side more than by chance.
    """
    pairs: dict[str, Compared] = {}
    ratings: list[Rating] = []
    without = 0
    for one in preferences:
        is_turned = int(content_id(*sorted([one.chosen, one.rejected])), 16) % 2 == int(one.chosen < one.rejected)
        answers = (one.rejected, one.chosen) if is_turned else (one.chosen, one.rejected)
        if not one.votes:
            without += 1
            continue
        prompt = "\n\n".join(turn.content for turn in one.prompt.messages)
        pairs[one.id] = Compared(id=one.id, prompt=prompt, answers=answers, category=one.prompt.category)
        for vote in one.votes:
            if vote.is_verdict:  # given in sight of a disagreement: no rating like the others
                continue
            side = int((vote.side == "rejected") != is_turned)
            level = len(LEVELS) // 2 + vote.strength if side else len(LEVELS) // 2 - 1 - vote.strength
            ratings.append(
                Rating(
                    pair_id=one.id,
                    annotator=vote.annotator,
                    level=level,
                    is_left=None,
                    is_longer=longer(side, *answers),
                    seconds=None,
                    characters=len(prompt) + sum(map(len, answers)),
                )
            )
    return Work(
        pairs=pairs, ratings=tuple(ratings), waiting=0, left_out={"pairs without votes": without} if without else {},
        days={},
    )  # fmt: skip
