"""The runs of `benchmarks/reward_people.py`: each a process of the stage `finlm reward`, which is never repeated."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import people_figures, people_folds, side_by_side
from benchmarks.people_figures import Arm
from benchmarks.side_by_side import Ended, Job
from benchmarks.six_billion import CHECKOUT
from finlm import runs
from reward.epochs import read_epochs
from reward.judged import Judged

ARMS = [(loss, margin) for loss in ("pairwise", "token") for margin in ("none", "small")]
FIRST_ARM = ARMS[0]
"""By which the learning rate is chosen."""
FIXED_FOLD = 0
"""Held out from all arms: what is chosen is chosen on it."""
MAX_LENGTH = 2048
SETTINGS = {
    "max_length": MAX_LENGTH,
    "batch_size": 16,
    "micro_batch": 16,
    "micro_batch_tokens": 8192,
    "prompt_weight": "answers",
    "test_pairs": 1_000_000,
    "consistency_pairs": 64,  # what order and formats do is not asked here, and reads held-out pairs several times
    "save_steps": 1_000_000,
    "lora": {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"},
    "trainer": {"report_to": "none", "gradient_checkpointing": False},
}
"""Of every run; `--set NAME=VALUE` changes one."""
FIRST_PHASE = {
    "loss": "pairwise",
    "margin": "none",
    "epochs": 1,
    "test_share": 0.05,
    "test_pairs": 512,
    "micro_batch_tokens": 65536,
}
"""Of a first phase besides: one pass, whatever the second does; it has a GPU to itself, hence larger passes."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A run of the stage.

    Example:
        Wanted(loss="token", margin="small", seed=0, fold=0, rate=5e-4, epochs=2)
    """

    loss: str
    margin: str
    seed: int
    fold: int
    """Held out."""
    rate: float
    """Learning rate."""
    epochs: int

    @property
    def name(self) -> str:
        """Its folder's name."""
        arm = people_figures.name_of(self.loss, self.margin)
        return f"{arm}-seed-{self.seed}-fold-{self.fold}-rate-{self.rate:g}-epochs-{self.epochs}"


@dataclass(frozen=True, slots=True)
class Plan:
    """Where everything lies and how it is run."""

    root: Path
    base: Path
    settings: tuple[str, ...]
    """Flags that all runs have in common."""
    environments: tuple[dict[str, str], ...]
    starts: Mapping[int, Path] = field(default_factory=dict)
    """Folder of the first phase that the runs of a seed go on from; empty: none."""

    @property
    def files(self) -> Path:
        """Folder of the folds' files."""
        return self.root / "folds"

    def folder(self, wanted: Wanted) -> Path:
        """Return a run's folder."""
        return self.root / "runs" / wanted.name

    def job(self, wanted: Wanted) -> Job:
        """Return the process of a run."""
        flags = [
            f"--preferences={people_folds.train_file(self.files, wanted.fold)}",
            f"--test_preferences={people_folds.test_file(self.files, wanted.fold)}",
            f"--loss={wanted.loss}", f"--margin={wanted.margin}", f"--seed={wanted.seed}",
            f"--learning_rate={wanted.rate}", f"--epochs={wanted.epochs}",
        ]  # fmt: skip
        if wanted.seed in self.starts:
            flags.append(f"--start={self.starts[wanted.seed]}")
        return self._stage(wanted.name, [*flags, *self.settings])

    def first_phase(self, preferences: Path, seed: int, rate: float) -> Job:
        """Return the process of a first phase, which all runs of the seed go on from."""
        name = first_phase_name(seed)
        flags = [
            f"--preferences={preferences}", f"--seed={seed}", f"--learning_rate={rate}", *self.settings
        ]  # fmt: skip
        return self._stage(name, [*flags, *flags_of(FIRST_PHASE)])

    def _stage(self, name: str, flags: Sequence[str]) -> Job:
        where = (
            f"--runs={self.root}", f"--output={self.root / 'runs' / name}", f"--model={self.base}",
            f"--candidates={self.root}/none.jsonl",
        )  # fmt: skip
        command = (sys.executable, "-m", "finlm", "reward", *where, *flags)
        return Job(name, command, self.root / "logs" / f"{name}.log")


def settings_of(changes: Sequence[str]) -> tuple[str, ...]:
    """Return the flags of all runs."""
    return (*flags_of(SETTINGS), *(f"--{change}" for change in changes))


