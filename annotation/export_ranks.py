"""From the log to rankings: a pure function of what was pushed and pulled.

Each annotator has one ranking of a set, their latest; ranks are those that they gave, ties included, brought back from
the places that the answers were shown in. Where a verdict was given on a set that people ranked differently, its
ranking stands first, marked, and theirs behind it. What does not become a ranking is listed with its rule:
`annotations` = rankings + removals.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from annotation.answer_sets import unshuffled
from annotation.export import latest, one_each, parts_of, removal
from annotation.logged import Annotation, ShownSet
from annotation.vocabulary import FAULT_KEYS, PLACES, RANKS, SET_FLAG_KEYS
from finlm.records import Provenance, Ranking, Removal


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What one annotation says of four answers, by their places on the page.

    Example:
        Order(ranks=(1, 3, 3, 2), faults=((), ("factual",), ("factual", "unsafe"), ()), flags=("bad_prompt",))
    """

    ranks: tuple[int, ...]
    faults: tuple[tuple[str, ...], ...]
    flags: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankExport:
    """Rankings, and what became none.

    Example:
        RankExport(rankings=(Ranking(…),), removals=(), annotations=1, waiting_sets=0)
    """

    rankings: tuple[Ranking, ...]
    removals: tuple[Removal, ...]
    annotations: int
    """Annotations ever seen, each counted once in its newest state."""
    waiting_sets: int
    """Sets of this project that nobody has put in order."""

    @property
    def removed(self) -> dict[str, int]:
        """Removals by rule."""
        return dict(sorted(Counter(one.rule for one in self.removals).items()))


def export_ranks(
    sets: Mapping[str, ShownSet],
    pushed: Sequence[str],
    annotations: Sequence[Annotation],
    verdicts: Sequence[Annotation] = (),
) -> RankExport:
    """Turn annotations into rankings.

    Args:
        sets: Every known set by id.
        pushed: Ids of the sets that went to this project.
        annotations: The newest state of each annotation of this project.
        verdicts: The same of the projects that adjudicate this one; a set's latest is its verdict.
    """
    removals: list[Removal] = []
    orders = one_each(annotations, read_order, sets, removals)
    rulings = latest(one_each(verdicts, read_order, sets, removals), removals)
    rankings: list[Ranking] = []
    ranked = orders.keys() | rulings.keys()
    for set_id in sorted(ranked):
        for outcome in _outcomes(sets[set_id], list(orders.get(set_id, {}).values()), rulings.get(set_id)):
            (rankings if isinstance(outcome, Ranking) else removals).append(outcome)  # type: ignore[arg-type]
    return RankExport(
        rankings=tuple(rankings),
        removals=tuple(removals),
        annotations=len(annotations) + len(verdicts),
        waiting_sets=len(set(pushed) - ranked),
    )


def read_order(result: Sequence[Any]) -> Order | str:
    """Read the regions of an annotation, or return what is wrong with them."""
    names = {f"{kind}_{place}" for kind in ("rank", "faults") for place in PLACES} | {"flags", "reason"}
    parts = parts_of(result, names)
    if isinstance(parts, str):
        return parts
    ranks = []
    for place in PLACES:
        given = parts[f"rank_{place}"]
        if len(given) != 1:
            return f"answer {place.upper()} has {len(given)} ranks, expected 1"
        if given[0] not in RANKS:
            return f"the rank of answer {place.upper()} is {given[0]!r}, none of {', '.join(RANKS)}"
        ranks.append(int(given[0]))
    known = {"flags": SET_FLAG_KEYS, **{f"faults_{place}": FAULT_KEYS[place] for place in PLACES}}
    for name, allowed in known.items():
        unknown = sorted(set(parts[name]) - set(allowed))
        if unknown:
            return f"its flag {unknown[0]!r} is not on the page"
    faults = tuple(tuple(dict.fromkeys(parts[f"faults_{place}"])) for place in PLACES)
    flags = tuple(dict.fromkeys(parts["flags"]))
    return Order(ranks=tuple(ranks), faults=faults, flags=flags, reason=" ".join(parts["reason"]))


Given = tuple[Annotation, Order]


def _outcomes(shown: ShownSet, orders: Sequence[Given], verdict: Given | None) -> list[Ranking | Removal]:
    """Decide on the orders of one set, one an annotator, the verdict first."""
    weighed = [verdict] if verdict else orders
    whose = "the verdict says" if verdict else "half of its annotators or more say"
    faulty = 2 * sum("bad_prompt" in order.flags for _, order in weighed) >= len(weighed)
    return [
        removal(annotation, "faulty-question", f"{whose} that the question is faulty")
        if faulty
        else _ranking(shown, annotation, order, is_verdict=verdict is not None and annotation is verdict[0])
        for annotation, order in [*([verdict] if verdict else []), *orders]
    ]


def _ranking(shown: ShownSet, annotation: Annotation, order: Order, *, is_verdict: bool) -> Ranking | Removal:
    unsafe = [rank for rank, faults in zip(order.ranks, order.faults, strict=True) if "unsafe" in faults]
    others = [rank for rank, faults in zip(order.ranks, order.faults, strict=True) if "unsafe" not in faults]
    if unsafe and others and min(unsafe) < max(others):
        reason = f"an answer marked as unsafe has rank {min(unsafe)}, one that is not has {max(others)}"
        return removal(annotation, "unsafe-above-safe", reason)
    flags = [
        f"{fault}_{answer + 1}"
        for answer, place in sorted((answer, place) for place, answer in enumerate(shown.order))
        for fault in order.faults[place]
    ]
    maker = f"person:{annotation.annotator}"
    return Ranking(
        prompt=shown.prompt,
        responses=tuple(answer.text for answer in shown.answers.answers),
        ranks=unshuffled(order.ranks, shown.order),
        annotator=maker,
        annotation_id=str(annotation.id),
        flags=(*flags, *order.flags),
        reason=order.reason,
        page=annotation.page,
        guidelines=annotation.guidelines,
        is_verdict=is_verdict,
        provenance=Provenance(maker=maker, parents=shown.answers.parents),
    )
