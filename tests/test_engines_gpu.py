"""The engines on a GPU: what grows, is given back or interrupted gives the same answers; PPO samples with them."""

from pathlib import Path
from typing import Any

import pytest
import small
import torch
from peft import LoraConfig, PeftModel
from transformers import LlamaConfig, LlamaForCausalLM

from finlm import engines
from finlm.compiled import CompiledEngine
from finlm.generation import Sampling
from finlm.metrics import read_metrics

pytestmark = pytest.mark.gpu
FREE = Sampling(max_new_tokens=20)
LAYER = {"hidden_size": 256, "intermediate_size": 352, "num_attention_heads": 4, "head_dim": 64}


def base() -> LlamaForCausalLM:
    """A small random LLaMA, logits far enough apart that rounding changes no choice."""
    config = LlamaConfig(
        vocab_size=301, num_hidden_layers=3, num_key_value_heads=2, pad_token_id=0, eos_token_id=1, bos_token_id=None,
        **LAYER,
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(8)
    return model


def adapted(device: str) -> PeftModel:
    lora = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    model = PeftModel(base(), lora, adapter_name="policy").eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
    return model.to(device).requires_grad_(False)


def prompts(count: int, longest: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randint(2, 301, (int(length),), generator=generator).tolist()
        for length in torch.randint(1, longest, (count,), generator=generator)
    ]


def engine(device: str, *, slots: int = 16) -> CompiledEngine:
    made = engines.make("compiled", adapted(device), small.tokenizer(301), rows_at_once=slots)
    assert isinstance(made, CompiledEngine)
    made.refresh("policy")
    return made


@pytest.fixture(autouse=True)
def exact_products() -> None:
    torch.backends.cuda.matmul.allow_tf32 = False


def test_auto_on_a_gpu_is_compiled() -> None:
    assert engines.make("auto", adapted("cuda"), small.tokenizer(301), rows_at_once=2).name == "compiled"


@pytest.mark.parametrize("sampling", [FREE, Sampling(max_new_tokens=20, temperature=1.5, top_k=5, top_p=0.9)])
def test_cache_and_graphs_grow_with_the_prompts(sampling: Sampling) -> None:
    writer, other = engine("cuda"), engine("cpu")
    for longest in (30, 200, 30):
        found, wanted = (one.sample(prompts(24, longest), sampling, seed=3) for one in (writer, other))
        assert [answer.ids for answer in found] == [answer.ids for answer in wanted]


class Asked(Exception):
    pass


def test_given_back_or_interrupted_it_goes_on_as_before() -> None:
    writer = engine("cuda", slots=8)
    wanted = [answer.ids for answer in writer.sample(prompts(24, 60), FREE, seed=3)]
    held = torch.cuda.memory_allocated()
    writer.release()
    assert torch.cuda.memory_allocated() < held
    calls: list[int] = []

    def stop() -> None:
        calls.append(1)
        if len(calls) == 2:
            raise Asked

    with pytest.raises(Asked):
        writer.sample(prompts(24, 60), FREE, seed=3, poll=stop)
    assert [answer.ids for answer in writer.sample(prompts(24, 60), FREE, seed=3)] == wanted
    writer.rows_at_once = 3
    assert [answer.ids for answer in writer.sample(prompts(24, 60), FREE, seed=3)] == wanted


@pytest.mark.parametrize(
    ("dtype", "settings", "gap"),
    [
        (torch.float32, {}, 1e-3),
        (torch.float32, {"sampler_merge": False}, 1e-3),
        (torch.float32, {"release_cache": "always", "gradient_checkpointing": True}, 1e-3),
        (torch.bfloat16, {}, 0.1),
        (torch.bfloat16, {"engine": "generate"}, None),
    ],
)
def test_ppo_samples_with_it(tmp_path: Path, dtype: torch.dtype, settings: dict[str, Any], gap: float | None) -> None:
    trainer = small.trainer(
        base().to(dtype), small.tokenizer(301), prompts(6, 30), tmp_path, adapter=small.lora(4), adapter_scale=0.05,
        total_episodes=32, per_device_train_batch_size=4, gradient_accumulation_steps=4, response_length=24,
        learning_rate=1e-3, **settings,
    )  # fmt: skip
    assert trainer.device.type == "cuda"
    trainer.train()
    for row in read_metrics(trainer.folder / "metrics.jsonl"):
        assert ("rollout/sampler_gap" in row) is (gap is not None)
        assert gap is None or row["rollout/sampler_gap"] < gap
        assert ("rollout/retained_share" in row) is (gap is not None and settings.get("sampler_merge", True))
