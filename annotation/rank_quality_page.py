"""The page of `finlm annotate report` for a project that asks for ranks: from sets and rankings to sections."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean

from annotation import reliability
from annotation.conduct import Finding, findings
from annotation.dawid_skene import consensus
from annotation.quality_page import DISCUSSED, couples, interval, left_out, people, progress, rounded, short
from annotation.ranked import Ranked, RankWork, disputed, ranks_by_answer, sides_by_comparison
from annotation.ratings import by_annotator, by_pair, votes_of
from annotation.reliability import Reliability
from annotation.vocabulary import PLACES, RANKS
from finlm import report


def page_of(work: RankWork, title: str, *, false_alarms: float) -> report.Page:
    """Return the page.

    Args:
        work: Sets and rankings.
        title: What they are of.
        false_alarms: See `annotation.conduct.findings`.
    """
    sets = work.by_set()
    found = findings(work.ratings, false_alarms=false_alarms)
    agreed = consensus(votes_of(by_pair(work.ratings)))
    counts = {name: len(work.batch(name)) for name in by_annotator(work.ratings)}
    ranks: dict[str, dict[str, tuple[int, ...]]] = {name: {} for name in counts}
    for one in work.rankings:
        ranks[one.annotator][one.set_id] = tuple(rank - 1 for rank in one.ranks)
    alpha = reliability.alpha_together(list(map(ranks_by_answer, sets.values())), len(RANKS), "ordinal")
    sections: list[report.Section] = [
        _headline(work, alpha, found),
        *progress(work.days, work.given),
        _agreement(sets, alpha),
        *people(work.ratings, agreed, found, counts, work.given),
        *couples(ranks, len(RANKS), "Quadratic weights on the four answers' ranks."),
        _places(work.rankings),
        _categories(work, sets),
        left_out(work.left_out),
        *_discussed(work, sets),
    ]
    return report.Page("Annotation", title, tuple(sections))


def _headline(work: RankWork, alpha: Reliability, found: Sequence[Finding]) -> report.Figures:
    named = sorted({one.annotator for one in found if one.is_named})
    return report.Figures(
        "In short",
        (
            report.Figure("Sets ranked", work.judged, remark=f"{work.waiting:,} are waiting"),
            report.Figure("Rankings", work.count, remark=f"{work.count / work.judged:.1f} a set"),
            report.Figure("Annotators", len({one.annotator for one in work.rankings})),
            report.Figure("Alpha, ranks", alpha.value, remark=interval(alpha)),
            report.Figure("To look at", len(named), remark=", ".join(named[:4])),
        ),
    )


def _agreement(sets: Mapping[str, Sequence[Ranked]], alpha: Reliability) -> report.Table:
    sides = reliability.agreement_together(list(map(sides_by_comparison, sets.values())))
    rows = (("alpha of the ranks, ordinal", alpha), ("same answer of two ahead, raw", sides))
    return report.Table(
        "How far people agree",
        ("measure", "value", "95 % interval", "sets"),
        tuple((name, rounded(one.value), interval(one), one.pairs) for name, one in rows),
        remark="Alpha is 1 where all give the same ranks and 0 where chance alone would do as well. Raw: of each two "
        "of the four answers, how often two people put the same one ahead; ties say nothing. Intervals draw sets.",
    )


def _places(rankings: Sequence[Ranked]) -> report.Table:
    """Mean ranks by place: places are drawn, so that all are alike where nobody goes by them."""
    given = [[one.ranks[one.places.index(place)] for one in rankings] for place in range(len(PLACES))]
    return report.Table(
        "Places on the page",
        ("place", "mean rank", "ranked first"),
        tuple(
            (name.upper(), round(fmean(ranks), 2), f"{ranks.count(1) / len(ranks):.0%}")
            for name, ranks in zip(PLACES, given, strict=True)
        ),
        remark="Which answer stands where is drawn, so all places should be alike.",
    )


def _categories(work: RankWork, sets: Mapping[str, Sequence[Ranked]]) -> report.Table:
    rows = []
    for category in sorted({shown.prompt.category for shown in work.sets.values()}):
        its = [rankings for name, rankings in sets.items() if work.sets[name].prompt.category == category]
        alpha = reliability.alpha_together(list(map(ranks_by_answer, its)), len(RANKS), "ordinal")
        rows.append((category, len(its), sum(map(len, its)), rounded(alpha.value), interval(alpha)))
    return report.Table("Categories", ("category", "sets", "rankings", "alpha", "95 % interval"), tuple(rows))


def _discussed(work: RankWork, sets: Mapping[str, Sequence[Ranked]]) -> Iterator[report.Section]:
    """Yield the sets of which some two answers are ordered oppositely, the widest apart first."""
    wide = disputed(work, 1)
    samples = []
    for by, name in wide[:DISCUSSED]:
        shown = work.sets[name]
        answers = [
            report.Answer(
                short(answer.text), remark=", ".join(f"{one.annotator}: {one.ranks[number]}" for one in sets[name])
            )
            for number, answer in enumerate(shown.answers.answers)
        ]
        prompt = "\n\n".join(turn.content for turn in shown.prompt.messages)
        samples.append(
            report.Sample(short(prompt), tuple(answers), label=f"{shown.prompt.category}, {by} ranks either way")
        )
    if samples:
        yield report.Samples(
            "To discuss",
            ("first", "second", "third", "fourth"),
            tuple(samples),
            remark=f"Of {len(wide):,} sets with two answers that people order oppositely, those furthest apart. Behind "
            "a name stands the rank that the person gave the answer; 1 is best.",
        )
