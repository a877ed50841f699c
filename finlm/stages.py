"""Stages started as the commands that a user would type, each a process of its own: what `finlm demo` and `finlm round`
have in common."""

import os
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from finlm.config import PLACES
from finlm.errors import UserError

HOME = Path(__file__).resolve().parent.parent
"""Where the entries lie: a checkout, or the folder that the wheel was installed into."""


def command_of(entry: str, arguments: Sequence[str], *, accelerate: str = "") -> list[str]:
    """Return the words of a command.

    Args:
        entry: The entry's file below `HOME`, such as `alignment/ppo.py`.
        arguments: Its flags.
        accelerate: Configuration file that `accelerate launch` starts it with; empty: one process, without it.
    """
    words = [str(HOME / entry), *arguments]
    if accelerate:
        words = ["-m", "accelerate.commands.launch", "--config_file", accelerate, *words]
    return [sys.executable, *words]


def accelerate_file(name: str) -> str:
    """Return the path of an accelerate configuration, given a path or the name of a shipped one such as `multi_gpu`.

    Raises:
        UserError: There is neither.
    """
    for path in (Path(name), *(place / "accelerate" / f"{name}.yaml" for place in PLACES)):
        if path.is_file():
            return str(path)
    shipped = sorted({path.stem for place in PLACES for path in (place / "accelerate").glob("*.yaml")})
    raise UserError(f"--accelerate {name}: no such file, and no shipped configuration ({', '.join(shipped)}).")


def run(
    name: str,
    command: Sequence[str],
    *,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    accepted: Collection[int] = (0,),
    keeps_open: Sequence[int] = (),
) -> int:
    """Run a stage to its end and return its exit code.

    Args:
        name: What it is called where it fails.
        command: Its words, see `command_of`.
        cwd: Where it runs; None: here.
        environment: Variables besides this process's.
        accepted: Exit codes that are no failure.
        keeps_open: Open files that it inherits, such as a lock that is held until it ends too.

    Raises:
        UserError: The stage failed; its own message stands above.
    """
    code = subprocess.run(
        command, cwd=cwd, env=os.environ | dict(environment or {}), check=False, pass_fds=keeps_open
    ).returncode
    if code not in accepted:
        raise UserError(
            f"The stage {name!r} ended with exit code {code}; its message stands above. "
            "Mend it and type the same command: what is finished is not repeated."
        )
    return code
