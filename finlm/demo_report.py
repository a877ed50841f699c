"""What the demo leaves behind: `summary.json` and the page `report.html`, both read off the stages' own files."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

from finlm import evaluated_page, held_out_page, report, runs
from finlm.metrics import read_metrics


class StageSummary(TypedDict):
    """One stage in the summary."""

    name: str
    seconds: float
    counts: dict[str, Any]


class Summary(TypedDict, total=False):
    """The summary as it stands in `summary.json`."""

    stages: list[StageSummary]
    reward_model: dict[str, float]
    ppo: dict[str, Any]
    evaluation: dict[str, dict[str, Any]]
    versions: dict[str, str]
    seed: int
    peak_memory_gb: float


def summarise(root: Path, stages: Sequence[tuple[str, str]], seed: int) -> Summary:
    """Gather the numbers of all stages under a run root.

    Args:
        root: The run root.
        stages: Name and folder of each stage.
        seed: The seed that all were run with.
    """
    states = {name: runs.read_state(root / folder) or {} for name, folder in stages}
    updates = read_metrics(root / "ppo" / "metrics.jsonl")
    reward = states["reward"].get("counts", {})
    return {
        "stages": [
            {"name": name, "seconds": state.get("seconds", 0.0), "counts": state.get("counts", {})}
            for name, state in states.items()
        ],
        "reward_model": {name: reward[name] for name in ("test_accuracy", "margin", "mean", "std", "longer_accuracy")},
        "ppo": {
            "mean_score": [round(update["objective/scores"], 4) for update in updates],
            "kl": [round(update["objective/kl"], 4) for update in updates],
            "steps": len(updates),
        },
        "evaluation": json.loads((root / "evaluation" / "summary.json").read_text(encoding="utf-8")),
        "versions": runs.versions(),
        "seed": seed,
    }


def write_page(root: Path, summary: Summary) -> None:
    """Write `report.html` under the run root."""
    page = report.Page(
        title="From filings to an aligned chat model",
        subtitle=f"The demo's loop, seed {summary['seed']}: fictional filings, SmolLM2-135M",
        sections=(
            _headline(summary),
            evaluated_page.figures(summary["evaluation"]),
            *held_out_page.sections(root / "ppo"),
            *_curves(root),
            evaluated_page.samples(root / "evaluation", list(summary["evaluation"])),
            _funnel(root),
            _stages(summary),
        ),
    )
    report.write(page, root / "report.html")


def _headline(summary: Summary) -> report.Figures:
    reward, policy = summary["reward_model"], summary["evaluation"].get("ppo", {})
    gain = policy.get("reward_gain", {})
    return report.Figures(
        title="In short",
        figures=(
            report.Figure(
                "Reward model, held-out accuracy",
                f"{reward['test_accuracy']:.2f}",
                remark=f"{reward['longer_accuracy']:.2f} by length alone",
            ),
            report.Figure(
                "Reward, PPO minus SFT",
                f"{gain.get('mean', 0):+.2f}",
                remark=f"95 % interval {gain.get('low', 0):+.2f} to {gain.get('high', 0):+.2f}",
            ),
            report.Figure(
                "Right answers, PPO",
                f"{policy.get('right', 0):.2f}",
                remark=f"SFT {summary['evaluation']['sft']['right']:.2f}",
            ),
            report.Figure(
                "Answers that end, PPO",
                f"{policy.get('ended', 0):.2f}",
                remark=f"SFT {summary['evaluation']['sft']['ended']:.2f}",
            ),
            report.Figure("KL to SFT", f"{policy.get('kl_nats', 0):.2f}", "nats per answer"),
        ),
    )


def _series(metrics: list[dict[str, float]], key: str, name: str) -> report.Series:
    points = [(entry["step"], entry[key]) for entry in metrics if key in entry]
    return report.Series(name, tuple(float(x) for x, _ in points), tuple(float(y) for _, y in points))


def _curves(root: Path) -> list[report.Curve]:
    ppo, sft, reward = (read_metrics(root / stage / "metrics.jsonl") for stage in ("ppo", "sft", "reward"))
    return [
        report.Curve("Reward", "PPO update", "score", (_series(ppo, "objective/scores", "mean score"),)),
        report.Curve("KL to SFT", "PPO update", "nats per answer", (_series(ppo, "objective/kl", "KL"),)),
        report.Curve("Value loss", "PPO update", "squared error", (_series(ppo, "loss/value_avg", "critic"),)),
        report.Curve("Answer length", "PPO update", "tokens", (_series(ppo, "rollout/answer_tokens", "mean length"),)),
        report.Curve("Answers that end", "PPO update", "share", (_series(ppo, "rollout/ended_share", "ended"),)),
        report.Curve(
            "SFT loss",
            "step",
            "nats per token",
            (_series(sft, "loss", "training"), _series(sft, "eval_loss", "held out")),
        ),
        report.Curve("Reward-model loss", "step", "nats", (_series(reward, "loss", "training"),)),
        report.Curve("Reward-model accuracy", "step", "share", (_series(reward, "accuracy", "training batches"),)),
    ]


def _funnel(root: Path) -> report.Funnel:
    selfqa = runs.read_state(root / "selfqa") or {"counts": {}}
    summary = json.loads((root / "selfqa" / "summary.json").read_text(encoding="utf-8"))
    prompts = (runs.read_state(root / "prompts") or {"counts": {}})["counts"]
    pairs = (runs.read_state(root / "preferences") or {"counts": {}})["counts"]
    steps = [
        report.Step("files read", summary["files"]),
        report.Step("questions drafted", summary["questions"]),
        report.Step("questions kept", summary["kept"]),
        report.Step("preference pairs", pairs.get("pairs", 0), "by the figure checker, no person"),
        report.Step("PPO prompts", prompts.get("from_preferences", 0) + prompts.get("new", 0)),
    ]
    return report.Funnel(title="What became of the filings", steps=tuple(steps), remark=_seconds(selfqa))


def _seconds(state: dict[str, Any]) -> str:
    return f"Self-QA took {state['seconds']:.0f} s." if "seconds" in state else ""


def _stages(summary: Summary) -> report.Table:
    rows = []
    for stage in summary["stages"]:
        counts = ", ".join(
            f"{name.replace('_', ' ')} {value:.3g}" if isinstance(value, float) else f"{name.replace('_', ' ')} {value}"
            for name, value in stage["counts"].items()
            if isinstance(value, int | float)
        )
        rows.append((stage["name"], f"{stage['seconds']:.0f}", counts))
    versions = ", ".join(f"{name} {version}" for name, version in summary["versions"].items())
    return report.Table(title="Stages", columns=("stage", "seconds", "made"), rows=tuple(rows), remark=versions)
