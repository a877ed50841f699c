"""Tokens per second of one fine-tuning step of the 6B on one GPU: ours, and TRL's on the same documents.

    python benchmarks/sft_gpu.py --out runs/sft.json                                 all sides, each in its own process
    python benchmarks/sft_gpu.py --side ours --tune full --out runs/sft_full.json    one side
    python benchmarks/sft_gpu.py --side ours --processes 2 --out runs/sft_two.json   shards over two GPUs
    python benchmarks/sft_gpu.py --merge runs/sft.json runs/sft_full.json --out runs/sft_h100.json

Random bfloat16 weights of configs/model/6b.json made on the GPU; rank-16 adapters on all linear maps, or all weights
with an optimizer of eight bits. Documents of random tokens, of log-normal length with a mean of 400, at most 2048;
every token is learned, and only tokens that are no padding count.

- `ours`: documents packed by best fit into rows of 2048, several rows a pass, each document seeing itself alone.
- `trl-default`: TRL's SFTTrainer as it comes: eight documents a pass, padded to the longest, checkpointing.
  `max_length` alone is raised from 1024 to 2048, so that no document is cut.
- `trl-best`: packing, Liger's kernels (on a GPU that has them), no checkpointing; flash-attn where it is installed,
  else sdpa. TRL vouches for packed rows with flash-attn only, so the result says whether documents stayed apart
  (`documents_apart`). `--set packing_strategy=wrapped` fills rows without a gap, cuts documents and lets them see each
  other, which takes no mask: measure both. `--set` takes any field of SFTConfig.

The ceiling is 4 FLOP a parameter and token (6 with `--tune full`) and attention within documents, at the matrix rate
measured in the same process. The first step compiles and is shown apart; of the others the one of median speed counts,
and where two files hold the same side, the faster one is the figure.
"""

import argparse
import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: import from this checkout, not from this folder or from an older install
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "CI": "1"}

import torch

from benchmarks import sft_sides, six_billion
from benchmarks.sft_sides import Document
from benchmarks.six_billion import Ceilings, Work
from benchmarks.trained_sides import PROCESSES, Run, best, described, measure_apart, middle, write_merged

HANDED_ON = ("shape", "tune", "optimizer", "documents", "steps", "accumulate", "sharder", "micro_batch")
"""Options that each side's own process is given."""


