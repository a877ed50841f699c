"""Projects of simulated annotators over real pairs, and what the product finds in them.

Who is ordinary votes as one of the pair's real people did, drawn anew each time, so that a pair is as hard for them as
it was; people also differ from each other. Votes become annotations of a log as it is pulled, and go the product's
own way from there: `judged.from_log`, `conduct.findings`, `dawid_skene.consensus`.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log

from annotation.conduct import findings
from annotation.dawid_skene import consensus
from annotation.judged import Work, from_log
from annotation.logged import Annotation, Pair
from annotation.pairing import is_swapped
from annotation.ratings import by_pair, votes_of
from annotation.vocabulary import LEVELS
from benchmarks.annotators_real import CLEAR, Pool, RealPair

VOTES = 3
"""A pair."""
PEOPLE = (8, 12)
"""In a project, fewest and most."""
MOST_BAD = 3
GOLD = 0.1
"""Share of gold pairs in projects that have some."""
NOISY = 0.6
"""Share of votes for the truth of who is noisy."""
SLIPS = 0.1
"""Share of votes on which who goes by place or length votes as ordinary people do."""
DIFFER = 0.055
"""Standard deviation of how often ordinary people are right; the page has what it comes to beside that of the real."""
HURRY = (1.0, 4.0)
"""Seconds a vote of who is too fast."""
READING = 60 / (238 * 6)
"""Seconds a character: 238 words of non-fiction a minute (Brysbaert 2019), a word and its space six characters."""
READERS = log(300 / 175) / (2 * 1.645)
"""Standard deviation of the logarithm of people's speeds: 175 to 300 words a minute for 90 % (the same)."""
VARIES = 0.5
"""The same of one person's times; an assumption."""

RIGHT = {
    "noisy": {"others", "gold"},
    "always left": {"left"},
    "always longer": {"longer"},
    "random": {"others", "gold"},
    "too fast, votes with care": {"fast"},
    "too fast and random": {"fast"},
}
"""Kinds of bad annotators, and the tests that name what is wrong with them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Somebody who votes.

    Example:
        Person(id=3, kind="always left", better=0.01, speed=0.04)
    """

    id: int
    kind: str
    """Of `RIGHT`; empty for who is ordinary."""
    better: float
    """How much more often right than the average person."""
    speed: float
    """Seconds a character."""

    @property
    def name(self) -> str:
        """As ratings call them."""
        return f"person:{self.id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """What was drawn, and the product's reading of it."""

    people: tuple[Person, ...]
    truth: dict[str, int]
    """Of each pair the better answer, as the product counts sides."""
    work: Work


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the product made of a project.

    Example:
        Outcome(votes_each=60, has_gold=False, bad=(("random", ("others",)),), innocents=(), majority=0.89,
                consensus=0.91)
    """

    votes_each: int
    has_gold: bool
    bad: tuple[tuple[str, tuple[str, ...]], ...]
    """Each bad person's kind and the tests that name them."""
    innocents: tuple[str, ...]
    """Tests that name somebody ordinary."""
    majority: float
    """Share of pairs whose truth plain majority finds; a tie counts as half."""
    consensus: float


