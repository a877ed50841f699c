"""Parts of a reward model's page: tables and curves of what was found out."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from finlm import report
from finlm.records import Removal
from finlm.rollout_files import visible
from reward.agreement import Agreement
from reward.baselines import span
from reward.calibration import Calibration
from reward.findings import EPOCHS, FINDINGS, Findings
from reward.intervals import Estimate
from reward.measures import Measures
from reward.selection import Selection

FEW_PROMPTS = 20
"""Prompts below which an interval is marked."""
MARK = " *"
SHOWN_ANNOTATORS = 12
REJECTED = "rejected.jsonl"


def baselines(found: Findings) -> report.Table:
    """Return the baselines beside the model, with the verdict."""
    measures = found.measures
    rows: list[tuple[report.Cell, ...]] = [
        ("reward model", *_three(measures.accuracy, measures.macro, measures.matched), None, None),
    ]
    rows += [
        (one.name, *_three(one.accuracy, one.macro, one.matched), span(one.ahead), span(one.ahead_macro))
        for one in found.baselines
    ]
    remarks = [f"{one.name.capitalize()}: {one.remark}." for one in found.baselines if one.remark]
    return report.Table(
        title="Baselines",
        columns=(
            "judge",
            "accuracy",
            "mean of sources",
            f"length within {measures.matched_share:.0%}",
            "model is ahead by",
            "by the mean of sources",
        ),
        rows=tuple(rows),
        remark=" ".join((found.verdict, *remarks)),
    )


def sources(found: Findings) -> report.Table:
    """Return the accuracy on each source, beside the baselines'."""
    measures = found.measures
    matched = {part.name: part.accuracy for part in measures.slices_by("source, matched length")}
    return report.Table(
        title="Source by source",
        columns=(
            "source",
            "pairs",
            "prompts",
            "reward model",
            *(one.name for one in found.baselines),
            "length-matched",
        ),
        rows=tuple(
            (
                visible(part.name),
                part.accuracy.pairs,
                part.accuracy.prompts,
                _cell(part.accuracy),
                *_three(*(one.by_source.get(part.name) for one in found.baselines)),
                f"{_cell(matched[part.name])}, {matched[part.name].pairs:,} pairs" if part.name in matched else None,
            )
            for part in measures.slices_by("source")
        ),
        remark="Length-matched: the reward model on pairs whose longer answer has at most "
        f"{measures.matched_share:.0%} more tokens.",
    )


def _three(*estimates: Estimate | None) -> tuple[str, ...]:
    return tuple("–" if one is None else _cell(one) for one in estimates)


def epochs(selection: Selection) -> list[report.Section]:
    """Return the epochs with the choice and its reason, and their curves."""
    rows = tuple(
        (
            f"{one.epoch}{' (chosen)' if one.epoch == selection.epoch else ''}",
            f"{one.accuracy.mean:.3f}",
            within(one.accuracy),
            span(one.behind) if one.behind.mean else None,
            f"{one.mean:+.2f}",
            f"{one.std:.2f}",
            f"{one.margin:+.3f}",
            f"{one.margin_in_std:.3f}",
            "yes" if one.is_accurate else "no",
            "yes" if one.is_scaled else "no",
        )
        for one in selection.epochs
    )
    rule = selection.rule
    table = report.Table(
        title="Epochs, and the choice",
        columns=(
            "epoch",
            "accuracy",
            "95 %",
            "behind the most accurate",
            "mean",
            "std",
            "margin",
            "in std",
            "as accurate",
            "in scale",
        ),
        rows=rows,
        remark=f"{selection.reason} The rule: not shown to be less accurate than the most accurate epoch; mean within "
        f"±{rule.mean_limit:g} and standard deviation {rule.least_std:g} to {rule.most_std:g}, in the units of the "
        "loss; then the widest margin in standard deviations.",
    )
    if len(selection.epochs) < 2:
        return [table]
    x = tuple(float(one.epoch) for one in selection.epochs)
    accuracies = [one.accuracy for one in selection.epochs]
    series = [report.Series("accuracy", x, tuple(one.mean for one in accuracies))]
    if all(one.low is not None for one in accuracies):
        series.append(report.Series("95 % low", x, tuple(one.low or 0.0 for one in accuracies)))
        series.append(report.Series("95 % high", x, tuple(one.high or 0.0 for one in accuracies)))
    scale = (
        report.Series("margin", x, tuple(one.margin for one in selection.epochs)),
        report.Series("standard deviation", x, tuple(one.std for one in selection.epochs)),
        report.Series("mean", x, tuple(one.mean for one in selection.epochs)),
    )
    return [
        table,
        report.Curve("Accuracy on held-out pairs", "epoch", "share", tuple(series)),
        report.Curve("Scores", "epoch", "score units of the loss", scale),
    ]


