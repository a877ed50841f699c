"""Where ratings come from: the log of a Label Studio project, or preferences that keep their votes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from annotation.eventlog import Annotation, EventLog, Pair
from annotation.export import Judgement, judge
from annotation.page import LEVELS
from annotation.ratings import Rating
from finlm import jsonl
from finlm.errors import MissingInput, UserError
from finlm.records import PreferencePair, Removal, content_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A pair as a report shows it; its answers in the order that levels count in.

    Example:
        Compared(id="9f…", prompt="What was …?", answers=("…", "…"), category="finance")
    """

    id: str
    prompt: str
    answers: tuple[str, str]
    category: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Pairs and what people said of them."""

    pairs: dict[str, Compared]
    ratings: tuple[Rating, ...]
    waiting: int
    """Pairs that nobody has judged."""
    left_out: dict[str, int]
    """Annotations that are no rating, by reason."""
    days: dict[str, int]
    """Ratings by day, where it is known."""


def read(log: str, project: str, preferences: str) -> tuple[str, Work]:
    """Return the ratings of a file of preferences, or of a project of a log if no file is named, and what they are of.

    Raises:
        MissingInput: There is no log or no such file.
        UserError: The log holds no such project, or several and none was named; or nobody has rated anything.
    """
    if preferences:
        title, work = preferences, from_preferences(jsonl.read(preferences, PreferencePair))
    else:
        title, work, _ = read_log(log, project)
    if not work.ratings:
        raise UserError(f"{title} has no rating yet; pull first: finlm annotate pull.")
    return title, work


def read_log(path: str, project: str) -> tuple[str, Work, dict[str, Pair]]:
    """Return what a project of a log is called, its ratings, and the log's pairs with who wrote their answers.

    Args:
        path: The log.
        project: The project's key; empty where the log has one.

    Raises:
        MissingInput: There is no log.
        UserError: The log holds no such project, or several and none was named.
    """
    if not Path(path).is_file():
        raise MissingInput(f"No annotation log at {path}; make it with: finlm annotate pull")
    with EventLog(path) as log:
        known = log.projects()
        chosen = [key for key in known if key == project or not project]
        if len(chosen) != 1:
            there = ", ".join(known) or "none"
            raise UserError(f"--project {project!r}: {path} holds {there}; name one of them.")
        pairs = dict(log.pairs())
        work = from_log(pairs, list(log.deliveries(chosen[0])), log.annotations(chosen[0]), log.gold())
    return f"project {chosen[0]}", work, pairs


def _longer(side: int, first: str, second: str) -> bool | None:
    return None if len(first) == len(second) else (side == 1) == (len(second) > len(first))


def from_log(
    pairs: Mapping[str, Pair],
    pushed: Sequence[str],
    annotations: Iterable[Annotation],
    gold: Mapping[str, int] | None = None,
) -> Work:
    """Return a project's ratings: one a person and pair, the newest; `gold` has the better answer where it is known."""
    known = gold or {}
    newest: dict[tuple[str, int], tuple[Annotation, Judgement]] = {}
    left_out: dict[str, int] = {}

    def leave_out(rule: str) -> None:
        left_out[rule] = left_out.get(rule, 0) + 1

    for annotation in sorted(annotations, key=lambda one: (one.updated_at, one.id)):
        judgement = judge(annotation, pairs)
        if isinstance(judgement, Removal):
            leave_out(judgement.rule.replace("-", " "))
            continue
        assert annotation.annotator is not None  # judge saw to it
        key = annotation.pair_id, annotation.annotator
        if key in newest:
            leave_out("judged again")
        newest[key] = annotation, judgement
    ratings = []
    days: dict[str, int] = {}
    for (pair_id, annotator), (annotation, judgement) in sorted(newest.items()):
        ratings.append(_rating(pairs[pair_id], annotator, annotation, judgement, known.get(pair_id)))
        day = annotation.updated_at[:10]
        days[day] = days.get(day, 0) + 1
    judged = {pair_id for pair_id, _ in newest}
    return Work(
        pairs={name: _compared(pairs[name]) for name in sorted(judged)},
        ratings=tuple(ratings),
        waiting=len(set(pushed) - judged),
        left_out=dict(sorted(left_out.items())),
        days=dict(sorted(days.items())),
    )


def _compared(pair: Pair) -> Compared:
    shown = pair.comparison
    prompt = "\n\n".join(turn.content for turn in shown.prompt.messages)
    answers = (shown.first.text, shown.second.text)
    return Compared(id=shown.id, prompt=prompt, answers=answers, category=shown.prompt.category)


def _rating(pair: Pair, annotator: int, annotation: Annotation, judgement: Judgement, gold: int | None) -> Rating:
    as_shown = LEVELS.index(judgement.level)
    level = len(LEVELS) - 1 - as_shown if pair.swapped else as_shown
    seen = _compared(pair)
    return Rating(
        pair_id=seen.id,
        annotator=f"person:{annotator}",
        level=level,
        is_left=as_shown < len(LEVELS) // 2,
        is_longer=_longer(int(level >= len(LEVELS) // 2), *seen.answers),
        seconds=annotation.seconds,
        characters=len(seen.prompt) + sum(map(len, seen.answers)),
        gold=gold,
    )


def from_preferences(preferences: Iterable[PreferencePair]) -> Work:
    """Return the ratings that preferences keep as votes; which answer stood on the left they do not say.

    Which answer comes first here is drawn by the pair's texts: were it the chosen one, everybody would seem to agree on
    the side more than by chance.
    """
    pairs: dict[str, Compared] = {}
    ratings: list[Rating] = []
    without = 0
    for one in preferences:
        is_turned = int(content_id(*sorted([one.chosen, one.rejected])), 16) % 2 == int(one.chosen < one.rejected)
        answers = (one.rejected, one.chosen) if is_turned else (one.chosen, one.rejected)
        if not one.votes:
            without += 1
            continue
        prompt = "\n\n".join(turn.content for turn in one.prompt.messages)
        pairs[one.id] = Compared(id=one.id, prompt=prompt, answers=answers, category=one.prompt.category)
        for vote in one.votes:
            if vote.is_verdict:  # given in sight of a disagreement: no rating like the others
                continue
            side = int((vote.side == "rejected") != is_turned)
            level = len(LEVELS) // 2 + vote.strength if side else len(LEVELS) // 2 - 1 - vote.strength
            ratings.append(
                Rating(
                    pair_id=one.id,
                    annotator=vote.annotator,
                    level=level,
                    is_left=None,
                    is_longer=_longer(side, *answers),
                    seconds=None,
                    characters=len(prompt) + sum(map(len, answers)),
                )
            )
    return Work(
        pairs=pairs, ratings=tuple(ratings), waiting=0, left_out={"pairs without votes": without} if without else {},
        days={},
    )  # fmt: skip
