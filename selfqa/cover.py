"""What the cover of a 10-K or 10-Q says: state of incorporation, symbol, exchange; and who holds which office."""

import re
from collections.abc import Iterator
from functools import partial

from selfqa.blocks import Source
from selfqa.entities import Filing
from selfqa.pairs import Pair, possessive

COVER = 12_000
"""Characters of the document that the cover may fill."""
_STATE = re.compile(
    r"^(?P<state>[A-Z][a-z]+(?: [A-Z][a-z]+)?)\s+\|?\s*\d\d-\d{7}\s*$(?=[\s\S]{0,80}State or other jurisdiction)",
    re.MULTILINE,
)
_LISTED = re.compile(
    r"^Common Stock\b[^\n]*?\s\|?\s*(?P<symbol>[A-Z]{1,5})\s+\|?\s*"
    r"(?P<exchange>(?:The )?(?:Nasdaq|NASDAQ|New York Stock)[^\n|]*?)\s*$",
    re.MULTILINE,
)
_OFFICER = re.compile(
    r"^(?P<name>(?:[A-Z][\w.’'-]*\s){1,3}[A-Z][\w’'-]+)\s+\|?\s*(?P<age>[3-8]\d)\s+\|?\s*"
    r"(?P<office>[A-Z][A-Za-z,’'& -]{8,110})$",
    re.MULTILINE,
)


def cover_pairs(source: Source, filing: Filing) -> Iterator[Pair]:
    """Yield the pairs of an English filing's cover and of its table of executive officers."""
    cover = source.text[:COVER]
    found = _STATE.search(cover)
    if found:
        answer = f"{filing.short} is incorporated in {found['state']}."
        yield _pair(f"In which state is {filing.short} incorporated?", answer, found, source, "cover")
    found = _LISTED.search(cover)
    if found:
        asked = f"Under which symbol, and where, does {possessive(filing.short)} common stock trade?"
        where = re.sub(r"^(?:the )?", "", found["exchange"], flags=re.IGNORECASE)
        answer = f"{possessive(filing.short)} common stock trades under the symbol {found['symbol']} on the {where}."
        yield _pair(asked, answer, found, source, "cover")
    if (
        not filing.fiscal_year
        or filing.months != 12
        or "Name Age Position" not in re.sub(r"\s*\|?\s+", " ", source.text)
    ):
        return
    for found in _OFFICER.finditer(source.text):
        office, when = found["office"].strip(), f"at the time of its fiscal {filing.fiscal_year} annual report"
        asked = f"Which position did {found['name']} hold at {filing.short} {when}?"
        yield _pair(asked, f"{found['name']} was {office} of {filing.short}.", found, source, "officer")


def _pair(question: str, answer: str, found: re.Match[str], source: Source, rule: str) -> Pair:
    around = source.text[max(0, found.start() - 220) : found.end() + 160]
    lines = [" ".join(line.split()) for line in around.split("\n")[1:-1] if line.strip()]
    return Pair(
        question=question,
        answer=answer,
        kind="fact",
        start=found.start(),
        end=found.end(),
        rule=rule,
        topic=question[:24],
        place=rule,
        passage=partial(str, "\n".join(lines)),
    )
