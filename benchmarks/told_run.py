"""How a measurement on this machine's cores was made: for the JSON of a result, and in words for its page."""

import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

Run = dict[str, Any]
"""Command, commit, hardware, what ran beside it, versions."""


def run_of(packages: Sequence[str]) -> Run:
    """Return what was run, on what.

    Args:
        packages: Distributions whose versions matter.
    """
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    return {
        "command": " ".join(["python", *sys.argv]),
        "commit": commit,
        "hardware": f"{os.cpu_count()} cores",
        "beside": f"other work on the machine, load average {os.getloadavg()[1]:.1f}",
        "versions": {name: version(name) for name in packages},
    }


def told(run: Run) -> tuple[str, str]:
    """Return the two lines of a page that say how it was measured."""
    return (
        f"`{run['command']}`, commit {run['commit']}, {run['hardware']}; beside it: {run['beside']}.",
        f"Versions: {', '.join(f'{name} {number}' for name, number in run['versions'].items())}.",
    )
