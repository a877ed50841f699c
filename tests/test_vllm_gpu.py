"""vLLM's answers and the compiled engine's are equal in distribution, with an adapter and without.

Two samples of the same size are compared by the chi-square statistic of two rows, sum (a - b)² / (a + b) over the
cells, cells of fewer than ten answers pooled. Under equal distributions its mean is the degrees of freedom d and its
variance 2 d; more than four standard deviations (and 4, for the skew of few cells) above the mean is refused: about one
time in 10,000.
"""

import importlib.util
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import small
import torch
from peft import LoraConfig, PeftModel
from transformers import LlamaConfig, LlamaForCausalLM

from finlm import engines
from finlm.engines import Engine
from finlm.generation import Answer, Sampling
from finlm.model import load_causal

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore"),  # vLLM and what it brings warn of themselves
    pytest.mark.skipif(
        importlib.util.find_spec("vllm") is None, reason="vllm is not installed: pip install 'finlm[vllm]'"
    ),
]
COUNT = 4000
PROMPTS = ([5, 9, 13, 21], [100, 40, 7])


def statistic(ours: Sequence[tuple[int, ...]], others: Sequence[tuple[int, ...]]) -> tuple[float, float]:
    """Return chi-square of two samples of equal size and the limit that it may not exceed."""
    counts = Counter(ours), Counter(others)
    cells: dict[tuple[int, ...] | None, list[int]] = {}
    for answer in counts[0] | counts[1]:
        pair = [count[answer] for count in counts]
        cell = cells.setdefault(answer if sum(pair) >= 10 else None, [0, 0])
        cell[0], cell[1] = cell[0] + pair[0], cell[1] + pair[1]
    chi2 = sum((a - b) ** 2 / (a + b) for a, b in cells.values())
    freedom = len(cells) - 1
    return chi2, freedom + 4 * (2 * freedom) ** 0.5 + 4


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> PeftModel:
    """A small random LLaMA out of a folder, in bfloat16, with an adapter that changes its answers."""
    folder: Path = tmp_path_factory.mktemp("base")
    config = LlamaConfig(
        vocab_size=301, hidden_size=256, intermediate_size=352, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=4, head_dim=64, max_position_embeddings=256, pad_token_id=0, eos_token_id=1,
        bos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    base = LlamaForCausalLM(config)
    with torch.no_grad():
        base.lm_head.weight.mul_(12)  # far from uniform: pairs of tokens come often enough to be counted
    base.to(torch.bfloat16).save_pretrained(folder)
    loaded = load_causal(folder, dtype=torch.bfloat16, device=torch.device("cuda"))
    lora = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    made = PeftModel(loaded, lora, adapter_name="policy").eval()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
    return made.requires_grad_(False)


@pytest.fixture(scope="module")
def vllm(model: PeftModel) -> Iterator[Engine]:
    state = torch.get_rng_state()
    made = engines.make("vllm", model, small.tokenizer(301), rows_at_once=256, vllm_memory_share=0.3)
    made.refresh(None)
    assert torch.equal(torch.get_rng_state(), state), "vLLM's start changed the global random state"
    yield made
    made.close()


@pytest.fixture(scope="module")
def compiled(model: PeftModel) -> Engine:
    return engines.make("compiled", model, small.tokenizer(301), rows_at_once=512)


def drawn(engine: Engine, sampling: Sampling, seed: int = 0) -> list[Answer]:
    return engine.sample([list(PROMPTS[number % 2]) for number in range(2 * COUNT)], sampling, seed=seed)


SAMPLINGS = {
    "free": Sampling(max_new_tokens=2),
    "cooler": Sampling(max_new_tokens=2, temperature=0.7),
}


@pytest.mark.parametrize("name", SAMPLINGS)
@pytest.mark.parametrize("adapter", [None, "policy"])
def test_answers_are_distributed_alike(vllm: Engine, compiled: Engine, name: str, adapter: str | None) -> None:
    pairs = []
    for engine in (compiled, vllm):
        engine.refresh(adapter)
        pairs.append(drawn(engine, SAMPLINGS[name]))
    for which in (0, 1):  # each prompt for itself
        for tokens in (1, 2):
            ours, others = ([answer.ids[:tokens] for answer in answers[which::2]] for answers in pairs)
            chi2, limit = statistic(ours, others)
            assert chi2 < limit, f"prompt {which}, {tokens} tokens"


def widest(numbers: torch.Tensor) -> int:
    """Return the place, 4 to 19, before which the step between sorted numbers is the widest."""
    return 4 + int((numbers[3:19] - numbers[4:20]).abs().argmax())


@pytest.mark.parametrize("which", ["top_k", "top_p"])
def test_filters_leave_the_same_tokens(vllm: Engine, compiled: Engine, model: PeftModel, which: str) -> None:
    """First tokens, cut where the next token is far: at a near one, rounding decides which of two is left."""
    with torch.no_grad(), model.disable_adapter():
        logits_V = model(input_ids=torch.tensor([PROMPTS[0]], device="cuda")).logits[0, -1].float().cpu()
    sorted_V = logits_V.sort(descending=True).values
    count, mass_V = widest(sorted_V), sorted_V.softmax(dim=0).cumsum(dim=0)
    # the mass between that of `count` - 1 tokens and that of `count` keeps `count` of them
    filters = {"top_k": count} if which == "top_k" else {"top_p": float(mass_V[count - 2 : count].mean())}
    answers = []
    for engine in (compiled, vllm):
        engine.refresh(None)
        sampled = engine.sample([list(PROMPTS[0])] * COUNT, Sampling(max_new_tokens=1, **filters), seed=0)
        answers.append([answer.ids for answer in sampled])
    chi2, limit = statistic(*answers)
    assert chi2 < limit
    assert {ids[0] for ids in answers[1]} <= set(logits_V.topk(count).indices.tolist())


def test_the_adapter_is_what_changes_the_answers(vllm: Engine, model: PeftModel) -> None:
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    answers = []
    for adapter in (None, "policy"):
        vllm.refresh(adapter)
        answers.append([answer.ids for answer in drawn(vllm, SAMPLINGS["free"])[::2]])
    chi2, limit = statistic(*answers)
    assert chi2 > limit
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())


