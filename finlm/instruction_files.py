"""Instruction data as people publish it, row by row to Conversations.

A row's format is told by its keys, in this order:

    instruction, instances      each instance with input and output, self-instruct
    messages                    our own Conversation records (with one of our categories), or [{role, content}, …]
    conversations               [{from, value}, …], ShareGPT
    instruction, input, output  with history [[question, answer], …] and system where there are any, Alpaca
    question, answer
    prompt, response            or completion; texts, or lists of messages

What gives no conversation is a Removal whose rule is one of these:

    no-answer       the last turn is not the assistant's, or it is blank
    empty           another turn is blank, or there is none
    roles           turns out of order, or by somebody else than system, user and assistant
    unknown-format  no format above has these keys, or these types
    not-json, not-utf8      see finlm.row_files
"""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, get_args

import msgspec

from finlm import row_files
from finlm.language import language_of
from finlm.records import Category, Conversation, Message, Removal, Role, content_id
from finlm.row_files import Fault, Found, Row

FORMATS = (
    "our own Conversation records, messages, ShareGPT's conversations, Alpaca's instruction, input and output, "
    "self-instruct's instances, question with answer, prompt with response or completion"
)
RULES = ("no-answer", "empty", "roles", "unknown-format", "not-json", "not-utf8")
_ROLES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "agent": "assistant",  # PIXIU
}
_CATEGORIES = get_args(Category)
_Turn = tuple[Any, Any]
"""Role and text as the row has them."""


def conversations(path: str | Path, *, category: Category) -> Iterator[Found[Conversation] | Removal]:
    """Yield every conversation of a file with its place, and a Removal for each that cannot be used.

    Our own records keep their fields. Others get `category`, their language by their letters, and as group the id of
    their first question, so that equal questions never span train and test.

    Raises:
        MissingInput: There is no such file.
        UserError: The whole file cannot be used (`finlm.row_files.read`).
    """
    return row_files.read(path, partial(parse, category=category), formats=FORMATS)


def parse(row: Row, *, category: Category) -> Iterator[Conversation | Fault]:
    """Yield what one row gives: one conversation or fault, or one for each of its instances."""
    if row.get("instances") is not None:
        yield from _instances(row, category)
    elif row.get("messages") is not None and row.get("category") in _CATEGORIES:
        yield _own(row)
    else:
        yield _built(_turns(row), category)


def _instances(row: Row, category: Category) -> Iterator[Conversation | Fault]:
    instances = row["instances"]
    if not isinstance(instances, list):
        yield Fault("unknown-format", f"'instances' is {_named(instances)}, not a list")
    elif not instances:
        yield Fault("no-answer", "'instances' is empty")
    else:
        for number, instance in enumerate(instances, 1):
            if isinstance(instance, dict):
                turns = [("user", _asked(row.get("instruction"), instance.get("input")))]
                made = _built([*turns, ("assistant", instance.get("output"))], category)
            else:
                made = Fault("unknown-format", f"{_named(instance)}, not an object")
            yield Fault(made.rule, f"instance {number}: {made.reason}") if isinstance(made, Fault) else made


def _own(row: Row) -> Conversation | Fault:
    made = _built(_turns(row), row["category"])
    if isinstance(made, Fault):
        return made
    filled = {
        "messages": [{"role": message.role, "content": message.content} for message in made.messages],
        "language": row.get("language") or made.language,
        "group": row.get("group") or made.group,
    }
    try:
        return msgspec.convert(row | filled, Conversation)
    except msgspec.ValidationError as error:
        return Fault("unknown-format", f"not a valid Conversation: {error}")


