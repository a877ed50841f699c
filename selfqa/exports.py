"""The same records in the formats that other trainers read, and as running text.

    messages    instructions.jsonl: our own Conversation records, always written
    alpaca      alpaca.jsonl: instruction, input (the open-book passage), output
    sharegpt    sharegpt.jsonl: conversations of {from, value}
    parquet     instructions.parquet: the Conversation records as columns
    text        text.jsonl: each passage with its questions and answers behind it, for the text streams of mixed
                fine-tuning (instruction pre-training, arXiv 2406.14491)

`finlm.instruction_files` reads the first four back, `finlm.text_files` the last.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from finlm import jsonl
from finlm.records import Conversation
from selfqa.background import Background
from selfqa.columns import write_parquet
from selfqa.documents import Read

Format = Literal["messages", "alpaca", "sharegpt", "parquet", "text"]
FILES: dict[Format, str] = {
    "messages": "instructions.jsonl",
    "alpaca": "alpaca.jsonl",
    "sharegpt": "sharegpt.jsonl",
    "parquet": "instructions.parquet",
    "text": "text.jsonl",
}
"""Format -> the file that it is written to."""

Row = dict[str, Any]
"""What stands in a file of somebody else's format; it is written and forgotten."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What there is to write.

    Example:
        Exported(conversations=(…,), documents=(…,), passages={"9f…": (Background(0, 812, "Risks"),)})
    """

    conversations: Sequence[Conversation]
    documents: Sequence[Read]
    passages: Mapping[str, Sequence[Background]]
    """Document's id -> its passages without boilerplate and repeats."""


def write_formats(folder: Path, made: Exported, formats: Sequence[Format]) -> None:
    """Write the files of `formats`, each whole or not at all."""
    for name in dict.fromkeys(formats):
        if name == "parquet":
            write_parquet(folder / FILES[name], made.conversations, Conversation)
        else:
            jsonl.write(folder / FILES[name], _ROWS[name](made))


def alpaca(row: Conversation) -> Row:
    """The question as instruction, an open-book passage as input."""
    passage, _, question = row.messages[-2].content.rpartition("\n\n") if row.form == "open-book" else ("", "", "")
    return {
        "instruction": question or row.messages[-2].content,
        "input": passage,
        "output": row.messages[-1].content,
        **_about(row),
    }


def sharegpt(row: Conversation) -> Row:
    """The turns as human and gpt."""
    names = {"user": "human", "assistant": "gpt", "system": "system"}
    turns = [{"from": names[message.role], "value": message.content} for message in row.messages]
    return {"conversations": turns, **_about(row)}


def texts(made: Exported) -> Iterator[Row]:
    """Each passage as running text, its closed-book questions and answers behind it."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, row in enumerate(made.conversations):
        if row.form == "closed-book" and row.provenance is not None:
            places[row.provenance.document_id].append(place)
    for read in made.documents:
        document = read.record
        asked = [made.conversations[place] for place in places[document.id]]
        rows = sorted(asked, key=lambda row: row.provenance.start if row.provenance else 0)
        starts = [row.provenance.start if row.provenance else 0 for row in rows]
        for piece in made.passages.get(document.id, ()):
            mine = rows[bisect_left(starts, piece.start) : bisect_left(starts, piece.end)]
            passage = document.text[piece.start : piece.end].strip()
            if passage:
                yield {
                    "id": f"{document.id}:{piece.start}",
                    "text": "\n\n".join([passage, *(_said(row) for row in mine)]),
                    "language": document.language,
                }


def _said(row: Conversation) -> str:
    question, answer = row.messages[-2].content, row.messages[-1].content
    return f"问题：{question}\n回答：{answer}" if row.language == "zh" else f"Question: {question}\nAnswer: {answer}"


def _about(row: Conversation) -> Row:
    assert row.provenance is not None
    return {
        "id": row.id,
        "kind": row.kind,
        "form": row.form,
        "language": row.language,
        "company": row.group,
        "document_id": row.provenance.document_id,
        "start": row.provenance.start,
        "end": row.provenance.end,
        "maker": row.provenance.maker,
    }


_ROWS: dict[Format, Callable[[Exported], Iterable[Any]]] = {
    "messages": lambda made: made.conversations,
    "alpaca": lambda made: (alpaca(row) for row in made.conversations),
    "sharegpt": lambda made: (sharegpt(row) for row in made.conversations),
    "text": texts,
}
