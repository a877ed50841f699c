"""What a training pass keeps: the formula against the 6B's shape, and against what autograd keeps of a small one."""

from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor

from benchmarks import six_billion
from finlm import activations
from finlm.model import load_causal


def test_the_6b_keeps_four_megabytes_a_token() -> None:
    """30 layers x (8 x 4096 + 3 x 11008) numbers x 2 bytes; 3.9 MB is what was measured of PPO's update."""
    assert activations.token_bytes(six_billion.shape("6b"), torch.bfloat16) == 3_947_520


def test_a_cpu_is_not_asked(tiny: Any) -> None:
    model = load_causal(tiny.base, dtype=torch.float32, device=torch.device("cpu"))
    assert activations.fit(model, 10**9)


def test_plain_layers_keep_more(tiny: Any) -> None:
    """The formula is of the fused parts: transformers' own and PEFT's keep more, and not many times as much."""
    model = load_causal(tiny.base, dtype=torch.float32, device=torch.device("cpu"))
    frozen = {one.untyped_storage().data_ptr() for one in model.parameters()}
    adapted = get_peft_model(model, LoraConfig(r=1, target_modules="all-linear", task_type="CAUSAL_LM"))
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage()
        if place.data_ptr() not in frozen:
            kept[place.data_ptr()] = place.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        out = adapted.get_base_model().model(input_ids=torch.arange(2, 258).unsqueeze(0), use_cache=False)
    assert out.last_hidden_state.requires_grad
    formula = 256 * activations.token_bytes(model.config, torch.float32)
    assert formula < sum(kept.values()) < 4 * formula
