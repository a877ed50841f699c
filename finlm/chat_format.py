"""The chat format of the recipe, in one place.

    " Human: Q Assistant: A</s>Human: Q2 Assistant:"

A space opens the conversation, none stands before a later turn; an optional system sentence precedes the opening space.
The end token (`</s>` above; the tokenizer's `eos_token`) closes every answer. Source: the model cards of XuanYuan-6B
and -70B.

Text is encoded segment by segment, with special tokens read as plain text, so that nothing a user, a corpus or a model
writes can end a turn, and so that a prompt's ids are always a prefix of the trained conversation's ids.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from finlm.records import Message

TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'system' -%}{{- message['content'] -}}"
    "{%- elif message['role'] == 'user' -%}"
    "{%- if loop.first or (loop.index == 2 and messages[0]['role'] == 'system') -%}{{- ' ' -}}{%- endif -%}"
    "{{- 'Human: ' + message['content'] + ' Assistant:' -}}"
    "{%- else -%}{% generation %}{{- ' ' + message['content'] + eos_token -}}{% endgeneration %}{%- endif -%}"
    "{%- endfor -%}"
)
"""The same format as a Jinja template for the tokenizer's files; a test keeps both equal.

The generation prompt needs no branch: a user's turn already ends with "Assistant:".
"""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A conversation as token ids, with the tokens to learn.

    Example:
        Encoded(ids=(216, 24248, …, 2), is_answer=(False, False, …, True))
    """

    ids: tuple[int, ...]
    is_answer: tuple[bool, ...]
    """True on the tokens of assistant turns, their end tokens included."""


def segments(messages: Sequence[Message], eos_token: str) -> list[tuple[str, bool]]:
    """Return the conversation's text piece by piece, each with True if it is an answer (end token included)."""
    pieces = []
    for position, message in enumerate(messages):
        if message.role == "system":
            pieces.append((message.content, False))
        elif message.role == "user":
            is_first = position == 0 or (position == 1 and messages[0].role == "system")
            pieces.append((f"{' ' if is_first else ''}Human: {message.content} Assistant:", False))
        else:
            pieces.append((f" {message.content}{eos_token}", True))
    return pieces


def render(messages: Sequence[Message], eos_token: str = "</s>") -> str:
    """Return the conversation as one string, for people and for tests."""
    return "".join(text for text, _ in segments(messages, eos_token))


def plain_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Encode `text` without adding any token and without reading any special token in it."""
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return ids


def encode(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> Encoded:
    """Encode a conversation; the end token is added as an id after each answer."""
    ids: list[int] = []
    is_answer: list[bool] = []
    for text, learns in segments(messages, eos_token=""):
        piece = plain_ids(tokenizer, text)
        if learns:
            piece = [*piece, tokenizer.eos_token_id]
        ids += piece
        is_answer += [learns] * len(piece)
    return Encoded(ids=tuple(ids), is_answer=tuple(is_answer))


def encode_answer(tokenizer: PreTrainedTokenizerBase, text: str, *, ended: bool = True) -> list[int]:
    """Encode an answer as it follows its prompt; `ended=False` leaves out the end token of a cut-off answer."""
    return plain_ids(tokenizer, f" {text}") + ([tokenizer.eos_token_id] if ended else [])


def decode_answer(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> tuple[str, bool]:
    """Return the text of sampled ids up to the first end token, and True if there was one."""
    ids = list(ids)
    ended = tokenizer.eos_token_id in ids
    if ended:
        ids = ids[: ids.index(tokenizer.eos_token_id)]
    return tokenizer.decode(ids, skip_special_tokens=False).strip(), ended
