"""One PPO step of the 6B on one GPU, phase by phase, beside its floor; and TRL 1.12's step under the same conditions.

    python benchmarks/ppo_gpu.py --out runs/ppo_gpu.json                              ours
    python benchmarks/ppo_gpu.py --side trl --trl FOLDER --out runs/ppo_trl.json      TRL's, installed in FOLDER

Random bfloat16 weights of configs/model/6b.json made on the GPU, rank-16 adapters on all linear maps, both training
roles, one epoch, random prompts; answers run to full length and are counted in the tokens that were sampled. The first
step compiles and is shown apart; of the others the median counts. TRL 1.12 needs `pip install --no-deps --target FOLDER
trl==1.12.0` beside datasets; it takes three 6B models (policy and value model with
LoRA), checkpointing and micro-batches of four.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: import from this checkout, not from this folder or from an older install
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TRL_EXPERIMENTAL_SILENCE": "1", "CI": "1"}

import torch
from safetensors.torch import save_file

from benchmarks import six_billion
from benchmarks.clock import Clock
from benchmarks.six_billion import Ceilings, Work

WORKLOADS = ("64x256x256", "128x256x512")


# ---------------------------------------------------------------------------------------------------------- ours


def reward_folder(folder: Path, model: Any, tokenizer: Any) -> Path:
    """Write a reward model with small random adapters, as reward/train.py does."""
    from peft import PeftModel

    from finlm import scorer
    from finlm.tokenizer import tokenizer_fingerprint

    lora = six_billion.adapter()
    adapted = PeftModel(model, lora, adapter_name="reward")
    weights = {
        name.replace(".reward.", "."): (torch.randn_like(parameter) * 1e-3).contiguous()
        for name, parameter in adapted.named_parameters()
        if ".reward." in name
    }
    adapted.unload()
    folder.mkdir(parents=True)
    lora.base_model_name_or_path = "none"
    lora.target_modules = sorted(lora.target_modules)
    lora.save_pretrained(folder)
    save_file(weights, folder / "adapter_model.safetensors")
    head = scorer.fold(torch.randn(model.config.hidden_size) / model.config.hidden_size**0.5, mean=0.0, std=1.0)
    description = scorer.RewardDescription(
        mean=0.0, std=1.0, normalised_on="nothing", tokenizer=tokenizer_fingerprint(tokenizer)
    )
    scorer.save_description(folder, head, description)
    return folder


def count_phases(clock: Clock, trainer: Any) -> None:
    """Count the phases of our step where they begin and end."""
    from alignment import lessons, rollout

    def role(*_: Any) -> str:
        active, is_off = trainer.roles._switches[trainer.roles.sampled].state()[0]
        return "score reference" if is_off else f"score {active[0]}"

    clock.around(rollout, "log_probs", lambda *_: role() if not torch.is_grad_enabled() else "inside of an update")
    clock.around(rollout, "values", lambda *_: "score critic" if not torch.is_grad_enabled() else "inside of an update")
    clock.around(rollout, "scores", lambda *_: "score reward")
    clock.around(lessons, "of_policy", lambda *_: "policy update")
    clock.around(lessons, "of_critic", lambda *_: "critic update")
    engine = getattr(trainer.sampler, "engine", None)
    if engine is not None and hasattr(engine, "_read"):
        clock.around(engine, "_read", lambda *_: "prefill")
        clock.around(engine, "refresh", lambda *_: "merge")


def ours(given: argparse.Namespace, workload: tuple[int, int, int], card: Ceilings) -> dict[str, Any]:
    """Run our steps of one workload."""
    from alignment import ppo_log
    from alignment.ppo_trainer import PPOConfig, PPOTrainer
    from finlm import fused_layers, unpadded

    count, read, write = workload
    config = six_billion.shape(given.shape)
    model = fused_layers.install(unpadded.install(six_billion.random_model(config)))
    tokenizer = six_billion.tokenizer(config)
    with tempfile.TemporaryDirectory() as folder:
        settings = PPOConfig(
            output_dir=f"{folder}/ppo",
            total_episodes=1_000_000,
            per_device_train_batch_size=given.micro_batch,
            gradient_accumulation_steps=count // given.micro_batch,
            num_mini_batches=1,
            num_ppo_epochs=1,
            local_rollout_forward_batch_size=count,
            response_length=write,
            max_prompt_length=read,
            warmup_updates=0,
            save_steps=1_000_000,
            **dict(pair.split("=", 1) for pair in given.set),
        )
        reward = reward_folder(Path(folder) / "reward", model, tokenizer)
        rows = [{"input_ids": ids} for ids in six_billion.prompts(config, count * (given.steps + 2), read)]
        trainer = PPOTrainer(
            args=settings,
            processing_class=tokenizer,
            model=model,
            ref_model=None,
            reward_model=reward,
            train_dataset=rows,
            peft_config=six_billion.adapter(),
        )
        clock, steps = Clock(), []
        count_phases(clock, trainer)
        with ppo_log.Journal(Path(folder) / "ppo") as journal:
            for number in range(given.steps + 1):
                if torch.cuda.is_available():
                    torch.cuda.reset_peak_memory_stats()
                began = time.perf_counter()
                metrics = trainer.update(journal)
                six_billion.synchronize()
                took = time.perf_counter() - began
                phases = clock.take()
                phases.pop("inside of an update", None)
                sampling = metrics["perf/sample_seconds"]
                phases["decode"] = sampling - phases.get("prefill", 0.0) - phases.get("merge", 0.0)
                phases["rest"] = took - sum(phases.values())
                peak = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0
                steps.append({"seconds": took, "peak_gib": peak, "phases": phases, "metrics": metrics})
                print(f"step {number}: {took:.2f} s, peak {peak:.1f} GiB", {k: round(v, 2) for k, v in phases.items()})
                print({k: round(v, 4) for k, v in metrics.items() if k.startswith(("perf", "rollout/", "val/ratio"))})
                sys.stdout.flush()
        if given.profile:
            six_billion.profile(lambda: trainer.update(ppo_log.Journal(Path(folder) / "ppo")), given.profile)
    return result(steps, workload, card)


# ---------------------------------------------------------------------------------------------------- TRL 1.12


def trl(given: argparse.Namespace, workload: tuple[int, int, int], card: Ceilings) -> dict[str, Any]:
    """Run TRL 1.12's steps of one workload, timed from one log to the next."""
    sys.path.insert(0, str(given.trl))
    from datasets import Dataset
    from peft import get_peft_model, inject_adapter_in_model
    from transformers import LlamaForSequenceClassification, TrainerCallback
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    count, read, write = workload
    config = six_billion.shape(given.shape)
    tokenizer = six_billion.tokenizer(config)
    policy = get_peft_model(six_billion.random_model(config), six_billion.adapter())
    readers = []
    for _ in range(2):
        config.num_labels = 1
        readers.append(six_billion.random_model(config, LlamaForSequenceClassification))
    readers[1] = inject_adapter_in_model(six_billion.adapter(), readers[1])  # TRL wants a model of this very class
    readers[1].score.requires_grad_(True)
    settings = PPOConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=4,
        gradient_accumulation_steps=count // 4,
        num_mini_batches=1,
        num_ppo_epochs=1,
        local_rollout_forward_batch_size=4 if count < 64 else 16,
        total_episodes=count * (given.steps + 1),
        response_length=write,
        bf16=torch.cuda.is_available(),
        use_cpu=not torch.cuda.is_available(),
        gradient_checkpointing=True,
        num_sample_generations=0,
        report_to=[],
        save_strategy="no",
        logging_steps=1,
    )
    steps: list[dict[str, Any]] = []

    class Timer(TrainerCallback):
        began = time.perf_counter()

        def on_log(self, *_: Any, **__: Any) -> None:
            six_billion.synchronize()
            now = time.perf_counter()
            peak = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0
            steps.append({"seconds": now - self.began, "peak_gib": peak, "phases": {}})
            print(f"TRL step {len(steps) - 1}: {steps[-1]['seconds']:.2f} s, peak {peak:.1f} GiB", flush=True)
            self.began = now

    rows = Dataset.from_dict({"input_ids": six_billion.prompts(config, count * (given.steps + 1), read)})
    trainer = PPOTrainer(
        args=settings,
        processing_class=tokenizer,
        model=policy,
        ref_model=None,
        reward_model=readers[0],
        value_model=readers[1],
        train_dataset=rows,
        eval_dataset=rows.select(range(4)),
        callbacks=[timer := Timer()],
    )
    six_billion.synchronize()
    timer.began = time.perf_counter()
    trainer.train()
    return result(steps, workload, card)


