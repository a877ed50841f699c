"""One pull: what changed on the server into the local log, and the preferences that the log then comes to.

`finlm annotate pull` does it once, `finlm annotate listen` whenever there is something to fetch.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from annotation.api import LabelStudio, Project
from annotation.connection import connect, labelling_link, require_project, verdicts_title
from annotation.eventlog import EventLog
from annotation.export import SOURCE
from annotation.export_ranks import RankExport, export_ranks
from annotation.logged import Absorbed
from annotation.outcomes import Lines, export_changed
from annotation.vocabulary import kind_of
from finlm import jsonl
from finlm.config import default_runs
from finlm.errors import UserError
from finlm.records import PreferencePair
from finlm.runs import write_json


@dataclass(frozen=True, kw_only=True)
class PullSettings:
    """Settings of `finlm annotate pull`."""

    runs: str = field(default_factory=default_runs)
    """The run root."""
    server: str = "{runs}/annotation/server"
    """Folder of the server that `finlm annotate serve` started."""
    url: str = ""
    """A Label Studio elsewhere; its token is read from LABEL_STUDIO_API_KEY."""
    project: str = "Preferences"
    """Title of the project."""
    log: str = "{runs}/annotation/log.sqlite"
    """The local log."""
    output: str = "{runs}/preferences.jsonl"
    """Where the preferences go; what did not become one goes to rejected.jsonl beside it."""
    rankings: str = "{runs}/rankings.jsonl"
    """Where rankings go, if the project asks for ranks; what became none goes to rankings.rejected.jsonl beside it."""
    summary: str = "{runs}/annotation/summary.json"
    """Where the counts go, and the link to what waits for people."""
    overwrite: bool = False
    """Replace an output whose preferences come from somewhere else."""


def pull_and_export(settings: PullSettings, console: Console) -> None:
    """Fetch, log, export, report."""
    refuse_foreign(settings)
    with connect(settings.url, settings.server) as client, EventLog(settings.log) as log, log.only_one():
        project = require_project(client, settings.project)
        with console.status(f"Pulling from {client.url}"):
            absorbed = pull(client, project, log)
            absorbed += pull_verdicts(client, project, log)
        link = labelling_link(client, project)
        exported = export_project(log, project)
    if isinstance(exported, RankExport):
        output = Path(settings.rankings)
        jsonl.write(output, exported.rankings)
        jsonl.write(output.with_name(f"{output.stem}.rejected.jsonl"), exported.removals)
    else:
        output = Path(settings.output)
        jsonl.write(output, exported.preferences)
        jsonl.write(output.with_name("rejected.jsonl"), exported.removals)
    report(absorbed, exported, output, console)
    write_json(settings.summary, summary_of(exported, link))


def refuse_foreign(settings: PullSettings) -> None:
    """Stop before preferences from another source would be replaced.

    Raises:
        UserError: The output holds such preferences.
    """
    if settings.overwrite or not Path(settings.output).is_file():
        return
    first = next(iter(jsonl.read(settings.output, PreferencePair)), None)
    if first is not None and first.source != SOURCE:
        raise UserError(
            f"{settings.output} holds preferences from {first.source!r}; choose another --output, "
            "or replace them with --overwrite true."
        )


def pull(client: LabelStudio, project: Project, log: EventLog) -> Absorbed:
    """Bring the log up to date.

    The server is asked for the times of all tasks changed since the last pull and in the overlap before it, and for
    those alone that the log does not have at that very time: Label Studio writes an annotation first, the time of its
    task after it, so a task that was read at a time has all that came before. Deleted tasks leave no trace among the
    changed ones. They are looked for by a walk over all ids, and only when the server has another number of tasks than
    the log.
    """
    since, known = log.updated_after(project.key), log.known_tasks(project.key)
    changed = [one for one, at in client.changes(project.id, since).items() if known.get(one) != at] if since else None
    tasks = list(client.tasks(project.id, changed))
    expected = known.keys() | {task.id for task in tasks}
    vanished: set[int] = set()
    now = client.project(project.id)
    if now.tasks != len(expected):
        vanished = known.keys() - client.task_ids(project.id)
    seen = [task for task in tasks if task.id not in vanished]
    return log.absorb(project.key, now.label_config, seen, vanished)


def pull_verdicts(client: LabelStudio, project: Project, log: EventLog) -> Absorbed:
    """Bring the verdicts on a project's pairs up to date, if any were asked for (`finlm annotate adjudicate`)."""
    known = log.verdict_projects(project.key)
    verdicts = client.find_project(verdicts_title(project.title)) if known else None
    return pull(client, verdicts, log) if verdicts is not None and verdicts.key in known else Absorbed()


def export_project(log: EventLog, project: Project) -> Lines | RankExport:
    """Return what the log comes to, by what the project's page asks."""
    if kind_of(project.label_config) == "ranks":
        annotations, verdicts = log.annotations(project.key), log.verdicts(project.key)
        return export_ranks(log.sets(), list(log.deliveries(project.key)), annotations, verdicts)
    return export_changed(log, project.key)


def report(absorbed: Absorbed, exported: Lines | RankExport, output: Path, console: Console) -> None:
    """Print the counts."""
    table = Table(title="Pulled", title_justify="left", show_header=False, box=None, padding=(0, 2))
    rows = {
        "new annotations": absorbed.new,
        "edited": absorbed.edited,
        "skipped": absorbed.skipped,
        "deleted": absorbed.deleted,
        "annotations so far": exported.annotations,
        **{name.replace("_", " "): count for name, count in counts(exported).items()},
        **{f"left out: {rule}": count for rule, count in exported.removed.items()},
    }
    for name, count in rows.items():
        table.add_row(name, str(count))
    console.print(table)
    if absorbed.vanished_tasks:
        console.print(f"Warning: {absorbed.vanished_tasks} tasks were deleted on the server; their history is kept.")
    console.print(f"{output}", soft_wrap=True, highlight=False)


def summary_of(exported: Lines | RankExport, link: str) -> dict[str, Any]:
    """Return the counts as they stand in `summary.json`, with the labelling link."""
    told = {"annotations": exported.annotations, **counts(exported), "removed": exported.removed, "link": link}
    if isinstance(exported, Lines):
        told["strengths"] = {str(level): exported.strengths.get(level, 0) for level in range(4)}
    return told


def counts(exported: Lines | RankExport) -> dict[str, int]:
    """Return what came of the annotations."""
    if isinstance(exported, RankExport):
        return {"rankings": len(exported.rankings), "waiting_sets": exported.waiting_sets}
    return {
        "votes": exported.votes,
        "judged_pairs": exported.judged_pairs,
        "waiting_pairs": exported.waiting_pairs,
        "preferences": len(exported.preferences),
    }
