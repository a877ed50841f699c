"""Published preferences cut into folds: no prompt, topic or document lies in two of them.

What stays together is a unit: dialogues that begin alike, a conversation tree, a question, a document, and of
ukp_convarg a whole debate. Its groups are a debate's two sides, whose arguments answer each other.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from finlm import jsonl
from finlm.language import language_of
from finlm.records import PreferencePair, content_id

DEBATES = "ukp_convarg"


def unit_of(source: str, group: str) -> str:
    """Return the name of what may not be divided.

    Args:
        source: The data set.
        group: The group of a prompt, as `finlm annotate import` names it; of a debate "<set>:<debate>_<side>".
    """
    name, _, topic = group.partition(":")
    return f"{name}:{topic.partition('_')[0]}" if source == DEBATES else group


def folds_of(sizes: Mapping[str, int], folds: int) -> dict[str, int]:
    """Return the fold of each unit, from 0: the largest first, each into the fold that has the fewest pairs yet.

    Args:
        sizes: Pairs of each unit.
        folds: Their number.
    """
    filled = [0] * folds
    fold_of = {}
    # units of one size in an order of their own: files are often sorted by what they are about
    for unit in sorted(sizes, key=lambda name: (-sizes[name], content_id("fold", name))):
        fold_of[unit] = min(range(folds), key=lambda fold: (filled[fold], fold))
        filled[fold_of[unit]] += sizes[unit]
    return fold_of


@dataclass(frozen=True, slots=True)
class Folds:
    """Where each unit lies.

    Example:
        Folds(fold_of={"ukp_convarg:tv-is-better-than-books": 0}, sizes={"ukp_convarg": {…: 784}}, count=5)
    """

    fold_of: dict[str, int]
    sizes: dict[str, dict[str, int]]
    """Decided pairs of each unit, by set."""
    count: int

    @classmethod
    def of(cls, pairs: Iterable[PreferencePair], count: int) -> "Folds":
        """Cut each set for itself, so that every fold has its share of all."""
        sizes: dict[str, Counter[str]] = defaultdict(Counter)
        for pair in pairs:
            sizes[pair.source][unit_of(pair.source, pair.prompt.group)] += pair.strength > 0
        fold_of = {unit: fold for its in sizes.values() for unit, fold in folds_of(its, count).items()}
        return cls(fold_of, {name: dict(its) for name, its in sorted(sizes.items())}, count)

    def fold(self, pair: PreferencePair) -> int:
        """Return the fold of a pair."""
        return self.fold_of[unit_of(pair.source, pair.prompt.group)]

    def pairs(self, source: str) -> list[int]:
        """Return the decided pairs of a set in each fold."""
        found = [0] * self.count
        for unit, size in self.sizes[source].items():
            found[self.fold_of[unit]] += size
        return found

    def units(self, source: str, fold: int) -> list[str]:
        """Return the units of a set in a fold."""
        return sorted(unit for unit in self.sizes[source] if self.fold_of[unit] == fold)


def train_file(folder: Path, fold: int) -> Path:
    """Return the file of what is learned from when a fold is held out."""
    return folder / f"fold-{fold}-train.jsonl"


def test_file(folder: Path, fold: int) -> Path:
    """Return the file of a fold."""
    return folder / f"fold-{fold}-test.jsonl"


def write(
    folder: Path, pairs: Sequence[PreferencePair], folds: Folds, fold: int, more: Sequence[PreferencePair] = ()
) -> None:
    """Write both files of a fold; `more` are learned from where their unit is, and tested on nowhere."""
    jsonl.write(train_file(folder, fold), [pair for pair in (*pairs, *more) if folds.fold(pair) != fold])
    jsonl.write(test_file(folder, fold), [pair for pair in pairs if folds.fold(pair) == fold])


def english_sets(pairs: Iterable[PreferencePair]) -> set[str]:
    """Return the sets whose prompts and answers are English, by their letters.

    A translation out of the Chinese is judged by what the Chinese says, so its set is none of them.
    """
    texts: dict[str, Counter[str]] = defaultdict(Counter)
    for pair in pairs:
        asked = " ".join(turn.content for turn in pair.prompt.messages)
        texts[pair.source].update([language_of(asked), language_of(f"{pair.chosen} {pair.rejected}")])
    return {source for source, its in texts.items() if its["zh"] <= its.total() / 100}
