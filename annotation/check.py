"""Whether the annotations can be delivered; if not, what is missing and whose batch to do again. Exit code 0 or 1.

finlm annotate check                       after a pull: every pair judged, nobody's work in question
finlm annotate check --least_judged 0.9    while work goes on

The tests of persons are those of the report (annotation/conduct.py). It asks no server.
"""

import os
import sys

if not __package__:  # run as a file: import from this checkout, not from this folder or from an older install
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from annotation.conduct import Finding, findings
from annotation.judged import Work
from annotation.log_reading import read
from annotation.quality_page import SAID
from annotation.quality_settings import QualitySettings
from annotation.ranked import RankWork
from annotation.ratings import by_annotator
from finlm import jsonl
from finlm.config import run
from finlm.errors import UserError

FAILED = 1
"""Exit code where something is to be done; 2 is for settings and files that cannot be used."""


@dataclass(frozen=True, kw_only=True)
class CheckSettings(QualitySettings):
    """Settings of `finlm annotate check`."""

    least_judged: float = 1.0
    """Share of the pushed pairs, or sets of answers, that must be judged."""
    redo: str = "{runs}/annotation/redo.jsonl"
    """Where the batches to do again go, one line a person; empty if there are none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.least_judged <= 1:
            raise UserError(f"least_judged is {self.least_judged}; it must be 0 to 1.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What one person should do again, and why.

    Example:
        Batch(annotator="person:7", reasons=("too fast to have read: 61 of 70, expected 5 %",), pairs=("9f…",))
    """

    annotator: str
    reasons: tuple[str, ...]
    pairs: tuple[str, ...]
    """Every pair, or set of four answers, that they judged: which of them without care nobody can tell."""


def main(settings: CheckSettings) -> None:
    """Read, test, say, exit."""
    _, work = read(settings.log, settings.project, settings.preferences)
    found = findings(work.ratings, least_gold=settings.least_gold, false_alarms=settings.false_alarms)
    batches = list(to_redo(work, found))
    jsonl.write(settings.redo, batches)
    complaints = list(shortfalls(work, batches, settings.least_judged))
    for complaint in complaints:
        print(complaint)
    people = len(by_annotator(work.ratings))
    print(f"{work.count:,} {work.given} of {work.judged:,} {work.asked} by {people:,} people, {len(found):,} tests.")
    if complaints:
        print(f"Not to be delivered yet; batches to do again are in {settings.redo}.")
        sys.exit(FAILED)
    print("To be delivered.")


def to_redo(work: Work | RankWork, found: Sequence[Finding]) -> Iterator[Batch]:
    """Yield the batch of everybody whom a test names."""
    for name in by_annotator(work.ratings):
        named = [one for one in found if one.annotator == name and one.is_named]
        if named:
            reasons = tuple(f"{SAID[one.test]}: {one.count} of {one.of}, expected {one.expected:.0%}" for one in named)
            yield Batch(annotator=name, reasons=reasons, pairs=work.batch(name))


def shortfalls(work: Work | RankWork, batches: Sequence[Batch], least_judged: float) -> Iterator[str]:
    """Yield what stands against a delivery, one sentence each."""
    total = work.judged + work.waiting
    if work.judged < least_judged * total:
        yield f"{work.waiting:,} of {total:,} {work.asked} are not judged; --least_judged {least_judged} allows fewer."
    for batch in batches:
        yield f"{batch.annotator} should do {len(batch.pairs):,} {work.asked} again: {'; '.join(batch.reasons)}."


if __name__ == "__main__":
    run(main, CheckSettings, "Whether the annotations can be delivered, and whose batch to do again.")
