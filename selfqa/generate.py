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
from finlm.errors import UserError
from selfqa import library, output
from selfqa.asking import Wish, ask_all, limited, spread
from selfqa.background import Background, backgrounds
from selfqa.card import Origin
from selfqa.contamination import Contamination, missing_benchmarks
from selfqa.corpus import corpus_files
from selfqa.entities import Filing, borrowed_name, read_filing
from selfqa.estimate import Rates, estimate, table_of
from selfqa.exports import FILES, Format
from selfqa.extracting import extract_all
from selfqa.hiring import NAMED_AT, Hiring, hire
from selfqa.keeping import Keeping, Read, keep
from selfqa.library import Place, Shelf, load
from selfqa.page import PAGE
from selfqa.pairs import Pair
from selfqa.plan import TYPES, Plan, make_plan
from selfqa.prompts import versions
from selfqa.reading import MAX_MEGABYTES
from selfqa.repeats import Signatures
from selfqa.replies import typical_seconds
from selfqa.unread import UNREAD_RULES, Unread
from selfqa.writing import TEMPLATES, write

SHOWN = 20
"""Documents that the terminal lists."""
FREE = (
    *("cache", "processes", "replies", "endpoint", "parallel", "timeout_seconds", "deadline_seconds", "batch"),
    *("seconds_per_call", "prompt_price", "reply_price"),
)
"""Settings that decide how long a run takes, not what it makes."""


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
    backend: Literal["extractive", "openai", "transformers"] = "extractive"
    """`extractive`: templates over facts, tables and sentences, no model. `openai`: an OpenAI-compatible endpoint.
    `transformers`: a model of this machine, also one that this project trained."""
    endpoint: str = "http://127.0.0.1:8000/v1"
    """Where the endpoint answers; its key is read from OPENAI_API_KEY."""
    model: str = ""
    """What asks and answers: the endpoint's name of it; for `transformers` a run, a model folder or `embedded`."""
    more_models: tuple[str, ...] = ()
    """Models that answer every question too, each a name as in `model`, or `name@URL`; the best sound answer stays."""
    scorer: str = ""
    """What chooses among several answers: a reward model's folder, or the URL of `finlm reward serve`. Without it the
    first model's sound answer stays."""
    merge: bool = False
    """Have `model` write one answer out of several sound ones; it must be as sound."""
    round_trip: bool = False
    """Answer every question again from its quotes alone; answers that differ go."""
    judge: str = ""
    """A model that grades every answer, a name as in `more_models`; empty: none does."""
    judge_grade: int = 4
    """An answer that the judge gives less, of 1 to 5, goes."""
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
    parallel: int = 64
    """Most calls to an endpoint side by side; fewer while it says that it is busy."""
    batch: int = 16
    """Replies that a model of this machine writes at once."""
    seed: int = 0
    """Of a model of this machine."""
    replies: str = "{runs}/selfqa-replies.sqlite"
    """File that remembers every reply, for this run and others: nothing is paid for twice."""
    limit: int = 0
    """Most passages in all that a model is asked about, spread over the documents; 0 for all."""
    preview: int = 0
    """Make that many questions (a model: ask about that many passages), print them, and write no run."""
    estimate: bool = False
    """Print what a run with a model would come to in calls, tokens, time and cost, and ask nothing."""
    seconds_per_call: float = 0.0
    """For the estimate, seconds; 0: as the replies so far took."""
    prompt_price: float = 0.0
    """For the estimate, of a million tokens of prompts."""
    reply_price: float = 0.0
    """For the estimate, of a million tokens of replies."""
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
    benchmarks: str = ""
    """Folder of benchmark files (.json, .jsonl, .csv, .txt, also packed): a question that shares ten words in a row, or
    twenty Chinese characters, with one of their texts goes."""
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
        if self.backend == "transformers" and not self.model:
            raise UserError("backend transformers needs --model: a run, a model folder, or embedded.")
        if self.backend == "extractive" and (self.estimate or self.limit):
            raise UserError("estimate and limit are for a model's calls; backend extractive makes none (max_pairs).")
        if self.scorer and not self.more_models:
            raise UserError("scorer chooses among several models' answers; name others with --more_models.")
        if self.merge and not self.more_models:
            raise UserError("merge writes one answer out of several; name other models with --more_models.")
        if not 1 <= self.judge_grade <= 5:
            raise UserError(f"judge_grade is {self.judge_grade}; grades go from 1 to 5.")
        if min(self.limit, self.preview, self.max_passages) < 0:
            raise UserError("limit, preview and max_passages must be 0 or more.")
        if self.max_file_megabytes <= 0 or self.processes < 0:
            told = f"max_file_megabytes is {self.max_file_megabytes:g} and processes {self.processes}"
            raise UserError(f"{told}; the first must be above 0, the second 0 or more.")
        if self.parallel < 1 or self.questions < 1:
            raise UserError(f"parallel is {self.parallel} and questions {self.questions}; both must be 1 or more.")


