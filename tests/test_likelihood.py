"""Log-probabilities of given tokens, against torch's own log_softmax and distributions."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from finlm.likelihood import answer_log_probs, output_head, token_log_probs
from finlm.model import load_causal


def drawn() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(23, 16, generator=generator)
    return states, torch.randint(0, 40, (23,), generator=generator), torch.randn(40, 16, generator=generator)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
@pytest.mark.parametrize("chunk", [256, 23, 7, 1])
def test_log_probs_and_entropies_equal_torchs(temperature: float, chunk: int) -> None:
    states, tokens, head = drawn()
    logp, entropy = token_log_probs(states, tokens, head, temperature=temperature, chunk=chunk)
    logits = states @ head.T / temperature
    wanted = torch.log_softmax(logits, dim=-1)[torch.arange(23), tokens]
    torch.testing.assert_close(logp, wanted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(entropy, torch.distributions.Categorical(logits=logits).entropy(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("chunk", [256, 5])
def test_gradients_equal_those_of_log_softmax(chunk: int) -> None:
    states, tokens, head = drawn()
    weights = torch.linspace(-1, 1, 23)
    ours, theirs = states.clone().requires_grad_(), states.clone().requires_grad_()
    (token_log_probs(ours, tokens, head, temperature=0.7, chunk=chunk)[0] * weights).sum().backward()
    (torch.log_softmax(theirs @ head.T / 0.7, dim=-1)[torch.arange(23), tokens] * weights).sum().backward()
    assert ours.grad is not None
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-5, rtol=1e-5)


def test_entropy_by_hand() -> None:
    # logits ln 1, ln 1, ln 2: probabilities 1/4, 1/4, 1/2, entropy 1.5 ln 2
    head = torch.tensor([[0.0], [0.0], [0.693147181]])
    logp, entropy = token_log_probs(torch.ones(1, 1), torch.tensor([2]), head)
    assert float(logp) == pytest.approx(-0.693147, abs=1e-6)
    assert float(entropy) == pytest.approx(1.5 * 0.693147, abs=1e-6)


@pytest.fixture(scope="module")
def model(tiny: Any) -> LlamaForCausalLM:
    loaded = load_causal(Path(tiny.base), dtype=torch.float32, device=torch.device("cpu"))
    assert isinstance(loaded, LlamaForCausalLM)
    return loaded.eval()


def test_the_head_is_float32_on_a_cpu_and_does_not_train(model: LlamaForCausalLM) -> None:
    head = output_head(model)
    assert torch.equal(head, model.lm_head.weight)
    assert not head.requires_grad
    small = LlamaForCausalLM(model.config).to(torch.bfloat16)
    assert output_head(small).dtype == torch.float32


def test_whole_answers_equal_the_models_own_loss_in_any_batches(model: LlamaForCausalLM) -> None:
    rng = random.Random(0)
    prompts = [[rng.randrange(2, 400) for _ in range(rng.randrange(1, 12))] for _ in range(9)]
    answers = [[rng.randrange(2, 400) for _ in range(length)] for length in (3, 1, 7, 2, 0, 5, 4, 6, 2)]
    wanted = []
    for prompt, answer in zip(prompts, answers, strict=True):
        labels = torch.tensor([[-100] * len(prompt) + answer])
        with torch.no_grad():
            loss = model(input_ids=torch.tensor([prompt + answer]), labels=labels).loss if answer else torch.zeros(())
        wanted.append(-float(loss) * len(answer))
    for batch_size in (1, 4, 9):
        seen: list[int] = []
        got = answer_log_probs(model, prompts, answers, pad=0, batch_size=batch_size, on_batch=seen.append)
        assert got == pytest.approx(wanted, abs=1e-4)
        assert sum(seen) == 9
