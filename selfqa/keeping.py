"""From all that was asked to what a run keeps: equal questions folded, contradictions out, documents to their plan."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from finlm.records import Document, Provenance
from selfqa.blocks import Source
from selfqa.entities import Filing
from selfqa.library import Place, Shelf, load
from selfqa.output import Made, conversations_of
from selfqa.pairs import Pair
from selfqa.plan import Plan
from selfqa.sections import outline_of
from selfqa.selection import choose, unique
from selfqa.zones import zones_of


@dataclass(frozen=True, slots=True)
class Read:
    """A document with what its questions must name."""

    shelf: Shelf
    place: Place
    filing: Filing
    record: Document

    @property
    def source(self) -> Source:
        """Its blocks, loaded anew: those of all documents would not fit into memory. The text is the record's own."""
        return replace(load(self.shelf, self.place), text=self.record.text)


@dataclass(frozen=True, slots=True)
class Keeping:
    """How much of a document is kept, and in which forms."""

    limit: int
    plan: Plan
    forms: Sequence[str]
    maker_of: Callable[[Pair], str]
    """Who made a pair: `rule:table-row`, `model:…`."""


def keep(asked: Sequence[tuple[Read, Pair]], keeping: Keeping, made: Made) -> None:
    """Fold equal questions, leave out contradicted ones, hold each document to its plan."""
    agreed, contradicted = unique(asked)
    for group in contradicted:
        for _, pair in group:
            made.remove("contradiction", "documents answer this question differently", _text(pair))
    by_document: dict[str, list[Pair]] = {}
    others: dict[int, tuple[Provenance, ...]] = {}
    owners: dict[str, Read] = {}
    for group in agreed:
        (read, pair), *rest = group
        by_document.setdefault(read.record.id, []).append(pair)
        owners[read.record.id] = read
        others[id(pair)] = tuple(
            Provenance(maker=keeping.maker_of(same), document_id=other.record.id, start=same.start, end=same.end)
            for other, same in rest
        )
        for _, same in rest:
            made.remove("duplicate-question", "folded into the first of its kind", _text(same))
    for identity, pairs in by_document.items():
        _keep_document(owners[identity], pairs, others, keeping, made)


def _keep_document(
    read: Read, pairs: Sequence[Pair], others: dict[int, tuple[Provenance, ...]], keeping: Keeping, made: Made
) -> None:
    source = read.source
    zones, outline = zones_of(source), outline_of(source)
    chosen = choose(pairs, keeping.limit, keeping.plan, lambda pair: zones.at(pair.start))
    for pair in chosen.left:
        if pair.kind in keeping.plan.types:
            made.remove("over-quota", "the document's plan has no room for it", _text(pair))
        else:
            made.remove("not-planned", f"the plan gives {pair.kind!r} no share", _text(pair))
    made.add_document(read.record, chosen)
    for pair in chosen.kept:
        made.counts["kept"] += 1
        evidence = Provenance(
            maker=keeping.maker_of(pair),
            document_id=read.record.id,
            start=pair.start,
            end=pair.end,
            page=source.page_of(pair.start),
            section=outline.path(pair.start),
        )
        made.conversations += conversations_of(pair, read.filing, evidence, others[id(pair)], keeping.forms)


def _text(pair: Pair) -> str:
    return f"{pair.question} {pair.answer}"
