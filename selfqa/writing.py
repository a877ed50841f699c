"""The files of a run, each whole or not there."""

from collections.abc import Sequence
from pathlib import Path

from finlm import jsonl, report, runs
from selfqa.card import CARD, Origin, card_of
from selfqa.exports import Exported, Format, write_formats
from selfqa.output import Made, samples, summary_of
from selfqa.page import PAGE, page_of

TEMPLATES = "3"
"""Version of the extractive backend's templates: raised when equal filings would be asked otherwise."""


def write(folder: Path, made: Made, formats: Sequence[Format], origin: Origin) -> dict[str, object]:
    """Write records in `formats` and in our own, what was left out, counts, card, samples and page.

    Returns:
        The summary, as summary.json has it.
    """
    jsonl.write(folder / "documents.jsonl", (document.record for document in made.documents))
    exported = Exported(made.conversations, made.documents, made.passages)
    write_formats(folder, exported, ["messages", *formats])
    jsonl.write(folder / "rejected.jsonl", made.removals)
    summary = summary_of(made)
    runs.write_json(folder / "summary.json", summary)
    runs.write_text(folder / "samples.md", samples(made))
    runs.write_text(folder / CARD, card_of(made, summary, origin))
    report.write(page_of(made, f"{origin.backend}, {origin.version}, {len(made.documents):,} documents"), folder / PAGE)
    return summary
