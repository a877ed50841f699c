"""Rows without padding give each row what it gets alone, and nothing of a neighbour reaches it."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from finlm import unpadded
from finlm.model import load_causal
from finlm.unpadded import Rows, hidden_states


@pytest.fixture
def model(tiny: Any) -> LlamaForCausalLM:
    made = load_causal(Path(tiny.base), dtype=torch.float32, device=torch.device("cpu")).eval()
    made.set_attn_implementation(unpadded.NAME)  # `install` does so on a GPU only
    return made


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    """Rows of 9, 5, 1 and 7 tokens, padded on the right."""
    ids = torch.randint(2, 400, (4, 9), generator=torch.Generator().manual_seed(0))
    is_token = torch.arange(9) < torch.tensor([[9], [5], [1], [7]])
    return ids * is_token, is_token


def test_places_positions_and_bounds_of_rows() -> None:
    rows = Rows.of(torch.tensor([[True, True, False], [True, True, True]]))
    assert rows.place_N.tolist() == [0, 1, 3, 4, 5]
    assert rows.position_N.tolist() == [0, 1, 0, 1, 2]
    assert rows.bounds.tolist() == [0, 2, 5]
    assert rows.longest == 3


@torch.no_grad()
def test_each_row_is_what_it_is_alone(model: LlamaForCausalLM, batch: tuple[Tensor, Tensor], tiny: Any) -> None:
    ids_BT, is_token_BT = batch
    plain = load_causal(Path(tiny.base), dtype=torch.float32, device=torch.device("cpu")).eval()
    found = hidden_states(model.model, is_token_BT, input_ids=ids_BT)
    for row, length in enumerate((9, 5, 1, 7)):
        alone = plain.model(input_ids=ids_BT[row : row + 1, :length], use_cache=False).last_hidden_state[0]
        torch.testing.assert_close(found[row, :length], alone, rtol=0, atol=1e-5)
        assert (found[row, length:] == 0).all()


def test_a_poisoned_neighbour_changes_not_one_bit(model: LlamaForCausalLM, batch: tuple[Tensor, Tensor]) -> None:
    ids_BT, is_token_BT = batch
    with torch.no_grad():
        before = hidden_states(model.model, is_token_BT, input_ids=ids_BT)
        embedded = model.model.embed_tokens(ids_BT)
        embedded[0] = float("nan")
        after = hidden_states(model.model, is_token_BT, inputs_embeds=embedded)
    assert torch.equal(before[1:], after[1:])
    assert after[0, 0].isnan().all()


def test_gradients_are_those_of_padded_rows(batch: tuple[Tensor, Tensor], model: LlamaForCausalLM) -> None:
    ids_BT, is_token_BT = batch
    weights = torch.randn(4, 9, 1, generator=torch.Generator().manual_seed(1)) * is_token_BT.unsqueeze(-1)
    found = []
    for implementation in (unpadded.NAME, "sdpa"):
        model.set_attn_implementation(implementation)
        model.zero_grad()
        (hidden_states(model.model, is_token_BT, input_ids=ids_BT) * weights).sum().backward()
        found.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert len(found[0]) > 10
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_without_bounds_it_is_sdpa(model: LlamaForCausalLM, batch: tuple[Tensor, Tensor]) -> None:
    ids_BT, is_token_BT = batch
    named: dict[str, Any] = {"attention_mask": is_token_BT.long(), "max_new_tokens": 6, "do_sample": False}
    ours = model.generate(input_ids=ids_BT, **named)
    model.set_attn_implementation("sdpa")
    assert torch.equal(ours, model.generate(input_ids=ids_BT, **named))


def test_on_a_cpu_a_model_is_left_alone(tiny: Any) -> None:
    made = load_causal(Path(tiny.base), dtype=torch.bfloat16, device=torch.device("cpu"))
    assert made.config._attn_implementation == "sdpa"


def packed(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """The same rows one behind the other, and their bounds."""
    ids_BT, is_token_BT = batch
    return ids_BT[is_token_BT], torch.tensor([0, 9, 14, 15, 22], dtype=torch.int32)


def test_packed_samples_are_what_they_are_alone(model: LlamaForCausalLM, batch: tuple[Tensor, Tensor]) -> None:
    ids_N, bounds = packed(batch)
    with torch.no_grad():
        found = unpadded.packed_states(model.model, ids_N, bounds, 9)
        for row, (start, stop) in enumerate(pairwise(bounds)):
            alone = model.model(input_ids=ids_N[start:stop].unsqueeze(0), use_cache=False).last_hidden_state[0]
            torch.testing.assert_close(found[start:stop], alone, rtol=0, atol=1e-5, msg=f"sample {row}")


def test_the_packed_loss_is_the_token_weighted_mean_of_separate_losses(
    model: LlamaForCausalLM, batch: tuple[Tensor, Tensor]
) -> None:
    """transformers' own loss of each sample, weighted by the tokens that it predicts."""
    ids_N, bounds = packed(batch)
    states_ND = unpadded.packed_states(model.model, ids_N, bounds, 9)
    predicts_N = torch.ones(22, dtype=torch.bool)
    predicts_N[bounds[1:].long() - 1] = False
    logits = model.lm_head(states_ND[predicts_N])
    targets = ids_N[1:][predicts_N[:-1]]
    loss = torch.nn.functional.cross_entropy(logits, targets)
    total, count = 0.0, 0
    for start, stop in pairwise(bounds.tolist()):
        if stop - start > 1:
            row = ids_N[start:stop].unsqueeze(0)
            total += model(input_ids=row, labels=row, use_cache=False).loss.item() * (stop - start - 1)
            count += stop - start - 1
    assert loss.item() == pytest.approx(total / count, abs=1e-5)


def test_a_poisoned_sample_changes_no_bit_of_another_nor_of_its_gradient(
    model: LlamaForCausalLM, batch: tuple[Tensor, Tensor]
) -> None:
    ids_N, bounds = packed(batch)
    found = []
    for poison in (0, 1):
        states_ND = unpadded.packed_states(model.model, ids_N + poison * (torch.arange(22) < 9), bounds, 9)
        (gradient,) = torch.autograd.grad(states_ND[9:].square().sum(), model.model.layers[0].mlp.up_proj.weight)
        found.append((states_ND[9:].detach(), gradient))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


def test_a_model_that_would_mix_packed_samples_is_refused(tiny: Any, batch: tuple[Tensor, Tensor]) -> None:
    plain = load_causal(Path(tiny.base), dtype=torch.float32, device=torch.device("cpu"))
    assert isinstance(plain, LlamaForCausalLM)
    with pytest.raises(ValueError, match="packed rows need 'finlm_unpadded'"):
        unpadded.packed_states(plain.model, *packed(batch), 9)
    assert unpadded.install(plain, for_packed=True).config._attn_implementation == unpadded.NAME
