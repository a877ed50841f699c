"""Packed samples on a GPU, by torch's variable-length kernels and by flash-attn: each is what it is alone."""

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from finlm import likelihood, unpadded
from finlm.unpadded import packed_states

pytestmark = pytest.mark.gpu
LENGTHS = (300, 57, 1, 130, 2048 - 488)
TOKENS = sum(LENGTHS)


@pytest.fixture(params=["varlen", "flash"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Attend by torch's kernels, or by flash-attn where it is installed."""
    name: str = request.param
    if name == "flash":
        pytest.importorskip("flash_attn")
    else:
        monkeypatch.setattr(unpadded, "flash_attn", lambda: None)
    return name


def make(dtype: torch.dtype) -> LlamaForCausalLM:
    """A random LLaMA with the heads of the 6B (128 wide), on the GPU."""
    config = LlamaConfig(
        vocab_size=3001, hidden_size=512, intermediate_size=1408, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=4, head_dim=128, pad_token_id=0, eos_token_id=1, bos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    return unpadded.install(LlamaForCausalLM(config).to("cuda", dtype).eval(), for_packed=True)


def samples() -> tuple[Tensor, Tensor]:
    """Tokens of all samples (N,), and where each begins (S + 1,)."""
    ids_N = torch.randint(2, 3001, (TOKENS,), generator=torch.Generator().manual_seed(2)).cuda()
    bounds = torch.tensor([0, *LENGTHS], device="cuda").cumsum(0).to(torch.int32)
    return ids_N, bounds


def losses(model: LlamaForCausalLM, ids_N: Tensor, bounds: Tensor) -> Tensor:
    """Negative log-probability of each sample's tokens but its first, (N - S,)."""
    hidden_ND = packed_states(model.model, ids_N, bounds, int((bounds[1:] - bounds[:-1]).max()))
    is_last_N = torch.zeros(len(ids_N), dtype=torch.bool, device="cuda")
    is_last_N[bounds[1:].long() - 1] = True
    is_first_N = is_last_N.roll(1)
    return -likelihood.token_log_probs(hidden_ND[~is_last_N], ids_N[~is_first_N], model.lm_head.weight.detach())[0]


def alone(ids_N: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Each sample with the bounds of a pack of its own."""
    return [(its, torch.tensor([0, len(its)], device="cuda", dtype=torch.int32)) for its in ids_N.split(LENGTHS)]


def test_loss_and_gradients_are_the_token_weighted_mean_of_the_samples(kernel: str) -> None:
    """In bfloat16 the losses agree to 2e-3 of 8 nats, the gradients are no further from float64 than twice as far."""
    ids_N, bounds = samples()
    model, exact = make(torch.bfloat16), make(torch.bfloat16).double()
    exact.set_attn_implementation("eager")
    packed = losses(model, ids_N, bounds)
    apart = [losses(model, *one) for one in alone(ids_N) if len(one[0]) > 1]
    mean = sum(each.double().sum().item() for each in apart) / sum(map(len, apart))
    assert packed.double().mean().item() == pytest.approx(mean, abs=2e-3)

    packed.mean().backward()
    ours = gradients(model)
    theirs_loss = torch.cat([losses(model, *one) for one in alone(ids_N) if len(one[0]) > 1]).mean()
    theirs_loss.backward()
    theirs = gradients(model)
    wanted_loss = torch.cat([by_hand(exact, its) for its, _ in alone(ids_N) if len(its) > 1])
    wanted_loss.mean().backward()
    wanted = gradients(exact)
    assert packed.double().mean().item() == pytest.approx(wanted_loss.mean().item(), abs=2e-3)
    assert off(ours, wanted) < 2 * off(theirs, wanted) < 0.05


def by_hand(model: LlamaForCausalLM, ids: Tensor) -> Tensor:
    """Losses of one sample by transformers' own attention and softmax."""
    logits = model(input_ids=ids.unsqueeze(0)).logits[0, :-1]
    return torch.nn.functional.cross_entropy(logits, ids[1:], reduction="none")


def gradients(model: LlamaForCausalLM) -> Tensor:
    found = torch.cat([p.grad.flatten().double() for p in model.model.parameters() if p.grad is not None])
    model.zero_grad()
    return found


def off(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


@torch.no_grad()
def test_a_poisoned_neighbour_changes_not_one_bit(kernel: str) -> None:
    model = make(torch.bfloat16)
    ids_N, bounds = samples()
    model.model.embed_tokens.weight[3000] = float("nan")
    clean = ids_N.clamp(max=2999)
    poisoned = clean.clone()
    poisoned[300:357] = 3000
    before, after = (packed_states(model.model, ids, bounds, max(LENGTHS)) for ids in (clean, poisoned))
    is_other = torch.ones(TOKENS, dtype=torch.bool)
    is_other[300:357] = False
    assert torch.equal(before[is_other.cuda()], after[is_other.cuda()])
    assert bool(after[300:357].isnan().all())


@torch.no_grad()
def test_float32_for_which_there_is_no_kernel_goes_sample_by_sample() -> None:
    model = make(torch.float32)
    ids_N, bounds = samples()
    wanted_N = torch.cat([by_hand(model, its) for its, _ in alone(ids_N) if len(its) > 1])
    torch.testing.assert_close(losses(model, ids_N, bounds), wanted_N, atol=1e-4, rtol=1e-4)
