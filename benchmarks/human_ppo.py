"""PPO on what people preferred: SmolLM2-135M against a reward model of real preferences, judged by a second one.

    python benchmarks/human_ppo.py --preferences FOLDER --runs runs/human --out runs/human.json

FOLDER holds published preferences as `finlm annotate import` reads them (hh_harmless, oasst_en_trees, finegrained). The
groups are split in three by their names: held out, and two halves. A short SFT on the better answers teaches the chat
format; one reward model learns from each half; PPO follows the first on the training prompts, and every twenty updates
the same held-out prompts are answered and scored by both. Printed are, of the last evaluation minus the first, the mean
over prompts with a 95 % bootstrap interval, for the reward model that was followed and for the independent one.
"""

import argparse
import json
import os
import random
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: import from this checkout, not from this folder or from an older install
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from benchmarks import six_billion
from benchmarks.stages import changes_for, run_stage
from finlm import jsonl, ppo_records
from finlm.data import is_held_out, spread
from finlm.evaluation import bootstrap
from finlm.ppo_records import HeldOutRecord
from finlm.records import Conversation, Message, PreferencePair, Prompt, content_id
from finlm.rollout_page import write_rollout_page

TEST_SHARE = 0.2


def is_first_half(prompt: Prompt) -> bool:
    """True if the reward model that PPO follows may learn from the prompt's group."""
    return int(content_id("half", prompt.group), 16) % 2 == 0


def prepare(root: Path, longest: int, most_held_out: int) -> dict[str, int]:
    """Split the preferences, and write what each stage reads; `longest` bounds prompts, in characters."""
    everything = list(jsonl.read(root / "preferences.jsonl", PreferencePair))
    pairs = [pair for pair in everything if sum(len(turn.content) for turn in pair.prompt.messages) <= longest]
    held_out = [pair for pair in pairs if is_held_out(pair.prompt, test_share=TEST_SHARE)]
    training = [pair for pair in pairs if not is_held_out(pair.prompt, test_share=TEST_SHARE)]
    halves = {
        "first": [pair for pair in training if is_first_half(pair.prompt)],
        "second": [pair for pair in training if not is_first_half(pair.prompt)],
    }
    for name, half in halves.items():
        jsonl.write(root / f"preferences-{name}.jsonl", [*half, *held_out])
    jsonl.write(root / "instructions.jsonl", better_answers(pairs))
    jsonl.write(root / "prompts.jsonl", prompts_of(training))
    tested = spread(prompts_of(held_out), most_held_out, seed=0)
    jsonl.write(root / "held_out.jsonl", tested)
    counts = {"pairs": len(everything), "too_long": len(everything) - len(pairs), "held_out_prompts": len(tested)}
    return counts | {f"pairs_{name}": len(half) for name, half in halves.items()} | {"held_out_pairs": len(held_out)}


def prompts_of(pairs: Iterable[PreferencePair]) -> list[Prompt]:
    """Return each prompt once."""
    return list({pair.prompt.id: pair.prompt for pair in pairs}.values())


def better_answers(pairs: Iterable[PreferencePair]) -> list[Conversation]:
    """Return every prompt with an answer that beat another, drawn by the prompt's id; held-out ones test SFT's loss."""
    chosen: dict[str, list[PreferencePair]] = {}
    for pair in pairs:
        if pair.strength:
            chosen.setdefault(pair.prompt.id, []).append(pair)
    picked = [random.Random(int(name, 16)).choice(its) for name, its in chosen.items()]
    return [
        Conversation(
            messages=(*pair.prompt.messages, Message(role="assistant", content=pair.chosen)),
            category=pair.prompt.category,
            language=pair.prompt.language,
            group=pair.prompt.group,
            provenance=pair.provenance,
        )
        for pair in picked
    ]


def difference(first: tuple[float, ...], last: tuple[float, ...]) -> dict[str, float]:
    """Return the mean over prompts of last minus first, with its 95 % interval."""
    found = bootstrap([after - before for before, after in zip(first, last, strict=True)], seed=0)
    return {"mean": found.mean, "low": found.low, "high": found.high}


