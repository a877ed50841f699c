"""Whole models in the four roles: an update is the one that four separate models take, and a run goes on and is loaded.

The other side is written here with nothing of ours: four models, one answer at a time, whole logits, loops.
"""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from answers import ANSWERS, CPU, PROMPTS
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from alignment.full_roles import FullRoles
from alignment.halving import Halving
from alignment.make_roles import check_even
from alignment.ppo_trainer import PPOConfig, PPOTrainer
from alignment.ptx import Mixed
from finlm.errors import UserError
from finlm.model import load_policy
from finlm.samples import Sample
from finlm.scorer import last_hidden

Full = Callable[..., PPOTrainer]
GAMMA, LAMBDA, BETA, CLIP = 1.0, 0.95, 0.05, 0.2


@pytest.fixture
def full(base: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, filled_reward: Path, tmp_path: Path) -> Full:
    """Makes trainers of whole models that begin with equal weights."""

    def trainer(**settings: Any) -> PPOTrainer:
        settings = {
            "layout": "full",
            "output_dir": str(tmp_path / "ppo"),
            "total_episodes": 8,
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 4,
            "num_ppo_epochs": 1,
            "local_rollout_forward_batch_size": 8,
            "response_length": 6,
            "max_prompt_length": 64,
            "warmup_updates": 0,
            "learning_rate": 1e-3,
            "critic_learning_rate": 1e-3,
            **settings,
        }
        texts = (" Human: One. Assistant:", " Human: Two two. Assistant:")
        return PPOTrainer(
            args=PPOConfig(**settings),
            processing_class=tokenizer,
            model=copy.deepcopy(base),
            ref_model=None,
            reward_model=filled_reward,
            train_dataset=[{"input_ids": tokenizer(text)["input_ids"]} for text in texts],
        )

    return trainer


@pytest.fixture
def filled_reward(reward_model: Path, tmp_path: Path) -> Path:
    """The reward model with weights in its adapter: it is not the base."""
    import shutil

    from safetensors.torch import save_file

    folder = tmp_path / "reward"
    shutil.copytree(reward_model, folder)
    generator = torch.Generator().manual_seed(5)
    file = folder / "adapter_model.safetensors"
    drawn = {name: torch.randn(one.shape, generator=generator) * 0.1 for name, one in sorted(load_file(file).items())}
    save_file(drawn, file)
    return folder


# ------------------------------------------------------------------------------------------ the other side


def reward_body(base: LlamaForCausalLM, folder: Path) -> LlamaForCausalLM:
    """The base with W + alpha / r B A written out."""
    model = copy.deepcopy(base)
    settings = json.loads((folder / "adapter_config.json").read_text())
    stored = load_file(folder / "adapter_model.safetensors")
    weights = dict(model.named_parameters())
    with torch.no_grad():
        for name, a_RI in stored.items():
            if name.endswith("lora_A.weight"):
                b_OR = stored[name.replace("lora_A", "lora_B")]
                target = name.removeprefix("base_model.model.").replace("lora_A.weight", "weight")
                weights[target] += settings["lora_alpha"] / settings["r"] * (b_OR @ a_RI)
    return model


def log_probs_of(model: Any, prompt: list[int], answer: tuple[int, ...]) -> Tensor:
    logits = model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
    return torch.log_softmax(logits, dim=-1)[torch.arange(len(answer)), torch.tensor(answer)]