def draw(pool: Pool, votes_each: int, kinds: Sequence[str], *, has_gold: bool, seed: str) -> Project:
    """Draw people, pairs and votes.

    Args:
        pool: Real pairs.
        votes_each: Votes of each person.
        kinds: Of the bad people; the others are ordinary.
        has_gold: True if the better answer of some pairs is known.
        seed: Of all that is drawn.
    """
    rng = random.Random(seed)
    count = rng.randint(*PEOPLE)
    people = tuple(_person(number + 1, kind, rng) for number, kind in enumerate([*kinds, *[""] * (count - len(kinds))]))
    asked = rng.sample(pool.pairs, count * votes_each // VOTES)
    clear = [one.comparison.id for one in asked if one.share >= CLEAR]
    gold = set(rng.sample(clear, min(len(clear), round(GOLD * len(asked))))) if has_gold else set()
    pairs, annotations = {}, []
    done = [0] * count
    for real in asked:
        pair = Pair(comparison=real.comparison, swapped=is_swapped(seed, real.comparison.id))
        pairs[real.comparison.id] = pair
        for place in sorted(range(count), key=lambda place: (done[place], rng.random()))[:VOTES]:
            done[place] += 1
            annotations.append(_annotation(len(annotations) + 1, people[place], pair, real, pool, rng))
    truth = {one.comparison.id: one.truth for one in asked}
    known = {name: truth[name] for name in gold}
    return Project(people=people, truth=truth, work=from_log(pairs, list(pairs), annotations, known))


def _person(number: int, kind: str, rng: random.Random) -> Person:
    return Person(id=number, kind=kind, better=rng.gauss(0, DIFFER), speed=READING * exp(rng.gauss(0, READERS)))


def _annotation(number: int, person: Person, pair: Pair, real: RealPair, pool: Pool, rng: random.Random) -> Annotation:
    side, strength = vote(person, pair, real, pool, rng)
    place = 1 - side if pair.swapped else side
    half = len(LEVELS) // 2
    level = LEVELS[half + strength if place else half - 1 - strength]
    return Annotation(
        id=number, task_id=number, pair_id=real.comparison.id, kind="annotation", annotator=person.id,
        updated_at="2026-01-01T00:00:00Z", seconds=_seconds(person, pair, rng),
        result=({"from_name": "preference", "value": {"choices": [level]}},),
    )  # fmt: skip


def vote(person: Person, pair: Pair, real: RealPair, pool: Pool, rng: random.Random) -> tuple[int, int]:
    """Return side and strength."""
    if person.kind.startswith("always") and rng.random() < SLIPS:
        return _ordinary(person, real, pool, rng)
    match person.kind:
        case "noisy":
            return real.truth if rng.random() < NOISY else 1 - real.truth, rng.choice(pool.strengths)
        case "always left":
            return int(pair.swapped), rng.choice(pool.strengths)
        case "always longer":
            first, second = (len(one.text) for one in real.comparison.shown)
            return int(second > first), rng.choice(pool.strengths)
        case "random" | "too fast and random":
            return rng.randrange(2), rng.choice(pool.strengths)
        case _:
            return _ordinary(person, real, pool, rng)


def _ordinary(person: Person, real: RealPair, pool: Pool, rng: random.Random) -> tuple[int, int]:
    """Vote as one of the pair's real people did; who is better than others thinks twice, who is worse guesses at times.

    With a share p of a pair's votes right, drawing wrong ones again makes p + p (1 - p), guessing makes 1 / 2.
    """
    side, strength = rng.choice(real.votes)
    if person.better < 0 and rng.random() < -person.better / (pool.right - 0.5):
        return rng.randrange(2), strength
    if person.better > 0 and side != real.truth and rng.random() < person.better / pool.split:
        return rng.choice(real.votes)
    return side, strength


def _seconds(person: Person, pair: Pair, rng: random.Random) -> float:
    if person.kind.startswith("too fast"):
        return rng.uniform(*HURRY)
    shown = sum(len(turn.content) for turn in pair.prompt.messages) + sum(map(len, pair.placed))
    return shown * person.speed * exp(rng.gauss(0, VARIES))


def judge(project: Project, votes_each: int) -> Outcome:
    """Let the product test the people and put the votes together."""
    ratings = project.work.ratings
    named: dict[str, list[str]] = {}
    for one in findings(ratings):
        if one.is_named:
            named.setdefault(one.annotator, []).append(one.test)
    bad = tuple((one.kind, tuple(named.get(one.name, ()))) for one in project.people if one.kind)
    innocents = tuple(test for one in project.people if not one.kind for test in named.get(one.name, ()))
    majority, agreed = accuracies(project)
    has_gold = any(one.gold is not None for one in ratings)
    return Outcome(
        votes_each=votes_each, has_gold=has_gold, bad=bad, innocents=innocents, majority=majority, consensus=agreed
    )


def accuracies(project: Project) -> tuple[float, float]:
    """Return the share of pairs, of those with a vote for a side, whose truth majority and consensus find."""
    pairs = by_pair(project.work.ratings)
    votes = votes_of(pairs)
    agreed = consensus(votes)
    right = [0.0, 0.0]
    judged = [(project.truth[name], its, second) for name, its, second in zip(pairs, votes, agreed.second, strict=True)]
    voted = [one for one in judged if one[1]]
    for true, its, second in voted:
        share = sum(side for _, side in its) / len(its)
        for place, chance in enumerate((share, second)):
            right[place] += 0.5 if chance == 0.5 else float((chance > 0.5) == bool(true))
    return right[0] / len(voted), right[1] / len(voted)
