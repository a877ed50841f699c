"""How much of what is false Self-QA's checker rejects, and how much of what is true it accepts.

    python benchmarks/selfqa_check.py

makes true pairs from an inline-XBRL filing (read by ixbrlparse), from cells of a Chinese annual report typed by hand
and from TAT-QA, alters each in turn, and asks the checker about all of them. An altered pair that is true as well is
counted and left out.
"""

import os
import sys

if not __package__:
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import argparse
import json
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import check_cells, check_ixbrl, check_tatqa
from benchmarks.check_alterations import KINDS, Altered, altered
from benchmarks.check_page import page
from benchmarks.check_truths import Ground, TruePair, share_interval
from finlm.runs import write_json, write_text
from selfqa import names
from selfqa.binding import FactBook
from selfqa.blocks import Source
from selfqa.bound_sentences import book_of
from selfqa.claims import claim_fault
from selfqa.entities import Filing, read_filing
from selfqa.markup import read_html
from selfqa.reading import read_file

IXBRL = "aapl-10-q-2025-08-01.html"
REQUIRED = ("figure", "scale", "sign", "period", "entity", "unit")
Check = Callable[[str, str], str]
"""Question and answer -> the rule that they break, empty if none."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A pair, true or altered, and what the checker said."""

    source: str
    language: str
    kind: str
    """`untouched`, or what was altered."""
    where: str
    rule: str
    """The rule that the checker names, empty where it accepts."""
    is_left_out: bool
    question: str
    answer: str
    is_wrong_item: bool = False
    """The pair counts as true, but was read and is wrong: `check_tatqa.WRONG_ITEMS`."""


