"""Where an answer comes from: the filing's line that it rests on, the people who preferred it, the runs that made it.

    finlm trace 75a15baa38c0fda2                    a record by its id, or by the first six digits of it
    finlm trace "inventories of supplies"           every record whose question or answer holds these words
    finlm trace 75a15b --more '[runs-before]'       further run roots, whose records may be parents

Rounds below the run root (`finlm round`) are read with it: a preference of round 2 leads to the policy of round 1 that
wrote its answers, and to what that policy was made of.

It reads the files of the run root and asks nobody.
"""

import os
import sys

if not __package__:  # run as a file: import from this checkout, not from this folder or from an older install
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.tree import Tree

from finlm import config
from finlm.config import POSITIONAL, default_runs
from finlm.errors import UserError
from finlm.lineage import Found, Library, provenances_of
from finlm.records import (
    Candidates,
    Conversation,
    Document,
    PreferencePair,
    Prompt,
    Provenance,
    Ranking,
    RolloutRecord,
    Vote,
)
from finlm.runs import read_state

SHOWN = 300
"""Most characters of a text."""
LINES = 12
"""Most lines of a filing."""


@dataclass(frozen=True, kw_only=True)
class TraceSettings:
    """Settings of `finlm trace`."""

    what: str = field(default="", metadata={POSITIONAL: True})
    """An id, its first digits, or words of a question or an answer."""
    runs: str = field(default_factory=default_runs)
    """The run root."""
    more: list[str] = field(default_factory=list)
    """Further run roots, of earlier rounds, whose records may be parents."""
    limit: int = 3
    """Records told at most, if several match."""

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ValueError(f"limit is {self.limit}; it must be 1 or more.")


def main(settings: TraceSettings) -> None:
    """Find, walk back, show."""
    if not settings.what.strip():
        raise UserError('Name a record: finlm trace ID, or finlm trace "words of an answer".')
    for folder in (settings.runs, *settings.more):
        if not Path(folder).is_dir():
            raise UserError(f"{folder} is no folder; --runs names the folder that the stages wrote below.")
    library = Library.read(Path(settings.runs), [Path(folder) for folder in settings.more])
    found = library.matching(settings.what)
    if not found:
        raise UserError(
            f"None of the {len(library.found):,} records below {settings.runs} has the id or the words "
            f"{settings.what!r}; --more names further run roots."
        )
    console = Console()
    for one in found[: settings.limit]:
        tree = Tree(heading(one))
        grow(tree, one, library)
        console.print(tree)
    if len(found) > settings.limit:
        kinds = ", ".join(dict.fromkeys(one.kind for one in found[settings.limit :]))
        print(f"{len(found) - settings.limit} more match ({kinds}); --limit {len(found)} tells them all.")


def grow(tree: Tree, one: Found, library: Library) -> None:
    """Add what a record says, and behind it the records that it was made from."""
    for line in lines_of(one.record, one.path):
        tree.add(line)
    documents = {}
    for parent in library.parents(one):
        if isinstance(parent.record, Document):
            documents[parent.id] = parent
        else:
            grow(tree.add(f"made from {heading(parent)}"), parent, library)
    for provenance in provenances_of(one.record):
        if provenance.document_id:
            tree.add(evidence(provenance, documents.get(provenance.document_id)))


def heading(one: Found) -> str:
    """Return what a record is and where it stands."""
    return f"[bold]{one.kind}[/bold] {one.id} [dim]{escape(str(one.path))}:{one.line}[/dim]"


