"""What a backend is asked and what it replies: the same for an endpoint and for a model of this machine."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec


@dataclass(frozen=True, slots=True)
class Call:
    """One user message, and the JSON schema that its reply must have.

    Example:
        Call(prompt="…", task="answer", schema={"type": "object", …}, version="2")
    """

    prompt: str
    task: str
    """`questions`, `answer`, `again`, `judge` or `merge`."""
    schema: Mapping[str, Any] | None
    """None where the reply is lines of text."""
    version: str
    """Of the prompt's file: a changed prompt asks anew."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A backend's text and what it cost.

    Example:
        Reply(text='{"answer": …}', prompt_tokens=812, reply_tokens=64, seconds=1.9)
    """

    text: str
    """Empty where the model gave none."""
    prompt_tokens: int
    """As the backend counted them; 0 where it does not say."""
    reply_tokens: int
    seconds: float
    """From asking to having it, attempts that failed included."""


class Backend(Protocol):
    """What answers calls, as many side by side as it can take."""

    name: str
    """The model's name, as records and reports have it."""
    parameters: Mapping[str, Any]
    """Everything beside the call that decides a reply: model, temperature, length."""

    async def ask(self, call: Call) -> Reply:
        """Return the reply to a call.

        Raises:
            UserError: The backend refuses the call, or did not answer before its deadline.
        """
        ...

    async def close(self) -> None:
        """Give back what it holds."""
        ...


def key_of(backend: Backend, call: Call) -> str:
    """Return what a reply is remembered under: equal keys are one call."""
    parts = [dict(backend.parameters), call.version, call.task, call.schema, call.prompt]
    return hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest()
