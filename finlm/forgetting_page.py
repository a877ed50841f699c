"""Parts of a page that show held-out loss by stream and language, and what of plain text was forgotten."""

from collections.abc import Sequence
from dataclasses import dataclass

from finlm import forgetting, report
from finlm.forgetting import Change
from finlm.sft_records import HeldOutLoss, Mixed, is_text


@dataclass(frozen=True, slots=True)
class Arm:
    """A run as far as it is compared with others.

    Example:
        Arm("sft-without-text", evaluations=(HeldOutLoss(…), …), mixture=Mixed(…))
    """

    name: str
    evaluations: Sequence[HeldOutLoss]
    mixture: Mixed | None

    @property
    def changes(self) -> dict[tuple[str, str | None], Change]:
        """By stream and language."""
        return {(one.stream, one.language): one for one in forgetting.changes(self.evaluations)}

    def learned(self, *, of_text: bool) -> int | None:
        """Tokens with a loss in all rounds that have ended, of text or of instructions."""
        if self.mixture is None:
            return None
        drawn = [pair for one in self.mixture.rounds for pair in one.drawn.items()]
        return sum(one.learned for stream, one in drawn if is_text(stream) == of_text)


def held_out_curves(evaluations: Sequence[HeldOutLoss], streams: Sequence[str]) -> list[report.Curve]:
    """Return the losses of all streams, how far they moved, and each stream's by language where it has several."""
    unit = "nats per learned token"
    whole = {stream: _series(evaluations, stream, None, stream) for stream in streams}
    found = [report.Curve("Held-out loss by stream", "step", unit, tuple(whole.values()))]
    moved = tuple(report.Series(name, one.x, tuple(y - one.y[0] for y in one.y)) for name, one in whole.items())
    if len(evaluations) > 1:
        found.append(report.Curve("Held-out loss: change", "step", unit, moved))
    for stream in streams:
        spoken = forgetting.languages(evaluations, stream)
        if len(spoken) > 1:
            series = tuple(_series(evaluations, stream, one, one or "no language") for one in spoken)
            found.append(report.Curve(f"Held out: {stream}", "step", unit, series))
    return found


def _series(evaluations: Sequence[HeldOutLoss], stream: str, language: str | None, name: str) -> report.Series:
    points = [(float(one.step), loss) for one in evaluations if (loss := one.of(stream, language)) is not None]
    return report.Series(name, tuple(x for x, _ in points), tuple(y for _, y in points))


def before_and_after(own: Arm) -> report.Table:
    """Return every stream's loss before and after, in all languages and in each."""
    rows = tuple(
        (
            one.stream,
            _language(one),
            f"{one.before:.4f}",
            None if one.after is None else f"{one.after:.4f}",
            None if one.rise is None else f"{one.rise:+.4f}",
            None if one.rise is None else f"{one.rise / one.before:+.1%}",
            f"{one.lowest:.4f}",
            one.lowest_step,
            one.tokens,
        )
        for one in own.changes.values()
    )
    columns = ("stream", "language", "before", "after", "change", "in percent", "lowest", "at step", "learned tokens")
    first, last = own.evaluations[0].step, own.evaluations[-1].step
    return report.Table(
        title="Held-out loss before and after",
        columns=columns,
        rows=rows,
        remark=f"Nats per learned token; before is step {first:,}, after is step {last:,}. In text every token is "
        "learned, in instructions the answers are.",
    )


def _language(one: Change) -> str:
    return "all" if one.language is None else one.language or "none named"


def forgetting_tables(own: Arm, rest: Sequence[Arm]) -> list[report.Section]:
    """Return how far the loss on plain text rose, beside the other runs' rises, and what each run had learned from."""
    rows: list[tuple[report.Cell, ...]] = []
    differs: list[str] = []
    for (stream, language), change in own.changes.items():
        if not is_text(stream):
            continue
        rows.append((stream, _language(change), own.name, *_rise(change), ""))
        for other in rest:
            compared = other.changes.get((stream, language))
            if compared is None:
                rows.append((stream, _language(change), other.name, None, None, None, "not tested on it"))
                continue
            rows.append((stream, _language(change), other.name, *_rise(compared), _share(change, compared)))
            if not forgetting.compares(change, compared):
                differs.append(other.name)
    if not rows:
        return [report.Notes("Forgetting", "No text was held out, so nothing is known of what was forgotten.")]
    columns: tuple[str, ...]
    columns = ("held-out text", "language", "run", "before", "after", "rise", f"{own.name}'s rise as a share of it")
    if not rest:
        rows, columns = [row[:-1] for row in rows], columns[:-1]
    told = [
        f"{name} did not begin at the same loss on as many tokens: another base or other held-out text, so its rise "
        "does not compare."
        for name in dict.fromkeys(differs)
    ]
    remark = "Loss on plain text, nats per token; a rise is what was forgotten. " + " ".join(told)
    sections: list[report.Section] = [report.Table("Forgetting", columns, tuple(rows), remark.strip())]
    return [*sections, _arms([own, *rest])] if rest else sections


def _rise(change: Change) -> tuple[str, str | None, str | None]:
    if change.after is None or change.rise is None:
        return f"{change.before:.4f}", None, None
    return f"{change.before:.4f}", f"{change.after:.4f}", f"{change.rise:+.4f}"


def _share(own: Change, other: Change) -> str | None:
    if own.rise is None or other.rise is None:
        return None
    if not forgetting.compares(own, other):
        return "does not compare"
    share = forgetting.ratio(own, other)
    if share is None:
        return "its loss did not rise"
    return f"{share:.2f}" if share > 0 else "only its loss rose"


def _arms(arms: Sequence[Arm]) -> report.Table:
    rows = tuple(
        (
            arm.name,
            arm.evaluations[-1].step if arm.evaluations else None,
            arm.learned(of_text=False),
            arm.learned(of_text=True),
        )
        for arm in arms
    )
    return report.Table(
        title="What these runs had learned from",
        columns=("run", "last evaluation at step", "instruction tokens learned", "text tokens learned"),
        rows=rows,
        remark="Rises compare between runs that learned from equally many instruction tokens; rounds that have not "
        "ended are not counted.",
    )
