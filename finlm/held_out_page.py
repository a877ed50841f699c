"""Parts of a page that show how a PPO run did on held-out prompts, and what its guards said."""

from collections.abc import Sequence
from pathlib import Path

from finlm import report
from finlm.ppo_records import BestPolicy, HeldOutRecord, read_best, read_guards, read_held_out

CURVES: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...] = (
    ("Held out: reward", "score", (("reward", "reward model that trains"), ("anchor", "anchor, which does not"))),
    ("Held out: right answers", "share", (("right", "right"), ("ended", "ended"))),
    ("Held out: KL to the reference", "nats per answer", (("kl_nats", "KL"),)),
    ("Held out: answer length", "tokens", (("tokens", "mean"),)),
)
"""Title, unit, and fields of `HeldOutRecord` with their labels."""


def sections(run_folder: Path) -> list[report.Section]:
    """Return the curves, the best policy and the guards' verdicts of a run; nothing where it has none."""
    made: list[report.Section] = [*curves(read_held_out(run_folder))]
    if (best := read_best(run_folder)) is not None:
        made.append(best_policy(best))
    if (table := verdicts(run_folder)) is not None:
        made.append(table)
    return made


def curves(records: Sequence[HeldOutRecord]) -> list[report.Curve]:
    """Return the curves over a run's evaluations."""
    found = []
    for title, unit, fields in CURVES:
        series = []
        for name, label in fields:
            points = [
                (float(one.update), float(getattr(one, name))) for one in records if getattr(one, name) is not None
            ]
            series.append(report.Series(label, tuple(x for x, _ in points), tuple(y for _, y in points)))
        if any(one.x for one in series):
            found.append(report.Curve(title, "update", unit, tuple(one for one in series if one.x)))
    return found


def best_policy(best: BestPolicy) -> report.Figures:
    """Return the figures of the kept policy that did best."""
    figures = [
        report.Figure("Update", best.update, remark=best.policy),
        report.Figure("Reward", f"{best.reward:+.2f}"),
        report.Figure("KL to the reference", f"{best.kl_nats:.2f}", "nats per answer"),
        report.Figure("Answer length", f"{best.tokens:.1f}", "tokens"),
    ]
    figures += [report.Figure("Right answers", f"{best.right:.2f}")] if best.right is not None else []
    figures += [report.Figure("Anchor", f"{best.anchor:+.2f}")] if best.anchor is not None else []
    return report.Figures(title="Best kept policy on held-out prompts", figures=tuple(figures), remark=best.reason)


def verdicts(run_folder: Path) -> report.Table | None:
    """Return what the guards said; None where they said nothing."""
    rows = tuple(
        (
            verdict.update,
            verdict.guard,
            verdict.action if verdict.back_to is None else f"rolled back to {verdict.back_to}",
            verdict.sentence,
        )
        for verdict in read_guards(run_folder)
    )
    if not rows:
        return None
    return report.Table(
        title="What the guards said",
        columns=("update", "guard", "verdict", "why"),
        rows=rows,
        remark="A guard warns at the first update beyond its limit and acts when as many in a row are as its patience.",
    )
