"""What text beside instructions keeps from being forgotten, and what moving shares bring: SmolLM2-135M, three arms.

    python benchmarks/sft_forgetting.py --data FOLDER --out benchmarks/results/sft_forgetting_X.json

FOLDER has `instructions/` and `corpus/`; a file whose name begins with `fin_` is finance, any other general. The arms
see about the same instruction tokens, a step each of the same rows:

- `instructions`: no text, and as many steps less;
- `mixed`: four streams in fixed shares;
- `moving`: the same, and after each round the shares follow the held-out losses.

All weights learn: rank-16 adapters at the same learning rate forgot nothing in any arm, so there was nothing to keep.
Held-out losses are of the same samples in every arm, by stream and language, before the first step and after the last.
They are printed, and written as JSON, as a page and as curves; the page of a run with the others beside it lies in
`--runs`. `--set ARM.NAME=VALUE` changes a setting of one arm, `--set all.NAME=VALUE` of every arm. Each arm is a
process of its own with a log in `--runs`; `--parallel` runs them at once, spread over the GPUs. `--gather` runs none of
them: arms that were cut off are compared at the last evaluation that all of them reached, which is one of the same
instruction tokens.
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

from benchmarks import forgetting_page
from benchmarks.six_billion import describe
from benchmarks.stages import changes_for, run_stage
from finlm.embedded import EMBEDDED
from finlm.model import resolve_model
from finlm.sft_page import write_sft_page
from finlm.sft_records import HeldOutLoss, is_text, read_held_out, read_mixture

SHARES = {"text-general": 0.2, "text-finance": 0.2, "instructions-general": 0.4, "instructions-finance": 0.2}
"""Of all tokens, where there is text."""
ARMS = ("instructions", "mixed", "moving")
LEARNING_RATE = 1e-3
"""The one that SmolLM2's authors fine-tuned all weights of their smallest model with."""
ROUNDS = 6
"""Evaluations of an arm after the first; moving shares move at each but the last."""


def files(data: Path) -> dict[str, list[str]]:
    """Return the files of each stream; readme and word lists are none."""
    found: dict[str, list[str]] = {name: [] for name in SHARES}
    for kind, folder in (("text", "corpus"), ("instructions", "instructions")):
        for path in sorted((data / folder).iterdir()):
            if ".jsonl" in path.name or (path.name.endswith((".txt", ".txt.xz")) and path.name.startswith("gen_")):
                found[f"{kind}-{'finance' if path.name.startswith('fin_') else 'general'}"].append(str(path))
    return found


def shares_of(arm: str) -> dict[str, float]:
    """Return the arm's first shares."""
    if arm != "instructions":
        return SHARES
    rest = sum(share for name, share in SHARES.items() if not is_text(name))
    return {name: 0.0 if is_text(name) else share / rest for name, share in SHARES.items()}


def steps_of(arm: str, steps: int) -> int:
    """Return the arm's steps: as many rows less as it has no text, to a multiple of the rounds."""
    rest = sum(share for name, share in SHARES.items() if not is_text(name))
    return round(steps * (rest if arm == "instructions" else 1) / ROUNDS) * ROUNDS


def flags(arm: str, streams: dict[str, list[str]], steps: int) -> list[str]:
    """Return the settings of an arm."""
    every = steps_of(arm, steps) // ROUNDS
    names = {name: name.replace("-", "_") for name in SHARES}
    found = [f"--{names[name]}={json.dumps(its)}" for name, its in streams.items()]
    found += [f"--shares.{names[name]}={share}" for name, share in shares_of(arm).items()]
    found += [f"--steps={steps_of(arm, steps)}", f"--held_out.every={every}", f"--save_steps={steps}"]
    return [*found, f"--mixture.every={every if arm == 'moving' else 0}"]


