"""Log-probabilities of given tokens, against torch's own log_softmax and distributions."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from finlm.likelihood import answer_log_probs, output_head, token_log_probs, token_log_probs_wide
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


@pytest.mark.parametrize(("dtype", "off"), [(torch.float32, 1e-6), (torch.bfloat16, 4e-3)])
@pytest.mark.parametrize("chunk", [4096, 23, 7, 1])
def test_a_head_that_learns_has_float64s_gradient_in_any_chunks(chunk: int, dtype: torch.dtype, off: float) -> None:
    """Of the same rounded states and head; sums over chunks are float32, so that chunks of one token lose nothing."""
    states, tokens, head = (one.to(dtype) if one.is_floating_point() else one for one in drawn())
    weights = torch.linspace(-1, 1, 23)
    ours, theirs = (
        [one.detach().clone().to(kind).requires_grad_() for one in (states, head)] for kind in (dtype, torch.float64)
    )
    logp, _ = token_log_probs_wide(ours[0], tokens, ours[1], temperature=0.7, chunk=chunk)
    assert logp.dtype == torch.float32
    (logp * weights).sum().backward()
    wanted = torch.log_softmax(theirs[0] @ theirs[1].T / 0.7, dim=-1)[torch.arange(23), tokens]
    (wanted * weights.double()).sum().backward()
    torch.testing.assert_close(logp.double(), wanted, atol=2e-5, rtol=1e-5)
    for one, gold in zip(ours, theirs, strict=True):
        assert one.grad is not None
        assert gold.grad is not None
        assert one.grad.dtype == dtype
        assert float((one.grad.double() - gold.grad).norm() / gold.grad.norm()) < off


def test_no_token_at_all_gives_gradients_of_zero() -> None:
    states, tokens, head = drawn()
    states, head = states[:0].requires_grad_(), head.requires_grad_()
    for path in (token_log_probs, token_log_probs_wide):
        states.grad = head.grad = None
        path(states, tokens[:0], head)[0].sum().backward()
        assert head.grad is not None
        assert not head.grad.any()


def test_under_autocast_the_products_alone_are_rounded() -> None:
    """What a float32 head gives is what its rounded copy gives; its gradient is float32."""
    states, tokens, head = drawn()
    wide = head.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = token_log_probs_wide(states, tokens, wide)
    wanted, _ = token_log_probs_wide(states.bfloat16(), tokens, head.bfloat16())
    assert found.equal(wanted)
    found.sum().backward()
    assert wide.grad is not None
    assert wide.grad.dtype == torch.float32
    assert not wide.grad.equal(wide.grad.bfloat16().float())


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
