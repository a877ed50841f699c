"""Self-QA: a folder of filings becomes grounded question-answer pairs.

    python selfqa/generate.py --corpus filings/

reads every filing below the folder, asks and answers with the extractive backend (no model) or with an
OpenAI-compatible endpoint, prunes, balances, and writes instructions.jsonl (and the formats asked for),
documents.jsonl, rejected.jsonl, summary.json, a dataset card, samples.md and report.html.
"""

import os
import sys

if not __package__:  # run as a file: import from this checkout, not from this folder or from an older install
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from finlm import config, runs
from finlm.duplicates import near_duplicates
from finlm.errors import UserError
from selfqa import library, output
from selfqa.background import Background, backgrounds
from selfqa.card import Origin
from selfqa.corpus import corpus_files
from selfqa.entities import Filing, borrowed_name, read_filing
from selfqa.exports import FILES, Format
from selfqa.extracting import extract_all
from selfqa.keeping import Keeping, Read, keep
from selfqa.library import Place, Shelf, load
from selfqa.modelled import Asker, ask_and_answer
from selfqa.pairs import Pair
from selfqa.plan import TYPES, make_plan
from selfqa.prompts import PROMPT_VERSION
from selfqa.reading import MAX_MEGABYTES
from selfqa.unread import UNREAD_RULES, Unread
from selfqa.writing import TEMPLATES, write


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of Self-QA."""

    corpus: str
    """Folder of filings, any depth: .html, .pdf, .docx, .xlsx, .csv, .txt, .md; rows of texts or triples: .jsonl,
    .json, .parquet."""
    output: str = "{runs}/selfqa"
    """Folder to write into."""
    runs: str = config.default_runs()
    """Run root that `{runs}` stands for."""
    backend: Literal["extractive", "openai"] = "extractive"
    """`extractive`: templates over facts, tables and sentences, no model. `openai`: an OpenAI-compatible endpoint."""
    endpoint: str = "http://127.0.0.1:8000/v1"
    """Where the endpoint answers; its key is read from OPENAI_API_KEY."""
    model: str = ""
    """The endpoint's name of the model."""
    questions: int = 10
    """Questions that one call asks about a passage."""
    background_characters: int = 2400
    """Characters of a passage that the endpoint is asked about."""
    max_passages: int = 0
    """Passages of a document that the endpoint is asked about, spread over the document; 0 for all."""
    temperature: float = 0.7
    """Of the endpoint's answers."""
    max_tokens: int = 1024
    """Most tokens of one reply."""
    parallel: int = 8
    """Calls to the endpoint side by side."""
    timeout_seconds: float = 120.0
    """For one call."""
    deadline_seconds: float = 600.0
    """How long a call is tried again before the run stops, to be resumed by the same command."""
    max_pairs: int = 400
    """Most questions kept per document, spread over metrics and tables."""
    types: dict[str, float] = field(default_factory=lambda: dict(TYPES))
    """Share of each type: fact, figure, change, cause, definition, comparison, list, risk, summary, yes-no,
    unanswerable. A type not named is not asked."""
    difficulties: dict[str, float] = field(default_factory=dict)
    """Share of easy, medium and hard questions; without them as the material gives."""
    sections: dict[str, float] = field(default_factory=dict)
    """Share of business, risk, discussion, statements, notes and other; without them as the material gives."""
    template_share: float = 0.3
    """Most of a document's questions that one template may make."""
    across_filings: bool = True
    """Compare periods of a company that stand in different filings of it (backend `extractive`)."""
    forms: tuple[Literal["closed-book", "open-book"], ...] = ("closed-book", "open-book")
    """Which records a question becomes: the bare question, or a passage before it."""
    formats: tuple[Format, ...] = ("messages",)
    """Files of records besides `instructions.jsonl` (messages): alpaca, sharegpt, parquet; text for passages as
    running text with their questions behind them."""
    passage_characters: int = 450
    """Most characters of an open-book passage."""
    cache: str = "{runs}/parsed"
    """Folder that parsed files are kept in, by content, for this run and others; it may be deleted at any time."""
    max_file_megabytes: float = MAX_MEGABYTES
    """A file larger than this, as it lies or unpacked, is named and left out."""
    processes: int = 0
    """How many read files side by side; 0 for as many as there are cores."""
    overwrite: bool = False
    """Delete what lies in `output` and begin afresh."""

    def __post_init__(self) -> None:
        if self.max_pairs < 1:
            raise UserError(f"max_pairs is {self.max_pairs}; it must be 1 or more.")
        make_plan(self.types, self.difficulties, self.sections, self.template_share)
        if self.passage_characters < 100:
            raise UserError(f"passage_characters is {self.passage_characters}; a passage needs 100 or more.")
        if not self.forms:
            raise UserError("forms is empty; name closed-book, open-book or both.")
        if self.backend == "openai" and not self.model:
            raise UserError("backend openai needs --model: the name that the endpoint serves the model under.")
        if self.max_file_megabytes <= 0 or self.processes < 0:
            told = f"max_file_megabytes is {self.max_file_megabytes:g} and processes {self.processes}"
            raise UserError(f"{told}; the first must be above 0, the second 0 or more.")
        if self.parallel < 1 or self.questions < 1:
            raise UserError(f"parallel is {self.parallel} and questions {self.questions}; both must be 1 or more.")


