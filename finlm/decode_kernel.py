# mypy: ignore-errors
"""The kernel behind `finlm.decode_attention`: one new token of each answer against its slot of the cache."""

import triton
import triton.language as tl


@triton.jit
def decode_kernel(
    query,
    key,
    value,
    keys,
    values,
    length,
    out,
    scale,
    query_row,
    query_head,
    key_row,
    key_head,
    value_row,
    value_head,
    slot_stride,
    head_stride,
    heads,
    group,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One answer's one head: a single pass over its filled keys and values, softmax on the way (base 2)."""
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    shared = head // group
    columns = tl.arange(0, WIDTH)
    places = tl.arange(0, BLOCK)
    filled = tl.load(length + row)
    base = row * slot_stride + shared * head_stride
    q = tl.load(query + row * query_row + head * query_head + columns).to(tl.float32) * scale
    new_k = tl.load(key + row * key_row + shared * key_head + columns)
    new_v = tl.load(value + row * value_row + shared * value_head + columns)
    if head % group == 0:  # one of the heads that share them writes them
        tl.store(keys + base + filled * WIDTH + columns, new_k)
        tl.store(values + base + filled * WIDTH + columns, new_v)
    # the new token's own part comes from registers: another program may not have written it yet
    top = tl.sum(q * new_k.to(tl.float32))
    total = 1.0
    mean = new_v.to(tl.float32)
    for first in range(0, filled, BLOCK):
        at = first + places
        is_filled = at < filled
        block = base + at[:, None] * WIDTH + columns[None, :]
        k = tl.load(keys + block, mask=is_filled[:, None], other=0.0)
        score = tl.sum(q[None, :] * k.to(tl.float32), axis=1)
        score = tl.where(is_filled, score, float("-inf"))
        higher = tl.maximum(top, tl.max(score, axis=0))
        shrink = tl.exp2(top - higher)
        weight = tl.exp2(score - higher)
        v = tl.load(values + block, mask=is_filled[:, None], other=0.0)
        mean = mean * shrink + tl.sum(weight[:, None] * v.to(tl.float32), axis=0)
        total = total * shrink + tl.sum(weight, axis=0)
        top = higher
    tl.store(out + (row * heads + head) * WIDTH + columns, (mean / total).to(out.dtype.element_ty))
