"""How fast the compiled engine samples from the 6B on one GPU, beside the floor that memory and arithmetic set.

    python benchmarks/generation_gpu.py --out runs/generation.json

Random bfloat16 weights of configs/model/6b.json, rank-16 adapters on all linear maps (merged, as PPO samples), random
prompts, answers of full length. Each workload runs once to warm up and then `--repeats` times; the best is shown. The
floor: prompts read at the card's measured matrix rate, every step reading the weights and the filled cache once at its
measured bandwidth; both ceilings are measured here, in the same run.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: import from this checkout, not from this folder or from an older install
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import torch
import transformers
from peft import LoraConfig, PeftModel
from transformers import LlamaConfig, LlamaForCausalLM

from finlm.compiled import CompiledEngine
from finlm.generation import Sampling

CHECKOUT = Path(__file__).resolve().parent.parent
WORKLOADS = ((96, 256, 256), (128, 256, 512))


def seconds(work: Any, repeats: int) -> float:
    """Return the least seconds of several runs, the GPU's work included."""
    found = []
    for _ in range(repeats):
        torch.cuda.synchronize()
        began = time.perf_counter()
        work()
        torch.cuda.synchronize()
        found.append(time.perf_counter() - began)
    return min(found)


def ceilings() -> tuple[float, float]:
    """Return the measured matrix rate (FLOP/s, bfloat16) and read bandwidth (bytes/s)."""
    left = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    right = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    for _ in range(3):
        left @ right
    rate = 10 * 2 * 8192**3 / seconds(lambda: [left @ right for _ in range(10)], 3)
    block = torch.randn(2**31 // 4, device="cuda")
    bandwidth = 10 * block.numel() * 4 / seconds(lambda: [block.sum() for _ in range(10)], 3)
    return rate, bandwidth


def build(config: LlamaConfig) -> PeftModel:
    """Return the model with random weights, made on the GPU, with a policy adapter that is not zero."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        base = LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    model = PeftModel(base, lora, adapter_name="policy").eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=1e-3)
    return model.requires_grad_(False)


def floor(config: LlamaConfig, prompts: int, read: int, write: int, rate: float, bandwidth: float) -> float:
    """Return the least seconds of a workload: prompts at the matrix rate, then weights and filled cache every step."""
    embedded = config.vocab_size * config.hidden_size
    layers = config.num_hidden_layers * (
        2 * config.hidden_size**2 * (1 + config.num_key_value_heads / config.num_attention_heads)
        + 3 * config.hidden_size * config.intermediate_size
    )
    head = config.hidden_size // config.num_attention_heads
    cache = 2 * 2 * config.num_hidden_layers * config.num_key_value_heads * head
    attention = 2 * read * config.hidden_size * config.num_hidden_layers  # causal: half of 4 D per pair of tokens
    prefill = prompts * read * (2 * layers + attention) / rate
    steps = [2 * (layers + embedded) + prompts * (read + step) * cache for step in range(write)]
    return float(prefill + sum(steps) / bandwidth)


def main() -> None:
    """Measure each workload and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--repeats", type=int, default=2, help="runs after the one to warm up (default: %(default)s)")
    parser.add_argument("--unmerged", action="store_true", help="also sample through the adapter itself")
    parser.add_argument("--workload", action="append", default=[], help="PROMPTSxREADxWRITE instead of the usual ones")
    parser.add_argument("--profile", type=Path, help="write a table of the step's kernels here")
    given = parser.parse_args()
    workloads = [tuple(map(int, text.split("x"))) for text in given.workload] or list(WORKLOADS)
    config = LlamaConfig.from_pretrained(CHECKOUT / "configs" / "model" / "6b.json")
    rate, bandwidth = ceilings()
    model = build(config)
    figures: list[dict[str, Any]] = []
    for merge in (True, False) if given.unmerged else (True,):
        for prompts, read, write in workloads:
            engine = CompiledEngine(model, slots=prompts, capacity=read + write, end=-1, pad=0, merge=merge)
            began = time.perf_counter()
            engine.refresh("policy")
            torch.cuda.synchronize()
            merging = time.perf_counter() - began
            generator = torch.Generator().manual_seed(1)
            ids = torch.randint(3, config.vocab_size, (prompts, read), generator=generator).tolist()
            sampling = Sampling(max_new_tokens=write, temperature=1.0)

            def work(engine: CompiledEngine = engine, ids: Any = ids, sampling: Sampling = sampling) -> Any:
                return engine.sample(ids, sampling, seed=0)

            first = seconds(work, 1)
            took = seconds(work, given.repeats)
            written = sum(len(answer.ids) for answer in work())
            least = floor(config, prompts, read, write, rate, bandwidth)
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
                profile(work, given.profile.with_suffix(f".{prompts}.txt"))
            engine.release()
            del engine
            torch.cuda.empty_cache()
    print(f"matrix rate {rate / 1e12:.0f} TFLOP/s, bandwidth {bandwidth / 1e12:.2f} TB/s")
    if given.out:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
        ).stdout.strip()
        given.out.write_text(
            json.dumps(
                {
                    "command": " ".join(["python", *sys.argv]),
                    "commit": commit,
                    "hardware": torch.cuda.get_device_name(),
                    "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
                    "figures": {"matrix_rate": rate, "bandwidth": bandwidth, "workloads": figures},
                },
                indent=2,
            )
            + "\n"
        )


def profile(work: Any, path: Path) -> None:
    """Write where the GPU's time goes."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    with profiler(activities=[ProfilerActivity.CUDA]) as measured:
        work()
        torch.cuda.synchronize()
    path.write_text(measured.key_averages().table(sort_by="cuda_time_total", row_limit=40, max_name_column_width=90))


if __name__ == "__main__":
    main()
