"""Choosing tokens: the right distribution, and nothing but key and place decides."""

import math

import pytest
import torch

from finlm import hashing
from finlm.token_choice import answer_key, choose, exponentials, keep_likeliest


def strides(size: int) -> torch.Tensor:
    return hashing.strides(size, torch.device("cpu"))


def test_the_mixer_is_splitmix64() -> None:
    """The first outputs for seed 1234567, from the reference implementation (prng.di.unimi.it/splitmix64.c)."""
    state, found = 1234567, []
    for _ in range(3):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        signed = state - 2**64 if state >= 2**63 else state
        found.append(int(hashing.mix(torch.tensor(signed))) % 2**64)
    assert found == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_the_numbers_are_exponential() -> None:
    drawn = exponentials(torch.arange(64), torch.arange(64) % 7, strides(5000)).flatten().double()
    assert torch.isfinite(drawn).all()
    assert float(drawn.min()) > 0
    count = len(drawn)
    assert float(drawn.mean()) == pytest.approx(1, abs=4 / math.sqrt(count))
    # Kolmogorov-Smirnov: sqrt(n) D stays below 1.95 with probability 0.999
    ordered = drawn.sort().values
    distance = (1 - torch.exp(-ordered) - torch.arange(1, count + 1) / count).abs().max()
    assert float(distance) * math.sqrt(count) < 1.95


def test_neighbouring_keys_places_and_tokens_are_unrelated() -> None:
    one = exponentials(torch.arange(200), torch.zeros(200, dtype=torch.long), strides(200)).double()
    other_place = exponentials(torch.arange(200), torch.ones(200, dtype=torch.long), strides(200)).double()
    for a, b in ((one[:-1], one[1:]), (one, other_place), (one[:, :-1], one[:, 1:])):
        pair = torch.stack([a.flatten(), b.flatten()])
        assert abs(float(torch.corrcoef(pair)[0, 1])) < 4 / math.sqrt(a.numel())


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_tokens_come_as_often_as_the_softmax_says(temperature: float) -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, -4.0, 1.5])
    count = 40_000
    choice = choose(
        logits.repeat(count, 1), torch.arange(count), torch.full((count,), 3), strides(6), temperature=temperature
    )
    wanted = torch.softmax(logits.double() / temperature, dim=0)
    found = torch.bincount(choice.token_B, minlength=6).double()
    chi2 = float(((found - count * wanted) ** 2 / (count * wanted)).sum())
    assert chi2 < 20.5  # five degrees of freedom, 0.999
    torch.testing.assert_close(choice.logp_B, wanted.log().float()[choice.token_B], atol=1e-5, rtol=0)


def test_a_row_does_not_depend_on_the_others() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, keys, steps = torch.randn(8, 300, generator=generator), torch.arange(8) * 77, torch.arange(8)
    whole = choose(logits, keys, steps, strides(300), temperature=1.0)
    order = torch.tensor([5, 2, 7])
    some = choose(logits[order], keys[order], steps[order], strides(300), temperature=1.0)
    assert torch.equal(some.token_B, whole.token_B[order])


def test_greedy_takes_the_likeliest() -> None:
    logits, zeros = torch.tensor([[0.0, 3.0, 1.0], [5.0, 3.0, 1.0]]), torch.zeros(2, dtype=torch.long)
    choice = choose(logits, zeros, zeros, strides(3), temperature=0.0)
    assert choice.token_B.tolist() == [1, 0]


@pytest.mark.parametrize(("top_k", "top_p"), [(0, 0.7), (0, 0.3), (3, 1.0), (2, 0.9), (0, 1.0), (50, 1.0)])
def test_filters_are_those_of_transformers(top_k: int, top_p: float) -> None:
    from transformers import TopKLogitsWarper, TopPLogitsWarper

    logits = torch.randn(6, 40, generator=torch.Generator().manual_seed(1)) * 2
    wanted = logits
    if top_k:
        wanted = TopKLogitsWarper(top_k)(None, wanted)
    if top_p < 1:
        wanted = TopPLogitsWarper(top_p)(None, wanted)
    assert torch.equal(keep_likeliest(logits, top_k=top_k, top_p=top_p), wanted)


def test_keys_differ_by_seed_prompt_and_number() -> None:
    keys = {
        answer_key(seed, prompt, number) for seed in (0, 1) for prompt in ((1, 2), (12,), (2, 1)) for number in (0, 1)
    }
    assert len(keys) == 12
    assert all(0 <= key < 2**63 for key in keys)
