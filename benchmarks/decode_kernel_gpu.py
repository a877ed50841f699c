"""Which block, warps and stages the decode kernel wants: bandwidth of each choice over the 6B's slots of the cache.

    python benchmarks/decode_kernel_gpu.py

One layer's attention of one new token per answer, 32 heads of width 128, slots filled to several lengths; keys and
values rotate among layers so that no cache of the card holds them. The share is of the bandwidth of a plain sum,
measured in the same run. finlm/decode_attention.py has the choice taken.
"""

import argparse
import itertools
import os
import sys
from pathlib import Path

if not __package__:  # run as a file: import from this checkout, not from this folder or from an older install
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import torch

from benchmarks import six_billion
from finlm import decode_attention

HEADS, WIDTH, LAYERS, REPEATS = 32, 128, 6, 20
SHAPES = ((64, 384), (96, 384), (128, 512), (128, 640))


def microseconds(slots: int, length: int) -> float:
    """Return the least time of one layer's attention, from a captured graph over all layers."""
    capacity = 768
    caches = [
        [torch.randn(slots, HEADS, capacity, WIDTH, device="cuda", dtype=torch.bfloat16) for _ in range(2)]
        for _ in range(LAYERS)
    ]
    query, key, value = (torch.randn(slots, HEADS, WIDTH, device="cuda", dtype=torch.bfloat16) for _ in range(3))
    length_B = torch.full((slots,), length, device="cuda")

    def layers() -> None:
        for keys, values in caches:
            decode_attention.write_and_attend(query, key, value, keys, values, length_B, WIDTH**-0.5)

    layers()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        layers()
    return six_billion.seconds(graph.replay, REPEATS) / LAYERS * 1e6


def main() -> None:
    """Time every choice for every shape."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    given = parser.parse_args()
    card = six_billion.ceilings()
    found = []
    print("| block | warps | stages |" + "".join(f" {slots} x {length} |" for slots, length in SHAPES))
    print("|---|---|---|" + "---|" * len(SHAPES))
    for block, warps, stages in itertools.product((32, 64, 128), (1, 2, 4, 8), (2, 3, 4)):
        decode_attention.TILE = decode_attention.Tile(block, warps, stages)
        row = {"block": block, "warps": warps, "stages": stages}
        try:
            for slots, length in SHAPES:
                took = microseconds(slots, length)
                share = slots * length * HEADS * WIDTH * 4 / (took * 1e-6) / card.bandwidth
                row[f"{slots}x{length}"] = round(share, 3)
        except Exception as error:  # a choice that does not fit the card is one row less
            print(f"| {block} | {warps} | {stages} | {type(error).__name__}")
            continue
        found.append(row)
        cells = "".join(f" {row[f'{slots}x{length}']:.0%} |" for slots, length in SHAPES)
        print(f"| {block} | {warps} | {stages} |{cells}", flush=True)
    best = max(found, key=lambda row: sum(row[f"{slots}x{length}"] for slots, length in SHAPES))
    print(f"best: {best}; bandwidth of a sum {card.bandwidth / 1e12:.2f} TB/s")
    if given.out:
        six_billion.write(given.out, {"bandwidth": card.bandwidth, "choices": found, "best": best})


if __name__ == "__main__":
    main()
