"""The reward model on what people preferred: SmolLM2-135M, six published sets, every pair scored by a model that never
saw its prompt or topic.

    python benchmarks/reward_people.py --preferences FOLDER --parallel 5 --out benchmarks/results/reward_X.json

FOLDER holds published preferences as `finlm annotate import` reads them. What is measured is the stage `finlm reward`,
a process a run, several side by side on each GPU:

- rates: with several learning rates after --rates, the one of the most accurate run on fold 0 (sentence-level loss, no
  margin, first seed) is everybody's;
- first phase, with --first: every seed's model learns first from preferences without people, of other texts, all of its
  runs go on from it;
- arms: token-level and sentence-level loss, with margin and without, three seeds each, all held out on fold 0;
- folds: the arm that the recipe's rule chooses on fold 0, trained on all sets together, for every fold once under each
  of `--fold-seeds`; the models of a fold score its pairs together, as an ensemble does.

No checkpoint is chosen: every figure is of the last step. The base is SmolLM2-135M-Instruct as it is: fine-tuning on
the better answers of each fold's training part would be a model a fold, and on all of them a leak. All of a prompt's
comparisons are learned from at once, and count as n - 1 for n answers (`prompt_weight`): else the 26 prompts of
ukp_convarg would count as much as 26 dialogues. What is finished is not repeated; a run that fails is named, and the
same command goes on.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: import from this checkout, not from this folder or from an older install
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from annotation.published import CORRECTED
from benchmarks import people_figures, people_folds, people_page, people_runs
from benchmarks.people_figures import DIRECTED, MODEL
from benchmarks.people_folds import Folds
from benchmarks.people_runs import FIXED_FOLD, MAX_LENGTH, Plan, Wanted, told
from benchmarks.six_billion import describe
from benchmarks.stages import run_stage
from finlm import embedded, jsonl
from finlm.records import PreferencePair
from finlm.tokenizer import load_tokenizer
from reward import bag_of_words, baselines, groups
from reward.bag_of_words import TokenPair
from reward.groups import Group
from reward.judged import Judged
from reward.judging import records_of
from reward.selection import ChoiceRule


def main() -> None:
    """Cut, run the arms, choose, run the folds, write what came of them."""
    given = arguments()
    root, began = given.runs, time.perf_counter()
    import_flags = ["--input", given.preferences, "--pairs_per_prompt=0", f"--limit={given.limit}"]
    run_stage("import", root, 0, [*import_flags, f"--corrections={str(given.corrections).lower()}"])
    everything = list(jsonl.read(root / "preferences.jsonl", PreferencePair))
    pairs = [pair for pair in everything if not pair.source.endswith(CORRECTED)]
    corrections = [pair for pair in everything if pair.source.endswith(CORRECTED)]
    folds = Folds.of(pairs, given.folds)
    base = Path(given.model) if given.model else embedded.import_embedded(root / "base")
    plan = Plan(root, base, people_runs.settings_of(given.set), people_runs.environments_of(given.parallel))
    flags = [
        *plan.settings, f"folds {given.folds}", f"model {base}", f"corrections {given.corrections}",
        f"first {given.first} {given.first_rate if given.first else ''}",
    ]  # fmt: skip
    people_runs.refuse_others(root / "flags.json", flags)
    people_folds.write(plan.files, pairs, folds, FIXED_FOLD, corrections)
    if given.first:
        plan = replace(plan, starts=run_first(plan, given))
    told(f"prepared in {time.perf_counter() - began:.0f} s: {len(pairs):,} pairs, {given.folds} folds")

    with ThreadPoolExecutor(1) as beside:
        simpler = beside.submit(prepare_rest, plan, pairs, corrections, folds)
        rates = people_runs.run_rates(plan, given.rates, given.seeds[0], given.epochs)
        rate = people_runs.best_rate(rates)
        compared = compared_before(given.arms_of) if given.arms_of else compare_arms(plan, given, rate)
        told(f"chosen: {compared.name}. {compared.figures['reason']}")
        prepared = simpler.result()
    loss, margin = compared.loss, compared.margin
    every = {
        seed: [Wanted(loss, margin, seed, fold, rate, given.fold_epochs) for fold in range(folds.count)]
        for seed in given.fold_seeds
    }
    failed = people_runs.run_missing(plan, [wanted for its in every.values() for wanted in its])
    if failed:
        raise SystemExit(f"{', '.join(failed)} failed, see {root / 'logs'}; the same command goes on.")

    alone = {seed: [people_runs.last_epoch(plan.folder(wanted)) for wanted in its] for seed, its in every.items()}
    model = [record for same in zip(*alone.values(), strict=True) for record in people_figures.averaged(same)]
    english = people_folds.english_sets(pairs)
    figures = figures_of(model, prepared, folds, english) | {
        "alone": {
            str(seed): people_figures.alone(people_figures.decided_in_order([one for its in found for one in its]))
            for seed, found in alone.items()
        },
        **compared.figures,
        "learning_rate": rate,
        "epochs": {"arms": compared.figures["arms_of"]["epochs"], "folds": given.fold_epochs},
        "rates": rates,
        "data": data_of(pairs, folds, prepared.tokens, plan)
        | {"corrections": len(corrections), "first_phase": first_phase_told(plan, given)},
        "seconds": people_runs.seconds_of(root) | {"all": round(time.perf_counter() - began, 1)},
    }
    print(json.dumps({name: its for name, its in figures.items() if name not in people_page.LONG}, indent=1))
    if given.out:
        people_page.write(given.out, describe(), figures)


def arguments() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preferences", required=True, help="folder of published preferences")
    parser.add_argument("--runs", type=Path, default=Path("runs/people"), help="folder (default: %(default)s)")
    parser.add_argument("--model", default="", help="base model (default: the embedded SmolLM2-135M)")
    parser.add_argument("--folds", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of each arm (default: %(default)s)")
    parser.add_argument(
        "--rates", type=float, nargs="+", default=[5e-4], help="learning rates to choose from (default: %(default)s)"
    )
    parser.add_argument(
        "--fold-seeds", type=int, nargs="+", default=[0], help="of each fold's models (default: %(default)s)"
    )
    parser.add_argument("--epochs", type=int, default=1, help="of each arm (default: %(default)s)")
    parser.add_argument("--fold-epochs", type=int, default=2, help="of each fold (default: %(default)s)")
    parser.add_argument("--parallel", type=int, default=1, help="runs at a time on each GPU (default: %(default)s)")
    parser.add_argument("--limit", type=int, default=0, help="pairs of a set at most, to try the script (0: all)")
    parser.add_argument(
        "--corrections", action="store_true", help="learn from judges' rewritten answers too; none is tested on"
    )
    parser.add_argument(
        "--first", type=Path, help="preferences of a first phase, from which all runs go on (finlm annotate by-passage)"
    )
    parser.add_argument("--first-rate", type=float, default=2e-4, help="its learning rate (default: %(default)s)")
    parser.add_argument(
        "--arms-of", type=Path, help="earlier result whose comparison of arms is taken; default: compare them now"
    )
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="change a setting of all runs")
    parser.add_argument("--out", type=Path, help="JSON file to write; .md and .svg go beside it")
    return parser.parse_args()


# -------------------------------------------------------------------------------------------- first phase and arms


def run_first(plan: Plan, given: argparse.Namespace) -> dict[int, Path]:
    """Run the first phase of every seed that goes on from one."""
    seeds = sorted({*given.fold_seeds, *([] if given.arms_of else given.seeds)})
    return people_runs.run_first_phases(plan, given.first, seeds, given.first_rate)


def first_phase_told(plan: Plan, given: argparse.Namespace) -> dict[str, Any]:
    """Return what the first phases learned from, and how well, by seed; empty without any."""
    if not plan.starts:
        return {}
    learned = list(jsonl.read(given.first, PreferencePair))
    return {
        "pairs": len(learned),
        "prompts": len({pair.prompt.id for pair in learned}),
        "makers": sorted({pair.source for pair in learned}),
        "learning_rate": given.first_rate,
        "accuracy": {
            str(seed): round(float(json.loads((folder / "report.json").read_text())["test_accuracy"]), 4)
            for seed, folder in plan.starts.items()
        },
    }


@dataclass(frozen=True, slots=True)
class Compared:
    """The arm that the folds take, and how the arms compared.

    Example:
        Compared(loss="pairwise", margin="small", figures={"arms": […], "chosen": "pairwise-margin", …})
    """

    loss: str
    margin: str
    figures: dict[str, Any]
    """`arms`, `missing_arms`, `chosen`, `reason` and `arms_of`, what they were measured with."""

    @property
    def name(self) -> str:
        """The arm's name."""
        return people_figures.name_of(self.loss, self.margin)


