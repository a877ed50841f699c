"""How fast fine-tuning's data comes, without any model: tokens per second to encode, to draw and pack, to lay out.

    python benchmarks/sft_data.py --out runs/sft_data.json
    python benchmarks/sft_data.py --tokenizer models/xuanyuan-6b-base --instructions FILE --text FILE --out FILE

Encodes conversations and paragraphs into a token store as a run does once for its files; then draws steps from the
mapped store, packs them by best fit and lays each micro-batch out as tensors, as a run does at every step. A run that
finds its store does the second part only (`cached_tokens_per_second`); `tokens_per_second` does both for every token,
as a first pass over the data does. The files come `--repeat` times, for the examples are small; a tokenizer that has
seen a word is quicker with it, so give files of your own and `--repeat 1` to measure encoding.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: import from this checkout, not from this folder or from an older install
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import numpy as np

from alignment.sft_plan import Plan
from benchmarks import six_billion
from finlm import config, data, model, token_store
from finlm.batches import packed
from finlm.samples import Sample
from finlm.sft_records import StreamName, is_text
from finlm.tokenizer import load_tokenizer

EXAMPLES = six_billion.CHECKOUT / "examples"
ROW = 2048


def encoded(stream: StreamName, paths: list[Path], tokenizer: Any, repeat: int) -> Iterator[tuple[Sample, str]]:
    """Yield the samples of a stream's files, each with its group."""
    for turn in range(repeat):
        if is_text(stream):
            paragraphs = [paragraph for path in paths for paragraph in data.read_text(path)]
            rows = data.text_rows(paragraphs, tokenizer, max_length=ROW)
        else:
            rows, _ = data.instruction_rows(data.read_conversations(paths), tokenizer, max_length=ROW)
        for number, row in enumerate(rows):
            is_learned = np.array(row.labels) != data.IGNORE
            is_learned[0] = False
            ids = np.array(row.ids, dtype=np.int32)
            yield Sample(stream, ids, is_learned, row.record_id, "", f"{turn}:{number}"), row.record_id


def measure(given: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Encode, then go through the steps; return tokens per second of each part."""
    tokenizer = load_tokenizer(given.tokenizer or model.resolve_model("embedded", given.runs))
    files: dict[StreamName, list[Path]] = {"text-general": given.text, "instructions-general": given.instructions}
    began = time.perf_counter()
    for stream, paths in files.items():
        token_store.write(folder / stream, encoded(stream, paths, tokenizer, given.repeat))
    encoding = time.perf_counter() - began
    began = time.perf_counter()
    stores = {stream: token_store.TokenStore(folder / stream, stream) for stream in files}
    stored = sum(int(store.lengths.sum()) for store in stores.values())
    shares = {stream: int(store.lengths.sum()) / stored for stream, store in stores.items()}
    plan = Plan(stores, shares, room=ROW, rows=given.rows, seed=0, folder=folder)  # type: ignore[arg-type]
    opening = time.perf_counter() - began
    began = time.perf_counter()
    steps = list(plan.steps(0, given.steps))
    drawing = time.perf_counter() - began
    began = time.perf_counter()
    laid_out = 0
    for rows in steps:
        for start in range(0, len(rows), given.micro_batch):
            laid_out += len(packed(rows[start : start + given.micro_batch])["input_ids"])
    layout = time.perf_counter() - began
    per_token = encoding / stored + (drawing + layout) / laid_out
    return {
        "tokens_per_second": 1 / per_token,
        "cached_tokens_per_second": laid_out / (drawing + layout),
        "encode_tokens_per_second": stored / encoding,
        "draw_tokens_per_second": laid_out / drawing,
        "layout_tokens_per_second": laid_out / layout,
        "open_seconds": opening,
        "stored_tokens": stored,
        "tokens": laid_out,
        "rows_filled": laid_out / (given.steps * given.rows * ROW),
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", type=Path, help="model folder (default: the embedded model's)")
    parser.add_argument("--runs", default=config.default_runs(), help="run root (default: %(default)s)")
    parser.add_argument("--text", type=Path, nargs="+", default=sorted((EXAMPLES / "text").glob("*.txt")))
    parser.add_argument("--instructions", type=Path, nargs="+", default=[EXAMPLES / "instructions" / "general.jsonl"])
    parser.add_argument("--repeat", type=int, default=20, help="times that the files come (default: %(default)s)")
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
