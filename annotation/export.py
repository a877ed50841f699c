"""From the log to preference pairs: a pure function of what was pushed and pulled.

Each annotator has one vote a pair. The side with more votes is chosen; the strength is the mean of the votes'
strengths, votes for the other side counting negative, rounded half up and never below 0. So A2 and A3 give 3, and A3,
A3, B3 give 1. Where a verdict was given on a pair that people disagreed on, side and strength are the verdict's, and
the votes stay beside it. What does not become a vote, and what votes do not become a pair, is listed with its rule.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from annotation.logged import Annotation, Pair
from annotation.vocabulary import FLAG_KEYS, LEVELS
from finlm.records import PreferencePair, Provenance, Removal, Vote

SOURCE = "label-studio"

J = TypeVar("J")


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What one annotation says, as shown on the page.

    Example:
        Judgement(level="A3", flags=("factual_b",), reason="B's figure is last year's")
    """

    level: str
    flags: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """Preferences, removals, and the arithmetic that binds them.

    Example:
        Export(preferences=(…), removals=(…), annotations=5, votes=4, judged_pairs=2, waiting_pairs=0)

    `annotations` = `votes` + removals of single annotations; `judged_pairs` = preferences + removals of pairs.
    """

    preferences: tuple[PreferencePair, ...]
    removals: tuple[Removal, ...]
    annotations: int
    """Annotations ever seen, each counted once in its newest state."""
    votes: int
    """Annotations that count as a vote."""
    judged_pairs: int
    """Pairs with a vote."""
    waiting_pairs: int
    """Pairs of this project without one."""

    @property
    def removed(self) -> dict[str, int]:
        """Removals by rule."""
        return dict(sorted(Counter(removal.rule for removal in self.removals).items()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of the annotations of one pair.

    Example:
        Outcome(preference=PreferencePair(…), removals=(), annotations=2, votes=2, is_judged=True)
    """

    preference: PreferencePair | None
    removals: tuple[Removal, ...]
    """Annotations that are no vote, then the pair itself, where its votes made no preference."""
    annotations: int
    votes: int
    is_judged: bool
    """True if the pair has a vote or a verdict."""


def export(
    pairs: Mapping[str, Pair],
    pushed: Sequence[str],
    annotations: Sequence[Annotation],
    gold: Container[str] = (),
    verdicts: Sequence[Annotation] = (),
) -> Export:
    """Turn annotations into preferences, pair by pair in order of id: no pair depends on another.

    Args:
        pairs: Every known pair by id.
        pushed: Ids of the pairs that went to this project.
        annotations: The newest state of each annotation of this project.
        gold: Ids of the pairs whose better answer was known; they tell of the annotators and are no preferences.
        verdicts: The newest state of each annotation of the projects that adjudicate this one; a pair's latest decides.
    """
    votes, rulings = of_pairs(annotations), of_pairs(verdicts)
    outcomes = {
        pair_id: outcome_of(pair_id, pairs, votes.get(pair_id, ()), rulings.get(pair_id, ()), is_gold=pair_id in gold)
        for pair_id in sorted(votes.keys() | rulings.keys())
    }
    judged = {pair_id for pair_id, outcome in outcomes.items() if outcome.is_judged}
    return Export(
        preferences=tuple(one.preference for one in outcomes.values() if one.preference),
        removals=tuple(removed for one in outcomes.values() for removed in one.removals),
        annotations=len(annotations) + len(verdicts),
        votes=sum(one.votes for one in outcomes.values()),
        judged_pairs=len(judged),
        waiting_pairs=len(set(pushed) - judged),
    )


def of_pairs(annotations: Iterable[Annotation]) -> dict[str, list[Annotation]]:
    """Return annotations by the pair that their tasks name."""
    found: dict[str, list[Annotation]] = defaultdict(list)
    for annotation in annotations:
        found[annotation.pair_id].append(annotation)
    return found


def outcome_of(
    pair_id: str,
    pairs: Mapping[str, Pair],
    annotations: Sequence[Annotation],
    verdicts: Sequence[Annotation],
    *,
    is_gold: bool,
) -> Outcome:
    """Return what became of one pair's annotations and verdicts; see `export`.

    Args:
        pair_id: The pair, which may be one that `pairs` does not have.
        pairs: Known pairs, this one among them if it is known.
        annotations: The newest state of each annotation of its tasks.
        verdicts: The same of the projects that adjudicate.
        is_gold: True if its better answer was known.
    """
    removals: list[Removal] = []
    cast = one_each(annotations, read_result, pairs, removals).get(pair_id, {})
    ruling = latest(one_each(verdicts, read_result, pairs, removals), removals).get(pair_id)
    is_judged = bool(cast or ruling)
    preference = None
    if is_judged and is_gold:
        reason = "its better answer was known before; it tells of the annotators"
        removals.append(Removal(record_id=pair_id, rule="gold", reason=reason))
    elif is_judged:
        decided = _decide(pairs[pair_id], list(cast.values()), ruling)
        if isinstance(decided, Removal):
            removals.append(decided)
        else:
            preference = decided
    return Outcome(
        preference=preference,
        removals=tuple(removals),
        annotations=len(annotations) + len(verdicts),
        votes=len(cast) + (ruling is not None),
        is_judged=is_judged,
    )


Cast = tuple[Annotation, Judgement]


def one_each(
    annotations: Sequence[Annotation],
    read: Callable[[Sequence[Any]], J | str],
    known: Container[str],
    removals: list[Removal],
) -> dict[str, dict[int, tuple[Annotation, J]]]:
    """Return each person's newest judgement of each pair or set; what is none goes to the removals.

    Args:
        annotations: The newest state of each.
        read: See `judge_by`.
        known: Likewise.
        removals: Grows.
    """
    found: dict[str, dict[int, tuple[Annotation, J]]] = {}
    for annotation in sorted(annotations, key=lambda one: (one.updated_at, one.id)):
        judgement = judge_by(read, annotation, known)
        if isinstance(judgement, Removal):
            removals.append(judgement)
            continue
        assert annotation.annotator is not None  # judge_by saw to it
        of_task = found.setdefault(annotation.pair_id, {})
        earlier = of_task.get(annotation.annotator)
        if earlier:
            reason = f"person:{annotation.annotator} judged it again in annotation {annotation.id}"
            removals.append(removal(earlier[0], "judged-again", reason))
        of_task[annotation.annotator] = (annotation, judgement)
    return found


def latest(
    verdicts: Mapping[str, Mapping[int, tuple[Annotation, J]]], removals: list[Removal]
) -> dict[str, tuple[Annotation, J]]:
    """Return the last verdict on each pair or set; earlier ones of other people go to the removals."""
    found = {}
    for name, given in verdicts.items():
        *earlier, last = sorted(given.values(), key=lambda one: (one[0].updated_at, one[0].id))
        for annotation, _ in earlier:
            removals.append(removal(annotation, "judged-again", f"annotation {last[0].id} is a later verdict"))
        found[name] = last
    return found


def read_result(result: Sequence[Any]) -> Judgement | str:
    """Read the regions of an annotation of a pair, or return what is wrong with them."""
    parts = parts_of(result, {"preference", "flags", "reason"})
    if isinstance(parts, str):
        return parts
    levels, flags, reasons = parts["preference"], parts["flags"], parts["reason"]
    if len(levels) != 1:
        return f"it has {len(levels)} levels, expected 1"
    if levels[0] not in LEVELS:
        return f"its level is {levels[0]!r}, none of {', '.join(LEVELS)}"
    unknown = sorted(set(flags) - set(FLAG_KEYS))
    if unknown:
        return f"its flag {unknown[0]!r} is not on the page"
    return Judgement(level=levels[0], flags=tuple(dict.fromkeys(flags)), reason=" ".join(reasons))


def parts_of(result: Sequence[Any], names: Collection[str]) -> dict[str, list[str]] | str:
    """Return what was chosen or written by each control of a page, or what is wrong.

    The server accepts anything through its API, unknown names and choices and no result at all included.
    """
    parts: dict[str, list[str]] = {name: [] for name in names}
    for region in result:
        if not isinstance(region, Mapping) or not isinstance(region.get("value"), Mapping):
            return "a part of the result has no value"
        name, value = str(region.get("from_name")), region["value"]
        if name not in parts:
            return f"a part of the result is named {name!r}, which is not on the page"
        parts[name] += _texts(value.get("text" if name == "reason" else "choices"))
    return parts


def _texts(value: Any) -> list[str]:
    """The server stores the text of a text area now as a list, now as a string."""
    return [str(one) for one in value] if isinstance(value, list) else [] if value is None else [str(value)]


def judge(annotation: Annotation, pairs: Mapping[str, Pair]) -> Judgement | Removal:
    """Return what an annotation of a pair says, or by which rule it is no judgement."""
    return judge_by(read_result, annotation, pairs)


def judge_by(read: Callable[[Sequence[Any]], J | str], annotation: Annotation, known: Container[str]) -> J | Removal:
    """Return what an annotation says, or by which rule it is no judgement.

    Args:
        read: Reads the parts of a result, or returns what is wrong with them.
        annotation: The newest state of it.
        known: Ids of all that was pushed.
    """
    if annotation.kind == "deleted":
        return removal(annotation, "deleted", f"it is gone from task {annotation.task_id}; the log has its history")
    if annotation.kind == "skip":
        return removal(annotation, "skipped", f"person:{annotation.annotator} skipped the task")
    if annotation.pair_id not in known:
        reason = f"task {annotation.task_id} names pair {annotation.pair_id!r}, which this log did not push"
        return removal(annotation, "unknown-pair", reason)
    if annotation.annotator is None:
        return removal(annotation, "malformed", "it does not say who made it")
    judgement = read(annotation.result)
    return removal(annotation, "malformed", judgement) if isinstance(judgement, str) else judgement


def removal(annotation: Annotation, rule: str, reason: str) -> Removal:
    """Name an annotation that does not count, with its reason."""
    return Removal(record_id=f"annotation:{annotation.id}", rule=rule, reason=reason, text=annotation.pair_id)


def _decide(pair: Pair, votes: Sequence[Cast], verdict: Cast | None = None) -> PreferencePair | Removal:
    """Weigh the votes of one pair, one an annotator, or follow the verdict on it."""
    comparison = pair.comparison
    weighed = [verdict] if verdict else votes
    whose = "the verdict says" if verdict else "half of its annotators or more say"
    signed = [(1 if _prefers_first(judgement, pair) else -1) * int(judgement.level[1]) for _, judgement in weighed]
    for_first = sum(_prefers_first(judgement, pair) for _, judgement in weighed)
    levels = ", ".join(judgement.level for _, judgement in weighed)
    if 2 * sum("bad_prompt" in judgement.flags for _, judgement in weighed) >= len(weighed):
        return Removal(record_id=comparison.id, rule="faulty-question", reason=f"{whose} that the question is faulty")
    if 2 * for_first == len(weighed):
        reason = f"its {len(weighed)} votes are split evenly ({levels} as shown)"
        return Removal(record_id=comparison.id, rule="tie", reason=reason)
    first_wins = 2 * for_first > len(weighed)
    chosen, rejected = comparison.first, comparison.second
    if not first_wins:
        chosen, rejected = rejected, chosen
    cast = tuple(
        Vote(
            annotator=f"person:{annotation.annotator}",
            annotation_id=str(annotation.id),
            side="chosen" if _prefers_first(judgement, pair) == first_wins else "rejected",
            strength=int(judgement.level[1]),
            flags=_unswapped(judgement.flags, a_is_chosen=pair.swapped != first_wins),
            reason=judgement.reason,
            page=annotation.page,
            guidelines=annotation.guidelines,
            is_verdict=verdict is not None and annotation is verdict[0],
        )
        for annotation, judgement in [*votes, *([verdict] if verdict else [])]
    )
    heard = [vote for vote in cast if vote.is_verdict or verdict is None]
    if 2 * sum("unsafe_chosen" in vote.flags for vote in heard) >= len(heard):
        reason = f"{whose} that the preferred answer is unsafe"
        return Removal(record_id=comparison.id, rule="chosen-is-unsafe", reason=reason)
    mean = sum(signed) / len(signed) * (1 if first_wins else -1)
    return PreferencePair(
        prompt=comparison.prompt,
        chosen=chosen.text,
        rejected=rejected.text,
        strength=math.floor(max(mean, 0.0) + 0.5),
        source=SOURCE,
        provenance=Provenance(
            maker=",".join(dict.fromkeys(vote.annotator for vote in cast)), parents=comparison.parents
        ),
        votes=cast,
        chosen_ended=chosen.ended,
        rejected_ended=rejected.ended,
    )


def _prefers_first(judgement: Judgement, pair: Pair) -> bool:
    """A stood for the first answer, unless the sides were swapped."""
    return (judgement.level[0] == "A") != pair.swapped


def _unswapped(flags: Sequence[str], *, a_is_chosen: bool) -> tuple[str, ...]:
    """Flags of a shown side become flags of the chosen or rejected answer: `factual_a` -> `factual_rejected`."""
    names = {"_a": "_chosen" if a_is_chosen else "_rejected", "_b": "_rejected" if a_is_chosen else "_chosen"}
    return tuple(flag[:-2] + names[flag[-2:]] if flag[-2:] in names else flag for flag in flags)
