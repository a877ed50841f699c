"""Room behind an output embedding changes where it lies, and nothing else."""

import copy
import gc
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import LlamaForCausalLM

from finlm import aligned_head
from finlm.likelihood import token_log_probs_wide
from finlm.model import load_causal


def head(rows: int = 41) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(16, rows, bias=False)


def test_the_weights_stay_and_zeros_lie_behind_them() -> None:
    linear = head()
    before = linear.weight.detach().clone()
    aligned_head.install(linear)
    assert torch.equal(linear.weight, before)
    found = aligned_head.whole(linear.weight.detach())
    assert found.shape == (48, 16)
    assert torch.equal(found[:41], before)
    assert not found[41:].any()
    assert found.data_ptr() == linear.weight.data_ptr(), "a second copy of the embedding"


def test_log_probabilities_and_gradients_are_those_without() -> None:
    linear = head()
    before = linear.weight.detach().clone()
    aligned_head.install(linear)
    states, tokens = torch.randn(23, 16), torch.randint(0, 41, (23,))
    found = []
    for weight in (before, linear.weight.detach()):
        rows = states.clone().requires_grad_()
        logp, entropy = token_log_probs_wide(rows, tokens, weight, temperature=0.7, chunk=9)
        (logp * torch.linspace(-1, 1, 23)).sum().backward()
        found.append((logp.detach(), entropy, rows.grad))
    for one, other in zip(*found, strict=True):
        assert one is not None
        torch.testing.assert_close(other, one, atol=1e-6, rtol=1e-5)


def test_only_the_embedding_itself_has_room() -> None:
    linear, eights = head(), head(40)
    aligned_head.install(linear)
    aligned_head.install(eights)
    for weight in (eights.weight, linear.weight[:40], linear.weight[1:], copy.deepcopy(linear).weight):
        assert aligned_head.whole(weight) is weight
    address = linear.weight.data_ptr()
    del linear, weight
    gc.collect()
    assert address not in aligned_head._WHOLE


def test_a_tied_embedding_stays_tied_and_is_saved_as_it_was(tiny: Any, tmp_path: Path) -> None:
    model = load_causal(Path(tiny.base), dtype=torch.float32, device=torch.device("cpu"))
    assert isinstance(model, LlamaForCausalLM)
    model.lm_head.weight = model.model.embed_tokens.weight = nn.Parameter(model.lm_head.weight[:-3].detach().clone())
    before = model.lm_head.weight.detach().clone()
    aligned_head.install(model.lm_head)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert len(aligned_head.whole(model.lm_head.weight.detach())) % 8 == 0 != len(before) % 8
    model.config.tie_word_embeddings, model.config.vocab_size = True, len(before)
    model.save_pretrained(tmp_path)
    assert torch.equal(load_file(tmp_path / "model.safetensors")["model.embed_tokens.weight"], before)
