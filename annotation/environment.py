"""An environment of its own for Label Studio.

Label Studio pins Django, pyarrow, numpy, openai and 150 others so narrowly that sharing an environment with the
training stack would break at the next release of any of them. It therefore lives in a venv that only its server uses.
"""

import contextlib
import fcntl
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from finlm.errors import UserError
from finlm.runs import need_disk, write_text

VERSION = "1.23.2"
CONSTRAINTS = Path(__file__).with_name("label_studio_constraints.txt")
INSTALLED_GB = 1.2
"""Disk that the environment takes, with some room."""
MARKER = "finlm-installed.txt"
BEGUN = "finlm-installing.txt"
"""Lies in the folder while we fill it: what a killed installation left behind is deleted, since pip would trust it."""


def python_of(environment: Path) -> Path:
    """The interpreter of a venv."""
    return environment / "bin" / "python"


def ensure(environment: Path, console: Console) -> Path:
    """Make the environment if it is not there yet and return the path of its `label-studio` command.

    Whole or not there: the marker that later calls trust is written last; a cut-off installation begins afresh.

    Raises:
        UserError: The folder is something else, holds another version, or pip failed.
    """
    environment = environment.absolute()
    environment.parent.mkdir(parents=True, exist_ok=True)
    command = environment / "bin" / "label-studio"
    with _only_one(environment.with_name(f".{environment.name}.lock"), console) as lock:
        if _is_complete(environment):
            return command
        if (environment / BEGUN).is_file():
            console.print(f"An earlier installation in {environment} was cut off; starting it afresh")
            shutil.rmtree(environment)
        if environment.is_dir() and any(environment.iterdir()) and not (environment / "pyvenv.cfg").is_file():
            raise UserError(f"{environment} is a folder but no venv; choose another --environment.")
        _refuse_other_version(environment)
        need_disk(environment, INSTALLED_GB)
        if not python_of(environment).is_file():
            console.print(f"Making an environment for Label Studio {VERSION} in {environment}", soft_wrap=True)
            write_text(environment / BEGUN, _wanted())
            _checked([sys.executable, "-m", "venv", str(environment)], environment, "making the venv")
        _install(environment, console, lock)
        write_text(environment / MARKER, _wanted())
        (environment / BEGUN).unlink(missing_ok=True)
    return command


def _wanted() -> str:
    digest = hashlib.sha256(CONSTRAINTS.read_bytes()).hexdigest()
    return f"label-studio=={VERSION} constraints {digest}\n"


def _is_complete(environment: Path) -> bool:
    marker = environment / MARKER
    return marker.is_file() and marker.read_text(encoding="utf-8") == _wanted() and python_of(environment).exists()


def _refuse_other_version(environment: Path) -> None:
    """A venv that somebody else filled is left alone; one that we filled with older pins is brought up to date."""
    if (environment / MARKER).is_file():
        return
    found = sorted(environment.glob("lib/python*/site-packages/label_studio-*.dist-info"))
    versions = {path.name.removeprefix("label_studio-").removesuffix(".dist-info") for path in found}
    if versions - {VERSION}:
        raise UserError(
            f"{environment} holds Label Studio {', '.join(sorted(versions))}, this project works with {VERSION}; "
            "choose another --environment or delete the folder."
        )


@contextlib.contextmanager
def _only_one(lock: Path, console: Console) -> Iterator[int]:
    """Two starts at once install once: the second waits for the first. Yields the descriptor that holds the lock."""
    with lock.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.print("Another process is installing Label Studio; waiting for it …")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield handle.fileno()


def _install(environment: Path, console: Console, lock: int) -> None:
    """Install with uv, which takes a fifth of pip's time; with pip where uv does not get through.

    uv does not read pip's configuration, so a mirror or certificate that only pip knows of ends in the second way.
    """
    python = str(python_of(environment))
    wanted = ["--constraint", str(CONSTRAINTS), f"label-studio=={VERSION}"]
    # without --no-compile pip byte-compiles a gigabyte, most of which no server ever imports
    pip = [python, "-m", "pip", "install", "--no-compile", "--no-input", "--disable-pip-version-check"]
    pip += ["--progress-bar", "off"]
    log = environment.with_name(f"{environment.name}.log")
    log.write_text("", encoding="utf-8")
    title = f"Installing Label Studio {VERSION}"
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    ) as progress:
        bar = progress.add_task(title, total=None, note="")

        def done(*command: str) -> bool:
            return _logged(command, log, lock, lambda line: progress.update(bar, note=line[:60])) == 0

        if done(*pip, "uv") and done(python, "-m", "uv", "pip", "install", "--python", python, *wanted):
            return
        progress.update(bar, description=f"{title} with pip")
        if done(*pip, *wanted):
            return
    complaints = [line for line in log.read_text(encoding="utf-8").splitlines() if line.startswith("ERROR: ")]
    raise UserError(
        f"Label Studio {VERSION} could not be installed into {environment} "
        f"({complaints[0].removeprefix('ERROR: ') if complaints else 'pip did not say why'}); is the package index "
        f"within reach? Everything pip said is in {log}; mend the cause and run the same command again."
    )


def _logged(command: Sequence[str], log: Path, lock: int, show: Callable[[str], None]) -> int:
    """Run a command, write what it prints to `log`, show each line, and return its exit code."""
    # the child holds the lock too: if we are killed and it lives on, the next start waits for it
    with (
        log.open("a", encoding="utf-8") as out,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", pass_fds=(lock,)
        ) as child,
    ):
        assert child.stdout is not None
        try:
            for line in child.stdout:
                out.write(line)
                show(line.strip())
        except BaseException:
            child.terminate()
            raise
    return child.returncode


def _checked(command: list[str], environment: Path, what: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        raise UserError(f"{environment}: {what} failed ({lines[-1]}); choose another --environment or mend the cause.")
