"""Nothing lost, nothing doubled, how fast: many people annotate on the real server while it is pulled over and over.

    python benchmarks/annotation_server.py --out benchmarks/results/annotation_2026-11-29.json

Starts a Label Studio of its own, pushes pairs, lets writers annotate, skip, edit and delete through the API, runs
`finlm annotate pull` over and over meanwhile, and then compares the log with Label Studio's database row by row. A
second log that has only the pushed pairs is pulled once in full and must come to the same preferences, byte for byte.
Last, when the burst lies behind the overlap that each pull looks back, pulls after some changes are timed. The first of
them looks back from the newest change that was read, so over the end of the burst; the others do not.

    python benchmarks/annotation_server.py --annotations 1000        the pull alone, in about a quarter of an hour
    … --annotations 1000 --quiet-seconds 0                           in five minutes: each looks back over the burst
"""

import argparse
import contextlib
import json
import os
import shlex
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: import from this checkout, not from this folder or from an older install
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from annotation.api import LabelStudio, Project
from annotation.environment import VERSION
from annotation.eventlog import OVERLAP
from annotation.server_folder import open_secrets, read_address
from benchmarks.annotation_rows import compare, unseen
from benchmarks.annotation_writers import Writer, all_work, shares, sign_up
from finlm import jsonl
from finlm.records import Candidates, Message, PreferencePair, Prompt, Response
from finlm.runs import write_json, write_text

CHECKOUT = Path(__file__).resolve().parent.parent
TITLE = "Benchmark"


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where all of it happens."""

    folder: Path
    """Its own folder of runs."""
    server: Path
    project: Project

    @property
    def database(self) -> Path:
        """Label Studio's own."""
        return self.server / "data" / "label_studio.sqlite3"

    def log(self, name: str = "log") -> Path:
        """A log by name."""
        return self.folder / f"{name}.sqlite"

    def preferences(self, name: str = "log") -> Path:
        """What a log's pull wrote."""
        return self.folder / name / "preferences.jsonl"

    def pull(self, name: str = "log") -> float:
        """Pull as a user does, in a process of its own; return its seconds."""
        outputs = ("--output", str(self.preferences(name)), "--summary", str(self.folder / name / "summary.json"))
        began = time.perf_counter()
        entry(
            "pull",
            "--server",
            str(self.server),
            "--project",
            self.project.title,
            "--log",
            str(self.log(name)),
            *outputs,
        )
        return time.perf_counter() - began


def main() -> None:
    """Serve, push, write and pull at once, compare, time, write down."""
    asked = arguments()
    with tempfile.TemporaryDirectory() as name, served(asked, Path(name)) as server:
        figures = measure(asked, Path(name), server)
    print(json.dumps(figures, indent=1))
    if asked.out:
        write(asked, figures)


