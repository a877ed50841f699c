"""Preferences without people, out of any text: what a passage says, above what it does not say.

    python annotation/by_passage.py --texts '[texts.jsonl]'        writes runs/by_passage.jsonl

Answers are sentences of the passage. In worse ones names or figures have changed places, a sentence runs on as another,
or one stands elsewhere in the document. From them a reward model learns to hold an answer against its passage, before
it learns from a few hundred judgements what people prefer (`reward/train.py --start`). Each pair carries
`maker: rule:passage` and no votes; it knows nothing of style, tone or usefulness.
"""

import os
import sys

if not __package__:  # run as a file: import from this checkout, not from this folder or from an older install
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

from annotation import passages, unfaithful
from annotation.passages import Passage
from finlm import config, jsonl, runs, text_files
from finlm.errors import UserError
from finlm.progress import bar
from finlm.records import Document, Message, PreferencePair, Prompt, Provenance, Removal, content_id

MAKER = "rule:passage"
REQUESTS = {"en": "What does the text say about this?", "zh": "这段文字说了什么？"}
LEAST_SENTENCES = 3
"""Plain sentences of a passage that an answer is drawn from."""
MOST_SENTENCES = 5
"""Sentences of an answer."""


@dataclass(frozen=True, kw_only=True)
class ByPassageSettings:
    """Settings of preferences by passage."""

    runs: str = field(default_factory=config.default_runs)
    """Run root: the folder that all stages write below."""
    texts: list[str] = field(default_factory=list)
    """Files of texts in English or Chinese, as mixed SFT reads them: rows with `text` or `content`, Document records,
    .txt or .md."""
    output: str = "{runs}/by_passage.jsonl"
    """File of PreferencePair records; what gave none goes to rejected.jsonl in the folder of the same name."""
    passages: int = 4000
    """Passages at most, one of each document in turn; 0: all."""
    shortest: int = 600
    """Letters of a passage at least; a Chinese character counts as three."""
    longest: int = 3600
    """Letters at which a passage ends with its sentence, at most; each passage's length is drawn between the two."""
    answers: int = 4
    """Answers of a passage; any two with different numbers of faults are a pair."""
    faults: int = 4
    """Faults of an answer, at most; the best answer has none."""
    seed: int = 0
    """Seed of everything random."""
    overwrite: bool = False
    """Make them afresh."""

    def __post_init__(self) -> None:
        if not self.texts:
            raise ValueError("texts is empty; it must name files of texts.")
        if not 0 < self.shortest <= self.longest:
            raise ValueError(f"shortest is {self.shortest}, longest {self.longest}; must be 0 < shortest <= longest.")
        if self.answers < 2:
            raise ValueError(f"answers is {self.answers}; it must be 2 or more.")
        if self.faults < 1:
            raise ValueError(f"faults is {self.faults}; it must be 1 or more.")


@dataclass(frozen=True, slots=True)
class Answer:
    """What might be said of a passage, with its faults.

    Example:
        Answer(text="Revenue rose to a record in 2023.", faults=("spliced",))
    """

    text: str
    faults: tuple[str, ...] = ()


def main(settings: ByPassageSettings) -> None:
    """Cut passages, say what they say and what they do not, write."""
    out = Path(settings.output)
    for path in settings.texts:
        runs.require(path, what="Texts", made_by="finlm annotate by-passage --texts '[FILE]', any rows with `text`")
    inputs = {path: path for path in settings.texts}
    run = runs.Run.open(out.with_suffix(""), "by-passage", settings, inputs=inputs, overwrite=settings.overwrite)
    if run.is_finished and out.is_file():
        print(f"{out} is finished; --overwrite true makes them afresh, --output names another file.")
        return

    documents, removals = read(settings.texts)
    found: dict[str, PreferencePair] = {}
    used = 0
    with bar() as progress:
        task = progress.add_task("passages", total=settings.passages or None, note="")
        for passage in in_turn(documents, settings):
            pairs = pairs_of(passage, settings)
            found |= {pair.id: pair for pair in pairs}
            used += bool(pairs)
            progress.update(task, completed=used, note=f"{len(found):,} pairs")
            if used == settings.passages:
                break
    if not found:
        raise UserError(
            f"{', '.join(settings.texts)} gave no pair: none of {len(documents)} documents in English or Chinese has "
            f"{settings.shortest} letters with {LEAST_SENTENCES} whole sentences; --shortest lowers the former."
        )
    jsonl.write(run.folder / "rejected.jsonl", removals)
    jsonl.write(out, found.values())
    faults = Counter(pair.rejected_fault for pair in found.values())
    run.finish(pairs=len(found), passages=used, documents=len(documents), faults=dict(sorted(faults.items())))
    print(f"{len(found):,} pairs on {used:,} passages of {len(documents):,} documents: {out}")


