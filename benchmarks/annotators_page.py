"""What the projects of simulated annotators come to: figures, and the page that shows them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from benchmarks.annotators_drawn import RIGHT, Outcome
from benchmarks.check_truths import share_interval
from benchmarks.told_run import Run, told
from finlm.intervals import bootstrap

Figures = dict[str, Any]


def figures_of(outcomes: Sequence[Outcome]) -> Figures:
    """Return the figures of one set."""
    sizes = sorted({one.votes_each for one in outcomes})
    good = [one for one in outcomes if not one.bad]
    bad = [one for one in outcomes if one.bad]

    def by_size(of: Callable[[Sequence[Outcome]], Figures], rows: Sequence[Outcome]) -> Figures:
        found = {str(size): of([one for one in rows if one.votes_each == size]) for size in sizes}
        return found | {"all": of(rows)}

    return {
        "alarms": by_size(alarms, good),
        "alarms_without_gold": by_size(alarms, [one for one in good if not one.has_gold]),
        "alarms_with_gold": by_size(alarms, [one for one in good if one.has_gold]),
        "alarms_beside_bad": by_size(alarms, bad),
        "power": {kind: by_size(lambda rows, kind=kind: power(rows, kind), bad) for kind in RIGHT},  # type: ignore[misc]
        "votes_nobody_bad": by_size(accuracy, good),
        "votes_some_bad": by_size(accuracy, bad),
    }


def share(hits: int, count: int) -> Figures:
    """A share with Wilson's 95 % interval."""
    low, high = share_interval(hits, count)
    return {"hits": hits, "of": count, "share": hits / count if count else None, "low": low, "high": high}


def alarms(outcomes: Sequence[Outcome]) -> Figures:
    """Projects in which somebody ordinary is named, and the tests that did it."""
    tests = [test for one in outcomes for test in one.innocents]
    by_test = {test: tests.count(test) for test in sorted(set(tests))}
    return share(sum(bool(one.innocents) for one in outcomes), len(outcomes)) | {"tests": by_test}


def power(outcomes: Sequence[Outcome], kind: str) -> Figures:
    """Bad people of a kind who are named, and those who are named for what they do."""
    named = [set(tests) for one in outcomes for its, tests in one.bad if its == kind]
    return share(sum(map(bool, named)), len(named)) | {"rightly": sum(bool(one & RIGHT[kind]) for one in named)}


def accuracy(outcomes: Sequence[Outcome]) -> Figures:
    """Mean accuracy of majority and consensus, and their difference; the interval draws projects."""
    gain = bootstrap([one.consensus - one.majority for one in outcomes], seed=0) if outcomes else None
    count = max(1, len(outcomes))
    return {
        "projects": len(outcomes),
        "majority": sum(one.majority for one in outcomes) / count,
        "consensus": sum(one.consensus for one in outcomes) / count,
        "gain": gain.mean if gain else None, "low": gain.low if gain else None, "high": gain.high if gain else None,
    }  # fmt: skip


def markdown(figures: Figures, run: Run) -> str:
    """The page."""
    sets = figures["sets"]
    lines = [
        "# Simulated annotators over the real votes of two sets",
        "",
        f"Projects of each set by votes a person ({figures['votes']}): {figures['projects']} with nobody bad, "
        f"{figures['with_bad']} with one to three bad people. 8 to 12 people, three votes a pair, places drawn by a "
        "seed, every second project with 10 % gold pairs. Votes are read by `judged.from_log` and tested by "
        "`conduct.findings`; a name is what `finlm annotate report` and `check` would print.",
        "",
        *_ground(sets),
        "## False alarms",
        "",
        "Share of projects in which somebody ordinary is named, with Wilson's 95 % interval. At most 5 % is promised.",
        "",
        *_table(["set", "votes each", "nobody bad", "of them without gold", "with gold", "beside bad ones", "tests"],
                [row for name, one in sets.items() for row in _alarm_rows(name, one)]),
        "",
        "## Bad ones who are named",
        "",
        "Share of bad people whom any test names, both sets; in brackets those named for what they do (noisy, random: "
        "seldom with the others or wrong on gold; too fast: too fast), last how many there were.",
        "",
        *_power(sets),
        "",
        "## Votes put together",
        "",
        "Share of pairs whose truth is found, a tie of the majority counting as half; gain: consensus (Dawid, Skene) "
        "less majority in the same project, with a 95 % interval over projects.",
        "",
        *_table(["set", "bad people", "votes each", "majority", "consensus", "gain"],
                [row for name, one in sets.items() for row in _gain_rows(name, one)]),
        "",
        "## Alpha of the real votes",
        "",
        *_table(["set", "of", "here", "95 % interval", "package krippendorff", "difference", "pairs", "ratings"],
                [row for name, one in sets.items() for row in _alpha_rows(name, one["alpha"])]),
        "",
        "## Real people as they are",
        "",
        *_own(sets),
        "It does not show bad annotators of real projects, who need not be one of these kinds all the time, nor times "
        "of real people: reading is drawn at 238 words a minute, 175 to 300 for 90 % of people (Brysbaert 2019), and a "
        "person's own times vary by a factor of e^0.5, which is assumed.",
        "",
        *told(run),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (columns, ["---"] * len(columns), *rows)]


