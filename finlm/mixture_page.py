"""Parts of a page that show a mixture: shares round by round, why they moved, and what was drawn and packed."""

from collections.abc import Sequence

from finlm import report
from finlm.rollout_files import visible
from finlm.sft_records import Mixed, MixtureRound


def mixture_sections(mixed: Mixed, streams: Sequence[str], last_step: int) -> list[report.Section]:
    """Return the shares as areas, the moves with their reasons, what was drawn, and how full the rows are.

    Args:
        mixed: The mixture.
        streams: The streams to show, in the order of their colours.
        last_step: Steps taken so far: where the drawing ends.
    """
    curves = [one for one in (shares(mixed, streams, last_step), passes(mixed, streams, last_step)) if one is not None]
    return [*curves, moves(mixed, streams), drawn(mixed, streams), packing(mixed)]


def shares(mixed: Mixed, streams: Sequence[str], last_step: int) -> report.Curve | None:
    """Return the target shares over the run; None before the first step."""
    first = [one.first_step for one in mixed.rounds]
    if not first or last_step <= first[0]:
        return None
    reached = [one for one in mixed.rounds if one.first_step < last_step]
    x = (*(float(one.first_step) for one in reached), float(last_step))
    series = tuple(
        report.Series(stream, x, tuple(one.shares.get(stream, 0.0) for one in (*reached, reached[-1])))
        for stream in streams
    )
    return report.Curve("Shares of the mixture", "step", "share of all tokens", series, is_stacked=True)


def passes(mixed: Mixed, streams: Sequence[str], last_step: int) -> report.Curve | None:
    """Return how often each stream had been gone through at the end of each round; None before the first ended."""
    ends = [one.first_step for one in mixed.rounds[1:]] + [last_step]
    ended = [(float(end), one.drawn) for one, end in zip(mixed.rounds, ends, strict=True) if one.drawn]
    if not ended:
        return None
    series = []
    for stream in streams:
        points = [(0.0, 0.0), *((end, part[stream].passes) for end, part in ended if stream in part)]
        series.append(report.Series(stream, tuple(x for x, _ in points), tuple(y for _, y in points)))
    return report.Curve("Passes through each stream", "step", "times gone through", tuple(series))


def moves(mixed: Mixed, streams: Sequence[str]) -> report.Table:
    """Return each round's shares, how far they moved, and why."""
    rows = []
    before: MixtureRound | None = None
    for one in mixed.rounds:
        for stream in [name for name in streams if name in one.shares]:
            share = one.shares[stream]
            was = before.shares.get(stream) if before is not None else None
            moved = None if was is None else f"{100 * (share - was):+.1f}"
            reason = visible(one.reasons.get(stream, ""))
            rows.append((one.number, one.first_step, stream, f"{share:.1%}", moved, reason))
        before = one
    return report.Table(
        title="How the shares moved",
        columns=("round", "from step", "stream", "share", "moved", "why"),
        rows=tuple(rows),
        remark="Shares of all tokens, prompts included; moved by percentage points. What is kept moves all the same "
        "where others do: together they are 1.",
    )


def _times(passes: float) -> str:
    """A large stream's few samples are no 0.00."""
    return f"{passes:.2f}" if passes >= 0.1 else f"{passes:.2g}"


def drawn(mixed: Mixed, streams: Sequence[str]) -> report.Table:
    """Return what each round drew of each stream beside what it should have, all rounds together first."""
    ended = [one for one in mixed.rounds if one.drawn]
    rows: list[tuple[report.Cell, ...]] = []
    if len(ended) > 1:
        rows += _drawn("all", ended, streams)
    for one in ended:
        rows += _drawn(str(one.number), [one], streams)
    remark = "Passes: how often the stream had been gone through by then, over the whole run."
    if open_rounds := [one.number for one in mixed.rounds if not one.drawn]:
        remark += f" Round {open_rounds[-1]} has not ended: nothing of it is counted here."
    return report.Table(
        title="What was drawn",
        columns=("round", "stream", "target", "drawn", "samples", "tokens", "learned", "passes"),
        rows=tuple(rows),
        remark=remark,
    )


def _drawn(name: str, rounds: Sequence[MixtureRound], streams: Sequence[str]) -> list[tuple[report.Cell, ...]]:
    sizes = [sum(one.tokens for one in part.drawn.values()) for part in rounds]
    whole = sum(sizes)
    rows: list[tuple[report.Cell, ...]] = []
    for stream in streams:
        own = [part.drawn[stream] for part in rounds if stream in part.drawn]
        # the target of several rounds: each round's share, weighed by how much the round drew
        target = sum(part.shares.get(stream, 0.0) * size for part, size in zip(rounds, sizes, strict=True))
        if not own and not target:
            continue
        tokens = sum(one.tokens for one in own)
        rows.append(
            (
                name,
                stream,
                f"{target / whole:.1%}" if whole else None,
                f"{tokens / whole:.1%}" if whole else None,
                sum(one.samples for one in own),
                tokens,
                sum(one.learned for one in own),
                _times(own[-1].passes) if own else None,
            )
        )
    return rows


def packing(mixed: Mixed) -> report.Figures:
    """Return how many rows there are and how full."""
    room = mixed.rows * mixed.row_tokens
    filled = round(room * mixed.filled)
    return report.Figures(
        "Packing",
        (
            report.Figure("Rows", mixed.rows, remark=f"room for {mixed.row_tokens:,} tokens each"),
            report.Figure("Filled", f"{mixed.filled:.2%}", "of the room"),
            report.Figure("Tokens", filled, remark="in rows, prompts included"),
            report.Figure("Left empty", room - filled, "tokens"),
        ),
    )
