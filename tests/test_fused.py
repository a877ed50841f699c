"""The fused parts of a layer compute what PEFT and transformers do."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel
from peft.tuners.lora import Linear as LoraLinear
from torch import nn

from finlm import fused_layers, fused_lora, likelihood
from finlm.model import load_causal


def adapted_model(tiny: Any, dtype: torch.dtype) -> PeftModel:
    base = load_causal(Path(tiny.base), dtype=dtype, device=torch.device("cpu"))
    lora = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    model = PeftModel(base, lora, adapter_name="policy").eval()
    torch.manual_seed(3)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.3)
    return model


def layer_of(model: PeftModel) -> LoraLinear:
    return next(module for module in model.modules() if isinstance(module, LoraLinear))


def test_a_map_with_its_adapter_is_pefts_in_value_and_gradients(tiny: Any) -> None:
    """PEFT in float64 is the measure of both: ours in bfloat16 must not be further from it than bfloat16 is."""
    layer = layer_of(adapted_model(tiny, torch.bfloat16))
    torch.manual_seed(0)
    x = torch.randn(2, 5, layer.in_features, dtype=torch.bfloat16, requires_grad=True)
    weights = torch.randn(2, 5, layer.out_features, dtype=torch.bfloat16)
    exact = copy.deepcopy(layer).double()
    wide = x.detach().double().requires_grad_()
    wanted = exact(wide)
    (wanted * weights.double()).sum().backward()
    assert fused_lora.can_fuse(layer, x)
    found = fused_lora.adapted(x, layer, "policy")
    (found * weights).sum().backward()
    assert found.dtype == torch.bfloat16
    assert x.grad is not None
    assert wide.grad is not None
    pairs = [(found, wanted), (x.grad, wide.grad)]
    for part, same in ((layer.lora_A, exact.lora_A), (layer.lora_B, exact.lora_B)):
        gradient, gold = part["policy"].weight.grad, same["policy"].weight.grad
        assert gradient is not None
        assert gradient.dtype == torch.float32
        assert gold is not None
        pairs.append((gradient, gold))
    for ours, gold in pairs:
        assert float((ours.detach().double() - gold.detach()).norm() / gold.detach().norm()) < 0.01


def test_it_is_pefts_to_rounding_where_nothing_is_rounded(tiny: Any) -> None:
    layer = layer_of(adapted_model(tiny, torch.float32))
    x = torch.randn(7, layer.in_features, requires_grad=True)
    wanted = torch.autograd.grad(layer(x).square().sum(), [x, layer.lora_A["policy"].weight])
    found = torch.autograd.grad(
        fused_lora.adapted(x, layer, "policy").square().sum(), [x, layer.lora_A["policy"].weight]
    )
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_what_it_does_not_cover_goes_pefts_way(tiny: Any) -> None:
    layer = layer_of(adapted_model(tiny, torch.bfloat16))
    x = torch.randn(3, layer.in_features, dtype=torch.bfloat16)
    assert fused_lora.can_fuse(layer, x)
    assert not fused_lora.can_fuse(layer, x.float())
    layer.lora_dropout["policy"] = nn.Dropout(0.1)
    assert not fused_lora.can_fuse(layer, x)


# torch's compiler looks at gradients of what is no leaf, and would not be heard
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.parametrize("dtype", [torch.bfloat16, pytest.param(torch.float32, marks=pytest.mark.slow)])
def test_compiled_norm_gate_and_rotation_are_those_of_transformers(tiny: Any, dtype: torch.dtype) -> None:
    plain = load_causal(Path(tiny.base), dtype=dtype, device=torch.device("cpu")).eval()
    fused = fused_layers.fuse(copy.deepcopy(plain))
    ids = torch.randint(2, 400, (3, 11), generator=torch.Generator().manual_seed(0))
    gold = copy.deepcopy(plain).double()
    wanted = gold.model(input_ids=ids, use_cache=False).last_hidden_state
    losses = [
        made.model(input_ids=ids, use_cache=False).last_hidden_state.float().square().mean() for made in (plain, fused)
    ]
    for loss in losses:
        loss.backward()
    with torch.no_grad():
        without = fused.model(input_ids=ids, use_cache=False).last_hidden_state.float().square().mean()
    assert torch.equal(losses[1], without), "passes with and without gradients do not run the same kernels"
    wanted.square().mean().backward()
    for name in dict(fused.named_parameters()):
        gradient, theirs, exact = (dict(made.named_parameters())[name].grad for made in (fused, plain, gold))
        if gradient is not None and theirs is not None and exact is not None:
            off = [float((one.double() - exact).norm() / exact.norm()) for one in (gradient, theirs)]
            assert off[0] <= 1.5 * off[1] + 1e-6, name


def test_log_probabilities_in_one_go_are_those_of_autograd() -> None:
    torch.manual_seed(0)
    states = torch.randn(21, 16, requires_grad=True)
    head = torch.randn(50, 16)
    tokens = torch.randint(50, (21,))
    weights = torch.randn(21)
    wanted = torch.log_softmax(states @ head.T / 0.7, dim=-1)
    (wanted_gradient,) = torch.autograd.grad((wanted[torch.arange(21), tokens] * weights).sum(), states)
    logp, entropy = likelihood.token_log_probs_wide(states, tokens, head, temperature=0.7, chunk=8)
    (gradient,) = torch.autograd.grad((logp * weights).sum(), states)
    torch.testing.assert_close(logp, wanted[torch.arange(21), tokens])
    torch.testing.assert_close(entropy, torch.distributions.Categorical(logits=wanted).entropy())
    torch.testing.assert_close(gradient, wanted_gradient)
