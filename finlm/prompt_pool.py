"""The prompts that PPO could learn from: read, without the empty, the over-long and those that are there already."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from finlm import jsonl
from finlm.duplicates import differ_in_substance, jaccard, near_duplicates, normalised, shingles
from finlm.records import Category, Message, Prompt, Provenance, Removal, Role, content_id

SHINGLE_WORDS, SHINGLE_CHARACTERS = 3, 4
"""Prompts are shorter than passages, and so are the pieces that they are compared by."""


@dataclass(slots=True, kw_only=True)
class RawMessage:
    """A turn as a file has it: it may be empty."""

    role: Role
    content: str


@dataclass(slots=True, kw_only=True)
class PromptRow:
    """A line of a file of prompts; it is a Prompt unless a turn, or everything, is empty.

    Example:
        PromptRow(messages=(RawMessage(role="user", content=" "),))
    """

    messages: tuple[RawMessage, ...]
    category: Category = "general"
    source: str = ""
    subfield: str = ""
    language: str = ""
    kind: str = ""
    group: str = ""
    reference: str = ""
    provenance: Provenance | None = None
    id: str = ""

    def __post_init__(self) -> None:
        self.prompt()  # a row that is no prompt is found where it is read, with its line

    def prompt(self) -> Prompt | None:
        """Return the record; None for an empty row."""
        if not self.messages or not all(message.content.strip() for message in self.messages):
            return None
        return Prompt(
            messages=tuple(Message(role=one.role, content=one.content) for one in self.messages),
            category=self.category,
            source=self.source,
            subfield=self.subfield,
            language=self.language,
            kind=self.kind,
            group=self.group,
            reference=self.reference,
            provenance=self.provenance,
        )


def read_prompts(path: str | Path) -> tuple[list[Prompt], list[Removal]]:
    """Return the prompts of a file, and removals for its empty rows.

    Raises:
        MissingInput: No such file.
        UserError: A row is no prompt; the message has the file and the line.
    """
    prompts, removals = [], []
    for number, row in enumerate(jsonl.read(path, PromptRow), 1):
        prompt = row.prompt()
        if prompt is not None:
            prompts.append(prompt)
        else:
            reason = f"row {number} of {path} has a turn without text"
            removals.append(Removal(record_id=row.id or content_id(str(path), number), rule="empty", reason=reason))
    return prompts, removals


def without_long(
    prompts: Iterable[Prompt], count_tokens: Callable[[Prompt], int], limit: int
) -> tuple[list[Prompt], list[Removal]]:
    """Set aside the prompts of more than `limit` tokens; none is ever cut."""
    kept, removals = [], []
    for prompt in prompts:
        tokens = count_tokens(prompt)
        if tokens <= limit:
            kept.append(prompt)
        else:
            reason = f"{tokens} tokens, the limit is {limit}"
            removals.append(Removal(record_id=prompt.id, rule="too-long", reason=reason))
    return kept, removals


def without_duplicates(
    prompts: Sequence[Prompt], *, threshold: float, never: Iterable[Prompt] = ()
) -> tuple[list[Prompt], list[Removal]]:
    """Set aside prompts that repeat an earlier one.

    Args:
        prompts: The prompts; of two equal ones the first stays.
        threshold: Least similarity (Jaccard) of near duplicates, above 0 to 1; 0 looks for exact ones only.
        never: Prompts that must not come back under another spelling: those held out for testing.

    Returns:
        The prompts that stay, and removals by the rules `duplicate` (equal but for case and white space),
        `held-out-duplicate` (the same, of a held-out one) and `near-duplicate`.
    """
    first = {_key(prompt): ("held-out-duplicate", prompt.id) for prompt in never}
    unique, removals = [], []
    for prompt in prompts:
        rule, other = first.setdefault(_key(prompt), ("duplicate", prompt.id))
        if other == prompt.id:
            unique.append(prompt)
        else:
            removals.append(Removal(record_id=prompt.id, rule=rule, reason=f"but for case and space it is {other}"))
    if not threshold:
        return unique, removals
    repeats = near_duplicates(
        [_text(prompt) for prompt in unique],
        threshold=threshold,
        words=SHINGLE_WORDS,
        characters=SHINGLE_CHARACTERS,
        are_apart=lambda one, other: _are_apart(unique[one], unique[other], threshold),
    )
    removals += [
        Removal(
            record_id=unique[later].id,
            rule="near-duplicate",
            reason=f"nearly word for word {unique[earlier].id}",
            text=unique[later].messages[-1].content,
        )
        for later, earlier in repeats.items()
    ]
    return [prompt for place, prompt in enumerate(unique) if place not in repeats], removals


def _key(prompt: Prompt) -> tuple[tuple[str, str], ...]:
    return tuple((message.role, normalised(message.content)) for message in prompt.messages)


def _text(prompt: Prompt) -> str:
    return "\n".join(message.content for message in prompt.messages)


def _are_apart(one: Prompt, other: Prompt, threshold: float) -> bool:
    """True if two similar prompts ask for different things all the same."""
    if one.group and other.group and one.group != other.group:
        return True
    if one.reference and other.reference and normalised(one.reference) != normalised(other.reference):
        return True
    # a long passage makes any two questions about it look alike
    asked = [shingles(prompt.question, words=SHINGLE_WORDS, characters=SHINGLE_CHARACTERS) for prompt in (one, other)]
    return jaccard(*asked) < threshold or differ_in_substance(_text(one), _text(other))
