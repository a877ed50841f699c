"""Packing and drawing: nothing cut, nothing lost, little room empty, shares kept, and the same again from the seed."""

import random
from collections import Counter

import numpy as np
import pytest

from finlm.drawing import Drawing, Picked
from finlm.packing import best_fit


def test_best_fit_by_hand() -> None:
    # sorted: 7 6 5 4 3 2 2 into rows of 10. 7 | 6 | 5; 4 fits 6 exactly; 3 fits 7 exactly; 2 and 2 go to 5
    rows = best_fit([2, 7, 4, 6, 2, 3, 5], 10)
    assert [sorted(row) for row in rows] == [[1, 5], [2, 3], [0, 4, 6]]


def test_the_fullest_row_that_fits_takes_it() -> None:
    # 8 and 7 begin rows with 2 and 3 left; 2 belongs where it fills up
    assert [sorted(row) for row in best_fit([7, 8, 2], 10)] == [[1, 2], [0]]


@pytest.mark.parametrize("room", [1, 17, 256, 2048])
def test_every_sample_once_and_never_over_the_room(room: int) -> None:
    rng = random.Random(room)
    lengths = [rng.randint(1, room) for _ in range(500)]
    rows = best_fit(lengths, room)
    assert sorted(place for row in rows for place in row) == list(range(500))
    totals = [sum(lengths[place] for place in row) for row in rows]
    assert max(totals) <= room
    least = -(-sum(lengths) // room)
    assert len(rows) <= 11 / 9 * max(least, sum(length > room / 2 for length in lengths)) + 1
    # any two rows together are over the room, or one would have taken the other's: at most one is half empty
    assert sum(total <= room / 2 for total in totals) <= 1


def test_what_does_not_fit_is_refused() -> None:
    for lengths in ([5, 11], [0]):
        with pytest.raises(ValueError, match="a row holds 1 to 10"):
            best_fit(lengths, 10)


def lengths() -> dict[str, list[int]]:
    rng = random.Random(1)
    return {
        "text-general": [256] * 40 + [rng.randint(20, 255) for _ in range(60)],
        "text-finance": [rng.randint(1, 256) for _ in range(30)],
        "instructions-finance": [rng.randint(10, 120) for _ in range(400)],
    }


SHARES = {"text-general": 0.3, "text-finance": 0.1, "instructions-finance": 0.6}


def drawing(seed: int = 0) -> Drawing:
    return Drawing(lengths(), room=256, rows=16, seed=seed)


def test_each_step_has_its_rows_and_the_shares_hold_in_tokens() -> None:
    one, sizes = drawing(), lengths()
    tokens: Counter[str] = Counter()
    for step in range(60):
        rows = one.step(SHARES)
        assert len(rows) == 16
        for row in rows:
            assert sum(sizes[picked.stream][picked.place] for picked in row) <= 256
        here: Counter[str] = Counter()
        for picked in (picked for row in rows for picked in row):
            here[picked.stream] += sizes[picked.stream][picked.place]
        tokens += here
        assert len(here) == 3, f"step {step} misses a stream"
    total = sum(tokens.values())
    assert one.tokens == total
    assert total / (60 * 16 * 256) > 0.97
    for name, share in SHARES.items():
        assert tokens[name] / total == pytest.approx(share, abs=0.02)


def test_nothing_waits_for_long_and_a_pass_ends_before_the_next_begins() -> None:
    one, sizes = drawing(), lengths()
    seen: list[Picked] = [picked for _ in range(40) for row in one.step(SHARES) for picked in row]
    for name, its in sizes.items():
        counts = Counter(picked.place for picked in seen if picked.stream == name)
        full = int(one.passes[name])
        # the current pass, and what waits for the next step, may be one short
        assert set(counts.values()) <= {full - 1, full, full + 1}
        assert one.passes[name] * len(its) == pytest.approx(sum(counts.values()), abs=16)


def test_equal_seeds_draw_equally_whatever_the_steps_before_were_called_for() -> None:
    one, other = drawing(), drawing()
    first = [one.step(SHARES) for _ in range(10)]
    assert [other.step(SHARES) for _ in range(10)] == first
    assert drawing(1).step(SHARES) != first[0]


def test_a_new_round_counts_afresh() -> None:
    one = drawing()
    for _ in range(10):
        one.step(SHARES)
    one.begin_round()
    for _ in range(20):
        one.step({"text-general": 0.0, "text-finance": 0.5, "instructions-finance": 0.5})
    total = sum(tally.tokens for tally in one.tallies.values())
    assert one.tallies["text-general"].tokens == 0
    assert one.tallies["text-finance"].tokens / total == pytest.approx(0.5, abs=0.01)


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"text-general has a share of 0\.5 and no samples"):
        Drawing({"instructions-general": [5]}, room=8, rows=1, seed=0).step(
            {"text-general": 0.5, "instructions-general": 0.5}
        )
    with pytest.raises(ValueError, match="a sample of text-general has 9 tokens; a row holds 8"):
        Drawing({"text-general": np.array([3, 9])}, room=8, rows=1, seed=0)
