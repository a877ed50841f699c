"""The whole loop on the example filings, on a laptop: what `make demo` runs.

    finlm demo                  runs/ fills stage by stage; runs/report.html and runs/summary.json at the end

Each stage is the command that a user would type, with its `configs/<stage>_demo.yaml`. A stage that is finished is not
repeated; one that was killed goes on where it was.
"""

import os
import sys

if not __package__:  # run as a file: import from this checkout, not from this folder or from an older install
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import json
import resource
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from finlm import config, demo_report, runs, stages
from finlm.errors import MissingInput

EXAMPLES = stages.HOME / "examples"


@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """Settings of the demo."""

    runs: str = field(default_factory=config.default_runs)
    """Run root: the folder that all stages write below."""
    seed: int = 0
    """Seed of every stage."""
    threads: int = 0
    """CPU threads of torch; 0 takes two, or one on a busy machine, where two beside other work are slower than one."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One command of the loop.

    Example:
        Stage(name="sft", title="mixed SFT", entry="alignment/sft.py", folder="sft")
    """

    name: str
    title: str
    entry: str
    folder: str
    """Its run folder below the run root."""
    uses_torch: bool = False
    """True if it takes a number of threads."""
    accelerate: str = ""
    """The configuration that accelerate launches it with, if it does."""


STAGES = (
    Stage("selfqa", "Self-QA on the example filings", "selfqa/generate.py", "selfqa"),
    Stage("sft", "mixed SFT of SmolLM2-135M", "alignment/sft.py", "sft", uses_torch=True),
    Stage("respond", "candidate answers", "alignment/respond.py", "candidates", uses_torch=True),
    Stage("by_figures", "preferences by rule", "annotation/by_figures.py", "preferences"),
    Stage("reward", "reward model", "reward/train.py", "reward", uses_torch=True),
    Stage("prompts", "prompts for PPO", "finlm/prompts.py", "prompts"),
    Stage("ppo", "PPO", "alignment/ppo.py", "ppo", uses_torch=True, accelerate="one_process"),
    Stage("evaluate", "evaluation on held-out companies", "finlm/evaluate.py", "evaluation", uses_torch=True),
)


def main(settings: DemoSettings) -> None:
    """Run the stages, gather their numbers, show them."""
    console = Console()
    if not (EXAMPLES / "filings").is_dir():
        raise MissingInput(f"{EXAMPLES} not found: the demo runs from a checkout of the project.")
    root = Path(settings.runs).absolute()
    runs.need_disk(root, 4.0)
    threads = settings.threads or threads_for_this_machine()
    for number, stage in enumerate(STAGES, 1):
        state = runs.read_state(root / stage.folder)
        verb = "finished before" if state and state["status"] == "finished" else "running"
        console.rule(f"[bold]{number}/{len(STAGES)} {stage.title}[/bold] ({verb})")
        run_stage(stage, settings.seed, threads, root)
    summary = demo_report.summarise(root, [(stage.name, stage.folder) for stage in STAGES], settings.seed)
    now = round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6, 2)
    summary["peak_memory_gb"] = max(now, peak_memory_gb(root / "summary.json"))
    runs.write_json(root / "summary.json", summary)
    demo_report.write_page(root, summary)
    show(console, summary)
    console.print(f"report: {root / 'report.html'}\ntalk to the result: finlm chat --runs {settings.runs}")


def peak_memory_gb(summary: Path) -> float:
    """Return what earlier starts of a demo that went on needed at most; 0 where there was none."""
    return float(json.loads(summary.read_text(encoding="utf-8"))["peak_memory_gb"]) if summary.is_file() else 0.0


def threads_for_this_machine() -> int:
    """Two threads, or one on a single core or where other programs compute."""
    is_busy = os.getloadavg()[0] > 1
    return 1 if is_busy or (os.cpu_count() or 1) < 2 else 2


def run_stage(stage: Stage, seed: int, threads: int, root: Path) -> None:
    """Run one stage as a process of its own, from the checkout."""
    arguments = ["--config", f"{stage.name}_demo", "--runs", os.path.relpath(root, stages.HOME)]
    if stage.name != "selfqa":
        arguments += ["--seed", str(seed)]
    if stage.uses_torch:
        arguments += ["--threads", str(threads)]
    accelerate = stages.accelerate_file(stage.accelerate) if stage.accelerate else ""
    command = stages.command_of(stage.entry, arguments, accelerate=accelerate)
    stages.run(stage.name, command, cwd=stages.HOME, environment={"OMP_NUM_THREADS": str(threads)})


def show(console: Console, summary: demo_report.Summary) -> None:
    """Print the closing tables."""
    times = Table(title="stages")
    times.add_column("stage")
    times.add_column("seconds", justify="right")
    times.add_column("made")
    for stage in summary["stages"]:
        counts = ", ".join(f"{name} {value}" for name, value in stage["counts"].items() if isinstance(value, int))
        times.add_row(stage["name"], f"{stage['seconds']:.0f}", counts)
    console.print(times)
    models = Table(title="held-out companies")
    for column in ("model", "answers", "right", "ended", "reward", "wins over SFT", "KL (nats)", "choices"):
        models.add_column(column, justify="left" if column == "model" else "right")
    for name, figures in summary["evaluation"].items():
        models.add_row(
            name,
            str(figures["answers"]),
            f"{figures['right']:.2f}",
            f"{figures['ended']:.2f}",
            f"{figures['reward']:+.2f}",
            f"{figures['win_rate']:.2f}" if "win_rate" in figures else "",
            f"{figures['kl_nats']:.2f}" if "kl_nats" in figures else "",
            f"{figures['choice_accuracy']:.2f}" if "choice_accuracy" in figures else "",
        )
    console.print(models)


if __name__ == "__main__":
    config.run(main, DemoSettings, __doc__ or "")
