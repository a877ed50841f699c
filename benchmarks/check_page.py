"""The page of `benchmarks/selfqa_check.py`: its figures as Markdown."""

from collections.abc import Sequence
from typing import Any

from benchmarks.check_alterations import KINDS
from benchmarks.check_tatqa import HELD_OUT, PARTS, READ_LATER
from benchmarks.check_truths import share_interval

NOT_SHOWN = (
    "Not shown: one filing of each kind, so other layouts may bind worse, as TAT-QA's tables without their filings do; "
    "the wording of questions is a template's except in TAT-QA; answers of several sentences, and models' own faults, "
    "are not in it."
)


def page(figures: dict[str, Any], runs: Sequence[dict[str, Any]]) -> str:
    """Return the figures as Markdown; `runs` has this run first and, if it is compared with one, the one before."""
    unsaid = figures["all"]["untouched"]["left_out"]
    left_out = sum(row["left_out"] for row in figures["all"].values()) - unsaid
    run = runs[0]
    made_with = ", ".join(f"{name} {number}" for name, number in run["versions"].items())
    lines = [
        "# What Self-QA's checker accepts and rejects",
        "",
        f"`{run['command']}`, commit {run['commit']}, {run['hardware']}, {run['beside']}; {made_with}.",
        "",
        "True pairs, none made by the checker's own reading: facts of an inline-XBRL 10-Q by ixbrlparse, worded by row",
        "label or concept, and changes between two of them; 188 cells of a Chinese annual report typed off the page,",
        "and changes; TAT-QA's development set, where answers are figures, with its own computations. Each is altered",
        "in its string by one kind at a time. Periods, companies and metrics are altered in question and answer alike",
        "or in the answer alone. The checker sees question, answer and filing, of TAT-QA the computation as well.",
        "",
        f"Shares with Wilson's 95 % interval. Left out: {left_out} altered pairs that are true as well, or not surely",
        f"false, and {unsaid} true pairs of TAT-QA whose scale word nothing in their context says. TAT-QA's contexts",
        "with which the checker was mended (their failures were read) stand in rows of their own and count nowhere",
        "else. TAT-QA names no company, so its entities are not altered. Of the 10-Q's and the annual report's altered",
        "metrics every second one that passed was read.",
        "",
        "| | " + " | ".join(("untouched, accepted", *(f"{kind}, rejected" for kind in KINDS))) + " |",
        "|---|" + "---|" * (len(KINDS) + 1),
    ]
    tables = {"all but mended with": figures["all"]} | {
        f"{name}: {group}": table
        for name in ("language", "source", "where")
        for group, table in figures[f"by_{name}"].items()
    }
    lines += [_row(name, table) for name, table in tables.items()]
    before = figures.get("before", {})
    if before:
        lines += [_row(f"before: {group}", before["by_source"][group]) for group in PARTS[1:]]
    told = ", ".join(f"{rule} {count}" for rule, count in sorted(figures["rules_of_rejected_true_pairs"].items()))
    lines += ["", f"Rules that true pairs were rejected by: {told}.", ""]
    lines += [*_tatqa(figures["tatqa"], before.get("tatqa"), runs), "", NOT_SHOWN]
    return "\n".join(lines) + "\n"


def _tatqa(parts: dict[str, Any], before: dict[str, Any] | None, runs: Sequence[dict[str, Any]]) -> list[str]:
    """The lines on TAT-QA: its parts before and after, and how many of the refused answers are wrong themselves."""
    lines = [
        "## TAT-QA's answers as people typed them",
        "",
        "Every fourth context's failures were not read until the checker was done; then these contexts were cut in two",
        "halves by a seeded draw. Failures of half one were read, and mended where the fault was general. Half two",
        "was measured once after that, and its refused answers were then read only to sort them: nothing was mended",
        "after. A refused answer is a wrong item where the data set's figure, scale or computation contradicts its own",
        "table and text: listed one by one, with the reason, in `benchmarks/check_tatqa.py`. Accepted answers were not",
        "read, so that wrong items among them count as right ones.",
        "",
        "| part | before | now | refused now | of these wrong items | accepted of items that are right |",
        "|---|---|---|---|---|---|",
    ]
    for part in PARTS:
        its = parts[part]
        was = cell(before[part]["all"]) if before else "-"
        lines.append(
            f"| {part} | {was} | {cell(its['all'])} | {its['refused']} | {its['refused_that_are_wrong']} "
            f"| {cell(its['right'])} |"
        )
    if before:
        halves = [before[part]["all"] for part in (READ_LATER, HELD_OUT)]
        count = sum(one["n"] for one in halves)
        hits = sum(round(one["share"] * one["n"]) for one in halves)
        low, high = share_interval(hits, count)
        both = cell({"share": hits / count, "low": low, "high": high, "n": count})
        lines += ["", f"Both halves before, unread: {both} (`{runs[1]['command']}`, commit {runs[1]['commit']})."]
    return lines


def _row(name: str, table: dict[str, Any]) -> str:
    cells = [cell(table[kind]) if kind in table else "-" for kind in ("untouched", *KINDS)]
    return f"| {name} | " + " | ".join(cells) + " |"


def cell(row: dict[str, Any]) -> str:
    """Return a share with its interval and count."""
    return f"{row['share']:.1%} [{row['low']:.1%}, {row['high']:.1%}] of {row['n']}"
