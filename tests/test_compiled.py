"""The compiled engine against transformers' `generate`, and against itself in other orders and sizes.

Here on a CPU, where the step is not captured; tests/gpu repeats the comparison on a GPU.
"""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.generation.logits_process import TopKLogitsWarper, TopPLogitsWarper

from finlm import compiled, generation
from finlm.compiled import CompiledEngine
from finlm.errors import UserError
from finlm.generation import Sampling
from finlm.merged import SamplingCopy
from finlm.model import load_causal
from finlm.slots import capacity_for, slots_that_fit
from finlm.tokenizer import load_tokenizer

CPU = torch.device("cpu")
GREEDY = Sampling(max_new_tokens=12, temperature=0.0)
FREE = Sampling(max_new_tokens=12, temperature=1.0)


@pytest.fixture(scope="module")
def base(tiny: Any) -> LlamaForCausalLM:
    return load_causal(Path(tiny.base), dtype=torch.float32, device=CPU).eval()


@pytest.fixture(scope="module")
def prompts(tiny: Any) -> list[list[int]]:
    tokenizer = load_tokenizer(tiny.base)
    texts = [
        "Alder",
        "What was Jay Inc.'s revenue in fiscal 2024?",
        "Sells",
        "Cedarfield Inc. sells what, and to whom?",
    ]
    return [tokenizer(f" Human: {text} Assistant:")["input_ids"] for text in texts] + [[9], [30] * 17]


def engine(model: Any, *, slots: int = 4, capacity: int = 96, merge: bool = True) -> CompiledEngine:
    return CompiledEngine(model, slots=slots, capacity=capacity, end=1, pad=0, merge=merge)


SOME = ["q_proj", "v_proj", "down_proj"]
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def adapted(base: LlamaForCausalLM, layers: list[int] | None = None, modules: list[str] = SOME) -> PeftModel:
    lora = LoraConfig(r=4, lora_alpha=8, target_modules=modules, layers_to_transform=layers)
    model = PeftModel(copy.deepcopy(base), lora, adapter_name="policy")
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model.eval()


def ids_of(answers: Sequence[generation.Answer]) -> list[tuple[int, ...]]:
    """Log-probabilities may differ in their last bits from one batch to another; the tokens may not."""
    return [answer.ids for answer in answers]


