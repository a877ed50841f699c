"""A reward model whose weights all learned, as PPO's scorer and its critic's start: in both layouts its own numbers."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from answers import ANSWERS, PROMPTS
from peft import LoraConfig
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from alignment.ppo_trainer import PPOConfig, PPOTrainer
from alignment.roles import Roles
from finlm import scorer
from finlm.errors import UserError
from finlm.model import export_whole
from finlm.tokenizer import tokenizer_fingerprint

Maker = Callable[..., PPOTrainer]
LAYOUTS = pytest.mark.parametrize("layout", ["adapters", "full"])


@pytest.fixture(scope="module")
def judge(base: LlamaForCausalLM) -> LlamaForCausalLM:
    """The base, every weight moved: what all-weights training leaves behind."""
    moved = copy.deepcopy(base)
    generator = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for parameter in moved.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.03)
    return moved


@pytest.fixture(scope="module")
def head(base: LlamaForCausalLM) -> scorer.Head:
    weight = torch.randn(base.config.hidden_size, generator=torch.Generator().manual_seed(9)) * 0.2
    return scorer.fold(weight, mean=0.4, std=2.0)


@pytest.fixture(scope="module")
def whole(
    judge: LlamaForCausalLM, head: scorer.Head, tokenizer: PreTrainedTokenizerBase, tmp_path_factory: Any
) -> Path:
    folder: Path = tmp_path_factory.mktemp("whole") / "model"
    export_whole(judge, tokenizer, folder)
    description = scorer.RewardDescription(
        mean=0.4, std=2.0, normalised_on="nothing", tokenizer=tokenizer_fingerprint(tokenizer)
    )
    scorer.save_description(folder, head, description)
    return folder


@pytest.fixture
def made(base: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, whole: Path, tmp_path: Path) -> Maker:
    """Makes trainers that this model pays."""

    def trainer(layout: str, rewards: Any = whole, **settings: Any) -> PPOTrainer:
        given: dict[str, Any] = {
            "output_dir": str(tmp_path / "ppo"), "total_episodes": 8, "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 4, "num_ppo_epochs": 1, "local_rollout_forward_batch_size": 8,
            "response_length": 6, "max_prompt_length": 64, "warmup_updates": 0, "learning_rate": 1e-3,
            "critic_learning_rate": 1e-3, "layout": layout, **settings,
        }  # fmt: skip
        torch.manual_seed(11)
        return PPOTrainer(
            args=PPOConfig(**given),
            processing_class=tokenizer,
            model=copy.deepcopy(base),
            ref_model=None,
            reward_model=rewards,
            train_dataset=[{"input_ids": tokenizer(" Human: One. Assistant:")["input_ids"]}],
            peft_config=LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"),
        )

    return trainer


def states(model: LlamaForCausalLM, place: int) -> Tensor:
    with torch.no_grad():
        return model.model(input_ids=torch.tensor([[*PROMPTS[place], *ANSWERS[place].ids]])).last_hidden_state[0]


@LAYOUTS
def test_scores_and_first_values_are_its_own_readings(
    made: Maker, judge: LlamaForCausalLM, head: scorer.Head, layout: str
) -> None:
    """Of the plain model, one answer at a time: the score behind the last token, the values before each."""
    trainer = made(layout)
    for item in trainer.measure(PROMPTS, ANSWERS):
        for row, place in enumerate(item.batch.index):
            hidden, tokens = states(judge, place), len(ANSWERS[place].ids)
            with torch.no_grad():
                read = head(hidden)
            assert float(item.raw_B[row]) == pytest.approx(float(read[-1]), abs=1e-4)
            torch.testing.assert_close(item.value_BA[row, :tokens], read[-tokens - 1 : -1], atol=1e-4, rtol=1e-4)
        assert torch.equal(item.old_BA, item.ref_BA)  # the policy is the base still, not the reward model


@LAYOUTS
def test_the_critic_learns_and_the_reward_model_stays(made: Maker, judge: LlamaForCausalLM, layout: str) -> None:
    trainer = made(layout)
    before = [item.raw_B for item in trainer.measure(PROMPTS, ANSWERS)]
    first = [item.value_BA for item in trainer.measure(PROMPTS, ANSWERS)]
    critic = {name: one.detach().clone() for name, one in trainer.roles.parameters("critic").items()}
    trainer.learn(trainer.credit(trainer.measure(PROMPTS, ANSWERS)), update=1)
    again = trainer.measure(PROMPTS, ANSWERS)
    assert all(torch.equal(one, item.raw_B) for one, item in zip(before, again, strict=True))
    assert not all(torch.equal(one, item.value_BA) for one, item in zip(first, again, strict=True))
    moved = {name for name, one in trainer.roles.parameters("critic").items() if not torch.equal(one, critic[name])}
    assert moved
    assert all(".critic." in name or name.startswith("critic.") for name in moved)


@LAYOUTS
def test_recomputed_activations_give_the_same_weights(made: Maker, layout: str) -> None:
    found = []
    for checkpoints in (False, True):
        trainer = made(layout, gradient_checkpointing=checkpoints)
        trainer.learn(trainer.credit(trainer.measure(PROMPTS, ANSWERS)), update=1)
        found.append(trainer.roles.parameters("policy") | trainer.roles.parameters("critic"))
    for name, parameter in found[0].items():
        assert torch.equal(parameter, found[1][name]), name


def test_a_role_on_either_model_is_taken_off_again(made: Maker) -> None:
    roles = made("adapters").roles
    assert isinstance(roles, Roles)
    assert roles.trunk is None
    with roles("critic"):
        assert roles.model is not roles.sampled
        with roles("policy"):
            assert roles.model is roles.sampled
        assert roles.model is not roles.sampled
    assert roles.model is roles.sampled
    trained = {name for name, one in roles.sampled.named_parameters() if one.requires_grad}
    assert trained == set(roles.adapter("policy"))


@LAYOUTS
def test_it_shares_with_no_other(made: Maker, whole: Path, reward_model: Path, layout: str) -> None:
    with pytest.raises(UserError, match=r"is a whole model, which shares its weights with no other.*tune: lora"):
        made(layout, rewards=[whole, reward_model])
    with pytest.raises(UserError, match="is a whole model"):
        made(layout, rewards=[reward_model, whole])
