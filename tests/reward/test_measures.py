"""Accuracy, margin, parts, intervals: arithmetic by hand, another bootstrap, and what must not change them."""

import math
import random
import statistics
from dataclasses import replace
from pathlib import Path

import pytest
from judging import judged, pair, votes

from finlm import jsonl
from finlm.errors import UserError
from reward import intervals, measures
from reward.judged import Judged, decided, read_judged, write_judged
from reward.judged import judged as judged_of


def some(count: int, seed: int = 0) -> list[Judged]:
    """Random pairs, up to three a prompt."""
    draw = random.Random(seed)
    return [
        judged(
            f"p{number:03}",
            draw.gauss(0.3, 1),
            prompt=f"q{draw.randrange(1, count // 2):03}",
            source=draw.choice("abc"),
            strength=draw.choice((0, 1, 2, 3)),
            tokens=(draw.randrange(1, 700), draw.randrange(1, 700)),
            worse=draw.gauss(0, 1),
        )
        for number in range(count)
    ]


# ------------------------------------------------------------------------------------------------------ the record


def test_a_record_takes_everything_from_its_pair(tmp_path: Path) -> None:
    one = replace(pair("yes", "no", language="zh", strength=3), votes=votes("++-"))
    record = judged_of(one, better_tokens=4, worse_tokens=3, better=0.5, worse=-0.25)
    assert (record.pair_id, record.prompt_id, record.group, record.language) == (one.id, one.prompt.id, "g", "zh")
    assert (record.category, record.source, record.strength, record.votes) == ("general", "s", 3, one.votes)
    assert (record.lead, record.hit) == (0.75, 1.0)
    write_judged(tmp_path, [record])
    assert read_judged(tmp_path) == [record]
    assert read_judged(tmp_path / "nowhere") == []


def test_scores_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match="both must be finite"):
            judged("p", bad)
    with pytest.raises(ValueError, match="answers of -1 and 3 tokens"):
        judged("p", 0.5, tokens=(-1, 3))
    (tmp_path / "judged.jsonl").write_text('{"pair_id": "p"}\n')
    with pytest.raises(UserError, match=r"judged\.jsonl:1: not a valid Judged"):
        read_judged(tmp_path)


# ------------------------------------------------------------------------------------------------------- intervals


def test_an_interval_of_single_pairs_is_the_normal_one() -> None:
    draw = random.Random(1)
    numbers = [draw.gauss(2, 3) for _ in range(400)]
    found = intervals.by_prompt(numbers, [str(number) for number in range(400)], seed=0)
    half = 1.96 * statistics.stdev(numbers) / 400**0.5
    assert found.mean == pytest.approx(statistics.fmean(numbers))
    assert found.low is not None
    assert found.high is not None
    assert found.low == pytest.approx(found.mean - half, abs=half / 10)
    assert found.high == pytest.approx(found.mean + half, abs=half / 10)


def test_prompts_of_many_pairs_give_the_interval_of_a_ratio() -> None:
    """Clusters of unequal size: the linearised standard error of sum / count (Cochran 1977, 6.4)."""
    draw = random.Random(2)
    numbers, prompts = [], []
    for prompt in range(300):
        common = draw.gauss(0, 1)
        for _ in range(draw.randrange(1, 8)):
            numbers.append(common + draw.gauss(0, 0.3))
            prompts.append(str(prompt))
    found = intervals.by_prompt(numbers, prompts, seed=3)
    mean, count = statistics.fmean(numbers), len(numbers)
    rest = [sum(n - mean for n, p in zip(numbers, prompts, strict=True) if p == str(prompt)) for prompt in range(300)]
    half = 1.96 * math.sqrt(300 / 299 * sum(one**2 for one in rest)) / count
    naive = 1.96 * statistics.stdev(numbers) / count**0.5
    assert found.low is not None
    assert found.high is not None
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.1)
    assert (found.high - found.low) / 2 > 1.5 * naive


def test_copies_and_order_tell_nothing_new() -> None:
    """Ten copies of each number of a prompt are no more evidence than one."""
    draw = random.Random(3)
    numbers = [float(draw.random() < 0.7) for _ in range(60)]
    prompts = [str(draw.randrange(40)) for _ in range(60)]
    once = intervals.by_prompt(numbers, prompts, seed=5)
    order = draw.sample(range(60), 60)
    shuffled = intervals.by_prompt([numbers[k] for k in order], [prompts[k] for k in order], seed=5)
    often = intervals.by_prompt(numbers * 10, prompts * 10, seed=5)
    assert shuffled == once
    assert replace(often, pairs=60) == once
    assert intervals.by_prompt(numbers, prompts, seed=6) != once


