"""One token's attention over a slot: the masked form against a sum by hand, the kernel against the masked form."""

import math

import pytest
import torch
from torch import Tensor

from finlm import decode_attention
from finlm.decode_attention import write_and_attend


def drawn(device: str, dtype: torch.dtype, heads: int, shared: int, width: int) -> tuple[Tensor, ...]:
    """Query, key and value of five answers, a cache of seven slots, and how full the slots are."""
    generator = torch.Generator().manual_seed(heads)

    def some(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device, dtype)

    length = torch.tensor([0, 1, 63, 64, 130], device=device)
    caches = some(7, shared, 160, width), some(7, shared, 160, width)
    return some(5, heads, width), some(5, shared, width), some(5, shared, width), *caches, length


@pytest.mark.parametrize(("heads", "shared"), [(4, 4), (6, 2)])
def test_by_hand(heads: int, shared: int) -> None:
    query, key, value, keys, values, length = drawn("cpu", torch.float64, heads, shared, 16)
    before = keys.clone(), values.clone()
    out = write_and_attend(query, key, value, keys, values, length, 0.3)
    for row, filled in enumerate(length.tolist()):
        for head in range(heads):
            group = head // (heads // shared)
            assert torch.equal(keys[row, group, filled], key[row, group])
            all_keys = torch.cat([before[0][row, group, :filled], key[row, group].unsqueeze(0)])
            all_values = torch.cat([before[1][row, group, :filled], value[row, group].unsqueeze(0)])
            weights = [math.exp(0.3 * float(query[row, head] @ one)) for one in all_keys]
            wanted = sum(w * v for w, v in zip(weights, all_values, strict=True)) / sum(weights)
            torch.testing.assert_close(out[row, head], wanted)


def test_other_slots_and_places_are_left_alone() -> None:
    query, key, value, keys, values, length = drawn("cpu", torch.float32, 4, 4, 16)
    kept_keys, kept_values = keys.clone(), values.clone()
    write_and_attend(query, key, value, keys, values, length, 1.0)
    for row, filled in enumerate(length.tolist()):
        kept_keys[row, :, filled], kept_values[row, :, filled] = key[row], value[row]
    assert torch.equal(keys, kept_keys)
    assert torch.equal(values, kept_values)


@pytest.mark.gpu
@pytest.mark.parametrize(("heads", "shared"), [(32, 32), (9, 3)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_the_kernel_equals_the_masked_form(heads: int, shared: int, dtype: torch.dtype, tolerance: float) -> None:
    for width in (64, 128):
        query, key, value, keys, values, length = drawn("cuda", dtype, heads, shared, width)
        other_keys, other_values = keys.clone(), values.clone()
        wanted = decode_attention._by_mask(query, key, value, other_keys, other_values, length, width**-0.5)
        found = write_and_attend(query, key, value, keys, values, length, width**-0.5)
        torch.testing.assert_close(found, wanted, atol=tolerance, rtol=tolerance)
        assert torch.equal(keys, other_keys)
        assert torch.equal(values, other_values)