def _turns(row: Row) -> Iterable[_Turn] | Fault:
    """Return the turns of a row in the format that its keys tell."""
    system = [("system", row["system"])] if row.get("system") else []
    if (said := row.get("messages")) is not None:
        return _listed("messages", said)
    if (said := row.get("conversations")) is not None:
        turns = _listed("conversations", said)
        return turns if isinstance(turns, Fault) else [*system, *turns]
    if row.get("instruction") is not None:
        earlier = _history(row.get("history") or [])
        asked = ("user", _asked(row["instruction"], row.get("input")))
        return earlier if isinstance(earlier, Fault) else [*system, *earlier, asked, ("assistant", row.get("output"))]
    if row.get("question") is not None:
        return [*system, ("user", row["question"]), ("assistant", row.get("answer"))]
    if row.get("prompt") is not None:
        answer = "response" if row.get("response") is not None else "completion"
        asked_turns = _one_or_listed("prompt", "user", row["prompt"])
        answer_turns = _one_or_listed(answer, "assistant", row.get(answer))
        for turns in (asked_turns, answer_turns):
            if isinstance(turns, Fault):
                return turns
        return [*system, *asked_turns, *answer_turns]
    keys = ", ".join(sorted(map(str, row))) or "none"
    return Fault("unknown-format", f"no known format has these keys: {keys}")


def _asked(instruction: Any, given: Any) -> Any:
    """The instruction and its input, a paragraph each, or the one that is there; `_built` finds what is no text."""
    if given is None or not isinstance(instruction, str):
        return instruction
    if not isinstance(given, str) or not instruction.strip():
        return given
    return f"{instruction}\n\n{given}" if given.strip() else instruction


def _history(said: Any) -> list[_Turn] | Fault:
    if not isinstance(said, list) or any(not isinstance(pair, list | tuple) or len(pair) != 2 for pair in said):
        return Fault("unknown-format", "'history' is not a list of pairs, question and answer")
    return [turn for question, answer in said for turn in (("user", question), ("assistant", answer))]


def _one_or_listed(key: str, role: Role, said: Any) -> list[_Turn] | Fault:
    return _listed(key, said) if isinstance(said, list) else [(role, said)]


def _listed(key: str, said: Any) -> list[_Turn] | Fault:
    """Turns that are objects, with role and content or with from and value."""
    if not isinstance(said, list):
        return Fault("unknown-format", f"{key!r} is {_named(said)}, not a list")
    turns: list[_Turn] = []
    for number, turn in enumerate(said, 1):
        if not isinstance(turn, dict) or not ("role" in turn or "from" in turn):
            return Fault("unknown-format", f"turn {number} of {key!r} has neither role and content nor from and value")
        if turn.get("tool_calls") or turn.get("function_call"):
            return Fault("roles", f"turn {number} calls a tool")
        turns.append((turn["role"], turn.get("content")) if "role" in turn else (turn["from"], turn.get("value")))
    return turns


def _built(turns: Iterable[_Turn] | Fault, category: Category) -> Conversation | Fault:
    """Make a conversation of turns, or name the first thing that is wrong with them."""
    if isinstance(turns, Fault):
        return turns
    system = ""
    said: list[tuple[Role, str]] = []
    for number, (name, text) in enumerate(turns, 1):
        role = _ROLES.get(name) if isinstance(name, str) else None
        if role is None:
            return Fault("roles", f"turn {number} is by {name!r}, not by system, user or assistant")
        if not (text is None or isinstance(text, str)):
            return Fault("unknown-format", f"turn {number} is {_named(text)}, not a text")
        text = "" if text is None or text.isspace() else text
        if role == "system" and number == 1:
            system = text
            continue
        expected = "assistant" if said and said[-1][0] == "user" else "user"
        if role != expected:
            return Fault("roles", f"turn {number} is by {name!r}, expected the {expected}")
        said.append((role, text))
    if not said:
        return Fault("empty", "there is no turn")
    texts = [text for _, text in said]
    if "" in texts[:-1]:
        return Fault("empty", f"a turn by the {said[texts.index('')][0]} is blank")
    if said[-1][0] == "user":
        return Fault("no-answer", "the last turn is the user's")
    if not texts[-1]:
        return Fault("no-answer", "the answer is blank")
    group = content_id(texts[0])
    if system:  # a blank one is how some data sets say that there is none
        said.insert(0, ("system", system))
        texts.insert(0, system)
    return Conversation(
        messages=tuple([Message(role=role, content=text) for role, text in said]),
        category=category,
        language=language_of("\n".join(texts)),
        group=group,
    )


def _named(value: Any) -> str:
    return {type(None): "null", str: "a text", list: "a list", dict: "an object"}.get(type(value), repr(value))
