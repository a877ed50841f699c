"""The dataset card: what a run's records are, from what, by which rules, and what was left out."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from finlm.records import Conversation
from selfqa.output import Covered, Made

CARD = "README.md"
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
"""Size categories as dataset hubs name them."""


@dataclass(frozen=True, slots=True)
class Origin:
    """How the questions were made.

    Example:
        Origin(backend="extractive", model="", version="templates 3", files=("instructions.jsonl",))
    """

    backend: str
    model: str
    version: str
    """Of the templates or prompts."""
    files: tuple[str, ...]
    """The files of records that were written."""


def card_of(made: Made, summary: Mapping[str, object], origin: Origin) -> str:
    """Return the card as Markdown: YAML on top, so that a dataset hub can read it; the same run gives the same text."""
    rows = made.conversations
    by = f"model {origin.model}" if origin.backend == "openai" else "templates and arithmetic, without a model"
    lines = [
        "---",
        *_yaml("language", sorted({row.language for row in rows})),
        *_yaml("task_categories", ["question-answering", "text-generation"]),
        *_yaml("size_categories", [_size(len(rows))]),
        *_yaml("tags", ["finance", "self-qa", "synthetic"]),
        "---",
        "",
        "# Questions and answers from filings",
        "",
        f"{summary['kept']:,} questions about {summary['documents']:,} documents, {len(rows):,} records, made by "
        f"Self-QA ({by}; {origin.version}). Every record names the characters of the document that its answer stands "
        "on: `provenance.start` and `provenance.end` count characters of the document's text in `documents.jsonl`.",
        "",
        "## Files",
        "",
        *_table(("file", "what"), [(f"`{name}`", _WHAT[name]) for name in [*origin.files, *_ALWAYS]]),
        "",
        "## Records",
        "",
        *_table(("type", *_columns(rows), "all"), _types(rows)),
        "",
        "A closed-book record is the bare question; an open-book one puts a passage before it. `unanswerable` exists "
        "only with its passage.",
        "",
        "## Yield",
        "",
        *_table(("step", "number"), _steps(summary)),
        "",
        "What was left out lies in `rejected.jsonl` with its rule, its reason and its text:",
        "",
        *_table(("rule", "left out"), Counter(removal.rule for removal in made.removals).most_common()),
        "",
        "## Sources",
        "",
        *_table(("file", "company", "SHA-256", "questions", "largest template"), _sources(made)),
        "",
        "The answers repeat figures and sentences of these documents, so their terms hold for this data too.",
        "",
    ]
    return "\n".join(lines)


_WHAT = {
    "instructions.jsonl": "the records: messages with provenance",
    "instructions.parquet": "the same as columns",
    "alpaca.jsonl": "the same as instruction, input, output",
    "sharegpt.jsonl": "the same as conversations of from and value",
    "text.jsonl": "passages as running text, each with its questions and answers behind it",
    "documents.jsonl": "the documents as text",
    "rejected.jsonl": "what was left out, and by which rule",
    "summary.json": "the counts below, and each document's plan",
    "report.html": "the same to look at",
}
_ALWAYS = ("documents.jsonl", "rejected.jsonl", "summary.json", "report.html")


def _yaml(key: str, values: Iterable[str]) -> list[str]:
    return [f"{key}:", *(f"- {value}" for value in values)]


def _size(count: int) -> str:
    return next((name for most, name in SIZES if count < most), "n>1M")


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in rows:
        cells = [f"{cell:,}" if isinstance(cell, int) else str(cell).replace("|", "\\|") for cell in row]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _columns(rows: Sequence[Conversation]) -> list[str]:
    return sorted({f"{row.language}, {row.form}" for row in rows})


def _types(rows: Sequence[Conversation]) -> list[tuple[object, ...]]:
    counts = Counter((row.kind, f"{row.language}, {row.form}") for row in rows)
    columns = _columns(rows)
    kinds = sorted({row.kind for row in rows})
    table: list[tuple[object, ...]] = []
    for kind in kinds:
        numbers = [counts[kind, column] for column in columns]
        table.append((kind, *numbers, sum(numbers)))
    return table


def _steps(summary: Mapping[str, object]) -> list[tuple[str, object]]:
    names = {
        "files": "files",
        "files_unread": "of them not read",
        "documents": "documents",
        "passages": "passages without boilerplate and repeats",
        "questions": "questions made",
        "questions_rejected": "of them left out",
        "kept": "questions kept",
        "records": "records",
    }
    return [(said, summary[name]) for name, said in names.items()]


def _sources(made: Made) -> list[tuple[object, ...]]:
    covered: dict[str, Covered] = {one.document_id: one for one in made.coverage}
    table: list[tuple[object, ...]] = []
    for document in made.documents:
        one = covered.get(document.id)
        kept = one.kept if one else 0
        largest = f"{one.template} {one.template_share:.0%}" if one and one.kept else "–"
        table.append((document.path, document.filing.company or "not found", document.place.sha256[:12], kept, largest))
    return table
