"""One interface: the engines agree where they must, and each leaves the model and itself usable."""

import copy
import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from finlm import engines, generation
from finlm.errors import UserError
from finlm.generation import Sampling
from finlm.model import load_causal
from finlm.tokenizer import load_tokenizer

GREEDY = Sampling(max_new_tokens=12, temperature=0.0)
FREE = Sampling(max_new_tokens=12)
PROMPTS = [[5, 9, 13], [20] * 11, [7, 8, 9, 10, 11, 12], [30, 31], [40] * 5]


@pytest.fixture(scope="module")
def base(tiny: Any) -> LlamaForCausalLM:
    return load_causal(Path(tiny.base), dtype=torch.float32, device=torch.device("cpu")).eval()


@pytest.fixture(scope="module")
def tokenizer(tiny: Any) -> PreTrainedTokenizerBase:
    return load_tokenizer(tiny.base)


def test_auto_without_cuda_is_generate_to_the_bit(base: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase) -> None:
    engine = engines.make("auto", base, tokenizer, rows_at_once=2)
    assert engine.name == "generate"
    engine.refresh(None)
    counted: list[int] = []
    found = engine.sample(PROMPTS, FREE, seed=7, on_done=counted.append)
    assert found == generation.sample(base, tokenizer, PROMPTS, FREE, seed=7, batch_size=2)
    assert counted == [2, 2, 1]
    assert engine.retained is None


def test_all_engines_of_a_cpu_give_the_same_greedy_answers(
    base: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase
) -> None:
    answers = {}
    for name in ("generate", "compiled"):
        engine = engines.make(name, base, tokenizer, rows_at_once=3)
        assert engine.name == name
        engine.refresh(None)
        answers[name] = [(answer.ids, answer.ended) for answer in engine.sample(PROMPTS, GREEDY, seed=0)]
        engine.close()
    assert answers["generate"] == answers["compiled"]


class Asked(Exception):
    pass


@pytest.mark.parametrize("name", ["generate", "compiled"])
def test_a_poll_that_raises_leaves_an_engine_that_works(
    base: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, name: str
) -> None:
    engine = engines.make(name, base, tokenizer, rows_at_once=2)
    engine.refresh(None)
    wanted = engine.sample(PROMPTS, FREE, seed=3)

    def stop() -> None:
        raise Asked

    with pytest.raises(Asked):
        engine.sample(PROMPTS, FREE, seed=3, poll=stop)
    assert engine.sample(PROMPTS, FREE, seed=3) == wanted
    engine.release()
    assert engine.sample(PROMPTS, FREE, seed=3) == wanted
    assert engine.sample([], FREE, seed=3) == []


def test_the_adapter_of_a_loaded_policy_answers(base: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase) -> None:
    assert engines.active_adapter(base) is None
    torch.manual_seed(0)
    policy = PeftModel(copy.deepcopy(base), LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    policy.eval()
    assert engines.active_adapter(policy) == "default"
    answers = []
    for name, merge in (("generate", True), ("compiled", True), ("compiled", False)):
        engine = engines.make(name, policy, tokenizer, rows_at_once=4, merge=merge)
        engine.refresh(engines.active_adapter(policy))
        answers.append([answer.ids for answer in engine.sample(PROMPTS, GREEDY, seed=0)])
        assert (engine.retained is not None) == (name == "compiled" and merge)
        engine.refresh(None)  # the base alone: only what is merged can leave the adapter out
        if engine.retained is None and merge and name == "compiled":
            bare = [answer.ids for answer in engine.sample(PROMPTS, GREEDY, seed=0)]
    assert answers[0] == answers[1] == answers[2]
    wanted = generation.sample(base, tokenizer, PROMPTS, GREEDY, seed=0, batch_size=4)
    assert bare == [answer.ids for answer in wanted] != answers[0]


def test_what_cannot_sample_here_is_told_in_one_sentence(
    base: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase
) -> None:
    with pytest.raises(UserError, match="engine is 'fast'; it must be auto, generate, compiled or vllm"):
        engines.make("fast", base, tokenizer, rows_at_once=2)
    installed = importlib.util.find_spec("vllm") is not None
    told = "vllm needs CUDA" if installed else r"not installed; pip install 'finlm\[vllm\]'"
    with pytest.raises(UserError, match=told):
        engines.make("vllm", base, tokenizer, rows_at_once=2)
