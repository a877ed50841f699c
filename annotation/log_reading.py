"""What a project's log or a file of preferences says of people's work, for the page and the check of it."""

from pathlib import Path

from annotation.eventlog import EventLog
from annotation.judged import Work, from_log, from_preferences
from annotation.logged import Pair
from annotation.ranked import RankWork, rankings_from_log
from finlm import jsonl
from finlm.errors import MissingInput, UserError
from finlm.records import PreferencePair


def read(log: str, project: str, preferences: str) -> tuple[str, Work | RankWork]:
    """Return what the work is called and the work: of a file of preferences, or of a project of a log without one.

    Raises:
        MissingInput: There is no log or no such file.
        UserError: The log holds no such project, or several and none was named; or nobody has judged anything.
    """
    title, work = (
        (preferences, from_preferences(jsonl.read(preferences, PreferencePair)))
        if preferences
        else _read_project(log, project)
    )
    if not work.count:
        raise UserError(f"{title} has no rating yet; pull first: finlm annotate pull.")
    return title, work


def _read_project(path: str, project: str) -> tuple[str, Work | RankWork]:
    with _open(path) as log:
        key = _chosen(log, path, project)
        pushed, annotations, sets = list(log.deliveries(key)), log.annotations(key), log.sets()
        if any(name in sets for name in (*pushed, *(one.pair_id for one in annotations))):
            return f"project {key}", rankings_from_log(sets, pushed, annotations)
        return f"project {key}", from_log(log.pairs(), pushed, annotations, log.gold())


def read_log(path: str, project: str) -> tuple[str, Work, dict[str, Pair]]:
    """Return what a project of pairs is called, its ratings, and the log's pairs with who wrote their answers.

    Args:
        path: The log.
        project: The project's key; empty where the log has one.

    Raises:
        MissingInput: There is no log.
        UserError: The log holds no such project, or several and none was named.
    """
    with _open(path) as log:
        key = _chosen(log, path, project)
        pairs = dict(log.pairs())
        work = from_log(pairs, list(log.deliveries(key)), log.annotations(key), log.gold())
    return f"project {key}", work, pairs


def _open(path: str) -> EventLog:
    if not Path(path).is_file():
        raise MissingInput(f"No annotation log at {path}; make it with: finlm annotate pull")
    return EventLog(path)


def _chosen(log: EventLog, path: str, project: str) -> str:
    known = log.projects()
    chosen = [key for key in known if key == project or not project]
    if len(chosen) != 1:
        raise UserError(f"--project {project!r}: {path} holds {', '.join(known) or 'none'}; name one of them.")
    return chosen[0]
