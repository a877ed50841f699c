"""Signs of life: whoever falls silent is noticed, whoever leaves in order is not."""

import threading
from collections.abc import Callable
from pathlib import Path

from alignment.heartbeat import FOLDER, SILENT_BEATS, Heartbeat


def beating(folder: Path, index: int, on_silence: Callable[[str], None], count: int = 2) -> Heartbeat:
    return Heartbeat(folder, index, count, lambda: None, every_seconds=0.01, on_silence=on_silence)


def test_a_process_that_falls_silent_is_named(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "process-1").write_text("4711 3\n", encoding="ascii")  # killed after its third beat
    told, is_told = [], threading.Event()

    def note(message: str) -> None:
        told.append(message)
        is_told.set()

    with beating(tmp_path, 0, note):
        assert is_told.wait(60)
    (message,) = told
    assert message.startswith("Process 1 has given no sign of life for ")
    assert "The same command goes on from the last checkpoint." in message


def test_processes_that_beat_hear_each_other(tmp_path: Path) -> None:
    told: list[str] = []
    with beating(tmp_path, 0, told.append), beating(tmp_path, 1, told.append):
        files = [tmp_path / FOLDER / f"process-{index}" for index in (0, 1)]
        while any(int((file.read_text("ascii").split() or "00")[-1]) < 5 * SILENT_BEATS for file in files):
            threading.Event().wait(0.01)
    assert told == []
    assert not (tmp_path / FOLDER).exists()


def test_one_that_has_left_in_order_is_not_missed(tmp_path: Path) -> None:
    told: list[str] = []
    with beating(tmp_path, 0, told.append):
        with beating(tmp_path, 1, told.append):
            pass
        file = tmp_path / FOLDER / "process-0"
        while int((file.read_text("ascii").split() or "00")[-1]) < 5 * SILENT_BEATS:
            threading.Event().wait(0.01)
    assert told == []


def test_one_that_left_for_an_error_of_its_own_is_missed(tmp_path: Path) -> None:
    is_told = threading.Event()
    with beating(tmp_path, 0, lambda _: is_told.set()):
        try:
            with beating(tmp_path, 1, lambda _: None):
                raise OSError("its disk is gone")
        except OSError:
            pass
        assert is_told.wait(60)


def test_a_single_process_writes_nothing(tmp_path: Path) -> None:
    with beating(tmp_path, 0, lambda _: None, count=1):
        assert list(tmp_path.iterdir()) == []
