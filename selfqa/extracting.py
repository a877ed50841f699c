"""The extractive backend over a whole corpus: each document by itself, then the filings of one company together."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from selfqa.across import Told, across_pairs
from selfqa.background import Background
from selfqa.contamination import Contamination
from selfqa.extractive import extract
from selfqa.filters import fault_of
from selfqa.grounds import Grounds
from selfqa.keeping import Read
from selfqa.output import Made
from selfqa.pairs import Pair


def extract_all(
    pieces: Iterable[tuple[Read, Sequence[Background]]],
    documents: Sequence[Read],
    passage_limit: int,
    across_filings: bool,
    made: Made,
    contamination: Contamination | None = None,
) -> list[tuple[Read, Pair]]:
    """Return the pairs of all documents that break no rule; what breaks one is noted in `made`.

    Args:
        pieces: Each document with its passages.
        documents: All of them.
        passage_limit: Most characters of an open-book passage.
        across_filings: Compare a company's filings with each other.
        made: What the run has made.
        contamination: What benchmarks ask; such questions go.
    """
    filings: dict[tuple[str, str], int] = defaultdict(int)
    for read in documents:
        filings[_company(read)] += 1
    asked: list[tuple[Read, Pair]] = []
    told: dict[tuple[str, str], list[Told[Read]]] = defaultdict(list)
    for read, passages in pieces:
        found = extract(read.source, read.filing, passages, passage_limit, others_than(read, documents))
        for drop in found.dropped:
            made.remove(drop.rule, drop.reason, drop.text)
        grounds = Grounds(read.source, read.filing)
        asked += [(read, pair) for pair in found.pairs if _is_sound(pair, read, made, grounds)]
        if across_filings and read.filing.company and filings[_company(read)] > 1:
            told[_company(read)].append(Told(read, read.filing, read.record.id, found.facts))
    asked = [one for one in asked if _is_no_benchmarks(one[1], contamination, made)]
    for several in told.values():
        pairs = across_pairs(several)  # two documents' figures: neither's facts hold both
        asked += [(read, pair) for read, pair in pairs if _is_sound(pair, read, made, None, documents)]
    return asked


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


def _is_sound(pair: Pair, read: Read, made: Made, grounds: Grounds | None, documents: Sequence[Read] = ()) -> bool:
    """Count a question; note the rule that it breaks, if it does."""
    made.counts["questions"] += 1
    evidence = read.record.text[pair.start : pair.end]
    for span in pair.beside:
        other = next(one.record for one in documents if one.record.id == span.document_id)
        evidence += "\n" + other.text[span.start : span.end]
    fault = fault_of(pair, read.filing, evidence, document=grounds)
    if fault:
        made.remove(*fault, f"{pair.question} {pair.answer}")
    return fault is None
