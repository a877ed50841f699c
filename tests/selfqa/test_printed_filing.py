"""A real filing, printed to PDF by a browser, says what its page says: the facts of the same statements."""

import shutil
import subprocess
from pathlib import Path

import pytest

from selfqa.background import backgrounds
from selfqa.blocks import Source
from selfqa.entities import read_filing
from selfqa.extractive import extract
from selfqa.reading import read_file
from selfqa.sections import sections_of


def figures(source: Source) -> set[str]:
    kept, _ = backgrounds(source, 2400, 0)
    pairs = extract(source, read_filing(source), kept, 450).pairs
    return {pair.answer for pair in pairs if pair.kind == "figure"}


@pytest.mark.slow
@pytest.mark.browser
def test_a_printed_10q_gives_the_facts_of_its_page(shared_data: Path, tmp_path: Path) -> None:
    """Its tables are shaded, not ruled, with heads of three lines over them; the page has inline XBRL besides."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium")
    page = shared_data / "filings" / "en" / "aapl-10-q-2025-08-01.html"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    print_to = [f"--print-to-pdf={tmp_path / 'printed.pdf'}", page.as_uri()]
    subprocess.run([browser, *flags, *print_to], capture_output=True, timeout=300, check=True)

    (of_page,) = read_file(page, page.parent)
    (of_print,) = read_file(tmp_path / "printed.pdf", tmp_path)
    assert isinstance(of_page, Source)
    assert isinstance(of_print, Source)
    expected, found = figures(of_page), figures(of_print)
    assert len(expected & found) >= 0.9 * len(expected)
    assert len(expected & found) >= 0.95 * len(found)  # the rest says the same figures in other words
    names = [section.name for section in sections_of(of_page.text).all if section.name]
    assert [section.name for section in sections_of(of_print.text).all if section.name] == names
    assert len(of_print.pages) > 20
