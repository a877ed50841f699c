"""From files to documents and passages: what can be asked about, and what was left out on the way."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.progress import Progress

from finlm.errors import UserError
from selfqa import library, output
from selfqa.background import Background, backgrounds
from selfqa.entities import Filing, borrowed_name, read_filing
from selfqa.keeping import Read
from selfqa.library import Place, Shelf, load
from selfqa.repeats import Signatures
from selfqa.settings import Settings
from selfqa.unread import Unread


class NothingRead(UserError):
    """No file of the corpus gave any text."""


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


def _reasons(made: output.Made) -> str:
    return "; ".join(removal.reason for removal in made.removals[:5]) + "."
