"""The page of a PPO run's rollouts: its curves, prompts that came back, and the answers of chosen updates to browse.

The page depends on the run's records and metrics.jsonl alone, timings left out: the same run gives the same bytes.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median

from finlm import held_out_page, jsonl, report
from finlm.errors import MissingInput
from finlm.metrics import read_metrics
from finlm.records import RolloutRecord
from finlm.rollout_files import MADE_BY, parts, update_files, visible

PAGE = "rollouts.html"
SHOWN_UPDATES = 16
"""Updates whose answers are on the page at most, the first and the newest among them."""
SHOWN_ANSWERS = 24
"""Answers of an update on the page at most, half of them with the highest and half with the lowest scores."""
NEWEST_ANSWERS = 128
"""The same for the newest update."""
SHOWN_RETURNS = 3
"""Prompts that came back: so many whose score rose most, and as many whose score fell most."""

CURVES: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...] = (
    ("Reward", "score", (("objective/scores", "score"), ("objective/rlhf_reward", "score minus KL price"))),
    ("KL to the reference", "nats per answer", (("objective/kl", "KL"),)),
    ("Answer length", "tokens", (("rollout/answer_tokens", "mean"),)),
    ("Answers that end", "share", (("rollout/ended_share", "ended"),)),
    ("Entropy", "nats per answer", (("objective/entropy", "entropy"),)),
    ("Policy loss", "per answer token", (("loss/policy_avg", "policy"),)),
    ("Value loss", "squared error", (("loss/value_avg", "critic"),)),
    ("Clipped tokens", "share", (("policy/clipfrac_avg", "policy"), ("val/clipfrac_avg", "value"))),
    ("Distance to the sampling policy", "nats per token", (("policy/approxkl_avg", "approximate KL"),)),
    ("Gradient norm before clipping", "norm", (("policy/grad_norm", "policy"), ("val/grad_norm", "critic"))),
)
"""Title, unit, and the names in metrics.jsonl with their labels; a curve without numbers is left out."""
ORDERS = (
    report.Order("highest score", 0),
    report.Order("lowest score", 0, descending=False),
    report.Order("highest KL", 1),
    report.Order("longest", 2),
)


def write_rollout_page(run_folder: Path, file: Path | None = None) -> Path:
    """Write the page of a PPO run and return where it lies.

    Args:
        run_folder: The run, with rollouts/ and metrics.jsonl.
        file: The page; without it, rollouts.html in the run's folder.

    Raises:
        MissingInput: There is no such run, or it has kept no rollouts.
        UserError: A file of rollouts is damaged.
    """
    target = file or run_folder / PAGE
    report.write(page_of(run_folder), target)
    return target


def page_of(run_folder: Path) -> report.Page:
    """Return the page of a PPO run."""
    rollouts = {update: list(jsonl.read(path, RolloutRecord)) for update, path in update_files(run_folder).items()}
    rollouts = {update: records for update, records in rollouts.items() if records}
    if not rollouts:
        raise MissingInput(f"{run_folder / 'rollouts'} holds no answer; make some with: {MADE_BY}")
    metrics = read_metrics(run_folder / "metrics.jsonl")
    first, newest = min(rollouts), max(rollouts)
    sections: list[report.Section] = [_headline(rollouts[first], rollouts[newest], rollouts)]
    sections += held_out_page.sections(run_folder)
    sections += [*_curves(metrics), _spread(rollouts)]
    if returns := _returns(rollouts):
        sections.append(returns)
    sections.append(_browser(rollouts))
    return report.Page(
        title="Rollouts of a PPO run",
        subtitle=f"{run_folder}, updates {first} to {newest}",
        sections=tuple(sections),
    )


def _headline(
    first: Sequence[RolloutRecord], newest: Sequence[RolloutRecord], rollouts: Mapping[int, Sequence[RolloutRecord]]
) -> report.Figures:
    def compared(label: str, of: str, form: str, unit: str = "") -> report.Figure:
        then, now = (fmean(float(getattr(one, of)) for one in records) for records in (first, newest))
        return report.Figure(label, format(now, form), unit, remark=f"first update {then:{form}}")

    return report.Figures(
        title="The newest update beside the first",
        figures=(
            report.Figure("Updates", len(rollouts), remark=f"{sum(map(len, rollouts.values())):,} answers kept"),
            compared("Score", "score", "+.2f"),
            compared("KL to the reference", "kl_nats", ".2f", "nats per answer"),
            compared("Answer length", "tokens", ".1f", "tokens"),
            compared("Answers that end", "ended", ".0%"),
        ),
    )


def _spread(rollouts: Mapping[int, Sequence[RolloutRecord]]) -> report.Curve:
    scores = {update: [one.score for one in records] for update, records in rollouts.items()}
    x = tuple(float(update) for update in scores)
    return report.Curve(
        "Scores within an update",
        "update",
        "score",
        (
            report.Series("highest", x, tuple(max(own) for own in scores.values())),
            report.Series("median", x, tuple(median(own) for own in scores.values())),
            report.Series("lowest", x, tuple(min(own) for own in scores.values())),
        ),
    )


def _curves(metrics: Sequence[Mapping[str, float]]) -> list[report.Curve]:
    curves = []
    for title, unit, names in CURVES:
        series = tuple(_series(metrics, key, label) for key, label in names)
        if any(one.x for one in series):
            curves.append(report.Curve(title, "update", unit, series))
    return curves


def _series(metrics: Sequence[Mapping[str, float]], key: str, label: str) -> report.Series:
    points = [(float(line["step"]), float(line[key])) for line in metrics if key in line]
    return report.Series(label, tuple(x for x, _ in points), tuple(y for _, y in points))


def _returns(rollouts: Mapping[int, Sequence[RolloutRecord]]) -> report.Samples | None:
    """The prompts that came back whose scores rose or fell most between their first and last answer."""
    seen: dict[str, list[RolloutRecord]] = {}
    for records in rollouts.values():
        for one in records:
            seen.setdefault(one.prompt_id, []).append(one)
    pairs = [(own[0], own[-1]) for own in seen.values() if own[0].update < own[-1].update]
    pairs.sort(key=lambda pair: (pair[0].score - pair[1].score, pair[0].prompt_id))
    chosen = pairs if len(pairs) <= 2 * SHOWN_RETURNS else pairs[:SHOWN_RETURNS] + pairs[-SHOWN_RETURNS:]
    if not chosen:
        return None
    samples = tuple(
        report.Sample(_whole(pair[0]), tuple(_answer(one) for one in pair), label=f"score {_change(*pair):+.2f}")
        for pair in chosen
    )
    return report.Samples(
        title="The same prompt, first and last time",
        models=("first time", "last time"),
        samples=samples,
        remark=f"{len(pairs):,} prompts came back; shown are those whose scores rose most, then those that fell most.",
    )


def _change(first: RolloutRecord, last: RolloutRecord) -> float:
    return last.score - first.score


def _answer(one: RolloutRecord) -> report.Answer:
    return report.Answer(visible(one.response), one.score, None, one.ended, remark=f"update {one.update}")


def _whole(one: RolloutRecord) -> str:
    before, question = parts(one.prompt)
    return visible(f"{before}\n\n{question}" if before else question)


def _browser(rollouts: Mapping[int, Sequence[RolloutRecord]]) -> report.Browser:
    updates = _chosen(list(rollouts))
    groups = []
    for update in reversed(updates):
        records = rollouts[update]
        limit = NEWEST_ANSWERS if update == updates[-1] else SHOWN_ANSWERS
        shown = _extremes(records, limit)
        mean = fmean(one.score for one in records)
        told = f"{len(records):,} answers, mean score {mean:+.2f}"
        if len(shown) < len(records):
            told += f"; the {len(shown) // 2} highest and {len(shown) - len(shown) // 2} lowest are shown"
        entries = tuple(
            report.Entry(
                _whole(one), visible(one.response), (float(one.score), float(one.kl_nats), one.tokens), one.ended
            )
            for one in shown
        )
        groups.append(report.EntryGroup(f"Update {update}", entries, told))
    left_out = len(rollouts) - len(updates)
    remark = (
        f"{left_out} of {len(rollouts)} updates are left out; finlm rollouts --update N shows any." if left_out else ""
    )
    return report.Browser(
        title="Answers, update by update",
        measures=("score", "KL", "tokens"),
        orders=ORDERS,
        groups=tuple(groups),
        remark=remark,
    )


def _chosen(updates: Sequence[int]) -> list[int]:
    """The first, the newest, and others evenly between them."""
    if len(updates) <= SHOWN_UPDATES:
        return list(updates)
    places = {round(index * (len(updates) - 1) / (SHOWN_UPDATES - 1)) for index in range(SHOWN_UPDATES)}
    return [updates[place] for place in sorted(places)]


def _extremes(records: Sequence[RolloutRecord], limit: int) -> list[RolloutRecord]:
    ranked = sorted(records, key=lambda one: -one.score)
    return ranked if len(ranked) <= limit else ranked[: limit // 2] + ranked[len(ranked) - (limit - limit // 2) :]
