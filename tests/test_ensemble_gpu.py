"""Reward models on a GPU: in half precision without padding, each says what it says alone and what a CPU says."""

from pathlib import Path
from typing import Any

import pytest
import torch
from drawn_rewards import CPU, drawn_reward

from finlm.ensemble import EncodedAnswer, Ensemble
from finlm.records import Message

pytestmark = pytest.mark.gpu
GPU = torch.device("cuda")


@pytest.fixture(scope="module")
def folders(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    home = tmp_path_factory.mktemp("rewards")
    return [
        drawn_reward(tiny.base, home / "a", seed=1),
        drawn_reward(tiny.base, home / "b", seed=2, rank=2),
        drawn_reward(tiny.base, home / "c", seed=1, head_seed=9),
    ]


def answers(judge: Ensemble) -> list[EncodedAnswer]:
    prompt = (Message(role="user", content="What was it?"),)
    return [judge.encode(prompt, "It was 7. " * number, ended=number % 3 > 0) for number in range(1, 25)]


@pytest.mark.parametrize("layers", [None, [1]])
def test_scores_are_those_of_a_cpu(folders: list[Path], tiny: Any, tmp_path: Path, layers: list[int] | None) -> None:
    if layers:  # no adapter below: the layers there are run once
        folders = [drawn_reward(tiny.base, tmp_path / name, seed=3 + k, layers=layers) for k, name in enumerate("de")]
    exact = Ensemble.load(folders, dtype=torch.float32, device=CPU)
    wanted = exact.score(answers(exact), batch_tokens=4096)
    half = Ensemble.load(folders, dtype=torch.bfloat16, device=GPU)
    found = half.score(answers(half), batch_tokens=1024)
    assert found.device == CPU
    spread = float(wanted.std())
    assert float((found - wanted).abs().mean()) < 0.05 * spread
    alone = Ensemble.load(folders[1], dtype=torch.bfloat16, device=GPU)
    torch.testing.assert_close(alone.score(answers(alone), batch_tokens=1024)[0], found[1], atol=0.02 * spread, rtol=0)


def test_batches_change_little(folders: list[Path]) -> None:
    half = Ensemble.load(folders, dtype=torch.bfloat16, device=GPU)
    one, all_at_once = (half.score(answers(half), batch_tokens=tokens) for tokens in (1, 10**6))
    assert float((one - all_at_once).abs().max()) < 0.05 * float(one.std())
