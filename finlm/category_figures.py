"""What an evaluation says of each category and sub-field: the model's gain, and whether the reward model is right.

The gain is paired, model minus baseline on the same prompt. Agreement is the share of pairs of answers in which the
reward model scores the better one higher; which one is better, people or a rule have said before.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from finlm.evaluation import AnswerRecord
from finlm.intervals import Interval, bootstrap
from finlm.prompt_mixture import OTHERS, Cell


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedPair:
    """Two answers of which one is known to be better, with the reward model's scores.

    Example:
        JudgedPair(category="finance", subfield="accounting", better=0.8, worse=-0.4, judge="preferences")
    """

    category: str
    subfield: str
    better: float
    """Score of the better answer."""
    worse: float
    judge: Literal["preferences", "figures"]
    """Who knows: a file of preferences, or the figure checker on the evaluation's own answers."""

    @property
    def agrees(self) -> float:
        """1 if the reward model scores the better answer higher, 0.5 for a tie."""
        return (self.better > self.worse) + 0.5 * (self.better == self.worse)


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryFigures:
    """One model in one category or sub-field.

    Example:
        CategoryFigures(model="ppo", baseline="sft", category="finance", subfield="accounting", answers=40,
                        referenced=40, right_gain=Interval(…), reward_gain=Interval(…), agreement=0.71, pairs=52,
                        judge="preferences")
    """

    model: str
    baseline: str
    category: str
    subfield: str
    """`*` for the whole category."""
    answers: int
    referenced: int
    """Answers to prompts with a known right answer: what `right_gain` is taken over."""
    right_gain: Interval | None
    """Right answers, model minus baseline, in shares; None without references."""
    reward_gain: Interval
    """Scores, model minus baseline, in score units."""
    agreement: float | None
    """Share of pairs in which the reward model agrees; None where no pair is known."""
    pairs: int
    judge: str
    """`preferences` where the category has such pairs, else `figures`; empty for no pairs."""


def own_pairs(records: dict[str, list[AnswerRecord]]) -> list[JudgedPair]:
    """Return the pairs of models' answers to one prompt of which the figure checker finds exactly one right.

    Args:
        records: Model -> its answers, all models on the same prompts in the same order.
    """
    pairs = []
    for answers in zip(*records.values(), strict=True):
        for one, other in combinations(answers, 2):
            if one.reference and one.is_right != other.is_right:
                better, worse = (one, other) if one.is_right else (other, one)
                pairs.append(
                    JudgedPair(
                        category=one.category,
                        subfield=one.subfield,
                        better=better.score,
                        worse=worse.score,
                        judge="figures",
                    )
                )
    return pairs


def by_category(
    records: dict[str, list[AnswerRecord]], baseline: str, pairs: Sequence[JudgedPair], *, seed: int
) -> list[CategoryFigures]:
    """Return the figures of every model but the baseline, for each category and each of its sub-fields.

    Args:
        records: Model -> its answers, all models on the same prompts in the same order.
        baseline: The model that gains are taken against.
        pairs: Pairs with a known better answer.
        seed: Of the bootstrap intervals.
    """
    cells = {Cell(one.category) for one in records[baseline]}
    cells |= {Cell(one.category, one.subfield) for one in records[baseline] if one.subfield}
    figures = []
    for name, answers in records.items():
        if name == baseline:
            continue
        for cell in sorted(cells):
            both = [
                (one, other)
                for one, other in zip(answers, records[baseline], strict=True)
                if one.category == cell.category and cell.subfield in (OTHERS, one.subfield)
            ]
            rights = [float(one.is_right) - float(other.is_right) for one, other in both if one.reference]
            agreement, count, judge = _agreement(cell, pairs)
            figures.append(
                CategoryFigures(
                    model=name,
                    baseline=baseline,
                    category=cell.category,
                    subfield=cell.subfield,
                    answers=len(both),
                    referenced=len(rights),
                    right_gain=bootstrap(rights, seed=seed) if rights else None,
                    reward_gain=bootstrap([one.score - other.score for one, other in both], seed=seed),
                    agreement=agreement,
                    pairs=count,
                    judge=judge,
                )
            )
    return figures


def _agreement(cell: Cell, pairs: Sequence[JudgedPair]) -> tuple[float | None, int, str]:
    """Agreement in a cell, number of pairs and who judged; preferences before the figure checker."""
    own = [one for one in pairs if one.category == cell.category and cell.subfield in (OTHERS, one.subfield)]
    for judge in ("preferences", "figures"):
        agreed = [one.agrees for one in own if one.judge == judge]
        if agreed:
            return sum(agreed) / len(agreed), len(agreed), judge
    return None, 0, ""
