"""The bag of words against other optimisers, the baselines by hand, and the verdict's three endings."""

import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from judging import judged

from reward import bag_of_words, baselines
from reward.bag_of_words import BagOfWords, Rows, TokenPair, fit, folds_of, minimise
from reward.fitted_words import fitted
from reward.judged import Judged


def texts(count: int, *, good: int = 7, strength: float = 2.0, seed: int = 0) -> list[TokenPair]:
    """Answers of random tokens; the one with token `good` more often tends to be the better one."""
    draw = random.Random(seed)
    pairs = []
    for number in range(count):
        one, other = (tuple(draw.randrange(20) for _ in range(draw.randrange(5, 30))) for _ in range(2))
        lead = strength * (math.log1p(one.count(good)) - math.log1p(other.count(good)))
        sides = (one, other) if draw.random() < 1 / (1 + math.exp(-lead)) else (other, one)
        pairs.append(TokenPair(f"g{number // 3}", *sides))
    return pairs


def dense(rows: Rows) -> np.ndarray:
    found = np.zeros((rows.count, rows.width))
    found[rows.row, rows.column] = rows.value
    return found


# ---------------------------------------------------------------------------------------------------- bag of words


def test_features_by_hand() -> None:
    rows = Rows.of([TokenPair("g", (5, 5, 9), (9, 3)), TokenPair("g", (1,), (1,)), TokenPair("g", (3,), (5,))])
    two, one = math.log(3), math.log(2)
    assert rows.tokens.tolist() == [3, 5]  # 9 and 1 stand in both answers as often
    np.testing.assert_allclose(dense(rows), [[-one, two], [0, 0], [one, -one]])
    weights = np.array([0.5, -2.0])
    np.testing.assert_allclose(rows.times(weights), dense(rows) @ weights)
    np.testing.assert_allclose(rows.transposed_times(np.array([1.0, 2.0, 3.0])), dense(rows).T @ [1.0, 2.0, 3.0])
    np.testing.assert_allclose(dense(rows.take(np.array([False, True, True]))), dense(rows)[1:])


