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

from annotation import quality_page, rank_quality_page
from annotation.log_reading import read
from annotation.quality_settings import QualitySettings
from annotation.ranked import RankWork
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
    page = (
        rank_quality_page.page_of(work, title, false_alarms=settings.false_alarms)
        if isinstance(work, RankWork)
        else quality_page.page_of(work, title, least_gold=settings.least_gold, false_alarms=settings.false_alarms)
    )
    Path(settings.html).parent.mkdir(parents=True, exist_ok=True)
    report.write(page, settings.html)
    people = len({rating.annotator for rating in work.ratings})
    print(f"{work.count:,} {work.given} of {work.judged:,} {work.asked} by {people:,} people: {settings.html}")


if __name__ == "__main__":
    run(main, ReportSettings, "Shows how annotators agree and whose work to look at.")
