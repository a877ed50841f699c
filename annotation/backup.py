"""Copies what cannot be made again while it is in use: our log, Label Studio's database, the secrets.

finlm annotate backup                      into backups/annotation-<date and time>/
finlm annotate backup --output DIR

The log is copied first: a restored server is then never older than a restored log, and the next pull brings the rest.
"""

import os
import sys

if not __package__:  # run as a file: import from this checkout, not from this folder or from an older install
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import contextlib
import datetime as dt
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from annotation.database import read_database
from annotation.server_folder import read_address
from finlm.config import default_runs, run
from finlm.errors import MissingInput, UserError
from finlm.runs import whole_folder

PRIVATE = ("secrets.json", "server.json", "data/.env")
"""Of the server's folder: what opens it, where it was, the key of its sessions."""


@dataclass(frozen=True, kw_only=True)
class BackupSettings:
    """Settings of `finlm annotate backup`."""

    runs: str = field(default_factory=default_runs)
    """The run root."""
    log: str = "{runs}/annotation/log.sqlite"
    """The local log, which alone knows what stood where."""
    server: str = "{runs}/annotation/server"
    """Folder of the server that `finlm annotate serve` started; one elsewhere is backed up where it is."""
    output: str = ""
    """The folder to make; empty for backups/annotation-<date and time>. One that is there is not replaced."""


def main(settings: BackupSettings) -> None:
    """Copy, prove that the copies can be read, say what is in them."""
    console = Console()
    log, server = Path(settings.log), Path(settings.server)
    if not log.is_file():
        raise MissingInput(f"No annotation log at {log}; there is nothing to back up before: finlm annotate push")
    output = Path(settings.output or f"backups/annotation-{dt.datetime.now():%Y-%m-%d-%H%M%S}")
    if output.exists():
        raise UserError(f"--output {output} is there already; choose another one, a backup is never replaced.")
    with private_files(), whole_folder(output) as aside:
        copy_sqlite(log, aside / "log.sqlite")
        told: dict[str, int | str] = {"events of the log": count(aside / "log.sqlite", "event")}
        if server.is_dir():
            told |= copy_server(server, aside / "server")
        else:
            console.print(f"No server in {server}: only the log is copied.")
    for name, value in told.items():
        console.print(f"  {name}: {value:,}" if isinstance(value, int) else f"  {name}: {value}")
    console.print(f"{output}", soft_wrap=True, highlight=False)


@contextlib.contextmanager
def private_files() -> Iterator[None]:
    """What is made meanwhile only its owner can read: a backup opens the server."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def copy_server(server: Path, output: Path) -> dict[str, int | str]:
    """Copy a server's database and secrets and return what is in them."""
    (output / "data").mkdir(parents=True)
    setting = read_address(server).database if (server / "server.json").is_file() else ""
    if setting:
        told: dict[str, int | str] = {"PostgreSQL's dump": dump(setting, output / "label_studio.dump")}
    else:
        copied = output / "data" / "label_studio.sqlite3"
        copy_sqlite(server / "data" / "label_studio.sqlite3", copied)
        told = {"annotations of Label Studio": count(copied, "task_completion")}
    for name in PRIVATE:
        if (server / name).is_file():
            shutil.copyfile(server / name, output / name)
    return told


def copy_sqlite(path: Path, output: Path) -> None:
    """Copy a database that others are writing to, as of one moment, and check the copy.

    Raises:
        MissingInput: It is not there.
        UserError: The copy cannot be read, so the original is damaged.
    """
    if not path.is_file():
        raise MissingInput(f"No database at {path}; start the server once: finlm annotate serve")
    with (
        contextlib.closing(sqlite3.connect(path, timeout=60.0)) as one,
        contextlib.closing(sqlite3.connect(output)) as other,
    ):
        try:
            one.backup(other)
            other.execute("PRAGMA journal_mode=DELETE")  # one file, not three
            found = other.execute("PRAGMA integrity_check").fetchone()[0]
        except sqlite3.DatabaseError as error:
            raise UserError(f"{path} cannot be copied ({error}); an earlier backup has an older state.") from error
    if found != "ok":
        raise UserError(f"{path} is damaged ({found}); an earlier backup has an older state.")


def count(path: Path, table: str) -> int:
    """Return the rows of a table."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        rows: int = db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    return rows


def dump(setting: str, output: Path) -> str:
    """Have PostgreSQL's own `pg_dump` copy a database as of one moment; return the size.

    Raises:
        UserError: pg_dump is not installed or failed.
    """
    database = read_database(setting)
    assert database is not None  # it was written by us
    command = ["pg_dump", "--no-password", "--format=custom", f"--file={output}", database.url]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        raise UserError("pg_dump was not found; install PostgreSQL's client programs (postgresql-client).") from None
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"{setting}: pg_dump failed ({said}); its password is read from PGPASSWORD or ~/.pgpass.")
    return f"{output.stat().st_size / 1e6:.1f} MB"


if __name__ == "__main__":
    run(main, BackupSettings, "Copies the log, Label Studio's database and its secrets while they are in use.")