@pytest.mark.parametrize("penalty", [1e-3, 1e-1, 10.0])
def test_the_minimum_is_where_torch_finds_it(penalty: float) -> None:
    rows = Rows.of(texts(150))
    table = torch.tensor(dense(rows))
    weights = torch.zeros(rows.width, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([weights], max_iter=500, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        solver.zero_grad()
        loss = -torch.nn.functional.logsigmoid(table @ weights).mean() + penalty / 2 * weights.square().sum()
        loss.backward()
        return loss

    solver.step(closure)  # type: ignore[arg-type]
    found = minimise(rows, penalty, start=np.zeros(rows.width))
    np.testing.assert_allclose(found, weights.detach().numpy(), atol=1e-4 / penalty**0.5)
    again = minimise(rows, penalty, start=np.full(rows.width, 3.0))
    np.testing.assert_allclose(found, again, atol=1e-4 / penalty**0.5)


def test_the_minimum_is_where_scikit_learn_finds_it() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    rows = Rows.of(texts(200, seed=1))
    both = np.concatenate([dense(rows), -dense(rows)])
    labels = [1] * rows.count + [0] * rows.count
    penalty = 0.02
    wanted = linear.LogisticRegression(fit_intercept=False, C=1 / (2 * rows.count * penalty), tol=1e-10, max_iter=5000)
    found = minimise(rows, penalty, start=np.zeros(rows.width))
    np.testing.assert_allclose(found, wanted.fit(both, labels).coef_[0], atol=1e-4)


def test_it_finds_the_word_that_matters() -> None:
    words = fit(texts(600), seed=0)
    assert max(words.weights, key=lambda token: words.weights[token]) == 7
    assert words.accuracies[words.penalty] == max(words.accuracies.values()) > 0.6
    assert words.groups == 200
    assert words.score((7, 7)) == pytest.approx(math.log(3) * words.weights[7])
    assert words.score((7, 9999)) == pytest.approx(math.log(2) * words.weights[7])
    assert words.score(()) == 0


def test_noise_is_not_learned_across_groups() -> None:
    """Without anything to learn, accuracy on groups left out stays at chance, though the fit itself is above it."""
    pairs = texts(900, strength=0.0)
    words = fit(pairs, seed=0)
    assert max(words.accuracies.values()) < 0.56
    rows = Rows.of(pairs)
    assert (rows.times(minimise(rows, 1e-3, start=np.zeros(rows.width))) > 0).mean() > 0.54


def test_a_group_is_left_out_as_a_whole() -> None:
    groups = [f"g{number % 17}" for number in range(100)]
    folds = folds_of(groups, folds=5, seed=0)
    for group in set(groups):
        assert len({int(fold) for fold, its in zip(folds, groups, strict=True) if its == group}) == 1
    sizes = [len({g for g, fold in zip(groups, folds, strict=True) if fold == k}) for k in range(5)]
    assert sorted(sizes) == [3, 3, 3, 4, 4]
    assert folds.tolist() == folds_of(groups, folds=5, seed=0).tolist()
    assert folds.tolist() != folds_of(groups, folds=5, seed=1).tolist()


def test_one_group_and_none() -> None:
    only = fit([TokenPair("g", (1, 2), (2, 3)), TokenPair("g", (1,), (3,))], seed=0)
    assert (only.penalty, only.accuracies, only.groups) == (1.0, {}, 1)
    assert only.weights[1] > 0 > only.weights[3]
    assert "1 group leaves none to validate on" in baselines.told(only)
    same = fit([TokenPair(name, (1,), (1,)) for name in "abc"], seed=0)
    assert same.weights == {}
    assert "on groups left out in turn (0.001: 0.500" in baselines.told(same)
    with pytest.raises(ValueError, match="no pairs to fit a bag of words to"):
        fit([], seed=0)


def test_a_bag_of_words_is_fitted_once_for_all_runs_on_the_same_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = texts(60)
    first = fitted(pairs, tmp_path / "words")
    assert first == fit(pairs, seed=0)
    with monkeypatch.context() as without:
        without.setattr(bag_of_words, "fit", None)
        assert fitted(list(pairs), tmp_path / "words") == first
    other = fitted(pairs[:-1], tmp_path / "words")
    assert other != first
    files = sorted((tmp_path / "words").iterdir())
    assert len(files) == 2
    for file in files:
        file.write_bytes(file.read_bytes()[:50])  # it is fitted again, whatever had happened to the file
    assert fitted(pairs, tmp_path / "words") == first


# ------------------------------------------------------------------------------------------------------- baselines


def test_longer_answers_by_hand() -> None:
    records = [
        judged("a", -1.0, tokens=(12, 9)),
        judged("b", 1.0, tokens=(9, 12), source="t"),
        judged("c", 1.0, tokens=(8, 8), source="t"),
        judged("d", 1.0, tokens=(90, 8), strength=0),
    ]
    found = baselines.baseline(baselines.LONGER, records, baselines.longer(records), seed=0)
    assert found.accuracy.mean == pytest.approx((1 + 0 + 0.5) / 3)
    assert found.macro.mean == pytest.approx((1 + 0.25) / 2)
    assert found.ahead.mean == pytest.approx((-1 + 1 + 0.5) / 3)
    assert found.ahead_macro.mean == pytest.approx((-1 + 0.75) / 2)
    assert found.ahead_matched is not None
    assert (found.ahead_matched.mean, found.ahead_matched.pairs) == (0.5, 1)
    assert {name: one.mean for name, one in found.by_source.items()} == {"s": 1.0, "t": 0.25}
    assert not found.is_beaten  # three prompts tell nothing


def test_words_judge_by_the_tokens_of_each_answer() -> None:
    words = BagOfWords(weights={1: 2.0, 2: -1.0}, penalty=1.0, accuracies={}, groups=1)
    record = judged("a", -1.0)
    (found,) = baselines.by_words([record], words, {"a": ((1, 1), (1, 2))})
    assert (found.better, found.worse) == (pytest.approx(2 * math.log(3)), pytest.approx(math.log(2)))


def test_other_pairs_are_refused() -> None:
    records = [judged("a", 1.0), judged("b", 1.0)]
    with pytest.raises(ValueError, match="the model and the bag of words were not asked about the same pairs"):
        baselines.baseline(baselines.WORDS, records, records[::-1], seed=0)


def model_of(right: float, longer_right: float, seed: int = 0) -> list[Judged]:
    """400 pairs on which the model and the longer answer are right at random."""
    draw = random.Random(seed)
    return [
        judged(
            f"p{number}",
            1.0 if draw.random() < right else -1.0,
            tokens=(20, 10) if draw.random() < longer_right else (10, 20),
            source=draw.choice("st"),
        )
        for number in range(400)
    ]


def test_the_verdict_tells_all_some_or_none() -> None:
    records = model_of(0.8, 0.5)
    longer = baselines.baseline("longer answer", records, baselines.longer(records), seed=0)
    same = baselines.baseline("bag of words", records, records, seed=0)
    assert longer.is_beaten
    assert baselines.verdict([longer]).startswith(
        "The reward model beats the longer answer: ahead of the longer answer"
    )
    some = baselines.verdict([longer, same])
    assert some.startswith("The reward model beats the longer answer (")
    assert "but not the bag of words: ahead of the bag of words by +0.000 (no interval) over all pairs" in some
    assert some.endswith("Its preferences are not shown to hold more than that.")
    records = model_of(0.62, 0.62)
    none = [baselines.baseline(name, records, baselines.longer(records), seed=0) for name in ("one", "two")]
    assert baselines.verdict(none).startswith("The reward model does not beat the one or the two: ahead of the one by ")
    worse = model_of(0.5, 0.9)
    assert baselines.baseline("x", worse, baselines.longer(worse), seed=0).ahead.is_below(0)


def test_a_large_set_alone_does_not_beat_a_baseline() -> None:
    """Ahead on a set of 2,000 pairs, behind on two small ones: it leads over all pairs, not over the sources."""
    draw = random.Random(0)
    records = []
    for source, count, right in (("large", 2000, 0.8), ("small", 60, 0.3), ("other", 60, 0.3)):
        records += [
            judged(
                f"{source}{number}",
                1.0 if draw.random() < right else -1.0,
                source=source,
                tokens=(20, 10) if draw.random() < 0.5 else (10, 20),
            )
            for number in range(count)
        ]
    found = baselines.baseline("longer answer", records, baselines.longer(records), seed=0)
    assert found.ahead.is_above(0)
    assert not found.is_beaten
