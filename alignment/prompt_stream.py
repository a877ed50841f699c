"""Which prompts an update answers: every prompt once before any comes again, each time round in another order."""

import random
from collections.abc import Iterator, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from finlm import chat_format
from finlm.errors import UserError
from finlm.records import Prompt, Removal, content_id


class PromptStream:
    """Encoded prompts in a seeded order that has no state: place n is the same prompt in every run.

    Attributes:
        prompts: (id, token ids) of the prompts that fit.
        removals: Those that do not.
    """

    def __init__(
        self,
        dataset: Sequence[Prompt | dict[str, Any]],
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_length: int,
        seed: int,
    ) -> None:
        self.prompts: list[tuple[str, list[int]]] = []
        self.removals: list[Removal] = []
        self._seed = seed
        for row in dataset:
            if isinstance(row, Prompt):
                name, ids = row.id, list(chat_format.encode(tokenizer, row.messages).ids)
            else:
                ids = list(row["input_ids"])
                name = content_id(ids)
            if len(ids) <= max_length:
                self.prompts.append((name, ids))
            else:
                reason = f"{len(ids)} tokens, the limit is {max_length}"
                self.removals.append(Removal(record_id=name, rule="too-long", reason=reason))
        if not self.prompts:
            raise UserError(
                f"None of {len(self.removals)} prompts has at most {max_length} tokens; "
                "raise max_prompt_length or give shorter prompts."
            )
        self._names = {tuple(ids): name for name, ids in self.prompts}

    def __len__(self) -> int:
        return len(self.prompts)

    def name(self, ids: Sequence[int]) -> str:
        """Return the id of the record that a prompt was encoded from."""
        return self._names[tuple(ids)]

    def has(self, ids: Sequence[int]) -> bool:
        """True if a prompt of these tokens is among them."""
        return tuple(ids) in self._names

    def take(self, start: int, count: int) -> list[list[int]]:
        """Return the token ids of the prompts at places `start` to `start + count` of the endless stream."""
        return [self.prompts[index][1] for index in self._order(start, count)]

    def _order(self, start: int, count: int) -> Iterator[int]:
        size = len(self.prompts)
        orders: dict[int, list[int]] = {}
        for place in range(start, start + count):
            epoch, within = divmod(place, size)
            if epoch not in orders:
                seed = int(content_id(self._seed, "prompts", epoch), 16) % 2**31
                orders[epoch] = random.Random(seed).sample(range(size), size)
            yield orders[epoch][within]
