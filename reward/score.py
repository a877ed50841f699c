"""Scores a file: every answer of its rows by a reward model, or by several on one base.

finlm reward score answers.jsonl                                   by runs/reward, to runs/scored.jsonl
finlm reward score --model runs/reward answers.jsonl.xz --out scored.jsonl
finlm reward score --model '[runs/reward-a, runs/reward-b]' --reduce min pairs.jsonl

A row keeps its fields and gets `score`, in units where the fine-tuned model's own answers have mean 0 and standard
deviation 1: a pair gets `chosen_score` and `rejected_score`, Candidates a score in each response. Several models add
`scores`, one each. Rows are read as reward/scorable.py says, from .jsonl and .json (also .xz, .gz) and .parquet. A row
that cannot be scored goes, with rule, file and line, to rejected.jsonl in the folder of the output's name without its
suffix; so does a row with an answer that is too long, for none is cut.
"""

import os
import sys

if not __package__:  # run as a file: import from this checkout, not from this folder or from an older install
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import torch

from finlm import config, model, row_files, runs
from finlm.ensemble import REDUCTIONS, Ensemble, members_of
from finlm.errors import UserError
from finlm.progress import bar, console
from finlm.records import Removal
from finlm.row_files import Found
from reward.row_scores import scores_of
from reward.scorable import FORMATS, Scorable, parse
from reward.scored_file import ScoredFile

Read = Found[Scorable] | Removal


@dataclass(frozen=True, kw_only=True)
class ScoreSettings:
    """Settings of `finlm reward score`."""

    runs: str = field(default_factory=config.default_runs)
    """Run root: the folder that all stages write below."""
    input: str = field(metadata={config.POSITIONAL: True})
    """The file to score; may stand on the command line without its flag."""
    output: str = "{runs}/scored.jsonl"
    """File of the scored rows; work in progress lies in the folder of the same name without the suffix."""
    model: list[str] | str = "{runs}/reward"
    """Reward model: a folder, a folder of several, or a list of folders; several must stand on one base."""
    reduce: str = "mean"
    """What `score` is where there are several: the mean or the min of their scores."""
    max_length: int = 0
    """Tokens of prompt and answer at most; rows with a longer one are set aside. 0: as many as the base has positions
    for."""
    batch_tokens: int = 8192
    """Tokens per forward pass at most, padding included; a longer answer goes alone."""
    window: int = 2048
    """Rows that are read at once, sorted by length and kept together; a killed run repeats one window at most."""
    dtype: str = "auto"
    """Weights: auto, bfloat16 or float32."""
    threads: int = 0
    """CPU threads of torch; 0 leaves torch's default."""
    overwrite: bool = False
    """Score afresh."""

    def __post_init__(self) -> None:
        for name in ("batch_tokens", "window"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 1 or more.")
        if self.max_length < 0:
            raise ValueError(f"max_length is {self.max_length}; it must be 0 (as the base allows) or more.")
        if self.reduce not in REDUCTIONS:
            raise ValueError(f"reduce is {self.reduce!r}; it must be mean or min.")
        if Path(self.output).suffix != ".jsonl":
            raise ValueError(f"output is {self.output!r}; its name must end in .jsonl.")


def main(settings: ScoreSettings) -> None:
    """Read, score, keep, write."""
    if settings.threads:
        torch.set_num_threads(settings.threads)
    out, source = Path(settings.output), Path(settings.input)
    if out.resolve() == source.resolve():
        raise UserError(f"{source} would be replaced by its own scores; name another file with --out.")
    rows = count_rows(source)
    folders = members_of(settings.model)
    inputs = {"input": source} | {f"model.{number}": folder for number, folder in enumerate(folders)}
    is_new = not (out.with_suffix("") / runs.STATE).is_file()
    if is_new and out.exists() and not settings.overwrite:
        raise UserError(f"{out} is there and was not written by this command; name another file with --out.")
    run = runs.Run.open(out.with_suffix(""), "score", settings, inputs=inputs, overwrite=settings.overwrite)
    if run.is_finished and out.is_file():
        print(f"{out} is finished; --overwrite true scores afresh, --out names another file.")
        return

    device = model.device_of_this_process()
    judge = Ensemble.load(folders, dtype=model.choose_dtype(settings.dtype, device), device=device)
    with ScoredFile(run.folder) as scored, bar() as progress:
        if scored.kept.read:
            console.print(f"{scored.kept.read} rows were read before; going on behind them")
        task = progress.add_task("scores", total=rows, completed=scored.kept.read, note="")
        found = row_files.read(source, parse, formats=FORMATS)
        for window in windows(islice(found, scored.kept.read, None), settings.window):
            score_window(window, judge, settings, scored)
            progress.update(task, completed=scored.kept.read, note=f"{scored.kept.set_aside} set aside")
        kept = scored.kept
        run.finish(rows=kept.scored, answers=kept.answers, set_aside=kept.set_aside)
        scored.publish(out)
    aside = f", {kept.set_aside} set aside ({run.folder / 'rejected.jsonl'})" if kept.set_aside else ""
    print(f"{kept.scored} rows with {kept.answers} answers scored{aside}: {out}")


def count_rows(source: Path) -> int:
    """Return the number of rows, usable or not.

    Raises:
        MissingInput: There is no such file.
        UserError: It is damaged, or holds no rows.
    """
    return sum(1 for _ in row_files.read(source, lambda row: (True,), formats=FORMATS))


def windows(found: Iterator[Read], size: int) -> Iterator[list[Read]]:
    """Yield the rows, so many at a time; a fault of the file comes behind all rows before it."""
    window: list[Read] = []
    try:
        for one in found:
            window.append(one)
            if len(window) == size:
                yield window
                window = []
    except UserError:
        if window:
            yield window
        raise
    if window:
        yield window


def score_window(window: Sequence[Read], judge: Ensemble, settings: ScoreSettings, scored: ScoredFile) -> None:
    """Score the answers of some rows and keep them.

    Raises:
        UserError: Memory does not suffice, or a score is not finite.
    """
    most = settings.max_length or judge.longest
    removals = [one for one in window if isinstance(one, Removal)]
    fitting, encoded = [], []
    for one in window:
        if isinstance(one, Removal):
            continue
        answers = [judge.encode(asked.prompt, asked.answer, ended=asked.ended) for asked in one.record.asked]
        longest = max(map(len, answers))
        if longest <= most:
            fitting.append(one.record)
            encoded += answers
            continue
        where = one.place.rpartition(":")[2]
        reason = f"{settings.input}:{where}: {longest} tokens, the limit is {most}"
        removals.append(row_files.set_aside(one.place, "too-long", reason, one.record.row))
    scores = iter(scores_of(judge, encoded, reduce=settings.reduce, batch_tokens=settings.batch_tokens))
    rows = [record.write(record.row, [next(scores) for _ in record.asked]) for record in fitting]
    scored.add(rows, removals, answers=len(encoded))


if __name__ == "__main__":
    config.run(main, ScoreSettings, __doc__ or "")
