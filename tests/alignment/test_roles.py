"""Four roles on one base: each must be exactly the model it stands for, and stay trainable or frozen as it began."""

import copy
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel
from torch import Tensor
from torch.utils.checkpoint import CheckpointError, checkpoint
from transformers import GenerationConfig, LlamaForCausalLM

from alignment.roles import Role, Roles, copy_adapter
from finlm.model import load_causal
from finlm.scorer import last_hidden

CPU = torch.device("cpu")
ADAPTERS: tuple[Role, ...] = ("policy", "critic", "reward")


@pytest.fixture(scope="module")
def base(tiny: Any) -> LlamaForCausalLM:
    """Never touched: each test wraps a copy."""
    model = load_causal(Path(tiny.base), dtype=torch.float32, device=CPU)
    assert isinstance(model, LlamaForCausalLM)
    return model.eval()


@pytest.fixture(scope="module")
def ids(base: LlamaForCausalLM) -> Tensor:
    return torch.randint(2, base.config.vocab_size, (2, 9), generator=torch.Generator().manual_seed(0))


def lora(layers: Sequence[int] | None = None, rank: int = 4, **fields: Any) -> LoraConfig:
    fields["target_modules"] = ["q_proj", "down_proj"] if layers else "all-linear"
    return LoraConfig(r=rank, lora_alpha=8, layers_to_transform=layers, task_type="CAUSAL_LM", **fields)


def make(base: LlamaForCausalLM, policy: LoraConfig | None = None, critic: LoraConfig | None = None) -> Roles:
    return Roles(copy.deepcopy(base), policy or lora(), critic or lora(), lora())


