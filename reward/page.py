"""The page of a reward model: how well it judges held-out pairs, beside what must be beaten and what cannot be.

The page depends on the run's records alone (findings.json, selection.json, judged.jsonl, mistakes.jsonl), timings and
places left out: the same run gives the same bytes.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from finlm import report
from finlm.errors import MissingInput
from finlm.records import PreferencePair
from finlm.rollout_files import visible
from reward.agreement import Agreement
from reward.baselines import span
from reward.calibration import Calibration, confidence
from reward.findings import FINDINGS, MISTAKES, Findings, read_findings, read_mistakes
from reward.intervals import Estimate
from reward.judged import Judged, read_judged
from reward.measures import Measures, Slice
from reward.selection import SELECTION, Selection, read_selection

PAGE = "report.html"
MADE_BY = "python reward/train.py"
FEW_PROMPTS = 20
"""Prompts below which an interval is marked: it is too narrow."""
SHOWN_ANNOTATORS = 12
SHOWN_TEXT = 4000
"""Characters of an answer or prompt on the page at most."""
MARK = " *"


def write_reward_page(run: Path, target: Path | None = None) -> Path:
    """Write the page of a reward model's run and return where it lies.

    Args:
        run: The run's folder.
        target: The page; without it, report.html in that folder.

    Raises:
        MissingInput: The run has no findings.
        UserError: A file of it is damaged.
    """
    file = target or run / PAGE
    report.write(page_of(run), file)
    return file


def page_of(run: Path) -> report.Page:
    """Return the page of a reward model's run."""
    found = read_findings(run)
    if found is None:
        raise MissingInput(f"{run / FINDINGS} is not there; make it with: {MADE_BY}")
    selection, mistakes = read_selection(run), read_mistakes(run)
    judged = {record.pair_id: record for record in read_judged(run)}
    sections: list[report.Section] = [_headline(found)]
    if found.baselines:
        sections += _baselines(found)
    if selection is not None:
        sections += _epochs(selection)
    sections += [_slices(found.measures), *_reliability(found.measures.calibration)]
    if found.agreement is not None:
        sections += _agreement(found.agreement)
    if found.swapping is not None or found.consistency:
        sections.append(_consistency(found))
    if mistakes:
        sections.append(_mistakes(mistakes, judged, found.measures.calibration.scale))
    sections += _absent(found, selection, mistakes)
    return report.Page("Reward model", _subtitle(found, selection), tuple(sections))


def _subtitle(found: Findings, selection: Selection | None) -> str:
    accuracy = found.measures.accuracy
    epoch = f"epoch {selection.epoch}, " if selection else ""
    return f"{epoch}{accuracy.pairs:,} held-out pairs of {accuracy.prompts:,} prompts"


def _headline(found: Findings) -> report.Figures:
    measures = found.measures
    sources = len(measures.slices_by("source"))
    figures = [report.Figure("Accuracy", f"{measures.accuracy.mean:.3f}", remark=_within(measures.accuracy))]
    if sources > 1:
        figures.append(
            report.Figure(f"Mean of {sources} sources", f"{measures.macro.mean:.3f}", remark=_within(measures.macro))
        )
    if measures.matched is not None:
        told = f"{_within(measures.matched)}; {measures.matched.pairs:,} pairs within {measures.matched_share:.0%}"
        figures.append(report.Figure("Length-matched", f"{measures.matched.mean:.3f}", remark=told))
    figures += [
        report.Figure(one.name.capitalize(), f"{one.accuracy.mean:.3f}", remark=_within(one.accuracy))
        for one in found.baselines
    ]
    figures += [
        report.Figure("Margin", f"{measures.margin.mean:+.3f}", remark=_within(measures.margin, "+.3f")),
        report.Figure("Deviation of scores", f"{measures.std:.2f}", remark=f"mean {measures.mean:+.2f}"),
        report.Figure(
            "Calibration error",
            f"{measures.calibration.error:.3f}",
            remark=f"{measures.calibration.error_if_calibrated:.3f} by chance alone",
        ),
    ]
    if found.agreement is not None:
        told = f"one annotator: {found.agreement.annotator_and_others.mean:.3f}"
        together = f"{found.agreement.model_and_others.mean:.3f}"
        figures.append(report.Figure("Agrees with others' majority", together, remark=told))
    left_out = f" {measures.undecided:,} pairs of strength 0 have no better answer and are left out."
    return report.Figures(
        "In short",
        tuple(figures),
        remark="Accuracy: share of pairs whose better answer scores higher, a tie counts half. Brackets: 95 % "
        "intervals; a prompt is drawn with all of its pairs." + (left_out if measures.undecided else ""),
    )


def _baselines(found: Findings) -> list[report.Section]:
    measures = found.measures
    rows: list[tuple[report.Cell, ...]] = [
        ("reward model", *_three(measures.accuracy, measures.macro, measures.matched), None, None),
    ]
    rows += [
        (one.name, *_three(one.accuracy, one.macro, one.matched), span(one.ahead), span(one.ahead_macro))
        for one in found.baselines
    ]
    remarks = [f"{one.name.capitalize()}: {one.remark}." for one in found.baselines if one.remark]
    table = report.Table(
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
    sources = measures.slices_by("source")
    if len(sources) < 2:
        return [table]
    matched = {part.name: part.accuracy for part in measures.slices_by("source, matched length")}
    by_source = report.Table(
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
            for part in sources
        ),
        remark="Length-matched: the reward model on pairs whose longer answer has at most "
        f"{measures.matched_share:.0%} more tokens.{_few(sources)}",
    )
    return [table, by_source]