def main(settings: Settings) -> None:
    """Read, ask and answer, prune, balance, write."""
    console = Console(stderr=True)
    corpus = Path(settings.corpus)
    files, unknown = corpus_files(corpus)
    if settings.backend == "openai":
        from selfqa.endpoint import key_for  # the client takes a second to import, and most runs need none

        key_for(settings.endpoint)
    run = runs.Run.open(
        settings.output,
        "selfqa",
        settings,
        inputs={"corpus": corpus},
        free=("cache", "processes"),
        overwrite=settings.overwrite,
    )
    if run.is_finished:
        console.print(
            f"{run.folder} is finished ({run.counts.get('records')} records); --overwrite true starts afresh."
        )
        return
    made = output.Made()
    for item in unknown:
        made.remove(item.rule, item.reason, item.path)
    made.counts["files"] = made.counts["files_unread"] = len(unknown)
    with Progress(console=console, transient=True) as progress:
        documents = read_all(files, settings, made, progress)
        if not documents:
            if not run.resumes:
                shutil.rmtree(run.folder)
            raise UserError(f"--corpus {corpus}: none of its {len(files)} files gave any text; see {_reasons(made)}")
        passages = cut_all(documents, settings, made)
        asked = ask_all(documents, passages, settings, run, made, progress)
    keep(asked, keeping(settings), made)
    summary = write(run.folder, made, settings.formats, origin(settings))
    run.finish(**summary)
    report(console, run.folder, summary, made)


def read_all(files: Sequence[Path], settings: Settings, made: output.Made, progress: Progress) -> list[Read]:
    """Read every file; what cannot be read is noted and the rest goes on."""
    shelf = Shelf(Path(settings.corpus), Path(settings.cache), settings.max_file_megabytes)
    places: list[Place] = []
    reading = library.read_all(files, shelf, settings.processes)
    for found in progress.track(reading, total=len(files), description="reading"):
        made.counts["files"] += 1
        made.counts["files_unread"] += not any(isinstance(item, Place) for item in found)
        for item in found:
            if isinstance(item, Unread):
                made.remove(item.rule, item.reason, item.path)
            else:
                places.append(item)
    return name_all(shelf, places, made)


def name_all(shelf: Shelf, places: Sequence[Place], made: output.Made) -> list[Read]:
    """Find each document's company and period; equal texts count once."""
    found: list[tuple[Place, str, str, Filing]] = []
    for place in places:
        source = load(shelf, place)
        found.append((place, source.path, source.text, read_filing(source)))
    named = {path: filing.company for _, path, _, filing in found if filing.company}
    documents: dict[str, Read] = {}
    for place, path, text, filing in found:
        if not filing.company:
            name = borrowed_name(path, named)
            filing = replace(filing, company=name, short=name)
        record = output.document_of(path, place.sha256, text, filing)
        if record.id in documents:
            made.remove("duplicate-document", f"its text is that of {documents[record.id].record.source}", path)
            continue
        documents[record.id] = Read(shelf, place, filing, record)
        made.documents.append(record)
    made.counts["documents"] = len(documents)
    return list(documents.values())