def flags_of(settings: Mapping[str, Any]) -> list[str]:
    """Return settings as flags."""
    return [f"--{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in settings.items()]


def refuse_others(path: Path, flags: Sequence[str]) -> None:
    """Keep what decides the runs; what was finished under other flags is not taken for theirs.

    Raises:
        SystemExit: The folder was begun with others.
    """
    if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != list(flags):
        raise SystemExit(f"{path.parent} was begun with other settings (see {path}); choose another --runs.")
    runs.write_json(path, list(flags))


def environments_of(parallel: int) -> tuple[dict[str, str], ...]:
    """Return the environment of each run at a time."""
    # several allocators on one card: what one of them holds in pieces is missing for the others
    common = {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True", "HF_HUB_OFFLINE": "1"}
    # this checkout's stage, also where another one is installed
    common["PYTHONPATH"] = os.pathsep.join([str(CHECKOUT), *filter(None, [os.environ.get("PYTHONPATH")])])
    places = side_by_side.places(torch.cuda.device_count(), parallel, os.cpu_count() or 1)
    return tuple(place | common for place in places)


def told(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)


def run_rates(plan: Plan, rates: Sequence[float], seed: int, epochs: int) -> dict[str, float]:
    """Return the accuracy (mean of the sets) of the first arm by learning rate; of a single rate it is not asked.

    Raises:
        SystemExit: No run ended well.
    """
    if len(rates) == 1:
        return {f"{rates[0]:g}": 0.0}
    wanted = [Wanted(*FIRST_ARM, seed, FIXED_FOLD, rate, epochs) for rate in rates]
    run_missing(plan, wanted)
    found = {
        f"{one.rate:g}": people_figures.of_judge(people_figures.decided_in_order(last_epoch(plan.folder(one))))
        for one in wanted
        if is_finished(plan.folder(one))
    }
    if not found:
        raise SystemExit(f"every learning rate's run failed, see {plan.root / 'logs'}.")
    accuracies = {name: its["accuracy_macro"]["mean"] for name, its in found.items()}
    told(f"accuracy, mean of the sets, by learning rate: {accuracies}")
    return accuracies


def best_rate(rates: Mapping[str, float]) -> float:
    """Return the learning rate of the most accurate run."""
    return float(max(rates, key=lambda name: rates[name]))


def run_arms(plan: Plan, seeds: Sequence[int], rate: float, epochs: int) -> list[Arm]:
    """Run every arm under every seed, and return those of which all runs ended well.

    Raises:
        SystemExit: There is none.
    """
    run_missing(plan, [Wanted(*arm, seed, FIXED_FOLD, rate, epochs) for seed in seeds for arm in ARMS])
    arms = []
    for loss, margin in ARMS:
        folders = {seed: plan.folder(Wanted(loss, margin, seed, FIXED_FOLD, rate, epochs)) for seed in seeds}
        if all(map(is_finished, folders.values())):
            by_seed = {seed: people_figures.decided_in_order(last_epoch(folder)) for seed, folder in folders.items()}
            arms.append(Arm(loss, margin, by_seed))
    if not arms:
        raise SystemExit(f"no arm has all of its seeds, see {plan.root / 'logs'}; the same command goes on.")
    return arms


def first_phase_name(seed: int) -> str:
    """Return the name of a seed's first phase."""
    return f"first-phase-seed-{seed}"


def run_first_phases(plan: Plan, preferences: Path, seeds: Sequence[int], rate: float) -> dict[int, Path]:
    """Run a first phase for every seed, one at a time on each GPU, and return their folders.

    Raises:
        SystemExit: One failed.
    """
    folders = {seed: plan.root / "runs" / first_phase_name(seed) for seed in seeds}
    jobs = [plan.first_phase(preferences, seed, rate) for seed in seeds if not is_finished(folders[seed])]
    alone = replace(plan, environments=plan.environments[: max(1, torch.cuda.device_count())])
    failed = run_jobs(alone, jobs)
    if failed:
        raise SystemExit(f"{', '.join(failed)} failed, see {plan.root / 'logs'}; the same command goes on.")
    return folders


def run_missing(plan: Plan, wanted: Sequence[Wanted]) -> list[str]:
    """Run what is not finished, a line each; return the names of those that failed."""
    return run_jobs(plan, [plan.job(one) for one in wanted if not is_finished(plan.folder(one))])


def run_jobs(plan: Plan, jobs: Sequence[Job]) -> list[str]:
    """Run reward models, a line each; return the names of those that failed."""
    count = 0

    def tell(ended: Ended) -> None:
        nonlocal count
        count += 1
        name = ended.job.name
        said = f"FAILED ({ended.returncode}), see {ended.job.log}"
        if not ended.returncode:
            found = json.loads((plan.root / "runs" / name / "report.json").read_text(encoding="utf-8"))
            said = f"accuracy {found['test_accuracy']:.3f} on {found['test_pairs']:,} pairs"
        told(f"{count} of {len(jobs)}: {name}, {ended.seconds:.0f} s, {said}")

    return [one.job.name for one in side_by_side.run(jobs, plan.environments, tell) if one.returncode]


def is_finished(folder: Path) -> bool:
    """True if the run in this folder ended."""
    state = runs.read_state(folder)
    return state is not None and state["status"] == "finished"


def last_epoch(folder: Path) -> list[Judged]:
    """Return the held-out pairs as the run's last step judged them, in the units of the loss.

    The run's own choice among its epochs looks at the pairs that it is measured on here.
    """
    epochs = read_epochs(folder)
    return epochs[max(epochs)]


def missing(arms: Sequence[Arm]) -> list[str]:
    """Return the arms that are not compared."""
    known = {arm.name for arm in arms}
    return [name for one in ARMS if (name := people_figures.name_of(*one)) not in known]


def seconds_of(root: Path) -> dict[str, float]:
    """Return the seconds of every run, side by side with others as they were."""
    states = {folder.name: runs.read_state(folder) for folder in sorted((root / "runs").iterdir())}
    return {name: round(state["seconds"], 1) for name, state in states.items() if state is not None}