def main(settings: Settings) -> None:
    """Read, ask and answer, prune, balance, write."""
    console = Console(stderr=True)
    files, unknown = corpus_files(Path(settings.corpus))
    check_keys(settings)
    if settings.benchmarks and not Path(settings.benchmarks).is_dir():
        raise missing_benchmarks(Path(settings.benchmarks))
    if settings.estimate or settings.preview:
        look_ahead(files, unknown, settings, console)
        return
    run = runs.Run.open(
        settings.output,
        "selfqa",
        settings,
        inputs={"corpus": Path(settings.corpus)},
        free=FREE,
        overwrite=settings.overwrite,
    )
    if run.is_finished:
        console.print(
            f"{run.folder} is finished ({run.counts.get('records')} records); --overwrite true starts afresh."
        )
        return
    try:
        made = make(files, unknown, settings, console)
    except NothingRead:
        if not run.resumes:
            shutil.rmtree(run.folder)
        raise
    summary = write(run.folder, made, settings.formats, origin(settings))
    run.finish(**summary)
    report(console, run.folder, summary, made)


class NothingRead(UserError):
    """No file of the corpus gave any text."""


def check_keys(settings: Settings) -> None:
    """Refuse an endpoint that needs a key before anything is read."""
    if settings.backend == "openai":
        from selfqa.endpoint import key_for  # the client takes a second to import, and most runs need none

        for name in ("", *settings.more_models, settings.judge):
            key_for(name.partition(NAMED_AT)[2] or settings.endpoint)


def look_ahead(files: Sequence[Path], unknown: Sequence[Unread], settings: Settings, console: Console) -> None:
    """Print what a run would come to, or some questions of it."""
    if settings.estimate:
        with Progress(console=console, transient=True) as progress:
            documents, passages, _ = cut(files, unknown, settings, progress)
        console.print(estimated(documents, passages, settings))
        return
    made = make(files, unknown, settings, console)
    console.print(output.samples(made, settings.preview), markup=False)
    for removal in made.removals[-settings.preview :]:
        console.print(f"left out ({removal.rule}): {removal.reason}: {removal.text[:200]!r}", markup=False)


def make(files: Sequence[Path], unknown: Sequence[Unread], settings: Settings, console: Console) -> output.Made:
    """Read, ask, answer, prune and balance.

    Raises:
        NothingRead: So it is.
    """
    with Progress(console=console, transient=True) as progress:
        documents, passages, made = cut(files, unknown, settings, progress)
        known = Contamination.read(Path(settings.benchmarks)) if settings.benchmarks else None
        if settings.backend == "extractive":
            tracked = progress.track(list(zip(documents, passages, strict=True)), description="asking")
            asked = extract_all(tracked, documents, settings.passage_characters, settings.across_filings, made, known)
        else:
            asked = ask_models(documents, passages, settings, made, progress, known)
    keep(asked, keeping(settings), made)
    return made


def cut(
    files: Sequence[Path], unknown: Sequence[Unread], settings: Settings, progress: Progress
) -> tuple[list[Read], list[list[Background]], output.Made]:
    """Read every file and cut it into passages."""
    made = output.Made()
    for item in unknown:
        made.remove(item.rule, item.reason, item.path)
    made.counts["files"] = made.counts["files_unread"] = len(unknown)
    documents = read_all(files, settings, made, progress)
    if not documents:
        raise NothingRead(
            f"--corpus {settings.corpus}: none of its {len(files)} files gave any text; see {_reasons(made)}"
        )
    return documents, cut_all(documents, settings, made), made


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
    shortest = 0 if settings.backend == "extractive" else 200
    cut: list[tuple[int, Background]] = []
    signatures = Signatures()
    for number, read in enumerate(documents):
        kept, dropped = backgrounds(read.source, settings.background_characters, shortest)
        cut += [(number, piece) for piece in kept]
        signatures.add(read.record.text[piece.start : piece.end] for piece in kept)
        for drop in dropped:
            made.remove(drop.rule, drop.reason, drop.text)

    def text_of(position: int) -> str:
        number, piece = cut[position]
        return documents[number].record.text[piece.start : piece.end]

    repeats = signatures.repeats(text_of)
    passages: list[list[Background]] = [[] for _ in documents]
    for position, (number, piece) in enumerate(cut):
        if position in repeats:
            made.remove("passage-repeated", "an earlier passage says nearly the same", text_of(position)[:200])
        else:
            passages[number].append(piece)
    made.passages = {read.record.id: pieces for read, pieces in zip(documents, passages, strict=True)}
    made.counts["passages"] = sum(len(pieces) for pieces in passages)
    return passages


