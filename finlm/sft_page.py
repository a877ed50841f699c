"""The page of a fine-tuning run: loss, forgetting, and what was drawn, packed and set aside.

The page depends on the run's records and metrics.jsonl alone, timings and places left out: the same run gives the same
bytes. A run that is still going on is shown as far as it is.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from finlm import forgetting, jsonl, report, runs
from finlm.errors import MissingInput, UserError
from finlm.forgetting_page import Arm, before_and_after, forgetting_tables, held_out_curves
from finlm.metrics import read_metrics
from finlm.mixture_page import mixture_sections
from finlm.records import Removal
from finlm.rollout_files import visible
from finlm.sft_records import HELD_OUT, MIXTURE, STREAMS, is_text, read_held_out, read_mixture

PAGE = "report.html"
METRICS = "metrics.jsonl"
REJECTED = "rejected.jsonl"
MADE_BY = "accelerate launch alignment/sft.py"
CURVES: tuple[tuple[str, str, str, str], ...] = (
    ("Training loss", "nats per learned token", "loss", "each step"),
    ("Learning rate", "rate", "learning_rate", "each step"),
    ("Gradient norm before clipping", "norm", "grad_norm", "each step"),
)
"""Title, unit, name in metrics.jsonl and label; a curve without numbers is left out, but for the first."""
SMOOTHED = 20
"""A loss of more than twice so many points gets a second line, the mean of so many."""
SHOWN_REASON = 160
"""Characters of a removal's reason on the page at most."""


def write_sft_page(run: Path, target: Path, others: Sequence[Path] = ()) -> None:
    """Write the page of a fine-tuning run.

    Args:
        run: The run's folder.
        target: The page, usually report.html in that folder.
        others: Further runs whose forgetting is shown beside this one's, such as an arm without text.

    Raises:
        MissingInput: There is no such run.
        UserError: A file of one is damaged, or one run is named twice.
    """
    report.write(page_of(run, others), target)


def page_of(run: Path, others: Sequence[Path] = ()) -> report.Page:
    """Return the page of a fine-tuning run."""
    for folder in (run, *others):
        if not folder.is_dir():
            raise MissingInput(f"SFT run not found at {folder}; make it with: {MADE_BY}")
    folders = dict(zip(_names([run, *others]), [run, *others], strict=True))
    own, *rest = (Arm(name, read_held_out(folder), read_mixture(folder)) for name, folder in folders.items())
    metrics = read_metrics(run / METRICS)
    removals = _removals(run / REJECTED)
    streams = _streams(own)
    sections: list[report.Section] = [
        one for one in (_headline(own, rest, removals), _absent(folders)) if one is not None
    ]
    sections += [*_training(metrics), *held_out_curves(own.evaluations, streams)]
    if own.evaluations:
        sections += [before_and_after(own), *forgetting_tables(own, rest)]
    if own.mixture is not None:
        sections += mixture_sections(own.mixture, streams, _last_step(metrics, own))
    if removals is not None:
        sections.append(_set_aside(removals))
    return report.Page("Mixed fine-tuning", f"{own.name}: {_steps(run, metrics, own)}", tuple(sections))


def _names(folders: Sequence[Path]) -> list[str]:
    """The folders' names, with as many of the folders above them as tell them apart."""
    parts = [folder.resolve().parts for folder in folders]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(own[-depth:]) for own in parts]
        if len(set(names)) == len(names):
            return names
    raise UserError(f"One run is named twice among {', '.join(map(str, folders))}; name each once.")


def _streams(own: Arm) -> list[str]:
    """The streams of a run in their order, the same for every drawing, so that each keeps its colour."""
    tested = {one.stream for evaluation in own.evaluations for one in evaluation.categories}
    drawn = {stream for one in own.mixture.rounds for stream in one.shares} if own.mixture else set()
    return [stream for stream in STREAMS if stream in tested | drawn]


