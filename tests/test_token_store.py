"""Encoded samples come back from disk as they were, and a torn folder is not taken for a whole one."""

from pathlib import Path

import numpy as np
import pytest

from finlm import runs, token_store
from finlm.records import Removal
from finlm.samples import Sample


def drawn(count: int) -> list[tuple[Sample, str]]:
    rng = np.random.default_rng(0)
    made = []
    for number in range(count):
        ids = rng.integers(2, 400, rng.integers(1, 40), dtype=np.int32)
        learned = rng.random(len(ids)) < 0.5
        made.append(
            (
                Sample("text-finance", ids, learned, f"r{number}", ("en", "zh")[number % 2], f"a.jsonl:{number}"),
                f"g{number % 3}",
            )
        )
    return made


@pytest.mark.parametrize("count", [0, 1, 30])
def test_what_is_written_comes_back(tmp_path: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_store, "FLUSH", 7)
    samples = drawn(count)
    removal = Removal(record_id="x", rule="empty", reason="a.jsonl:9: a user turn is empty")
    token_store.write(tmp_path / "store", [*samples[:3], removal, *samples[3:]])
    assert runs.damage(tmp_path / "store") is None
    store = token_store.TokenStore(tmp_path / "store", "text-finance")
    assert len(store) == count
    assert store.removals == [removal]
    assert store.lengths.tolist() == [len(sample) for sample, _ in samples]
    for place, (sample, group) in enumerate(samples):
        found = store[place]
        assert np.array_equal(found.ids, sample.ids)
        assert found.is_learned.dtype == np.bool_
        assert np.array_equal(found.is_learned, sample.is_learned)
        assert (found.stream, found.record_id, found.language, found.place) == (
            sample.stream, sample.record_id, sample.language, sample.place,
        )  # fmt: skip
        assert store.notes[place].group == group
        assert found.learned == sample.learned


def test_a_damaged_store_is_noticed(tmp_path: Path) -> None:
    token_store.write(tmp_path / "store", drawn(5))
    with (tmp_path / "store" / "ids.npy").open("r+b") as file:
        file.truncate(140)
    assert runs.damage(tmp_path / "store") is not None
