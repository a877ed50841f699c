"""How fast Self-QA reads and asks, what that takes of memory, and how both grow; edgartools' parser beside ours.

    python benchmarks/selfqa_reading.py --out benchmarks/results/selfqa_reading_2026-11-29.json

reads copies of the real filings that repeat nothing (`benchmarks/selfqa_corpus.py`), some and then ten times as many,
in processes of their own: files to the parse cache first, then a whole run with the extractive backend over it.
"""

import os
import sys

if not __package__:
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import argparse
import json
import subprocess
import tempfile
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from benchmarks.selfqa_corpus import write_copies
from benchmarks.told_run import Run, run_of, told
from finlm.runs import write_json, write_text
from selfqa.library import Place, Shelf, read_all
from selfqa.markup import read_html

PAGE = "aapl-10-q-2025-08-01.html"
GENERATE = Path(__file__).parent.parent / "selfqa" / "generate.py"
PACKAGES = ("lxml", "edgartools", "rensa", "msgspec")
"""Whose versions matter for reading and asking."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One stage over one corpus."""

    stage: str
    """`reading`: files to the parse cache. `asking`: all the rest of a run, single process."""
    documents: int
    megabytes: float
    """Of the files."""
    seconds: float
    cpu_seconds: float
    """Of all processes, children included: other work on the machine does not count."""
    peak_megabytes: float
    """Resident, of the largest process."""


def main() -> None:
    """Measure reading, asking and the two parsers; write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = Path(os.environ.get("FINLM_SHARED_DATA", "../shared/data"))
    parser.add_argument("--data", type=Path, default=shared, help="folder of the real data")
    parser.add_argument("--reading", type=int, default=40, help="documents to read; ten times as many then")
    parser.add_argument("--asking", type=int, default=10, help="documents to ask about; ten times as many then")
    parser.add_argument("--out", type=Path, help="the .json to write; a .md of the same name stands beside it")
    parser.add_argument("--only-read", nargs=2, metavar=("CORPUS", "CACHE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only_read:
        print(json.dumps(read_once(*map(Path, given.only_read))))
        return
    files = sorted(path for path in (given.data / "filings").rglob("*.*") if path.is_file())
    measured = []
    with tempfile.TemporaryDirectory() as folder:
        for number in (given.reading, 10 * given.reading):
            measured.append(reading(files, Path(folder) / f"read-{number}", number))
        for number in (given.asking, 10 * given.asking):
            measured.append(asking(files, Path(folder) / f"ask-{number}", number))
    figures = {"stages": [asdict(one) for one in measured], "parsers": parsers(given.data / "filings" / "en" / PAGE)}
    run = run_of(PACKAGES)
    print(page(figures, run))
    if given.out:
        write_json(given.out, {"figures": figures, "runs": [run]})
        write_text(given.out.with_suffix(".md"), page(figures, run))


def reading(files: list[Path], folder: Path, number: int) -> Measured:
    """Read a corpus into a fresh cache, with as many processes as there are cores."""
    size = write_copies(files, folder / "corpus", number)
    return timed("reading", number, size, [__file__, "--only-read", str(folder / "corpus"), str(folder / "cache")])


def read_once(corpus: Path, cache: Path) -> int:
    """Return how many documents were read."""
    found = read_all(sorted(corpus.iterdir()), Shelf(corpus, cache), 0)
    return sum(isinstance(item, Place) for items in found for item in items)


def asking(files: list[Path], folder: Path, number: int) -> Measured:
    """Run Self-QA over a corpus that has been read."""
    size = write_copies(files, folder / "corpus", number)
    read_once(folder / "corpus", folder / "parsed")
    flags = ["--corpus", str(folder / "corpus"), "--runs", str(folder)]
    return timed("asking", number, size, [str(GENERATE), *flags])


def timed(stage: str, number: int, size: int, command: list[str]) -> Measured:
    """Run a command and say what it took."""
    code = "import resource, subprocess, sys; subprocess.run([sys.executable, *sys.argv[1:]], check=True, stdout=2); "
    code += "used = resource.getrusage(resource.RUSAGE_CHILDREN); print(used.ru_utime + used.ru_stime, used.ru_maxrss)"
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code, *command], stdout=subprocess.PIPE, text=True, check=True)
    seconds = time.perf_counter() - began
    cpu, peak = done.stdout.split()
    found = Measured(stage, number, size / 1e6, seconds, float(cpu), int(peak) / 1e3)
    print(found, file=sys.stderr, flush=True)
    return found


def parsers(path: Path) -> dict[str, object]:
    """CPU seconds of a page of inline XBRL, three times each: ours and edgartools'."""
    markup = path.read_text(encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from edgar.documents import parse_html

        sides = {"ours": lambda: read_html(markup).text, "edgartools": lambda: parse_html(markup).text()}
        seconds: dict[str, list[float]] = {}
        for name, parse in sides.items():
            parse()  # what is loaded at the first call
            for _ in range(3):
                began = time.process_time()
                parse()
                seconds.setdefault(name, []).append(time.process_time() - began)
    return {"page": path.name, "megabytes": len(markup.encode()) / 1e6, "cpu_seconds": seconds}


def page(figures: dict[str, object], run: Run) -> str:
    """The figures as a page."""
    stages = [Measured(**one) for one in figures["stages"]]  # type: ignore[attr-defined]
    rows = [
        f"| {one.stage} | {one.documents:,} | {one.megabytes:.1f} | {one.seconds:.0f} | {one.cpu_seconds:.0f} "
        f"| {one.megabytes / one.cpu_seconds:.2f} | {one.peak_megabytes:,.0f} |"
        for one in stages
    ]
    growth = [_growth(few, many) for few, many in zip(stages[::2], stages[1::2], strict=True)]
    parsed = figures["parsers"]
    sides = [
        f"- {name}: {median(seconds):.2f} s ({', '.join(f'{one:.2f}' for one in seconds)})"
        for name, seconds in parsed["cpu_seconds"].items()  # type: ignore[index]
    ]
    return "\n".join(
        [
            "# Self-QA: reading and asking",
            "",
            *told(run),
            "",
            "| stage | documents | MB of files | s | CPU s | MB per CPU s | peak MB |",
            "|---|---|---|---|---|---|---|",
            *rows,
            "",
            *growth,
            "",
            f"CPU seconds for {parsed['page']} ({parsed['megabytes']:.2f} MB), median of three:",  # type: ignore[index]
            "",
            *sides,
            "",
            "The copies have a real filing's structure but not its sense, so fewer of their sentences make questions; "
            "the memory of a thousand documents is drawn on from the two sizes, not measured.",
            "",
        ]
    )


def _growth(few: Measured, many: Measured) -> str:
    each = (many.peak_megabytes - few.peak_megabytes) / (many.documents - few.documents)
    return (
        f"- {few.stage}: {many.megabytes / few.megabytes:.1f} times the bytes take "
        f"{many.cpu_seconds / few.cpu_seconds:.1f} times the CPU; each further document takes {each:.2f} MB, so a "
        f"thousand would take {few.peak_megabytes + each * (1000 - few.documents):,.0f} MB"
    )


if __name__ == "__main__":
    main()
