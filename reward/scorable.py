"""What there is to score in a row of a file or in a request: prompts with answers, whoever wrote the row.

    chosen, rejected    our PreferencePair records; texts or lists of messages, behind a prompt or with it in them
    responses           our Candidates and Ranking records, and a prompt with a list of texts
    prompt, response    or completion; the prompt a text, messages or one of our Prompt records
    anything else       what finlm.instruction_files knows: messages, our Conversation records, ShareGPT, Alpaca, …

An answer was cut off, and has no end token, where its row says `"ended": false`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from finlm import instruction_files
from finlm.records import Message, Prompt
from finlm.row_files import Fault, Row

FORMATS = (
    "prompt with response or completion, prompt with responses (Candidates), chosen with rejected (PreferencePair), "
    f"{instruction_files.FORMATS}"
)


class Asked(NamedTuple):
    """One answer to score."""

    prompt: tuple[Message, ...]
    answer: str
    """May be empty: a model can end at once."""
    ended: bool = True


class Score(NamedTuple):
    """What is said of one answer."""

    score: float
    scores: tuple[float, ...] = ()
    """By each member of an ensemble; empty where there is one model."""

    def named(self, prefix: str = "") -> dict[str, Any]:
        """As fields of a row."""
        own = {f"{prefix}score": self.score}
        return own | ({f"{prefix}scores": list(self.scores)} if self.scores else {})


@dataclass(frozen=True, slots=True)
class Scorable:
    """A row with the answers in it.

    Example:
        Scorable(row={"prompt": "…", "response": "…"}, asked=(Asked(…),), write=…)
    """

    row: Row
    asked: tuple[Asked, ...]
    write: Callable[[Row, Sequence[Score]], Row]
    """Returns the row with the scores of its answers, in their order; a score that it had is replaced."""


def parse(row: Row) -> Iterator[Scorable | Fault]:
    """Yield the answers of a row, or the first thing that is wrong with it: one of both, once."""
    try:
        if row.get("chosen") is not None or row.get("rejected") is not None:
            yield _pair(row)
        elif row.get("responses") is not None:
            yield _several(row)
        elif row.get("prompt") is not None:
            yield _one(row)
        else:
            yield _conversation(row)
    except Unusable as unusable:
        yield unusable.fault


class Unusable(ValueError):
    """What a row or a request holds cannot be scored."""

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(reason)
        self.fault = Fault(rule, reason)


def prompt_of(value: Any, name: str) -> tuple[Message, ...]:
    """Return the turns of a prompt: a text, a list of messages that ends with the user, or a Prompt record.

    Raises:
        Unusable: It is none of these, or blank, or its turns are out of order; the reason begins with `name`.
    """
    if isinstance(value, dict):
        value = value.get("messages")
    if isinstance(value, str) and not value.strip():
        raise Unusable("empty", f"{name} is blank")
    turns = messages_of([{"role": "user", "content": value}] if isinstance(value, str) else value, name)
    try:
        return Prompt(messages=turns).messages
    except ValueError as error:
        raise Unusable("roles", f"{name}: {error}") from error


def messages_of(value: Any, name: str) -> tuple[Message, ...]:
    """Return a list of messages.

    Raises:
        Unusable: It is no list of objects with role and content, or one of them is blank.
    """
    if not isinstance(value, list) or not value:
        raise Unusable("unknown-format", f"{name} is neither a text nor a list of messages")
    turns = []
    for number, turn in enumerate(value):
        at = f"{name}[{number}]"
        if not isinstance(turn, dict) or not isinstance(turn.get("content"), str):
            raise Unusable("unknown-format", f"{at} is no object with role and content, both texts")
        if turn.get("role") not in ("system", "user", "assistant"):
            raise Unusable("roles", f"{at} is by {turn.get('role')!r}, not by system, user or assistant")
        if not turn["content"].strip():
            raise Unusable("empty", f"{at} is blank")
        turns.append(Message(role=turn["role"], content=turn["content"]))
    return tuple(turns)


def dialogue_of(value: Any, name: str, *, ended: bool = True) -> Asked:
    """Return a list of messages as a prompt and its answer, the last turn.

    Raises:
        Unusable: As `messages_of`, or the last turn is not the assistant's, or turns are out of order.
    """
    turns = messages_of(value, name)
    if turns[-1].role != "assistant":
        raise Unusable("no-answer", f"{name}: the last turn is by {turns[-1].role!r}, not by the assistant")
    try:
        return Asked(Prompt(messages=turns[:-1]).messages, turns[-1].content, ended)
    except ValueError as error:
        raise Unusable("roles", f"{name}: {error}") from error


def answer_of(value: Any, name: str, prompt: tuple[Message, ...] | None, *, ended: bool = True) -> Asked:
    """Return an answer behind its prompt; a list of several messages has its prompt in itself, given or not.

    Raises:
        Unusable: It is no text and no list of messages, or there is no prompt.
    """
    if isinstance(value, list) and (prompt is None or len(value) > 1):
        return dialogue_of(value, name, ended=ended)
    if prompt is None:
        raise Unusable("unknown-format", f"{name} has no prompt")
    if isinstance(value, list):
        turns = messages_of(value, name)
        if turns[0].role != "assistant":
            raise Unusable("roles", f"{name}: the turn behind the prompt is by {turns[0].role!r}, not the assistant")
        value = turns[0].content
    if not isinstance(value, str):
        raise Unusable("unknown-format", f"{name} is not a text")
    return Asked(prompt, value, ended)


def flag_of(row: Row, name: str) -> bool:
    """Return a flag of a row; it is true where it is not there.

    Raises:
        Unusable: It is neither true nor false.
    """
    value = row.get(name)
    if not (value is None or isinstance(value, bool)):
        raise Unusable("unknown-format", f"{name!r} is {value!r}, neither true nor false")
    return value is not False


# ---------------------------------------------------------------------------------------------- kinds of rows


def _pair(row: Row) -> Scorable:
    prompt = None if row.get("prompt") is None else prompt_of(row["prompt"], "prompt")
    sides = ("chosen", "rejected")
    asked = tuple(answer_of(row.get(side), side, prompt, ended=flag_of(row, f"{side}_ended")) for side in sides)

    def write(row: Row, scores: Sequence[Score]) -> Row:
        return row | scores[0].named("chosen_") | scores[1].named("rejected_")

    return Scorable(row, asked, write)


def _several(row: Row) -> Scorable:
    said = row["responses"]
    if not isinstance(said, list) or not said:
        raise Unusable("unknown-format", "'responses' is not a list of answers")
    prompt = prompt_of(row.get("prompt"), "prompt")
    asked = []
    for number, one in enumerate(said):
        name = f"responses[{number}]"
        if isinstance(one, dict):
            asked.append(answer_of(one.get("text"), f"{name}.text", prompt, ended=flag_of(one, "ended")))
        else:
            asked.append(answer_of(one, name, prompt))

    def write(row: Row, scores: Sequence[Score]) -> Row:
        if all(isinstance(one, dict) for one in said):
            return row | {"responses": [one | score.named() for one, score in zip(said, scores, strict=True)]}
        return row | _listed(scores)

    return Scorable(row, tuple(asked), write)


def _one(row: Row) -> Scorable:
    if "prompt_id" in row and "kl_nats" in row:
        raise Unusable(
            "unknown-format", "a RolloutRecord has its prompt as one text, turn marks and all; score the prompts' file"
        )
    name = "response" if row.get("response") is not None else "completion"
    if row.get(name) is None:
        raise Unusable("no-answer", "there is a prompt, but neither response nor completion")
    prompt = prompt_of(row["prompt"], "prompt")
    return Scorable(row, (answer_of(row[name], name, prompt, ended=flag_of(row, "ended")),), _of_one)


def _conversation(row: Row) -> Scorable:
    asked = []
    for made in instruction_files.parse(row, category="general"):
        if isinstance(made, Fault):
            raise Unusable(*made)
        asked.append(Asked(made.messages[:-1], made.messages[-1].content, flag_of(row, "ended")))
    return Scorable(row, tuple(asked), _of_one if len(asked) == 1 else _of_many)


def _of_one(row: Row, scores: Sequence[Score]) -> Row:
    return row | scores[0].named()


def _of_many(row: Row, scores: Sequence[Score]) -> Row:
    return row | _listed(scores)


def _listed(scores: Sequence[Score]) -> Row:
    named = [score.named() for score in scores]
    return {key: [one[key] for one in named] for key in named[0]}
