"""The result of `benchmarks/sft_forgetting.py` as files side by side: JSON, a page of Markdown, curves as SVG."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from finlm.runs import write_json, write_text


def write(path: Path, description: dict[str, Any], figures: dict[str, Any]) -> None:
    """Write `path` (JSON), and a page and curves of the same name beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, description | {"figures": figures})
    write_text(path.with_suffix(".md"), markdown(description, figures, curves=path.with_suffix(".svg").name))
    draw(path.with_suffix(".svg"), figures["arms"])


def markdown(description: dict[str, Any], figures: dict[str, Any], *, curves: str) -> str:
    """Return the page."""
    arms = figures["arms"]
    names = list(arms)
    before = arms[names[0]]["before"]
    rows = [
        f"| {name} | {start:.3f} | "
        + " | ".join(f"{arms[arm]['after'][name]:.3f} ({arms[arm]['after'][name] - start:+.3f})" for arm in names)
        + " |"
        for name, start in sorted(before.items())
    ]
    drawn = [
        f"| {arm} | {its['instruction_tokens']:,} | "
        + " | ".join(f"{its['drawn'][stream]['tokens']:,}" for stream in its["drawn"])
        + f" | {its['filled']:.1%} | {'cut off' if (took := figures['seconds'][arm]) is None else f'{took:.0f}'} |"
        for arm, its in arms.items()
    ]
    streams = list(arms[names[0]]["drawn"])
    worst = figures["worst_category"]
    moves = [
        f"| {one['step']} | " + " | ".join(f"{one['shares'][stream]:.3f}" for stream in streams) + " |"
        for one in arms["moving"]["rounds"]
    ]
    lines = [
        "# Forgetting, with and without text beside the instructions",
        "",
        "SmolLM2-135M, all weights, rows of 2,048 tokens packed by best fit. Held-out loss before and after, nats per "
        "token of text or of an answer; the same held-out samples in all arms.",
        f"Evaluation {figures['evaluations']} of {figures['evaluations_planned']} of each arm, where all have seen the "
        "same instruction tokens.",
        "",
        f"| held out | before | {' | '.join(names)} |",
        "|" + "---|" * (2 + len(names)),
        *rows,
        "",
        f"Worst category after fixed shares: {worst['name']}, {worst['mixed']:.3f}; with moving shares "
        f"{worst['moving']:.3f}.",
        "",
        f"| arm | instruction tokens | {' | '.join(streams)} | filled | seconds |",
        "|" + "---|" * (4 + len(streams)),
        *drawn,
        "",
        "Moving shares:",
        "",
        f"| from step | {' | '.join(streams)} |",
        "|" + "---|" * (1 + len(streams)),
        *moves,
        "",
        f"![Held-out losses over tokens, by arm]({curves})",
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


def draw(path: Path, arms: dict[str, dict[str, Any]]) -> None:
    """Draw answers and general text over tokens, a line an arm."""
    shown = [name for name in next(iter(arms.values()))["before"] if name.startswith(("answers", "text-general"))]
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "finlm", "axes.grid": True, "grid.alpha": 0.3}):
        rows = -(-len(shown) // 2)
        canvas = Figure(figsize=(9, 2.8 * rows), layout="constrained")
        grid = list(canvas.subplots(rows, 2, squeeze=False).flat)
        for axes in grid[len(shown) :]:
            axes.set_axis_off()
        for axes, name in zip(grid, shown, strict=False):
            for arm, its in arms.items():
                curve = its["curve"]
                axes.plot([one["tokens"] / 1e6 for one in curve], [one[name] for one in curve], marker="o", label=arm)
            axes.set(title=name, xlabel="million tokens", ylabel="nats")
            axes.legend(frameon=False, fontsize=8)
        FigureCanvasSVG(canvas)
        canvas.savefig(path, format="svg", metadata={"Date": None})
