"""Which tasks of a file are pushed: as many as wanted, by the quotas of the recipe, and gold pairs among them."""

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from annotation.answer_sets import AnswerSet
from annotation.pairing import Comparison
from finlm.prompt_mixture import Mixture, quotas
from finlm.records import Removal

Asked = Comparison | AnswerSet


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Tasks in the order that people see them in, and what was left out.

    Example:
        Selection(tasks=(Comparison(…),), removals=(), short={"finance/markets": 3})
    """

    tasks: tuple[Asked, ...]
    removals: tuple[Removal, ...]
    short: dict[str, int]
    """Cells of the mixture whose quota could not be met, and by how much; no other cell fills it."""


def select(tasks: Sequence[Asked], limit: int, mixture: Mixture, worth: Mapping[str, float]) -> Selection:
    """Take the tasks that are worth most, of each cell of the mixture as many as its quota says.

    Args:
        tasks: In the order of the file, which decides between equals.
        limit: How many are wanted, 0 for all.
        mixture: Shares by category; empty for none.
        worth: By the task's id; empty where all are worth the same.
    """
    order = sorted(tasks, key=lambda task: -worth.get(task.id, 0.0))
    if not mixture.shares:
        taken = order[: limit or len(order)]
        removals = [_left_out(task, "over-limit", f"--limit is {limit}") for task in order[len(taken) :]]
        return Selection(tasks=tuple(taken), removals=tuple(removals), short={})
    wanted = quotas(limit, mixture.shares)
    open_places = dict(wanted)
    taken, removals = [], []
    for task in order:
        cell = mixture.cell_of(task.prompt)
        if cell is None:
            removals.append(_left_out(task, "no-share", f"the mixture has no share for {task.prompt.category}"))
        elif not open_places[cell]:
            removals.append(_left_out(task, "over-quota", f"{wanted[cell]} of {cell} are wanted"))
        else:
            open_places[cell] -= 1
            taken.append(task)
    short = {str(cell): count for cell, count in open_places.items() if count}
    return Selection(tasks=tuple(taken), removals=tuple(removals), short=short)


def with_gold(tasks: Sequence[Asked], gold: Sequence[Comparison], share: float, seed: int) -> tuple[list[Asked], int]:
    """Mix gold pairs in at places that nothing tells, and return all tasks with the number of gold ones.

    More tasks of the same seed get the same gold pairs and further ones, so pushing again repeats none.

    Args:
        tasks: What is to be judged.
        gold: Pairs of known answer.
        share: Gold pairs of all that is pushed, from 0 up to 1.
        seed: Draws the gold pairs and their places.
    """
    here = {task.id for task in tasks}
    wanted = round(len(tasks) * share / (1 - share))
    drawn = sorted(gold, key=lambda one: hashlib.sha256(f"gold:{seed}:{one.id}".encode()).digest())
    added = [one for one in drawn if one.id not in here][:wanted]
    places = random.Random(f"places:{seed}")
    mixed: list[Asked] = list(tasks)
    for one in added:
        mixed.insert(places.randint(0, len(mixed)), one)
    return mixed, len(added)


def _left_out(task: Asked, rule: str, reason: str) -> Removal:
    return Removal(record_id=task.parents[0] if task.parents else task.id, rule=rule, reason=reason)
