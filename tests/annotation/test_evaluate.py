"""`finlm annotate evaluate`: verdicts of blind judges, by hand arithmetic, from a log with known judgements."""

import json
from pathlib import Path
from typing import Any

import pytest
from annotation_helpers import command, prompt, result

from annotation.api import Task
from annotation.choosing import choose
from annotation.eventlog import EventLog
from annotation.pairing import Comparison
from finlm.records import Candidates, Message, Prompt, Removal, Response
from finlm.verdicts import majority, sign_test, tally


def test_the_sign_test_by_hand() -> None:
    """Of nine tosses eight or nine heads, or as many tails: 2 x (9 + 1) / 512."""
    assert sign_test(8, 1) == sign_test(1, 8) == 20 / 512
    assert sign_test(5, 5) == sign_test(0, 0) == 1.0
    assert sign_test(5, 0) == 2 / 32
    assert sign_test(900, 100) < 1e-150  # exact, where the normal approximation has no digit left


@pytest.mark.parametrize(
    ("verdicts", "agreed"),
    [([1, 1, -1], 1), ([-1, -1, 0], -1), ([0, 0, 1], 0), ([1, 0, -1], 0), ([1, -1], 0), ([1], 1), ([0, 1, 1, 0], 0)],
)
def test_most_judges_decide(verdicts: Any, agreed: int) -> None:
    assert majority(verdicts) == agreed


def test_a_prompt_counts_once_however_many_judged_it() -> None:
    found = tally({"a": [1, 1, 1, 1, 1, 1], "b": [-1], "c": [1, 0], "d": [0, 0, 0]}, seed=0)
    assert (found.good, found.same, found.bad, found.prompts) == (1, 2, 1, 4)
    assert found.preference.mean == pytest.approx((1 - 1 + 0.5 + 0) / 4)
    assert -1 <= found.preference.low <= found.preference.mean <= found.preference.high <= 1
    with pytest.raises(ValueError, match="no numbers"):
        tally({}, seed=0)


def of(model: str, text: str) -> Response:
    return Response(text=text, model=model)


def test_answers_of_different_models_are_compared() -> None:
    both = Candidates(prompt=prompt("What?"), responses=(of("a", "One."), of("a", "Two."), of("b", "Three.")))
    for seed in range(8):
        chosen = choose(both, 2, "between", seed)
        assert not isinstance(chosen, Removal)
        assert {one.model for one in chosen} == {"a", "b"}
    one = Candidates(prompt=prompt("What?"), responses=(of("a", "One."), of("a", "Two.")))
    left = choose(one, 2, "between", 0)
    assert isinstance(left, Removal)
    assert (left.rule, left.reason) == ("too-few-models", "its answers are of 1 models, 2 are to be compared")


def judged(folder: Path, levels: dict[str, list[str]], models: tuple[str, str] = ("ppo", "sft")) -> None:
    """Write a log: of each prompt the levels that judges 1, 2, … gave, as the pages count them: A is ppo's answer."""
    with EventLog(folder / "log.sqlite") as log:
        comparisons = [
            Comparison(
                prompt=Prompt(
                    messages=(Message(role="user", content=name),), category={"f": "finance", "x": "general"}[name[0]]
                ),
                first=of(models[0], f"The better of {name}."),
                second=of(models[1], f"The other of {name}."),
            )
            for name in levels
        ]
        log.add_pairs(comparisons)
        swapped = {name: pair.swapped for name, pair in log.pairs().items()}
        for number, (comparison, given) in enumerate(zip(comparisons, levels.values(), strict=True)):
            made = []
            for judge, level in enumerate(given, start=1):
                side = level[0] if not swapped[comparison.id] else "AB"[level[0] == "A"]
                made.append(
                    {
                        "id": 100 * number + judge, "was_cancelled": False, "updated_at": "2026-01-01T00:00:00Z",
                        "completed_by": judge, "result": result(side + level[1]), "lead_time": 30.0,
                    }
                )  # fmt: skip
            task = Task(
                id=number, data={"pair_id": comparison.id}, updated_at="2026-01-01T00:00:00Z", annotations=tuple(made)
            )
            log.absorb("1@a", "<View/>", [task], [])


def test_verdicts_of_a_log_whatever_side_was_shown(tmp_path: Path) -> None:
    """Eighteen prompts, some of them turned: nine for ppo, one against, the rest the same or divided."""
    levels = {f"f{n}": ["A3", "A1", "A2"] for n in range(8)} | {"x0": ["A2", "A1", "B3"], "x1": ["B1", "B2", "A0"]}
    levels |= {f"x{n}": ["A0", "B0", "B0"] for n in range(2, 8)} | {"x8": ["A1", "B1", "A0"], "x9": ["A1", "B1"]}
    judged(tmp_path, levels)
    done = command("evaluate", "--log", "log.sqlite", "--first", "ppo", "--output", "e.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "53 verdicts of 3 judges on 18 prompts, 0 not judged, 1 by fewer than 3" in " ".join(done.stdout.split())
    found = json.loads((tmp_path / "e.json").read_text(encoding="utf-8"))
    whole = found["by_category"]["all"]
    assert (whole["good"], whole["same"], whole["bad"]) == (9, 8, 1)
    assert whole["p_value"] == 2 * (10 + 1) / 2**10
    assert whole["preference"]["mean"] == pytest.approx((8 * 1 + 1 / 3 - 2 / 3) / 18)
    assert (found["verdicts"], found["judges"], found["fewer_judges"]) == (53, 3, 1)
    assert found["by_category"]["finance"]["good"] == 8
    assert found["by_category"]["general"]["same"] == 8
    page = (tmp_path / "e.html").read_text(encoding="utf-8")
    assert "ppo is preferred, beyond chance" in page
    lost = page[page.index("Where ppo lost") :]
    assert "The other of x1." in lost[: lost.index("Where sft lost")]

    done = command("evaluate", "--log", "log.sqlite", "--first", "sft", "--output", "e.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    turned = json.loads((tmp_path / "e.json").read_text(encoding="utf-8"))["by_category"]["all"]
    assert (turned["good"], turned["same"], turned["bad"]) == (1, 8, 9)
    assert turned["preference"]["mean"] == pytest.approx(-whole["preference"]["mean"])


def test_what_cannot_be_compared_is_told(tmp_path: Path) -> None:
    done = command("evaluate", "--log", "log.sqlite", cwd=tmp_path)
    assert (done.returncode, "finlm annotate pull" in done.stderr) == (2, True)
    judged(tmp_path, {"f1": ["A1"]}, models=("ppo", "ppo"))
    done = command("evaluate", "--log", "log.sqlite", cwd=tmp_path)
    assert (done.returncode, "answers of 1 models were judged (ppo)" in " ".join(done.stderr.split())) == (2, True)
    done = command("evaluate", "--log", "log.sqlite", "--first", "dpo", cwd=tmp_path)
    assert (done.returncode, "--first 'dpo' wrote no answer" in " ".join(done.stderr.split())) == (2, True)
    done = command("evaluate", "--log", "log.sqlite", "--judges", "0", cwd=tmp_path)
    assert (done.returncode, "--judges 0 must be 1 or more" in done.stderr) == (2, True)
    (tmp_path / "empty").mkdir()
    with EventLog(tmp_path / "empty" / "log.sqlite") as log:
        log.absorb("1@a", "<View/>", [], [])
    done = command("evaluate", "--log", "log.sqlite", cwd=tmp_path / "empty")
    assert (done.returncode, "answers of 0 models were judged (none)" in " ".join(done.stderr.split())) == (2, True)
