"""A pull works out anew only what changed, and comes to the bytes of a pull that works out everything."""

import random
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
from annotation_helpers import prompt, response, result

from annotation import export as exporting
from annotation import outcomes, vocabulary
from annotation.api import Task
from annotation.eventlog import EventLog
from annotation.export import Export, export
from annotation.outcomes import Lines, export_changed, file_of
from annotation.pairing import Comparison
from annotation.vocabulary import FLAG_KEYS, LEVELS
from finlm import jsonl

PROJECT, VERDICTS = "1@2026-01-01T00:00:00Z", "2@2026-01-02T00:00:00Z"
PAIRS = [Comparison(prompt=prompt(f"Q{n}?"), first=response("one"), second=response("two")) for n in range(12)]

CHANGES = ["annotate"] * 6 + ["verdict"] * 2 + ["edit", "edit", "delete", "vanish", "gold", "page"]


def whole(log: EventLog) -> Export:
    """All of it worked out at once, by nothing that was kept."""
    pushed, annotations = list(log.deliveries(PROJECT)), log.annotations(PROJECT)
    return export(log.pairs(), pushed, annotations, log.gold(), log.verdicts(PROJECT))


def written(made: Export | Lines) -> tuple[list[bytes], list[bytes]]:
    return [jsonl.encode(one) for one in made.preferences], [jsonl.encode(one) for one in made.removals]


def assert_same(found: Lines, expected: Export) -> None:
    assert written(found) == written(expected)
    for name in ("annotations", "votes", "judged_pairs", "waiting_pairs", "removed"):
        assert getattr(found, name) == getattr(expected, name), name
    assert sorted(level for level, count in found.strengths.items() for _ in range(count)) == sorted(
        pair.strength for pair in expected.preferences
    )


def annotation(number: int, level: str, at: int, person: int = 2, **fields: Any) -> dict[str, Any]:
    said = {"id": number, "result": result(level) if level else [], "was_cancelled": not level, "completed_by": person}
    return {**said, "updated_at": f"2026-01-01T00:{at // 60:02}:{at % 60:02}Z", **fields}


def task(number: int, pair_id: str, *its: dict[str, Any]) -> Task:
    return Task(id=number, updated_at="2026-01-01T01:00:00Z", data={"pair_id": pair_id}, annotations=its)


class World:
    """A server in memory that people work on at random: every kind of change that a pull can meet."""

    def __init__(self, log: EventLog, seed: int) -> None:
        self.log, self.chance = log, random.Random(seed)
        self.tasks: dict[str, dict[int, dict[int, dict[str, Any]]]] = {PROJECT: {}, VERDICTS: {}}
        self.number = self.at = 0

    def step(self) -> None:
        """One change, and what a pull of its task would write."""
        self.at += 1
        does = self.chance.choice(
            ["annotate"] * 6 + ["verdict"] * 2 + ["edit", "edit", "delete", "vanish", "gold", "page"]
        )
        if does == "gold":
            self.log.add_gold([self.chance.choice(PAIRS[:10])])
            return
        project = VERDICTS if does == "verdict" else PROJECT
        index = self.chance.randrange(len(PAIRS) + 1)  # the last is a task that this log did not push
        its = self.tasks[project].setdefault(index, {})
        if does == "vanish":
            self.tasks[project].pop(index)
            self.log.absorb(project, "<View/>", [], {index})
            return
        if does in {"annotate", "verdict"} or not its:
            self.number += 1
            its[self.number] = annotation(self.number, *self.said(), person=self.chance.randrange(1, 5))
        elif does == "delete":
            its.pop(self.chance.choice(list(its)))
        else:
            one = self.chance.choice(list(its))
            its[one] = annotation(one, *self.said(), person=its[one]["completed_by"])
        page = f'<View name="{self.at}"/>' if does == "page" else "<View/>"
        self.log.absorb(project, page, [task(index, ([one.id for one in PAIRS] + ["?"])[index], *its.values())], ())

    def said(self) -> tuple[str, int]:
        return self.chance.choice([*LEVELS, "", "C9"]), self.at


def noted(log: EventLog) -> None:
    """Most pairs are known from the beginning; two are pushed later."""
    log.add_pairs(PAIRS[:10])
    log.mark(PROJECT, [one.id for one in PAIRS[:10]], "sent")
    log.note_verdicts(VERDICTS, PROJECT)


