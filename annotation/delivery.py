"""Sends pairs (or sets of four answers) to a project so that each arrives once, whatever is cut off.

A batch is marked `sending` in the log before the request and `sent` after the answer. What is found as `sending` later
may or may not have arrived: the server's own list of pair ids decides.
"""

import itertools
import time
from collections.abc import Sequence

from rich.console import Console
from rich.progress import Progress

from annotation.api import CutOff, LabelStudio, Project
from annotation.eventlog import EventLog
from annotation.logged import Pair, ShownSet
from annotation.page import task_data

BATCH = 100
"""Pairs a request: small enough to be read within a second, large enough for thousands."""
SETTLE_SECONDS = 1.0
"""A server may still be at work on a request that was cut off: its list is read until it stays the same this long."""


def deliver(
    client: LabelStudio, project: Project, log: EventLog, pair_ids: Sequence[str], console: Console
) -> tuple[int, int]:
    """Send what is not on the server yet and return how many pairs were sent and how many were there.

    Raises:
        CutOff: The connection broke and did not come back; calling again goes on.
    """
    settle(client, project, log)
    done = log.deliveries(project.key)
    waiting = [pair_id for pair_id in pair_ids if pair_id not in done]
    known: dict[str, Pair | ShownSet] = {**log.pairs(), **log.sets()}
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task("Pushing pairs", total=len(waiting))
        for batch in _batches(waiting):
            data = [task_data(pair_id, known[pair_id].prompt, known[pair_id].placed) for pair_id in batch]
            log.mark(project.key, batch, "sending")
            try:
                client.import_tasks(project.id, data)
            except CutOff:
                # one more try within this call: what did not arrive is sent again, what did is not
                missing = set(settle(client, project, log))
                again = [task for task in data if task["pair_id"] in missing]
                if again:
                    log.mark(project.key, [task["pair_id"] for task in again], "sending")
                    client.import_tasks(project.id, again)
            log.mark(project.key, batch, "sent")
            progress.advance(bar, len(batch))
    return len(waiting), len(pair_ids) - len(waiting)


def settle(client: LabelStudio, project: Project, log: EventLog) -> list[str]:
    """Find out what became of pairs in the state `sending`; return those that did not arrive, as if never sent."""
    open_ids = [pair_id for pair_id, state in log.deliveries(project.key).items() if state == "sending"]
    if not open_ids:
        return []
    there = set(client.pair_ids(project.id))
    while True:
        time.sleep(SETTLE_SECONDS)
        now = set(client.pair_ids(project.id))
        if now == there:
            break
        there = now
    log.mark(project.key, [pair_id for pair_id in open_ids if pair_id in there], "sent")
    missing = [pair_id for pair_id in open_ids if pair_id not in there]
    log.unmark(project.key, missing)
    return missing


def _batches(pair_ids: Sequence[str]) -> list[tuple[str, ...]]:
    return [tuple(itertools.islice(pair_ids, start, start + BATCH)) for start in range(0, len(pair_ids), BATCH)]
