"""Sets that people rank differently: which are settled, and what a verdict makes of their rankings."""

import json
from pathlib import Path
from typing import Any

from annotation_helpers import Person, Served, command, prompt, response

from annotation.answer_sets import AnswerSet
from annotation.api import Project, Task
from annotation.export_ranks import RankExport, export_ranks
from annotation.logged import Annotation, ShownSet
from annotation.ranked import disputed, rankings_from_log
from finlm import jsonl
from finlm.records import Candidates, Ranking
from reward.groups import heard
from reward.rankings import pairs_of

TEXTS = ("first", "second", "third", "fourth")
SET = AnswerSet(prompt=prompt("Q"), answers=tuple(map(response, TEXTS)))
SETS = {SET.id: ShownSet(answers=SET, order=(0, 1, 2, 3))}


def result(*ranks: int, **more: list[str]) -> list[dict[str, Any]]:
    """As the page stores it; ranks of the places A to D."""
    given = {f"rank_{place}": [str(rank)] for place, rank in zip("abcd", ranks, strict=True)} | more
    return [
        {"from_name": name, "to_name": "prompt", "type": "choices", "value": {"choices": chosen}}
        for name, chosen in given.items()
    ]


def annotation(number: int, person: int, *ranks: int, **more: list[str]) -> Annotation:
    return Annotation(
        id=number, task_id=1, pair_id=SET.id, kind="annotation", annotator=person,
        updated_at=f"2026-11-{number:02}", result=tuple(result(*ranks, **more)),
    )  # fmt: skip


def settled(*verdicts: Annotation) -> RankExport:
    """Two people rank the other way round; so do the verdicts say."""
    given = [annotation(1, 1, 1, 2, 3, 4), annotation(2, 2, 4, 3, 2, 1)]
    return export_ranks(SETS, [SET.id], given, verdicts)


def told(done: RankExport) -> list[tuple[str, tuple[int, ...], bool]]:
    return [(one.annotator, one.ranks, one.is_verdict) for one in done.rankings]


def test_a_verdict_stands_first_and_is_marked() -> None:
    first, second = ("person:1", (1, 2, 3, 4), False), ("person:2", (4, 3, 2, 1), False)
    assert told(settled()) == [first, second]
    done = settled(annotation(3, 9, 1, 1, 1, 1), annotation(4, 8, 2, 1, 3, 3))
    assert told(done) == [("person:8", (2, 1, 3, 3), True), first, second]
    assert done.removed == {"judged-again": 1}  # the later verdict counts
    assert done.annotations == len(done.rankings) + len(done.removals) == 4
    assert done.waiting_sets == 0


def test_who_ranked_may_judge_alike_and_both_stay() -> None:
    done = settled(annotation(3, 1, 1, 2, 3, 4))
    assert [one.is_verdict for one in done.rankings] == [True, False, False]
    assert len({one.id for one in done.rankings}) == 3


def test_a_verdict_can_throw_a_set_out_or_say_nothing() -> None:
    assert settled(annotation(3, 9, 1, 2, 3, 4, flags=["bad_prompt"])).removed == {"faulty-question": 3}
    # one of two annotators would have thrown it out; the verdict says that the question is fine
    given = [annotation(1, 1, 1, 2, 3, 4), annotation(2, 2, 4, 3, 2, 1, flags=["bad_prompt"])]
    assert len(export_ranks(SETS, [SET.id], given, [annotation(3, 9, 1, 2, 3, 4)]).rankings) == 3
    unsafe = settled(annotation(3, 9, 1, 2, 3, 4, faults_a=["unsafe"]))
    assert (unsafe.removed, len(unsafe.rankings)) == ({"unsafe-above-safe": 1}, 2)


def test_the_reward_model_hears_the_verdict_alone() -> None:
    votes = [
        (vote, pair.chosen)
        for ranking in settled(annotation(3, 9, 2, 1, 3, 4)).rankings
        for pair in pairs_of(ranking)
        if {pair.chosen, pair.rejected} == {"first", "second"}  # type: ignore[union-attr]
        for vote in pair.votes  # type: ignore[union-attr]
    ]
    assert len(votes) == 3
    (verdict,) = heard([vote for vote, _ in votes])
    assert verdict.annotator == "person:9"
    assert {vote.annotator: chosen for vote, chosen in votes}["person:9"] == "second"