def _few(parts: Sequence[Slice]) -> str:
    is_marked = any(part.accuracy.prompts < FEW_PROMPTS and part.accuracy.low is not None for part in parts)
    return f" {MARK.strip()} Fewer than {FEW_PROMPTS} prompts: the interval is too narrow." if is_marked else ""


def _three(*estimates: Estimate | None) -> tuple[str, ...]:
    return tuple("–" if one is None else _cell(one) for one in estimates)


def _epochs(selection: Selection) -> list[report.Section]:
    rows = tuple(
        (
            f"{one.epoch}{' (chosen)' if one.epoch == selection.epoch else ''}",
            f"{one.accuracy.mean:.3f}",
            _within(one.accuracy),
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


def _slices(measures: Measures) -> report.Table:
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
                _marked(part.accuracy),
                part.accuracy.pairs,
                part.accuracy.prompts,
            )
            for number, part in enumerate(parts)
        ),
        remark="Lengths are tokens, end token included; the length difference is measured on the shorter answer, the "
        "length is the mean of both. At strength 0 neither answer is better, and 0.5 is to be expected."
        f"{_few(parts)}",
    )


def _reliability(found: Calibration) -> list[report.Section]:
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
            _marked(one.right),
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


def _agreement(found: Agreement) -> list[report.Section]:
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
        f"the reward model agrees {span(found.beside_ceiling)} more often than one annotator.",
    )
    listed = found.annotators[:SHOWN_ANNOTATORS]
    if not listed:
        return [table]
    rows = tuple(
        (
            visible(one.annotator),
            one.model.pairs,
            f"{one.model.mean:.3f}",
            _marked(one.model),
            f"{one.others.mean:.3f}",
            _marked(one.others),
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


def _consistency(found: Findings) -> report.Table:
    rows: list[tuple[report.Cell, ...]] = []
    if found.swapping is not None:
        stays = 1 - found.swapping.turned / found.swapping.pairs
        rows.append(("order and batch", f"{stays:.3f}", "", "", "", "", found.swapping.pairs))
    rows += [
        (
            one.change,
            f"{one.stays.mean:.3f}",
            _within(one.stays),
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


def _mistakes(pairs: Sequence[PreferencePair], judged: Mapping[str, Judged], scale: float) -> report.Samples:
    samples = []
    for pair in pairs:
        record = judged.get(pair.id)
        told = f"{pair.source}, strength {pair.strength}"
        if pair.votes:
            for_it = sum(vote.side == "chosen" and vote.strength > 0 for vote in pair.votes)
            against = sum(vote.side == "rejected" and vote.strength > 0 for vote in pair.votes)
            told += f", votes {for_it} to {against}"
        if record is not None:
            told += f": lead {record.lead:+.2f}, {confidence(record.lead, scale):.0%} sure"
        samples.append(
            report.Sample(
                _turns(pair),
                (
                    _answer(pair.chosen, pair.chosen_ended, *((record.better, record.better_tokens) if record else ())),
                    _answer(
                        pair.rejected, pair.rejected_ended, *((record.worse, record.worse_tokens) if record else ())
                    ),
                ),
                label=visible(told),
            )
        )
    return report.Samples(
        title="Its largest mistakes",
        models=("people prefer", "the model prefers"),
        samples=tuple(samples),
        remark=f"The {len(samples)} pairs in which the worse answer leads by most, each such answer once.",
    )


def _turns(pair: PreferencePair) -> str:
    messages = pair.prompt.messages
    return _text("\n\n".join(f"{one.role}: {one.content}" if len(messages) > 1 else one.content for one in messages))


def _answer(text: str, ended: bool, score: float | None = None, tokens: int | None = None) -> report.Answer:
    return report.Answer(_text(text), score, None, ended, remark="" if tokens is None else f"{tokens:,} tokens")


def _text(text: str) -> str:
    shown = visible(re.sub(r"\n\s*\n", "\n\n", text))
    return shown if len(shown) <= SHOWN_TEXT else f"{shown[:SHOWN_TEXT]}… ({len(shown):,} characters)"


def _absent(found: Findings, selection: Selection | None, mistakes: Sequence[PreferencePair]) -> list[report.Section]:
    lines = []
    if not found.baselines:
        lines.append("No baseline was measured: nothing says whether the model has learned more than length.")
    if selection is None:
        lines.append(f"There is no {SELECTION}: no epochs to compare.")
    if found.agreement is None:
        lines.append("No held-out pair has two decided votes: nothing says how well people agree.")
    if found.swapping is None and not found.consistency:
        lines.append("Consistency was not measured.")
    if not mistakes:
        lines.append(f"There is no {MISTAKES}: no mistakes to read.")
    return [report.Notes("Not there", "\n".join(lines))] if lines else []


def _within(one: Estimate, form: str = ".3f") -> str:
    """The interval as it stands behind a number."""
    return "–" if one.low is None or one.high is None else f"[{one.low:{form}}, {one.high:{form}}]"


def _marked(one: Estimate) -> str:
    return _within(one) + (MARK if one.prompts < FEW_PROMPTS and one.low is not None else "")


def _cell(one: Estimate) -> str:
    return f"{one.mean:.3f} {_marked(one)}"
