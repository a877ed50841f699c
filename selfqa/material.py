"""From files to documents and passages: what can be asked about, and what was left out on the way."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.progress import Progress

from finlm.errors import UserError
from selfqa import library, output
from selfqa.background import Background, backgrounds
from selfqa.documents import Read, document_of
from selfqa.entities import borrowed_name, read_filing
from selfqa.library import Place, Shelf, load
from selfqa.repeats import Signatures
from selfqa.settings import Settings
from selfqa.spool import Spool
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
    found: list[Read] = []
    for place in places:
        source = load(shelf, place)
        filing = read_filing(source)
        found.append(Read(shelf, place, filing, document_of(source, filing).id, source.path))
    named = {read.path: read.filing.company for read in found if read.filing.company}
    documents: dict[str, Read] = {}
    for read in found:
        if not read.filing.company:
            name = borrowed_name(read.path, named)
            read = replace(read, filing=replace(read.filing, company=name, short=name))
        if read.id in documents:
            made.remove("duplicate-document", f"its text is that of {documents[read.id].path}", read.path)
            continue
        documents[read.id] = read
    made.documents = list(documents.values())
    made.counts["documents"] = len(documents)
    return made.documents


def cut_all(documents: Sequence[Read], settings: Settings, made: output.Made) -> list[list[Background]]:
    """Cut every document into passages; boilerplate and what an earlier passage said nearly word for word go."""
    shortest = 0 if settings.backend == "extractive" else 200
    cut: list[tuple[int, Background]] = []
    texts: Spool[str] = Spool(str)  # a passage and the one that it may repeat stand in documents far apart
    signatures = Signatures()
    for number, read in enumerate(documents):
        source = read.source
        kept, dropped = backgrounds(source, settings.background_characters, shortest)
        cut += [(number, piece) for piece in kept]
        of_document = [source.text[piece.start : piece.end] for piece in kept]
        texts += of_document
        signatures.add(of_document)
        for drop in dropped:
            made.remove(drop.rule, drop.reason, drop.text)
    repeats = signatures.repeats(texts.__getitem__)
    passages: list[list[Background]] = [[] for _ in documents]
    for position, (number, piece) in enumerate(cut):
        if position in repeats:
            made.remove("passage-repeated", "an earlier passage says nearly the same", texts[position][:200])
        else:
            passages[number].append(piece)
    made.passages = {read.id: pieces for read, pieces in zip(documents, passages, strict=True)}
    made.counts["passages"] = sum(len(pieces) for pieces in passages)
    return passages


def _reasons(made: output.Made) -> str:
    return "; ".join(removal.reason for removal in made.removals[:5]) + "."
