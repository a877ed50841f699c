"""Published preferences of people as pairs, ready for the reward model.

    finlm annotate import --input published/        writes runs/preferences.jsonl

One file, or a folder of .jsonl, .jsonl.xz and .jsonl.gz, told apart by their keys (annotation/published.py lists the
formats). Votes, their people and the set's name stay with each pair. What gives no pair goes to rejected.jsonl in the
folder of the same name, with its rule.
"""

import os
import sys

if not __package__:  # run as a file: import from this checkout, not from this folder or from an older install
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import random
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from annotation import published
from annotation.published import CORRECTED, FORMATS, Fault, Format, Found, Pair
from finlm import config, jsonl, runs
from finlm.errors import MissingInput, UserError
from finlm.progress import bar
from finlm.records import Category, PreferencePair, Prompt, Provenance, Removal, Vote, content_id


@dataclass(frozen=True, kw_only=True)
class ImportSettings:
    """Settings of the import of published preferences."""

    input: str
    """File of one format, or folder of such files."""
    runs: str = field(default_factory=config.default_runs)
    """Run root: the folder that all stages write below."""
    output: str = "{runs}/preferences.jsonl"
    """File of PreferencePair records."""
    format: Literal["auto", "hh", "ranking", "tree", "finegrained", "votes", "mqm"] = "auto"
    """Format of all files; auto tells it from the keys of a file's first row."""
    category: Literal["", "general", "safety", "finance"] = ""
    """Category of all prompts; empty: the format's (safety for hh, general for the others)."""
    language: str = ""
    """Language of all prompts; empty: the format's (zh for ranking, en for the others)."""
    pairs_per_prompt: int = 6
    """Pairs of a ranking at most, drawn by the seed; one of n replies has n (n - 1) / 2. 0 takes all."""
    corrections: bool = False
    """Also take pairs of an answer that a judge rewrote and what was there before (finegrained); their source is the
    set's name with `_corrected`."""
    limit: int = 0
    """Pairs of a file at most, drawn by the seed; 0 takes all."""
    seed: int = 0
    """Seed of what is drawn."""
    overwrite: bool = False
    """Import afresh."""

    def __post_init__(self) -> None:
        for name in ("pairs_per_prompt", "limit"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 0 (all) or more.")


def main(settings: ImportSettings) -> None:
    """Read every file, settle repeated pairs, draw, write."""
    out = Path(settings.output)
    paths = files(Path(settings.input))
    inputs = {str(path): path for path in paths}
    run = runs.Run.open(out.with_suffix(""), "import", settings, inputs=inputs, overwrite=settings.overwrite)
    if run.is_finished and out.is_file():
        print(f"{out} is finished; --overwrite true imports afresh, --output names another file.")
        return

    kept: list[PreferencePair] = []
    removals: list[Removal] = []
    with bar() as progress:
        for path in paths:
            task = progress.add_task(path.name, total=None, note="")
            known = FORMATS[settings.format] if settings.format != "auto" else guessed(path)
            found, faults = read(path, known, settings)
            progress.update(task, total=1, completed=1)
            single, repeated = settled(found)
            most = settings.pairs_per_prompt if known.is_ranking else 0
            drawn, left = draw(single, per_prompt=most, limit=settings.limit, seed=settings.seed)
            kept += drawn
            removals += [*faults, *repeated, *left]
    if not kept:
        raise UserError(f"{settings.input} gave no pair; {out.with_suffix('')}/rejected.jsonl says why.")
    jsonl.write(run.folder / "rejected.jsonl", removals)
    jsonl.write(out, kept)
    rules = Counter(removal.rule for removal in removals)
    strengths = Counter(pair.strength for pair in kept)
    run.finish(
        pairs=len(kept),
        prompts=len({pair.prompt.id for pair in kept}),
        votes=sum(len(pair.votes) for pair in kept),
        strengths={str(level): strengths[level] for level in range(4)},
        sources=dict(Counter(pair.source for pair in kept)),
        rejected=dict(sorted(rules.items())),
    )
    print(f"{len(kept):,} pairs of {len({pair.prompt.id for pair in kept}):,} prompts: {out}")
    print(f"left out: {', '.join(f'{rule} {count:,}' for rule, count in rules.most_common()) or 'nothing'}")


def files(given: Path) -> list[Path]:
    """Return the file, or the folder's files in order.

    Raises:
        MissingInput: There is none.
    """
    found = (
        sorted(path for end in ("", ".xz", ".gz") for path in given.glob(f"*.jsonl{end}"))
        if given.is_dir()
        else [given]
    )
    if not found or not found[0].is_file():
        raise MissingInput(f"{given}: no such file, and no folder with .jsonl, .jsonl.xz or .jsonl.gz files.")
    return found


def read(path: Path, known: Format, settings: ImportSettings) -> tuple[list[PreferencePair], list[Removal]]:
    """Return a file's pairs as records, and what gave none.

    Raises:
        UserError: A row that is not of the format.
    """
    name = path.name.split(".")[0]
    pairs, removals = [], []
    makers = {name: known.pairs}
    if settings.corrections and known.corrections is not None:
        makers[f"{name}{CORRECTED}"] = known.corrections
    for number, row in enumerate(jsonl.read(path, known.row), 1):
        for source, make in makers.items():
            for item in whole(path, number, row, make):
                if isinstance(item, Fault):
                    removals.append(Removal(record_id=f"{path.name}:{number}", rule=item.rule, reason=item.reason))
                else:
                    pairs.append(record(item, name, source, known, settings))
    return pairs, removals


def whole(path: Path, number: int, row: Any, make: Callable[[Any], Found]) -> Found:
    """Yield what a row gives.

    Raises:
        UserError: Its parts do not fit each other, as votes without workers.
    """
    try:
        yield from make(row)
    except ValueError as error:
        raise UserError(f"{path}:{number}: the row's parts do not fit each other ({error}); mend the file.") from error


def guessed(path: Path) -> Format:
    """Return the format of a file by the keys of its first row.

    Raises:
        UserError: No format has them, or there is no row.
    """
    first = next(iter(jsonl.read(path, dict)), None)
    if first is None:
        raise UserError(f"{path} is empty; give a file with preferences.")
    name = published.format_of(first)
    if name is None:
        raise UserError(f"{path} has rows with the keys {sorted(first)}, which no format has; name one with --format.")
    return FORMATS[name]


def record(pair: Pair, name: str, source: str, known: Format, settings: ImportSettings) -> PreferencePair:
    """Return a pair as a record; the prompt is of the set, the pair of the set or of its corrections."""
    category: Category = settings.category or known.category
    turns = published.messages(pair.turns)
    prompt = Prompt(
        messages=turns,
        category=category,
        source=name,
        language=settings.language or known.language,
        # where the set names no group, dialogues that begin alike belong together
        group=f"{name}:{pair.group or content_id(turns[0].content)}",
    )
    votes = tuple(
        Vote(
            annotator=f"person:{name}-{opinion.person}",
            annotation_id=content_id(prompt.id, pair.better, pair.worse, opinion.person),
            side="chosen" if opinion.is_for_first else "rejected",
            strength=opinion.strength,
        )
        for opinion in pair.opinions
    )
    return PreferencePair(
        prompt=prompt,
        chosen=pair.better,
        rejected=pair.worse,
        strength=pair.strength,
        source=source,
        votes=votes,
        provenance=Provenance(maker=f"import:{source}", parents=(prompt.id,)),
    )


def settled(pairs: list[PreferencePair]) -> tuple[list[PreferencePair], list[Removal]]:
    """Return each pair once; where a set says both of two answers are the better one, neither counts."""
    by_answers: dict[tuple[str, frozenset[str]], list[PreferencePair]] = defaultdict(list)
    for pair in pairs:
        by_answers[pair.prompt.id, frozenset((pair.chosen, pair.rejected))].append(pair)
    kept, removals = [], []
    for same in by_answers.values():
        decided = [pair for pair in same if pair.strength]
        if len({pair.id for pair in decided}) > 1:
            reason = "the set prefers either answer to the other"
            removals += [Removal(record_id=pair.id, rule="contradiction", reason=reason) for pair in same]
            continue
        first = (decided or same)[0]
        kept.append(first)
        removals += [
            Removal(record_id=pair.id, rule="duplicate", reason="the same pair again")
            for pair in same
            if pair is not first
        ]
    return kept, removals


def draw(
    pairs: list[PreferencePair], *, per_prompt: int, limit: int, seed: int
) -> tuple[list[PreferencePair], list[Removal]]:
    """Return the pairs within the limits (0: none), in their order, and those beyond."""
    by_prompt: dict[tuple[str, str], list[PreferencePair]] = defaultdict(list)
    for pair in pairs:
        by_prompt[pair.prompt.id, pair.source].append(pair)
    taken: set[int] = set()
    for (prompt, _), its in by_prompt.items():
        rng = random.Random(int(content_id(seed, prompt), 16))
        taken |= {id(pair) for pair in rng.sample(its, min(per_prompt or len(its), len(its)))}
    within = [pair for pair in pairs if id(pair) in taken]
    reason = f"beyond {per_prompt} pairs of a prompt"
    removals = [Removal(record_id=pair.id, rule="over-quota", reason=reason) for pair in pairs if id(pair) not in taken]
    if 0 < limit < len(within):
        chosen = {id(pair) for pair in random.Random(seed).sample(within, limit)}
        reason = f"limit is {limit}"
        removals += [
            Removal(record_id=pair.id, rule="over-limit", reason=reason) for pair in within if id(pair) not in chosen
        ]
        within = [pair for pair in within if id(pair) in chosen]
    return within, removals


if __name__ == "__main__":
    config.run(main, ImportSettings, __doc__ or "")