def cut_all(documents: Sequence[Read], settings: Settings, made: output.Made) -> list[list[Background]]:
    """Cut every document into passages; boilerplate and what an earlier passage said nearly word for word go."""
    shortest = 200 if settings.backend == "openai" else 0
    cut: list[tuple[int, Background]] = []
    for number, read in enumerate(documents):
        kept, dropped = backgrounds(read.source, settings.background_characters, shortest)
        cut += [(number, piece) for piece in kept]
        for drop in dropped:
            made.remove(drop.rule, drop.reason, drop.text)
    texts = [documents[number].record.text[piece.start : piece.end] for number, piece in cut]
    repeats = near_duplicates(texts)
    passages: list[list[Background]] = [[] for _ in documents]
    for position, (number, piece) in enumerate(cut):
        if position in repeats:
            made.remove("passage-repeated", "an earlier passage says nearly the same", texts[position][:200])
        else:
            passages[number].append(piece)
    made.passages = {read.record.id: pieces for read, pieces in zip(documents, passages, strict=True)}
    made.counts["passages"] = sum(len(pieces) for pieces in passages)
    return passages


def ask_all(
    documents: Sequence[Read],
    passages: Sequence[Sequence[Background]],
    settings: Settings,
    run: runs.Run,
    made: output.Made,
    progress: Progress,
) -> list[tuple[Read, Pair]]:
    """Ask and answer about every document, with the chosen backend."""
    pieces = list(zip(documents, passages, strict=True))
    if settings.backend == "extractive":
        tracked = progress.track(pieces, description="asking")
        return extract_all(tracked, documents, settings.passage_characters, settings.across_filings, made)
    asked: list[tuple[Read, Pair]] = []
    from selfqa.endpoint import Endpoint, Sampling

    sampling = Sampling(
        settings.endpoint,
        settings.model,
        settings.temperature,
        settings.max_tokens,
        settings.timeout_seconds,
        settings.deadline_seconds,
    )
    endpoint = Endpoint(sampling, run.folder / "replies.sqlite")
    try:
        for read, kept in progress.track(pieces, description="asking the endpoint"):
            asked += [(read, pair) for pair in answered(read, kept, endpoint, settings, made)]
    finally:
        endpoint.close()
    made.counts["calls"], made.counts["calls_remembered"] = endpoint.asked, endpoint.remembered
    return asked


def answered(
    read: Read, passages: Sequence[Background], endpoint: Asker, settings: Settings, made: output.Made
) -> list[Pair]:
    """Return what a model asked and answered about a document and code found grounded."""
    if not read.filing.company:
        made.remove("no-entity", "no company could be found in the document", read.record.source)
        return []
    step = max(1, -(-len(passages) // settings.max_passages)) if settings.max_passages else 1
    sound = []
    for found in ask_and_answer(
        read.source,
        read.filing,
        passages[::step],
        endpoint,
        questions=settings.questions,
        parallel=settings.parallel,
        passage_limit=settings.passage_characters,
    ):
        made.counts["questions"] += 1
        if isinstance(found, Pair):
            sound.append(found)
        else:
            made.remove(found.rule, found.reason, found.text)
    return sound


def origin(settings: Settings) -> Origin:
    """How the settings make questions, for the dataset card."""
    files = [FILES[name] for name in dict.fromkeys(("messages", *settings.formats))]
    version = f"templates {TEMPLATES}" if settings.backend == "extractive" else f"prompts {PROMPT_VERSION}"
    return Origin(settings.backend, settings.model, version, tuple(files))


def keeping(settings: Settings) -> Keeping:
    """What the settings say of how much is kept."""
    return Keeping(
        settings.max_pairs,
        make_plan(settings.types, settings.difficulties, settings.sections, settings.template_share),
        settings.forms,
        lambda pair: f"model:{settings.model}" if settings.backend == "openai" else f"rule:{pair.rule}",
    )


def _reasons(made: output.Made) -> str:
    return "; ".join(removal.reason for removal in made.removals[:5]) + "."


def report(console: Console, folder: Path, summary: dict[str, object], made: output.Made) -> None:
    """Print what was read and kept."""
    table = Table(title=f"Self-QA: {folder}", title_justify="left")
    table.add_column("document")
    table.add_column("company")
    table.add_column("records", justify="right")
    counts = {document.id: 0 for document in made.documents}
    for row in made.conversations:
        assert row.provenance is not None
        counts[row.provenance.document_id] += 1
    for document in made.documents:
        table.add_row(document.source, document.entity or "not found", str(counts[document.id]))
    console.print(table)
    for removal in made.removals:
        if removal.rule in UNREAD_RULES:
            console.print(f"not read ({removal.rule}): {removal.reason}", style="yellow")
    console.print(
        f"{summary['kept']} questions kept of {summary['questions']}, {summary['records']} records; "
        f"read {folder / 'samples.md'} before you train on them."
    )


if __name__ == "__main__":
    config.run(main, Settings, "Makes grounded question-answer pairs from a folder of filings.")
