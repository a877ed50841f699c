"""How fast fine-tuning's data comes, without any model: tokens per second to encode, to draw and pack, to lay out.

    python benchmarks/sft_data.py --out runs/sft_data.json                     the examples, to try the script
    python benchmarks/sft_data.py --tokenizer models/xuanyuan-6b-base --text-general FILE --instructions-finance FILE

Reads and encodes the files of the four streams into an empty cache, as a run does once; opens them again out of it, as
every later start does; then draws steps, packs them by best fit and lays each micro-batch out as tensors, as a run does
at every step. `cached_tokens_per_second` is that last part alone; `tokens_per_second` adds encoding to it, as if every
token were seen once. The examples are too small for it: what is loaded at a first call outweighs them.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

if not __package__:  # run as a file: import from this checkout, not from this folder or from an older install
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from alignment.sft_plan import Plan
from benchmarks import six_billion
from finlm import config, model, streams
from finlm.batches import packed
from finlm.sft_records import STREAMS
from finlm.streams import Streams
from finlm.tokenizer import load_tokenizer

EXAMPLES = six_billion.CHECKOUT / "examples"
ROW = 2048
T = TypeVar("T")


def example_files() -> dict[str, list[str]]:
    """Return the checkout's own files by stream."""
    text = {f"text-{about}": sorted((EXAMPLES / "text").glob(f"{about}_*.txt")) for about in ("general", "finance")}
    found = text | {"instructions-general": [EXAMPLES / "instructions" / "general.jsonl"]}
    return {stream: list(map(str, paths)) for stream, paths in found.items()}


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """Return what a function returns, and its seconds."""
    began = time.perf_counter()
    made = work()
    return made, time.perf_counter() - began


def measure(given: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Encode, open again, go through the steps; return tokens per second of each part."""
    tokenizer = load_tokenizer(given.tokenizer or model.resolve_model("embedded", given.runs))
    named = {stream: getattr(given, stream.replace("-", "_")) for stream in STREAMS}
    files: Any = {stream: paths for stream, paths in named.items() if paths} or example_files()

    def load() -> Streams:
        lengths = {"max_length": ROW, "test_share": 0.0, "test_samples": 0}
        return streams.load(files, tokenizer, **lengths, forms=given.forms, cache=folder / "cache")

    _, encoding = timed(load)
    found, opening = timed(load)
    tokens = {name: sum(map(len, its)) for name, its in found.train.items() if len(its)}
    stored = sum(tokens.values())
    shares = {name: count / stored for name, count in tokens.items()}
    plan = Plan(found.train, shares, room=ROW, rows=given.rows, seed=0, folder=folder)
    steps, drawing = timed(lambda: list(plan.steps(0, given.steps)))

    def lay_out() -> int:
        starts = range(0, given.rows, given.micro_batch)
        parts = (rows[start : start + given.micro_batch] for rows in steps for start in starts)
        return sum(len(packed(part)["input_ids"]) for part in parts)

    laid_out, layout = timed(lay_out)
    return {
        "tokens_per_second": 1 / (encoding / stored + (drawing + layout) / laid_out),
        "cached_tokens_per_second": laid_out / (drawing + layout),
        "encode_tokens_per_second": stored / encoding,
        "draw_tokens_per_second": laid_out / drawing,
        "layout_tokens_per_second": laid_out / layout,
        "open_seconds": opening,
        "stored_tokens": stored,
        "set_aside": len(found.removals),
        "tokens": laid_out,
        "rows_filled": laid_out / (given.steps * given.rows * ROW),
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", type=Path, help="model folder (default: the embedded model's)")
    parser.add_argument("--runs", default=config.default_runs(), help="run root (default: %(default)s)")
    for stream in STREAMS:
        parser.add_argument(f"--{stream}", nargs="+", help="files of the stream (default, with no file: the examples)")
    parser.add_argument("--forms", nargs="*", default=["open-book", "closed-book", ""], help="forms of instructions")
    parser.add_argument("--steps", type=int, default=50, help="steps drawn (default: %(default)s)")
    parser.add_argument("--rows", type=int, default=32, help="packed rows a step (default: %(default)s)")
    parser.add_argument("--micro-batch", type=int, default=4, help="rows laid out at once (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(given, Path(folder))
    for name, value in found.items():
        print(f"{name:26} {value:,.2f}" if value < 100 else f"{name:26} {value:,.0f}")
    if given.out:
        six_billion.write(given.out, found)


if __name__ == "__main__":
    main()
