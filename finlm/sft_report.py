"""The page of a fine-tuning run, with other runs beside it.

finlm sft-report                                     runs/sft, to report.html in its folder
finlm sft-report --others '[runs/sft-without-text]'  how much more that run forgot
"""

import os
import sys

if not __package__:  # run as a file: import from this checkout, not from this folder or from an older install
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from dataclasses import dataclass, field
from pathlib import Path

from finlm import config
from finlm.sft_page import PAGE, write_sft_page


@dataclass(frozen=True, kw_only=True)
class SFTReportSettings:
    """Settings of the page."""

    runs: str = field(default_factory=config.default_runs)
    """Run root: the folder that all stages write below."""
    run: str = "{runs}/sft"
    """Folder of the fine-tuning run."""
    others: list[str] = field(default_factory=list)
    """Folders of runs whose forgetting is shown beside this one's, such as one without text."""
    html: str = ""
    """The page; empty writes report.html in the run's folder."""


def main(settings: SFTReportSettings) -> None:
    """Write the page and say where it lies."""
    target = Path(settings.html) if settings.html else Path(settings.run) / PAGE
    write_sft_page(Path(settings.run), target, [Path(folder) for folder in settings.others])
    print(f"sft-report: {target}")


if __name__ == "__main__":
    config.run(main, SFTReportSettings, __doc__ or "")
