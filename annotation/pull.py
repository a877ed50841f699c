"""Fetches what the annotators did and writes the preferences.

Every annotation, edit, skip and deletion is added to the local log, which forgets nothing; the preferences are then
made of the log alone. Pulling again fetches only what changed.
"""

import os
import sys

if not __package__:  # run as a file: import from this checkout, not from this folder or from an older install
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from rich.console import Console

from annotation.pulling import PullSettings, pull_and_export
from finlm.config import run


def main(settings: PullSettings) -> None:
    """Pull once."""
    pull_and_export(settings, Console())


if __name__ == "__main__":
    run(main, PullSettings, "Fetches what the annotators did and writes the preferences.")
