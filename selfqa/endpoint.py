"""Any OpenAI-compatible endpoint, with a memory: an answer once paid for is read from disk for ever after.

The key comes from the environment (OPENAI_API_KEY) and is written nowhere. The cache is an SQLite file in write-ahead
mode, one committed row per reply, so a killed run asks nothing twice.
"""

import hashlib
import json
import os
import sqlite3
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openai

from finlm.errors import UserError
from selfqa.prompts import ANSWER_SCHEMA, PROMPT_VERSION


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an endpoint is asked."""

    url: str
    model: str
    temperature: float
    max_tokens: int
    timeout_seconds: float
    """For one request."""
    deadline_seconds: float
    """How long a request is tried again before the run stops (and can be resumed)."""


def key_for(url: str) -> str:
    """Return the key in the environment, or a stand-in for an endpoint of this machine that wants none.

    Raises:
        UserError: There is no key and the endpoint is elsewhere.
    """
    key = os.environ.get("OPENAI_API_KEY", "")
    if not key and (urlsplit(url).hostname or "") not in {"localhost", "127.0.0.1", "::1"}:
        raise UserError(f"endpoint {url} needs a key; set OPENAI_API_KEY in the environment.")
    return key or "none"


class Endpoint:
    """Asks, remembers, tries again.

    Attributes:
        asked: Requests that went over the wire.
        remembered: Replies that came from the cache.
    """

    def __init__(self, sampling: Sampling, cache: Path) -> None:
        self.sampling = sampling
        self.asked = 0
        self.remembered = 0
        self._lock = threading.Lock()
        self._client = openai.OpenAI(
            base_url=sampling.url, api_key=key_for(sampling.url), timeout=sampling.timeout_seconds, max_retries=0
        )
        cache.parent.mkdir(parents=True, exist_ok=True)
        self._store = sqlite3.connect(cache, check_same_thread=False)
        self._store.execute("PRAGMA journal_mode=WAL")
        self._store.execute("CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL)")
        self._store.commit()

    def close(self) -> None:
        """Close the cache and the connections."""
        self._store.close()
        self._client.close()

    def ask(self, prompt: str, *, wants_json: bool) -> str:
        """Return the endpoint's reply to one user message; an empty text if the model gave none.

        Raises:
            UserError: The endpoint refuses the request, or did not answer before the deadline.
        """
        key = self._key(prompt, wants_json)
        with self._lock:
            row = self._store.execute("SELECT reply FROM replies WHERE key = ?", (key,)).fetchone()
            if row is not None:
                self.remembered += 1
                return str(row[0])
        reply = self._ask(prompt, wants_json)
        with self._lock:
            self.asked += 1
            self._store.execute("INSERT OR REPLACE INTO replies VALUES (?, ?)", (key, reply))
            self._store.commit()
        return reply

    def _key(self, prompt: str, wants_json: bool) -> str:
        parts = [self.sampling.model, self.sampling.temperature, self.sampling.max_tokens, PROMPT_VERSION, wants_json]
        return hashlib.sha256(json.dumps([*parts, prompt], ensure_ascii=False).encode("utf-8")).hexdigest()

    def _ask(self, prompt: str, wants_json: bool) -> str:
        until = time.monotonic() + self.sampling.deadline_seconds
        pause = 0.5
        while True:
            try:
                return self._once(prompt, wants_json)
            except (openai.APIConnectionError, openai.RateLimitError, openai.InternalServerError) as error:
                if time.monotonic() + pause > until:
                    raise UserError(
                        f"endpoint {self.sampling.url} did not answer within {self.sampling.deadline_seconds:.0f} s "
                        f"({type(error).__name__}); start it and run the same command again, nothing is asked twice."
                    ) from error
                time.sleep(pause)
                pause = min(2 * pause, 30.0)
            except openai.APIStatusError as error:
                raise UserError(
                    f"endpoint {self.sampling.url} refused the request for model {self.sampling.model!r} "
                    f"(HTTP {error.status_code}); check --endpoint, --model and OPENAI_API_KEY."
                ) from error

    def _once(self, prompt: str, wants_json: bool) -> str:
        extra: dict[str, Any] = {}
        if wants_json:
            schema = {"name": "grounded_answer", "schema": ANSWER_SCHEMA, "strict": True}
            extra["response_format"] = {"type": "json_schema", "json_schema": schema}
        reply = self._client.chat.completions.create(
            model=self.sampling.model,
            messages=[{"role": "user", "content": prompt}],
            temperature=self.sampling.temperature,
            max_tokens=self.sampling.max_tokens,
            **extra,
        )
        return (reply.choices[0].message.content or "") if reply.choices else ""
