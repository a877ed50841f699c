"""Starts a test's own file as one process, or as several by torch's launcher."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def search_path() -> str:
    """Return the modules' path of a process that runs a test's file: this checkout, the tests, and the parent's own."""
    tests = ROOT / "tests"
    folders = [ROOT, tests, tests / "alignment", tests / "reward", *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.pathsep.join(map(str, folders))


def launch(
    count: int, script: Path, *arguments: str | Path, python: str = sys.executable, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run `script` in `count` processes to its end."""
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count)]
    launcher = [python, *(several if count > 1 else [])]
    given = {"PYTHONPATH": search_path(), "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(
        [*launcher, str(script), *map(str, arguments)],
        env=os.environ | given,
        text=True,
        capture_output=True,
        timeout=300,
        check=False,
    )