def main() -> None:
    """Make pairs, alter them, check, count, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = Path(os.environ.get("FINLM_SHARED_DATA", "../shared/data"))
    parser.add_argument("--data", type=Path, default=shared, help="folder of the real data")
    parser.add_argument("--out", type=Path, help="the .json to write; a .md of the same name stands beside it")
    parser.add_argument("--only", default="", help="sources whose name begins so")
    parser.add_argument("--failures", type=Path, help="also write the pairs that the checker judged wrongly")
    parser.add_argument("--before", type=Path, help="the .json of a run before the checker was mended, to compare with")
    given = parser.parse_args()
    trials = list(tried(given.data, given.only))
    figures, runs = figures_of(trials), [description()]
    if given.before:
        before = json.loads(given.before.read_text(encoding="utf-8"))
        figures["before"] = {name: before["figures"][name] for name in ("tatqa", "by_source")}
        runs += before["runs"]
    print(page(figures, runs))
    if given.failures:
        write_text(given.failures, "\n".join(failures(trials)) + "\n")
    if given.out:
        write_json(given.out, {"figures": figures, "runs": runs})
        write_text(given.out.with_suffix(".md"), page(figures, runs))


def tried(data: Path, only: str) -> Iterator[Trial]:
    """Check every true pair and every altered copy."""
    if "ixbrl".startswith(only):
        yield from _tried_ixbrl(data)
    if "cells".startswith(only):
        (path,) = (data / "filings" / "zh").glob("*.html")
        cells = check_cells.ground_of()
        yield from _trials(list(check_cells.pairs_of(cells)), cells, checker_of(path))
    if "tatqa".startswith(only):
        yield from _tried_tatqa(data)


def _tried_ixbrl(data: Path) -> Iterator[Trial]:
    path = data / "filings" / "en" / IXBRL
    ground = check_ixbrl.ground_of(path)
    yield from _trials(list(check_ixbrl.pairs_of(ground, IXBRL)), ground, checker_of(path))


def _tried_tatqa(data: Path) -> Iterator[Trial]:
    for context in check_tatqa.contexts_of(data / "evaluation" / "tatqa_dev.json.gz"):
        source = read_html(context.page)
        filing = Filing("", "", "en", context.year, 12)
        book = book_of(source, filing)
        for pair in context.pairs:

            def check(question: str, answer: str, text: str = pair.derivation) -> str:
                fault = claim_fault(question, answer, book, filing, text)  # noqa: B023 - called before the next one
                return fault[0] if fault else ""

            if not check_tatqa.is_scale_said(pair, context):
                rule = check(pair.question, pair.answer)
                yield _untouched(pair, rule, is_left_out=True)
                continue  # nothing in the context can tell thousands from millions
            for trial in _trials([pair], context.ground, check):
                is_so_shown = trial.kind == "sign" and check_tatqa.is_shown_negative(pair, context)
                yield replace(trial, is_left_out=trial.is_left_out or is_so_shown)
            moved = check_tatqa.period_altered(pair, context)
            if moved is not None:
                yield _trial(pair, moved, check)


def _trials(pairs: Sequence[TruePair], ground: Ground, check: Check) -> Iterator[Trial]:
    for pair in pairs:
        rule = check(pair.question, pair.answer)
        yield _untouched(pair, rule, is_left_out=False)
        for copy in altered(pair, ground):
            yield _trial(pair, copy, check)


def _untouched(pair: TruePair, rule: str, *, is_left_out: bool) -> Trial:
    is_wrong = pair.item in check_tatqa.WRONG_ITEMS
    return Trial(
        pair.source,
        pair.language,
        "untouched",
        "",
        rule,
        is_left_out,
        pair.question,
        pair.answer,
        is_wrong_item=is_wrong,
    )


def _trial(pair: TruePair, copy: Altered, check: Check) -> Trial:
    rule = check(copy.question, copy.answer)
    left_out = copy.is_also_true
    return Trial(pair.source, pair.language, copy.kind, copy.where, rule, left_out, copy.question, copy.answer)


def checker_of(path: Path) -> Check:
    """Read a filing and return its checker."""
    (source,) = read_file(path, path.parent)
    assert isinstance(source, Source)
    filing = read_filing(source)
    book = book_of(source, filing)

    def check(question: str, answer: str) -> str:
        return rule_of(question, answer, source, filing, book)

    return check


def rule_of(question: str, answer: str, source: Source, filing: Filing, book: FactBook) -> str:
    """Return the rule that a pair about a filing breaks, with the whole filing as its evidence."""
    if filing.company and not any(name in question for name in names.aliases(filing)):
        return "no-entity"
    if names.foreign_name(question, answer, filing, source.text):
        return "wrong-entity"
    fault = claim_fault(question, answer, book, filing)
    return fault[0] if fault else ""


def share(trials: Sequence[Trial], *, rejected: bool) -> dict[str, Any]:
    """Return the share of trials rejected (or accepted), with its interval and count."""
    counted = [trial for trial in trials if not trial.is_left_out]
    hits = sum(bool(trial.rule) == rejected for trial in counted)
    low, high = share_interval(hits, len(counted))
    left_out = len(trials) - len(counted)
    return {"share": hits / max(1, len(counted)), "low": low, "high": high, "n": len(counted), "left_out": left_out}


def figures_of(trials: Sequence[Trial]) -> dict[str, Any]:
    """Return shares by kind, over all trials whose source the checker was not developed on, and by group."""
    counted = [trial for trial in trials if trial.source not in check_tatqa.MENDED_WITH]
    all_kinds = _table(counted)
    figures: dict[str, Any] = {
        "recall": {kind: all_kinds[kind]["share"] for kind in REQUIRED if kind in all_kinds},
        "accepted": all_kinds["untouched"]["share"],
        "recall_of_wrong_metric": all_kinds.get("metric", {}).get("share"),
        "all": all_kinds,
    }
    for name in ("language", "source", "where"):
        rows = trials if name == "source" else counted
        groups = sorted({getattr(trial, name) for trial in rows} - {""})
        figures[f"by_{name}"] = {
            group: _table([trial for trial in rows if getattr(trial, name) == group]) for group in groups
        }
    figures["tatqa"] = {part: tatqa_part(trials, part) for part in check_tatqa.PARTS}
    figures["rules_of_rejected_true_pairs"] = dict(
        Counter(f"{trial.source}: {trial.rule}" for trial in trials if _is_wrongly_rejected(trial))
    )
    return figures


def tatqa_part(trials: Sequence[Trial], part: str) -> dict[str, Any]:
    """Return what of a part's answers is accepted, and what of those that are right.

    Only refused answers were read: a wrong one that is accepted counts as right.
    """
    its = [trial for trial in trials if trial.source == part and trial.kind == "untouched" and not trial.is_left_out]
    refused = [trial for trial in its if trial.rule]
    wrong = sum(trial.is_wrong_item for trial in refused)
    right = [trial for trial in its if not trial.is_wrong_item or not trial.rule]
    return {
        "all": share(its, rejected=False),
        "refused": len(refused),
        "refused_that_are_wrong": wrong,
        "right": share(right, rejected=False),
    }


def _is_wrongly_rejected(trial: Trial) -> bool:
    return trial.kind == "untouched" and bool(trial.rule) and not trial.is_left_out


def _table(trials: Sequence[Trial]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for kind in ("untouched", *KINDS):
        its = [trial for trial in trials if trial.kind == kind]
        if its:
            found[kind] = share(its, rejected=kind != "untouched")
    return found


def failures(trials: Sequence[Trial]) -> Iterator[str]:
    """Yield a line for every pair that was judged wrongly."""
    for trial in trials:
        if not trial.is_left_out and bool(trial.rule) != (trial.kind != "untouched"):
            yield f"{trial.source}\t{trial.kind}\t{trial.rule or 'accepted'}\t{trial.question}\t{trial.answer}"


def description() -> dict[str, Any]:
    """Return what was run."""
    root = Path(__file__).parent.parent
    git = ("git", "-C", str(root), "describe", "--always", "--dirty")
    return {
        "command": "python benchmarks/selfqa_check.py " + " ".join(sys.argv[1:]),
        "commit": subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip(),
        "hardware": "2 cores",
        "beside": "other tests and measurements ran on the machine; no figure depends on time",
        "versions": {"python": sys.version.split()[0]}
        | {name: version(name) for name in ("ixbrlparse", "lxml", "numpy", "snowballstemmer")},
    }


if __name__ == "__main__":
    main()
