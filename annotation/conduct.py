"""Whose batch to redo: each annotator held against what an attentive person's votes would look like.

| test | an attentive person | named if |
|---|---|---|
| gold | is right on pairs whose better answer is known as often as `least_gold` | right on too few |
| others | agrees with what all others' votes come to as often as half of the annotators do, give or take | too seldom |
| left | prefers the left answer in half of the pairs, since sides are drawn | one side too often |
| longer | where they differ from the others, prefers the longer answer in half of the cases, plus `SLACK` | too often |
| fast | reads: one vote of twenty takes half of the time per character of a middling person's fastest ones | more do |

All are binomial tests; as people are not equally good, that of agreement lets each person's own rate lie around half of
the annotators' by `SPREAD`. The chance that a project without a bad annotator names one is held to `false_alarms`, over
all annotators and tests together (Holm 1979).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import exp, fsum, lgamma, log, log1p
from statistics import median

import numpy as np

from annotation.dawid_skene import consensus
from annotation.ratings import Rating, by_annotator, by_pair, votes_of

FASTEST = 0.05
HURRIED = 0.5
"""Part of the fastest twentieth's time below which a vote was not read; people read at different speeds."""
SPREAD = 0.05
"""Standard deviation of how often people who all take care agree with the others: 0.042 among the workers of
ukp_convarg, 0.038 among the raters of wmt23_zhen (benchmarks/results/simulated_annotators)."""
SLACK = 0.1
"""The best annotators differ where the others are wrong: where the better answer tends to be the longer one, on the
side of the longer one."""
FEWEST = 10
"""Votes that a test needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One test of one annotator.

    Example:
        Finding(annotator="person:7", test="left", count=61, of=70, expected=0.5, chance=1e-10, is_named=True)
    """

    annotator: str
    test: str
    count: int
    """Votes that the test counts."""
    of: int
    expected: float
    """Share that an attentive person has."""
    chance: float
    """Probability of such a count, or a worse one, if they were attentive."""
    is_named: bool
    """True where chance does not explain it, all tests of all annotators considered."""

    @property
    def share(self) -> float:
        """What was found in place of `expected`."""
        return self.count / self.of


def findings(ratings: Sequence[Rating], *, least_gold: float = 0.8, false_alarms: float = 0.05) -> list[Finding]:
    """Return every test of every annotator, the least likely first.

    Args:
        ratings: Of a project.
        least_gold: Share of gold pairs that an attentive person gets right.
        false_alarms: Chance that anybody is named where nobody is to blame.
    """
    people = by_annotator(ratings)
    others = _all_others(people, ratings)
    raw = [one for name, its in people.items() for one in _tests(name, its, others, least_gold)]
    raw.sort(key=lambda one: (one.chance, one.annotator, one.test))
    named = holm([one.chance for one in raw], false_alarms)
    return [
        Finding(
            annotator=one.annotator, test=one.test, count=one.count, of=one.of, expected=one.expected,
            chance=one.chance, is_named=is_named,
        )
        for one, is_named in zip(raw, named, strict=True)
    ]  # fmt: skip


def holm(chances: Sequence[float], level: float) -> list[bool]:
    """Return which of ascending p-values are rejected so that a false one is among them at most at `level` (Holm)."""
    named = []
    goes_on = True
    for place, chance in enumerate(chances):
        goes_on = goes_on and chance <= level / (len(chances) - place)
        named.append(goes_on)
    return named


def at_least(count: int, of: int, share: float) -> float:
    """Return the probability of `count` successes or more in `of` trials of chance `share`."""
    if not 0 < share < 1:
        return float(share >= 1 or count <= 0)
    ways = lgamma(of + 1)
    logs = (
        ways - lgamma(k + 1) - lgamma(of - k + 1) + k * log(share) + (of - k) * log1p(-share)
        for k in range(max(0, count), of + 1)
    )
    return min(1.0, fsum(map(exp, logs)))


def at_most(count: int, of: int, share: float) -> float:
    """Return the probability of `count` successes or fewer."""
    return at_least(of - count, of, 1 - share)