def compare_arms(plan: Plan, given: argparse.Namespace, rate: float) -> Compared:
    """Run every arm under every seed on one fold and choose by the recipe's rule."""
    arms = people_runs.run_arms(plan, given.seeds, rate, given.epochs)
    chosen, reason = people_figures.choose(arms, ChoiceRule())
    figures = {
        "arms": [arm.figures() for arm in arms],
        "missing_arms": people_runs.missing(arms),
        "chosen": chosen.name,
        "reason": reason,
        "arms_of": {"file": "", "learning_rate": rate, "epochs": given.epochs},
    }
    return Compared(chosen.loss, chosen.margin, figures)


def compared_before(path: Path) -> Compared:
    """Return the comparison that an earlier result of this benchmark holds.

    Raises:
        SystemExit: The file has none, or none of its arms is the chosen one.
    """
    found = json.loads(path.read_text(encoding="utf-8"))
    before = found["figures"]
    chosen = [arm for arm in before.get("arms", []) if arm["arm"] == before["chosen"]]
    if not chosen:
        raise SystemExit(f"{path} has no comparison of arms; leave --arms-of out to make one.")
    told_of = before.get("arms_of") or {"learning_rate": before["learning_rate"], "epochs": before["epochs"]["arms"]}
    figures = {name: before[name] for name in ("arms", "missing_arms", "chosen", "reason")}
    return Compared(
        chosen[0]["loss"],
        chosen[0]["margin"],
        figures | {"arms_of": told_of | {"file": told_of.get("file") or f"{path.name}, commit {found['commit']}"}},
    )


