"""What became of each pair, kept beside the log: a pull works out anew only the pairs that changed.

What is kept of a pair counts as long as all that it was made of is the same: the newest state of its annotations and of
the verdicts on it, how it was shown, whether it is gold, and the code. The file may be deleted at any time; without it,
or where it is damaged, every pair is worked out anew, to the same bytes.
"""

import hashlib
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from annotation import eventlog, export, logged, pairing, vocabulary
from annotation.eventlog import EventLog
from finlm import jsonl, records

DECIDES = tuple(one.__file__ for one in (eventlog, export, jsonl, logged, pairing, records, vocabulary))
"""The code that an outcome is made by; another version of it makes all of them anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What became of one pair, as lines of the output's files.

    Example:
        Kept(made_of="9f…", preference=b'{"prompt":…}', strength=2, removals=(), rules=(), annotations=2, votes=2,
             is_judged=True)
    """

    made_of: str
    """Hash of what it was made of."""
    preference: bytes
    """Empty where the pair gave none."""
    strength: int
    """The preference's; 0 where there is none."""
    removals: tuple[bytes, ...]
    rules: tuple[str, ...]
    """Of the removals."""
    annotations: int
    votes: int
    is_judged: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """An `Export` as lines to be written, with the same counts.

    Example:
        Lines(preferences=(Raw(b'{"prompt":…}'),), strengths={2: 1}, removals=(), removed={}, annotations=2, …)
    """

    preferences: tuple[msgspec.Raw, ...]
    strengths: Mapping[int, int]
    """How many preferences have each strength."""
    removals: tuple[msgspec.Raw, ...]
    removed: Mapping[str, int]
    """Removals by rule."""
    annotations: int
    votes: int
    judged_pairs: int
    waiting_pairs: int


class _File(msgspec.Struct, frozen=True):
    code: str
    project: str
    pairs: dict[str, Kept]


def export_changed(log: EventLog, project: str) -> Lines:
    """Return what `export` makes of a project, with what is kept from the last time, and keep it for the next.

    Args:
        log: The log, which nobody else writes to meanwhile.
        project: The project's key.
    """
    path = file_of(log.path, project)
    known, made_of = read(path, project), ingredients(log, project)
    changed = {pair_id for pair_id, its in made_of.items() if pair_id not in known or known[pair_id].made_of != its}
    fresh = work_out(log, project, changed, made_of) if changed else {}
    outcomes = {pair_id: fresh.get(pair_id) or known[pair_id] for pair_id in sorted(made_of)}
    if outcomes != known:
        write(path, project, outcomes)
    return lines_of(outcomes, log.deliveries(project))


def ingredients(log: EventLog, project: str) -> dict[str, str]:
    """Return a hash of all that each pair's outcome is made of, by the pair's id."""
    votes, rulings = defaultdict(list), defaultdict(list)
    for pair_id, state in log.states(project):
        votes[pair_id].append(state)
    for key in log.verdict_projects(project):
        for pair_id, state in log.states(key):
            rulings[pair_id].append((key, state))
    shown, gold = log.shown(), log.gold()
    found = {}
    for pair_id in votes.keys() | rulings.keys():
        its = (shown.get(pair_id), pair_id in gold, votes.get(pair_id), rulings.get(pair_id))
        found[pair_id] = hashlib.sha256(msgspec.json.encode(its)).hexdigest()
    return found


def work_out(log: EventLog, project: str, pair_ids: Collection[str], made_of: Mapping[str, str]) -> dict[str, Kept]:
    """Return what became of some pairs."""
    pairs, gold = log.pairs(pair_ids), log.gold()
    votes = export.of_pairs(log.annotations(project, pair_ids))
    rulings = export.of_pairs(log.verdicts(project, pair_ids))
    found = {}
    for pair_id in pair_ids:
        outcome = export.outcome_of(
            pair_id, pairs, votes.get(pair_id, ()), rulings.get(pair_id, ()), is_gold=pair_id in gold
        )
        found[pair_id] = Kept(
            made_of=made_of[pair_id],
            preference=jsonl.encode(outcome.preference) if outcome.preference else b"",
            strength=outcome.preference.strength if outcome.preference else 0,
            removals=tuple(map(jsonl.encode, outcome.removals)),
            rules=tuple(one.rule for one in outcome.removals),
            annotations=outcome.annotations,
            votes=outcome.votes,
            is_judged=outcome.is_judged,
        )
    return found


def lines_of(outcomes: Mapping[str, Kept], pushed: Iterable[str]) -> Lines:
    """Put the outcomes of all pairs together, in order of the pairs' ids.

    Args:
        outcomes: Of every pair with an annotation, in that order.
        pushed: Ids of the pairs that went to the project.
    """
    kept = outcomes.values()
    judged = {pair_id for pair_id, one in outcomes.items() if one.is_judged}
    return Lines(
        preferences=tuple(msgspec.Raw(one.preference) for one in kept if one.preference),
        strengths=Counter(one.strength for one in kept if one.preference),
        removals=tuple(msgspec.Raw(line) for one in kept for line in one.removals),
        removed=dict(sorted(Counter(rule for one in kept for rule in one.rules).items())),
        annotations=sum(one.annotations for one in kept),
        votes=sum(one.votes for one in kept),
        judged_pairs=len(judged),
        waiting_pairs=len(set(pushed) - judged),
    )


# ---------------------------------------------------------------------------------------------- the file


def file_of(log: Path, project: str) -> Path:
    """Where the outcomes of a project are kept."""
    return log.with_name(f".{log.name}.{hashlib.sha256(project.encode()).hexdigest()[:8]}.outcomes")


def read(path: Path, project: str) -> dict[str, Kept]:
    """Return what is kept of a project, by pair; nothing where the file is damaged, or of other code."""
    if not path.is_file():
        return {}
    content = path.read_bytes()
    checksum, told = content[:32], content[32:]
    if hashlib.sha256(told).digest() != checksum:
        return {}
    try:
        kept = msgspec.msgpack.decode(told, type=_File)
    except msgspec.DecodeError:  # of another form: by another version of this file
        return {}
    return kept.pairs if (kept.code, kept.project) == (_code(), project) else {}


def write(path: Path, project: str, outcomes: dict[str, Kept]) -> None:
    """Keep outcomes for the next time."""
    told = msgspec.msgpack.encode(_File(code=_code(), project=project, pairs=outcomes))
    aside = path.with_name(f"{path.name}.tmp")  # one writer at a time: the log is locked
    try:
        aside.write_bytes(hashlib.sha256(told).digest() + told)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def _code() -> str:
    """Hash of the code that makes outcomes, and of what it is read and written by."""
    found = hashlib.sha256(f"{sys.version} {msgspec.__version__}".encode())
    for path in (*DECIDES, __file__, vocabulary.PAGES / "wording.yaml"):
        found.update(Path(path or "").read_bytes())
    return found.hexdigest()
