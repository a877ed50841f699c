"""Self-QA: a folder of filings becomes grounded question-answer pairs.

    python selfqa/generate.py --corpus filings/

reads every filing below the folder, asks and answers by templates (no model), with an OpenAI-compatible endpoint or
with a model of this machine, prunes, balances, and writes instructions.jsonl (and the formats asked for),
documents.jsonl, rejected.jsonl, summary.json, a dataset card, samples.md and report.html.
"""

import os
import sys

if not __package__:  # run as a file: import from this checkout, not from this folder or from an older install
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import shutil
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from finlm import config, runs
from selfqa import output
from selfqa.asked import Asked
from selfqa.card import Origin
from selfqa.contamination import Contamination, missing_benchmarks
from selfqa.corpus import corpus_files
from selfqa.exports import FILES
from selfqa.extracting import extract_all
from selfqa.hiring import NAMED_AT
from selfqa.keeping import Keeping, keep
from selfqa.material import NothingRead, cut
from selfqa.page import PAGE
from selfqa.prompts import versions
from selfqa.settings import FREE, Settings, plan_of
from selfqa.unread import UNREAD_RULES, Unread
from selfqa.with_models import ask_models, estimated
from selfqa.writing import TEMPLATES, write

SHOWN = 20
"""Documents that the terminal lists."""


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
        asked = Asked(documents, with_passages="open-book" in settings.forms)
        if settings.backend == "extractive":
            tracked = progress.track(list(zip(documents, passages, strict=True)), description="asking")
            extract_all(tracked, documents, settings.passage_characters, settings.across_filings, made, asked, known)
        else:
            ask_models(documents, passages, settings, made, asked, progress, known)
    keep(asked, keeping(settings), made)
    return made


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
        settings.computations,
        settings.forms,
        lambda pair: f"rule:{pair.rule}" if settings.backend == "extractive" else f"model:{pair.rule}",
    )


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
        table.add_row(document.path, document.filing.company or "not found", str(counts[document.id]))
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