# ------------------------------------------------------------------------------------------------------- results


def result(steps: list[dict[str, Any]], workload: tuple[int, int, int], card: Ceilings) -> dict[str, Any]:
    """Return the figures of one workload; the first step is left out where there are others."""
    count, read, write = workload
    later = steps[1:] or steps
    seconds = statistics.median(step["seconds"] for step in later)
    floor = Work.of(six_billion.shape(SHAPE)).ppo_seconds(count, read, write, card)
    middle = min(later, key=lambda step: abs(step["seconds"] - seconds))
    return {
        "workload": f"{count}x{read}x{write}",
        "seconds": seconds,
        "first_seconds": steps[0]["seconds"],
        "all_seconds": [step["seconds"] for step in later],
        "tokens_per_second": count * (read + write) / seconds,
        "floor_seconds": sum(floor.values()),
        "floor_share": sum(floor.values()) / seconds,
        "floor": floor,
        "phases": middle["phases"],
        "peak_gib": max(step["peak_gib"] for step in steps),
        "metrics": middle.get("metrics", {}),
    }


def table(found: list[dict[str, Any]]) -> str:
    """Return phase, seconds, floor of each workload as a Markdown table."""
    lines = []
    for item in found:
        lines += [f"\n{item['workload']}: {item['seconds']:.2f} s, {item['tokens_per_second']:,.0f} tokens/s, "]
        lines[-1] += f"floor {item['floor_seconds']:.2f} s ({item['floor_share']:.0%}), peak {item['peak_gib']:.1f} GiB"
        if item["phases"]:
            lines += ["", "| phase | seconds | floor |", "|---|---|---|"]
            for name in sorted(item["phases"], key=lambda name: -item["phases"][name]):
                floor = item["floor"].get(name)
                lines.append(f"| {name} | {item['phases'][name]:.2f} | {'' if floor is None else f'{floor:.2f}'} |")
    return "\n".join(lines)


