"""The page of a reward model: how well it judges held-out pairs, beside what must be beaten and what cannot be.

The page depends on the run's records alone (findings.json, its epochs' too, selection.json, judged.jsonl,
mistakes.jsonl, rejected.jsonl), timings and places left out: the same run gives the same bytes.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from finlm import jsonl, report
from finlm.errors import MissingInput
from finlm.records import PreferencePair, Removal
from finlm.rollout_files import visible
from reward import page_parts
from reward.calibration import confidence
from reward.findings import FINDINGS, MISTAKES, Findings, read_epoch_findings, read_findings, read_mistakes
from reward.judged import Judged, read_judged
from reward.page_parts import FEW_PROMPTS, MARK, REJECTED, within
from reward.selection import SELECTION, Selection, read_selection

PAGE = "report.html"
MADE_BY = "python reward/train.py"
SHOWN_TEXT = 4000
"""Characters of an answer or prompt on the page at most."""


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
        sections.append(page_parts.baselines(found))
    if len(found.measures.slices_by("source")) > 1:
        sections.append(page_parts.sources(found))
    if selection is not None:
        sections += page_parts.epochs(selection)
    by_epoch = read_epoch_findings(run)
    if len(by_epoch) > 1:
        sections.append(page_parts.epoch_by_epoch(by_epoch))
    sections += [page_parts.slices(found.measures), *page_parts.reliability(found.measures.calibration)]
    if found.agreement is not None:
        sections += page_parts.agreement(found.agreement)
    if found.swapping is not None or found.consistency:
        sections.append(page_parts.consistency(found))
    removals = list(jsonl.read(run / REJECTED, Removal)) if (run / REJECTED).is_file() else []
    if removals:
        sections.append(page_parts.set_aside(removals))
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
    figures = [report.Figure("Accuracy", f"{measures.accuracy.mean:.3f}", remark=within(measures.accuracy))]
    if sources > 1:
        figures.append(
            report.Figure(f"Mean of {sources} sources", f"{measures.macro.mean:.3f}", remark=within(measures.macro))
        )
    if measures.matched is not None:
        told = f"{within(measures.matched)}; {measures.matched.pairs:,} pairs within {measures.matched_share:.0%}"
        figures.append(report.Figure("Length-matched", f"{measures.matched.mean:.3f}", remark=told))
    figures += [
        report.Figure(one.name.capitalize(), f"{one.accuracy.mean:.3f}", remark=within(one.accuracy))
        for one in found.baselines
    ]
    figures += [
        report.Figure("Margin", f"{measures.margin.mean:+.3f}", remark=within(measures.margin, "+.3f")),
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
        "intervals; a prompt is drawn with all of its pairs;"
        f"{MARK} fewer than {FEW_PROMPTS} prompts, the interval is too narrow."
        + (left_out if measures.undecided else ""),
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