def test_there_is_no_interval_where_resampling_cannot_tell() -> None:
    assert intervals.by_prompt([0.0, 1.0, 1.0, 1.0], list("abcd"), seed=0).low is None
    assert intervals.by_prompt([0.0, 1.0, 1.0, 1.0, 1.0], list("abcde"), seed=0).low is not None
    same = intervals.by_prompt([1.0] * 30, [str(number) for number in range(30)], seed=0)
    assert (same.low, same.high, same.is_above(0.5), same.is_below(2)) == (None, None, False, False)
    with pytest.raises(ValueError, match="no numbers to take an interval of"):
        intervals.by_prompt([], [], seed=0)


def test_the_bootstrap_is_scipys() -> None:
    """SciPy resamples the same clusters with its own code: sums and counts drawn together, percentiles."""
    numpy, stats = pytest.importorskip("numpy"), pytest.importorskip("scipy.stats")
    draw = random.Random(4)
    prompts = [draw.randrange(80) for _ in range(300)]
    numbers = [float(draw.random() < 0.4 + prompt / 200) for prompt in prompts]
    known = sorted(set(prompts))
    sums = [sum(n for n, p in zip(numbers, prompts, strict=True) if p == prompt) for prompt in known]
    counts = [prompts.count(prompt) for prompt in known]
    wanted = stats.bootstrap(
        (numpy.array(sums), numpy.array(counts)),
        lambda one, other, axis: one.sum(axis=axis) / other.sum(axis=axis),
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=20_000,
        rng=numpy.random.default_rng(0),
    ).confidence_interval
    found = intervals.by_prompt(numbers, [str(prompt) for prompt in prompts], seed=1, draws=20_000)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=0.003)


def test_a_macro_average_counts_each_part_the_same() -> None:
    many, few = [1.0] * 90 + [0.0] * 10, [0.0] * 5 + [1.0] * 5
    parts = {
        "many": (many, [f"m{number}" for number in range(100)]),
        "few": (few, [f"f{number}" for number in range(10)]),
        "none": ([], []),
    }
    found = intervals.macro(parts, seed=0)
    assert (found.mean, found.pairs, found.prompts) == (pytest.approx(0.7), 110, 110)
    # variance of the mean of two means: a quarter of the sum of theirs
    half = 1.96 * math.sqrt(0.9 * 0.1 / 100 + 0.5 * 0.5 / 10) / 2
    assert found.low is not None
    assert found.low == pytest.approx(0.7 - half, abs=0.02)
    turned = intervals.macro(dict(reversed(parts.items())), seed=0)
    assert turned == found
    assert intervals.macro({"few": ([0.0, 1.0], ["a", "b"]), "many": parts["many"]}, seed=0).low is None
    with pytest.raises(ValueError, match="no numbers to take a mean of"):
        intervals.macro({"none": ([], [])}, seed=0)


# --------------------------------------------------------------------------------------------------------- figures


def test_figures_by_hand() -> None:
    """Scores 1, 0 | 2, 2 | 0, 3 and one of strength 0: hits 1, 1/2, 0, leads 1, 0, -3, six scores of mean 8/6."""
    records = [
        judged("one", 1.0, source="a", strength=1),
        judged("two", 0.0, worse=2.0, source="a", strength=3),
        judged("three", -3.0, worse=3.0, source="b", strength=3, tokens=(100, 10)),
        judged("four", 5.0, source="b", strength=0),
    ]
    found = measures.measure(records, seed=0)
    assert found.accuracy.mean == pytest.approx(1.5 / 3)
    assert (found.accuracy.pairs, found.undecided) == (3, 1)
    assert found.macro.mean == pytest.approx((0.75 + 0) / 2)
    assert found.margin.mean == pytest.approx(-2 / 3)
    assert found.mean == pytest.approx(8 / 6)
    assert found.std == pytest.approx(math.sqrt((1 + 4 + 4 + 9 - 64 / 6) / 5))
    assert found.matched is not None
    assert (found.matched.mean, found.matched.pairs) == (0.75, 2)
    assert [(part.name, part.accuracy.mean) for part in found.slices_by("strength")] == [
        ("0", 1),
        ("1", 1),
        ("3", 0.25),
    ]
    assert [part.name for part in found.slices_by("source, matched length")] == ["a"]
    assert [(part.name, part.accuracy.pairs) for part in found.slices_by("length difference")] == [
        ("within 10%", 2),
        ("better over 50% longer", 1),
    ]


