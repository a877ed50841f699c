"""Self-QA against a server with latency, a limit and faults: throughput, memory, and what kills cost.

    python benchmarks/selfqa_server.py --out benchmarks/results/selfqa_server_X.json

Two parts, both with `python selfqa/generate.py --backend openai` and `benchmarks/scripted_server.py`, each a process of
its own:

- throughput: `--documents` small filings, a passage each, 64 calls under way at most, 200 ms a call, 6 % of the
  attempts fault. Ideal are the calls' own seconds (faults and hangs included, as the server saw them) over 64; measured
  is the time from the first call to the last. The run's largest memory is read too.
- kills: a smaller corpus, killed with SIGKILL `--kills` times, each time after some more replies, then left to end. Its
  records must be those of a run that nothing disturbed, byte by byte, and every call that was paid for again must have
  been under way when a kill came.
"""

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: import from this checkout, not from this folder or from an older install
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from benchmarks import six_billion
from benchmarks.six_billion import CHECKOUT

PARALLEL = 64
QUESTIONS = 5
"""About each passage."""


def write_corpus(folder: Path, documents: int) -> None:
    """Write small filings, each of another bank and with figures of its own."""
    folder.mkdir(parents=True)
    for number in range(documents):
        name = f"Bank {chr(65 + number % 26)}{chr(65 + number // 26 % 26)}{number} Inc."
        branches = [
            f"Branch {branch} of {name} held deposits of ${(number * 37 + branch * 101) % 9000 / 10 + 10:.1f} million "
            f"at the end of {2020 + branch % 5}."
            for branch in range(1, 1 + QUESTIONS)
        ]
        text = f"# {name}\n\nAnnual report for the fiscal year ended December 31, 2024\n\n## Deposits\n\n"
        (folder / f"bank_{number}.md").write_text(text + " ".join(branches) + "\n", encoding="utf-8")


@contextmanager
def served(*flags: str) -> Iterator[str]:
    """Start the scripted server and give its address."""
    command = [sys.executable, str(CHECKOUT / "benchmarks" / "scripted_server.py"), *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def stats(url: str) -> dict[str, Any]:
    """Return what the server was asked."""
    with urllib.request.urlopen(f"{url}/stats", timeout=30) as reply:
        found: dict[str, Any] = json.load(reply)
    return found


def command(corpus: Path, url: str, out: Path) -> list[str]:
    """Return the command of a run, as a user types it."""
    flags = ["--corpus", str(corpus), "--backend", "openai", "--model", "scripted", "--endpoint", f"{url}/v1"]
    flags += ["--output", str(out), "--runs", str(out.parent / f"runs-{out.name}"), "--parallel", str(PARALLEL)]
    flags += ["--questions", str(QUESTIONS), "--timeout_seconds", "5", "--types", '{"figure": 1.0}']
    return [sys.executable, "-W", "ignore", str(CHECKOUT / "selfqa" / "generate.py"), *flags]


def run(corpus: Path, url: str, out: Path) -> float:
    """Run to the end; returns seconds.

    Raises:
        SystemExit: The run failed.
    """
    began = time.perf_counter()
    done = subprocess.run(command(corpus, url, out), capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"the run in {out} ended with code {done.returncode}:\n{done.stderr[-3000:]}")
    return time.perf_counter() - began


def summary(out: Path) -> dict[str, Any]:
    """Return a run's counts."""
    found: dict[str, Any] = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    return found


def throughput(folder: Path, documents: int, faults: float) -> dict[str, Any]:
    """Measure a run over many documents."""
    write_corpus(folder / "many", documents)
    with served("--most", str(PARALLEL), "--faults", str(faults), "--hang-seconds", "30") as url:
        seconds = run(folder / "many", url, folder / "whole")
        found = stats(url)
    made = summary(folder / "whole")
    ideal = found["busy_seconds"] / PARALLEL
    return {
        "documents": documents,
        "share_of_ideal": ideal / found["seconds"],
        "calls_per_second": found["paid"] / found["seconds"],
        "asking_seconds": found["seconds"],
        "ideal_seconds": ideal,
        "whole_seconds": seconds,
        "peak_memory_gb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6,
        "outcomes": found["outcomes"],
        "peak_under_way": found["peak"],
        "paid_again": found["paid_again"],
        "pairs_wanted": documents * QUESTIONS,
        "pairs_kept": made["kept"],
        "rejected": made["rejected_by_rule"],
    }


def kills(folder: Path, documents: int, count: int, faults: float) -> dict[str, Any]:
    """Kill a run again and again and compare what it makes with an undisturbed one."""
    corpus, out = folder / "few", folder / "killed"
    write_corpus(corpus, documents)
    flags = ("--most", str(PARALLEL), "--faults", str(faults), "--hang-seconds", "6")
    with served(*flags) as url:
        run(corpus, url, folder / "undisturbed")
        calls = stats(url)["paid"]
    lost = 0
    with served(*flags) as url:
        done = 0
        for number in range(1, 1 + count):
            process = subprocess.Popen(command(corpus, url, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            goal = number * calls // (count + 1)
            while process.poll() is None and stats(url)["paid"] < goal:
                time.sleep(0.01)
            done += process.poll() is None
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        run(corpus, url, out)
        found = stats(url)
    files = ("instructions.jsonl", "documents.jsonl", "rejected.jsonl")
    same = {name: (out / name).read_bytes() == (folder / "undisturbed" / name).read_bytes() for name in files}
    ids = [json.loads(line)["id"] for line in (out / "instructions.jsonl").read_text(encoding="utf-8").splitlines()]
    lost = documents * QUESTIONS - summary(out)["kept"] - summary(out)["questions_rejected"]
    return {
        "kills": done,
        "documents": documents,
        "calls": calls,
        "same_bytes": same,
        "pairs_kept": summary(out)["kept"],
        "pairs_lost": lost,
        "pairs_doubled": len(ids) - len(set(ids)),
        "paid_again": found["paid_again"],
        "paid_again_at_most": done * PARALLEL,
        "calls_remembered": summary(out)["calls_remembered"],
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=1000, help="of the throughput (default: %(default)s)")
    parser.add_argument("--killed-documents", type=int, default=100, help="of the kills (default: %(default)s)")
    parser.add_argument("--kills", type=int, default=20, help="(default: %(default)s)")
    parser.add_argument("--faults", type=float, default=0.06, help="share of attempts (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = {"throughput": throughput(folder, given.documents, given.faults)}
        print(json.dumps(found, indent=1), flush=True)
        found["kills"] = kills(folder, given.killed_documents, given.kills, given.faults)
    print(json.dumps(found["kills"], indent=1))
    if given.out:
        six_billion.write(given.out, found)


if __name__ == "__main__":
    main()
