"""The report page of Self-QA: the funnel, what each rule left out, what each document gave, pairs and their evidence.

The page depends on the run's records alone: the same run gives the same bytes.
"""

import re
from bisect import insort
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

from finlm import report
from finlm.records import Conversation, Removal
from finlm.rollout_files import visible
from selfqa.documents import Read
from selfqa.output import Covered, Made
from selfqa.pairs import KINDS, hashed
from selfqa.plan import Share

PAGE = "report.html"
EXAMPLES = 2
"""Kept pairs of each type and language on the page."""
REJECTED = 2
"""Examples of what each rule left out."""
DOCUMENTS = 100
"""Documents in the tables of coverage at most."""
SHOWN = 700
"""Most characters of a text on the page."""
AFTER_QUESTIONS = ("contradiction", "duplicate-question", "over-quota", "not-planned")
"""Rules that look at sound questions side by side; all others look at one alone."""


def page_of(made: Made, title: str) -> report.Page:
    """Return the page of a run.

    Args:
        made: What the run made.
        title: What the page says below its heading: backend, model, corpus.
    """
    sections: list[report.Section] = [
        _headline(made),
        _funnel(made),
        _rules(made),
        _plan(made.coverage),
        *_coverage(made.coverage),
        *_kept(made),
        _rejected(made.removals),
    ]
    return report.Page("Self-QA", title, tuple(sections))


def _headline(made: Made) -> report.Figures:
    records, rows = len(made.conversations), made.conversations
    closed = sum(row.form == "closed-book" for row in rows)
    languages = sorted(Counter(row.language for row in rows if row.form == "closed-book").items())
    return report.Figures(
        "In short",
        (
            report.Figure("Questions", made.counts["kept"], remark=f"of {made.counts['questions']:,} made"),
            report.Figure("Records", records, remark=f"{closed:,} closed-book, {records - closed:,} open-book"),
            report.Figure("Documents", len(made.documents), remark=f"{made.counts['files_unread']:,} files not read"),
            report.Figure("Types", len({row.kind for row in rows}), remark=f"of {len(KINDS)}"),
            report.Figure("Languages", len(languages), remark=", ".join(f"{k} {v:,}" for k, v in languages)),
        ),
    )


def _funnel(made: Made) -> report.Funnel:
    removed = Counter(removal.rule for removal in made.removals)
    passages = sum(count for rule, count in removed.items() if rule.startswith("passage-"))
    asked, kept = made.counts["questions"], made.counts["kept"]
    later = [(rule, removed[rule]) for rule in AFTER_QUESTIONS]
    sound = kept + sum(count for _, count in later)
    steps = [
        report.Step("passages cut", made.counts["passages"] + passages),
        report.Step(
            "passages worth a question", made.counts["passages"], _said({"boilerplate, short, repeated": passages})
        ),
        report.Step("questions made", asked),
        report.Step("sound by themselves", sound, _said({"broke a rule": asked - sound})),
        report.Step(
            "told once, the same everywhere",
            sound - removed["contradiction"] - removed["duplicate-question"],
            _said({rule: removed[rule] for rule in AFTER_QUESTIONS[:2]}),
        ),
        report.Step("kept by the plan", kept, _said({rule: removed[rule] for rule in AFTER_QUESTIONS[2:]})),
    ]
    return report.Funnel(
        "From passages to questions",
        tuple(steps),
        remark="A passage gives several questions, and table rows give questions without one.",
    )