# -------------------------------------------------------------------------------------------------------- baselines


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is made beside the arms' runs: the other files, and the bag of words of each fold."""

    words: dict[str, Judged]
    """Every decided pair as judged by words learned from other folds, by its id."""
    remarks: tuple[str, ...]
    """How each fold's bag of words was fitted."""
    tokens: dict[str, int]
    """Tokens that an epoch over all folds reads, by set."""


def prepare_rest(
    plan: Plan, pairs: Sequence[PreferencePair], corrections: Sequence[PreferencePair], folds: Folds
) -> Prepared:
    """Write the files of the other folds, count tokens, fit a bag of words for every fold."""
    for fold in range(folds.count):
        if fold != FIXED_FOLD:
            people_folds.write(plan.files, pairs, folds, fold, corrections)
    settled, _ = groups.settled(pairs)
    found, _ = groups.encoded(settled, load_tokenizer(plan.base), max_length=MAX_LENGTH)
    tokens: dict[str, int] = {}
    for group in found:
        source = group.comparisons[0].pair.source
        tokens[source] = tokens.get(source, 0) + group.tokens
    told(f"tokens of an epoch over all folds: {sum(tokens.values()):,} ({tokens})")
    words: dict[str, Judged] = {}
    remarks = []
    for fold in range(folds.count):
        outside = [group for group in found if folds.fold(group.comparisons[0].pair) == fold]
        inside = [group for group in found if folds.fold(group.comparisons[0].pair) != fold]
        judged, remark = by_words(inside, outside)
        words |= {record.pair_id: record for record in judged}
        remarks.append(remark)
    return Prepared(words, tuple(remarks), tokens)


def by_words(train: Sequence[Group], test: Sequence[Group]) -> tuple[list[Judged], str]:
    """Return a fold's pairs as judged by a bag of words, and how that was fitted."""
    fitted = bag_of_words.fit(
        [
            TokenPair(
                people_folds.unit_of(one.pair.source, one.pair.prompt.group),
                group.answers[one.better],
                group.answers[one.worse],
            )
            for group in train
            for one in group.comparisons
        ],
        seed=0,
    )
    scores = [[fitted.score(answer) for answer in group.answers] for group in test]
    return records_of(test, scores), baselines.told(fitted)


def figures_of(model: Sequence[Judged], prepared: Prepared, folds: Folds, english: set[str]) -> dict[str, Any]:
    """Return the figures of the model's held-out pairs beside the baselines'."""
    records = people_figures.decided_in_order(model)
    judges = {
        MODEL: records,
        baselines.LONGER: baselines.longer(records),
        DIRECTED: people_figures.directed(records, folds.fold_of),
        baselines.WORDS: [prepared.words[record.pair_id] for record in records],
    }
    by_fold = [
        people_figures.of_judge(its)["accuracy_macro"]["mean"]
        for fold in range(folds.count)
        if (its := [one for one in records if folds.fold_of[people_figures.unit(one)] == fold])
    ]
    return people_figures.headline(judges, english) | {"macro_by_fold": by_fold, "bag_of_words": prepared.remarks}


def data_of(pairs: Sequence[PreferencePair], folds: Folds, tokens: dict[str, int], plan: Plan) -> dict[str, Any]:
    """Return what was learned from and tested on."""
    return {
        "pairs": len(pairs),
        "undecided": sum(not pair.strength for pair in pairs),
        "sets": {
            name: {"units": len(sizes), "pairs_by_fold": folds.pairs(name), "tokens": tokens.get(name, 0)}
            for name, sizes in folds.sizes.items()
        },
        "debates_by_fold": [folds.units(people_folds.DEBATES, fold) for fold in range(folds.count)]
        if people_folds.DEBATES in folds.sizes
        else [],
        "settings": " ".join(plan.settings),
    }


if __name__ == "__main__":
    main()
