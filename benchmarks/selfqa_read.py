"""Pairs of Self-QA to be read one by one, and what a reader found.

    python benchmarks/selfqa_read.py runs/selfqa --seed 7
    python benchmarks/selfqa_read.py runs/selfqa --seed 7 --faults faults.json --reader NAME --out results.json

The first prints a hundred pairs of each language and a hundred whose evidence is a table's cells, spread over their
types, each beside its evidence. The reader writes down, by record id, which of the three each bad pair is not:
well-formed, self-contained, right. The second counts. No text of a filing is written.
"""

import os
import sys

if not __package__:
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import argparse
import json
import random
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.check_truths import share_interval
from finlm import jsonl
from finlm.records import Conversation, Document
from finlm.runs import write_json, write_text

SETS = ("en", "zh", "table")
FAULTS = ("well-formed", "self-contained", "right")
CELLS = frozenset(
    f"rule:{name}"
    for name in (
        *("table-row", "xbrl-fact", "derived-change", "derived-share", "row-comparison", "row-direction"),
        *("metrics-comparison", "metrics-versus", "total-parts"),
    )
)
"""Makers whose evidence is the cells of one table."""
AROUND = 160
"""Characters before a table's row that are shown with it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a reader says of one pair; `fault` is empty if it is accepted.

    Example:
        Verdict(record_id="9f…", set="en", kind="cause", maker="rule:cause-moved", fault="")
    """

    record_id: str
    set: str
    kind: str
    maker: str
    fault: str


def draw(rows: Sequence[Conversation], which: str, seed: int, count: int) -> list[Conversation]:
    """Draw `count` pairs of a set, in turns from each type (from each maker, for cells)."""
    rng = random.Random(f"{seed} {which}")
    by_type: dict[str, list[Conversation]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row.id):
        assert row.provenance is not None
        is_bare = row.form == "closed-book" or row.kind == "unanswerable"
        if is_bare and (row.provenance.maker in CELLS if which == "table" else row.language == which):
            by_type[row.provenance.maker if which == "table" else row.kind].append(row)
    for several in by_type.values():
        rng.shuffle(several)
    drawn: list[Conversation] = []
    while len(drawn) < count and any(by_type.values()):
        for name in sorted(by_type):
            if by_type[name] and len(drawn) < count:
                drawn.append(by_type[name].pop())
    return drawn


def sheet(rows: Sequence[Conversation], documents: dict[str, Document]) -> Iterator[str]:
    """Yield what a reader looks at."""
    for number, row in enumerate(rows, 1):
        assert row.provenance is not None
        text = documents[row.provenance.document_id].text
        yield f"[{number}] {row.id} {row.kind} {row.provenance.maker} {documents[row.provenance.document_id].source}"
        yield f"  question  {row.messages[-2].content.replace(chr(10), ' / ')}"
        yield f"  answer    {row.messages[-1].content}"
        yield f"  evidence  {' '.join(text[row.provenance.start : row.provenance.end].split())}"
        if row.provenance.maker in CELLS or row.kind == "unanswerable":
            above = text[max(0, row.provenance.start - AROUND) : row.provenance.start]
            yield f"  above     {' / '.join(line.strip() for line in above.splitlines() if line.strip())}"
        for other in row.also_from:
            beside = documents[other.document_id].text[other.start : other.end]
            yield f"  beside    {' '.join(beside.split())[:300]}"


def judged(rows: Sequence[Conversation], which: str, faults: dict[str, str]) -> list[Verdict]:
    """Return a verdict for every drawn pair."""
    made = []
    for row in rows:
        assert row.provenance is not None
        made.append(Verdict(row.id, which, row.kind, row.provenance.maker, faults.get(row.id, "")))
    return made


