"""A judge that knows words and no order: logistic regression on which tokens an answer has, and how often.

    P(better) = sigmoid(w . (f(better) - f(worse))),   f(answer)_v = log(1 + times of token v)

Without an intercept, so that turning a pair turns its probability. Damped counts beat plain ones on published
preferences (docs/journal.md), and the sum of a text's counts, its length, can still be read off. The model's own
tokenizer cuts Chinese as fairly as English.

    minimise  mean_n log(1 + exp(-w . x_n)) + penalty / 2 |w|^2
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from finlm.records import content_id

PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)
FOLDS = 5
GRADIENT = 1e-6
"""The fit ends where no component of the gradient is larger."""

Numbers = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TokenPair:
    """A pair as the tokens of its answers.

    Example:
        TokenPair(group="Acme", better=(40, 9, 2), worse=(41, 2))
    """

    group: str
    """What may not be fitted and validated on at once: the prompt's group, or the prompt."""
    better: tuple[int, ...]
    worse: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class BagOfWords:
    """A fitted judge.

    Example:
        BagOfWords(weights={40: 0.3, 41: -0.2}, penalty=0.01, accuracies={0.01: 0.58, 0.1: 0.57}, groups=812)
    """

    weights: dict[int, float]
    """By token; one that was never seen in training weighs nothing."""
    penalty: float
    accuracies: dict[float, float]
    """Accuracy on groups left out of the fit, by penalty; empty where there was one group only."""
    groups: int
    """Groups it learned from."""

    def score(self, ids: Sequence[int]) -> float:
        """Return the score of an answer; the difference of two is the log-odds that the first is better."""
        return float(
            sum(np.log1p(times) * self.weights.get(token, 0.0) for token, times in sorted(Counter(ids).items()))
        )


def fit(
    pairs: Sequence[TokenPair], *, seed: int, penalties: Sequence[float] = PENALTIES, folds: int = FOLDS
) -> BagOfWords:
    """Fit the judge, with the penalty that does best on groups left out in turn; of equals the strongest.

    Args:
        pairs: What to learn from.
        seed: Which groups are left out together.
        penalties: To choose from.
        folds: Times that groups are left out; as many as there are groups at most.

    Raises:
        ValueError: There are no pairs.
    """
    if not pairs:
        raise ValueError("no pairs to fit a bag of words to")
    rows = Rows.of(pairs)
    fold_of = folds_of([pair.group for pair in pairs], folds=folds, seed=seed)
    strongest_first = sorted(penalties, reverse=True)
    groups = len({pair.group for pair in pairs})
    right = dict.fromkeys(strongest_first, 0.0)
    for fold in sorted(set(fold_of.tolist())) if groups > 1 else []:
        inside, outside = rows.take(fold_of != fold), rows.take(fold_of == fold)
        weights: Numbers = np.zeros(rows.width)
        for penalty in strongest_first:  # each fit begins where the stronger one ended
            weights = minimise(inside, penalty, start=weights)
            leads = outside.times(weights)
            right[penalty] += float((leads > 0).sum() + 0.5 * (leads == 0).sum())
    best = max(strongest_first, key=lambda penalty: right[penalty])
    fitted = minimise(rows, best, start=np.zeros(rows.width))
    return BagOfWords(
        weights={int(token): float(weight) for token, weight in zip(rows.tokens, fitted, strict=True)},
        penalty=best,
        accuracies={penalty: right[penalty] / len(pairs) for penalty in sorted(penalties)} if groups > 1 else {},
        groups=groups,
    )


