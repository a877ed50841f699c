"""Runs stages in processes of their own without paying their imports each time, and kills them where a test says.

A server process imports the heavy libraries once and forks a child for every run; the child becomes the stage's entry,
as `python <file>` or `python -m <module>` would. Every durable operation of a child (a rename, a sync, a deletion, an
optimizer step) has a number, so that a test can end it with SIGKILL before any of them.

    with Warm() as warm:
        done = warm.run("alignment.ppo", "--config", "ppo.yaml", cwd=folder, kill_at=17)
"""

import json
import os
import resource
import runpy
import selectors
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One run."""

    entry: str
    """A module's name, or the path of a file."""
    arguments: tuple[str, ...]
    cwd: str
    kill_at: int = 0
    """Number of the operation before which the process kills itself, from 1; 0 never."""
    full_at: int = 0
    """Number of the operation from which on the disk is full; 0 never."""
    terminate_at: int = 0
    """Number of the operation before which the process gets SIGTERM, which it may catch; 0 never."""
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Done:
    """How a run ended."""

    returncode: int
    stdout: str
    stderr: str
    operations: tuple[str, ...]
    """The durable operations in their order, each with the name of its file."""

    @property
    def was_killed(self) -> bool:
        return self.returncode == -signal.SIGKILL

    @property
    def said(self) -> str:
        return self.stdout + self.stderr


class Warm:
    """The server, for a `with` block or until `close`."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | ENVIRONMENT,
        )

    def __enter__(self) -> "Warm":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the server."""
        self._server.communicate()

    def run(
        self,
        entry: str | Path,
        *arguments: str | Path,
        cwd: Path,
        kill_at: int = 0,
        full_at: int = 0,
        terminate_at: int = 0,
        environment: dict[str, str] | None = None,
    ) -> Done:
        """Run an entry to its end and return how it ended."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        order = Order(
            entry=str(entry),
            arguments=tuple(map(str, arguments)),
            cwd=str(cwd),
            kill_at=kill_at,
            full_at=full_at,
            terminate_at=terminate_at,
            environment=environment or {},
        )
        self._server.stdin.write(json.dumps(asdict(order)) + "\n")
        self._server.stdin.flush()
        answer = self._server.stdout.readline()
        assert answer, "the warm server has ended"
        ended = json.loads(answer)
        return Done(ended["returncode"], ended["stdout"], ended["stderr"], tuple(ended["operations"].splitlines()))


# ------------------------------------------------------------------------------------------------ in the server


def serve() -> None:
    """Import, then fork a child for each line of stdin."""
    import torch

    torch.set_num_threads(1)
    import accelerate.commands.launch  # noqa: F401
    import datasets  # noqa: F401
    import jsonargparse  # noqa: F401
    import peft  # noqa: F401
    import transformers  # noqa: F401
    import trl  # noqa: F401
    from transformers import LlamaForCausalLM, LlamaForSequenceClassification, Trainer  # noqa: F401
    from trl import RewardTrainer  # noqa: F401

    for line in sys.stdin:
        order = Order(**json.loads(line))
        pipes = {name: os.pipe() for name in ("stdout", "stderr", "operations")}
        child = os.fork()
        if child == 0:
            become(order, {name: write for name, (_, write) in pipes.items()})
        for _, write in pipes.values():
            os.close(write)
        said = drained({name: read for name, (read, _) in pipes.items()})
        _, status = os.waitpid(child, 0)
        print(json.dumps({"returncode": os.waitstatus_to_exitcode(status), **said}), flush=True)


def drained(pipes: dict[str, int]) -> dict[str, str]:
    """Read the pipes until all are closed."""
    said = dict.fromkeys(pipes, b"")
    with selectors.DefaultSelector() as open_pipes:
        for name, pipe in pipes.items():
            open_pipes.register(pipe, selectors.EVENT_READ, name)
        while open_pipes.get_map():
            for key, _ in open_pipes.select():
                piece = os.read(key.fd, 1 << 16)
                said[key.data] += piece
                if not piece:
                    open_pipes.unregister(key.fd)
                    os.close(key.fd)
    return {name: content.decode("utf-8", "replace") for name, content in said.items()}


def become(order: Order, pipes: dict[str, int]) -> None:
    """Run the entry in this process and end with its exit code."""
    os.dup2(pipes["stdout"], 1)
    os.dup2(pipes["stderr"], 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(order.cwd)
    os.environ.pop("FINLM_RUNS", None)
    os.environ.update(order.environment)
    code = 0
    try:
        count_operations(order, pipes["operations"])
        sys.argv = [order.entry, *order.arguments]
        if order.entry.endswith(".py"):
            sys.path.insert(0, str(Path(order.entry).parent))
            runpy.run_path(order.entry, run_name="__main__")
        else:
            sys.path[0] = str(ROOT)
            runpy.run_module(order.entry, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def count_operations(order: Order, journal: int) -> None:
    """Number every durable operation, write its name down, and kill or fill the disk at the one asked for."""
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    count = 0

    def note(name: str) -> None:
        nonlocal count
        count += 1
        if count == order.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)
        if count == order.terminate_at:
            os.kill(os.getpid(), signal.SIGTERM)
        os.write(journal, (name + "\n").encode())
        if order.full_at and count >= order.full_at:
            # no file may grow beyond a few hundred bytes any more: what a full disk looks like from inside
            resource.setrlimit(resource.RLIMIT_FSIZE, (512, resource.RLIM_INFINITY))

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def operation(*given: Any, **named: Any) -> Any:
            note(f"{name} {shown(given[0])}")
            return function(*given, **named)

        return operation

    for name in ("replace", "rename", "fsync", "unlink", "rmdir", "mkdir"):
        setattr(os, name, counted(name, getattr(os, name)))
    register_optimizer_step_pre_hook(lambda *_: note("optimizer step"))


def shown(target: Any) -> str:
    """The last two names of a path, or of the file behind a descriptor, without this process's number."""
    try:
        path = os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else os.fsdecode(target)
    except FileNotFoundError:
        path = "?"
    return "/".join(Path(path).parts[-2:]).replace(f".{os.getpid()}", "")


if __name__ == "__main__":
    serve()
