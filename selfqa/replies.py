"""Replies that were paid for, in an SQLite file: a run that is killed anywhere asks for none of them twice.

One committed row a reply, in write-ahead mode: what `ask` has returned is in the file. Two equal calls under way at the
same time are one call. The file knows no key of the endpoint.
"""

import asyncio
import sqlite3
from collections import Counter
from pathlib import Path

from selfqa.calls import Backend, Call, Reply, key_of

TABLE = """CREATE TABLE IF NOT EXISTS replies (
    key TEXT PRIMARY KEY, model TEXT NOT NULL, task TEXT NOT NULL, reply TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL, reply_tokens INTEGER NOT NULL, seconds REAL NOT NULL) WITHOUT ROWID"""


class Replies:
    """The file of replies of a run.

    Attributes:
        counts: `asked` calls that a backend answered in this start, `remembered` ones that the file answered, and
            `prompt_tokens` and `reply_tokens` of the former.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.counts: Counter[str] = Counter()
        self._pending: dict[str, asyncio.Future[Reply]] = {}
        self._file = sqlite3.connect(path, isolation_level=None)  # every statement commits itself
        self._file.execute("PRAGMA journal_mode=WAL")
        self._file.execute("PRAGMA synchronous=NORMAL")  # safe from a kill; a power cut may cost the last replies
        self._file.execute(TABLE)
        self._known = {key for (key,) in self._file.execute("SELECT key FROM replies")}  # most calls are new

    async def ask(self, backend: Backend, call: Call) -> Reply:
        """Return the reply to a call, from the file or the backend.

        Raises:
            UserError: As the backend does.
        """
        key = key_of(backend, call)
        known = self._find(key)
        if known is not None:
            self.counts["remembered"] += 1
            return known
        pending = self._pending.get(key)
        if pending is not None:
            self.counts["remembered"] += 1
            return await pending
        future = self._pending[key] = asyncio.get_running_loop().create_future()
        try:
            reply = await backend.ask(call)
            self._keep(key, backend, call, reply)
        except BaseException as fault:
            future.set_exception(fault)
            future.exception()  # seen, also where nobody waits for it
            raise
        else:
            future.set_result(reply)
            return reply
        finally:
            del self._pending[key]

    def _find(self, key: str) -> Reply | None:
        if key not in self._known:
            return None
        row = self._file.execute(
            "SELECT reply, prompt_tokens, reply_tokens, seconds FROM replies WHERE key = ?", (key,)
        ).fetchone()
        return Reply(*row)

    def _keep(self, key: str, backend: Backend, call: Call, reply: Reply) -> None:
        self._file.execute(
            "INSERT OR REPLACE INTO replies VALUES (?, ?, ?, ?, ?, ?, ?)",
            (key, backend.name, call.task, reply.text, reply.prompt_tokens, reply.reply_tokens, reply.seconds),
        )
        self._known.add(key)
        self.counts["asked"] += 1
        self.counts["prompt_tokens"] += reply.prompt_tokens
        self.counts["reply_tokens"] += reply.reply_tokens

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def typical_seconds(path: Path, model: str) -> float | None:
    """Return the mean seconds of a model's replies so far; None before the first."""
    if not path.is_file():
        return None
    file = sqlite3.connect(path)
    try:
        row = file.execute("SELECT AVG(seconds) FROM replies WHERE model = ?", (model,)).fetchone()
    except sqlite3.OperationalError:  # begun and killed before its table was made
        return None
    finally:
        file.close()
    return None if row[0] is None else float(row[0])
