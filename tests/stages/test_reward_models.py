"""A second phase of a reward model, and PPO's entry with several: all are inputs, a killed run resumes."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from chain import Chain
from safetensors.torch import load_file, save_file
from test_resume import number_of, start
from tiny import Tiny
from warm import Warm

from finlm import jsonl, scorer
from finlm.metrics import read_metrics
from finlm.records import Candidates, PreferencePair, Ranking

PAIRS = "runs/preferences.jsonl"
PAID = ("--reward_models", '["runs/reward-b"]', "--reward_reduce", "min")


def with_second(folder: Path) -> Path:
    """Beside the run's reward model another one with the same adapter and a head of its own."""
    second = folder / "runs" / "reward-b" / "model"
    shutil.copytree(folder / "runs" / "reward" / "model", second)
    (second / "manifest.json").unlink()
    head = load_file(second / "head.safetensors")
    head["weight"] = head["weight"].flip(1).contiguous()
    save_file(head, second / "head.safetensors")
    return folder


def test_a_run_paid_by_the_worse_of_two_resumes(chain: Chain, warm: Warm, tiny: Tiny, tmp_path: Path) -> None:
    straight = with_second(chain.before("ppo", tmp_path / "straight"))
    cut = with_second(chain.before("ppo", tmp_path / "cut"))
    whole = start(warm, tiny, "ppo", straight, *PAID)
    assert whole.returncode == 0, whole.said
    at = number_of(whole.operations, "optimizer step", 11)
    assert start(warm, tiny, "ppo", cut, *PAID, kill_at=at).was_killed
    assert start(warm, tiny, "ppo", cut, *PAID).returncode == 0
    for name in ("policy/adapter_model.safetensors", "checkpoints/checkpoint-3/weights.safetensors", "held_out.jsonl"):
        assert (cut / "runs/ppo" / name).read_bytes() == (straight / "runs/ppo" / name).read_bytes(), name
    several = read_metrics(straight / "runs/ppo/metrics.jsonl")
    one = read_metrics(chain.runs / "ppo/metrics.jsonl")
    assert all(line["rollout/disagreement"] > 0 for line in several)
    assert not any("rollout/disagreement" in line for line in one)
    # the first answers are the same; the worse of two scores is no better than one
    assert several[0]["rollout/answer_tokens"] == one[0]["rollout/answer_tokens"]
    assert several[0]["rollout/raw_score"] < one[0]["rollout/raw_score"]
    state = json.loads((straight / "runs/ppo/run.json").read_text(encoding="utf-8"))
    assert state["inputs"]["reward_models.1"] == "runs/reward-b/model"


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ('["runs/reward"]', "The reward model runs/reward/model is named twice"),
        ('["runs/none"]', "runs/none holds no reward model"),
        ('["runs/reward-b"]', "runs/reward-b/model was trained on another base than runs/sft/model"),
    ],
)
def test_a_reward_model_that_does_not_belong_is_told(
    chain: Chain, warm: Warm, tiny: Tiny, tmp_path: Path, named: str, said: str
) -> None:
    folder = with_second(chain.before("ppo", tmp_path / "run"))
    path = folder / "runs/reward-b/model/reward.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"base": "f" * 64}), encoding="utf-8")
    done = start(warm, tiny, "ppo", folder, "--reward_models", named)
    assert done.returncode == 2, done.said
    assert said in " ".join(done.stderr.split())


def test_a_second_phase_goes_on_from_the_first(chain: Chain, warm: Warm, tiny: Tiny, tmp_path: Path) -> None:
    """With a learning rate of next to nothing its scores are those of the first phase, up to their scale."""
    folder = chain.before("prompts", tmp_path / "run")
    more = ("--start", "runs/reward", "--output", "second", "--steps", "1")
    done = start(warm, tiny, "reward", folder, *more, "--learning_rate", "1e-12")
    assert done.returncode == 0, done.said
    asked = [(pair.prompt.messages, pair.chosen, True) for pair in jsonl.read(folder / PAIRS, PreferencePair)][:20]
    first, second = (
        torch.tensor(scorer.Scorer.load(folder / name, dtype=torch.float32, device=torch.device("cpu")).score(asked))
        for name in ("runs/reward", "second")
    )
    torch.testing.assert_close(second - second.mean(), (first - first.mean()) * second.std() / first.std())
    described = [scorer.load_description(folder / name) for name in ("runs/reward", "second")]
    assert float(second.std() / first.std()) == pytest.approx(described[0].std / described[1].std, rel=1e-3)


def test_rankings_are_learned_from_as_their_comparisons(chain: Chain, warm: Warm, tiny: Tiny, tmp_path: Path) -> None:
    folder = chain.before("reward", tmp_path / "run")
    asked = list(jsonl.read(folder / "runs/candidates.jsonl", Candidates))
    rankings = []
    for one in asked:
        texts = tuple(dict.fromkeys(response.text for response in one.responses))
        if len(texts) == 3:
            rankings.append(Ranking(prompt=one.prompt, responses=texts, ranks=(1, 3, 2), annotator="person:1"))
    jsonl.write(folder / "ranked.jsonl", rankings)
    done = start(warm, tiny, "reward", folder, "--preferences", "ranked.jsonl", "--steps", "1", "--test_pairs", "99")
    assert done.returncode == 0, done.said
    counts = json.loads((folder / "runs/reward/run.json").read_text(encoding="utf-8"))["counts"]
    assert len(rankings) >= 10
    assert counts["pairs"] + counts["test_pairs"] + counts["set_aside"] == 3 * len(rankings)