def main() -> None:
    """Measure each workload, print a table, write a file."""
    global SHAPE
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", choices=("ours", "trl"), default="ours", help="whose step (default: %(default)s)")
    parser.add_argument("--trl", type=Path, help="folder that TRL 1.12 was installed in")
    parser.add_argument("--shape", default="6b", help="6b, or tiny to try the script (default: %(default)s)")
    parser.add_argument("--workload", action="append", default=[], help="ANSWERSxPROMPTxANSWER tokens")
    parser.add_argument("--steps", type=int, default=2, help="steps after the first (default: %(default)s)")
    parser.add_argument("--micro-batch", type=int, default=16, help="answers per forward pass (default: %(default)s)")
    parser.add_argument("--set", action="append", default=[], help="NAME=VALUE of PPOConfig, text settings only")
    parser.add_argument("--profile", type=Path, help="write a table of one more step's kernels here")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    given = parser.parse_args()
    SHAPE = given.shape
    card = six_billion.ceilings()
    print(f"matrix rate {card.flops / 1e12:.0f} TFLOP/s, bandwidth {card.bandwidth / 1e12:.2f} TB/s", flush=True)
    found = []
    for text in given.workload or WORKLOADS:
        workload = tuple(map(int, text.split("x")))
        found.append((ours if given.side == "ours" else trl)(given, workload, card))
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if given.out:
            ceilings = {"matrix_rate": card.flops, "bandwidth": card.bandwidth}
            six_billion.write(given.out, ceilings | {"side": given.side, "workloads": found})
    print(table(found))


SHAPE = "6b"

if __name__ == "__main__":
    main()
