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
from collections.abc import Iterator
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
    # without --no-compile pip byte-compiles a gigabyte, most of which no server ever imports
    command = [str(python_of(environment)), "-m", "pip", "install", "--no-compile", "--no-input"]
    command += ["--disable-pip-version-check", "--progress-bar", "off"]
    command += ["--constraint", str(CONSTRAINTS), f"label-studio=={VERSION}"]
    packages = sum(1 for line in CONSTRAINTS.read_text(encoding="utf-8").splitlines() if "==" in line)
    log = environment.with_name(f"{environment.name}.log")
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"), TimeElapsedColumn())
    with log.open("w", encoding="utf-8") as out, Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task(f"Installing Label Studio {VERSION}", total=packages, note="")
        # pip holds the lock too: if we are killed and it lives on, the next start waits for it
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, pass_fds=(lock,))
        assert child.stdout is not None
        try:
            for line in child.stdout:
                out.write(line)
                if line.startswith("Collecting "):
                    progress.update(bar, advance=1, note=line.split()[1][:30])
                elif line.startswith("Installing collected"):
                    progress.update(bar, total=None, note="unpacking (half a minute or more)")
        except BaseException:
            child.terminate()
            raise
        finally:
            child.stdout.close()
            child.wait()
    if child.returncode != 0:
        complaint = [line for line in log.read_text(encoding="utf-8").splitlines() if line.startswith("ERROR")]
        raise UserError(
            f"pip could not install Label Studio {VERSION} into {environment} "
            f"({complaint[-1].removeprefix('ERROR: ') if complaint else f'exit code {child.returncode}'}); "
            f"its output is in {log}; mend the cause and run the same command again."
        )


def _checked(command: list[str], environment: Path, what: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        raise UserError(f"{environment}: {what} failed ({lines[-1]}); choose another --environment or mend the cause.")