def lines_of(record: Any, path: Path) -> Iterator[str]:
    """Yield what a record says of itself; `path` is the file that it stands in."""
    if isinstance(record, Conversation):
        yield told("question", record.messages[-2].content)
        yield told("answer", record.messages[-1].content)
        if record.derivation:
            yield f"computed: {record.derivation.operation} of {' and '.join(record.derivation.operands)}"
    elif isinstance(record, Prompt):
        yield told("question", record.messages[-1].content)
        if record.reference:
            yield told("right answer", record.reference)
    elif isinstance(record, Candidates):
        for response in record.responses:
            sampled = f"temperature {response.temperature:g}, top-p {response.top_p:g}, seed {response.seed}"
            yield told(f"{response.model} ({sampled})", response.text)
        for folder in dict.fromkeys(response.model for response in record.responses):
            yield from made_by(Path(folder))
    elif isinstance(record, PreferencePair):
        yield told("chosen", record.chosen)
        yield told("rejected", record.rejected)
        fault = f", for the other one's fault: {record.rejected_fault}" if record.rejected_fault else ""
        yield escape(f"preferred by {record.provenance.maker}, strength {record.strength} of 3{fault}")
        yield from map(said, record.votes)
    elif isinstance(record, Ranking):
        for rank, text in sorted(zip(record.ranks, record.responses, strict=True)):
            yield told(f"rank {rank}", text)
        yield f"ranked by {record.annotator}, annotation {record.annotation_id or 'unknown'}"
    elif isinstance(record, RolloutRecord):
        yield told("answer", record.response)
        yield f"sampled by PPO's policy at update {record.update}, score {record.score:.3f}"
        yield from made_by(path.parent.parent)
    elif not isinstance(record, Document):  # an answer to a held-out prompt
        yield told(f"answer of {record.model}", record.text)
        yield f"{'right' if record.is_right else 'not right: ' + record.fault}, score {record.score:.3f}"


def said(vote: Vote) -> str:
    """Return who voted for what, and on which page."""
    words = [f"{vote.annotator} preferred the {vote.side} answer, strength {vote.strength} of 3"]
    words += [f"annotation {vote.annotation_id}"] if vote.annotation_id else []
    words += [f"flags {', '.join(vote.flags)}"] if vote.flags else []
    words += [f"guidelines {vote.guidelines}"] if vote.guidelines else []
    words += [f"page {vote.page}"] if vote.page else []
    words += [f"reason: {vote.reason}"] if vote.reason else []
    return escape("; ".join(words))


def made_by(folder: Path) -> Iterator[str]:
    """Yield what a run was made from: its inputs, with the hashes they had."""
    state = read_state(folder)
    if state is None:
        return
    for name, path in state["inputs"].items():
        yield escape(f"run {folder} read {name}: {path} ({str(state['input_hashes'].get(name, ''))[:12]})")


def evidence(provenance: Provenance, document: Found | None) -> str:
    """Return the place in a filing, and its words."""
    if document is None:
        return (
            f"rests on document {provenance.document_id}, characters {provenance.start} to {provenance.end} (not here)"
        )
    record: Document = document.record
    first = record.text.count("\n", 0, provenance.start) + 1
    last = record.text.count("\n", 0, max(provenance.start, provenance.end - 1)) + 1
    place = [f"{record.source}, line {first}" if first == last else f"{record.source}, lines {first} to {last}"]
    place += [f"page {provenance.page}"] if provenance.page else []
    place += [provenance.section] if provenance.section else []
    place += [f"characters {provenance.start} to {provenance.end}", f"found by {provenance.maker}"]
    words = "\n".join(short(line) for line in record.text[provenance.start : provenance.end].splitlines()[:LINES])
    return f"rests on [bold]{escape(', '.join(place))}[/bold]\n[green]{words}"


def told(name: str, text: str) -> str:
    """Return a text with its name."""
    return f"{escape(name)}: [cyan]{short(text)}[/cyan]"


def short(text: str) -> str:
    """Return a text's end, which in an open-book prompt is the question, without line breaks."""
    words = " ".join(text.split())
    return escape(words if len(words) <= SHOWN else "… " + words[-SHOWN:])


if __name__ == "__main__":
    config.run(main, TraceSettings, __doc__ or "")