def arguments() -> argparse.Namespace:
    """Sizes and places."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5000, help="pushed (default: %(default)s)")
    parser.add_argument("--annotations", type=int, default=10000, help="made, skips included (default: %(default)s)")
    parser.add_argument("--writers", type=int, default=8, help="at once (default: %(default)s)")
    parser.add_argument("--changes", type=int, default=100, help="before a timed pull (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="of timed pulls (default: %(default)s)")
    parser.add_argument("--pause-seconds", type=float, default=10.0, help="between pulls (default: %(default)s)")
    parser.add_argument("--burst-minutes", type=float, default=120.0, help="then writers stop (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    quiet = OVERLAP.total_seconds() + 30
    parser.add_argument("--quiet-seconds", type=float, default=quiet, help="before timed pulls (default: %(default)s)")
    parser.add_argument("--server", type=Path, help="folder of a server that runs already, in place of a new one")
    parser.add_argument("--title", default=TITLE, help="of the project (default: %(default)s)")
    parser.add_argument("--beside", default="nothing else", help="what else ran on the machine, for the result")
    parser.add_argument("--out", type=Path, help="JSON file to write; the page goes beside it")
    return parser.parse_args()


@contextlib.contextmanager
def served(asked: argparse.Namespace, folder: Path) -> Iterator[Path]:
    """Yield the folder of a running server with our project on it: the named one, or one that lives as long as this."""
    if asked.server:
        entry("serve", "--server", str(asked.server), "--project", asked.title)
        yield asked.server
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    server = folder / "server"
    flags = ("--server", str(server))
    try:
        entry("serve", *flags, "--port", port, "--detach", "true", "--project", asked.title)
        yield server
    finally:
        entry("serve", *flags, "--stop", "true")


def measure(asked: argparse.Namespace, folder: Path, server: Path) -> dict[str, Any]:
    """Push, write and pull, compare, time."""
    url, token = read_address(server).url, open_secrets(server).token
    load = [os.getloadavg()[0]]
    with LabelStudio(url, token) as client:
        project = client.find_project(asked.title)
        assert project is not None
        place = Place(folder=folder, server=server, project=project)
        pushed_in = push(place, asked.pairs)
        invitation = client.invite_link()
        tasks = sorted(client.task_ids(project.id))
    writers = [
        sign_up(url, invitation, f"writer-{project.id}-{number}@example.com", asked.seed * 1000 + number)
        for number in range(asked.writers)
    ]
    burst, pulls = write_and_pull(asked, place, writers, shares(tasks, asked.annotations, asked.writers, asked.seed))
    in_burst = [step for writer in writers for step in writer.ledger]
    ended = time.monotonic()
    last_in = place.pull()
    found = check(place, writers, "log")
    full_in = place.pull("whole")
    found_whole = check(place, writers, "whole")
    same = place.preferences().read_bytes() == place.preferences("whole").read_bytes()
    load.append(os.getloadavg()[0])
    time.sleep(max(0.0, ended + asked.quiet_seconds - time.monotonic()))
    timed = []
    for _ in range(asked.rounds):
        changes(writers, tasks, asked.changes)
        timed.append(place.pull())
    load.append(os.getloadavg()[0])
    after = check(place, writers, "log")
    ledger = [step for writer in writers for step in writer.ledger]
    for writer in writers:
        writer.client.close()
    kinds = ("create", "skip", "edit", "delete")
    return {
        "lost": found["lost"] + found_whole["lost"] + after["lost"],
        "doubled": found["doubled"] + found_whole["doubled"] + after["doubled"],
        "incremental_pull_seconds": statistics.median(timed),
        "incremental_pull_seconds_all": timed,
        "pairs": asked.pairs,
        "annotations": sum(step.does in {"create", "skip"} for step in in_burst),
        "annotations_asked": asked.annotations,
        "writers": asked.writers,
        "confirmed_writes": {kind: sum(step.does == kind for step in in_burst) for kind in kinds},
        "unconfirmed_writes": sum(len(writer.failures) for writer in writers),
        "unconfirmed_examples": [failure for writer in writers for failure in writer.failures][:5],
        "push_seconds": pushed_in,
        "burst_seconds": burst,
        "writes_per_second": len(in_burst) / burst,
        "pulls_during_burst": len(pulls),
        "pull_seconds_during_burst": pulls,
        "pull_seconds_after_burst": last_in,
        "full_pull_seconds": full_in,
        "same_preferences_from_a_full_pull": same,
        "after_the_burst": found,
        "full_pull": found_whole,
        "after_the_timed_pulls": after,
        "not_to_be_seen": unseen(place.log(), place.project.key, ledger),
        "load": load,
    }


def push(place: Place, count: int) -> float:
    """Push pairs as a user does, keep a log of the pairs alone aside, and return the seconds of the push."""
    jsonl.write(place.folder / "candidates.jsonl", list(pairs(count)))
    flags = ("--candidates", str(place.folder / "candidates.jsonl"), "--log", str(place.log()))
    flags += ("--server", str(place.server), "--project", place.project.title)
    began = time.perf_counter()
    entry("push", *flags, "--rejected", str(place.folder / "push-rejected.jsonl"))
    seconds = time.perf_counter() - began
    with (
        contextlib.closing(sqlite3.connect(place.log())) as one,
        contextlib.closing(sqlite3.connect(place.log("whole"))) as other,
    ):
        one.backup(other)
    return seconds


def pairs(count: int) -> Iterator[Candidates]:
    """Questions and answers of 300 to 1,200 characters, cut from the example texts in English and Chinese."""
    texts = [path.read_text(encoding="utf-8") for path in sorted((CHECKOUT / "examples" / "text").glob("*.txt"))]
    for number in range(count):
        text = texts[number % len(texts)]
        answers = []
        for turn in range(2):
            size = 300 + (number * 37 + turn * 211) % 900
            start = (number * 101 + turn * 4001) % max(1, len(text) - size)
            answers.append(Response(text=f"{number}.{turn} {text[start : start + size]}", model=f"model-{turn}"))
        asked = Message(role="user", content=f"Question {number}: what does the text say? {text[:200]}")
        yield Candidates(prompt=Prompt(messages=(asked,)), responses=tuple(answers))


def write_and_pull(
    asked: argparse.Namespace, place: Place, writers: list[Writer], dealt: list[list[int]]
) -> tuple[float, list[float]]:
    """Let the writers work while pulls follow each other; return the seconds of all and of each pull."""
    began = time.perf_counter()
    threads, stop = all_work(writers, dealt)
    pulls = []
    try:
        while any(thread.is_alive() for thread in threads):
            pulls.append(place.pull())
            told = sum(len(writer.ledger) for writer in writers)
            seconds = time.perf_counter() - began
            print(f"{seconds:.0f} s: {told} writes, pull {pulls[-1]:.1f} s", file=sys.stderr, flush=True)
            if seconds > 60 * asked.burst_minutes:
                stop.set()
            threads[0].join(timeout=asked.pause_seconds)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    return time.perf_counter() - began, pulls


def check(place: Place, writers: list[Writer], name: str) -> dict[str, int]:
    """Compare a log with the database."""
    ledger = [step for writer in writers for step in writer.ledger]
    votes = [vote.annotation_id for pair in jsonl.read(place.preferences(name), PreferencePair) for vote in pair.votes]
    project = place.project
    return compare(place.database, place.log(name), project.id, project.key, ledger, votes).told()


def changes(writers: list[Writer], tasks: list[int], count: int) -> None:
    """Make so many changes, all writers at once: half of them new annotations, the others edits."""

    def some(writer: Writer, share: int) -> None:
        for number in range(share):
            if number % 2 and writer.own:
                writer.edit(writer.chance.choice(list(writer.own)))
            else:
                writer.annotate(writer.chance.choice(tasks))

    sizes = [len(range(position, count, len(writers))) for position in range(len(writers))]
    threads = [
        threading.Thread(target=some, args=(writer, share)) for writer, share in zip(writers, sizes, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def entry(name: str, *flags: str) -> str:
    """Run `finlm annotate NAME` in a process of its own."""
    command = [sys.executable, str(CHECKOUT / "annotation" / f"{name}.py"), *flags]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"annotate {name} ended with {done.returncode}: {done.stdout[-500:]}{done.stderr[-1500:]}")
    return done.stdout


def write(asked: argparse.Namespace, figures: dict[str, Any]) -> None:
    """Write the result and its page."""
    git = ["git", "-C", str(CHECKOUT), "rev-parse", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    words = [f"benchmarks/results/{asked.out.name}" if word == str(asked.out) else word for word in sys.argv[1:]]
    run = {
        "command": shlex.join(["python", "benchmarks/annotation_server.py", *words]),
        "commit": commit,
        "hardware": "2 cores",
        "beside": asked.beside,
        "versions": {"python": sys.version.split()[0], "label-studio": VERSION, "sqlite": sqlite3.sqlite_version},
    }
    write_json(asked.out, {"figures": figures, "runs": [run]})
    write_text(asked.out.with_suffix(".md"), page(figures, run))


def page(figures: dict[str, Any], run: dict[str, Any]) -> str:
    """The same for people."""
    made, after, unread = figures["confirmed_writes"], figures["after_the_burst"], figures["not_to_be_seen"]
    during = figures["pull_seconds_during_burst"]
    timed = figures["incremental_pull_seconds_all"]
    short = (
        f"{figures['annotations_asked']:,} annotations were asked for; the writers were stopped when their time was up "
        f"(`--burst-minutes`) at {figures['annotations']:,}.\n"
    )
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    rows = {
        "lost": figures["lost"],
        "doubled": figures["doubled"],
        "annotations in Label Studio's database after the burst": f"{after['rows']:,}",
        "events of the log then; annotations that it notes as deleted": f"{after['events']:,}; {after['deleted']:,}",
        "a full pull into a second log gives the same preferences.jsonl": "yes"
        if figures["same_preferences_from_a_full_pull"]
        else "no",
        "writes that the server did not confirm": figures["unconfirmed_writes"],
        f"push of {figures['pairs']:,} pairs": f"{figures['push_seconds']:.1f} s",
        "writes a second, all writers": f"{figures['writes_per_second']:.1f}",
        "pulls during the burst": f"{len(during)}, of {min(during):.1f} to {max(during):.1f} s",
        "full pull": f"{figures['full_pull_seconds']:.1f} s",
        "pull after 100 changes, median": f"{figures['incremental_pull_seconds']:.2f} s "
        f"({', '.join(f'{one:.2f}' for one in timed)}; the first looks back over the end of the burst)",
    }
    return "\n".join(
        [
            "# People annotate while their work is pulled",
            "",
            f"{figures['pairs']:,} pairs on the real server (sqlite), {figures['writers']} writers at once through the "
            f"API: {made['create']:,} annotations, {made['skip']:,} skips, {made['edit']:,} edits and "
            f"{made['delete']:,} deletions in {figures['burst_seconds']:,.0f} s, while `finlm annotate pull` ran "
            "again and again. Then the log is compared with Label Studio's database row by row, past its API: person, "
            "task, skipped or not, result, time.",
            "",
            *([short] if figures["annotations"] < figures["annotations_asked"] else []),
            "| | |",
            "|---|---|",
            *[f"| {name} | {value} |" for name, value in rows.items()],
            "",
            f"Times are of whole processes, Python's start included, on 2 cores that also ran the server, the "
            f"writers and beside them: {run['beside']} (load {', '.join(f'{one:.1f}' for one in figures['load'])} "
            "before, after the burst and at the end).",
            "",
            f"Between two pulls {unread['states_overwritten_between_pulls']} states were overwritten by a later edit "
            f"and {unread['made_and_deleted_between_pulls']} annotations were made and deleted again; Label Studio "
            "keeps no history, so no pull can read them. It does not show PostgreSQL, nor people in browsers.",
            "",
            f"`{run['command']}`, commit {run['commit'][:7]}, {run['hardware']}; {versions}.",
            "",
        ]
    )


if __name__ == "__main__":
    main()
