"""What the demo's time goes into on a CPU, as ratios within one run.

    python benchmarks/cpu.py [--threads 1]

Times the parts on the embedded model (made under the run root on first use): forward pass, the same with adapters, the
loss at every token and where a token is learned, sampling. Ratios are to be trusted, seconds depend on the machine.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

if not __package__:  # run as a file: import from this checkout, not from this folder or from an older install
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import torch
from peft import LoraConfig, get_peft_model

from finlm import config, generation, likelihood, model
from finlm.tokenizer import load_tokenizer

ROWS, TOKENS, LEARNED = 8, 192, 36


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Return the least seconds of several runs after one to warm up."""
    work()
    found = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return min(found)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", default=config.default_runs(), help="run root (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs of each part (default: %(default)s)")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    folder = model.resolve_model("embedded", given.runs)
    cpu = torch.device("cpu")
    tokenizer = load_tokenizer(Path(folder))
    causal = model.load_causal(folder, dtype=model.choose_dtype("auto", cpu), device=cpu)
    ids_BT = torch.randint(1000, 40_000, (ROWS, TOKENS))
    states_ND = torch.randn(ROWS * TOKENS, causal.config.hidden_size, dtype=causal.dtype)
    head_VD = causal.get_output_embeddings().weight

    @torch.no_grad()
    def forward() -> object:
        return causal.model(input_ids=ids_BT, use_cache=False)

    def loss(rows: int) -> object:
        return likelihood.token_log_probs(states_ND[:rows], ids_BT.reshape(-1)[:rows], head_VD)

    def sample() -> object:
        settings = generation.Sampling(max_new_tokens=16)
        return generation.sample(causal, tokenizer, ids_BT[:, :128].tolist(), settings, seed=0, batch_size=ROWS)

    found = {"forward pass, base alone": seconds(forward, given.repeats)}
    found["loss at every token"] = seconds(lambda: loss(ROWS * TOKENS), given.repeats)
    found["loss at learned tokens"] = seconds(lambda: loss(ROWS * LEARNED), given.repeats)
    found["sampling, 16 tokens"] = seconds(sample, given.repeats)
    lora = LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM")
    peft_model = get_peft_model(causal, lora)
    found["forward pass, adapters on all layers"] = seconds(forward, given.repeats)
    peft_model.unload()
    base = found["forward pass, base alone"]
    print(f"{ROWS} rows of {TOKENS} tokens, {given.threads} threads, {causal.dtype}")
    print("| part | seconds | ratio to the base's forward pass |\n|---|---|---|")
    for name, value in found.items():
        print(f"| {name} | {value:.2f} | {value / base:.2f} |")


if __name__ == "__main__":
    main()
