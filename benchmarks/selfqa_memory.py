"""What a whole run of Self-QA without a model takes of memory, from files to report, at a thousand filings.

    python benchmarks/selfqa_memory.py --out benchmarks/results/selfqa_memory_2026-11-30.json

writes copies of the real filings that repeat nothing (`benchmarks/selfqa_corpus.py`), runs `selfqa/generate.py` over
them with its defaults and looks at its resident memory every few seconds.
"""

import os
import sys

if not __package__:
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import argparse
import json
import re
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

from benchmarks.selfqa_corpus import write_copies
from benchmarks.selfqa_reading import GENERATE, PACKAGES
from benchmarks.told_run import Run, run_of, told
from finlm.runs import write_json, write_text

COVER = 4000
"""Characters of a cover, which names company and year."""
EVERY = 5.0
"""Seconds between two looks."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One run."""

    documents: int
    megabytes: float
    """Of the files."""
    questions: int
    kept: int
    seconds: float
    cpu_seconds: float
    """Of all processes."""
    peak_megabytes: float
    """Resident, of the largest process, as the system counts it."""
    over_time: tuple[tuple[int, float], ...]
    """Seconds since the start and resident MB of the run's own process, its readers left out."""


def main() -> None:
    """Run, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = Path(os.environ.get("FINLM_SHARED_DATA", "../shared/data"))
    parser.add_argument("--data", type=Path, default=shared, help="folder of the real data")
    parser.add_argument("--documents", type=int, nargs="+", default=[100, 1000], help="sizes of the corpora")
    parser.add_argument(
        "--middle", type=int, default=0, help="only covers and so many characters of the middle of texts"
    )
    parser.add_argument("--out", type=Path, help="the .json to write; a .md of the same name stands beside it")
    given = parser.parse_args()
    files = sorted(path for path in (given.data / "filings").rglob("*.*") if path.is_file())
    measured = []
    for number in given.documents:
        with tempfile.TemporaryDirectory() as folder:
            if given.middle:
                files = shortened(files, Path(folder) / "short", given.middle)
            measured.append(whole_run(files, Path(folder), number))
            print(measured[-1], file=sys.stderr, flush=True)
    run = run_of(PACKAGES)
    print(page(measured, run))
    if given.out:
        write_json(given.out, {"figures": {"runs": [asdict(one) for one in measured]}, "runs": [run]})
        write_text(given.out.with_suffix(".md"), page(measured, run))


def shortened(files: list[Path], folder: Path, middle: int) -> list[Path]:
    """Write the plain texts short: the cover, and what stands in the middle."""
    folder.mkdir()
    short = [folder / path.name for path in files if path.suffix == ".txt"]
    for path in short:
        text = next(one for one in files if one.name == path.name).read_text(encoding="utf-8")
        path.write_text(f"{text[:COVER]}\n\n{text[len(text) // 2 :][:middle]}", encoding="utf-8")
    return short


def whole_run(files: list[Path], folder: Path, number: int) -> Measured:
    """Run Self-QA over so many filings, nothing read before."""
    size = write_copies(files, folder / "corpus", number)
    output = folder / "out"
    flags = ["--corpus", str(folder / "corpus"), "--runs", str(folder), "--output", str(output)]
    began = time.perf_counter()
    started = subprocess.Popen([sys.executable, str(GENERATE), *flags], stderr=subprocess.DEVNULL)
    over_time: list[tuple[int, float]] = []
    while not (ended := os.wait4(started.pid, os.WNOHANG))[0]:
        over_time.append((round(time.perf_counter() - began), resident(started.pid)))
        time.sleep(EVERY)
    _, status, used = ended
    if status:
        raise SystemExit(f"the run over {number} filings ended with status {status}")
    seconds = time.perf_counter() - began
    summary = json.loads((output / "summary.json").read_text(encoding="utf-8"))
    return Measured(
        documents=summary["documents"],
        megabytes=size / 1e6,
        questions=summary["questions"],
        kept=summary["kept"],
        seconds=seconds,
        cpu_seconds=used.ru_utime + used.ru_stime,
        peak_megabytes=used.ru_maxrss / 1e3,
        over_time=tuple(over_time),
    )


def resident(process: int) -> float:
    """Resident memory of a process in MB, 0 once it has ended."""
    try:
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    except FileNotFoundError:
        return 0.0
    return int(found[1]) / 1e3 if found else 0.0


def page(measured: list[Measured], run: Run) -> str:
    """The figures as a page."""
    rows = [
        f"| {one.documents:,} | {one.megabytes:.1f} | {one.questions:,} | {one.kept:,} | {one.seconds:,.0f} "
        f"| {one.cpu_seconds:,.0f} | {one.megabytes / one.cpu_seconds:.3f} | {one.peak_megabytes:,.0f} |"
        for one in measured
    ]
    return "\n".join(
        [
            "# Self-QA: memory of a whole run",
            "",
            *told(run),
            "",
            "| documents | MB of files | questions made | kept | s | CPU s | MB per CPU s | peak MB |",
            "|---|---|---|---|---|---|---|---|",
            *rows,
            "",
            *(_growth(few, many) for few, many in pairwise(measured)),
            "",
            "The peak is of the largest process, the run's own; what waits for its comparison lies in files without a "
            "name, whose pages the system keeps in memory as long as nobody else wants it. The copies have a real "
            "filing's structure but not its sense, and name a few companies, so that far more of their questions than "
            "of real filings' contradict each other.",
            "",
        ]
    )


def _growth(few: Measured, many: Measured) -> str:
    each = (many.peak_megabytes - few.peak_megabytes) / (many.documents - few.documents)
    return (
        f"- from {few.documents:,} to {many.documents:,} documents: {many.megabytes / few.megabytes:.1f} times the "
        f"bytes, {many.cpu_seconds / few.cpu_seconds:.1f} times the CPU, {each:.2f} MB more for each document"
    )


if __name__ == "__main__":
    main()
