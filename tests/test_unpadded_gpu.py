"""Rows without padding on a GPU, by torch's variable-length attention: each is what it is alone."""

import pytest
import torch
from peft import LoraConfig, PeftModel
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from finlm import fused_layers, fused_lora, likelihood, unpadded
from finlm.unpadded import hidden_states

pytestmark = pytest.mark.gpu
LENGTHS = (200, 57, 1, 130)


def make(shared: int, *, is_fused: bool) -> PeftModel:
    """A random LLaMA in bfloat16 with an adapter that is not zero, on the GPU."""
    config = LlamaConfig(
        vocab_size=3001, hidden_size=512, intermediate_size=1408, num_hidden_layers=4, num_attention_heads=8,
        num_key_value_heads=shared, head_dim=64, pad_token_id=0, eos_token_id=1, bos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    base = LlamaForCausalLM(config).to("cuda", torch.bfloat16).eval()
    if is_fused:
        fused_layers.install(unpadded.install(base))
    model = PeftModel(base, LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"), adapter_name="policy")
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    if is_fused:
        fused_lora.install(model)
    return model


def batch() -> tuple[Tensor, Tensor]:
    ids = torch.randint(2, 3001, (len(LENGTHS), max(LENGTHS)), generator=torch.Generator().manual_seed(2))
    is_token = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS).unsqueeze(1)
    return (ids * is_token).cuda(), is_token.cuda()


def off(found: Tensor, wanted: Tensor) -> float:
    return float((found.detach().double() - wanted.detach().double()).norm() / wanted.detach().double().norm())


@pytest.mark.parametrize("shared", [8, 2])
def test_hidden_states_and_gradients_are_those_of_padded_rows_in_float64(shared: int) -> None:
    """Of two computations in bfloat16 ours may not be further from the exact one than transformers' and PEFT's is."""
    ids_BT, is_token_BT = batch()
    weights = torch.randn(*ids_BT.shape, 1, device="cuda") * is_token_BT.unsqueeze(-1)
    exact = make(shared, is_fused=False).double()
    found = []
    for model in (make(shared, is_fused=True), make(shared, is_fused=False), exact):
        hidden_BTD = hidden_states(model.get_base_model().model, is_token_BT, input_ids=ids_BT)
        (hidden_BTD * weights).sum().backward()
        gradients = [p.grad.flatten().double() for _, p in model.named_parameters() if p.grad is not None]
        found.append((hidden_BTD[is_token_BT], torch.cat(gradients)))
    (ours, our_gradient), (theirs, their_gradient), (wanted, gradient) = found
    assert off(ours, wanted) < 1.2 * off(theirs, wanted) < 0.02
    assert off(our_gradient, gradient) < 1.2 * off(their_gradient, gradient) < 0.05


def test_a_pass_with_gradients_gives_the_bits_of_one_without() -> None:
    """So the ratio of PPO's first mini-batch is 1, on a GPU too."""
    model = make(8, is_fused=True)
    ids_BT, is_token_BT = batch()
    head_VD = model.get_base_model().lm_head.weight.detach()
    found = []
    for needs in (False, True):
        with torch.set_grad_enabled(needs):
            hidden_BTD = hidden_states(model.get_base_model().model, is_token_BT, input_ids=ids_BT)
            found.append(likelihood.token_log_probs(hidden_BTD[is_token_BT], ids_BT[is_token_BT], head_VD)[0])
    assert found[1].requires_grad
    assert torch.equal(found[0], found[1])


@torch.no_grad()
def test_a_poisoned_neighbour_changes_not_one_bit() -> None:
    llama = make(8, is_fused=True).get_base_model().model
    ids_BT, is_token_BT = batch()
    before = hidden_states(llama, is_token_BT, input_ids=ids_BT)
    embedded = llama.embed_tokens(ids_BT)
    embedded[0] = float("nan")
    after = hidden_states(llama, is_token_BT, inputs_embeds=embedded)
    assert torch.equal(before[1:], after[1:])
    assert after[0].isnan().any()


def test_log_probabilities_are_those_of_float64_better_than_bfloat16_allows() -> None:
    torch.manual_seed(0)
    head = torch.randn(39_438, 1024, device="cuda", dtype=torch.bfloat16)
    states = (torch.randn(5000, 1024, device="cuda") / 8).to(torch.bfloat16).requires_grad_()
    tokens = torch.randint(39_438, (5000,), device="cuda")
    wanted = torch.log_softmax(states[:500].double() @ head.double().T, dim=-1)[torch.arange(500), tokens[:500]]
    logp, entropy = likelihood.token_log_probs(states, tokens, head)
    (gradient,) = torch.autograd.grad(logp[:500].sum(), states)
    (wanted_gradient,) = torch.autograd.grad(wanted.sum(), states)
    assert float((logp[:500].double() - wanted).abs().max()) < 1e-3  # a logit near 15 in bfloat16 is up to 0.03 off
    assert off(gradient, wanted_gradient) < 0.01
    assert bool((entropy >= 0).all())


def test_sampling_still_sees_its_padding() -> None:
    """`generate` knows nothing of rows; the attention function must then be transformers' own."""
    ids_BT, is_token_BT = batch()
    named = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    found = []
    for is_fused in (True, False):
        model = make(8, is_fused=is_fused)
        model.get_base_model().lm_head.weight.data.mul_(8)
        rows = ids_BT[:2, :57].flip(1), torch.ones_like(is_token_BT[:2, :57])
        found.append(model.generate(input_ids=rows[0], attention_mask=rows[1].long(), **named))
    assert (found[0] == found[1]).float().mean() > 0.9
