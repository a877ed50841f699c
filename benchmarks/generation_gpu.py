"""How fast the compiled engine samples from the 6B on one GPU, beside the floor that memory and arithmetic set.

    python benchmarks/generation_gpu.py --out runs/generation.json

Random bfloat16 weights of configs/model/6b.json, rank-16 adapters on all linear maps (merged, as PPO samples), random
prompts, answers of full length. Each workload runs once to warm up and then `--repeats` times; the best is shown. The
floor: prompts read at the card's measured matrix rate, every step reading the weights and the filled cache once at its
measured bandwidth; both ceilings are measured here, in the same run.
"""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: import from this checkout, not from this folder or from an older install
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import torch
from peft import PeftModel
from transformers import LlamaConfig

from benchmarks import six_billion
from benchmarks.six_billion import PAD, Work, seconds
from finlm import fused_layers, unpadded
from finlm.compiled import CompiledEngine
from finlm.generation import Sampling

WORKLOADS = ((96, 256, 256), (128, 256, 512))


def build(config: LlamaConfig) -> PeftModel:
    """Return the model with random weights, with a policy adapter that is not zero."""
    base = fused_layers.install(unpadded.install(six_billion.random_model(config)))  # as load_causal does
    model = PeftModel(base, six_billion.adapter(), adapter_name="policy").eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=1e-3)
    return model.requires_grad_(False)


def main() -> None:
    """Measure each workload and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--shape", default="6b", help="6b, or tiny to try the script (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=2, help="runs after the one to warm up (default: %(default)s)")
    parser.add_argument("--unmerged", action="store_true", help="also sample through the adapter itself")
    parser.add_argument("--workload", action="append", default=[], help="PROMPTSxREADxWRITE instead of the usual ones")
    parser.add_argument("--profile", type=Path, help="write a table of the step's kernels here")
    given = parser.parse_args()
    workloads = [tuple(map(int, text.split("x"))) for text in given.workload] or list(WORKLOADS)
    config = six_billion.shape(given.shape)
    card = six_billion.ceilings()
    model = build(config)
    figures: list[dict[str, Any]] = []
    for merge in (True, False) if given.unmerged else (True,):
        for prompts, read, write in workloads:
            engine = CompiledEngine(model, slots=prompts, capacity=read + write, end=-1, pad=PAD, merge=merge)
            began = time.perf_counter()
            engine.refresh("policy")
            six_billion.synchronize()
            merging = time.perf_counter() - began
            ids = six_billion.prompts(config, prompts, read)
            sampling = Sampling(max_new_tokens=write, temperature=1.0)

            def work(engine: CompiledEngine = engine, ids: Any = ids, sampling: Sampling = sampling) -> Any:
                return engine.sample(ids, sampling, seed=0)

            first = seconds(work, 1)
            took = seconds(work, given.repeats)
            written = sum(len(answer.ids) for answer in work())
            least = sum(Work.of(config).sampling_seconds(prompts, read, write, card))
            figures.append(
                {
                    "prompts": prompts,
                    "read": read,
                    "write": write,
                    "merged": merge,
                    "seconds": took,
                    "first_seconds": first,
                    "merge_seconds": merging,
                    "retained": engine.retained,
                    "tokens_per_second": written / took,
                    "floor_seconds": least,
                    "floor_tokens_per_second": written / least,
                    "peak_gib": torch.cuda.max_memory_allocated() / 2**30,
                }
            )
            print({name: round(value, 3) for name, value in figures[-1].items()}, flush=True)
            if given.profile and merge:
                six_billion.profile(work, given.profile.with_suffix(f".{prompts}.txt"))
            engine.release()
            del engine
            torch.cuda.empty_cache()
    print(f"matrix rate {card.flops / 1e12:.0f} TFLOP/s, bandwidth {card.bandwidth / 1e12:.2f} TB/s")
    if given.out:
        ceilings = {"matrix_rate": card.flops, "bandwidth": card.bandwidth}
        six_billion.write(given.out, ceilings | {"workloads": figures})


if __name__ == "__main__":
    main()