def readings(model: Any, head: nn.Linear, prompt: list[int], answer: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    hidden = model.model(input_ids=torch.tensor([[*prompt, *answer]])).last_hidden_state[0]
    read = head.weight[0] @ hidden.T + head.bias
    return read[len(prompt) - 1 : -1], read[-1]


def one_update(base: LlamaForCausalLM, folder: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """One PPO step of four separate models on PROMPTS and ANSWERS; returns the policy's and the critic's gradients."""
    stored = load_file(folder / "head.safetensors")
    head = nn.Linear(stored["weight"].shape[1], 1)
    head.load_state_dict(stored)
    critic_head = copy.deepcopy(head)
    policy, reference = copy.deepcopy(base), copy.deepcopy(base)
    critic, reward = reward_body(base, folder), reward_body(base, folder)
    for model in (policy, critic, critic_head):
        model.requires_grad_(True)
    rows = []
    for prompt, answer in zip(PROMPTS, ANSWERS, strict=True):
        with torch.no_grad():
            old, ref = log_probs_of(policy, prompt, answer.ids), log_probs_of(reference, prompt, answer.ids)
            score = readings(reward, head, prompt, answer.ids)[1].clamp(-5, 5) - (0 if answer.ended else 1)
            values = readings(critic, critic_head, prompt, answer.ids)[0]
        rewards = [-BETA * float(old[t] - ref[t]) for t in range(len(answer.ids))]
        rewards[-1] += float(score)
        after, advantages = 0.0, []
        for t in reversed(range(len(rewards))):
            next_value = float(values[t + 1]) if t + 1 < len(rewards) else 0.0
            after = rewards[t] + GAMMA * next_value - float(values[t]) + GAMMA * LAMBDA * after
            advantages.insert(0, after)
        rows.append((prompt, answer.ids, old, values, torch.tensor(advantages)))
    everything = torch.cat([row[4] for row in rows])
    mean, std = everything.mean(), everything.var(unbiased=False).add(1e-8).sqrt()
    policy_loss, value_loss = torch.zeros(()), torch.zeros(())
    for prompt, answer_ids, old, values, advantage in rows:
        scaled = (advantage - mean) / std
        ratio = (log_probs_of(policy, prompt, answer_ids) - old).exp()
        policy_loss = policy_loss - torch.minimum(ratio * scaled, ratio.clamp(1 - CLIP, 1 + CLIP) * scaled).sum()
        value = readings(critic, critic_head, prompt, answer_ids)[0]
        clipped = values + (value - values).clamp(-CLIP, CLIP)
        returns = advantage + values
        value_loss = value_loss + 0.5 * torch.maximum((value - returns) ** 2, (clipped - returns) ** 2).sum()
    (policy_loss / len(everything)).backward()
    (value_loss / len(everything)).backward()
    of_policy = {f"policy.{name}": one.grad for name, one in policy.named_parameters()}
    of_critic = {f"critic.{name}": one.grad for name, one in critic.model.named_parameters(prefix="model")}
    return of_policy, of_critic | {f"head.{name}": one.grad for name, one in critic_head.named_parameters()}


# ------------------------------------------------------------------------------------------ tests


def test_an_update_is_that_of_four_separate_models(full: Full, base: LlamaForCausalLM, filled_reward: Path) -> None:
    trainer = full(adam_epsilon=1.0, max_grad_norm=0.0)
    before = {name: one.detach().clone() for name, one in trainer.roles.parameters("policy").items()}
    measured = trainer.measure(PROMPTS, ANSWERS)
    trainer.learn(trainer.credit(measured), update=1)
    policy, critic = one_update(base, filled_reward)
    assert policy["policy.lm_head.weight"].abs().max() > 1e-3  # the output embedding learns too
    # Adam's first step with epsilon 1 is rate g / (|g| + 1): nearly the gradient itself
    after = trainer.roles.parameters("policy")
    assert policy.keys() == after.keys() == before.keys()
    for name, gradient in policy.items():
        moved = (before[name] - after[name].detach()) / 1e-3
        torch.testing.assert_close(moved, gradient / (gradient.abs() + 1), rtol=2e-3, atol=2e-4, msg=name)
    began = dict(reward_body(base, filled_reward).named_parameters())
    for name, parameter in trainer.roles.parameters("critic").items():
        gradient = critic[name]
        moved = (began[name.removeprefix("critic.")].detach() - parameter.detach()) / 1e-3
        torch.testing.assert_close(moved, gradient / (gradient.abs() + 1), rtol=2e-3, atol=2e-4, msg=name)
    assert len(trainer.gradients.critic) == len(critic)


def test_the_first_ratio_is_one_and_the_first_kl_zero(full: Full) -> None:
    trainer = full()
    measured = trainer.measure(PROMPTS, ANSWERS)
    assert all(torch.equal(item.old_BA, item.ref_BA) for item in measured)
    assert trainer.learn(trainer.credit(measured), update=1)["val/ratio"] == 1.0


def test_critic_begins_as_the_reward_model_and_goes_its_own_way(full: Full, tiny: Any) -> None:
    trainer = full()
    ids_BT, is_token_BT = torch.tensor([[5, 9, 13, 100]]), torch.ones(1, 4, dtype=torch.bool)
    hidden = {}
    for role in ("reward", "critic", "reference"):
        with torch.no_grad(), trainer.roles(role):
            hidden[role] = last_hidden(trainer.roles.model, ids_BT, is_token_BT)
    torch.testing.assert_close(hidden["critic"], hidden["reward"], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(hidden["reward"], hidden["reference"], atol=1e-3)
    trainer.learn(trainer.credit(trainer.measure(PROMPTS, ANSWERS)), update=1)
    for role in ("reward", "reference"):
        with torch.no_grad(), trainer.roles(role):
            assert torch.equal(last_hidden(trainer.roles.model, ids_BT, is_token_BT), hidden[role])


def test_recomputed_activations_give_the_same_weights(full: Full) -> None:
    found = []
    for checkpoints in (False, True):
        trainer = full(gradient_checkpointing=checkpoints)
        trainer.learn(trainer.credit(trainer.measure(PROMPTS, ANSWERS)), update=1)
        found.append(trainer.roles.parameters("policy") | trainer.roles.parameters("critic"))
        with trainer.roles.sampling():
            assert not trainer.roles.model.training  # a cache, and no recomputation
    for name, parameter in found[0].items():
        assert torch.equal(parameter, found[1][name]), name


def test_a_run_that_went_on_ends_as_an_unbroken_one_and_its_policy_loads(full: Full, tmp_path: Path) -> None:
    settings = {"total_episodes": 24, "save_steps": 1, "adaptive_kl_target": 0.5, "num_ppo_epochs": 2}
    straight = full(**settings, output_dir=str(tmp_path / "straight"))
    straight.train()
    full(**settings | {"total_episodes": 16}, output_dir=str(tmp_path / "cut")).train()
    resumed = full(**settings, output_dir=str(tmp_path / "cut"))
    resumed.train()
    for file in sorted((tmp_path / "straight/checkpoints/checkpoint-3").iterdir()):
        assert file.read_bytes() == (tmp_path / "cut/checkpoints/checkpoint-3" / file.name).read_bytes(), file.name
    resumed.roles.refresh()
    resumed.save_policy(tmp_path / "cut" / "policy", base="../base")
    loaded, _ = load_policy(tmp_path / "cut", dtype=torch.float32, device=CPU)
    stored = dict(loaded.named_parameters())
    for name, parameter in straight.roles.parameters("policy").items():
        assert torch.equal(parameter, stored[name.removeprefix("policy.")]), name


def test_a_checkpoint_in_pieces_is_the_same_checkpoint(
    full: Full, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alignment.ppo_state.PIECE_BYTES", 40_000)
    settings = {"total_episodes": 16, "save_steps": 1}
    first = full(**settings, output_dir=str(tmp_path / "pieces"))
    first.train()
    folder = tmp_path / "pieces/checkpoints/checkpoint-2"
    assert len(list(folder.glob("weights*.safetensors"))) > 2
    again = full(**settings, output_dir=str(tmp_path / "pieces"))
    again.take_up()
    assert again.progress.update == 2
    for name, parameter in first.roles.parameters("critic").items():
        assert torch.equal(parameter, again.roles.parameters("critic")[name]), name
    for one, other in zip(first.gradients.critic, again.gradients.critic, strict=True):
        assert torch.equal(
            first.optimizers["critic"].state[one]["exp_avg_sq"], again.optimizers["critic"].state[other]["exp_avg_sq"]
        )


def test_one_process_needs_float32(base: LlamaForCausalLM, filled_reward: Path) -> None:
    with pytest.raises(UserError, match=r"dtype bfloat16 in one process.*fsdp2\.yaml"):
        FullRoles(copy.deepcopy(base).bfloat16(), filled_reward)


def test_dropout_is_refused(base: LlamaForCausalLM, filled_reward: Path) -> None:
    model = copy.deepcopy(base)
    model.config.attention_dropout = 0.1
    with pytest.raises(UserError, match=r"attention_dropout is 0\.1"):
        FullRoles(model, filled_reward)


def test_adapters_need_a_lora(full: Full) -> None:
    with pytest.raises(UserError, match="no peft_config"):
        full(layout="adapters")


def test_rows_that_processes_cannot_share_are_refused() -> None:
    args = PPOConfig(layout="full", ptx_coef=0.1, ptx_instructions=["a.jsonl"], ptx_text_share=0.0, ptx_rows=6)
    check_even(args, 3)
    with pytest.raises(UserError, match=r"ptx_rows is 6, which 4 processes cannot share evenly.*a multiple of 4"):
        check_even(args, 4)
    with pytest.raises(UserError, match=r"micro_batch_tokens is 512.*set it to 0"):
        check_even(PPOConfig(layout="full", micro_batch_tokens=512), 2)


def test_with_shards_too_little_memory_is_not_met_by_halves() -> None:
    def work(mixed: Mixed) -> None:
        raise torch.OutOfMemoryError("none left")

    ids, learned = np.array([1, 2], np.int32), np.array([False, True])
    lesson = Mixed((Sample("text-finance", ids, learned, "", "en", "a:1"),) * 2)
    with pytest.raises(UserError, match=r"2 answers of 4 tokens.*lower per_device_train_batch_size"):
        Halving(is_allowed=False)(lesson, work)


def test_an_unknown_layout_is_named() -> None:
    with pytest.raises(ValueError, match="layout is 'half'; it must be adapters or full"):
        PPOConfig(layout="half")


def test_zero_takes_stage_three_on_the_gpus_and_untied_embeddings(
    base: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("deepspeed")
    from accelerate.utils import DeepSpeedPlugin
    from transformers.integrations import unset_hf_deepspeed_config

    from alignment.zero import ZeRO

    with pytest.raises(UserError, match="zero_stage is 2"):
        ZeRO({"zero_optimization": {"stage": 2}}, None)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="offload_param_device is cpu"):
        ZeRO({"zero_optimization": {"stage": 3, "offload_param": {"device": "cpu"}}}, None)  # type: ignore[arg-type]
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO3_INIT", "false")
    ZeRO(DeepSpeedPlugin(zero_stage=3).deepspeed_config, None)  # type: ignore[arg-type]
    unset_hf_deepspeed_config()
    tied = copy.deepcopy(base)
    tied.config.tie_word_embeddings = True
    with pytest.raises(UserError, match="embeddings are tied"):
        ZeRO({"zero_optimization": {"stage": 3}}, None).shard(tied, torch.float32, has_head=True)  # type: ignore[arg-type]
