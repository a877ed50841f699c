"""A round on the tiny loop: answers scored in the stage, an evaluation by sub-field, and the next mixture."""

import json
import shlex
import sys
from pathlib import Path

import pytest
import torch
import yaml
from chain import Chain
from outcome import differences, outcome
from tiny import TEST_SHARE, Tiny
from warm import Done, Warm

from finlm import data, jsonl, scorer
from finlm.category_figures import CategoryFigures
from finlm.confidence import ScoredPrompt
from finlm.evaluation import AnswerRecord
from finlm.mixture_rounds import Decision
from finlm.records import Candidates, PreferencePair, Prompt, Removal

SORTS = """
import json, sys
for line in sys.stdin:
    row = json.loads(line)
    field = "revenue" if "evenue" in row["messages"][-1]["content"] else "income"
    print(json.dumps({"id": row["id"], "category": "finance", "subfield": field}), flush=True)
"""
CLASSIFIER = ("--classifier", shlex.join([sys.executable, "-c", SORTS]))


def collect(warm: Warm, tiny: Tiny, folder: Path, *flags: str, **how: int) -> Done:
    return warm.run("finlm.prompts", "--config", tiny.settings("prompts"), *flags, cwd=folder, **how)


def done(outcome: Done) -> str:
    assert outcome.returncode == 0, outcome.said
    return outcome.stdout


SCORED = ("--score_with", "runs/reward", "--dtype", "float32", "--threads", "1", "--output", "runs/scored.jsonl")