def read(paths: Sequence[str]) -> tuple[list[Document], list[Removal]]:
    """Return the documents in English or Chinese, each once, and what was none."""
    documents: dict[str, Document] = {}
    removals = []
    for path in paths:
        for found in text_files.documents(path):
            if isinstance(found, Removal):
                removals.append(found)
            elif found.record.language in REQUESTS:
                documents.setdefault(found.record.id, found.record)
            else:
                reason = f"neither English nor Chinese but {found.record.language!r}"
                removals.append(Removal(record_id=found.place, rule="language", reason=reason))
    return list(documents.values()), removals


def in_turn(documents: Sequence[Document], settings: ByPassageSettings) -> Iterator[Passage]:
    """Yield one passage of each document in seeded order, then the next of each, until none is left."""
    rng = random.Random(settings.seed)
    queues = [
        passages.cut(document, settings.shortest, settings.longest, random.Random(f"{settings.seed} {document.id}"))
        for document in rng.sample(documents, len(documents))
    ]
    while queues:
        left = []
        for queue in queues:
            passage = next(queue, None)
            if passage is not None:
                left.append(queue)
                yield passage
        queues = left


def pairs_of(passage: Passage, settings: ByPassageSettings) -> list[PreferencePair]:
    """Return the pairs of one passage: every two of its answers, the one with fewer faults above the other."""
    language = passage.document.language
    prompt = Prompt(
        messages=(Message(role="user", content=f"{passage.text}\n\n{REQUESTS[language]}"),),
        source=MAKER,
        language=language,
        group=passage.document.source,
    )
    rng = random.Random(int(content_id(settings.seed, prompt.id), 16))
    provenance = Provenance(
        maker=MAKER,
        document_id=passage.document.id,
        start=passage.start,
        end=passage.end,
        parents=(prompt.id,),
    )
    found = []
    for two in combinations(answers_of(passage, settings.answers, settings.faults, rng), 2):
        better, worse = sorted(two, key=lambda one: len(one.faults))
        ahead = len(worse.faults) - len(better.faults)
        if ahead:
            found.append(
                PreferencePair(
                    prompt=prompt,
                    chosen=better.text,
                    rejected=worse.text,
                    strength=min(3, ahead),
                    source=MAKER,
                    rejected_fault=worse.faults[0],
                    provenance=provenance,
                )
            )
    return found


def answers_of(passage: Passage, count: int, most: int, rng: random.Random) -> list[Answer]:
    """Return different answers, the first without a fault; none of a passage with hardly a sentence.

    Half of the worse ones are the last one's sentences with other faults, the others say something else of the passage,
    so that neither their length nor their subject tells them apart.

    Args:
        passage: What they are held against.
        count: Their number, at most.
        most: Faults of one of them, at most.
        rng: Draws all of it.
    """
    if len(passage.plain) < LEAST_SENTENCES:
        return []
    said = drawn(passage, rng)
    found = {said: Answer(joined(said, passage.document.language))}
    for _ in range(count - 1):
        said = said if rng.random() < 0.5 else drawn(passage, rng)
        spoilt, faults = spoil(said, passage, rng.randint(1, most), rng)
        found.setdefault(spoilt, Answer(joined(spoilt, passage.document.language), faults))
    return list(found.values())


def drawn(passage: Passage, rng: random.Random) -> tuple[str, ...]:
    """Return some of the passage's sentences, in its order."""
    count = rng.randint(1, min(MOST_SENTENCES, len(passage.plain)))
    return tuple(passage.plain[place] for place in sorted(rng.sample(range(len(passage.plain)), count)))


def joined(said: Sequence[str], language: str) -> str:
    """Return sentences as one text."""
    return ("" if language == "zh" else " ").join(said)


def spoil(
    said: Sequence[str], passage: Passage, faults: int, rng: random.Random
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Put so many faults into sentences, fewer where they offer fewer; return them with the faults' names."""
    spoilt, names = list(said), []
    kinds = {
        "elsewhere": (unfaithful.elsewhere, passage.outside),
        "exchanged": (unfaithful.exchanged, passage.plain),
        "spliced": (unfaithful.spliced, passage.plain),
    }
    for _ in range(faults):
        at = rng.randrange(len(spoilt))
        for name in rng.sample(list(kinds), len(kinds)):
            make, others = kinds[name]
            wrong = make(spoilt[at], others, rng)
            if wrong is not None and wrong not in passage.said:
                spoilt[at] = wrong
                names.append(name)
                break
    return tuple(spoilt), tuple(names)


if __name__ == "__main__":
    config.run(main, ByPassageSettings, __doc__ or "")