def ask_models(
    documents: Sequence[Read],
    passages: Sequence[Sequence[Background]],
    settings: Settings,
    made: output.Made,
    progress: Progress,
    known: Contamination | None,
) -> list[tuple[Read, Pair]]:
    """Have models ask and answer about every document; what no code found grounded is noted."""
    kinds = dict(plan_of(settings).types)
    wish = Wish(kinds, settings.questions, settings.passage_characters, at_once(settings), known)
    asked_about = chosen_passages(documents, passages, settings, made)
    crew = hire(hiring(settings))
    found = ask_all(list(zip(documents, asked_about, strict=True)), wish, crew, progress)
    made.counts["calls"], made.counts["calls_remembered"] = (
        crew.replies.counts["asked"],
        crew.replies.counts["remembered"],
    )
    asked: list[tuple[Read, Pair]] = []
    for read, its in zip(documents, found, strict=True):
        made.counts["questions"] += len(its)
        for item in its:
            if isinstance(item, Pair):
                asked.append((read, item))
            else:
                made.remove(item.rule, item.reason, item.text)
    return asked


def chosen_passages(
    documents: Sequence[Read], passages: Sequence[Sequence[Background]], settings: Settings, made: output.Made
) -> list[list[Background]]:
    """Return the passages that models are asked about, by document; one without a company gives none."""
    found: list[list[Background]] = []
    for read, its in zip(documents, passages, strict=True):
        if not read.filing.company:
            made.remove("no-entity", "no company could be found in the document", read.record.source)
        found.append(spread(its, settings.max_passages) if read.filing.company else [])
    return limited(found, settings.preview or settings.limit)


def hiring(settings: Settings) -> Hiring:
    """What the settings say of models."""
    fields = ["backend", "model", "more_models", "judge", "judge_grade", "round_trip", "scorer", "merge", "endpoint"]
    fields += ["temperature", "max_tokens", "parallel", "timeout_seconds", "deadline_seconds", "batch", "seed", "runs"]
    return Hiring(**{name: getattr(settings, name) for name in fields}, replies=Path(settings.replies))


def at_once(settings: Settings) -> int:
    """How many calls may be under way."""
    return settings.parallel if settings.backend == "openai" else settings.batch


def estimated(documents: Sequence[Read], passages: Sequence[Sequence[Background]], settings: Settings) -> Table:
    """Return what a run would come to."""
    made = output.Made()
    texts = [
        read.record.text[piece.start : piece.end]
        for read, its in zip(documents, chosen_passages(documents, passages, settings, made), strict=True)
        for piece in its
    ]
    models = 1 + len(settings.more_models)
    calls = models + settings.merge + settings.round_trip + bool(settings.judge)
    seconds = settings.seconds_per_call or typical_seconds(Path(settings.replies), settings.model)
    rates = Rates(seconds, at_once(settings), settings.prompt_price, settings.reply_price)
    return table_of(estimate(texts, settings.questions, calls, settings.max_tokens), rates, len(texts))


def origin(settings: Settings) -> Origin:
    """How the settings make questions, for the dataset card."""
    files = [FILES[name] for name in dict.fromkeys(("messages", *settings.formats))]
    version = f"templates {TEMPLATES}" if settings.backend == "extractive" else f"prompts {versions()}"
    return Origin(settings.backend, settings.model, version, tuple(files))


def keeping(settings: Settings) -> Keeping:
    """What the settings say of how much is kept."""
    return Keeping(
        settings.max_pairs,
        plan_of(settings),
        settings.forms,
        lambda pair: f"rule:{pair.rule}" if settings.backend == "extractive" else f"model:{pair.rule}",
    )


def plan_of(settings: Settings) -> Plan:
    """What a document's questions shall be like; a model's are of no template."""
    share = settings.template_share if settings.backend == "extractive" else 1.0
    return make_plan(settings.types, settings.difficulties, settings.sections, share)


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
    for document in made.documents[:SHOWN]:
        table.add_row(document.source, document.entity or "not found", str(counts[document.id]))
    console.print(table)
    if len(made.documents) > SHOWN:
        console.print(f"… and {len(made.documents) - SHOWN:,} more, see {folder / PAGE}")
    for removal in made.removals:
        if removal.rule in UNREAD_RULES:
            console.print(f"not read ({removal.rule}): {removal.reason}", style="yellow")
    console.print(
        f"{summary['kept']} questions kept of {summary['questions']}, {summary['records']} records; "
        f"read {folder / 'samples.md'} before you train on them."
    )


if __name__ == "__main__":
    config.run(main, Settings, "Makes grounded question-answer pairs from a folder of filings.")
