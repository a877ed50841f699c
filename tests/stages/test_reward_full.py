"""A reward model whose weights all learned: trained, resumed, scored with, served, PPO's scorer and critic start."""

import importlib.util
import json
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from chain import Chain
from outcome import differences, outcome
from safetensors.torch import load_file
from test_bad_input import refused
from test_resume import number_of, start
from tiny import Tiny
from warm import Done, Warm

from finlm import chat_format, jsonl, scorer
from finlm.ensemble import Ensemble
from finlm.metrics import read_metrics
from finlm.records import Message, PreferencePair, Prompt, RolloutRecord
from reward import serve
from reward.findings import read_epoch_findings
from reward.judged import read_judged

CPU = torch.device("cpu")
FULL = ("--tune", "full", "--learning_rate", "1e-3", "--steps", "6")


@dataclass(frozen=True, slots=True)
class Full:
    """A run in which all weights learned."""

    folder: Path
    """Where it was started; its outputs lie in `runs/reward`."""
    done: Done
    pairs: list[PreferencePair]
    """What it was tested on."""

    @property
    def reward(self) -> Path:
        return self.folder / "runs" / "reward"

    def judge(self) -> scorer.Scorer:
        return scorer.Scorer.load(self.reward, dtype=torch.float32, device=CPU)


def ended(done: Done) -> Done:
    assert done.returncode == 0, done.said
    return done


