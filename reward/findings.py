"""All that was found out about a reward model on held-out pairs, as one record.

<run>/findings.json                   the Findings, of the chosen epoch
<run>/epochs/epoch-01/findings.json   those of every epoch, in the loss's units, without what takes further passes
<run>/mistakes.jsonl                  the PreferencePairs that the model is most sure of and wrong about
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from finlm import jsonl, runs
from finlm.records import PreferencePair
from reward.agreement import Agreement, agreement
from reward.baselines import Baseline, verdict
from reward.consistency import Consistency, Swapping
from reward.judged import Judged, decided
from reward.measures import MATCHED, Measures, measure

FINDINGS = "findings.json"
MISTAKES = "mistakes.jsonl"
EPOCHS = "epochs"
"""Folder of a run's epochs."""
SHOWN_MISTAKES = 20
"""Pairs whose texts are kept to be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """The whole of `findings.json`.

    Example:
        Findings(measures=Measures(…), agreement=None, baselines=(Baseline(…), Baseline(…)), verdict="The reward …",
                 swapping=Swapping(…), consistency=(Consistency(…),))
    """

    measures: Measures
    agreement: Agreement | None
    """None where no pair has two decided votes."""
    baselines: tuple[Baseline, ...]
    verdict: str
    """Which baselines the model beats, in words; empty without baselines."""
    swapping: Swapping | None
    """None where it was not measured."""
    consistency: tuple[Consistency, ...]
    """By change of formatting; changes that fit no pair are not in it."""


def findings(
    records: Sequence[Judged],
    *,
    seed: int,
    scale: float = 1.0,
    matched_share: float = MATCHED,
    baselines: Sequence[Baseline] = (),
    swapping: Swapping | None = None,
    consistency: Sequence[Consistency] = (),
) -> Findings:
    """Gather what the judged pairs say with what else was measured.

    Args:
        records: Judged pairs.
        seed: Of the intervals.
        scale: See `calibration.calibration`.
        matched_share: See `measures.is_matched`.
        baselines: See `baselines.baseline`.
        swapping: See `consistency.swapping`.
        consistency: See `consistency.consistency`.

    Raises:
        ValueError: No pair is decided.
    """
    return Findings(
        measures=measure(records, seed=seed, matched_share=matched_share, scale=scale),
        agreement=agreement(records, seed=seed),
        baselines=tuple(baselines),
        verdict=verdict(baselines) if baselines else "",
        swapping=swapping,
        consistency=tuple(consistency),
    )


def worst(records: Iterable[Judged], count: int = SHOWN_MISTAKES) -> list[Judged]:
    """Return the decided pairs in which the model prefers the worse answer by most, the largest mistake first.

    Of the pairs that one worse answer is in, only the largest mistake: else one bad answer could fill the list.
    """
    wrong = [record for record in decided(list(records)) if record.lead < 0]
    by_answer: dict[tuple[str, float], Judged] = {}
    for record in sorted(wrong, key=lambda record: (record.lead, record.pair_id)):
        by_answer.setdefault((record.prompt_id, record.worse), record)
    return list(by_answer.values())[:count]


def write_findings(folder: Path, found: Findings) -> None:
    """Write `findings.json`, whole or not at all."""
    runs.write_json(folder / FINDINGS, asdict(found))


def read_findings(folder: Path) -> Findings | None:
    """Return what was found out about a run's model; None where nothing was.

    Raises:
        UserError: The file is damaged.
    """
    return jsonl.read_whole(folder / FINDINGS, Findings)


def read_epoch_findings(run: Path) -> dict[int, Findings]:
    """Return what was found out about each epoch of a run, the first epoch first.

    Raises:
        UserError: A file is damaged.
    """
    read = {epoch: read_findings(folder) for epoch, folder in runs.numbered(run / EPOCHS, "epoch-*").items()}
    return {epoch: found for epoch, found in read.items() if found is not None}


def write_mistakes(folder: Path, records: Iterable[Judged], pairs: Iterable[PreferencePair]) -> None:
    """Write the texts of the worst mistakes, whole or not at all.

    Args:
        folder: The run's folder.
        records: Judged pairs.
        pairs: Their texts, among others.
    """
    wanted = [record.pair_id for record in worst(records)]
    found = {pair.id: pair for pair in pairs if pair.id in set(wanted)}
    jsonl.write(folder / MISTAKES, [found[name] for name in wanted if name in found])


def read_mistakes(folder: Path) -> list[PreferencePair]:
    """Return the texts of the worst mistakes; none where none were kept.

    Raises:
        UserError: The file is damaged.
    """
    path = folder / MISTAKES
    return list(jsonl.read(path, PreferencePair)) if path.is_file() else []