def _said(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {rule}" for rule, count in counts.items() if count)


def _rules(made: Made) -> report.Table:
    removed = Counter(removal.rule for removal in made.removals)
    reasons = {removal.rule: removal.reason for removal in reversed(made.removals)}
    total = sum(removed.values())
    return report.Table(
        "What each rule left out",
        ("rule", "left out", "share", "for example because"),
        tuple(
            (rule, count, f"{count / total:.1%}", _short(reasons[rule], 120)) for rule, count in removed.most_common()
        ),
        remark="All of it lies in rejected.jsonl. Rules look at files, passages, table cells and questions.",
    )


def _plan(coverage: Sequence[Covered]) -> report.Table:
    """Every share of the plan over all documents: planned, found, kept, missing and why."""
    told: dict[tuple[str, str], list[Share]] = defaultdict(list)
    for one in coverage:
        for share in one.shares:
            told[share.dimension, share.name].append(share)
    return report.Table(
        "The plan",
        ("of", "share", "planned", "found", "kept", "missing", "why"),
        tuple(
            (
                "type/difficulty/section" if dimension == "joint" else dimension,
                name,
                *(sum(getattr(share, field) for share in shares) for field in ("wanted", "found", "kept", "missing")),
                "; ".join(f"in {count:,}: {reason}" for reason, count in _reasons(shares)),
            )
            for (dimension, name), shares in told.items()
        ),
        remark=f"Over {len(coverage):,} documents; what one lacks goes to its other types.",
    )


def _reasons(shares: Iterable[Share]) -> list[tuple[str, int]]:
    return Counter(share.reason for share in shares if share.reason).most_common()


def _coverage(coverage: Sequence[Covered]) -> Iterator[report.Section]:
    kinds = [kind for kind in KINDS if any(kind in one.types for one in coverage)]
    shown = coverage[:DOCUMENTS]
    more = "" if len(shown) == len(coverage) else f" The first {DOCUMENTS} of {len(coverage):,} documents."
    yield report.Table(
        "What each document gave",
        ("document", "sound", "kept", *kinds, "largest template"),
        tuple(
            (
                visible(one.source),
                one.found,
                one.kept,
                *(one.types.get(kind, 0) for kind in kinds),
                f"{one.template} {one.template_share:.0%}",
            )
            for one in shown
        ),
        remark=f"Sound: broke no rule, told once.{more}",
    )
    short = [one for one in shown if any(share.missing for share in one.shares)]
    if short:
        yield report.Table(
            "Where the material fell short of the plan",
            ("document", "kept of wanted"),
            tuple((visible(one.source), _missing(one)) for one in short),
            remark="What a type lacks goes to the others.",
        )


def _missing(covered: Covered) -> str:
    return ", ".join(f"{share.name} {share.kept} of {share.wanted}" for share in covered.shares if share.missing)


def _kept(made: Made) -> Iterator[report.Section]:
    documents = {document.id: document for document in made.documents}
    drawn = _drawn(made.conversations)
    for language in sorted({language for language, _ in drawn}):
        samples = [_sample(row, documents) for kind in KINDS for row in drawn.get((language, kind), ())]
        if samples:
            yield report.Samples(
                f"Kept, {language}",
                ("answer",),
                tuple(samples),
                remark="Drawn by hash, each with the characters of its document that it stands on.",
            )


def _drawn(rows: Iterable[Conversation]) -> dict[tuple[str, str], list[Conversation]]:
    """Language and kind -> the few records of lowest hash, in one look at each."""
    drawn: dict[tuple[str, str], list[Conversation]] = defaultdict(list)
    for row in rows:
        if row.form == ("open-book" if row.kind == "unanswerable" else "closed-book"):
            few = drawn[row.language, row.kind]
            insort(few, row, key=lambda one: (hashed(one.id), one.id))
            del few[EXAMPLES:]
    return drawn


def _sample(row: Conversation, documents: dict[str, Read]) -> report.Sample:
    assert row.provenance is not None
    document = documents[row.provenance.document_id].record
    evidence = document.text[row.provenance.start : row.provenance.end]
    told = f"{row.provenance.maker.removeprefix('rule:')}, {row.provenance.start}–{row.provenance.end}"
    return report.Sample(
        _short(row.messages[-2].content),
        (report.Answer(_short(row.messages[-1].content), remark=told),),
        reference=_short(" ".join(evidence.split())),
        label=f"{row.kind}, {visible(document.source)}",
    )


def _rejected(removals: Sequence[Removal]) -> report.Table:
    drawn: dict[str, list[Removal]] = defaultdict(list)
    for removal in removals:
        if removal.text.strip():
            few = drawn[removal.rule]
            insort(few, removal, key=lambda one: (hashed(one.record_id), one.record_id))
            del few[REJECTED:]
    shown = [removal for rule in sorted(drawn) for removal in drawn[rule]]
    return report.Table(
        "Left out, for example",
        ("rule", "what", "why"),
        tuple((one.rule, _short(one.text, 240), _short(one.reason, 160)) for one in shown),
    )


def _short(text: str, most: int = SHOWN) -> str:
    shown = visible(re.sub(r"\n\s*\n", "\n\n", text)).strip()
    return shown if len(shown) <= most else f"{shown[:most]}…"