def by_generate(model: Any, tiny: Any, prompts: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    answers = generation.sample(model, load_tokenizer(tiny.base), prompts, GREEDY, seed=0, batch_size=3)
    return [answer.ids for answer in answers]


@pytest.mark.parametrize("slots", [1, 2, 4, 16])
def test_greedy_answers_are_those_of_generate(
    tiny: Any, base: LlamaForCausalLM, prompts: list[list[int]], slots: int
) -> None:
    found = engine(base, slots=slots).sample(prompts, GREEDY, seed=0)
    assert [answer.ids for answer in found] == by_generate(base, tiny, prompts)
    assert [answer.ended for answer in found] == [answer.ids[-1] == 1 for answer in found]


def test_grouped_heads_too(tiny: Any, prompts: list[list[int]]) -> None:
    """SmolLM2 and newer LLaMAs share key-value heads between query heads."""
    config = LlamaConfig(
        vocab_size=480, hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=6,
        num_key_value_heads=2, pad_token_id=0, eos_token_id=1, bos_token_id=None,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = LlamaForCausalLM(config).eval()
    found = engine(model).sample(prompts, GREEDY, seed=0)
    assert [answer.ids for answer in found] == by_generate(model, tiny, prompts)


@pytest.mark.parametrize("merge", [True, False])
@pytest.mark.parametrize("layers", [None, [1]])
def test_an_adapter_answers_merged_or_not(
    tiny: Any, base: LlamaForCausalLM, prompts: list[list[int]], layers: list[int] | None, merge: bool
) -> None:
    model = adapted(base, layers)
    writer = engine(model, merge=merge)
    writer.refresh("policy")
    found = [answer.ids for answer in writer.sample(prompts, GREEDY, seed=0)]
    assert found == by_generate(model, tiny, prompts)
    assert found != by_generate(base, tiny, prompts)


@pytest.mark.parametrize("layers", [None, [1]])
def test_maps_of_one_input_are_joined_where_all_are_merged(
    tiny: Any, base: LlamaForCausalLM, prompts: list[list[int]], layers: list[int] | None
) -> None:
    model = adapted(base, layers, ALL)
    writer = engine(model)
    writer.refresh("policy")
    is_joined = [hasattr(layer.self_attn, "joint_weight") for layer in writer._model.model.layers]
    assert is_joined == [layers is None or number in layers for number in range(len(is_joined))]
    assert ids_of(writer.sample(prompts, GREEDY, seed=0)) == by_generate(model, tiny, prompts)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.mul_(-1)
    writer.refresh("policy")
    assert ids_of(writer.sample(prompts, GREEDY, seed=0)) == by_generate(model, tiny, prompts)


def test_refresh_takes_new_weights_and_leaves_the_base_alone(base: LlamaForCausalLM, prompts: list[list[int]]) -> None:
    model = adapted(base)
    before = {name: weight.clone() for name, weight in model.named_parameters() if "lora_" not in name}
    writer = engine(model)
    writer.refresh("policy")
    first = writer.sample(prompts, GREEDY, seed=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.mul_(-1)
    assert writer.sample(prompts, GREEDY, seed=0) == first, "weights are taken at refresh, not before"
    writer.refresh("policy")
    assert writer.sample(prompts, GREEDY, seed=0) != first
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters() if name in before)


def test_what_rounding_leaves_of_an_update_is_measured(base: LlamaForCausalLM) -> None:
    model = adapted(base).to(torch.bfloat16)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
    copied = SamplingCopy(model)
    assert copied.refresh("policy") == pytest.approx(1, abs=0.02)  # a large update survives
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.mul_(1e-4)
    # far below the weights' last bit: to the nearest, nearly all of it would be gone
    assert copied.refresh("policy") == pytest.approx(1, abs=0.3)
    again = [own.weight.clone() for _, own in copied._pairs]
    copied.refresh("policy")
    assert all(torch.equal(own.weight, before) for (_, own), before in zip(copied._pairs, again, strict=True))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.zero_()
    assert copied.refresh("policy") == 1.0
    for lora, own in copied._pairs:
        assert torch.equal(own.weight, lora.get_base_layer().weight)


def test_sampled_answers_do_not_depend_on_order_slots_or_company(
    base: LlamaForCausalLM, prompts: list[list[int]]
) -> None:
    wanted = ids_of(engine(base, slots=6).sample(prompts, FREE, seed=5))
    assert ids_of(engine(base, slots=2).sample(prompts, FREE, seed=5)) == wanted
    order = [3, 0, 5, 2, 4, 1]
    turned = engine(base, slots=3, capacity=200).sample([prompts[index] for index in order], FREE, seed=5)
    assert [turned[order.index(index)].ids for index in range(6)] == wanted
    (alone,) = engine(base, slots=1).sample(prompts[1:2], FREE, seed=5)
    assert alone.ids == wanted[1]
    assert ids_of(engine(base, slots=6).sample(prompts, FREE, seed=6)) != wanted


def test_a_prompt_asked_again_gets_another_answer(base: LlamaForCausalLM, prompts: list[list[int]]) -> None:
    writer = engine(base, slots=8)
    answers = writer.sample([prompts[4]] * 8 + [prompts[0]], FREE, seed=0)
    assert len({answer.ids for answer in answers[:8]}) >= 3
    assert ids_of(writer.sample([prompts[4]] * 3, FREE, seed=0)) == ids_of(answers[:3])


def test_log_probabilities_are_those_of_the_model(base: LlamaForCausalLM, prompts: list[list[int]]) -> None:
    sampling = Sampling(max_new_tokens=9, temperature=0.8)
    for prompt, answer in zip(prompts, engine(base).sample(prompts, sampling, seed=2), strict=True):
        with torch.no_grad():
            logits = base(input_ids=torch.tensor([[*prompt, *answer.ids]])).logits[0, len(prompt) - 1 : -1]
        wanted = torch.log_softmax(logits / 0.8, dim=-1)[torch.arange(len(answer.ids)), torch.tensor(answer.ids)]
        torch.testing.assert_close(torch.tensor(answer.log_probs), wanted, atol=1e-4, rtol=0)


def test_sampling_follows_the_model(base: LlamaForCausalLM, prompts: list[list[int]]) -> None:
    """First tokens of many answers to one prompt against the softmax."""
    count = 4000
    answers = engine(base, slots=500).sample([prompts[4]] * count, Sampling(max_new_tokens=1), seed=0)
    with torch.no_grad():
        wanted = torch.softmax(base(input_ids=torch.tensor([prompts[4]])).logits[0, -1].double(), dim=-1)
    found = torch.bincount(torch.tensor([answer.ids[0] for answer in answers]), minlength=len(wanted)).double()
    often = wanted * count >= 5
    pooled = torch.cat([found[often], found[~often].sum().unsqueeze(0)])
    expected = torch.cat([wanted[often], wanted[~often].sum().unsqueeze(0)]) * count
    freedom = len(expected) - 1
    chi2 = float(((pooled - expected) ** 2 / expected).sum())
    assert chi2 < freedom + 4 * (2 * freedom) ** 0.5 + 4


@pytest.mark.parametrize(("sampling", "most"), [({"top_k": 3}, 3), ({"top_k": 5, "top_p": 0.6}, 5)])
def test_filters_are_sampled_with(
    base: LlamaForCausalLM, prompts: list[list[int]], sampling: dict[str, Any], most: int
) -> None:
    """First tokens against transformers' own filters, and log-probabilities against what they leave."""
    warpers = [TopKLogitsWarper(sampling["top_k"]), TopPLogitsWarper(sampling.get("top_p", 1.0))]
    with torch.no_grad():
        logits_1V = base(input_ids=torch.tensor([prompts[4]])).logits[:, -1] / 2
    for warper in warpers:
        logits_1V = warper(None, logits_1V)
    wanted_V = torch.log_softmax(logits_1V, dim=-1)[0]
    count = 2000
    found = engine(base, slots=500).sample(
        [prompts[4]] * count, Sampling(max_new_tokens=1, temperature=2.0, **sampling), seed=0
    )
    kept = [token for token, logp in enumerate(wanted_V.tolist()) if logp > -torch.inf]
    assert {answer.ids[0] for answer in found} == set(kept)
    assert 1 < len(kept) <= most
    for answer in found[:50]:
        assert answer.log_probs[0] == pytest.approx(float(wanted_V[answer.ids[0]]), abs=1e-4)
    for token in kept:
        p = float(wanted_V[token].exp())
        seen = sum(answer.ids[0] == token for answer in found)
        assert abs(seen - count * p) < 4 * (count * p * (1 - p)) ** 0.5


def test_the_cache_grows_with_the_prompts(base: LlamaForCausalLM, prompts: list[list[int]]) -> None:
    writer = engine(base, slots=3, capacity=0)
    long = [[30 + number % 40 for number in range(150)]]
    found = [writer.sample(prompts, FREE, seed=0), writer.sample(long, FREE, seed=0)]
    assert ids_of(found[0]) == ids_of(engine(base).sample(prompts, FREE, seed=0))
    assert ids_of(found[1]) == ids_of(engine(base, capacity=500).sample(long, FREE, seed=0))
    room = writer._cache[0].keys.shape
    assert (room[0], room[2]) == (3, 256)  # 162 tokens, in steps of 128; more than one answer is expected again
    assert ids_of(writer.sample(prompts, FREE, seed=0)) == ids_of(found[0])
    assert writer._cache[0].keys.shape == room


def test_with_fewer_rows_at_once_the_answers_are_the_same(base: LlamaForCausalLM, prompts: list[list[int]]) -> None:
    writer = engine(base, slots=6)
    wanted = ids_of(writer.sample(prompts, FREE, seed=0))
    writer.rows_at_once = 2
    assert ids_of(writer.sample(prompts, FREE, seed=0)) == wanted
    writer.release()
    assert ids_of(writer.sample(prompts, FREE, seed=0)) == wanted
    assert len(writer._cache[0].keys) == 2


def test_slots_by_hand() -> None:
    """The 6B: 30 layers, 32 heads of 128, two bytes a number: 491,520 bytes a token."""
    config = LlamaConfig(
        vocab_size=39_438, hidden_size=4096, intermediate_size=11_008, num_hidden_layers=30, num_attention_heads=32,
        num_key_value_heads=32,
    )  # fmt: skip
    # 40 GB: 38 GB less 16,384 * (16,384 + 33,024) * 2 = 1,619,001,344 of prefill; a slot is 512 * 491,520 = 251,658,240
    # and 24 * 39,438 = 946,512 of choosing: 36,380,998,656 / 252,604,752 = 144.02
    assert slots_that_fit(40_000_000_000, config, capacity=512, itemsize=2) == 144
    assert slots_that_fit(1_000_000, config, capacity=512, itemsize=2) == 1
    assert [capacity_for(tokens) for tokens in (1, 128, 129, 512)] == [128, 128, 256, 512]


def test_little_memory_is_fewer_slots(
    base: LlamaForCausalLM, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = ids_of(engine(base, slots=6).sample(prompts, FREE, seed=0))
    config = base.config
    prefill = 16_384 * (4 * 48 + 3 * 96) * 4
    slot = 2 * config.num_hidden_layers * 4 * 12 * 96 * 4 + 24 * config.vocab_size
    monkeypatch.setattr(compiled, "free_bytes", lambda device: int((prefill + 2.5 * slot) / 0.95))
    writer = engine(base, slots=6)
    assert ids_of(writer.sample(prompts, FREE, seed=0)) == wanted
    assert len(writer._cache[0].keys) == 2


def test_an_adapter_on_fewer_maps_than_another(tiny: Any, base: LlamaForCausalLM, prompts: list[list[int]]) -> None:
    """As policy and critic may be: what only the other adapts is sampled with as the base has it."""
    alone = adapted(base, [1])
    both = adapted(base, [1])
    both.add_adapter("critic", LoraConfig(r=2, target_modules="all-linear"))
    writer = engine(both)
    writer.refresh("policy")
    assert [answer.ids for answer in writer.sample(prompts, GREEDY, seed=0)] == by_generate(alone, tiny, prompts)
    assert writer.retained == pytest.approx(1, abs=1e-3)


def test_merged_weights_are_not_sampled_with_before_they_are_there(base: LlamaForCausalLM) -> None:
    with pytest.raises(AssertionError, match="refresh comes before"):
        engine(adapted(base)).sample([[5]], GREEDY, seed=0)


def test_what_does_not_fit_is_refused(base: LlamaForCausalLM) -> None:
    with pytest.raises(UserError, match="capacity of 20"):
        engine(base, capacity=20).sample([[5] * 9], GREEDY, seed=0)


def test_memory_given_back_is_taken_again(base: LlamaForCausalLM, prompts: list[list[int]]) -> None:
    writer = engine(base)
    first = writer.sample(prompts, FREE, seed=0)
    writer.release()
    assert writer._cache == []
    assert writer.sample(prompts, FREE, seed=0) == first


def test_progress_counts_every_answer(base: LlamaForCausalLM, prompts: list[list[int]]) -> None:
    counted: list[int] = []
    engine(base, slots=2).sample(prompts, GREEDY, seed=0, on_done=counted.append)
    assert sum(counted) == len(prompts)
