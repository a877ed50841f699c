"""Any OpenAI-compatible endpoint, asked side by side at a pace that it can take, and asked again when it fails.

The key comes from the environment (OPENAI_API_KEY) and is written nowhere.

| the endpoint | what happens |
|---|---|
| says 429 or 503, does not answer in time, or cannot be reached | asked again after a pause; fewer calls under way |
| says 408, 409 or 5xx, or a reply that is no JSON | asked again after a pause |
| says any other 4xx | the run stops with what it said: every other call would be refused too |

The request is one POST of JSON, sent by aiohttp: OpenAI's own client takes milliseconds of a core for each, which at 64
calls under way is all of a core (measured: docs/journal.md).

A pause is what `Retry-After` says, else it doubles from half a second to thirty, less a random part, so that calls that
failed together do not come back together.
"""

import asyncio
import json
import os
import random
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import msgspec

from finlm.errors import UserError
from selfqa.calls import Call, Reply
from selfqa.pace import Pace

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 30.0
BUSY = {429, 503}
AGAIN = {408, 409, 429}


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an endpoint is asked.

    Example:
        Sampling(url="http://127.0.0.1:8000/v1", model="qwen", temperature=0.7, max_tokens=1024, parallel=64,
                 timeout_seconds=120.0, deadline_seconds=600.0)
    """

    url: str
    model: str
    temperature: float
    max_tokens: int
    parallel: int
    """Most calls under way."""
    timeout_seconds: float
    """For one attempt."""
    deadline_seconds: float
    """How long a call is tried again before the run stops (and can be resumed)."""


def key_for(url: str) -> str:
    """Return the key in the environment, or a stand-in for an endpoint of this machine that wants none.

    Raises:
        UserError: There is no key and the endpoint is elsewhere.
    """
    key = os.environ.get("OPENAI_API_KEY", "")
    if not key and (urlsplit(url).hostname or "") not in {"localhost", "127.0.0.1", "::1"}:
        raise UserError(f"endpoint {url} needs a key; set OPENAI_API_KEY in the environment.")
    return key or "none"


def proxy_for(url: str) -> str | None:
    """Return the proxy that the environment names for an endpoint; aiohttp would look it up in a thread each time."""
    parts = urlsplit(url)
    return None if proxy_bypass(parts.netloc) else getproxies().get(parts.scheme)


def pause_after(failures: int, asked_for: float | None, chance: float) -> float:
    """Return the seconds before the next attempt.

    Args:
        failures: Attempts so far, 1 or more.
        asked_for: What the endpoint's `Retry-After` says, seconds.
        chance: A random number, 0 to 1.
    """
    if asked_for is not None:
        return min(asked_for, LONGEST_PAUSE_SECONDS) * (1 + 0.25 * chance)
    doubled = min(FIRST_PAUSE_SECONDS * float(2 ** min(failures - 1, 16)), LONGEST_PAUSE_SECONDS)
    return doubled * (1 - 0.5 * chance)


class Endpoint:
    """Asks, waits, asks again.

    Attributes:
        attempts: Requests that went over the wire, by what became of them: `ok`, `429`, `500`, `timeout`, ….
        pace: How many calls are under way.
    """

    def __init__(self, sampling: Sampling) -> None:
        self.name = sampling.model
        self.sampling = sampling
        self.parameters: Mapping[str, Any] = {
            "model": sampling.model,
            "temperature": sampling.temperature,
            "max_tokens": sampling.max_tokens,
        }
        self.attempts: Counter[str] = Counter()
        self.pace = Pace(sampling.parallel)
        self._url = f"{sampling.url.rstrip('/')}/chat/completions"
        self._proxy = proxy_for(sampling.url)
        self._sent = {"Authorization": f"Bearer {key_for(sampling.url)}", "Content-Type": "application/json"}
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def ask(self, call: Call) -> Reply:
        """Return the endpoint's reply to one user message.

        Raises:
            UserError: The endpoint refuses the request, or did not answer before the deadline.
        """
        began = time.monotonic()
        until = began + self.sampling.deadline_seconds
        failures = 0
        while True:
            async with self.pace.slot():
                found, fault, asked_for = await self._attempt(call)
            if found is not None:
                return replace(found, seconds=round(time.monotonic() - began, 3))
            failures += 1
            pause = pause_after(failures, asked_for, random.random())
            if time.monotonic() + pause > until:
                raise UserError(
                    f"endpoint {self.sampling.url} did not answer within {self.sampling.deadline_seconds:.0f} s, in "
                    f"{failures} attempts ({fault}); start it and run the same command again, nothing is asked twice."
                )
            await asyncio.sleep(pause)

    async def _attempt(self, call: Call) -> tuple[Reply | None, str, float | None]:
        """Return a reply, or what went wrong and the seconds that the endpoint asked to be left alone."""
        try:
            status, headers, body = await self._once(call)
        except (TimeoutError, aiohttp.ClientConnectionError) as fault:
            self.pace.too_busy()
            return self._failed("timeout" if isinstance(fault, TimeoutError) else "connection")
        except aiohttp.ClientError:  # a body that breaks off, a head that is none
            return self._failed("malformed")
        if status in BUSY:
            self.pace.too_busy()
        if status in AGAIN or status >= 500:
            return self._failed(str(status), _retry_after(headers))
        if status != 200:
            said = " ".join(body.decode("utf-8", "replace").split())[:200]
            raise UserError(
                f"endpoint {self.sampling.url} refused the request for model {self.sampling.model!r} "
                f"(HTTP {status}: {said}); check --endpoint, --model and OPENAI_API_KEY."
            )
        reply = reply_of(body)
        if reply is None:
            return self._failed("malformed")
        self.attempts["ok"] += 1
        self.pace.went_well()
        return reply, "", None

    def _failed(self, fault: str, asked_for: float | None = None) -> tuple[None, str, float | None]:
        self.attempts[fault] += 1
        return None, fault, asked_for

    async def _once(self, call: Call) -> tuple[int, Mapping[str, str], bytes]:
        """Send a request; returns status, headers and body."""
        if self._session is None:  # made where the loop runs
            limits = aiohttp.TCPConnector(limit=self.sampling.parallel)
            timeout = aiohttp.ClientTimeout(total=self.sampling.timeout_seconds)
            self._session = aiohttp.ClientSession(connector=limits, timeout=timeout)
        content: dict[str, Any] = {
            "model": self.sampling.model,
            "messages": [{"role": "user", "content": call.prompt}],
            "temperature": self.sampling.temperature,
            "max_tokens": self.sampling.max_tokens,
        }
        if call.schema is not None:
            schema = {"name": call.task, "schema": dict(call.schema), "strict": True}
            content["response_format"] = {"type": "json_schema", "json_schema": schema}
        async with self._session.post(
            self._url,
            data=msgspec.json.encode(content),
            headers=self._sent,
            proxy=self._proxy,
            allow_redirects=False,
        ) as reply:
            return reply.status, reply.headers, await reply.read()


def reply_of(body: bytes) -> Reply | None:
    """Read a chat completion's body; None where it is none (cut off, or a proxy's page)."""
    try:
        found = json.loads(body)
        content = found["choices"][0]["message"]["content"]
        usage = found.get("usage") or {}
        counts = [int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return None
    return Reply(content if isinstance(content, str) else "", counts[0], counts[1], 0.0)


def _retry_after(headers: Any) -> float | None:
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            return max(0.0, float(headers[name]) * unit)
        except (KeyError, ValueError):
            continue
    return None
