"""One page for who leads the work: how far it is, how people agree, whose work to look at, which pairs to discuss.

    finlm annotate report                                   the project that was pulled
    finlm annotate report --preferences runs/preferences.jsonl

It reads the local log, or a file of preferences with votes, and asks no server.
"""

import os
import sys

if not __package__:  # run as a file: import from this checkout, not from this folder or from an older install
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from dataclasses import dataclass
from pathlib import Path

from annotation.judged import read
from annotation.quality_page import page_of
from annotation.quality_settings import QualitySettings
from finlm import report
from finlm.config import run


@dataclass(frozen=True, kw_only=True)
class ReportSettings(QualitySettings):
    """Settings of `finlm annotate report`."""

    html: str = "{runs}/annotation/report.html"
    """Where the page goes."""


def main(settings: ReportSettings) -> None:
    """Read, reckon, write the page."""
    title, work = read(settings.log, settings.project, settings.preferences)
    page = page_of(work, title, least_gold=settings.least_gold, false_alarms=settings.false_alarms)
    Path(settings.html).parent.mkdir(parents=True, exist_ok=True)
    report.write(page, settings.html)
    people = len({rating.annotator for rating in work.ratings})
    print(f"{len(work.ratings):,} ratings of {len(work.pairs):,} pairs by {people:,} people: {settings.html}")


if __name__ == "__main__":
    run(main, ReportSettings, "Shows how annotators agree and whose work to look at.")
