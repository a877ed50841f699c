"""Published data sets of people's preferences, read row by row into pairs. One function a format.

| format | rows | strength |
|---|---|---|
| hh | a dialogue with two last answers | 1: how much better was not asked |
| ranking | replies to one prompt, best first | distance of the ranks, at most 3 |
| tree | conversations whose replies have ranks | the same |
| finegrained | four answers, six judgements of pairs | 1; 0 for a tie |
| votes | two texts, a vote of each worker | the majority's lead among all votes: 3 from 0.8, 2 from 0.4, else 1 or 0 |
| mqm | translations, raters' error points | difference of the means: 3 from 5 (a major error), 2 from 2, 1 from 0.5 |

A judge of finegrained also rewrote the first answer; pairs of such a correction are given where they are asked for.

A row gives `Pair`s in its own terms; `annotation/importing.py` makes records of them. What is no pair is a `Fault`.
"""

import re
from collections.abc import Callable, Iterator
from itertools import combinations, pairwise
from typing import Any, Literal, NamedTuple

import msgspec

from finlm.records import Category, Message

Turns = tuple[tuple[str, str], ...]


class Opinion(NamedTuple):
    """One person's vote."""

    person: str
    is_for_first: bool
    strength: int


class Pair(NamedTuple):
    """Two answers to the same turns."""

    turns: Turns
    """(role, content); the last is the user's."""
    better: str
    worse: str
    strength: int
    """0 to 3; at 0 the order means nothing."""
    group: str = ""
    """What may not span train and test; empty: the prompt."""
    opinions: tuple[Opinion, ...] = ()
    """`is_for_first`: for the better one."""


class Fault(NamedTuple):
    """Why a row or a part of it gives no pair."""

    rule: str
    reason: str


Found = Iterator[Pair | Fault]

CORRECTED = "_corrected"
"""Behind a set's name: the source of its pairs of an answer that a judge rewrote."""
_SPEAKER = r"\n\n(Human|Assistant): ?"
"""What stands before each turn of a dialogue."""

# ---------------------------------------------------------------------------------------------------------- rows


class Dialogue(msgspec.Struct, frozen=True):
    """A row of Anthropic's HH."""

    chosen: str
    rejected: str


class Ranked(msgspec.Struct, frozen=True):
    """A prompt with its replies, best first."""

    instruction: str
    output: list[str]
    input: str = ""
    history: list[list[str]] = []


class Reply(msgspec.Struct, frozen=True):
    """A message of an OpenAssistant tree."""

    text: str
    role: str
    replies: list["Reply"]
    rank: int | None = None
    deleted: bool = False
    review_result: bool | None = True


class Tree(msgspec.Struct, frozen=True):
    """An OpenAssistant tree."""

    message_tree_id: str
    prompt: Reply


class Feedback(msgspec.Struct, frozen=True):
    """What a judge made of the first prediction."""

    corrected: str = msgspec.field(name="corrected-prediction", default="")


class Judged(msgspec.Struct, frozen=True):
    """A question with passages, four predictions and the six judgements of their pairs."""

    question: str
    passages: list[list[str]]
    preference: list[Literal[0, 1, 2]]
    first: str = msgspec.field(name="prediction 1")
    second: str = msgspec.field(name="prediction 2")
    third: str = msgspec.field(name="prediction 3")
    fourth: str = msgspec.field(name="prediction 4")
    feedback: Feedback = Feedback()


class Voted(msgspec.Struct, frozen=True):
    """Two arguments for one side of a debate, and which one each worker found more convincing."""

    topic: str
    title: str
    description: str
    stance: str
    a1: str
    a2: str
    votes: list[Literal["a1", "a2", "equal"]]
    workers: list[str]
    gold: Literal["a1", "a2", "equal", ""] | None = ""
    """a1 or a2, as the set's authors weighed the votes; equal or null: a tie; empty: they did not."""


class System(msgspec.Struct, frozen=True):
    """One system's translation; error points by rater, lower is better."""

    text: str
    mqm: dict[str, float]


class Translated(msgspec.Struct, frozen=True):
    """A text with translations."""

    id: str
    prompt: str
    responses: list[System]


