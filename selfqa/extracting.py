"""The extractive backend over a whole corpus: each document by itself, then the filings of one company together."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from selfqa.across import Told, across_pairs
from selfqa.asked import Asked
from selfqa.background import Background
from selfqa.contamination import Contamination
from selfqa.documents import Read
from selfqa.extractive import extract
from selfqa.facts import Fact
from selfqa.filters import fault_of
from selfqa.grounds import Grounds
from selfqa.output import Made
from selfqa.pairs import Pair
from selfqa.spool import Spool


def extract_all(
    pieces: Iterable[tuple[Read, Sequence[Background]]],
    documents: Sequence[Read],
    passage_limit: int,
    across_filings: bool,
    made: Made,
    asked: Asked,
    contamination: Contamination | None = None,
) -> None:
    """Add the pairs of all documents that break no rule to `asked`; what breaks one is noted in `made`.

    Args:
        pieces: Each document with its passages.
        documents: All of them.
        passage_limit: Most characters of an open-book passage.
        across_filings: Compare a company's filings with each other.
        made: What the run has made.
        asked: Takes the pairs.
        contamination: What benchmarks ask; such questions go.
    """
    filings = Counter(_company(read) for read in documents)
    told: dict[tuple[str, str], list[tuple[Read, int]]] = defaultdict(list)
    facts: Spool[tuple[Fact, ...]] = Spool(tuple[Fact, ...])  # each document's, until its company's others are read
    for read, passages in pieces:
        found = extract(read.source, read.filing, passages, passage_limit, others_than(read, documents))
        for drop in found.dropped:
            made.remove(drop.rule, drop.reason, drop.text)
        grounds = Grounds(read.source, read.filing)
        for pair in found.pairs:
            if _is_sound(pair, read, made, grounds) and _is_no_benchmarks(pair, contamination, made):
                asked.add(read, pair)
        if across_filings and read.filing.company and filings[_company(read)] > 1:
            told[_company(read)].append((read, len(facts)))
            facts.append(found.facts)
    by_id = {read.id: read for read in documents}
    for several in told.values():
        filed = [Told(read, read.filing, read.id, facts[number]) for read, number in several]
        for read, pair in across_pairs(filed):  # two documents' figures: neither's facts hold both
            if _is_sound(pair, read, made, None, by_id) and _is_no_benchmarks(pair, contamination, made):
                asked.add(read, pair)


def _is_no_benchmarks(pair: Pair, contamination: Contamination | None, made: Made) -> bool:
    source = contamination.source_of(pair.question) if contamination else ""
    if source:
        made.remove("benchmark", f"the question shares a run of words with {source}", f"{pair.question} {pair.answer}")
    return not source


def others_than(read: Read, documents: Sequence[Read]) -> list[str]:
    """Return the other companies of the document's language, sorted."""
    mine = read.filing
    names = {
        other.filing.short for other in documents if other.filing.language == mine.language and other.filing.company
    }
    return sorted(name for name in names - {mine.short, ""})


def _company(read: Read) -> tuple[str, str]:
    return read.filing.company, read.filing.language


def _is_sound(
    pair: Pair, read: Read, made: Made, grounds: Grounds | None, documents: Mapping[str, Read] | None = None
) -> bool:
    """Count a question; note the rule that it breaks, if it does."""
    made.counts["questions"] += 1
    evidence = read.record.text[pair.start : pair.end]
    for span in pair.beside:
        assert documents is not None
        evidence += "\n" + documents[span.document_id].record.text[span.start : span.end]
    fault = fault_of(pair, read.filing, evidence, document=grounds)
    if fault:
        made.remove(*fault, f"{pair.question} {pair.answer}")
    return fault is None
