"""Pairs per second of one step of the 6B's reward model on one GPU: ours, and TRL's on the same pairs.

    python benchmarks/reward_gpu.py --out runs/reward_speed.json                      all sides, each in its own process
    python benchmarks/reward_gpu.py --side trl-best --micro-batch 8 --out runs/b8.json                       one side
    python benchmarks/reward_gpu.py --merge runs/reward_speed.json runs/b8.json --out runs/reward_speed_h200.json

Random bfloat16 weights of configs/model/6b.json made on the GPU, the same for every side, as is the head; rank-16
adapters on all linear maps and the head learn by the pairwise loss with AdamW, gradients clipped. Each side steps
first over pairs of 1,024 tokens a row, where nobody has padding, then over ragged ones (log-normal lengths, at most
1,024), where only tokens that are no padding count.

- `ours`: answers one behind the other, each seeing its own row alone; as many pairs a pass as its tokens allow. A
  prompt is read before each of its answers, as TRL reads it.
- `trl-default`: TRL's RewardTrainer as it comes: eight pairs a pass, padded to the longest row, checkpointing.
- `trl-best`: Liger's kernels (on a GPU that has them), no checkpointing, pairs of like length together. RewardTrainer
  has neither packing nor padding-free passes. `--set` takes any field of RewardConfig.

The ceiling is 4 FLOP a parameter of the layers and token, and attention within rows, at the matrix rate measured in the
same process. Of the equal rows the first step, which compiles, is left out, and of the others the one of median speed
counts; of the ragged rows all steps, which go through the same pairs on every side. Where two files hold the same side,
the faster one is the figure.
"""

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: import from this checkout, not from this folder or from an older install
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "CI": "1"}

from benchmarks import reward_sides, six_billion
from benchmarks.reward_sides import Pair
from benchmarks.six_billion import Ceilings, Work
from benchmarks.trained_sides import Step, best, described, measure_apart, middle, write_merged

HANDED_ON = ("shape", "pairs", "steps")
"""Options that each side's own process is given."""


def figures_of(pairs: int, steps: Sequence[Step], chosen: Step, rows: Sequence[list[int]], ceiling: float) -> Any:
    """Return the figures of some steps.

    Args:
        pairs: Pairs of a step.
        steps: The steps that count.
        chosen: The one of median speed.
        rows: All rows of the steps.
        ceiling: Tokens per second that the card's matrix rate allows.
    """
    seconds = sum(step.seconds for step in steps)
    speed = sum(step.tokens for step in steps) / seconds
    return {
        "pairs_per_second": pairs * len(steps) / seconds,
        "tokens_per_second": speed,
        "ceiling_tokens_per_second": ceiling,
        "ceiling_share": speed / ceiling,
        "peak_gib": max(step.peak_gib for step in steps),
        "mean_tokens": sum(map(len, rows)) / len(rows),
        **described(steps, chosen),
    }


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Measure one side in this process."""
    card = six_billion.ceilings()
    print(f"matrix rate {card.flops / 1e12:.0f} TFLOP/s, bandwidth {card.bandwidth / 1e12:.2f} TB/s", flush=True)
    config, count = six_billion.shape(given.shape), given.pairs * (1 + given.steps)
    sets = [reward_sides.pairs(config, count, is_ragged=is_ragged) for is_ragged in (False, True)]
    run = reward_sides.SIDES[given.side[0]](given, sets)
    first, equal, ragged = run.steps[0], run.steps[1 : 1 + given.steps], run.steps[1 + given.steps :]
    typical = middle(equal or [first])
    side = {
        "side": given.side[0],
        "pairs": given.pairs,
        "set": given.set,
        **run.conditions,
        **figures_of(given.pairs, [typical], typical, rows_of(sets[0]), ceiling(config, sets[0], card)),
        "first_seconds": first.seconds,
        "ragged": figures_of(given.pairs, ragged, middle(ragged), rows_of(sets[1]), ceiling(config, sets[1], card)),
        "steps": [dataclasses.asdict(step) for step in run.steps],
    }
    return {"matrix_rate": card.flops, "bandwidth": card.bandwidth, "sides": [side]}


def rows_of(pairs: Sequence[Pair]) -> list[list[int]]:
    """Return the rows of pairs, one behind the other."""
    return [row for pair in pairs for row in pair]


def ceiling(config: Any, pairs: Sequence[Pair], card: Ceilings) -> float:
    """Return the tokens per second of rows that the card's matrix rate allows, every prompt read twice."""
    lengths = [len(row) for row in rows_of(pairs)]
    return card.flops / (Work.of(config).tuning_flop(lengths, head=False) / sum(lengths))