def test_order_changes_nothing_and_swapping_turns_everything() -> None:
    records = some(120)
    found = measures.measure(records, seed=1)
    assert measures.measure(random.Random(7).sample(records, 120), seed=1) == found
    swapped = measures.measure([record.scored(record.worse, record.better) for record in records], seed=1)
    assert swapped.accuracy.mean == pytest.approx(1 - found.accuracy.mean)
    assert swapped.margin.mean == pytest.approx(-found.margin.mean)
    assert (swapped.mean, swapped.std) == (pytest.approx(found.mean), pytest.approx(found.std))
    moved = measures.measure([record.scored(record.better + 5, record.worse + 5) for record in records], seed=1)
    assert moved.accuracy == found.accuracy
    assert moved.margin.mean == pytest.approx(found.margin.mean)


def test_parts_add_up_to_the_whole() -> None:
    records = some(200, seed=3)
    found = measures.measure(records, seed=1)
    for by in ("category", "language", "source", "length difference", "length"):
        parts = found.slices_by(by)
        assert sum(part.accuracy.pairs for part in parts) == found.accuracy.pairs
        hits = sum(part.accuracy.mean * part.accuracy.pairs for part in parts)
        assert hits == pytest.approx(found.accuracy.mean * found.accuracy.pairs)
    assert sum(part.accuracy.pairs for part in found.slices_by("strength")) == 200
    names = [part.name for part in found.slices_by("length")]
    assert names == [name for name in measures.length_names() if name in names]


def test_undecided_pairs_alone_cannot_be_measured() -> None:
    with pytest.raises(ValueError, match="none of the 1 pairs has a better answer"):
        measures.measure([judged("one", 1.0, strength=0)], seed=0)


@pytest.mark.parametrize(
    ("tokens", "share", "wanted"),
    [
        ((10, 11), 0.1, True),
        ((30, 33), 0.1, True),
        ((10, 12), 0.1, False),
        ((11, 10), 0.1, True),
        ((9, 10), 0.1, False),
        ((7, 7), 0.0, True),
        ((0, 5), 0.1, False),
        ((10, 14), 0.4, True),
        ((0, 0), 0.1, False),
    ],
)
def test_matched_length(tokens: tuple[int, int], share: float, wanted: bool) -> None:
    assert measures.is_matched(judged("p", 1.0, tokens=tokens), share) is wanted


def test_buckets_of_length() -> None:
    def bucket(*tokens: int) -> str:
        return measures.length_difference(judged("p", 1.0, tokens=(tokens[0], tokens[1])))

    assert bucket(100, 110) == "within 10%"
    assert bucket(100, 111) == "better 10% to 50% shorter"
    assert bucket(150, 100) == "better 10% to 50% longer"
    assert bucket(151, 100) == "better over 50% longer"
    assert bucket(1, 100) == "better over 50% shorter"
    means = [(31, 32, "under 32"), (32, 32, "32 to 63"), (63, 64, "32 to 63"), (64, 64, "64 to 127")]
    means += [(511, 512, "256 to 511"), (512, 512, "512 or more"), (1, 2000, "512 or more")]
    for one, other, wanted in means:
        assert measures.length(judged("p", 1.0, tokens=(one, other))) == wanted


def test_real_preferences_are_measured_as_the_issue_says(shared_data: Path, tmp_path: Path) -> None:
    """Longer-wins, lengths in characters, on the Chinese set: 76 % (data/README.md tells of the sets)."""
    from annotation import importing
    from finlm.records import PreferencePair

    importing.main(
        importing.ImportSettings(
            runs=str(tmp_path),
            input=str(shared_data / "preferences" / "oasst_zh.jsonl.xz"),
            output=str(tmp_path / "pairs.jsonl"),
            pairs_per_prompt=0,
        )
    )
    records = [
        judged_of(
            one,
            better_tokens=len(one.chosen),
            worse_tokens=len(one.rejected),
            better=len(one.chosen),
            worse=len(one.rejected),
        )
        for one in jsonl.read(tmp_path / "pairs.jsonl", PreferencePair)
    ]
    found = measures.accuracy(decided(records), seed=0)
    assert found.mean == pytest.approx(0.76, abs=0.01)
    assert found.low is not None
    assert found.high is not None
    assert 0.01 < found.high - found.low < 0.1