@pytest.mark.parametrize("seed", range(6))
def test_whatever_changes_the_bytes_are_those_of_the_whole(tmp_path: Path, seed: int) -> None:
    with EventLog(tmp_path / "log.sqlite") as log:
        noted(log)
        world = World(log, seed)
        assert_same(export_changed(log, PROJECT), whole(log))
        for number in range(120):
            world.step()
            if number == 60:
                log.add_pairs(PAIRS)
            if world.chance.random() < 0.5:  # several changes a pull, as a rule
                assert_same(export_changed(log, PROJECT), whole(log))
        last = export_changed(log, PROJECT)
        assert_same(last, whole(log))
        file_of(log.path, PROJECT).unlink()
        assert export_changed(log, PROJECT) == last


def voted(log: EventLog, level: str = "A3", at: int = 1) -> None:
    """A vote on each pair; the first says `level`."""
    tasks = [task(n, one.id, annotation(n + 1, "A2" if n else level, 1 if n else at)) for n, one in enumerate(PAIRS)]
    log.absorb(PROJECT, "<View/>", tasks, ())


def test_only_what_changed_is_worked_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    real = exporting.outcome_of

    def watched(pair_id: str, *given: Any, **named: Any) -> Any:
        done.append(pair_id)
        return real(pair_id, *given, **named)

    monkeypatch.setattr(exporting, "outcome_of", watched)
    with EventLog(tmp_path / "log.sqlite") as log:
        log.add_pairs(PAIRS)
        voted(log)
        export_changed(log, PROJECT)
        assert sorted(done) == sorted(one.id for one in PAIRS)
        done.clear()
        export_changed(log, PROJECT)
        assert done == []
        voted(log, "B1", at=2)
        export_changed(log, PROJECT)
        assert done == [PAIRS[0].id]
        done.clear()
        monkeypatch.setattr(outcomes, "_code", lambda: "another version")
        export_changed(log, PROJECT)
        assert sorted(done) == sorted(one.id for one in PAIRS)


def test_an_older_log_put_back_takes_nothing_from_a_later_one(tmp_path: Path) -> None:
    """The second history gives its events the numbers that the first gave to others."""
    with EventLog(tmp_path / "log.sqlite") as log:
        log.add_pairs(PAIRS)
        voted(log)
    shutil.copy(tmp_path / "log.sqlite", tmp_path / "backup.sqlite")
    for level, chosen in (("B1", "two"), ("A0", "one")):
        shutil.copy(tmp_path / "backup.sqlite", tmp_path / "log.sqlite")
        with EventLog(tmp_path / "log.sqlite") as log:
            swapped = log.pairs()[PAIRS[0].id].swapped
            voted(log, level, at=2)
            found = export_changed(log, PROJECT)
            assert_same(found, whole(log))
            told = [msgspec.json.decode(line) for line in found.preferences]
            (first,) = [one for one in told if one["prompt"]["messages"][0]["content"] == "Q0?"]
            assert (first["chosen"] == chosen) != swapped


@pytest.mark.parametrize("damage", ["gone", "empty", "cut", "one bit", "another form", "left over"])
def test_a_damaged_file_costs_time_and_nothing_else(tmp_path: Path, damage: str) -> None:
    with EventLog(tmp_path / "log.sqlite") as log:
        log.add_pairs(PAIRS)
        voted(log)
        expected = export_changed(log, PROJECT)
        path = file_of(log.path, PROJECT)
        content = path.read_bytes()
        if damage == "gone":
            path.unlink()
        elif damage == "another form":
            told = msgspec.msgpack.encode({"pairs": 3})
            path.write_bytes(outcomes.hashlib.sha256(told).digest() + told)
        elif damage == "left over":  # killed while it was written the first time
            path.unlink()
            path.with_name(f"{path.name}.tmp").write_bytes(content[: len(content) // 2])
        else:
            at = content.index(b"one", 32)
            path.write_bytes(
                {"empty": b"", "cut": content[:-7], "one bit": content[:at] + b"n" + content[at + 1 :]}[damage]
            )
        assert export_changed(log, PROJECT) == expected
        assert path.read_bytes() == content
        assert [one.name for one in tmp_path.glob("*.tmp")] == []


def test_another_wording_makes_all_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = outcomes._code()
    shutil.copytree(vocabulary.PAGES, tmp_path / "pages")
    with (tmp_path / "pages" / "wording.yaml").open("a", encoding="utf-8") as out:
        out.write("# changed\n")
    monkeypatch.setattr(vocabulary, "PAGES", tmp_path / "pages")
    assert outcomes._code() != before
    assert set(FLAG_KEYS) <= set(vocabulary.wording()["en"]["flags"])
