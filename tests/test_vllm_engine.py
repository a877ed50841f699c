"""What vLLM is told and what is made of its answers; tests/test_vllm_gpu.py runs it."""

import copy
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel
from transformers import LlamaForCausalLM

from finlm import vllm_engine
from finlm.errors import UserError
from finlm.generation import Answer, Sampling
from finlm.model import load_causal

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def base(tiny: Any) -> LlamaForCausalLM:
    return load_causal(Path(tiny.base), dtype=torch.float32, device=CPU).eval()


def adapted(base: LlamaForCausalLM, **lora: Any) -> PeftModel:
    """Two adapters, neither of them zero."""
    settings = {"r": 4, "lora_alpha": 12, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **lora}
    model = PeftModel(copy.deepcopy(base), LoraConfig(**settings), adapter_name="policy")
    model.add_adapter("critic", LoraConfig(r=2, target_modules=["q_proj"]))
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model.eval()


def test_the_folder_of_an_adapter_loads_with_peft_to_the_same_model(base: LlamaForCausalLM, tmp_path: Path) -> None:
    model = adapted(base)
    vllm_engine.write_adapter(model, "policy", tmp_path / "adapter")
    files = sorted(path.name for path in (tmp_path / "adapter").iterdir())
    assert files == ["adapter_config.json", "adapter_model.safetensors"]
    loaded = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path / "adapter").eval()
    ids = torch.tensor([[5, 9, 13, 20, 30]])
    with torch.no_grad():
        assert torch.equal(loaded(input_ids=ids).logits, model(input_ids=ids).logits)
        assert not torch.equal(loaded(input_ids=ids).logits, base(input_ids=ids).logits)
    assert model.active_adapter == "policy"


def test_requests_carry_the_sampling_and_seeds_of_their_own() -> None:
    sampling = Sampling(max_new_tokens=7, temperature=0.7, top_p=0.9, top_k=20)
    prompts = [[5, 6], [7], [5, 6], [5, 6]]
    made = vllm_engine.requests(prompts, sampling, seed=3, end=1)
    assert [ids for ids, _ in made] == prompts
    for _, settings in made:
        said = {name: settings[name] for name in ("max_tokens", "temperature", "top_p", "top_k", "logprobs")}
        assert said == {"max_tokens": 7, "temperature": 0.7, "top_p": 0.9, "top_k": 20, "logprobs": 0}
        assert settings["stop_token_ids"] == [1]
        assert 0 <= settings["seed"] < 2**63
    assert len({settings["seed"] for _, settings in made}) == 4
    turned = vllm_engine.requests([[7], [5, 6]], sampling, seed=3, end=1)
    assert [settings["seed"] for _, settings in turned] == [made[1][1]["seed"], made[0][1]["seed"]]
    assert vllm_engine.requests([[7]], sampling, seed=4, end=1)[0][1]["seed"] != made[1][1]["seed"]


@dataclass
class Logprob:
    """As vLLM has it."""

    logprob: float


def test_what_comes_back_is_an_answer() -> None:
    told = [{8: Logprob(-0.5)}, {1: Logprob(-0.25)}]
    assert vllm_engine.answer_of([8, 1], told, 1) == Answer((8, 1), ended=True, log_probs=(-0.5, -0.25))
    assert vllm_engine.answer_of([8, 1], told, 2) == Answer((8, 1), ended=False, log_probs=(-0.5, -0.25))


def test_vllm_is_given_the_bases_folder_and_room_for_the_adapter(base: LlamaForCausalLM, tiny: Any) -> None:
    model = adapted(base)
    folder = vllm_engine.base_folder(model)
    assert folder == Path(tiny.base)
    for rank, room in ((4, 8), (8, 8), (9, 16), (64, 64), (65, 128)):
        assert vllm_engine.room_for_rank(adapted(base, r=rank)) == room
    assert vllm_engine.room_for_rank(base) == 0
    settings = vllm_engine.llm_settings(folder, dtype=torch.bfloat16, rank=8, rows_at_once=64, memory_share=0.5)
    assert settings["dtype"] == "bfloat16"
    assert (settings["enable_lora"], settings["max_lora_rank"]) == (True, 8)
    assert settings["gpu_memory_utilization"] == 0.5
    plain = vllm_engine.llm_settings(folder, dtype=torch.bfloat16, rank=0, rows_at_once=64, memory_share=0.5)
    assert "enable_lora" not in plain


def test_what_vllm_cannot_take_is_refused(base: LlamaForCausalLM) -> None:
    with pytest.raises(UserError, match="rank_pattern"):
        vllm_engine.room_for_rank(adapted(base, rank_pattern={"q_proj": 2}))
    with pytest.raises(UserError, match="rank 513, vllm takes 512"):
        vllm_engine.room_for_rank(adapted(base, r=513, target_modules=["q_proj"]))
    with pytest.raises(UserError, match="the model is on cpu"):
        vllm_engine.VllmEngine(base, end=1, rows_at_once=2)
    nowhere = LlamaForCausalLM(copy.deepcopy(base.config))
    nowhere.name_or_path = ""
    with pytest.raises(UserError, match="reads the base from its folder"):
        vllm_engine.base_folder(nowhere)
    with pytest.raises(UserError, match=r"9 tokens and 8 tokens of answer exceed .* of 16"):
        vllm_engine.refuse_long([[3] * 9, [4]], Sampling(max_new_tokens=8), 16)


def test_global_random_states_survive_what_seeds_them() -> None:
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    wanted = (random.random(), np.random.rand(), float(torch.rand(1)))
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    with vllm_engine.random_state_kept(CPU):
        random.seed(0), np.random.seed(0), torch.manual_seed(0)
    assert (random.random(), np.random.rand(), float(torch.rand(1))) == wanted
