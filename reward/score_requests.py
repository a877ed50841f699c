"""Bodies of POST /score, checked field by field.

    {"prompts": ["…", …], "responses": ["…", …], "ended": [true, …]}        ended may be left out: all did
    {"messages": [[{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}], …], "ended": […]}

A prompt is a text, or a list of messages that ends with the user.
"""

import difflib
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from reward.scorable import Asked, Unusable, answer_of, dialogue_of, prompt_of

FIELDS = ("prompts", "responses", "messages", "ended")


class Refused(Exception):
    """A request that is not answered with scores.

    Attributes:
        status: The HTTP status, 4xx or 5xx.
        field: What in the body is wrong, such as `prompts[2]`; empty where it is nothing in it.
    """

    def __init__(self, status: int, reason: str, field: str = "") -> None:
        super().__init__(reason)
        self.status = status
        self.field = field


class Wanted(NamedTuple):
    """What a request asks."""

    field: str
    """The field that the answers stand in: responses or messages."""
    asked: list[Asked]
    """In its order."""


def parse_body(content: bytes, *, max_answers: int) -> Wanted:
    """Return the answers that a body asks to score.

    Raises:
        Refused: With the field that is wrong.
    """
    try:
        body = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(400, f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise Refused(400, "the body is not an object with prompts and responses, or with messages")
    for name in body:
        if name not in FIELDS:
            near = difflib.get_close_matches(name, FIELDS, n=1)
            hint = f"; perhaps you meant {near[0]!r}" if near else f"; known are {', '.join(FIELDS)}"
            raise Refused(400, f"{name!r} is not a field of a request{hint}", name)
    if "messages" in body:
        for name in ("prompts", "responses"):
            if name in body:
                raise Refused(400, f"{name!r} stands beside 'messages'; give one or the other", name)
        dialogues = _list(body, "messages", max_answers)
        ended = _flags(body, len(dialogues))
        asked = [
            _one("messages", place, lambda said, name, end=ended[place]: dialogue_of(said, name, ended=end), said)
            for place, said in enumerate(dialogues)
        ]
        return Wanted("messages", asked)
    prompts, responses = _list(body, "prompts", max_answers), _list(body, "responses", max_answers)
    if len(prompts) != len(responses):
        raise Refused(400, f"there are {len(prompts)} prompts and {len(responses)} responses", "responses")
    ended = _flags(body, len(prompts))
    turns = [_one("prompts", place, prompt_of, said) for place, said in enumerate(prompts)]
    asked = [
        _one("responses", place, lambda said, name, at=place: answer_of(said, name, turns[at], ended=ended[at]), said)
        for place, said in enumerate(responses)
    ]
    return Wanted("responses", asked)


def _list(body: dict[str, Any], name: str, most: int) -> Sequence[Any]:
    if name not in body:
        raise Refused(400, f"{name!r} is missing", name)
    value = body[name]
    if not isinstance(value, list) or not value:
        raise Refused(400, f"{name!r} is not a list with something in it", name)
    if len(value) > most:
        raise Refused(413, f"{name!r} has {len(value)} entries, the limit is {most} (--max_answers)", name)
    return value


def _flags(body: dict[str, Any], count: int) -> Sequence[bool]:
    value = body.get("ended", [True] * count)
    if not isinstance(value, list) or not all(isinstance(one, bool) for one in value):
        raise Refused(400, "'ended' is not a list of true and false", "ended")
    if len(value) != count:
        raise Refused(400, f"'ended' has {len(value)} entries for {count} answers", "ended")
    return value


def _one(field: str, place: int, read: Any, said: Any) -> Any:
    """Read one entry of a list; what is wrong with it is said with its place."""
    name = f"{field}[{place}]"
    try:
        return read(said, name)
    except Unusable as unusable:
        raise Refused(400, unusable.fault.reason, name) from unusable
