"""`finlm annotate report`: ratings from a log and from preferences, and the page that a project's lead reads."""

from pathlib import Path
from typing import Any

import pytest
from annotation_helpers import command, prompt, response, result

from annotation.api import Task
from annotation.eventlog import EventLog
from annotation.judged import from_log, from_preferences
from annotation.logged import Annotation, Pair
from annotation.pairing import Comparison
from finlm import jsonl
from finlm.records import PreferencePair, Provenance, Vote

SHORT, LONG = "Four.", "Four branches were opened."


def compared(number: int, *, swapped: bool) -> Pair:
    comparison = Comparison(
        prompt=prompt(f"How many branches in {number}?"), first=response(SHORT), second=response(LONG)
    )
    return Pair(comparison=comparison, swapped=swapped)


def annotation(number: int, pair: Pair, level: str, annotator: int = 1, **fields: Any) -> Annotation:
    given: dict[str, Any] = {
        "kind": "annotation",
        "updated_at": f"2026-01-0{number}T00:00:00Z",
        "seconds": 30.0,
    } | fields
    return Annotation(
        id=number, task_id=number, pair_id=pair.comparison.id, annotator=annotator, result=tuple(result(level)), **given
    )


def test_ratings_of_a_log_are_free_of_the_shown_sides() -> None:
    plain, turned, waiting = compared(1, swapped=False), compared(2, swapped=True), compared(3, swapped=False)
    pairs = {pair.comparison.id: pair for pair in (plain, turned, waiting)}
    work = from_log(
        pairs,
        list(pairs),
        [
            annotation(1, plain, "A3"),
            annotation(2, turned, "A3"),
            annotation(3, plain, "B0", annotator=2),
            annotation(4, plain, "A1", annotator=2),  # judged again: the newer one counts
            annotation(5, turned, "B2", annotator=2, kind="skip"),
        ],
    )
    found = {(one.pair_id, one.annotator): one for one in work.ratings}
    first = found[plain.comparison.id, "person:1"]
    assert (first.level, first.is_left, first.is_longer, first.seconds) == (0, True, False, 30.0)
    second = found[turned.comparison.id, "person:1"]  # A stood for the second answer
    assert (second.level, second.is_left, second.is_longer) == (7, True, True)
    assert found[plain.comparison.id, "person:2"].level == 2
    assert work.left_out == {"judged again": 1, "skipped": 1}
    assert (work.waiting, len(work.pairs)) == (1, 2)
    assert work.days == {"2026-01-01": 1, "2026-01-02": 1, "2026-01-04": 1}


def preference(number: int, *sides: Any) -> PreferencePair:
    votes = tuple(
        Vote(annotator=f"person:{who}", annotation_id=f"{number}-{who}", side=side, strength=2)
        for who, side in enumerate(sides)
    )
    return PreferencePair(
        prompt=prompt(f"Question {number}?"), chosen=f"Right {number}.", rejected=f"Wrong answer {number}.",
        strength=2, source="test", provenance=Provenance(maker="import:test"), votes=votes,
    )  # fmt: skip


def test_votes_of_preferences_have_no_side_that_is_always_right() -> None:
    work = from_preferences([preference(number, "chosen", "rejected") for number in range(60)])
    by_person = {name: [one.side for one in work.ratings if one.annotator == name] for name in ("person:0", "person:1")}
    assert 15 < sum(by_person["person:0"]) < 45
    assert [one + other for one, other in zip(*by_person.values(), strict=True)] == [1] * 60
    assert all(one.is_longer is (one.annotator == "person:1") for one in work.ratings)


def test_the_page_names_who_always_dissents(tmp_path: Path) -> None:
    rows = [preference(number, "chosen", "chosen", "chosen", "rejected") for number in range(80)]
    jsonl.write(tmp_path / "p.jsonl", rows)
    done = command("report", "--preferences", "p.jsonl", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "320 ratings of 80 pairs by 4 people" in done.stdout
    page = (tmp_path / "runs" / "annotation" / "report.html").read_text(encoding="utf-8")
    assert "seldom with the others" in page
    table = page[page.index("Batches to do again") :]
    assert "person:3" in table[: table.index("Two by two")]
    assert "person:1" not in table[: table.index("Two by two")]
    assert "To discuss" in page


def test_the_project_of_a_log_is_found_or_asked_for(tmp_path: Path) -> None:
    pair = compared(1, swapped=False)
    with EventLog(tmp_path / "log.sqlite") as log:
        log.add_pairs([pair.comparison])
        for project in ("1@a", "2@b"):
            made = {
                "id": 5, "was_cancelled": False, "updated_at": "2026-01-01T00:00:00Z", "completed_by": 3,
                "result": result("A2"), "lead_time": 12.5,
            }  # fmt: skip
            task = Task(
                id=1, data={"pair_id": pair.comparison.id}, updated_at="2026-01-01T00:00:00Z", annotations=(made,)
            )
            log.absorb(project, "<View/>", [task], [])
    done = command("report", "--log", "log.sqlite", cwd=tmp_path)
    assert done.returncode == 2
    assert "1@a, 2@b" in done.stderr
    done = command("report", "--log", "log.sqlite", "--project", "2@b", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "1 ratings of 1 pairs by 1 people" in done.stdout


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--log", "none.sqlite"), "finlm annotate pull"),
        (("--preferences", "empty.jsonl"), "no rating yet"),
        (("--least_gold", "1.5"), "between 0 and 1"),
    ],
)
def test_what_cannot_be_reported(flags: tuple[str, ...], said: str, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("", encoding="utf-8")
    done = command("report", *flags, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