@pytest.fixture(scope="module")
def scored(chain: Chain, warm: Warm, tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    """A collection whose prompts' candidates were scored in the same process."""
    folder = chain.before("ppo", tmp_path_factory.mktemp("scored") / "run")
    ended = collect(warm, tiny, folder, *SCORED)
    done(ended)
    return folder, ended


def test_scores_are_the_reward_models(scored: tuple[Path, Done]) -> None:
    runs = scored[0] / "runs"
    found = list(jsonl.read(runs / "scored" / "scores.jsonl", ScoredPrompt))
    answers = {item.prompt.id: item for item in jsonl.read(runs / "candidates.jsonl", Candidates)}
    trained = {name for name, one in answers.items() if not data.is_held_out(one.prompt, test_share=TEST_SHARE)}
    assert {one.prompt_id for one in found} == trained  # nobody scores answers to held-out prompts
    judge = scorer.Scorer.load(runs / "reward", dtype=torch.float32, device=torch.device("cpu"))
    for one in found[:4]:
        own = answers[one.prompt_id]
        rows = [(own.prompt.messages, response.text, response.ended) for response in own.responses]
        assert one.scores == pytest.approx(judge.score(rows), abs=1e-4)


def test_filter_keeps_its_promises_on_real_scores(scored: tuple[Path, Done]) -> None:
    runs = scored[0] / "runs"
    counts = json.loads((runs / "scored" / "run.json").read_text(encoding="utf-8"))["counts"]
    kept = list(jsonl.read(runs / "scored.jsonl", Prompt))
    removed = list(jsonl.read(runs / "scored" / "rejected.jsonl", Removal))
    assert counts["read"] == len(kept) + len(removed)
    assert counts["rules"]["small-deviation"] >= 1
    scores = {one.prompt_id: one for one in jsonl.read(runs / "scored" / "scores.jsonl", ScoredPrompt)}
    least = min(scores[prompt.id].deviation for prompt in kept if prompt.id in scores)
    fallen = [scores[one.record_id].deviation for one in removed if one.rule == "small-deviation"]
    assert max(fallen) <= least


def test_killed_while_scoring_it_goes_on_to_the_same_bytes(
    scored: tuple[Path, Done], chain: Chain, warm: Warm, tiny: Tiny, tmp_path: Path
) -> None:
    operations = scored[1].operations
    writes = [n for n, name in enumerate(operations, 1) if name == "replace scored/.scores.jsonl.tmp"]
    for at in (writes[0] + 1, operations.index("replace runs/.scored.jsonl.tmp") + 1):
        folder = chain.before("ppo", tmp_path / str(at))
        assert collect(warm, tiny, folder, *SCORED, kill_at=at).was_killed
        done(collect(warm, tiny, folder, *SCORED))
        assert differences(outcome(folder / "runs"), outcome(scored[0] / "runs")) == []


def test_an_evaluation_by_subfield_gives_the_next_mixture(chain: Chain, warm: Warm, tiny: Tiny, tmp_path: Path) -> None:
    folder = chain.before("evaluate", tmp_path / "run")
    held_out = ("--split", "test", "--new_per_preference", "100", "--output", "runs/held_out.jsonl")
    done(collect(warm, tiny, folder, *held_out, *CLASSIFIER))
    asked = {prompt.id: prompt for prompt in jsonl.read(folder / "runs" / "held_out.jsonl", Prompt)}
    assert {prompt.subfield for prompt in asked.values()} == {"revenue", "income"}
    assert all(data.is_held_out(prompt, test_share=TEST_SHARE) for prompt in asked.values())

    given = ("--instructions", "[]", "--prompts", '["runs/held_out.jsonl"]', "--limit", "0", "--choices", "[]")
    given += ("--preferences", '["runs/preferences.jsonl"]', "--models", '{"sft": "runs/sft", "ppo": "runs/ppo"}')
    done(warm.run("finlm.evaluate", "--config", tiny.settings("evaluate"), *given, cwd=folder))
    answers = list(jsonl.read(folder / "runs" / "evaluation" / "answers.jsonl", AnswerRecord))
    assert {one.prompt_id for one in answers} == set(asked)
    assert all(one.subfield == asked[one.prompt_id].subfield for one in answers)
    figures = {one.subfield: one for one in jsonl.read(folder / "runs/evaluation/categories.jsonl", CategoryFigures)}
    assert set(figures) == {"*", "revenue", "income"}
    assert figures["*"].answers == figures["revenue"].answers + figures["income"].answers == len(asked)
    tested = [
        pair
        for pair in jsonl.read(folder / "runs" / "preferences.jsonl", PreferencePair)
        if data.is_held_out(pair.prompt, test_share=TEST_SHARE) and pair.strength > 0
    ]
    assert figures["*"].judge == "preferences"
    assert figures["*"].pairs == len(tested)
    judge = scorer.Scorer.load(folder / "runs" / "reward", dtype=torch.float32, device=torch.device("cpu"))
    better = judge.score([(pair.prompt.messages, pair.chosen, pair.chosen_ended) for pair in tested])
    worse = judge.score([(pair.prompt.messages, pair.rejected, pair.rejected_ended) for pair in tested])
    agreed = [(one > other) + 0.5 * (one == other) for one, other in zip(better, worse, strict=True)]
    assert figures["*"].agreement == pytest.approx(sum(agreed) / len(agreed), abs=1 / len(agreed))

    following = ("--mixture_from", "runs/evaluation", "--least_evidence", "1", "--output", "runs/next.jsonl")
    following += ("--shares", '{"finance": {"revenue": 0.5, "income": 0.5}}')
    said = done(collect(warm, tiny, folder, *following, *CLASSIFIER))
    assert "next mixture" in said
    decisions = list(jsonl.read(folder / "runs" / "next" / "decisions.jsonl", Decision))
    shares = yaml.safe_load((folder / "runs" / "next" / "mixture.yaml").read_text(encoding="utf-8"))["shares"]
    assert {one.subfield: one.after for one in decisions} == shares["finance"]
    assert sum(shares["finance"].values()) == pytest.approx(1)
    assert [one.gain for one in decisions] == [figures[one.subfield].right_gain.mean for one in decisions]  # type: ignore[union-attr]


def test_rollouts_of_a_real_run(chain: Chain, warm: Warm, tmp_path: Path) -> None:
    told = done(warm.run("finlm.rollouts", "--run", chain.runs / "ppo", "--worst", "2", cwd=tmp_path))
    assert "update 3" in told
    told = done(warm.run("finlm.rollouts", "--run", chain.runs / "ppo", "--html", "page.html", cwd=tmp_path))
    assert "rollouts: page.html" in told
    assert (tmp_path / "page.html").read_text(encoding="utf-8").count('class="entry') == 24