# ------------------------------------------------------------------------------------------------------- formats


def of_dialogue(row: Dialogue) -> Found:
    """Turn "\\n\\nHuman: …\\n\\nAssistant: …" into turns; both texts must agree up to the last answer."""
    if any(re.split(_SPEAKER, text)[0].strip() for text in (row.chosen, row.rejected)):
        yield Fault("no-speaker", "text stands before the first speaker")
        return
    turns, better = _dialogue(row.chosen)
    other, worse = _dialogue(row.rejected)
    if turns != other:
        yield Fault("other-prompt", "the two dialogues differ before their last answer")
        return
    yield from _pair(turns, better, worse, 1)


def _dialogue(text: str) -> tuple[Turns, str]:
    parts = re.split(_SPEAKER, text)
    said = zip(parts[1::2], parts[2::2], strict=True)
    turns = [("user" if who == "Human" else "assistant", what.strip()) for who, what in said]
    last = turns.pop() if turns and turns[-1][0] == "assistant" else ("assistant", "")
    return tuple(turns), last[1]


def of_ranking(row: Ranked) -> Found:
    """Pair every reply with every one ranked below it."""
    asked = f"{row.instruction}\n\n{row.input}" if row.input else row.instruction
    earlier = [turn for said in row.history for turn in zip(("user", "assistant"), said, strict=True)]
    yield from _pairs_of_ranks((*earlier, ("user", asked)), list(enumerate(row.output)))


def of_tree(row: Tree) -> Found:
    """Pair the ranked replies of every message of the tree."""
    yield from _of_message((), row.prompt, row.message_tree_id)


def _of_message(before: Turns, message: Reply, tree: str) -> Found:
    turns = (*before, ("user" if message.role == "prompter" else "assistant", message.text))
    if message.role == "prompter":
        kept = [one for one in message.replies if one.rank is not None and not one.deleted and one.review_result]
        for one in message.replies:
            if one not in kept and len(message.replies) > 1:
                yield Fault("unranked", "a reply without a rank, deleted or not through its review")
        yield from _pairs_of_ranks(turns, [(one.rank or 0, one.text) for one in kept], group=tree)
    for one in message.replies:
        if not one.deleted:
            yield from _of_message(turns, one, tree)


def _pairs_of_ranks(turns: Turns, ranked: list[tuple[int, str]], group: str = "") -> Found:
    for (rank, text), (other, below) in combinations(sorted(ranked, key=lambda one: one[0]), 2):
        yield from _pair(turns, text, below, min(other - rank, 3), group=group)


def of_judgements(row: Judged) -> Found:
    """Pair the answers as they were judged: 0 a tie, 1 the first, 2 the second is better."""
    turns, answers = _asked(row), (row.first, row.second, row.third, row.fourth)
    for (one, two), verdict in zip(combinations(answers, 2), row.preference, strict=True):
        better, worse = (two, one) if verdict == 2 else (one, two)
        yield from _pair(turns, better, worse, int(verdict != 0), group=row.question)


def of_corrections(row: Judged) -> Found:
    """Pair the rewritten first answer with the first, and with those that were not judged better than the first.

    The judge saw every fault of the first answer and took it out: a pair in the same words but for what is wrong.
    """
    others = (row.second, row.third, row.fourth)
    worse = [row.first, *(one for one, verdict in zip(others, row.preference, strict=False) if verdict != 2)]
    for one in worse:
        yield from _pair(_asked(row), row.feedback.corrected, one, 2, group=row.question)


def _asked(row: Judged) -> Turns:
    passages = "\n\n".join("\n".join(passage) for passage in row.passages)
    return (("user", f"{passages}\n\n{row.question}"),)


