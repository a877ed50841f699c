"""PPO on what people preferred: SmolLM2-135M against a reward model of real preferences, judged by a second one.

    python benchmarks/human_ppo.py --preferences FOLDER --runs runs/human --out benchmarks/results/human_ppo_X.json

FOLDER holds published preferences as `finlm annotate import` reads them (hh_harmless, oasst_en_trees, finegrained). The
groups are split in three by their names: held out, and two halves. A short SFT on the better answers that are short
enough teaches the chat format; one reward model learns from each half; PPO follows the first on the training prompts,
and every 21 updates the same held-out prompts are answered and scored by both. What came of it is printed, and
written as JSON, as a page and as curves (benchmarks/human_page.py).

Against length: in the two halves of these sets the longer answer is the better one in 54 % and 48 % of the pairs, an
answer that does not end within `response_length` costs one unit of score (missing_eos_penalty). Against
shortness: these reward models like answers of a few tokens, which they never learned from (an empty one has +1 where
SFT's mean is -0.5); each token fewer than 32 costs 0.03 (short_penalty).
"""

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Iterable
from pathlib import Path

if not __package__:  # run as a file: import from this checkout, not from this folder or from an older install
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from benchmarks import human_page
from benchmarks.human_figures import figures_of
from benchmarks.six_billion import describe
from benchmarks.stages import changes_for, run_stage
from finlm import jsonl
from finlm.data import is_held_out
from finlm.ppo_records import read_guards
from finlm.records import Conversation, Message, PreferencePair, Prompt, content_id
from finlm.rollout_page import write_rollout_page

TEST_SHARE = 0.2


def is_first_half(prompt: Prompt) -> bool:
    """True if the reward model that PPO follows may learn from the prompt's group."""
    return int(content_id("half", prompt.group), 16) % 2 == 0


def prepare(root: Path, longest: int, longest_answer: int, most_held_out: int) -> dict[str, int]:
    """Split the preferences, and write what each stage reads.

    Args:
        root: Folder with `preferences.jsonl`.
        longest: Characters of a prompt at most.
        longest_answer: Characters of an answer that SFT learns at most: PPO cuts answers off, so that what SFT taught
            to be longer would be fought as missing ends and pass for better answers.
        most_held_out: Held-out prompts at most.

    Returns:
        What there is of each.
    """
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
    instructions = better_answers(pairs, longest_answer)
    jsonl.write(root / "instructions.jsonl", instructions)
    jsonl.write(root / "prompts.jsonl", prompts_of(training))
    candidates = prompts_of(held_out)
    tested = random.Random(0).sample(candidates, min(most_held_out, len(candidates)))
    jsonl.write(root / "held_out.jsonl", tested)
    counts = {"pairs": len(everything), "too_long": len(everything) - len(pairs), "instructions": len(instructions)}
    counts |= {"training_prompts": len(prompts_of(training)), "held_out_prompts": len(tested)}
    return counts | {f"pairs_{name}": len(half) for name, half in halves.items()} | {"held_out_pairs": len(held_out)}


def prompts_of(pairs: Iterable[PreferencePair]) -> list[Prompt]:
    """Return each prompt once."""
    return list({pair.prompt.id: pair.prompt for pair in pairs}.values())


def better_answers(pairs: Iterable[PreferencePair], longest: int) -> list[Conversation]:
    """Return prompts with an answer of `longest` characters or less that beat another, drawn by the prompt's id.

    Those of held-out groups are among them: they test SFT's loss, and SFT does not learn them.
    """
    chosen: dict[str, list[PreferencePair]] = {}
    for pair in pairs:
        if pair.strength and len(pair.chosen) <= longest:
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


def main() -> None:
    """Run all stages, print and write what came of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preferences", required=True, help="folder of published preferences")
    parser.add_argument("--runs", type=Path, default=Path("runs/human"), help="folder (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of all stages (default: %(default)s)")
    parser.add_argument("--longest", type=int, default=1600, help="characters of a prompt (default: %(default)s)")
    parser.add_argument("--longest-answer", type=int, default=400, help="of an answer to learn (default: %(default)s)")
    parser.add_argument("--held-out", type=int, default=400, help="held-out prompts (default: %(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="STAGE.NAME=VALUE", help="change a setting")
    parser.add_argument("--out", type=Path, help="JSON file to write; .md and .svg go beside it")
    given = parser.parse_args()
    root, seconds, stopped = given.runs, {}, ""

    def stage(name: str, *changes: str, label: str = "") -> None:
        flags, began = [*changes, *changes_for(label or name, given.set)], time.perf_counter()
        try:
            run_stage(name, root, given.seed, flags)
        finally:
            seconds[label or name] = round(time.perf_counter() - began, 1)

    stage("import", "--input", given.preferences)
    counts = prepare(root, given.longest, given.longest_answer, given.held_out)
    print(counts, flush=True)
    every_layer = '{"r": 16, "lora_alpha": 32, "target_modules": "all-linear"}'
    share, no_checkpointing = f"--test_share={TEST_SHARE}", '{"report_to": "none", "gradient_checkpointing": false}'
    common = ["--lora", every_layer, share, "--max_length=768", "--micro_batch=32", "--trainer", no_checkpointing]
    stage(
        "sft", *common, "--instructions_general", f'["{root}/instructions.jsonl"]', "--instructions_finance", "[]",
        "--text_general", "[]", "--text_finance", "[]", "--shares.instructions_general=1", "--shares.text_general=0",
        "--shares.text_finance=0", "--shares.instructions_finance=0", '--forms=[""]', "--steps=60", "--batch_size=8",
        "--micro_batch=8", "--learning_rate=5e-4", "--held_out.samples=64", "--save_steps=60",
    )  # fmt: skip
    reward = [*common, "--batch_size=32", "--learning_rate=2e-4", "--test_pairs=600", "--normalise_on=256"]
    reward += [f"--candidates={root}/none.jsonl", "--save_steps=1000"]
    for label, half in (("reward", "first"), ("independent", "second")):
        preferences = f"--preferences={root}/preferences-{half}.jsonl"
        stage("reward", *reward, "--steps=60", preferences, f"--output={root}/{label}", label=label)
    try:
        stage(
            "ppo", "--lora", every_layer, f"--prompts={root}/prompts.jsonl", f"--held_out={root}/held_out.jsonl",
            f"--anchor={root}/independent", "--total_episodes=13440", "--per_device_train_batch_size=128",
            "--gradient_accumulation_steps=1", "--num_ppo_epochs=2", "--local_rollout_forward_batch_size=128",
            "--response_length=96", "--max_prompt_length=512", "--learning_rate=1e-4", "--critic_learning_rate=1e-4",
            "--warmup_updates=5", "--critic_warmup_updates=5", "--anneal=linear", "--kl_coef=0.05",
            "--missing_eos_penalty=1.0", "--short_penalty=0.03", "--short_penalty_below=32", "--save_steps=105",
            "--policy_steps=21", "--evaluation.every=21", "--evaluation.batch_size=128", "--guards.acts=true",
        )  # fmt: skip
    except SystemExit as ended:
        if ended.code != 2:
            raise
        # a guard ends a run that goes wrong: what was measured until then is the result
        stopped = read_guards(root / "ppo")[-1].sentence
    figures = {"counts": counts, "seconds": seconds, "stopped": stopped, **figures_of(root)}
    print(json.dumps(figures, indent=1))
    write_rollout_page(root / "ppo", root / "report.html")
    if given.out:
        human_page.write(given.out, describe(), figures, root)


if __name__ == "__main__":
    main()