def folds_of(groups: Sequence[str], *, folds: int, seed: int) -> Places:
    """Return the fold of each group's pairs, from 0; folds have equally many groups, as far as that goes."""
    ranked = sorted(set(groups), key=lambda group: content_id(seed, "fold", group))
    fold_of = {group: place % folds for place, group in enumerate(ranked)}
    return np.array([fold_of[group] for group in groups], dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Rows:
    """A sparse matrix, one row a pair: x = f(better) - f(worse)."""

    tokens: Places
    """The token of each column."""
    column: Places
    """Of each entry, row by row."""
    value: Numbers
    row: Places
    """Of each entry."""
    count: int
    """Rows; one without an entry has equal answers to it."""

    @classmethod
    def of(cls, pairs: Sequence[TokenPair]) -> "Rows":
        """Return the rows of pairs."""
        tokens: list[int] = []
        values: list[float] = []
        rows: list[int] = []
        for row, pair in enumerate(pairs):
            better, worse = Counter(pair.better), Counter(pair.worse)
            changed = sorted(token for token in better.keys() | worse.keys() if better[token] != worse[token])
            tokens += changed
            values += [float(np.log1p(better[token]) - np.log1p(worse[token])) for token in changed]
            rows += [row] * len(changed)
        known, column = np.unique(np.array(tokens, dtype=np.int64), return_inverse=True)
        return cls(known, column.astype(np.int64), np.array(values), np.array(rows, dtype=np.int64), len(pairs))

    @property
    def width(self) -> int:
        """Columns."""
        return len(self.tokens)

    def take(self, is_taken: npt.NDArray[np.bool_]) -> "Rows":
        """Return some of the rows, with all columns."""
        entries = is_taken[self.row]
        number = np.cumsum(is_taken) - 1
        row = number[self.row[entries]]
        return Rows(self.tokens, self.column[entries], self.value[entries], row, int(is_taken.sum()))

    def times(self, weights: Numbers) -> Numbers:
        """X w."""
        product = np.bincount(self.row, weights=self.value * weights[self.column], minlength=self.count)
        return product.astype(np.float64)  # without an entry it would count in integers

    def transposed_times(self, numbers: Numbers) -> Numbers:
        """X' g."""
        product = np.bincount(self.column, weights=self.value * numbers[self.row], minlength=self.width)
        return product.astype(np.float64)


def objective(rows: Rows, weights: Numbers, penalty: float) -> float:
    """Return the mean loss and the penalty."""
    loss = np.logaddexp(0.0, -rows.times(weights)).mean()
    return float(loss + penalty / 2 * weights @ weights)


def minimise(rows: Rows, penalty: float, *, start: Numbers, most_steps: int = 100) -> Numbers:
    """Return the weights of the least objective, by Newton's method with conjugate gradients (Nocedal and Wright 2006,
    algorithm 7.1). The objective is strictly convex, so there is one."""
    weights = start
    value = objective(rows, weights, penalty)
    for _ in range(most_steps):
        wrong = 1 / (1 + np.exp(np.clip(rows.times(weights), -500, 500)))
        gradient = penalty * weights - rows.transposed_times(wrong) / rows.count
        if np.abs(gradient).max(initial=0.0) <= GRADIENT:
            break
        curvature = wrong * (1 - wrong) / rows.count
        step = _newton_step(rows, curvature, penalty, gradient)
        slope, length = float(gradient @ step), 1.0
        while (tried := objective(rows, weights + length * step, penalty)) > value + 1e-4 * length * slope:
            length /= 2
            if length < 1e-8:  # nothing to gain beyond rounding
                return weights
        weights, value = weights + length * step, tried
    return weights


def _newton_step(rows: Rows, curvature: Numbers, penalty: float, gradient: Numbers) -> Numbers:
    """Solve (X' C X + penalty) step = -gradient, the more exactly the smaller the gradient."""
    norm = float(np.linalg.norm(gradient))
    wanted = min(0.5, norm**0.5) * norm
    step = np.zeros_like(gradient)
    rest = -gradient
    direction = rest
    squared = float(rest @ rest)
    for _ in range(len(gradient)):
        if squared**0.5 <= wanted:
            break
        bent = rows.transposed_times(curvature * rows.times(direction)) + penalty * direction
        along = squared / float(direction @ bent)
        step = step + along * direction
        rest = rest - along * bent
        squared, before = float(rest @ rest), squared
        direction = rest + squared / before * direction
    return step