def figures_of(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Count what was accepted, by set and by type within it, with Wilson's 95 % intervals."""
    figures: dict[str, Any] = {}
    for which in SETS:
        mine = [one for one in verdicts if one.set == which]
        accepted = sum(not one.fault for one in mine)
        types = sorted({one.kind for one in mine})
        figures[which] = {
            "read": len(mine),
            "accepted": accepted,
            "share": accepted / len(mine),
            "interval": share_interval(accepted, len(mine)),
            "faults": dict(Counter(one.fault for one in mine if one.fault)),
            "types": {
                kind: [sum(not one.fault for one in mine if one.kind == kind), sum(one.kind == kind for one in mine)]
                for kind in types
            },
        }
    return figures


def main() -> None:
    """Print the sheet, or count a reader's verdicts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a Self-QA run")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--count", type=int, default=100, help="pairs of each set")
    parser.add_argument("--faults", type=Path, help="JSON: record id to well-formed, self-contained or right")
    parser.add_argument("--reader", default="", help="who read")
    parser.add_argument("--out", type=Path, help="results, .json; a .md is written beside it")
    asked = parser.parse_args()
    rows = list(jsonl.read(asked.run / "instructions.jsonl", Conversation))
    drawn = {which: draw(rows, which, asked.seed, asked.count) for which in SETS}
    if asked.faults is None:
        documents = {one.id: one for one in jsonl.read(asked.run / "documents.jsonl", Document)}
        for which in SETS:
            print(f"===== {which}", *sheet(drawn[which], documents), sep="\n")
        return
    faults = json.loads(asked.faults.read_text(encoding="utf-8"))
    strange = set(faults.values()) - set(FAULTS)
    assert not strange, f"{asked.faults} has the faults {strange}; they must be among {FAULTS}"
    known = {row.id for several in drawn.values() for row in several}
    assert faults.keys() <= known, f"{asked.faults} names records that were not drawn: {sorted(faults.keys() - known)}"
    verdicts = [one for which in SETS for one in judged(drawn[which], which, faults)]
    write(asked, figures_of(verdicts), verdicts)


def write(asked: argparse.Namespace, figures: dict[str, Any], verdicts: Sequence[Verdict]) -> None:
    """Write figures and verdicts as JSON, and a page to read."""
    summary = json.loads((asked.run / "summary.json").read_text(encoding="utf-8"))
    state = json.loads((asked.run / "run.json").read_text(encoding="utf-8"))
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    command = f"python benchmarks/selfqa_read.py RUN --seed {asked.seed} --count {asked.count}"
    made_by = "python selfqa/generate.py --corpus ../shared/data/filings --output RUN"
    coverage = {
        name: {key: one[key] for key in ("found", "kept", "types", "largest_template", "largest_template_share")}
        for name, one in summary["coverage"].items()
    }
    write_json(
        asked.out,
        {
            "figures": figures | {"coverage": coverage},
            "runs": [{"command": f"{made_by}; {command}", "commit": commit, "hardware": "2 cores"}],
            "reader": asked.reader,
            "versions": state["versions"],
            "verdicts": [asdict(one) for one in verdicts],
        },
    )
    write_text(asked.out.with_suffix(".md"), page(figures, coverage, asked, f"{made_by}`, `{command}", commit))


def page(
    figures: dict[str, Any], coverage: dict[str, Any], asked: argparse.Namespace, command: str, commit: str
) -> str:
    """The same for people."""
    lines = [
        "# Pairs of Self-QA, read one by one",
        "",
        f"`{command}`, commit {commit[:7]}, 2 cores. Read by {asked.reader}; a fresh sample, drawn after the last "
        "change of the templates. A pair is accepted if it is well-formed, self-contained and right. Shares with "
        "Wilson's 95 % interval; the verdict of every record stands in the .json.",
        "",
        "| pairs | read | accepted | share | not well-formed | not self-contained | not right |",
        "|---|---|---|---|---|---|---|",
    ]
    names = {"en": "English", "zh": "Chinese", "table": "evidence in a table's cells, both languages"}
    for which, said in names.items():
        one = figures[which]
        low, high = one["interval"]
        faults = " | ".join(str(one["faults"].get(fault, 0)) for fault in FAULTS)
        lines.append(
            f"| {said} | {one['read']} | {one['accepted']} | {one['share']:.0%} [{low:.0%}, {high:.0%}] | {faults} |"
        )
    lines += ["", "Accepted of read, by type:", "", "| type | English | Chinese | cells |", "|---|---|---|---|"]
    for kind in sorted({kind for which in SETS for kind in figures[which]["types"]}):
        counts = [figures[which]["types"].get(kind) for which in SETS]
        lines.append(f"| {kind} | " + " | ".join(f"{pair[0]} of {pair[1]}" if pair else "–" for pair in counts) + " |")
    lines += [
        "",
        "## What the filings gave",
        "",
        "| document | sound | kept | types | largest template |",
        "|---|---|---|---|---|",
    ]
    for name, one in coverage.items():
        share = f"{one['largest_template']} {one['largest_template_share']:.0%}"
        lines.append(f"| {name} | {one['found']:,} | {one['kept']:,} | {len(one['types'])} | {share} |")
    lines += [
        "",
        "It does not show how other filings read: the templates were mended on earlier samples of these seven, and one "
        "reader judged.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
