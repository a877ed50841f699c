"""Two processes that share the tests: what several tests share is made in one of them."""

import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path


def test_the_tests_of_a_file_or_of_such_a_folder_run_in_one_process(root: Path) -> None:
    files = ("selfqa/test_plan.py", "selfqa/test_quotes.py", "test_figures.py", "test_records.py")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-v", "-n", "2", "--dist", "loadscope"]
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [*command, *(f"tests/{file}" for file in files)],
        cwd=root,
        env=variables,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    workers: dict[str, set[str]] = defaultdict(set)
    for worker, file in re.findall(r"^\[(gw\d)\].* PASSED tests/(\S+?)::", done.stdout, re.MULTILINE):
        workers["selfqa" if file.startswith("selfqa/") else file].add(worker)
    assert workers.keys() == {"selfqa", "test_figures.py", "test_records.py"}
    assert all(len(its) == 1 for its in workers.values())
    assert len(set.union(*workers.values())) == 2