def at_most_by_people(count: int, of: int, share: float) -> float:
    """Return the probability of `count` successes or fewer where the chance of one differs from person to person.

    It has a beta distribution of mean `share` and standard deviation SPREAD, the successes a beta-binomial one
    (Skellam 1948).
    """
    share = min(max(share, SPREAD), 1 - SPREAD)  # nearer to 0 or 1 no beta distribution deviates so much
    weight = share * (1 - share) / SPREAD**2 - 1
    for_it, against = share * weight, (1 - share) * weight
    whole = lgamma(of + 1) + lgamma(weight) - lgamma(weight + of) - lgamma(for_it) - lgamma(against)
    logs = (
        whole - lgamma(k + 1) - lgamma(of - k + 1) + lgamma(k + for_it) + lgamma(of - k + against)
        for k in range(min(count, of) + 1)
    )
    return min(1.0, fsum(map(exp, logs)))


def _finding(annotator: str, test: str, count: int, of: int, expected: float, chance: float) -> Finding:
    return Finding(annotator=annotator, test=test, count=count, of=of, expected=expected, chance=chance, is_named=False)


def _tests(name: str, its: Sequence[Rating], others: Mapping[str, "_Others"], least_gold: float) -> Iterator[Finding]:
    own = others[name]
    known = [rating for rating in its if rating.gold is not None]
    if len(known) >= FEWEST:
        right = sum(rating.side == rating.gold for rating in known)
        yield _finding(name, "gold", right, len(known), least_gold, at_most(right, len(known), least_gold))
    placed = [rating.is_left for rating in its if rating.is_left is not None]
    if len(placed) >= FEWEST:
        left = sum(placed)
        chance = min(1.0, 2 * min(at_least(left, len(placed), 0.5), at_most(left, len(placed), 0.5)))
        yield _finding(name, "left", left, len(placed), 0.5, chance)
    theirs = [one.share for one in others.values() if len(one.voted) >= FEWEST]
    if len(own.voted) >= FEWEST:
        expected, voted = median(theirs), len(own.voted)
        yield _finding(name, "others", own.same, voted, expected, at_most_by_people(own.same, voted, expected))
        differs = [rating for rating in own.differing if rating.is_longer is not None]
        if len(differs) >= FEWEST:
            longer = sum(bool(rating.is_longer) for rating in differs)
            expected = 0.5 + SLACK
            yield _finding(name, "longer", longer, len(differs), expected, at_least(longer, len(differs), expected))
    timed = [pace for rating in its if (pace := _pace(rating)) is not None]
    if len(timed) >= FEWEST and own.fastest is not None:
        fast = sum(pace < HURRIED * own.fastest for pace in timed)
        yield _finding(name, "fast", fast, len(timed), FASTEST, at_least(fast, len(timed), FASTEST))


@dataclass(frozen=True, slots=True)
class _Others:
    """One person's votes beside what everyone else says."""

    voted: tuple[Rating, ...]
    """Their votes on pairs for which the others' come to a side."""
    differing: tuple[Rating, ...]
    """Those of them that name the other side."""
    fastest: float | None
    """Seconds a character below which a twentieth of the votes lies, of half of the others."""

    @property
    def same(self) -> int:
        """Votes that name the others' side."""
        return len(self.voted) - len(self.differing)

    @property
    def share(self) -> float:
        """The part of the votes that they are."""
        return self.same / len(self.voted)


def _all_others(people: Mapping[str, Sequence[Rating]], ratings: Sequence[Rating]) -> dict[str, _Others]:
    """Hold everyone against the rest: rates of all votes, sides of a pair by its other votes alone."""
    pairs = by_pair(ratings)
    votes = dict(zip(pairs, votes_of(pairs), strict=True))
    agreed = consensus(list(votes.values()))
    fastest = {name: pace for name, its in people.items() if (pace := _fastest(its)) is not None}
    found = {}
    for name, its in people.items():
        voted, differing = [], []
        for rating in its:
            theirs = [vote for vote in votes[rating.pair_id] if vote[0] != name]
            second = agreed.second_by(theirs) if theirs and rating.strength else 0.5
            if second != 0.5:
                voted.append(rating)
                differing += [rating] if rating.side != int(second > 0.5) else []
        # half of the people: two who hurry would hide each other among all votes
        rest = [pace for other, pace in fastest.items() if other != name]
        found[name] = _Others(tuple(voted), tuple(differing), median(rest) if rest else None)
    return found


def _pace(rating: Rating) -> float | None:
    """Seconds a character."""
    return None if rating.seconds is None or not rating.characters else rating.seconds / rating.characters


def _fastest(ratings: Sequence[Rating]) -> float | None:
    """Seconds a character below which a twentieth of one person's votes lies; None where too few are timed."""
    paces = [pace for rating in ratings if (pace := _pace(rating)) is not None]
    return float(np.quantile(paces, FASTEST)) if len(paces) >= FEWEST else None