def _ground(sets: Figures) -> Iterator[str]:
    for name, one in sets.items():
        ground = one["ground"]
        left_out = ", ".join(f"{count:,} with {rule}" for rule, count in ground["left_out"].items())
        yield (
            f"{name}: {ground['pairs']:,} pairs; the truth is the answer with more of a pair's real votes; left out: "
            f"{left_out}. A vote of who is ordinary is one of the pair's real votes, drawn anew (right in "
            f"{ground['right']:.1%} on average). People differ in how often they vote with the others by a standard "
            f"deviation of {ground['spread_simulated']:.3f}, the set's real ones by {ground['spread_real']:.3f}."
        )
        yield ""
    yield (
        "Bad ones: noisy (the truth in 60 %), always left and always longer (nine votes of ten), random, too fast (1 "
        "to 4 seconds a pair, with ordinary votes or random ones)."
    )
    yield ""


def _shown(one: Figures) -> str:
    return f"{one['share']:.1%} [{one['low']:.1%}, {one['high']:.1%}]" if one["of"] else "–"


def _alarm_rows(name: str, one: Figures) -> Iterator[list[str]]:
    for size, found in one["alarms"].items():
        parts = [one[part][size] for part in ("alarms_without_gold", "alarms_with_gold", "alarms_beside_bad")]
        tests = ", ".join(f"{test} {count}" for test, count in found["tests"].items())
        yield [name, size, _shown(found), *map(_shown, parts), tests or "–"]


def _power(sets: Figures) -> list[str]:
    sizes = list(next(iter(sets.values()))["alarms"])[:-1]
    rows = []
    for kind in RIGHT:
        cells = [kind]
        for size in sizes:
            found = [one["power"][kind][size] for one in sets.values()]
            hits, rightly, count = (sum(one[key] for one in found) for key in ("hits", "rightly", "of"))
            cells.append(f"{hits / count:.0%} ({rightly / count:.0%}) of {count}" if count else "–")
        rows.append(cells)
    return _table(["kind", *(f"{size} votes each" for size in sizes)], rows)


def _gain_rows(name: str, one: Figures) -> Iterator[list[str]]:
    for part, said in (("votes_nobody_bad", "none"), ("votes_some_bad", "1 to 3")):
        for size, found in one[part].items():
            if found["projects"]:
                gain = f"{found['gain']:+.2%} [{found['low']:+.2%}, {found['high']:+.2%}]"
                yield [name, said, size, f"{found['majority']:.2%}", f"{found['consensus']:.2%}", gain]


def _alpha_rows(name: str, alpha: Figures) -> Iterator[list[str]]:
    for kind, one in alpha.items():
        yield [
            name, kind, f"{one['alpha']:.9f}", f"{one['low']:.3f} to {one['high']:.3f}", f"{one['krippendorff']:.9f}",
            f"{one['difference']:.0e}", f"{one['pairs']:,}", f"{one['ratings']:,}",
        ]  # fmt: skip


def _own(sets: Figures) -> Iterator[str]:
    for name, one in sets.items():
        own = one["as_they_are"]
        tests = ", ".join(f"{test} {count}" for test, count in own["tests"].items()) or "none"
        yield (
            f"{name}: {own['projects']} projects (a debate or document each) with {own['people']:,} people in all; "
            f"{own['named']} are named in {own['projects_with_some']} of them (tests: {tests}). Who of them is to "
            "blame nobody knows, and pairs of a project share texts."
        )
        yield ""
