"""The page of `finlm annotate report`: from pairs and ratings to sections."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, combinations
from statistics import median

from annotation import reliability
from annotation.conduct import FEWEST, Finding, findings
from annotation.dawid_skene import Consensus, consensus
from annotation.judged import Compared, Work
from annotation.ratings import Rating, by_annotator, by_pair, levels_of, sides_of, votes_of
from annotation.reliability import Reliability
from annotation.vocabulary import LEVELS
from finlm import report

DISCUSSED = 12
"""Pairs to discuss on the page."""
PEOPLE = 60
"""Annotators in the table at most, most ratings first."""
COUPLES = 40
"""Pairs of people in the table of kappas at most."""
SHOWN = 600
"""Most characters of a text."""
SAID = {
    "gold": "wrong on pairs of known answer",
    "left": "one place on the page too often",
    "others": "seldom with the others",
    "longer": "the longer answer where others differ",
    "fast": "too fast to have read",
}


def page_of(work: Work, title: str, *, least_gold: float, false_alarms: float) -> report.Page:
    """Return the page.

    Args:
        work: Pairs and ratings.
        title: What they are of.
        least_gold: See `annotation.conduct.findings`.
        false_alarms: Likewise.
    """
    pairs = by_pair(work.ratings)
    found = findings(work.ratings, least_gold=least_gold, false_alarms=false_alarms)
    agreed = consensus(votes_of(pairs))
    alpha = reliability.alpha(levels_of(pairs), len(LEVELS), "ordinal")
    by_person = by_annotator(work.ratings)
    counts = {name: len(its) for name, its in by_person.items()}
    levels = {name: {one.pair_id: (one.level,) for one in its} for name, its in by_person.items()}
    sections: list[report.Section] = [
        _headline(work, alpha, found),
        *progress(work.days, work.given),
        _agreement(pairs, alpha),
        *people(work.ratings, agreed, found, counts, work.given),
        *couples(levels, len(LEVELS), "Quadratic weights on the eight levels."),
        _categories(work.pairs, pairs),
        left_out(work.left_out),
        *_discussed(work.pairs, pairs, agreed),
    ]
    return report.Page("Annotation", title, tuple(sections))


def _headline(work: Work, alpha: Reliability, found: Sequence[Finding]) -> report.Figures:
    annotators = {rating.annotator for rating in work.ratings}
    named = {one.annotator for one in found if one.is_named}
    judged = len(work.pairs)
    per_pair = f"{len(work.ratings) / judged:.1f} a pair" if judged else ""
    return report.Figures(
        "In short",
        (
            report.Figure("Pairs judged", judged, remark=f"{work.waiting:,} are waiting"),
            report.Figure("Ratings", len(work.ratings), remark=per_pair),
            report.Figure("Annotators", len(annotators)),
            report.Figure("Alpha, eight levels", alpha.value, remark=interval(alpha)),
            report.Figure("To look at", len(named), remark=", ".join(sorted(named)[:4])),
        ),
    )


def interval(one: Reliability) -> str:
    """A coefficient's interval in words."""
    return f"{one.low:.2f} to {one.high:.2f}" if one.low is not None and one.high is not None else "too few pairs"


def progress(days: Mapping[str, int], given: str) -> Iterator[report.Section]:
    """Yield the curve of how the work went on, where it took several days."""
    if len(days) > 1:
        counts = tuple(float(count) for count in accumulate(days.values()))
        line = report.Series(given, tuple(map(float, range(1, 1 + len(days)))), counts)
        first, last = next(iter(days)), list(days)[-1]
        yield report.Curve("Progress", f"day of work, {first} to {last}", given, (line,))


def _agreement(pairs: Mapping[str, Sequence[Rating]], alpha: Reliability) -> report.Table:
    sides = sides_of(pairs)
    rows = [
        ("alpha of the eight levels, ordinal", alpha),
        ("alpha of the side", reliability.alpha(sides, 2, "nominal")),
        ("same side, raw", reliability.agreement(sides)),
    ]
    return report.Table(
        "How far people agree",
        ("measure", "value", "95 % interval", "pairs", "ratings"),
        tuple((name, rounded(one.value), interval(one), one.pairs, one.ratings) for name, one in rows),
        remark="Alpha is 1 where all agree and 0 where chance alone would do as well. Ratings that say nearly the same "
        "name no side. Intervals draw pairs.",
    )


def rounded(value: float | None) -> float | None:
    """As a table shows it."""
    return None if value is None else round(value, 3)