def _last_step(metrics: Sequence[Mapping[str, float]], own: Arm) -> int:
    steps = [int(line["step"]) for line in metrics] + [one.step for one in own.evaluations]
    return max(steps, default=0)


def _steps(run: Path, metrics: Sequence[Mapping[str, float]], own: Arm) -> str:
    wanted = (runs.read_state(run) or {}).get("settings", {}).get("steps")
    return f"{_last_step(metrics, own):,}" + (f" of {wanted:,} steps" if isinstance(wanted, int) else " steps")


def _absent(folders: Mapping[str, Path]) -> report.Notes | None:
    what = {
        METRICS: "no training loss",
        HELD_OUT: "no held-out loss, before, during or after training",
        MIXTURE: "nothing of shares, draws and packing",
        REJECTED: "nothing of what was set aside",
    }
    lines = []
    for number, (name, folder) in enumerate(folders.items()):
        needed = what if number == 0 else {HELD_OUT: "it has no forgetting to compare"}
        lines += [f"{name} has no {file}: {told}." for file, told in needed.items() if not (folder / file).is_file()]
    return report.Notes("Not there", "\n".join(lines)) if lines else None


def _headline(own: Arm, rest: Sequence[Arm], removals: Sequence[Removal] | None) -> report.Figures | None:
    figures = []
    for stream in STREAMS:
        change = own.changes.get((stream, None))
        if change is None:
            continue
        remark = f"{change.rise:+.3f}, before {change.before:.3f}" if change.rise is not None else "before training"
        compared = {other.name: other.changes.get((stream, None)) for other in rest if is_text(stream)}
        ratios = [
            f"{ratio:.2f} of the rise of {name}"
            for name, one in compared.items()
            if one is not None and (ratio := forgetting.ratio(change, one)) is not None and ratio > 0
        ]
        now = change.before if change.after is None else change.after
        figures.append(report.Figure(f"Held out: {stream}", f"{now:.3f}", "nats", "; ".join([remark, *ratios])))
    if own.mixture is not None:
        mixed = own.mixture
        figures.append(report.Figure("Rows packed", mixed.rows, remark=f"of {mixed.row_tokens:,} tokens"))
        figures.append(report.Figure("Filled", f"{mixed.filled:.1%}", remark="of their room"))
    if removals is not None:
        figures.append(report.Figure("Set aside", len(removals), remark="by rule, listed below"))
    return report.Figures("In short", tuple(figures)) if figures else None


def _training(metrics: Sequence[Mapping[str, float]]) -> list[report.Curve]:
    found = []
    for title, unit, key, label in CURVES:
        points = [(float(line["step"]), float(line[key])) for line in metrics if key in line]
        if not points and key != "loss":
            continue
        series = [report.Series(label, tuple(x for x, _ in points), tuple(y for _, y in points))]
        if key == "loss" and len(points) > 2 * SMOOTHED:
            ends = range(SMOOTHED, len(points) + 1)
            means = tuple(fmean(y for _, y in points[end - SMOOTHED : end]) for end in ends)
            series.append(report.Series(f"mean of {SMOOTHED} steps", tuple(points[end - 1][0] for end in ends), means))
        found.append(report.Curve(title, "step", unit, tuple(series)))
    return found


def _removals(path: Path) -> list[Removal] | None:
    return list(jsonl.read(path, Removal)) if path.is_file() else None


def _set_aside(removals: Sequence[Removal]) -> report.Table:
    counts = Counter(one.rule for one in removals)
    first = {one.rule: one for one in reversed(removals)}
    rows = tuple(
        (visible(rule), count, f"{count / len(removals):.1%}", _short(visible(first[rule].reason)))
        for rule, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    )
    return report.Table(
        title="Set aside",
        columns=("rule", "samples", "share", "the first of them"),
        rows=rows,
        remark=f"{len(removals):,} in all; each is in {REJECTED} with its reason.",
    )


def _short(text: str) -> str:
    return text if len(text) <= SHOWN_REASON else text[: SHOWN_REASON - 1] + "…"