def figures_of(root: Path) -> dict[str, Any]:
    """Return what the run's evaluations and the reward models' tests say."""
    records = sorted(jsonl.read(root / "ppo" / ppo_records.HELD_OUT, HeldOutRecord), key=lambda one: one.update)
    first, last = records[0], records[-1]
    rose = [after > before for before, after in zip(first.rewards, last.rewards, strict=True)]
    anchored = [after > before for before, after in zip(first.anchors, last.anchors, strict=True)]
    return {
        "updates": last.update,
        "held_out_prompts": len(last.rewards),
        "reward_gain": difference(first.rewards, last.rewards),
        "independent_gain": difference(first.anchors, last.anchors),
        "agreement_in_sign": sum(one == other for one, other in zip(rose, anchored, strict=True)) / len(rose),
        "kl_nats": last.kl_nats,
        "tokens": [first.tokens, last.tokens],
        "ended": [first.ended, last.ended],
        "reward_accuracy": accuracy(root / "reward"),
        "independent_accuracy": accuracy(root / "independent"),
        "curve": [
            {"update": one.update, "reward": one.reward, "independent": one.anchor, "kl_nats": one.kl_nats,
             "tokens": one.tokens, "ended": one.ended}
            for one in records
        ],
    }  # fmt: skip


def accuracy(folder: Path) -> dict[str, float]:
    """Return a reward model's accuracy on the held-out pairs, and that of preferring the longer answer."""
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return {name: report[name] for name in ("test_accuracy", "longer_accuracy", "test_pairs")}


def main() -> None:
    """Run all stages, print and write what came of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preferences", required=True, help="folder of published preferences")
    parser.add_argument("--runs", type=Path, default=Path("runs/human"), help="folder (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of all stages (default: %(default)s)")
    parser.add_argument("--longest", type=int, default=1200, help="characters of a prompt (default: %(default)s)")
    parser.add_argument("--held-out", type=int, default=256, help="held-out prompts (default: %(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="STAGE.NAME=VALUE", help="change a setting")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    given = parser.parse_args()
    root, seconds = given.runs, {}

    def stage(name: str, *changes: str, label: str = "") -> None:
        flags = [*changes, *changes_for(label or name, given.set)]
        seconds[label or name] = run_stage(name, root, given.seed, flags)

    stage("import", "--input", given.preferences)
    counts = prepare(root, given.longest, given.held_out)
    print(counts, flush=True)
    every_layer = '{"r": 16, "lora_alpha": 32, "target_modules": "all-linear"}'
    share, no_checkpointing = f"--test_share={TEST_SHARE}", '{"report_to": "none", "gradient_checkpointing": false}'
    common = ["--lora", every_layer, share, "--max_length=768", "--micro_batch=16", "--trainer", no_checkpointing]
    stage(
        "sft", *common, "--instructions", f'["{root}/instructions.jsonl"]', "--text", "[]", "--text_share=0",
        '--forms=[""]', "--steps=60", "--batch_size=32", "--learning_rate=5e-4", "--test_rows=64", "--save_steps=60",
    )  # fmt: skip
    reward = [*common, "--batch_size=32", "--learning_rate=2e-4", "--test_pairs=600", "--normalise_on=256"]
    reward += [f"--candidates={root}/none.jsonl", "--save_steps=1000"]
    for label, half in (("reward", "first"), ("independent", "second")):
        preferences = f"--preferences={root}/preferences-{half}.jsonl"
        stage("reward", *reward, "--steps=120", preferences, f"--output={root}/{label}", label=label)
    stage(
        "ppo", "--lora", every_layer, f"--prompts={root}/prompts.jsonl", f"--held_out={root}/held_out.jsonl",
        f"--anchor={root}/independent", "--total_episodes=7680", "--per_device_train_batch_size=32",
        "--gradient_accumulation_steps=2", "--num_ppo_epochs=2", "--local_rollout_forward_batch_size=64",
        "--response_length=96", "--max_prompt_length=512", "--learning_rate=1e-4", "--critic_learning_rate=1e-4",
        "--warmup_updates=5", "--anneal=linear", "--kl_coef=0.05", "--missing_eos_penalty=1.0", "--save_steps=60",
        "--policy_steps=20", "--evaluation.every=20", "--evaluation.batch_size=128", "--guards.acts=true",
    )  # fmt: skip
    figures = {"counts": counts, "seconds": {name: round(took, 1) for name, took in seconds.items()}}
    figures |= figures_of(root)
    print(json.dumps(figures, indent=1))
    write_rollout_page(root / "ppo", root / "report.html")
    if given.out:
        six_billion.write(given.out, figures)


if __name__ == "__main__":
    main()