def result(given: argparse.Namespace, run: Run, found: list[Document], card: Ceilings) -> dict[str, Any]:
    """Return the figures of one side."""
    later = run.steps[1:] or run.steps
    typical = middle(later)
    lengths = [len(document) for document in found]
    work = Work.of(six_billion.shape(given.shape)).tuning_flop(lengths, full=given.tune == "full") / sum(lengths)
    ceiling = card.flops / work
    seconds = sum(step.seconds for step in later)
    return {
        "side": given.side[0],
        "tune": given.tune,
        "processes": PROCESSES,
        "sharder": given.sharder if PROCESSES > 1 else None,
        "accumulate": given.accumulate,
        "set": given.set,
        **run.conditions,
        **described(later, typical),
        "seconds": typical.seconds,
        "tokens": typical.tokens,
        "tokens_per_second": typical.speed,
        "all_tokens_per_second": sum(step.tokens for step in later) / seconds,
        "flop_per_token": work,
        "ceiling_tokens_per_second": ceiling,
        "ceiling_share": typical.speed / ceiling,
        "peak_gib": max(step.peak_gib for step in run.steps),
        "documents": {"count": len(lengths), "mean_tokens": sum(lengths) / len(lengths), "longest": max(lengths)},
        "first_seconds": run.steps[0].seconds,
        "steps": [dataclasses.asdict(step) for step in run.steps],
    }


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Measure one side in this process."""
    card = six_billion.ceilings()
    print(f"matrix rate {card.flops / 1e12:.0f} TFLOP/s, bandwidth {card.bandwidth / 1e12:.2f} TB/s", flush=True)
    found = sft_sides.documents(six_billion.shape(given.shape), given.documents)
    side = result(given, sft_sides.SIDES[given.side[0]](given, found), found, card)
    return {"matrix_rate": card.flops, "bandwidth": card.bandwidth, "sides": [side]}


def launcher(given: argparse.Namespace) -> list[str]:
    """Return what stands between Python and the script where several processes train one model."""
    if given.processes == 1:
        return []
    if not torch.cuda.is_available():  # accelerate's launcher shards on GPUs only
        return ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(given.processes)]
    file = six_billion.CHECKOUT / "configs" / "accelerate" / f"{given.sharder}.yaml"
    launch = ["-m", "accelerate.commands.launch", "--config_file", str(file)]
    return [*launch, "--num_processes", str(given.processes)]


# ------------------------------------------------------------------------------------------- several files in one


def headline(sides: list[dict[str, Any]]) -> dict[str, float]:
    """Return the figures that were measured, by the names that they are asked for."""
    one = best(sides, "tokens_per_second", side="ours", tune="lora", processes=1)
    several = best(sides, "tokens_per_second", side="ours", tune="lora", processes=2, sharder="sft_fsdp2")
    copies = best(sides, "tokens_per_second", side="ours", tune="lora", processes=2, sharder="multi_gpu")
    found = {
        "tokens_per_second": one,
        "trl_tokens_per_second": best(sides, "tokens_per_second", side="trl-best"),
        "trl_apart_tokens_per_second": best(sides, "tokens_per_second", side="trl-best", documents_apart=True),
        "trl_default_tokens_per_second": best(sides, "tokens_per_second", side="trl-default", set=[]),
        "full_ft_tokens_per_second": best(sides, "tokens_per_second", side="ours", tune="full", processes=1),
    }
    figures = {name: side["tokens_per_second"] for name, side in found.items() if side}
    if one:
        figures |= {"peak_gib": one["peak_gib"], "ceiling_share": one["ceiling_share"]}
    for name, two in (("two_gpu_speedup", several), ("two_gpu_copies_speedup", copies)):
        if one and two:
            figures[name] = two["tokens_per_second"] / one["tokens_per_second"]
    return figures


def table(sides: list[dict[str, Any]]) -> str:
    """Return the sides as a Markdown table."""
    lines = ["| side | tokens/s | of the ceiling | no padding | peak GiB | documents apart | seconds by phase |"]
    lines += ["|" + "---|" * 7]
    for side in sides:
        phases = ", ".join(f"{name} {seconds:.3f}" for name, seconds in side["phases"].items())
        apart = "yes" if side["documents_apart"] else "no"
        lines.append(
            f"| {side['side']}, {side['tune']} | {side['tokens_per_second']:,.0f} | {side['ceiling_share']:.1%} | "
            f"{side['token_share']:.0%} | {side['peak_gib']:.1f} | {apart} | {phases} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure the sides or gather what was measured; print a table, write a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", action="append", choices=sft_sides.SIDES, default=[], help="default: all, one by one")
    parser.add_argument("--tune", choices=("lora", "full"), default="lora", help="what learns (default: %(default)s)")
    parser.add_argument(
        "--optimizer", choices=("adamw", "adamw_8bit"), help="of ours (default: adamw; full: adamw_8bit)"
    )
    parser.add_argument("--shape", default="6b", help="6b, or tiny to try the script (default: %(default)s)")
    parser.add_argument("--documents", type=int, default=512, help="drawn documents (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=10, help="steps after the first (default: %(default)s)")
    parser.add_argument("--accumulate", type=int, default=1, help="passes an optimizer step (default: %(default)s)")
    parser.add_argument("--micro-batch", type=int, help="rows a pass (default: 4 packed rows, 8 documents for TRL)")
    parser.add_argument("--attention", help="of TRL's sides, a name that transformers knows")
    parser.add_argument("--set", action="append", default=[], help="NAME=VALUE of SFTConfig, for TRL's sides")
    parser.add_argument("--profile", type=Path, help="write a table of one more pass's kernels here, for ours")
    parser.add_argument("--processes", type=int, default=1, help="GPUs, of one host, for ours (default: %(default)s)")
    sharders = ("sft_fsdp2", "sft_zero3", "multi_gpu")
    parser.add_argument(
        "--sharder", choices=sharders, default="sft_fsdp2", help="of several GPUs (default: %(default)s)"
    )
    parser.add_argument("--merge", type=Path, nargs="+", help="files to gather in one instead of measuring")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    given = parser.parse_args()
    given.side = given.side or list(sft_sides.SIDES)
    if given.tune == "full" and given.side != ["ours"]:
        parser.error("--tune full is measured for --side ours only")
    if given.processes > 1 and given.side != ["ours"]:
        parser.error("--processes is measured for --side ours only")
    if (len(given.side) > 1 or given.processes > 1) and (given.attention or given.set or given.profile):
        parser.error("--attention, --set and --profile need one --side and one process")
    if len(given.side) > 1 and given.micro_batch:
        parser.error("--micro-batch needs one --side")
    failed = 0
    if given.merge or len(given.side) > 1 or given.processes > 1:
        files = given.merge or measure_apart(given, __file__, HANDED_ON, launcher(given))
        failed = 0 if given.merge else len(given.side) - len(files)
        sides = write_merged(given, files, headline)
    else:
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        figures = measure(given)
        if int(os.environ.get("RANK", "0")):
            return
        six_billion.write(given.out, figures)
        sides = figures["sides"]
    print(table(sides))
    if failed:
        sys.exit(f"{failed} of {len(given.side)} sides failed")


if __name__ == "__main__":
    main()
