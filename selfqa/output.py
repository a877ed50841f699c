"""What a run has made: records, removals, counts that add up, samples to read."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from heapq import nsmallest

from finlm.records import Conversation, Document, Message, Provenance, Removal, content_id
from selfqa.background import Background
from selfqa.documents import Read
from selfqa.entities import Filing
from selfqa.pairs import Pair, hashed
from selfqa.plan import Share
from selfqa.selection import Chosen
from selfqa.spool import Spool

FORMS = ("closed-book", "open-book")


@dataclass(frozen=True, slots=True)
class Covered:
    """What one document gave.

    Example:
        Covered(document_id="9f…", source="en/a.txt", found=912, kept=400, types={"figure": 80},
                template="table-row", template_share=0.18, shares=(Share(…),))
    """

    document_id: str
    source: str
    found: int
    """Questions that broke no rule."""
    kept: int
    types: dict[str, int]
    """Kept questions by type."""
    template: str
    """The template that made most of them."""
    template_share: float
    shares: tuple[Share, ...]


@dataclass(slots=True)
class Made:
    """Everything a run has made so far."""

    documents: list[Read] = field(default_factory=list)
    conversations: Spool[Conversation] = field(default_factory=lambda: Spool(Conversation))
    removals: Spool[Removal] = field(default_factory=lambda: Spool(Removal))
    counts: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    """Attempts to ask a model that failed, by what went wrong; each was made again."""
    coverage: list[Covered] = field(default_factory=list)
    passages: dict[str, list[Background]] = field(default_factory=dict)
    """Document's id -> its passages without boilerplate and repeats."""

    def add_document(self, document: Read, chosen: Chosen) -> None:
        """Note what a document gave."""
        rules = Counter(pair.rule for pair in chosen.kept).most_common(1) or [("", 0)]
        self.coverage.append(
            Covered(
                document_id=document.id,
                source=document.path,
                found=len(chosen.kept) + len(chosen.left),
                kept=len(chosen.kept),
                types=_tally(pair.kind for pair in chosen.kept),
                template=rules[0][0],
                template_share=rules[0][1] / max(1, len(chosen.kept)),
                shares=chosen.shares,
            )
        )

    def remove(self, rule: str, reason: str, text: str) -> None:
        """Note that something was left out."""
        self.removals.append(Removal(record_id=content_id(rule, text), rule=rule, reason=reason, text=text))


def conversations_of(
    pair: Pair, filing: Filing, provenance: Provenance, also: Sequence[Provenance], forms: Iterable[str]
) -> list[Conversation]:
    """Make a pair's records, one per form; the open-book one puts the passage before the question."""
    made = []
    passage = pair.passage() if "open-book" in forms else ""
    for form in FORMS:
        if form not in forms or (not passage if form == "open-book" else pair.is_open_only):
            continue
        asked = f"{passage}\n\n{pair.question}" if form == "open-book" else pair.question
        made.append(
            Conversation(
                messages=(Message(role="user", content=asked), Message(role="assistant", content=pair.answer)),
                category="finance",
                language=filing.language,
                kind=pair.kind,
                form="open-book" if form == "open-book" else "closed-book",
                group=filing.company,
                provenance=provenance,
                also_from=(*pair.beside, *also),
                derivation=pair.derivation,
            )
        )
    return made


def summary_of(made: Made) -> dict[str, object]:
    """Count what was read, asked, kept and left out."""
    return {
        **{name: made.counts[name] for name in ("files", "files_unread", "documents", "passages", "questions", "kept")},
        **{name: made.counts[name] for name in ("calls", "calls_remembered") if name in made.counts},
        **({"calls_failed": _tally(made.failures.elements())} if made.failures else {}),
        "records": len(made.conversations),
        "records_by_kind": _tally(row.kind for row in made.conversations),
        "records_by_form": _tally(row.form for row in made.conversations),
        "records_by_language": _tally(row.language for row in made.conversations),
        "records_by_group": _tally(row.group for row in made.conversations),
        "rejected": len(made.removals),
        "rejected_by_rule": _tally(row.rule for row in made.removals),
        "questions_rejected": made.counts["questions"] - made.counts["kept"],
        "coverage": {covered.source: _coverage(covered) for covered in made.coverage},
    }


def _tally(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


def _coverage(covered: Covered) -> dict[str, object]:
    missing = [share for share in covered.shares if share.missing]
    return {
        "found": covered.found,
        "kept": covered.kept,
        "types": covered.types,
        "largest_template": covered.template,
        "largest_template_share": round(covered.template_share, 3),
        "short_of_plan": {f"{one.dimension} {one.name}": f"{one.kept} of {one.wanted}" for one in missing},
    }


def samples(made: Made, number: int = 20) -> str:
    """A page of pairs beside their evidence, the same ones in every run."""
    documents = {document.id: document for document in made.documents}
    rows = nsmallest(number, made.conversations, key=lambda row: (hashed(row.id), row.id))
    page = ["# Samples", "", "Pairs drawn by hash, each beside the characters of its document that it stands on.", ""]
    for row in rows:
        assert row.provenance is not None
        document = documents[row.provenance.document_id].record
        evidence = " ".join(document.text[row.provenance.start : row.provenance.end].split())
        quoted = "\n".join(f"> {line}" for line in row.messages[0].content.split("\n"))
        page += [f"## {row.group}: {row.kind}, {row.form}", "", quoted, "", f"**{row.messages[1].content}**", ""]
        page += [f"Evidence ({_place(document, row.provenance)}): `{evidence[:400]}`", ""]
        if row.derivation is not None:
            operands = " and ".join(row.derivation.operands)
            page += [f"Derived: {row.derivation.operation} of {operands} is {row.derivation.result}", ""]
    return "\n".join(page)


def _place(document: Document, evidence: Provenance) -> str:
    page = f", page {evidence.page}" if evidence.page else ""
    section = f", {evidence.section}" if evidence.section else ""
    return f"{document.source}{page}, {evidence.start}–{evidence.end}{section}"