def test_what_is_disputed_by_hand() -> None:
    others = [AnswerSet(prompt=prompt(f"Q{number}"), answers=SET.answers) for number in range(3)]
    sets = {one.id: ShownSet(answers=one, order=(0, 1, 2, 3)) for one in others}
    orders = [((1, 2, 3, 4), (4, 3, 2, 1)), ((1, 2, 3, 4), (3, 2, 1, 4)), ((1, 2, 3, 4), (2, 1, 3, 4))]
    given = [
        Annotation(
            id=10 * number + who, task_id=1, pair_id=one.id, kind="annotation", annotator=who,
            updated_at="2026-11-01", result=tuple(result(*ranks)),
        )
        for number, (one, its) in enumerate(zip(others, orders, strict=True))
        for who, ranks in enumerate(its, 1)
    ]  # fmt: skip
    work = rankings_from_log(sets, list(sets), given)
    assert disputed(work, 1) == [(3, others[0].id), (2, others[1].id), (1, others[2].id)]
    assert disputed(work, 2) == [(3, others[0].id), (2, others[1].id)]


def by_text(task: Task, **wanted: int) -> list[dict[str, Any]]:
    """Rank answers wherever they stand."""
    ranks = [next(rank for text, rank in wanted.items() if text in task.data[f"{place}_html"]) for place in "abcd"]
    return result(*ranks)


def annotate(served: Served, project: Project, folder: Path, name: str, *flags: str) -> str:
    done = command(name, "--server", str(served.server), "--project", project.title, *flags, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_rankings_are_adjudicated_on_the_real_server(
    label_studio: Served, anna: Person, bo: Person, tmp_path: Path
) -> None:
    project = label_studio.project("Disputed ranks", "--page", "ranks", "--annotators", "2")
    asked = [Candidates(prompt=prompt(f"Question {n}?"), responses=SET.answers) for n in range(2)]
    jsonl.write(tmp_path / "runs" / "candidates.jsonl", asked)
    annotate(label_studio, project, tmp_path, "push")
    same, apart = sorted(label_studio.tasks(project), key=lambda task: task.data["prompt_html"])
    up, down = {"first": 1, "second": 2, "third": 3, "fourth": 4}, {"first": 4, "second": 3, "third": 2, "fourth": 1}
    for person, task, ranks in ((anna, same, up), (bo, same, up), (anna, apart, up), (bo, apart, down)):
        person.send(task.id, by_text(task, **ranks))
    annotate(label_studio, project, tmp_path, "pull")
    assert "1 of 2 judged sets: 1 pushed" in annotate(label_studio, project, tmp_path, "adjudicate")
    assert "1 of 2 judged sets: 0 pushed, 1 there already" in annotate(label_studio, project, tmp_path, "adjudicate")
    with label_studio.client() as client:
        verdicts = client.find_project("Disputed ranks verdicts")
    assert verdicts is not None
    (task,) = label_studio.tasks(verdicts)
    assert task.data == apart.data  # as the annotators saw it
    bo.send(task.id, by_text(task, first=1, second=1, third=3, fourth=3))
    annotate(label_studio, project, tmp_path, "pull")
    rankings = [
        one for one in jsonl.read(tmp_path / "runs/rankings.jsonl", Ranking) if "1" in one.prompt.messages[0].content
    ]
    assert [one.is_verdict for one in rankings] == [True, False, False]
    assert dict(zip(rankings[0].responses, rankings[0].ranks, strict=True)) == {
        "first": 1, "second": 1, "third": 3, "fourth": 3,
    }  # fmt: skip
    summary = json.loads((tmp_path / "runs" / "annotation" / "summary.json").read_text())
    assert (summary["annotations"], summary["rankings"], summary["waiting_sets"]) == (5, 5, 0)
    # the report looks at the annotators' project, without being told which
    assert "4 rankings of 2 sets by 2 people" in command("report", cwd=tmp_path).stdout
    done = command("adjudicate", "--ranks_apart", "0", cwd=tmp_path)
    assert (done.returncode, "--ranks_apart 0 must be 1 to 3" in done.stderr) == (2, True)