def settings_of(given: argparse.Namespace, arm: str) -> list[str]:
    """Return the flags of `finlm sft` for an arm."""
    common = [
        "--tune=full", f"--learning_rate={LEARNING_RATE}", "--max_length=2048", '--forms=[""]',
        f"--batch_size={given.rows}", f"--micro_batch={min(given.rows, 8)}",
        "--test_share=0.1", f"--held_out.samples={given.samples}", f"--cache={given.runs}/cache",
        "--trainer", '{"report_to": "none", "gradient_checkpointing": false}',
    ]  # fmt: skip
    changes = [*common, *flags(arm, files(given.data), given.steps), f"--output={given.runs}/{arm}"]
    return [*changes, *changes_for("all", given.set), *changes_for(arm, given.set)]


def in_a_process(arm: str, place: int, runs: Path) -> "subprocess.Popen[bytes]":
    """Start an arm on one of the GPUs; what it prints goes to its log.

    Args:
        arm: Its name.
        place: Its number, which chooses the GPU.
        runs: Folder of the log.
    """
    gpu = {"CUDA_VISIBLE_DEVICES": str(place % torch.cuda.device_count())} if torch.cuda.is_available() else {}
    runs.mkdir(parents=True, exist_ok=True)
    with (runs / f"{arm}.log").open("wb") as log:
        command = [sys.executable, *sys.argv, "--arm", arm]
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=os.environ | gpu)


def run_arms(given: argparse.Namespace) -> None:
    """Run all arms to their ends; one that fails ends the benchmark with the end of its log."""
    resolve_model(EMBEDDED, str(given.runs))  # made once, before three of them would make it at once
    started: dict[str, subprocess.Popen[bytes]] = {}
    for place, arm in enumerate(ARMS):
        started[arm] = in_a_process(arm, place, given.runs)
        if not given.parallel:
            started[arm].wait()
    for arm, process in started.items():
        if process.wait():
            log = (given.runs / f"{arm}.log").read_text(encoding="utf-8", errors="replace")
            sys.exit(f"arm {arm} ended with code {process.returncode}; its log ends:\n{log[-3000:]}")
        print(f"arm {arm} is done", flush=True)


# ---------------------------------------------------------------------------------------------- what came of it


def losses(one: HeldOutLoss) -> dict[str, float]:
    """Return an evaluation's losses by stream and language, and the mean of general text and of answers by language."""
    found = {f"{its.stream} {its.language}".strip(): its.loss for its in one.categories}
    for language in sorted({its.language for its in one.categories}):
        answers = [its for its in one.categories if its.language == language and not is_text(its.stream)]
        tokens = sum(its.tokens for its in answers)
        if tokens:
            found[f"answers {language}".strip()] = sum(its.loss * its.tokens for its in answers) / tokens
    general = one.of("text-general")
    return found | ({"text-general": general} if general is not None else {})


def reached(runs: Path) -> int:
    """Return the last evaluation that every arm came to, counted from 1.

    Raises:
        SystemExit: An arm has none.
    """
    found = {arm: len(read_held_out(runs / arm)) - 1 for arm in ARMS}
    least = min(found, key=found.__getitem__)
    if found[least] < 1:
        sys.exit(f"arm {least} in {runs} has no evaluation behind its first step, so there is nothing to compare.")
    return found[least]


