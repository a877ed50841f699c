"""From all that was asked to what a run keeps: equal questions folded, contradictions out, documents to their plan."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from finlm.records import Operation, Provenance
from selfqa.asked import Asked
from selfqa.documents import Read
from selfqa.output import Made, conversations_of
from selfqa.pairs import Pair
from selfqa.plan import Plan
from selfqa.sections import outline_of
from selfqa.selection import agree, choose
from selfqa.zones import zones_of


@dataclass(frozen=True, slots=True)
class Keeping:
    """How much of a document is kept, and in which forms."""

    limit: int
    plan: Plan
    computations: Sequence[Operation]
    """What a figure of an answer may be computed by."""
    forms: Sequence[str]
    maker_of: Callable[[Pair], str]
    """Who made a pair: `rule:table-row`, `model:…`."""

    def left_out(self, pair: Pair) -> Operation | None:
        """Return what a pair's figure is computed by, if the settings leave that out."""
        operation = pair.derivation.operation if pair.derivation else None
        return None if operation in self.computations else operation


def keep(asked: Asked, keeping: Keeping, made: Made) -> None:
    """Fold equal questions, leave out contradicted ones, hold each document to its plan."""
    folded: dict[int, list[int]] = {}
    contradicted: list[list[int]] = []
    for first, *rest in asked.repeated():
        answer = asked[first][1].answer
        if all(agree(answer, asked[place][1].answer) for place in rest):
            folded[first] = rest
        else:
            contradicted.append([first, *rest])
    for group in contradicted:
        for place in group:
            made.remove("contradiction", "documents answer this question differently", _text(asked[place][1]))
    for rest in folded.values():
        for place in rest:
            made.remove("duplicate-question", "folded into the first of its kind", _text(asked[place][1]))
    gone = [place for group in (*contradicted, *folded.values()) for place in group]
    for read, places in asked.by_document(without=gone):
        _keep_document(read, places, asked, folded, keeping, made)


def _keep_document(
    read: Read, places: Sequence[int], asked: Asked, folded: dict[int, list[int]], keeping: Keeping, made: Made
) -> None:
    source = read.source
    zones, outline = zones_of(source), outline_of(source)
    pairs = [asked[place][1] for place in places]
    others = {id(pair): folded.get(place, ()) for place, pair in zip(places, pairs, strict=True)}
    planned = []
    for pair in pairs:
        if operation := keeping.left_out(pair):
            made.remove("not-planned", f"computations names no {operation}", _text(pair))
        else:
            planned.append(pair)
    chosen = choose(planned, keeping.limit, keeping.plan, lambda pair: zones.at(pair.start))
    for pair in chosen.left:
        if pair.kind in keeping.plan.types:
            made.remove("over-quota", "the document's plan has no room for it", _text(pair))
        else:
            made.remove("not-planned", f"the plan gives {pair.kind!r} no share", _text(pair))
    made.add_document(read, chosen)
    for pair in chosen.kept:
        made.counts["kept"] += 1
        evidence = Provenance(
            maker=keeping.maker_of(pair),
            document_id=read.id,
            start=pair.start,
            end=pair.end,
            page=source.page_of(pair.start),
            section=outline.path(pair.start),
        )
        also = [_evidence(*asked[place], keeping) for place in others[id(pair)]]
        made.conversations += conversations_of(pair, read.filing, evidence, also, keeping.forms)


def _evidence(read: Read, pair: Pair, keeping: Keeping) -> Provenance:
    return Provenance(maker=keeping.maker_of(pair), document_id=read.id, start=pair.start, end=pair.end)


def _text(pair: Pair) -> str:
    return f"{pair.question} {pair.answer}"