def headline(sides: list[dict[str, Any]]) -> dict[str, float]:
    """Return the figures that were measured, by the names that they are asked for."""
    found = {
        "": best(sides, "pairs_per_second", side="ours"),
        "trl_": best(sides, "pairs_per_second", side="trl-best"),
        "trl_default_": best(sides, "pairs_per_second", side="trl-default", set=[], micro_batch=8),
    }
    figures: dict[str, float] = {}
    for name, side in found.items():
        if side:
            figures |= {
                f"{name}pairs_per_second": side["pairs_per_second"],
                f"{name}ragged_pairs_per_second": side["ragged"]["pairs_per_second"],
                f"{name}peak_gib": side["peak_gib"],
                f"{name}ceiling_share": side["ceiling_share"],
            }
    ours = found[""]
    for name, over in (("over_trl", found["trl_"]), ("over_trl_default", found["trl_default_"])):
        if ours and over:
            figures[name] = ours["pairs_per_second"] / over["pairs_per_second"]
    return figures


def table(sides: list[dict[str, Any]]) -> str:
    """Return the sides as a Markdown table."""
    lines = ["| side | pairs a pass | rows | pairs/s | tokens/s | of the ceiling | no padding | peak GiB | seconds |"]
    lines += ["|" + "---|" * 9]
    for side in sides:
        for rows, its in (("1,024 tokens", side), ("ragged", side["ragged"])):
            phases = ", ".join(f"{name} {seconds:.3f}" for name, seconds in its["phases"].items())
            lines.append(
                f"| {side['side']} | {side['micro_batch']} | {rows} | {its['pairs_per_second']:.3f} | "
                f"{its['tokens_per_second']:,.0f} | {its['ceiling_share']:.1%} | {its['token_share']:.0%} | "
                f"{its['peak_gib']:.1f} | {phases} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Measure the sides or gather what was measured; print a table, write a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sides = reward_sides.SIDES
    parser.add_argument("--side", action="append", choices=sides, default=[], help="default: all, one by one")
    parser.add_argument("--shape", default="6b", help="6b, or tiny to try the script (default: %(default)s)")
    parser.add_argument("--pairs", type=int, default=8, help="pairs an optimizer step (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=5, help="steps after the first (default: %(default)s)")
    parser.add_argument("--micro-batch", type=int, help="pairs a pass (default: 8 for trl-default, else 4)")
    parser.add_argument("--attention", help="of TRL's sides, a name that transformers knows")
    parser.add_argument("--set", action="append", default=[], help="NAME=VALUE of RewardConfig, for TRL's sides")
    parser.add_argument("--profile", type=Path, help="write a table of one more step's kernels here, for ours")
    parser.add_argument("--merge", type=Path, nargs="+", help="files to gather in one instead of measuring")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    given = parser.parse_args()
    given.side = given.side or list(sides)
    if len(given.side) > 1 and (given.attention or given.set or given.profile or given.micro_batch):
        parser.error("--attention, --set, --profile and --micro-batch need one --side")
    if given.micro_batch and given.pairs % given.micro_batch:
        parser.error(f"--pairs {given.pairs} must be a multiple of --micro-batch {given.micro_batch}")
    failed = 0
    if given.merge or len(given.side) > 1:
        files = given.merge or measure_apart(given, __file__, HANDED_ON)
        failed = 0 if given.merge else len(given.side) - len(files)
        found = write_merged(given, files, headline)
    else:
        figures = measure(given)
        six_billion.write(given.out, figures)
        found = figures["sides"]
    print(table(found))
    if failed:
        sys.exit(f"{failed} of {len(given.side)} sides failed")


if __name__ == "__main__":
    main()
