"""How many facts of a real filing's tables Self-QA still finds once the filing is a PDF.

    python benchmarks/selfqa_pdf.py --out benchmarks/results/selfqa_pdf_2026-11-29.json

prints the pages that are HTML to PDF by Chromium and compares the facts of both: a fact is its metric, period and
amount, word for word.
"""

import os
import sys

if not __package__:
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import argparse
import shutil
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.told_run import Run, run_of, told
from finlm.errors import UserError
from finlm.runs import write_json, write_text
from selfqa.blocks import Source
from selfqa.document_facts import facts_of
from selfqa.english_words import Lexicon
from selfqa.entities import read_filing
from selfqa.reading import read_file


@dataclass(frozen=True, slots=True)
class Compared:
    """One filing as a page and as a PDF."""

    file: str
    pages: int
    of_page: int
    """Facts that the HTML gives."""
    of_print: int
    """Facts that the PDF gives."""
    both: int
    cpu_seconds: float
    """To read the PDF."""


def main() -> None:
    """Print, read, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = Path(os.environ.get("FINLM_SHARED_DATA", "../shared/data"))
    parser.add_argument("--data", type=Path, default=shared, help="folder of the real data")
    parser.add_argument("--out", type=Path, help="the .json to write; a .md of the same name stands beside it")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pages = sorted((given.data / "filings").rglob("*.html"))
        compared = [compare(page, Path(folder)) for page in pages]
    run = run_of(("pdfplumber", "pdfminer.six", "lxml"))
    print(as_page(compared, run))
    if given.out:
        write_json(given.out, {"figures": {"filings": [asdict(one) for one in compared]}, "runs": [run]})
        write_text(given.out.with_suffix(".md"), as_page(compared, run))


def compare(page: Path, folder: Path) -> Compared:
    """Print a page and compare the facts of both."""
    printed = folder / "printed.pdf"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    command = [browser(), *flags, f"--print-to-pdf={printed}", page.resolve().as_uri()]
    subprocess.run(command, capture_output=True, timeout=600, check=True)
    began = time.process_time()
    (of_print,) = read_file(printed, folder)
    seconds = time.process_time() - began
    (of_page,) = read_file(page, page.parent)
    assert isinstance(of_print, Source)
    assert isinstance(of_page, Source)
    expected, found = facts(of_page), facts(of_print)
    return Compared(page.name, len(of_print.pages), len(expected), len(found), len(expected & found), seconds)


def browser() -> str:
    """Return the path of Chromium.

    Raises:
        UserError: There is none.
    """
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        raise UserError("Chromium is needed to print a page to PDF; install it.")
    return found


def facts(source: Source) -> set[tuple[str, str, str]]:
    """Metric, period and amount of every fact of a document."""
    filing = read_filing(source)
    is_chinese = filing.language == "zh"
    found = facts_of(source, filing, None if is_chinese else Lexicon(source.text)).facts
    return {
        (fact.metric, fact.period.in_chinese() if is_chinese else fact.period.in_english(), fact.amount)
        for fact in found
    }


def as_page(compared: list[Compared], run: Run) -> str:
    """The figures as a page."""
    rows = [
        f"| {one.file} | {one.pages} | {one.of_page} | {one.of_print} | {one.both} | {one.both / one.of_page:.1%} "
        f"| {one.both / max(1, one.of_print):.1%} | {one.cpu_seconds:.0f} |"
        for one in compared
    ]
    return "\n".join(
        [
            "# Self-QA: facts of tables in a PDF",
            "",
            *told(run),
            "",
            "| filing | pages | facts of the page | of the PDF | in both | found | right of what is found | CPU s |",
            "|---|---|---|---|---|---|---|---|",
            *rows,
            "",
            "Not shown: PDFs of other makers, whose tables may have other rules or none; a fact that both miss.",
            "",
        ]
    )


if __name__ == "__main__":
    main()
