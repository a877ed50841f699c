"""Does the report name bad annotators, and spare the others? Simulated people over the real votes of two sets.

    python benchmarks/simulated_annotators.py --data ../shared/data/preferences \
        --out benchmarks/results/simulated_annotators_X.json

Hundreds of projects for each set and number of votes a person, of 8 to 12 people and three votes a pair: one part with
nobody bad among them, one with one to three. `benchmarks/annotators_real.py` has the ground, `annotators_drawn.py` the
people, `annotators_page.py` the figures.
"""

import argparse
import os
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: import from this checkout, not from this folder or from an older install
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from annotation.conduct import findings
from annotation.judged import from_preferences
from annotation.ratings import by_pair, votes_of
from benchmarks import annotators_drawn as drawn
from benchmarks.annotators_page import figures_of, markdown
from benchmarks.annotators_real import Pool, alphas, load, spread
from benchmarks.told_run import run_of
from finlm.records import PreferencePair
from finlm.runs import write_json, write_text

SIZES = (30, 60, 120, 300)
GOOD = (200, 200, 100, 60)
BAD = (100, 100, 60, 30)


def main() -> None:
    """Import, draw, judge, write."""
    asked = arguments()
    with tempfile.TemporaryDirectory() as folder:
        pools = load(asked.data, Path(folder), limit=asked.limit)
    sets = {}
    for pool in pools:
        outcomes = []
        for votes_each, good, bad in zip(asked.votes, asked.projects, asked.bad, strict=True):
            outcomes += list(projects(pool, votes_each, good, bad))
            print(f"{pool.name}, {votes_each} votes each: done", file=sys.stderr, flush=True)
        sets[pool.name] = figures_of(outcomes) | {
            "ground": ground(pool, max(asked.votes)),
            "alpha": alphas(pool),
            "as_they_are": own(pool),
        }
    run = run_of(("numpy", "krippendorff"))
    counts = {"votes": asked.votes, "projects": asked.projects, "with_bad": asked.bad}
    figures = {"sets": sets} | {name: ", ".join(map(str, its)) for name, its in counts.items()}
    page = markdown(figures, run)
    print(page)
    if asked.out:
        write_json(asked.out, {"figures": figures, "runs": [run]})
        write_text(asked.out.with_suffix(".md"), page)


def arguments() -> argparse.Namespace:
    """Sizes and places."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of ukp_convarg and wmt23_zhen (.jsonl.xz)")
    several: dict[str, Any] = {"type": int, "nargs": "+"}
    parser.add_argument("--votes", **several, default=SIZES, help="of each person (default: %(default)s)")
    parser.add_argument("--projects", **several, default=GOOD, help="with nobody bad (default: %(default)s)")
    parser.add_argument("--bad", **several, default=BAD, help="with some (default: %(default)s)")
    parser.add_argument("--limit", type=int, default=0, help="pairs of a set at most; 0: all (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="JSON file to write; the page goes beside it")
    return parser.parse_args()


def projects(pool: Pool, votes_each: int, good: int, bad: int) -> Iterator[drawn.Outcome]:
    """Yield the outcome of each project; every second one has gold pairs."""
    for number in range(good + bad):
        seed = f"{pool.name}:{votes_each}:{number}"
        is_bad = number >= good
        kinds = random.Random(seed).choices(list(drawn.RIGHT), k=1 + number % drawn.MOST_BAD) if is_bad else []
        yield drawn.judge(drawn.draw(pool, votes_each, kinds, has_gold=number % 2 == 1, seed=seed), votes_each)


def ground(pool: Pool, votes_each: int) -> dict[str, object]:
    """Return what the pool is, and how far simulated people differ beside real ones."""
    real = spread(votes_of(by_pair(from_preferences(pool.preferences).ratings)))
    made = [drawn.draw(pool, votes_each, [], has_gold=False, seed=f"spread:{number}") for number in range(8)]
    found = [spread(votes_of(by_pair(project.work.ratings))) for project in made]
    return {
        "pairs": len(pool.pairs), "left_out": pool.left_out, "right": pool.right, "spread_real": real,
        "spread_simulated": (sum(one**2 for one in found) / len(found)) ** 0.5,
    }  # fmt: skip


def own(pool: Pool) -> dict[str, object]:
    """Return whom the product names among the real people, each debate or document's votes a project of its own."""
    groups: dict[str, list[PreferencePair]] = {}
    for one in pool.preferences:
        groups.setdefault(one.prompt.group, []).append(one)
    named, people, with_some = 0, 0, 0
    tests: dict[str, int] = {}
    for its in groups.values():
        work = from_preferences(its)
        people += len({one.annotator for one in work.ratings})
        found = [one for one in findings(work.ratings) if one.is_named]
        named += len({one.annotator for one in found})
        with_some += bool(found)
        for one in found:
            tests[one.test] = tests.get(one.test, 0) + 1
    return {"projects": len(groups), "people": people, "named": named, "projects_with_some": with_some, "tests": tests}


if __name__ == "__main__":
    main()
