"""What a reward model's run learns from, what it is tested on, and what brings its scores to scale.

Pairs of a prompt, and of a group of prompts, lie on one side. Whatever is set aside is a Removal with its rule.
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from transformers import PreTrainedTokenizerBase

from finlm import jsonl
from finlm.data import is_held_out
from finlm.errors import UserError
from finlm.records import Candidates, Removal
from reward import groups
from reward.groups import Group
from reward.rankings import read_pairs

LEAST_CANDIDATES = 8
"""Ended answers that a deviation is taken from at least."""


class Splitting(Protocol):
    """The settings that say what is read and how it is divided."""

    @property
    def preferences(self) -> str:
        """File of PreferencePair or Ranking records."""

    @property
    def test_preferences(self) -> str:
        """File of such records to test on; empty: pairs of held-out groups."""

    @property
    def candidates(self) -> str:
        """File of Candidates records."""

    @property
    def test_share(self) -> float:
        """Share of groups held out."""

    @property
    def test_pairs(self) -> int:
        """Held-out pairs to test on, at most."""

    @property
    def min_strength(self) -> int:
        """Pairs of lower strength are left out."""

    @property
    def soft_labels(self) -> bool:
        """True learns from the share of the votes."""

    @property
    def label_smoothing(self) -> float:
        """Votes added to either side."""

    @property
    def max_length(self) -> int:
        """Tokens of prompt and answer at most."""

    @property
    def prompt_weight(self) -> str:
        """What a prompt counts for: `one` or `answers`."""

    @property
    def normalise_on(self) -> int:
        """Answers that the scale is taken on, at most."""


@dataclass(frozen=True, slots=True)
class Splits:
    """What there is to learn from and to test on, and what was set aside.

    Example:
        Splits(train=[Group(…)], test=[Group(…)], removals=[Removal(…)])
    """

    train: list[Group]
    test: list[Group]
    removals: list[Removal]

    @property
    def pairs(self) -> dict[str, int]:
        """Comparisons of each split."""
        return {"train": _comparisons(self.train), "test": _comparisons(self.test)}

    @property
    def rules(self) -> str:
        """What was set aside, counted by rule, in words."""
        counts = Counter(removal.rule for removal in self.removals)
        return ", ".join(f"{rule} {count:,}" for rule, count in counts.most_common())


def _comparisons(found: Sequence[Group]) -> int:
    return sum(len(group.comparisons) for group in found)


def read(settings: Splitting, tokenizer: PreTrainedTokenizerBase) -> Splits:
    """Read the pairs, settle contradictions, hold groups out, encode.

    Raises:
        UserError: A row is no pair, or a prompt is on both sides.
    """
    given, unread = read_pairs(settings.preferences)
    pairs, removals = groups.settled(given)
    removals += unread
    is_test = [is_held_out(pair.prompt, test_share=settings.test_share) for pair in pairs]
    learned = [pair for pair, held_out in zip(pairs, is_test, strict=True) if not held_out]
    tested = [pair for pair, held_out in zip(pairs, is_test, strict=True) if held_out]
    if settings.test_preferences:
        learned = pairs
        given, unread = read_pairs(settings.test_preferences)
        tested, more = groups.settled(given)
        removals += [*unread, *more]
        groups.require_apart((pair.prompt for pair in learned), (pair.prompt for pair in tested))
    smoothing = settings.label_smoothing if settings.soft_labels else None
    (train, more), (test, further) = (
        groups.encoded(
            its, tokenizer, max_length=settings.max_length, min_strength=settings.min_strength, smoothing=smoothing
        )
        for its in (learned, tested)
    )
    kept, beyond = groups.drawn(test, settings.test_pairs, seed=0)  # runs with other seeds are tested on the same
    if settings.prompt_weight == "answers":
        train = groups.weighed(train)
    return Splits(train, kept, [*removals, *more, *further, *beyond])


def require(found: Splits, settings: Splitting, out: Path) -> None:
    """Check that there is something to learn from, and pairs to judge by.

    Raises:
        UserError: There is not.
    """
    aside = f"set aside were {found.rules}, see {out / 'rejected.jsonl'}" if found.removals else "nothing was set aside"
    if not found.train:
        raise UserError(f"{settings.preferences} holds no pair to train on ({aside}).")
    if not found.test:
        where, mend = settings.test_preferences or settings.preferences, "give other pairs"
        if not settings.test_preferences:
            mend = f"no group of prompts fell into the test share of {settings.test_share:g}: raise test_share, or name"
            mend += " a file of other pairs with test_preferences"
        raise UserError(f"{where} holds no pair to test on ({aside}); {mend}.")
    for name, its, where in (
        ("train", found.train, settings.preferences),
        ("test", found.test, settings.test_preferences or settings.preferences),
    ):
        if not any(one.pair.strength for group in its for one in group.comparisons):
            raise UserError(
                f"{where}: all {_comparisons(its)} pairs to {name} on have strength 0, so none says which answer is "
                "better; give pairs of strength 1 to 3."
            )


def normalisation_rows(
    settings: Splitting, tokenizer: PreTrainedTokenizerBase, train: Sequence[Group]
) -> tuple[list[list[int]], str]:
    """Return the rows that get mean 0 and standard deviation 1, and what they are."""
    if Path(settings.candidates).is_file():
        rows = groups.ended_answers(
            jsonl.read(settings.candidates, Candidates),
            tokenizer,
            test_share=settings.test_share,
            limit=settings.normalise_on,
        )
        if len(rows) >= LEAST_CANDIDATES:
            return rows, f"{len(rows)} ended answers of {settings.candidates}"
    chosen = [[*group.prompt, *group.answers[one.better]] for group in train for one in group.comparisons]
    rows = random.Random(0).sample(chosen, min(settings.normalise_on, len(chosen)))
    return rows, f"{len(rows)} chosen answers of {settings.preferences}"