def people(
    ratings: Sequence[Rating], agreed: Consensus, found: Sequence[Finding], counts: Mapping[str, int], given: str
) -> Iterator[report.Section]:
    """Yield everybody's figures, and the batches to do again if there are any.

    Args:
        ratings: Of all people.
        agreed: What they come to.
        found: The tests of people.
        counts: By person, how many pairs or sets they judged.
        given: What these are called.
    """
    tests: dict[str, dict[str, Finding]] = defaultdict(dict)
    for one in found:
        tests[one.annotator][one.test] = one
    rows = []
    order = sorted(by_annotator(ratings).items(), key=lambda item: (-counts[item[0]], item[0]))
    for name, its in order[:PEOPLE]:
        seconds = [rating.seconds for rating in its if rating.seconds is not None]
        named = [SAID[test] for test, one in tests[name].items() if one.is_named]
        rows.append(
            (
                name,
                counts[name],
                round(median(seconds)) if seconds else None,
                *(_share(tests[name].get(test)) for test in ("gold", "others", "left", "longer")),
                f"{agreed.accuracy[name]:.0%}" if name in agreed.accuracy else None,
                "; ".join(named) or "–",
            )
        )
    more = f" The {PEOPLE} with most {given} of {len(order):,}." if len(order) > PEOPLE else ""
    yield report.Table(
        "People",
        ("annotator", given, "seconds", "gold", "with others", "left", "longer", "reliability", "look at"),
        tuple(rows),
        remark="Gold: right where the answer is known. With others: votes for the side that all others' come to. Left: "
        "votes for the answer on the left (of a ranking: the earlier one), half is right. Longer: of the votes against "
        "the others, those for the longer answer. Reliability: how often right, by Dawid and Skene. A dash: too few "
        f"votes to tell. Tests name who is to be looked at, and an innocent in one of twenty projects; they need "
        f"{FEWEST} votes.{more}",
    )
    redo = [one for one in found if one.is_named]
    if redo:
        yield report.Table(
            "Batches to do again",
            ("annotator", "because", "votes", "of", "expected", "chance"),
            tuple(
                (one.annotator, SAID[one.test], one.count, one.of, f"{one.expected:.0%}", f"{one.chance:.1e}")
                for one in redo
            ),
            remark="Chance: the probability of such a count if the annotator were attentive.",
        )


def _share(one: Finding | None) -> str | None:
    return None if one is None else f"{one.share:.0%}"


def couples(levels: Mapping[str, Mapping[str, Sequence[int]]], values: int, remark: str) -> Iterator[report.Section]:
    """Yield the kappa of each two people who judged enough of the same.

    Args:
        levels: By person, by pair or set, what they gave it, 0 to `values` - 1.
        values: How many values there are.
        remark: What they are.
    """
    most = sorted(levels, key=lambda name: (-len(levels[name]), name))[:PEOPLE]
    shared = [
        (one, other, common)
        for one, other in combinations(most, 2)
        if len(common := sorted(levels[one].keys() & levels[other].keys())) >= FEWEST
    ]
    shared.sort(key=lambda item: (-len(item[2]), item[0], item[1]))
    rows = []
    for one, other, common in shared[:COUPLES]:
        first, second = ([value for name in common for value in levels[who][name]] for who in (one, other))
        rows.append((f"{one} and {other}", len(common), rounded(reliability.quadratic_kappa(first, second, values))))
    if rows:
        more = f" The {COUPLES} with most in common of {len(shared):,}." if len(shared) > COUPLES else ""
        yield report.Table("Two by two", ("people", "in common", "kappa"), tuple(rows), remark=f"{remark}{more}")


def _categories(compared: Mapping[str, Compared], pairs: Mapping[str, Sequence[Rating]]) -> report.Table:
    names = sorted({one.category for one in compared.values()})
    rows = []
    for name in names:
        its = {pair: ratings for pair, ratings in pairs.items() if compared[pair].category == name}
        same = reliability.agreement(sides_of(its))
        longer = [one.is_longer for ratings in its.values() for one in ratings if one.is_longer is not None]
        rows.append(
            (
                name,
                len(its),
                sum(map(len, its.values())),
                rounded(same.value),
                interval(same),
                f"{sum(longer) / len(longer):.0%}" if longer else None,
            )
        )
    return report.Table(
        "Categories", ("category", "pairs", "ratings", "same side", "95 % interval", "longer preferred"), tuple(rows)
    )


def left_out(reasons: Mapping[str, int]) -> report.Table:
    """Return what did not count, by reason."""
    return report.Table("Left out", ("what", "how many"), tuple(reasons.items()) or (("nothing", 0),))


def _discussed(
    compared: Mapping[str, Compared], pairs: Mapping[str, Sequence[Rating]], agreed: Consensus
) -> Iterator[report.Section]:
    """Yield the pairs on which strong opinions stand against each other."""
    chances = dict(zip(pairs, agreed.second, strict=True))
    apart = []
    for name, its in pairs.items():
        against = [sum(one.strength for one in its if one.side == side) for side in (0, 1)]
        if min(against):
            apart.append((min(against), name))
    apart.sort(key=lambda item: (-item[0], item[1]))
    samples = []
    for _, name in apart[:DISCUSSED]:
        its = pairs[name]
        votes = [", ".join(f"{one.annotator} {one.strength}" for one in its if one.side == side) for side in (0, 1)]
        samples.append(
            report.Sample(
                short(compared[name].prompt),
                tuple(
                    report.Answer(short(text), remark=f"preferred by {said}")
                    for text, said in zip(compared[name].answers, votes, strict=True)
                ),
                label=f"{compared[name].category}, {chances[name]:.0%} for the second",
            )
        )
    if samples:
        yield report.Samples(
            "To discuss",
            ("first", "second"),
            tuple(samples),
            remark=f"Of {len(apart):,} pairs with votes for both answers, those with the strongest. The number behind "
            "a name is the strength, 0 to 3.",
        )


def short(text: str) -> str:
    """The beginning of a long text."""
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
