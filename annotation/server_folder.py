"""What lies in a server's folder for whoever talks to the server: its secrets, where it is reached, its copies.

<server>/secrets.json        the lead's login, password and token, mode 600
<server>/server.json         where the server is reached, its process, the project
<server>/label-studio.log    what it prints
<server>/data/               its database and media
<server>/copies/             what Label Studio itself writes of each annotation, the second copy

`annotation/server.py` starts and ends the server; it needs the system's processes, this does not.
"""

import os
import secrets
import string
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import msgspec

from finlm.errors import MissingInput, UserError
from finlm.runs import write_json

T = TypeVar("T")

LEAD = "lead@finlm.local"
SERVE = "finlm annotate serve"


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    """What opens the server. Never printed, except the password to a terminal.

    Example:
        Secrets(email="lead@finlm.local", password="…", token="…")
    """

    email: str
    password: str = field(repr=False)
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a server runs, as noted by the one who started it.

    Example:
        Address(url="http://127.0.0.1:8080", pid=4711, started=1795321780.4, project="Preferences")
    """

    url: str
    pid: int
    started: float
    """The process's start, in seconds since 1970: tells it from a later one with the same number."""
    project: str = ""
    database: str = ""
    """Where the annotations are, `postgresql://…` without a password; empty for the folder's own sqlite file."""


def open_secrets(folder: Path) -> Secrets:
    """Return the server's secrets, drawing them on the first call.

    Raises:
        UserError: Others can read the file.
    """
    path = folder / "secrets.json"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not path.exists():
        letters = string.ascii_letters + string.digits
        password = "".join(secrets.choice(letters) for _ in range(20))
        drawn = Secrets(email=LEAD, password=password, token=secrets.token_hex(20))
        aside = path.with_name(".secrets.json.tmp")
        aside.unlink(missing_ok=True)
        with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            out.write(msgspec.json.encode(drawn))
            out.flush()
            os.fsync(out.fileno())
        os.replace(aside, path)
    if path.stat().st_mode & 0o077:
        raise UserError(f"{path} holds the server's token and others can read it; run: chmod 600 {path}")
    return _decode(path, Secrets)


def read_address(folder: Path) -> Address:
    """Return where the server of this folder is reached.

    Raises:
        MissingInput: No server was ever started from it.
    """
    path = folder / "server.json"
    if not path.is_file():
        raise MissingInput(f"No annotation server is known in {folder}; start one with: {SERVE} (or name a --url)")
    return _decode(path, Address)


def note_address(folder: Path, address: Address) -> None:
    """Write where the server is reached."""
    write_json(folder / "server.json", msgspec.to_builtins(address))


def _decode(path: Path, record: type[T]) -> T:
    try:
        return msgspec.json.decode(path.read_bytes(), type=record)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise UserError(f"{path} is damaged ({error}); restore it from a backup.") from error


def copies_of(folder: Path) -> Path:
    """The folder into which the server may write copies of annotations, one folder a project."""
    return folder.absolute() / "copies"