def epoch_by_epoch(found: Mapping[int, Findings]) -> report.Table:
    """Return every epoch's accuracy on each part, its calibration error and agreement."""
    measures = {epoch: its.measures for epoch, its in found.items()}
    first = next(iter(measures.values()))

    def row(by: str, part: str, of: Callable[[Findings], Estimate | None]) -> tuple[report.Cell, ...]:
        return by, visible(part), *(None if (one := of(its)) is None else f"{one.mean:.3f}" for its in found.values())

    rows = [row("all", "", lambda its: its.measures.accuracy)]
    for number, part in enumerate(first.slices):
        is_new = number == 0 or first.slices[number - 1].by != part.by
        rows.append(row(part.by if is_new else "", part.name, partial(_part, by=part.by, name=part.name)))
    errors = (f"{its.calibration.error:.3f}" for its in measures.values())
    rows.append(("calibration error", "", *errors))
    if any(its.agreement is not None for its in found.values()):
        rows.append(
            row(
                "agreement",
                "majority of the others",
                lambda its: its.agreement.model_and_others if its.agreement is not None else None,
            )
        )
    return report.Table(
        title="Epoch by epoch",
        columns=("accuracy by", "part", *(f"epoch {epoch}" for epoch in found)),
        rows=tuple(rows),
        remark=f"With their intervals in {EPOCHS}/epoch-*/{FINDINGS}.",
    )


def _part(found: Findings, *, by: str, name: str) -> Estimate | None:
    return next((one.accuracy for one in found.measures.slices_by(by) if one.name == name), None)


def set_aside(removals: Sequence[Removal]) -> report.Table:
    """Return what was neither learned from nor tested on, counted by rule."""
    by_rule: dict[str, list[Removal]] = {}
    for removal in removals:
        by_rule.setdefault(removal.rule, []).append(removal)
    ordered = sorted(by_rule.items(), key=lambda item: (-len(item[1]), item[0]))
    return report.Table(
        title="Set aside",
        columns=("rule", "pairs", "the first of them"),
        rows=tuple((rule, len(its), visible(f"{its[0].record_id}: {its[0].reason}")) for rule, its in ordered),
        remark=f"Neither learned from nor tested on. All are in {REJECTED}.",
    )


def slices(measures: Measures) -> report.Table:
    """Return the accuracy on parts of the pairs."""
    # the sources have a table of their own where there are several
    kinds = [kind for kind in dict.fromkeys(part.by for part in measures.slices) if not kind.startswith("source")]
    parts = [part for kind in kinds for part in measures.slices_by(kind)]
    return report.Table(
        title="Accuracy by part",
        columns=("by", "part", "accuracy", "95 %", "pairs", "prompts"),
        rows=tuple(
            (
                part.by if number == 0 or parts[number - 1].by != part.by else "",
                visible(part.name),
                f"{part.accuracy.mean:.3f}",
                within(part.accuracy),
                part.accuracy.pairs,
                part.accuracy.prompts,
            )
            for number, part in enumerate(parts)
        ),
        remark="Lengths are tokens, end token included; the length difference is measured on the shorter answer, the "
        "length is the mean of both. At strength 0 neither answer is better, and 0.5 is to be expected.",
    )


