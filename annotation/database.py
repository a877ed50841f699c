"""Where Label Studio keeps its annotations: a sqlite file in its own folder, or a PostgreSQL that somebody runs.

The setting is `postgresql://user@host:port/name`. A password stands neither in it, where a list of processes would show
it, nor in any file of ours: it is read from PGPASSWORD, or by the database's own client from ~/.pgpass.
"""

import os
from dataclasses import dataclass
from urllib.parse import urlsplit

from finlm.errors import UserError

PORT = 5432
PASSED = ("PGPASSFILE", "PGSSLMODE", "PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY")
"""Settings of PostgreSQL's client library that the server inherits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgreSQL:
    """A database on a PostgreSQL server.

    Example:
        PostgreSQL(user="finlm", host="127.0.0.1", port=5432, name="label_studio")
    """

    user: str
    host: str
    port: int
    name: str

    @property
    def url(self) -> str:
        """As the setting has it, in full."""
        return f"postgresql://{self.user}@{self.host}:{self.port}/{self.name}"

    def server_environment(self) -> dict[str, str]:
        """What Label Studio reads to reach it."""
        return {
            "DJANGO_DB": "default",  # PostgreSQL, by Label Studio's names
            "POSTGRE_USER": self.user,
            "POSTGRE_PASSWORD": os.environ.get("PGPASSWORD", ""),
            "POSTGRE_HOST": self.host,
            "POSTGRE_PORT": str(self.port),
            "POSTGRE_NAME": self.name,
            **{name: os.environ[name] for name in PASSED if name in os.environ},
        }


def read_database(setting: str) -> PostgreSQL | None:
    """Return the PostgreSQL that a setting names; None for an empty one, which means sqlite.

    Raises:
        UserError: It names something else, lacks a part, or has a password in it.
    """
    if not setting:
        return None
    expected = "expected postgresql://user@host:port/name, or nothing for sqlite"
    try:
        parts = urlsplit(setting)
        port = parts.port or PORT
    except ValueError as error:
        raise UserError(f"--database: {error}; {expected}.") from error
    if parts.password is not None:
        raise UserError("--database has a password in it, which others on this machine can read; put it in PGPASSWORD.")
    name = parts.path.strip("/")
    if parts.scheme not in {"postgresql", "postgres"} or not (parts.username and parts.hostname and name):
        raise UserError(f"--database {setting!r}: {expected}.")
    return PostgreSQL(user=parts.username, host=parts.hostname, port=port, name=name)


def require_same(before: str, now: str, folder: str) -> None:
    """Refuse to start a folder's server on another database than the one that has its annotations.

    Raises:
        UserError: They differ.
    """
    if before != now:
        way_out = f"give --database {before}" if before else "leave --database away"
        raise UserError(
            f"The server of {folder} keeps its annotations in {before or 'sqlite'}, not in {now or 'sqlite'}; "
            f"{way_out}, or choose another --server."
        )
