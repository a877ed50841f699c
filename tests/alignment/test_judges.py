"""PPO paid by several reward models: each says in the roles what it says alone, and one is what it always was."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from answers import ANSWERS, CPU, PROMPTS, Maker
from drawn_rewards import drawn_reward
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from alignment import rollout
from alignment.full_roles import FullRoles
from alignment.guards import GuardConfig
from alignment.judges import Judges
from alignment.watch import GuardStop
from finlm.ensemble import EncodedAnswer, Ensemble
from finlm.errors import UserError
from finlm.metrics import read_metrics
from finlm.ppo_records import read_guards


@pytest.fixture(scope="module")
def rewards(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three reward models whose adapters have other shapes."""
    home = tmp_path_factory.mktemp("rewards")
    made = [
        drawn_reward(tiny.base, home / "a", seed=1, layers=[1]),
        drawn_reward(tiny.base, home / "b", seed=2, rank=2),
        drawn_reward(tiny.base, home / "c", seed=3),
    ]
    return [folder / "model" for folder in made]


def alone(rewards: list[Path]) -> torch.Tensor:
    """Scores (K, N) of the fixed answers outside PPO."""
    answers = [
        EncodedAnswer((*prompt, *answer.ids), answer.ended) for prompt, answer in zip(PROMPTS, ANSWERS, strict=True)
    ]
    return Ensemble.load(rewards, dtype=torch.float32, device=CPU).score(answers, batch_tokens=10**6)


def by_place(measured: list[rollout.Measured], of: Callable[[rollout.Measured], torch.Tensor | None]) -> torch.Tensor:
    """One number an answer, in the order of the answers."""
    found = torch.empty(len(ANSWERS))
    for item in measured:
        number_B = of(item)
        assert number_B is not None
        found[list(item.batch.index)] = number_B
    return found


@pytest.mark.parametrize("how", ["mean", "min"])
def test_the_mean_or_the_minimum_is_paid(make: Maker, rewards: list[Path], how: str) -> None:
    trainer = make(scored_by=rewards, reward_reduce=how, per_device_train_batch_size=3, score_clip=0.0)
    measured = trainer.measure(PROMPTS, ANSWERS)
    member_KN = alone(rewards)
    wanted_N = {"mean": sum(member_KN) / 3, "min": torch.minimum(torch.minimum(*member_KN[:2]), member_KN[2])}[how]
    torch.testing.assert_close(by_place(measured, lambda item: item.raw_B), wanted_N, atol=1e-5, rtol=0)
    spread_N = ((member_KN - member_KN.mean(0)) ** 2).mean(0).sqrt()
    torch.testing.assert_close(by_place(measured, lambda item: item.disagreement_B), spread_N, atol=1e-5, rtol=0)
    # the critic begins as the first
    assert torch.equal(trainer.critic_head.weight, trainer.judges.heads[0].weight)
    critic = trainer.roles.adapter("critic")
    assert all(
        torch.equal(critic[name.replace(".reward.", ".critic.")], one)
        for name, one in trainer.roles.adapter("reward").items()
    )


def test_an_update_says_how_far_they_disagree(make: Maker, rewards: list[Path]) -> None:
    trainer = make(scored_by=rewards, total_episodes=16)
    trainer.train()
    lines = read_metrics(trainer.folder / "metrics.jsonl")
    assert [line["rollout/disagreement"] > 0 for line in lines] == [True, True]


def test_one_reward_model_in_a_list_changes_nothing(make: Maker, rewards: list[Path]) -> None:
    """Not a bit, and nothing is logged of a disagreement."""
    ended = []
    for scored_by in (rewards[0], [rewards[0]]):
        trainer = make(scored_by=scored_by, total_episodes=16, learning_rate=1e-2)
        metrics = trainer.train()
        weights = [one.detach().clone() for one in trainer.roles.parameters("policy").values()]
        ended.append(
            ({name: value for name, value in metrics.items() if "perf/" not in name and name != "eps"}, weights)
        )
    assert ended[0][0] == ended[1][0]
    assert "rollout/disagreement" not in ended[0][0]
    assert all(torch.equal(one, other) for one, other in zip(ended[0][1], ended[1][1], strict=True))


def test_whole_models_are_paid_alike(
    base: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, rewards: list[Path]
) -> None:
    roles = FullRoles(copy.deepcopy(base), rewards[0], more_rewards=rewards[1:])
    judges = Judges.load(rewards, tokenizer, CPU, width=48, reduce="mean")
    found_N, spread_N = torch.empty(len(ANSWERS)), torch.empty(len(ANSWERS))
    with torch.no_grad():
        for batch in rollout.micro_batches(roles, PROMPTS, ANSWERS, size=3, pad=0, device=CPU):
            score_B, disagreement_B = judges.scores(roles, batch)
            assert disagreement_B is not None
            found_N[list(batch.index)], spread_N[list(batch.index)] = score_B, disagreement_B
    member_KN = alone(rewards)
    torch.testing.assert_close(found_N, member_KN.mean(0), atol=1e-5, rtol=0)
    torch.testing.assert_close(spread_N, member_KN.std(0, correction=0), atol=1e-5, rtol=0)


def test_models_that_read_cut_answers_in_two_ways_are_refused(make: Maker, rewards: list[Path], tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for file in rewards[1].iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    described = json.loads((other / "reward.json").read_text(encoding="utf-8"))
    (other / "reward.json").write_text(json.dumps(described | {"learned_from_cut": False}), encoding="utf-8")
    with pytest.raises(UserError, match="read such an answer in different ways"):
        make(scored_by=[rewards[0], other])
    with pytest.raises(ValueError, match="reward_reduce is 'max'; it must be mean or min"):
        make(scored_by=rewards, reward_reduce="max")


def test_a_run_whose_reward_models_part_is_rolled_back(make: Maker, rewards: list[Path]) -> None:
    """Answers of six tokens vary from rollout to rollout: a narrow limit is crossed by chance, a wide one is not."""
    off = {"kl_target": 0.0, "length_ratio": 0.0, "entropy_share": 0.0, "ended_fall": 0.0, "start_updates": 1}
    how: dict[str, Any] = {"scored_by": rewards, "total_episodes": 64, "save_steps": 1, "learning_rate": 0.05}
    wide = make(**how, guards=GuardConfig(**off, patience=1, disagreement_multiple=100.0))
    wide.train()
    assert read_guards(wide.folder) == []
    told = [line["rollout/disagreement"] for line in read_metrics(wide.folder / "metrics.jsonl")]
    first = next(update for update, one in enumerate(told, 1) if one > 1.02 * told[0])
    narrow = make(**how, guards=GuardConfig(**off, patience=1, disagreement_multiple=1.02))
    with pytest.raises(
        GuardStop, match=r"by the guard 'disagreement'\. The reward models' scores of an answer differ by"
    ):
        narrow.train()
    (verdict,) = read_guards(narrow.folder)
    assert (verdict.guard, verdict.update, verdict.action) == ("disagreement", first, "roll back")
    assert verdict.back_to == max(0, first - 2)
    assert f"at the start {told[0]:.2f}; the limit is {1.02 * told[0]:.2f}" in verdict.sentence
