"""Commands as processes side by side, each with its share of the machine and a log; one that fails stops no other."""

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue


@dataclass(frozen=True, slots=True)
class Job:
    """A command to run.

    Example:
        Job(name="fold-1", command=("python", "-m", "finlm", "reward"), log=Path("runs/fold-1.log"))
    """

    name: str
    command: tuple[str, ...]
    log: Path
    """What it prints; written anew."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a job ended."""

    job: Job
    returncode: int
    seconds: float


def places(gpus: int, parallel: int, cores: int) -> list[dict[str, str]]:
    """Return the environment of each process that runs at a time.

    Args:
        gpus: GPUs of the machine; 0: the processes share its cores only.
        parallel: Processes a GPU, or on the CPU.
        cores: Cores that they divide among themselves.
    """
    count = max(gpus, 1) * parallel
    threads = str(max(1, cores // count))
    common = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "false"}
    # one after the other on each GPU, so that few jobs do not crowd on the first
    return [common | ({"CUDA_VISIBLE_DEVICES": str(place % gpus)} if gpus else {}) for place in range(count)]


def run(
    jobs: Sequence[Job], environments: Sequence[dict[str, str]], told: Callable[[Ended], None] = lambda _: None
) -> list[Ended]:
    """Run the jobs, as many at a time as there are environments, and return how they ended, in their order.

    Args:
        jobs: What to run.
        environments: See `places`.
        told: Called as each job ends.
    """
    free: SimpleQueue[dict[str, str]] = SimpleQueue()
    for environment in environments:
        free.put(environment)

    def one(job: Job) -> Ended:
        environment = free.get()
        began = time.perf_counter()
        try:
            job.log.parent.mkdir(parents=True, exist_ok=True)
            with job.log.open("wb") as log:
                done = subprocess.run(
                    job.command, env=os.environ | environment, stdout=log, stderr=subprocess.STDOUT, check=False
                )
        finally:
            free.put(environment)
        ended = Ended(job, done.returncode, time.perf_counter() - began)
        told(ended)
        return ended

    with ThreadPoolExecutor(len(environments)) as threads:
        return list(threads.map(one, jobs))
