"""Does PPO raise the reward without harm? The demo's stages over several seeds, judged on many held-out prompts.

    python benchmarks/ppo_evidence.py --runs runs/evidence --seeds 0 1 2 --limit 240

Prints one row per seed and model: reward, its difference to SFT with a 95 % bootstrap interval over prompts, right and
ended answers, KL per answer. `--set ppo.learning_rate=1e-4` changes a stage's setting. All stages run in this process.
"""

import argparse
import json
import os
import shutil
import sys
from pathlib import Path

if not __package__:  # run as a file: import from this checkout, not from this folder or from an older install
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from benchmarks.stages import STAGES, changes_for, run_stage


def rows_of(root: Path, seed: int) -> list[str]:
    """Return the table rows of one seed."""
    summary = json.loads((root / "evaluation" / "summary.json").read_text(encoding="utf-8"))
    rows = []
    for name, figures in summary.items():
        gain = figures.get("reward_gain")
        interval = f"{gain['mean']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]" if gain else ""
        cells = [str(seed), name, str(figures["answers"]), f"{figures['reward']:+.3f}", interval]
        cells += [f"{figures[key]:.3f}" for key in ("right", "ended")] + [f"{figures['tokens']:.1f}"]
        cells += [f"{figures.get('kl_nats', 0):.2f}", f"{figures.get('choice_accuracy', 0):.3f}"]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def main() -> None:
    """Run every seed, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--runs", type=Path, default=Path("runs/evidence"), help="folder of all seeds (default: %(default)s)"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds (default: %(default)s)")
    parser.add_argument("--limit", type=int, default=240, help="held-out prompts (default: %(default)s)")
    parser.add_argument("--selfqa", type=Path, help="finished Self-QA folder to take instead of running that stage")
    parser.add_argument("--set", action="append", default=[], metavar="STAGE.NAME=VALUE", help="change a setting")
    given = parser.parse_args()
    rows, seconds = [], []
    for seed in given.seeds:
        root = given.runs / f"seed-{seed}"
        root.mkdir(parents=True, exist_ok=True)
        if (given.runs / "base").is_dir() and not (root / "base").exists():
            os.symlink((given.runs / "base").absolute(), root / "base")
        if given.selfqa and not (root / "selfqa").exists():
            shutil.copytree(given.selfqa, root / "selfqa")
        for name in STAGES:
            if name == "import" or (name == "selfqa" and given.selfqa):
                continue
            changes = changes_for(name, given.set)
            changes += ["--limit", str(given.limit)] if name == "evaluate" else []
            seconds.append(f"seed {seed} {name}: {run_stage(name, root, seed, changes):.1f} s")
        if not (given.runs / "base").exists():
            shutil.move(root / "base", given.runs / "base")
        rows += rows_of(root, seed)
    print("\n".join(seconds))
    print("| seed | model | answers | reward | minus SFT (95 %) | right | ended | tokens | KL | choices |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