@pytest.fixture(scope="module")
def full(chain: Chain, warm: Warm, tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Full:
    folder = chain.before("reward", tmp_path_factory.mktemp("full") / "run")
    done = ended(start(warm, tiny, "reward", folder, *FULL))
    tested = {record.pair_id for record in read_judged(folder / "runs/reward")}
    every = jsonl.read(folder / "runs/preferences.jsonl", PreferencePair)
    return Full(folder, done, [pair for pair in every if pair.id in tested])


def sides(pairs: list[PreferencePair]) -> list[tuple[Any, str, bool]]:
    return [
        (pair.prompt.messages, *side)
        for pair in pairs
        for side in ((pair.chosen, pair.chosen_ended), (pair.rejected, pair.rejected_ended))
    ]


def test_it_is_a_model_of_its_own_whose_weights_learned(full: Full) -> None:
    model = full.reward / "model"
    names = {path.name for path in model.iterdir()}
    assert {"config.json", "head.safetensors", "model.safetensors", "reward.json", "tokenizer.json"} <= names
    assert "adapter_config.json" not in names
    began = load_file(full.folder / "runs/sft/model/model.safetensors")
    now = load_file(model / "model.safetensors")
    assert began.keys() == now.keys()
    assert {name for name in now if torch.equal(began[name].float(), now[name].float())} == {"lm_head.weight"}


def test_the_report_is_what_the_exported_model_says(full: Full) -> None:
    report = json.loads((full.reward / "report.json").read_text(encoding="utf-8"))
    judge = full.judge()
    scores = [judge.score([one])[0] for one in sides(full.pairs)]
    leads = [better - worse for better, worse in zip(scores[::2], scores[1::2], strict=True)]
    assert 20 <= len(leads) <= 24
    assert report["test_accuracy"] == pytest.approx(sum(lead > 0 for lead in leads) / len(leads), abs=1e-9)
    assert report["margin"] == pytest.approx(sum(leads) / len(leads), abs=1e-4)
    assert f"{report['test_accuracy']:.3f}" in (full.reward / "report.html").read_text(encoding="utf-8")


def test_each_epoch_says_how_it_judged_and_how_long_that_took(full: Full) -> None:
    report = json.loads((full.reward / "report.json").read_text(encoding="utf-8"))
    judged = [line for line in read_metrics(full.reward / "metrics.jsonl") if "held_out/accuracy" in line]
    assert len(judged) == len(list((full.reward / "epochs").iterdir()))
    assert report["test_accuracy"] in [pytest.approx(line["held_out/accuracy"]) for line in judged]
    assert all(line["perf/judging_seconds"] > 0 for line in judged)
    assert "held-out pairs, judged in" in full.done.stderr
    found = read_epoch_findings(full.reward)
    assert [its.measures.accuracy.mean for its in found.values()] == [
        pytest.approx(line["held_out/accuracy"]) for line in judged
    ]
    page = (full.reward / "report.html").read_text(encoding="utf-8")
    assert all(f"{its.measures.calibration.error:.3f}" in page for its in found.values())


def test_a_killed_run_resumes_to_the_same_bytes(
    full: Full, chain: Chain, warm: Warm, tiny: Tiny, tmp_path: Path
) -> None:
    folder = chain.before("reward", tmp_path / "cut")
    at = number_of(full.done.operations, "optimizer step", 5)
    assert start(warm, tiny, "reward", folder, *FULL, kill_at=at).was_killed
    ended(start(warm, tiny, "reward", folder, *FULL))
    assert differences(outcome(folder / "runs"), outcome(full.folder / "runs")) == []


def test_a_file_is_scored_and_a_request_answered_as_by_the_model_itself(full: Full, warm: Warm) -> None:
    jsonl.write(full.folder / "pairs.jsonl", full.pairs)
    asked = ("reward.score", "pairs.jsonl", "--dtype", "float32", "--output", "scored.jsonl")
    ended(warm.run(*asked, cwd=full.folder))
    rows = [json.loads(line) for line in (full.folder / "scored.jsonl").read_text(encoding="utf-8").splitlines()]
    judge = full.judge()
    found = [row[f"{side}_score"] for row in rows for side in ("chosen", "rejected")]
    assert found == pytest.approx(judge.score(sides(full.pairs)), abs=1e-4)

    served = Ensemble.load(full.reward, dtype=torch.float32, device=CPU)
    server = serve.listening(serve.ServeSettings(port=0), served, "")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        body = {"prompts": ["What was it?"], "responses": ["It was 7."]}
        reply = httpx.post(f"{server.url}/score", json=body, timeout=60).json()
    finally:
        server.drain()
        thread.join()
    question = (Message(role="user", content="What was it?"),)
    assert reply["scores"] == pytest.approx(judge.score([(question, "It was 7.", True)]), abs=1e-4)


def test_a_second_phase_goes_on_from_it(full: Full, warm: Warm, tiny: Tiny) -> None:
    """With a learning rate of next to nothing the second phase's scores are the first's, up to their scale."""
    more = ("--start", "runs/reward", "--output", "second", "--learning_rate", "1e-12", "--steps", "1")
    ended(start(warm, tiny, "reward", full.folder, "--tune", "full", *more))
    second = scorer.Scorer.load(full.folder / "second", dtype=torch.float32, device=CPU)
    first = torch.tensor(full.judge().score(sides(full.pairs)))
    again = torch.tensor(second.score(sides(full.pairs)))
    torch.testing.assert_close(again - again.mean(), (first - first.mean()) * again.std() / first.std())
    for tune, of in (("lora", "a whole model"), ("full", "an adapter")):
        begun_from = "runs/reward" if tune == "lora" else "adapter"
        if tune == "full":
            ended(start(warm, tiny, "reward", full.folder, "--steps", "1", "--output", "adapter"))
        done = start(warm, tiny, "reward", full.folder, "--tune", tune, "--start", begun_from, "--output", "third")
        refused(done, f"The reward model in {begun_from} is {of}, and tune is '{tune}'; set tune to")


@pytest.fixture(scope="module")
def asked(full: Full, warm: Warm, tiny: Tiny) -> dict[str, Prompt]:
    """PPO's prompts, by id."""
    ended(start(warm, tiny, "prompts", full.folder))
    return {prompt.id: prompt for prompt in jsonl.read(full.folder / "runs/prompts.jsonl", Prompt)}


@pytest.mark.parametrize("layout", ["adapters", "full"])
def test_ppo_is_paid_by_it_and_resumes(
    full: Full, asked: dict[str, Prompt], warm: Warm, tiny: Tiny, layout: str
) -> None:
    """Scores of the first rollout, recomputed from its text; a killed run ends as one that was not."""
    flags = ("--layout", layout, "--output_dir")
    whole = ended(start(warm, tiny, "ppo", full.folder, *flags, f"{layout}/a"))
    at = number_of(whole.operations, "optimizer step", 11)
    assert start(warm, tiny, "ppo", full.folder, *flags, f"{layout}/b", kill_at=at).was_killed
    ended(start(warm, tiny, "ppo", full.folder, *flags, f"{layout}/b"))
    straight, resumed = (outcome(full.folder / layout / name) for name in "ab")
    assert {*differences(straight, resumed)} <= {"config.yaml", "run.json"}  # which name the folder

    judge = full.judge()
    lines = list(jsonl.read(full.folder / layout / "a/rollouts/update-00001.jsonl", RolloutRecord))
    compared = 0
    for line in lines:
        ids = chat_format.encode_answer(judge.tokenizer, line.response)
        if line.ended and len(ids) == line.tokens:  # BPE need not encode its own text as it was sampled
            (score,) = judge.score([(asked[line.prompt_id].messages, line.response, True)])
            assert line.score == pytest.approx(max(-5.0, min(5.0, score)), abs=2e-3)
            compared += 1
    assert compared >= 3
    metrics = read_metrics(full.folder / layout / "a/metrics.jsonl")
    assert len(metrics) == 3
    assert metrics[0]["objective/kl"] == 0


def test_an_ensemble_of_whole_models_is_refused(full: Full, asked: dict[str, Prompt], warm: Warm, tiny: Tiny) -> None:
    ended(start(warm, tiny, "reward", full.folder, "--steps", "1", "--output", "other"))
    words = "runs/reward/model is a whole model, which shares its weights with no other"
    asked = ("--model", '["runs/reward", "other"]', "--output", "both.jsonl")
    jsonl.write(full.folder / "some.jsonl", full.pairs[:1])
    refused(warm.run("reward.score", "some.jsonl", *asked, cwd=full.folder), words, "train its members with tune: lora")
    done = start(warm, tiny, "ppo", full.folder, "--reward_models", '["other"]', "--output_dir", "ppo-both")
    refused(done, words)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("torchao") is None, reason="torchao is not installed")