def test_new_weights_reach_it_and_sleep_changes_nothing(vllm: Engine, compiled: Engine, model: PeftModel) -> None:
    vllm.refresh("policy")
    first = [answer.ids for answer in drawn(vllm, SAMPLINGS["free"])[::2]]
    held = torch.cuda.mem_get_info()[0]
    vllm.release()
    assert torch.cuda.mem_get_info()[0] > held
    again = [answer.ids for answer in drawn(vllm, SAMPLINGS["free"], seed=1)[::2]]
    chi2, limit = statistic(first, again)
    assert chi2 < limit
    try:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.mul_(-1)
        vllm.refresh("policy")
        compiled.refresh("policy")
        other, wanted = ([a.ids for a in drawn(engine, SAMPLINGS["free"])[::2]] for engine in (vllm, compiled))
    finally:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.mul_(-1)
    chi2, limit = statistic(first, other)
    assert chi2 > limit
    chi2, limit = statistic(other, wanted)
    assert chi2 < limit


def test_log_probabilities_ends_and_limits(vllm: Engine, model: PeftModel) -> None:
    vllm.refresh("policy")
    sampling = Sampling(max_new_tokens=30, temperature=2.0)  # hot enough that some answers end
    counted: list[int] = []
    asked = [[7, number + 2] for number in range(200)]
    answers = vllm.sample(asked, sampling, seed=2, on_done=counted.append)
    assert sum(counted) == 200
    gaps = []
    for prompt, answer in zip(asked, answers, strict=True):
        assert answer.ended == (answer.ids[-1] == 1)
        assert 1 not in answer.ids[:-1]
        assert answer.ended or len(answer.ids) == 30
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([[*prompt, *answer.ids]], device="cuda")).logits
        full = torch.log_softmax(logits[0, len(prompt) - 1 : -1].float() / 2.0, dim=-1).cpu()
        gaps += (full[range(len(answer.ids)), answer.ids] - torch.tensor(answer.log_probs)).abs().tolist()
    assert {answer.ended for answer in answers} == {True, False}
    assert sum(gaps) / len(gaps) < 0.05


class Asked(Exception):
    pass


def test_a_poll_that_raises_leaves_nothing_running(vllm: Engine) -> None:
    vllm.refresh("policy")

    def stop() -> None:
        raise Asked

    with pytest.raises(Asked):
        vllm.sample([[5, 6]] * 50, Sampling(max_new_tokens=20), seed=0, poll=stop)
    answers = vllm.sample([[5, 6], [7]], Sampling(max_new_tokens=1), seed=0)
    assert [len(answer.ids) for answer in answers] == [1, 1]