def of_votes(row: Voted) -> Found:
    """Pair two arguments by the votes of all workers; where the authors weighed them, their side is the better one."""
    if not row.votes:
        yield Fault("no-votes", "nobody voted")
        return
    counts = [row.votes.count(name) for name in ("a1", "a2")]
    is_first = row.gold == "a1" or (row.gold != "a2" and counts[0] >= counts[1])
    lead = (counts[0] - counts[1]) / len(row.votes) * (1 if is_first else -1)
    strength = 3 if lead >= 0.8 else 2 if lead >= 0.4 else int(lead > 0)
    if row.gold != "":
        strength = max(strength, 1) if row.gold in ("a1", "a2") else 0
    asked = f"{row.title}\n\n{row.description}\n\nArgue for this side: {row.stance}"
    better, worse = (row.a1, row.a2) if is_first else (row.a2, row.a1)
    opinions = tuple(
        Opinion(worker, (vote == "a1") == is_first or vote == "equal", int(vote != "equal"))
        for vote, worker in zip(row.votes, row.workers, strict=True)
    )
    yield from _pair((("user", asked),), better, worse, strength, group=row.topic, opinions=opinions)


def of_points(row: Translated) -> Found:
    """Pair translations by the mean error points of the raters that both have."""
    turns = (("user", f"Translate into English:\n\n{row.prompt}"),)
    document = row.id.rpartition("/")[0] or row.id
    for one, two in combinations(row.responses, 2):
        raters = sorted(one.mqm.keys() & two.mqm.keys())
        if not raters:
            yield Fault("no-common-rater", "no rater judged both translations")
            continue
        fewer = {rater: two.mqm[rater] - one.mqm[rater] for rater in raters}
        mean = sum(fewer.values()) / len(raters)
        sign = 1 if mean >= 0 else -1
        opinions = tuple(Opinion(rater, sign * by >= 0, _of_difference(abs(by))) for rater, by in fewer.items())
        better, worse = (one, two) if mean >= 0 else (two, one)
        strength = _of_difference(abs(mean))
        yield from _pair(turns, better.text, worse.text, strength, group=document, opinions=opinions)


def _of_difference(points: float) -> int:
    return 3 if points >= 5 else 2 if points >= 2 else int(points >= 0.5)


def _pair(
    turns: Turns, better: str, worse: str, strength: int, *, group: str = "", opinions: tuple[Opinion, ...] = ()
) -> Found:
    """Yield the pair, or what is wrong with it."""
    better, worse = better.strip(), worse.strip()
    if not turns or turns[-1][0] != "user" or not all(said.strip() for _, said in turns):
        yield Fault("no-prompt", "no turn of the user, or an empty one, before the answers")
    elif turns[0][0] != "user" or any(one == two for (one, _), (two, _) in pairwise(turns)):
        yield Fault("roles", "the first turn is not the user's, or two of the same side stand in a row")
    elif not better or not worse:
        yield Fault("empty-answer", "one of the answers is empty")
    elif better == worse:
        yield Fault("equal-answers", "both answers are the same")
    else:
        yield Pair(turns, better, worse, strength, group, opinions)


class Format(NamedTuple):
    """How to read a data set's rows."""

    row: type[Any]
    pairs: Callable[[Any], Found]
    keys: frozenset[str]
    """Keys of a row that no other format has."""
    category: Category = "general"
    language: str = "en"
    is_ranking: bool = True
    """True if the pairs of a prompt are all pairs of a few answers, so that a limit per prompt makes sense."""
    corrections: Callable[[Any], Found] | None = None
    """Pairs of an answer that a judge rewrote, where the set has them."""


FORMATS = {
    "hh": Format(Dialogue, of_dialogue, frozenset({"chosen", "rejected"}), "safety"),
    "ranking": Format(Ranked, of_ranking, frozenset({"instruction", "output"}), language="zh"),
    "tree": Format(Tree, of_tree, frozenset({"message_tree_id", "prompt"})),
    "finegrained": Format(
        Judged, of_judgements, frozenset({"question", "passages", "preference"}), corrections=of_corrections
    ),
    "votes": Format(Voted, of_votes, frozenset({"a1", "a2", "votes", "workers"}), is_ranking=False),
    "mqm": Format(Translated, of_points, frozenset({"prompt", "responses"})),
}


def format_of(row: dict[str, Any]) -> str | None:
    """Return the format whose keys a row has; None: unknown."""
    return next((name for name, known in FORMATS.items() if known.keys <= row.keys()), None)


def messages(turns: Turns) -> tuple[Message, ...]:
    """Return turns as records."""
    return tuple(Message(role="user" if who == "user" else "assistant", content=said.strip()) for who, said in turns)
