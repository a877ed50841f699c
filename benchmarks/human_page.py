"""The result of `benchmarks/human_ppo.py` as files side by side: JSON, a page of Markdown, curves as SVG."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from finlm.metrics import read_metrics
from finlm.runs import write_json, write_text

PANELS = (
    ("score", (("reward", "held out: reward model"), ("independent", "held out: independent"))),
    ("KL to SFT, nats per answer", (("kl_nats", "held out"),)),
    ("tokens per answer", (("tokens", "held out"),)),
    ("share of ended answers", (("ended", "held out"),)),
)
"""Unit, and keys of the evaluations' curve with their labels."""
TRAINED = ("rollout/raw_score", "objective/kl", "rollout/answer_tokens", "rollout/ended_share")
"""The same of the training prompts, in `metrics.jsonl`."""


def write(path: Path, description: dict[str, Any], figures: dict[str, Any], root: Path) -> None:
    """Write `path` (JSON), and a page and curves of the same name beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, description | {"figures": figures})
    write_text(path.with_suffix(".md"), markdown(description, figures, curves=path.with_suffix(".svg").name))
    draw(path.with_suffix(".svg"), figures["curve"], read_metrics(root / "ppo" / "metrics.jsonl"))


def interval(found: dict[str, float]) -> str:
    """A mean with its interval."""
    return f"{found['mean']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}]"


def markdown(description: dict[str, Any], figures: dict[str, Any], *, curves: str) -> str:
    """Return the page."""
    counts, tokens, ended = figures["counts"], figures["tokens"], figures["ended"]
    parts = [("all", figures | {"prompts": figures["held_out_prompts"]})]
    parts += [(f"of {name}", part) for name, part in figures["by_set"].items()]
    parts.append(("answers of about the same length", figures["same_length"]))
    rows = [
        f"| {name} | {part['prompts']} | "
        + " | ".join(interval(part[key]) if key in part else "too few" for key in ("reward_gain", "independent_gain"))
        + " |"
        for name, part in parts
    ]
    models = [
        f"| {name} | {found['test_accuracy']:.3f} | {found['longer_accuracy']:.3f} | {found['test_pairs']} |"
        for name, found in (
            ("followed by PPO", figures["reward_accuracy"]),
            ("independent", figures["independent_accuracy"]),
        )
    ]
    agreed = figures["agreement_in_sign"]
    lines = [
        "# PPO on human preferences",
        "",
        f"SmolLM2-135M. {counts['pairs']:,} pairs by people, {counts['too_long']:,} of them with too long a prompt. "
        f"SFT on the better answers ({counts['instructions']:,}; those of held-out groups test its loss only). Two "
        f"reward models on the {counts['pairs_first']:,} and {counts['pairs_second']:,} pairs of disjoint halves of "
        f"the prompts; PPO follows the first for {figures['updates']} updates on {counts['training_prompts']:,} "
        f"prompts. One sampled answer at temperature 1 to each of the same {figures['held_out_prompts']} held-out "
        "prompts before and after.",
        "",
        "Last policy minus SFT, reward models' own scores, paired 95 % bootstrap interval over prompts:",
        "",
        "| held-out prompts | number | reward model that PPO follows | independent reward model |",
        "|---|---|---|---|",
        *rows,
        "",
        f"With what missing ends and short answers cost, the reward that is paid: {interval(figures['paid_gain'])}. "
        + ("" if agreed is None else f"Both models agree in sign on {agreed:.0%} of the prompts that both tell apart. ")
        + f"KL to SFT {figures['kl_nats']:.2f} nats per answer; {tokens[0]:.1f} tokens per answer before, "
        f"{tokens[1]:.1f} after; {ended[0]:.1%} of the answers ended before, {ended[1]:.1%} after.",
        "",
        "| reward model | held-out accuracy | preferring the longer answer | pairs |",
        "|---|---|---|---|",
        *models,
        "",
        f"![Curves of score, KL, length and ended answers over the updates]({curves})",
        "",
        f"Seconds: {', '.join(f'{name} {took:.0f}' for name, took in figures['seconds'].items())}.",
        "",
    ]
    if figures["stopped"]:
        lines += [f"A guard ended the run: {figures['stopped']}", ""]
    lines += (
        ["What the guards said:", "", *[f"- {said}" for said in figures["guards"]], ""] if figures["guards"] else []
    )
    lines += [
        "Not shown: what people think of the answers. Both judges are models of one base and of one kind of data.",
        "",
        "## Command",
        "",
        f"Commit {description['commit']}.",
        "",
        f"    {description['command']}",
        "",
        f"{description['hardware']}; {', '.join(f'{name} {one}' for name, one in description['versions'].items())}.",
    ]
    return "\n".join(lines) + "\n"


def draw(path: Path, curve: list[dict[str, float]], metrics: list[dict[str, float]]) -> None:
    """Draw held-out evaluations as points over what each update saw on its training prompts."""
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "finlm", "axes.grid": True, "grid.alpha": 0.3}):
        canvas = Figure(figsize=(9, 5.6), layout="constrained")
        for axes, (unit, series), name in zip(canvas.subplots(2, 2).flat, PANELS, TRAINED, strict=True):
            seen = [line for line in metrics if name in line]
            axes.plot([one["step"] for one in seen], [one[name] for one in seen], color="0.75", label="training")
            for key, label in series:
                axes.plot([one["update"] for one in curve], [one[key] for one in curve], marker="o", label=label)
            axes.set(xlabel="update", ylabel=unit)
            axes.legend(frameon=False, fontsize=8)
        FigureCanvasSVG(canvas)
        canvas.savefig(path, format="svg", metadata={"Date": None})
