"""Parsed once, kept by content; damage, death and lack of room cost no more than what they hit."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from finlm.errors import UserError
from selfqa import library, reading
from selfqa.blocks import Source
from selfqa.library import Place, Shelf, load, read_all, side_by_side
from selfqa.parse_cache import ParseCache
from selfqa.unread import Unread

TEXTS = [f"Bramble Corp. reported net sales of ${number}.5 million in 2024.\n\nItem {number}\n" for number in range(6)]


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number, text in enumerate(TEXTS):
        (corpus / f"{number}.txt").write_text(text, encoding="utf-8")
    load.cache_clear()
    return Shelf(corpus, tmp_path / "cache")


def files(shelf: Shelf) -> list[Path]:
    return sorted(shelf.corpus.iterdir())


def places(shelf: Shelf) -> list[Place]:
    found = [item for items in read_all(files(shelf), shelf, 1) for item in items]
    assert all(isinstance(item, Place) for item in found)
    return [item for item in found if isinstance(item, Place)]


def entries(shelf: Shelf) -> list[Path]:
    return sorted(path for path in shelf.cache.rglob("*") if path.is_file())


def test_a_file_is_parsed_once_whatever_it_is_called(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    first = [load(shelf, place) for place in places(shelf)]
    direct = [source for path in files(shelf) for source in reading.read_file(path, shelf.corpus)]
    assert first == direct
    assert len(entries(shelf)) == len(TEXTS)

    def parse(path: Path, raw: bytes) -> Iterator[Source]:
        raise AssertionError(f"{path} was parsed again")

    monkeypatch.setattr(reading, "parse", parse)
    (shelf.corpus / "0.txt").rename(shelf.corpus / "a copy.txt")
    load.cache_clear()
    again = [load(shelf, place) for place in places(shelf)]
    assert {source.text for source in again} == set(TEXTS)
    assert "a copy.txt" in {source.path for source in again}


def test_another_version_of_the_reader_takes_no_old_entry(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    places(shelf)
    monkeypatch.setattr("selfqa.parse_cache.reader_version", lambda: "another")
    assert ParseCache(shelf.cache).contents(places(shelf)[0].key) is not None
    assert len(entries(shelf)) == 2 * len(TEXTS)


@pytest.mark.parametrize("harm", ["empty", "cut", "head", "index", "body"])
def test_a_damaged_entry_is_parsed_again(harm: str, shelf: Shelf) -> None:
    place = places(shelf)[0]
    good = load(shelf, place)
    entry = next(path for path in entries(shelf) if path.name == place.key)
    whole = entry.read_bytes()
    at = {"head": 1, "index": 20, "body": len(whole) - 5}
    damaged = {"empty": b"", "cut": whole[:-3]}
    entry.write_bytes(
        damaged.get(harm) if harm in damaged else bytes(byte ^ (255 * (i == at[harm])) for i, byte in enumerate(whole))
    )
    load.cache_clear()
    assert load(shelf, place) == good  # found when it is loaded
    assert entry.read_bytes() == whole
    entry.write_bytes(whole[:-3])
    assert places(shelf)[0] == place  # found by the next run
    assert entry.read_bytes() == whole


def test_a_file_that_changes_under_a_run_is_said(shelf: Shelf) -> None:
    place = places(shelf)[0]
    for entry in entries(shelf):
        entry.unlink()
    place.path.write_text("something else altogether, and long enough to be read", encoding="utf-8")
    with pytest.raises(UserError, match="has changed since this run began"):
        load(shelf, place)
    place.path.unlink()
    with pytest.raises(UserError, match="could be read when this run began"):
        load(shelf, place)


def test_no_room_leaves_nothing_behind(shelf: Shelf) -> None:
    (shelf.corpus / "large.txt").write_bytes(os.urandom(300_000).hex().encode())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            places(shelf)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert len(entries(shelf)) == len(TEXTS)  # those before it, whole
    assert len(places(shelf)) == len(TEXTS) + 1


def shout(path: Path) -> str:
    """Stands for a reader; one file is its death."""
    if path.name == "3.txt":
        os.kill(os.getpid(), signal.SIGKILL)
    return path.read_text(encoding="utf-8").upper()


def test_a_file_that_kills_its_reader_costs_only_itself(shelf: Shelf) -> None:
    told = list(side_by_side(shout, files(shelf), 2))
    assert told == [text.upper() if number != 3 else None for number, text in enumerate(TEXTS)]


def test_two_processes_read_what_one_reads(shelf: Shelf, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (shelf.corpus / "bad.pdf").write_bytes(b"%PDF-1.7\nnot really")
    alone = list(read_all(files(shelf), shelf, 1))
    monkeypatch.setattr(library, "FEW_BYTES", 0)
    other = Shelf(shelf.corpus, tmp_path / "other")
    assert list(read_all(files(other), other, 2)) == alone
    assert [entry.read_bytes() for entry in entries(other)] == [entry.read_bytes() for entry in entries(shelf)]
    (fault,) = [item for items in alone for item in items if isinstance(item, Unread)]
    assert (fault.path, fault.rule) == ("bad.pdf", "file-damaged")


def test_readers_end_with_a_parent_that_is_killed(root: Path, shelf: Shelf) -> None:
    code = """
import os, signal, sys
from pathlib import Path
from selfqa.library import _pool

if __name__ == "__main__":
    pool = _pool(1)
    print(pool.submit(os.getpid).result(), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    script = shelf.corpus / "parent.py"
    script.write_text(code, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(root)}
    # the reader holds the pipe as well, so this waits for both
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, stdout=subprocess.PIPE, timeout=120, check=False
    )
    assert done.returncode == -signal.SIGKILL
    reader = int(done.stdout)
    assert not psutil.pid_exists(reader) or psutil.Process(reader).status() == psutil.STATUS_ZOMBIE
