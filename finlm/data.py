"""Training rows for mixed fine-tuning: instructions and plain text, encoded and interleaved.

An instruction row learns its answers only; a text row learns every token. Rows of all streams alternate so that each
batch holds both in their target shares, counted in tokens. What cannot be used is returned as removals, never dropped
in silence.
"""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from transformers import PreTrainedTokenizerBase

from finlm import chat_format, jsonl
from finlm.errors import MissingInput, UserError
from finlm.records import Conversation, Document, Prompt, Removal, content_id

P = TypeVar("P", Conversation, Prompt)

IGNORE = -100
"""The label of a token that is not learned, as torch's cross entropy has it."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row to train on.

    Example:
        Row(stream="instructions", ids=(216, 24248, 2), labels=(-100, 24248, 2), record_id="9f…")
    """

    stream: str
    ids: tuple[int, ...]
    labels: tuple[int, ...]
    record_id: str

    @property
    def learned(self) -> int:
        """Number of tokens with a loss."""
        return sum(label != IGNORE for label in self.labels)


def instruction_rows(
    conversations: Iterable[Conversation], tokenizer: PreTrainedTokenizerBase, *, max_length: int
) -> tuple[list[Row], list[Removal]]:
    """Encode conversations with loss on the answers only; those longer than `max_length` tokens are removed."""
    rows, removals = [], []
    for conversation in conversations:
        encoded = chat_format.encode(tokenizer, conversation.messages)
        if len(encoded.ids) > max_length:
            reason = f"{len(encoded.ids)} tokens, the limit is {max_length}"
            removals.append(Removal(record_id=conversation.id, rule="too-long", reason=reason))
            continue
        labels = tuple(
            token if learns else IGNORE for token, learns in zip(encoded.ids, encoded.is_answer, strict=True)
        )
        rows.append(Row(stream="instructions", ids=encoded.ids, labels=labels, record_id=conversation.id))
    return rows, removals


def read_text(path: str | Path) -> list[str]:
    """Return the paragraphs (separated by blank lines) of a text file, or of every Document in a .jsonl file.

    Raises:
        MissingInput: No such file.
        UserError: The file is not UTF-8.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingInput(f"{path}: no such text file.")
    if ".jsonl" in path.suffixes:
        return [part for document in jsonl.read(path, Document) for part in _paragraphs(document.text)]
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}; convert the file.") from error
    return _paragraphs(text)


def _paragraphs(text: str) -> list[str]:
    return [paragraph.strip() for paragraph in text.split("\n\n") if paragraph.strip()]


def text_rows(paragraphs: Iterable[str], tokenizer: PreTrainedTokenizerBase, *, max_length: int) -> list[Row]:
    """Encode paragraphs with loss on every token, each closed by the end token; longer ones continue in another row."""
    rows = []
    for paragraph in paragraphs:
        ids = [*chat_format.plain_ids(tokenizer, paragraph), tokenizer.eos_token_id]
        for start in range(0, len(ids), max_length):
            piece = tuple(ids[start : start + max_length])
            rows.append(Row(stream="text", ids=piece, labels=piece, record_id=content_id(paragraph, start)))
    return rows


def _endless(rows: Sequence[Row], rng: random.Random) -> Iterator[Row]:
    while True:
        yield from rng.sample(rows, len(rows))


def interleave(
    instructions: Sequence[Row], text: Sequence[Row], *, text_share: float, count: int, seed: int
) -> list[Row]:
    """Draw `count` rows so that `text_share` of all tokens so far are text's, in an order that only `seed` decides.

    Each stream is shuffled and gone through again and again. The next row comes from the stream that lags its share.

    Raises:
        UserError: There are no instructions, or text is asked for and there is none.
    """
    if not instructions:
        raise UserError("No instruction fits the length limit; raise max_length or give other instructions.")
    if text_share > 0 and not text:
        raise UserError(f"text_share is {text_share}, but there is no text; give text files or set text_share to 0.")
    streams = (_endless(instructions, random.Random(seed)), _endless(text, random.Random(seed + 1)) if text else None)
    drawn = [0, 0]
    rows = []
    for _ in range(count):
        text_lags = drawn[1] < text_share * (drawn[0] + drawn[1] + 1)
        stream = streams[1] if text_lags and streams[1] is not None else streams[0]
        row = next(stream)
        drawn[stream is streams[1]] += len(row.ids)
        rows.append(row)
    return rows


def is_held_out(record: Conversation | Prompt, *, test_share: float) -> bool:
    """True if the record belongs to the test split, which its group's name alone decides.

    So every stage, under any seed and on any subset of the data, holds out the same companies. A record without a group
    stands for itself.
    """
    return is_test_group(record.group or record.id, test_share=test_share)


def is_test_group(group: str, *, test_share: float) -> bool:
    """True if the group of this name belongs to the test split."""
    return int(content_id(group, 0), 16) / 16**16 < test_share


def read_conversations(paths: Iterable[str | Path]) -> list[Conversation]:
    """Read conversations from several files, first come first kept where two are equal."""
    found: dict[str, Conversation] = {}
    for path in paths:
        for conversation in jsonl.read(path, Conversation):
            found.setdefault(conversation.id, conversation)
    return list(found.values())


def as_prompt(conversation: Conversation, *, source: str) -> Prompt:
    """Return the conversation's turns up to its last answer, which becomes the reference."""
    return Prompt(
        messages=conversation.messages[:-1],
        category=conversation.category,
        source=source,
        language=conversation.language,
        kind=conversation.kind,
        group=conversation.group,
        reference=conversation.messages[-1].content,
        provenance=conversation.provenance,
    )


def questions(
    paths: Iterable[str | Path], *, forms: Sequence[str], languages: Sequence[str], kinds: Sequence[str]
) -> list[Prompt]:
    """Return the questions of instruction files, those of the given forms, languages and kinds (none: all kinds)."""
    return [
        as_prompt(conversation, source="selfqa")
        for conversation in read_conversations(paths)
        if conversation.form in forms
        and conversation.language in languages
        and (not kinds or conversation.kind in kinds)
    ]


def spread(records: Sequence[P], count: int, *, seed: int) -> list[P]:
    """Draw `count` records (0: all) that are spread over their groups: one of each group in turn, in seeded order."""
    by_group: dict[str, list[P]] = {}
    for record in records:
        by_group.setdefault(record.group, []).append(record)
    rng = random.Random(seed)
    queues = [rng.sample(by_group[name], len(by_group[name])) for name in sorted(by_group)]
    drawn: list[P] = []
    while queues and (count == 0 or len(drawn) < count):
        for queue in queues:
            if count == 0 or len(drawn) < count:
                drawn.append(queue.pop())
        queues = [queue for queue in queues if queue]
    return drawn


def beyond(records: Sequence[P], kept: Sequence[P], *, rule: str, reason: str) -> list[Removal]:
    """Return removals for the `records` that are not among the `kept`."""
    ids = {record.id for record in kept}
    return [Removal(record_id=record.id, rule=rule, reason=reason) for record in records if record.id not in ids]