def test_with_moments_of_eight_bits_it_resumes_to_the_bit(chain: Chain, warm: Warm, tiny: Tiny, tmp_path: Path) -> None:
    """The head alone stays in float32. torchao compiles its step, here for a CPU: half a minute."""
    flags = (*FULL, "--optimizer", "adamw_8bit", "--dtype", "bfloat16")
    straight, cut = (chain.before("reward", tmp_path / name) for name in ("straight", "cut"))
    done = ended(start(warm, tiny, "reward", straight, *flags))
    at = number_of(done.operations, "optimizer step", 5)
    assert start(warm, tiny, "reward", cut, *flags, kill_at=at).was_killed
    ended(start(warm, tiny, "reward", cut, *flags))
    assert differences(outcome(cut / "runs"), outcome(straight / "runs")) == []
    weights = load_file(straight / "runs/reward/model/model.safetensors")
    assert {one.dtype for one in weights.values()} == {torch.bfloat16}
    assert load_file(straight / "runs/reward/model/head.safetensors")["weight"].dtype == torch.float32


def test_moments_of_eight_bits_are_for_all_weights(full: Full, warm: Warm, tiny: Tiny) -> None:
    done = start(warm, tiny, "reward", full.folder, "--optimizer", "adamw_8bit", "--output", "eight")
    refused(done, "optimizer adamw_8bit is for tune: full")