def figures_of_arm(run: Path, rows: int, evaluations: int = ROUNDS) -> dict[str, Any]:
    """Return what one arm had come to at an evaluation.

    Args:
        run: Its folder.
        rows: Packed rows of a step.
        evaluations: The evaluation, counted from 1; what was drawn until then is its steps' part of what was drawn.
    """
    history, mixed = read_held_out(run)[: evaluations + 1], read_mixture(run)
    assert mixed is not None
    # a run that was cut off may have drawn ahead: rounds that begin later, and rows of the last one
    begun = [one for one in mixed.rounds if one.first_step < history[-1].step]
    part = history[-1].step * rows / mixed.rows
    drawn: dict[str, dict[str, int]] = {}
    for name in SHARES:
        rounds = [one.drawn[name] for one in begun if name in one.drawn]
        drawn[name] = {
            "tokens": round(part * sum(one.tokens for one in rounds)),
            "learned": round(part * sum(one.learned for one in rounds)),
        }
    return {
        "before": losses(history[0]),
        "after": losses(history[-1]),
        "curve": [{"step": one.step, "tokens": one.step * rows * mixed.row_tokens} | losses(one) for one in history],
        "drawn": drawn,
        "instruction_tokens": sum(its["tokens"] for name, its in drawn.items() if not is_text(name)),
        "rounds": [{"step": one.first_step, "shares": one.shares, "reasons": one.reasons} for one in begun],
        "filled": mixed.filled,
    }


def seconds_of(path: Path) -> float | None:
    """Return how long an arm took; None of one that was cut off."""
    return float(path.read_text()) if path.is_file() else None


def rises(arm: dict[str, Any]) -> dict[str, float]:
    """Return how much each held-out loss rose, nats."""
    return {name: after - arm["before"][name] for name, after in arm["after"].items()}


def verdicts(arms: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return what the arms are compared by.

    The worst category is the one with the largest held-out loss after the arm of fixed shares.
    """
    changed = {name: rises(arm) for name, arm in arms.items()}
    fixed, moving = arms["mixed"]["after"], arms["moving"]["after"]
    worst = max((name for name in fixed if " " in name and not name.startswith("answers")), key=fixed.__getitem__)
    general = [name for name in fixed if name.split(" ")[0] == "text-general"]
    return {
        "answers_rise": {
            name: {key: rise for key, rise in its.items() if key.startswith("answers")} for name, its in changed.items()
        },
        "general_text_rise": {name: {key: its[key] for key in general} for name, its in changed.items()},
        "worst_category": {"name": worst, "mixed": fixed[worst], "moving": moving[worst]},
    }


def main() -> None:
    """Run the arms, print and write what came of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with instructions/ and corpus/")
    parser.add_argument("--runs", type=Path, default=Path("runs/forgetting"), help="folder (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of all arms (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=240, help="optimizer steps with text (default: %(default)s)")
    parser.add_argument("--rows", type=int, default=16, help="packed rows of 2048 a step (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=128, help="held-out samples a stream (default: %(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="ARM.NAME=VALUE", help="change a setting")
    parser.add_argument("--out", type=Path, help="JSON file to write; .md and .svg go beside it")
    parser.add_argument("--parallel", action="store_true", help="all arms at once")
    parser.add_argument("--gather", action="store_true", help="compare what --runs holds, cut-off arms too")
    parser.add_argument("--arm", choices=ARMS, help="run this one alone and write no result")
    given = parser.parse_args()
    if given.arm:
        began = time.perf_counter()
        run_stage("sft", given.runs, given.seed, settings_of(given, given.arm))
        (given.runs / f"{given.arm}.seconds").write_text(f"{time.perf_counter() - began:.1f}")
        return
    if not given.gather:
        run_arms(given)
    evaluations = reached(given.runs)
    seconds = {arm: seconds_of(given.runs / f"{arm}.seconds") for arm in ARMS}
    arms = {arm: figures_of_arm(given.runs / arm, given.rows, evaluations) for arm in ARMS}
    figures = {
        "seconds": seconds,
        "parallel": given.parallel,
        "evaluations": evaluations,
        "evaluations_planned": ROUNDS,
        **verdicts(arms),
        "arms": arms,
    }
    write_sft_page(
        given.runs / "mixed", given.runs / "report.html", [given.runs / arm for arm in ARMS if arm != "mixed"]
    )
    print(json.dumps({name: its for name, its in figures.items() if name != "arms"}, indent=1))
    if given.out:
        forgetting_page.write(given.out, describe(), figures)


if __name__ == "__main__":
    main()
