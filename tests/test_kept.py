"""The sets that top-p and top-k leave, against transformers' own samplers and by hand."""

import pytest
import torch
from transformers import TopKLogitsWarper, TopPLogitsWarper

from finlm.generation import Sampling
from finlm.kept import likeliest, pack, unpack
from finlm.likelihood import kept_tokens, token_log_probs


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("top_p", "top_k"), [(0.9, 0), (0.3, 0), (1e-6, 0), (1.0, 5), (1.0, 1), (1.0, 99), (0.7, 7)])
def test_what_stays_is_what_transformers_leaves(top_p: float, top_k: int) -> None:
    logits = drawn(200, 41) * 2
    theirs = logits.clone()
    if top_k:
        theirs = TopKLogitsWarper(top_k)(torch.zeros(200, 1).long(), theirs)
    if top_p < 1:
        theirs = TopPLogitsWarper(top_p)(torch.zeros(200, 1).long(), theirs)
    assert torch.equal(likeliest(logits, top_p=top_p, top_k=top_k), theirs.isfinite())


def test_top_p_by_hand() -> None:
    # probabilities 0.5, 0.3, 0.15, 0.05: 0.5 alone, then with 0.3, then with 0.15 too
    logits = torch.tensor([[0.15, 0.5, 0.05, 0.3]]).log()
    for top_p, wanted in ((0.4, [1]), (0.6, [1, 3]), (0.9, [0, 1, 3]), (0.99, [0, 1, 2, 3])):
        assert likeliest(logits, top_p=top_p, top_k=0)[0].nonzero().flatten().tolist() == wanted
    # the two likeliest are 0.625 and 0.375 of what is left of them
    assert likeliest(logits, top_p=0.6, top_k=2)[0].nonzero().flatten().tolist() == [1]


@pytest.mark.parametrize("vocabulary", [1, 7, 8, 9, 480])
def test_sets_survive_packing(vocabulary: int) -> None:
    sets = drawn(13, vocabulary) > 0.3
    packed = pack(sets)
    assert packed.shape == (13, -(-vocabulary // 8))
    assert packed.dtype == torch.uint8
    assert torch.equal(unpack(packed, vocabulary), sets)


@pytest.mark.parametrize("chunk", [256, 5])
@pytest.mark.parametrize(("top_p", "top_k"), [(0.6, 0), (1.0, 6), (0.8, 10)])
def test_log_probs_and_entropies_are_those_of_what_is_left(chunk: int, top_p: float, top_k: int) -> None:
    states, head = drawn(23, 16), drawn(40, 16, seed=1)
    logits = states @ head.T / 0.7
    left = TopKLogitsWarper(top_k)(torch.zeros(23, 1).long(), logits) if top_k else logits
    left = TopPLogitsWarper(top_p)(torch.zeros(23, 1).long(), left) if top_p < 1 else left
    tokens = torch.distributions.Categorical(logits=left).sample()
    kept = kept_tokens(states, tokens, head, temperature=0.7, top_p=top_p, top_k=top_k, chunk=chunk)
    logp, entropy = token_log_probs(states, tokens, head, temperature=0.7, kept_NU=kept, chunk=chunk)
    wanted = torch.distributions.Categorical(probs=left.softmax(dim=-1))
    torch.testing.assert_close(logp, wanted.log_prob(tokens), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(entropy, wanted.entropy(), atol=1e-4, rtol=0)


def test_a_sampled_token_is_in_its_set_whatever_its_logit() -> None:
    states, head = torch.ones(1, 1), torch.tensor([[3.0], [2.0], [-4.0]])
    kept = kept_tokens(states, torch.tensor([2]), head, temperature=1.0, top_p=1.0, top_k=1)
    assert unpack(kept, 3).tolist() == [[True, False, True]]
    logp, _ = token_log_probs(states, torch.tensor([2]), head, kept_NU=kept)
    assert float(logp) == pytest.approx(-7.000912, abs=1e-5)  # -4 - ln(e^3 + e^-4)


def test_gradients_reach_only_what_is_left() -> None:
    states = torch.eye(3)[:1].requires_grad_()
    head = torch.tensor([[2.0, 0.1, 0.2], [1.0, 0.3, 0.4], [-1.0, 5.0, 6.0]])
    tokens = torch.tensor([1])
    kept = kept_tokens(states, tokens, head, temperature=1.0, top_p=1.0, top_k=2)
    token_log_probs(states, tokens, head, kept_NU=kept)[0].sum().backward()
    # d log p_1 / d state = p_0 (w_1 - w_0), with p_0 = e^2 / (e^2 + e)
    share = 0.7310586
    assert states.grad is not None
    torch.testing.assert_close(states.grad, share * (head[1] - head[0]).unsqueeze(0))


def test_sampling_takes_top_k() -> None:
    with pytest.raises(ValueError, match="top_k is -1"):
        Sampling(max_new_tokens=1, top_k=-1)