def reliability(found: Calibration) -> list[report.Section]:
    """Return the reliability plot and its numbers."""
    x = tuple(one.confidence for one in found.bins)
    ends = (min(0.5, *x), max(x)) if x else (0.5, 1.0)
    right = tuple(one.right.mean for one in found.bins)
    curve = report.Curve(
        "Reliability",
        "confidence: sigmoid of the lead",
        "share right",
        (report.Series("the model", x, right), report.Series("as sure as it is right", ends, ends)),
        remark="Below the diagonal the model is surer than it should be.",
    )
    rows = tuple(
        (
            f"{one.lowest:.3f} to {one.highest:.3f}",
            f"{one.confidence:.3f}",
            f"{one.right.mean:.3f}",
            within(one.right),
            f"{one.right.mean - one.confidence:+.3f}",
            one.right.pairs,
        )
        for one in found.bins
    )
    scaled = "" if found.scale == 1 else f" Leads are multiplied by {found.scale:.3g}, the units of the loss."
    table = report.Table(
        title="Calibration",
        columns=("confidence", "mean", "right", "95 %", "right less sure", "pairs"),
        rows=rows,
        remark=f"Expected calibration error {found.error:.3f}; a calibrated model of the same confidences would have "
        f"{found.error_if_calibrated:.3f} by chance. The label of every pair is the same, so what is checked is the "
        f"answer that the model prefers: how sure it is of it, and whether it is right.{scaled}",
    )
    return [curve, table]


def agreement(found: Agreement) -> list[report.Section]:
    """Return agreement with annotators beside what they reach among themselves, and annotator by annotator."""
    asked = (
        ("each annotator", found.model_and_annotator, found.annotator_and_annotator),
        ("the majority of the others", found.model_and_others, found.annotator_and_others),
        ("the majority of all", found.model_and_majority, None),
    )
    table = report.Table(
        title="Agreement with annotators",
        columns=("agreement with", "reward model", "ceiling: one annotator", "pairs", "prompts"),
        rows=tuple(
            (what, *_three(model, ceiling), model.pairs, model.prompts)
            for what, model, ceiling in asked
            if model is not None
        ),
        remark=f"{found.pairs:,} pairs with two decided votes or more, {found.votes:,} votes. "
        f"{found.undecided_votes:,} votes of strength 0 prefer neither answer and are left out. Both columns are asked "
        "about the same votes; where the others are evenly split, both agree by half. With the majority of the others, "
        f"the reward model's agreement is ahead of one annotator's by {span(found.beside_ceiling)}.",
    )
    listed = found.annotators[:SHOWN_ANNOTATORS]
    if not listed:
        return [table]
    rows = tuple(
        (
            visible(one.annotator),
            one.model.pairs,
            f"{one.model.mean:.3f}",
            within(one.model),
            f"{one.others.mean:.3f}",
            within(one.others),
        )
        for one in listed
    )
    more = len(found.annotators) - len(listed)
    return [
        table,
        report.Table(
            title="Annotators",
            columns=("annotator", "votes", "model agrees", "95 %", "others agree", "95 %"),
            rows=rows,
            remark=f"Those with the most votes{f'; {more:,} more are in {FINDINGS}' if more else ''}. Others: the "
            "majority of the other annotators of the same pair.",
        ),
    ]


def consistency(found: Findings) -> report.Table:
    """Return what order and formatting do to the verdicts."""
    rows: list[tuple[report.Cell, ...]] = []
    if found.swapping is not None:
        stays = 1 - found.swapping.turned / found.swapping.pairs
        rows.append(("order and batch", f"{stays:.3f}", "", "", "", "", found.swapping.pairs))
    rows += [
        (
            one.change,
            f"{one.stays.mean:.3f}",
            within(one.stays),
            f"{one.stays_one_sided.mean:.3f}",
            f"{one.shift:.3f}",
            f"{one.drift:+.3f}",
            one.stays.pairs,
        )
        for one in found.consistency
    ]
    swapped = f" Swapped, scores differ by {found.swapping.largest:.2g} at most." if found.swapping is not None else ""
    return report.Table(
        title="Consistency",
        columns=(
            "changed",
            "verdict stays",
            "95 %",
            "if one answer is changed",
            "mean shift",
            "with its sign",
            "pairs",
        ),
        rows=tuple(rows),
        remark="Same letters and digits, another look: both answers changed, or one of them. Shifts are in standard "
        f"deviations of the scores; with its sign: what the change earns.{swapped}",
    )


def within(one: Estimate, form: str = ".3f") -> str:
    """Return the interval as it stands behind a number, marked where few prompts make it too narrow."""
    if one.low is None or one.high is None:
        return "–"
    return f"[{one.low:{form}}, {one.high:{form}}]{MARK if one.prompts < FEW_PROMPTS else ''}"


def _cell(one: Estimate) -> str:
    return f"{one.mean:.3f}" if one.low is None else f"{one.mean:.3f} {within(one)}"
