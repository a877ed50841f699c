"""Records to ask and to test on: which are held out, in every stage the same, and draws that are spread over groups.

What is left out is returned as removals, never dropped in silence.
"""

import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from finlm import jsonl
from finlm.records import Conversation, Prompt, Removal, content_id

P = TypeVar("P", Conversation, Prompt)


def is_held_out(record: Conversation | Prompt, *, test_share: float) -> bool:
    """True if the record belongs to the test split, which its group's name alone decides.

    So every stage, under any seed and on any subset of the data, holds out the same companies. A record without a group
    stands for itself.
    """
    return is_test_group(record.group or record.id, test_share=test_share)


def is_test_group(group: str, *, test_share: float) -> bool:
    """True if the group of this name belongs to the test split."""
    return int(content_id(group, 0), 16) / 16**16 < test_share


def read_conversations(paths: Iterable[str | Path]) -> list[Conversation]:
    """Read conversations from several files, first come first kept where two are equal."""
    found: dict[str, Conversation] = {}
    for path in paths:
        for conversation in jsonl.read(path, Conversation):
            found.setdefault(conversation.id, conversation)
    return list(found.values())


def as_prompt(conversation: Conversation, *, source: str) -> Prompt:
    """Return the conversation's turns up to its last answer, which becomes the reference."""
    return Prompt(
        messages=conversation.messages[:-1],
        category=conversation.category,
        source=source,
        language=conversation.language,
        kind=conversation.kind,
        group=conversation.group,
        reference=conversation.messages[-1].content,
        provenance=conversation.provenance,
    )


def questions(
    paths: Iterable[str | Path], *, forms: Sequence[str], languages: Sequence[str], kinds: Sequence[str]
) -> list[Prompt]:
    """Return the questions of instruction files, those of the given forms, languages and kinds (none: all kinds)."""
    return [
        as_prompt(conversation, source="selfqa")
        for conversation in read_conversations(paths)
        if conversation.form in forms
        and conversation.language in languages
        and (not kinds or conversation.kind in kinds)
    ]


def spread(records: Sequence[P], count: int, *, seed: int) -> list[P]:
    """Draw `count` records (0: all) that are spread over their groups: one of each group in turn, in seeded order."""
    by_group: dict[str, list[P]] = {}
    for record in records:
        by_group.setdefault(record.group, []).append(record)
    rng = random.Random(seed)
    queues = [rng.sample(by_group[name], len(by_group[name])) for name in sorted(by_group)]
    drawn: list[P] = []
    while queues and (count == 0 or len(drawn) < count):
        for queue in queues:
            if count == 0 or len(drawn) < count:
                drawn.append(queue.pop())
        queues = [queue for queue in queues if queue]
    return drawn


def beyond(records: Sequence[P], kept: Sequence[P], *, rule: str, reason: str) -> list[Removal]:
    """Return removals for the `records` that are not among the `kept`."""
    ids = {record.id for record in kept}
    return [Removal(record_id=record.id, rule=rule, reason=reason) for record in records if record.id not in ids]
