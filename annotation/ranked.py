"""Rankings of four answers, and what people can be judged by: comparisons that do not lean on each other.

The six comparisons of a ranking follow from four ranks, so a test that took them for six votes would name people by
chance. Four answers can be paired up in three ways; each set has one of them, drawn by its id, the same for everybody.
Its two comparisons share no answer, and which answer of a pair stood earlier is drawn for each anew.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar

from annotation.answer_sets import unshuffled
from annotation.export import judge_by
from annotation.export_ranks import read_order
from annotation.judged import days_of, longer, newest_of
from annotation.logged import Annotation, ShownSet
from annotation.ratings import Rating
from annotation.vocabulary import LEVELS

PAIRINGS = (((0, 1), (2, 3)), ((0, 2), (1, 3)), ((0, 3), (1, 2)))
"""The ways to pair up four answers."""
COMPARISONS = tuple(combinations(range(4), 2))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """One person's ranks of the four answers of a set.

    Example:
        Ranked(set_id="9f…", annotator="person:7", ranks=(1, 3, 3, 2), places=(2, 0, 3, 1), seconds=80.0)
    """

    set_id: str
    annotator: str
    ranks: tuple[int, ...]
    """By answer; 1 is best, equal ranks are ties."""
    places: tuple[int, ...]
    """Where each answer stood on the page, 0 to 3."""
    seconds: float | None
    """From opening the task to submitting it; None where the server did not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankWork:
    """Sets of four answers and the orders that people put them in."""

    asked: ClassVar[str] = "sets"
    given: ClassVar[str] = "rankings"
    sets: dict[str, ShownSet]
    """Those that somebody ranked."""
    rankings: tuple[Ranked, ...]
    """One a person and set, the newest, by set and person."""
    ratings: tuple[Rating, ...]
    """Two comparisons of each ranking."""
    waiting: int
    """Sets that nobody has ranked."""
    left_out: dict[str, int]
    """Annotations that are no ranking, by reason."""
    days: dict[str, int]
    """Rankings by day."""

    @property
    def judged(self) -> int:
        """Sets that somebody ranked."""
        return len(self.sets)

    @property
    def count(self) -> int:
        """Rankings."""
        return len(self.rankings)

    def batch(self, annotator: str) -> tuple[str, ...]:
        """Ids of the sets that a person ranked."""
        return tuple(one.set_id for one in self.rankings if one.annotator == annotator)

    def by_set(self) -> dict[str, list[Ranked]]:
        """The rankings of each set."""
        found: dict[str, list[Ranked]] = {name: [] for name in self.sets}
        for one in self.rankings:
            found[one.set_id].append(one)
        return found


def rankings_from_log(
    sets: Mapping[str, ShownSet], pushed: Sequence[str], annotations: Iterable[Annotation]
) -> RankWork:
    """Return a project's rankings, one a person and set, the newest."""
    newest, left_out = newest_of(annotations, lambda annotation: judge_by(read_order, annotation, sets))
    rankings = []
    for (set_id, annotator), (annotation, order) in sorted(newest.items(), key=lambda item: item[0]):
        shown = sets[set_id]
        rankings.append(
            Ranked(
                set_id=set_id,
                annotator=f"person:{annotator}",
                ranks=unshuffled(order.ranks, shown.order),
                places=unshuffled(range(len(shown.order)), shown.order),
                seconds=annotation.seconds,
            )
        )
    judged = sorted({one.set_id for one in rankings})
    return RankWork(
        sets={name: sets[name] for name in judged},
        rankings=tuple(rankings),
        ratings=tuple(rating for one in rankings for rating in comparisons(one, sets[one.set_id])),
        waiting=len(set(pushed) - set(judged)),
        left_out=left_out,
        days=days_of(annotation for annotation, _ in newest.values()),
    )


def pairing(set_id: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return which answers of a set are held against each other."""
    return PAIRINGS[int(set_id, 16) % len(PAIRINGS)]


def comparisons(one: Ranked, shown: ShownSet) -> Iterator[Rating]:
    """Yield a ranking's two comparisons; a tie names no side. The first has the seconds of both: they are one time."""
    texts = [answer.text for answer in shown.answers.answers]
    asked = sum(len(turn.content) for turn in shown.prompt.messages)
    for number, (first, second) in enumerate(pairing(one.set_id)):
        lead = one.ranks[second] - one.ranks[first]  # above 0 where the first is better
        side = int(lead < 0)
        half = len(LEVELS) // 2
        preferred, other = (second, first) if side else (first, second)
        yield Rating(
            pair_id=f"{one.set_id}:{first + 1}-{second + 1}",
            annotator=one.annotator,
            level=half - lead - 1 if lead >= 0 else half - lead,
            is_left=one.places[preferred] < one.places[other] if lead else None,
            is_longer=longer(side, texts[first], texts[second]) if lead else None,
            seconds=one.seconds if not number else None,
            characters=asked + sum(map(len, texts)),
        )


def ranks_by_answer(rankings: Sequence[Ranked]) -> list[list[int]]:
    """Return the ranks of each answer of a set, 0 the best, by everybody who ranked it."""
    return [[one.ranks[answer] - 1 for one in rankings] for answer in range(4)]


def sides_by_comparison(rankings: Sequence[Ranked]) -> list[list[int]]:
    """Return the sides of each of a set's six comparisons; ties name none."""
    return [
        [int(one.ranks[second] < one.ranks[first]) for one in rankings if one.ranks[first] != one.ranks[second]]
        for first, second in COMPARISONS
    ]


def apart(rankings: Sequence[Ranked]) -> int:
    """Return by how many ranks at least two people order some two answers of a set oppositely; 0 where nobody does.

    Of each comparison and each direction the widest lead counts, and of both directions the smaller.
    """
    found = 0
    for first, second in COMPARISONS:
        leads = [one.ranks[second] - one.ranks[first] for one in rankings]
        found = max(found, min(max(leads, default=0), -min(leads, default=0)))
    return found


def disputed(work: RankWork, by: int) -> list[tuple[int, str]]:
    """Return the sets of which people order two answers oppositely, by `by` ranks or more, the widest first."""
    found = [(wide, name) for name, its in work.by_set().items() if (wide := apart(its)) >= by]
    return sorted(found, key=lambda one: (-one[0], one[1]))