def fill(roles: Roles) -> Roles:
    """Give every adapter weights of its own, B included."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name in ADAPTERS:
            for parameter in roles.adapter(name).values():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return roles


def logits(model: Any, ids: Tensor) -> Tensor:
    with torch.no_grad():
        out: Tensor = model(input_ids=ids).logits
    return out


def trainable(roles: Roles) -> set[str]:
    return {name for name, parameter in roles.model.named_parameters() if parameter.requires_grad}


def test_reference_is_the_base_to_the_bit(base: LlamaForCausalLM, ids: Tensor) -> None:
    roles = fill(make(base))
    with roles("reference"):
        assert torch.equal(logits(roles.model, ids), logits(base, ids))
    with roles("policy"):
        assert not torch.allclose(logits(roles.model, ids), logits(base, ids))


def test_a_new_policy_is_the_base_to_the_bit(base: LlamaForCausalLM, ids: Tensor) -> None:
    roles = make(base)
    with roles("policy"):
        assert torch.equal(logits(roles.model, ids), logits(base, ids))


@pytest.mark.parametrize("role", ADAPTERS)
def test_each_role_is_the_base_with_that_adapter_alone(base: LlamaForCausalLM, ids: Tensor, role: Role) -> None:
    roles = fill(make(base))
    alone = PeftModel(copy.deepcopy(base), lora(), adapter_name=role).eval()
    state = dict(alone.named_parameters())
    with torch.no_grad():
        for name, parameter in roles.adapter(role).items():
            state[name].copy_(parameter)
    with roles(role):
        assert torch.equal(logits(roles.model, ids), logits(alone, ids))


def test_adapters_on_different_layers_do_not_see_each_other(base: LlamaForCausalLM, ids: Tensor) -> None:
    low, top = lora(layers=[0], rank=2), lora(layers=[1])
    roles = fill(Roles(copy.deepcopy(base), low, top, lora()))
    for role, config in (("policy", low), ("critic", top), ("reward", lora())):
        alone = PeftModel(copy.deepcopy(base), config, adapter_name=role).eval()
        state = dict(alone.named_parameters())
        with torch.no_grad():
            for name, parameter in roles.adapter(role).items():
                state[name].copy_(parameter)
        with roles(role):
            assert torch.equal(logits(roles.model, ids), logits(alone, ids))
    with roles("reference"):
        assert torch.equal(logits(roles.model, ids), logits(base, ids))


def test_policy_and_critic_stay_trainable_and_nothing_else(base: LlamaForCausalLM, ids: Tensor) -> None:
    roles = make(base)
    begun = trainable(roles)
    assert begun == set(roles.adapter("policy")) | set(roles.adapter("critic"))
    for role in ("critic", "reference", "reward", "policy", "reference", "critic"):
        with roles(role), roles("reference"):
            logits(roles.model, ids)
            assert trainable(roles) == begun
        assert trainable(roles) == begun


def test_a_role_is_taken_off_also_after_an_error(base: LlamaForCausalLM, ids: Tensor) -> None:
    roles = fill(make(base))
    with roles("policy"):
        before = logits(roles.model, ids)
        with pytest.raises(RuntimeError, match="broke"), roles("reward"), roles("critic"):
            raise RuntimeError("broke")
        assert torch.equal(logits(roles.model, ids), before)


def test_gradients_reach_only_the_role_that_is_on(base: LlamaForCausalLM, ids: Tensor) -> None:
    roles = fill(make(base))
    with roles("critic"):
        last_hidden(roles.model, ids, torch.ones_like(ids).bool()).square().mean().backward()
    reached = {name for name, parameter in roles.model.named_parameters() if parameter.grad is not None}
    assert reached == set(roles.adapter("critic"))


def two_forwards_then_two_backwards(roles: Roles, ids: Tensor) -> dict[str, Tensor]:
    """The order that breaks plain checkpointing: at the backward passes no role, or another one, is on."""
    is_token = torch.ones_like(ids).bool()
    with roles("policy"):
        policy = last_hidden(roles.model, ids, is_token).square().mean()
    with roles("critic"):
        critic = last_hidden(roles.model, ids, is_token).abs().mean()
    with roles("reward"):
        critic.backward()
        policy.backward()
    return {name: p.grad for name, p in roles.model.named_parameters() if p.grad is not None}


def test_checkpointed_gradients_equal_plain_ones(base: LlamaForCausalLM, ids: Tensor) -> None:
    plain, saving = fill(make(base)), fill(make(base))
    saving.checkpoint_gradients()
    counts = {"layers": 0}
    layer = saving.model.get_base_model().model.layers[0]
    layer.self_attn.register_forward_hook(lambda *_: counts.update(layers=counts["layers"] + 1))
    wanted, got = two_forwards_then_two_backwards(plain, ids), two_forwards_then_two_backwards(saving, ids)
    assert counts["layers"] == 4, "two forward passes, each computed again"
    assert set(got) == set(wanted) == set(plain.adapter("policy")) | set(plain.adapter("critic"))
    for name, gradient in wanted.items():
        torch.testing.assert_close(got[name], gradient)
        assert gradient.abs().max() > 0


def test_plain_checkpointing_would_be_wrong(base: LlamaForCausalLM, ids: Tensor) -> None:
    """The trap is real: without the replay, the gradients of the same passes differ or do not exist."""
    plain, trapped = fill(make(base)), fill(make(base))
    causal = trapped.model.get_base_model()
    plain_checkpoint = partial(checkpoint, use_reentrant=False)
    for layer in causal.model.layers:
        layer.gradient_checkpointing, layer._gradient_checkpointing_func = True, plain_checkpoint
        layer.training = True
    wanted = two_forwards_then_two_backwards(plain, ids)
    try:
        got = two_forwards_then_two_backwards(trapped, ids)
    except CheckpointError:
        return
    assert any(name not in got or not torch.allclose(got[name], wanted[name]) for name in wanted)


def test_checkpointing_changes_no_output(base: LlamaForCausalLM, ids: Tensor) -> None:
    plain, saving = fill(make(base)), fill(make(base))
    saving.checkpoint_gradients()
    for role in ("policy", "critic", "reward", "reference"):
        with plain(role), saving(role):
            assert torch.equal(logits(saving.model, ids), logits(plain.model, ids))


def test_checkpointing_leaves_the_cache_to_generation(base: LlamaForCausalLM, ids: Tensor) -> None:
    """transformers takes the cache away from a layer that checkpoints: each token would see itself only."""
    plain, saving = fill(make(base)), fill(make(base))
    saving.checkpoint_gradients()
    settings = GenerationConfig(max_new_tokens=8, min_new_tokens=8, do_sample=False, eos_token_id=1, pad_token_id=0)
    answers = []
    for roles in (plain, saving):
        with roles("policy"):
            answers.append(roles.model.generate(input_ids=ids, generation_config=settings))
    assert torch.equal(*answers)


@pytest.mark.parametrize("name", ["policy", "critic"])
def test_dropout_is_refused(base: LlamaForCausalLM, name: str) -> None:
    with pytest.raises(ValueError, match=f"the {name}'s lora_dropout is 0.1"):
        make(base, **{name: lora(lora_dropout=0.1)})


def test_a_copied_adapter_gives_the_same_output(base: LlamaForCausalLM, ids: Tensor) -> None:
    roles = fill(make(base))
    copy_adapter(roles, "reward", "critic")
    with roles("reward"):
        wanted = logits(roles.model, ids)
    with roles("critic"):
        assert torch.equal(logits(roles.model, ids), wanted)
    # and it is a copy: training the critic leaves the reward model alone
    optimizer = torch.optim.SGD(roles.adapter("critic").values(), lr=1.0)
    with roles("critic"):
        last_hidden(roles.model, ids, torch.ones_like(ids).bool()).square().mean().backward()
    optimizer.step()
    with roles("reward"):
        assert torch.equal(logits(roles.model, ids), wanted)
    with roles("critic"):
        assert not torch.equal(logits(roles.model, ids), wanted)
