"""The compiled engine on a GPU: captured steps give the answers of the CPU, whatever the order and number of slots."""

import pytest
import torch
from peft import LoraConfig, PeftModel
from transformers import LlamaConfig, LlamaForCausalLM

from finlm.compiled import CompiledEngine
from finlm.generation import Sampling

pytestmark = pytest.mark.gpu
FREE = Sampling(max_new_tokens=20, temperature=1.0)
GREEDY = Sampling(max_new_tokens=20, temperature=0.0)


def make(device: str, dtype: torch.dtype = torch.float32, shared: int = 2) -> PeftModel:
    """A small random LLaMA with a policy adapter that is not zero, the same on every device."""
    config = LlamaConfig(
        vocab_size=301, hidden_size=256, intermediate_size=352, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=shared, head_dim=64, pad_token_id=0, eos_token_id=1, bos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    base = LlamaForCausalLM(config)
    lora = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    model = PeftModel(base, lora, adapter_name="policy").eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
            elif "embed" in name or "lm_head" in name:
                parameter.mul_(8)  # logits far enough apart that rounding changes no choice
    return model.to(device, dtype).requires_grad_(False)


def prompts(count: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randint(2, 301, (int(length),), generator=generator).tolist()
        for length in torch.randint(1, 40, (count,), generator=generator)
    ]


def engine(model: PeftModel, *, slots: int, merge: bool = True, end: int = 1) -> CompiledEngine:
    made = CompiledEngine(model, slots=slots, capacity=64, end=end, pad=0, merge=merge)
    made.refresh("policy")
    return made


@pytest.fixture(autouse=True)
def exact_products() -> None:
    torch.backends.cuda.matmul.allow_tf32 = False


@pytest.mark.parametrize("sampling", [FREE, GREEDY])
def test_captured_steps_give_the_answers_of_the_cpu(sampling: Sampling) -> None:
    wanted = engine(make("cpu"), slots=48).sample(prompts(48), sampling, seed=3)
    for slots in (48, 7):  # 7: slots are filled again, and the batch shrinks at the end
        found = engine(make("cuda"), slots=slots).sample(prompts(48), sampling, seed=3)
        assert [answer.ids for answer in found] == [answer.ids for answer in wanted]
    assert any(answer.ended for answer in wanted) or sampling is GREEDY
    torch.testing.assert_close(
        torch.tensor([sum(answer.log_probs) for answer in found]),
        torch.tensor([sum(answer.log_probs) for answer in wanted]),
        atol=1e-3,
        rtol=0,
    )


def test_unmerged_and_merged_agree() -> None:
    model = make("cuda")
    merged = engine(model, slots=16).sample(prompts(16), FREE, seed=3)
    unmerged = engine(model, slots=16, merge=False).sample(prompts(16), FREE, seed=3)
    assert [answer.ids for answer in merged] == [answer.ids for answer in unmerged]


def test_greedy_is_that_of_generate() -> None:
    model = make("cuda", shared=4)
    for prompt, answer in zip(
        prompts(12), engine(model, slots=5, end=-1).sample(prompts(12), GREEDY, seed=0), strict=True
    ):
        ids = torch.tensor([prompt], device="cuda")
        out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=20,
                             eos_token_id=None, pad_token_id=0)  # fmt: skip
        assert tuple(out[0, len(prompt) :].tolist()) == answer.ids


def test_in_bfloat16_log_probabilities_stay_close_to_a_full_pass() -> None:
    model = make("cuda", torch.bfloat16, shared=4)
    gaps = []
    for prompt, answer in zip(prompts(24), engine(model, slots=8).sample(prompts(24), FREE, seed=1), strict=True):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([[*prompt, *answer.ids]], device="cuda")).logits
        full = torch.log_softmax(logits[0, len(prompt) - 1 : -1].float(), dim=-1).cpu()
        gaps += (full[range(len(answer.ids)), answer.ids] - torch.tensor(answer.log_probs)).abs().tolist()
    assert sum(gaps) / len(gaps) < 0.05


def test_weights_taken_anew_reach_the_captured_step() -> None:
    model = make("cuda")
    writer = engine(model, slots=8)
    before = writer.sample(prompts(8), FREE, seed=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.mul_(-1)
    writer.refresh("policy")
    assert writer.sample(prompts(8), FREE, seed=0) == engine(model, slots=8).sample(prompts(8), FREE, seed=0) != before
