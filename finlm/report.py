"""The report page: one look for every stage.

    page = Page("Demo run", "SmolLM2-135M, seed 7", (
        Figures("At a glance", (Figure("Reward", 0.74, remark="SFT: -0.34"),)),
        Curve("Reward", "update", "score", (Series("PPO", (1, 2, 3), (-0.3, 0.1, 0.7)),)),
        Samples("Answers", ("SFT", "PPO"), (Sample(prompt, (Answer("…"), Answer("…"))),)),
    ))
    write(page, "runs/report.html")

One HTML file that needs no network and no script: curves are inline SVG, colours follow the reader's light or dark
mode. Text from a corpus or a model is escaped, so it is never live HTML. The same page gives the same bytes.
"""

import io
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import ClassVar

import matplotlib as mpl
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from finlm.runs import write_text

Cell = str | int | float | None

SERIES_COLOURS = 6
"""How many colours the page's style has (`--series-0` …); more series start again with dashes."""
MOST_ORDERS = 6
"""Ways to sort the entries of a browser, at most."""
LONG_PROMPT = 320
"""Characters from which a prompt is folded; about four lines of the page."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One key number.

    Example:
        Figure("Reward", 0.74, unit="score", remark="SFT: -0.34")
    """

    label: str
    value: Cell
    unit: str = ""
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Figures:
    """Key numbers as cards."""

    kind: ClassVar[str] = "figures"
    title: str
    figures: tuple[Figure, ...]
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a curve; `x` and `y` are equally long, a `y` that is not finite leaves a gap.

    Example:
        Series("PPO", x=(1, 2, 3), y=(-0.3, 0.1, 0.7))
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y):
            raise ValueError(f"series {self.name!r} has {len(self.x)} x and {len(self.y)} y values")

    @property
    def finite(self) -> tuple[float, ...]:
        """The values that can be drawn."""
        return tuple(value for value in self.y if math.isfinite(value))


@dataclass(frozen=True, slots=True)
class Curve:
    """Lines over a common axis. Neighbouring curves of a page stand in a grid."""

    kind: ClassVar[str] = "curve"
    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    remark: str = ""
    band: tuple[float, float] | None = None
    """Lowest and highest wanted `y`, shaded."""
    is_stacked: bool = False
    """Areas piled up instead of lines: each `y` holds from its `x` to the next one, the last `x` ends the drawing."""

    def __post_init__(self) -> None:
        if self.is_stacked and len({series.x for series in self.series}) > 1:
            raise ValueError(f"curve {self.title!r} piles up series over different x")

    @property
    def gaps(self) -> int:
        """How many values are not finite."""
        return sum(len(series.y) - len(series.finite) for series in self.series)


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells; a column of numbers is set flush right."""

    kind: ClassVar[str] = "table"
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    remark: str = ""

    def __post_init__(self) -> None:
        for number, row in enumerate(self.rows, 1):
            if len(row) != len(self.columns):
                raise ValueError(f"table {self.title!r}: row {number} has {len(row)} cells, {len(self.columns)} wanted")

    def is_numeric(self, column: int) -> bool:
        """True if every filled cell of the column is a number or reads as one."""
        cells = [row[column] for row in self.rows if row[column] not in (None, "")]
        return bool(cells) and all(re.fullmatch(r"[-−+±<>~≈]?\s?[\d.,]+\s?(%|x|s)?", shown(cell)) for cell in cells)


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a funnel: what is left after it.

    Example:
        Step("grounded in the text", 1204, remark="38 removed: figure-not-in-evidence")
    """

    name: str
    count: int
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Funnel:
    """How many records each step of a stage leaves, as bars."""

    kind: ClassVar[str] = "funnel"
    title: str
    steps: tuple[Step, ...]
    remark: str = ""

    def share(self, step: Step) -> float:
        """Length of the step's bar in percent of the longest."""
        longest = max((other.count for other in self.steps), default=0)
        return round(100 * step.count / longest, 2) if longest else 0.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What one model said; None where nobody judged."""

    text: str
    score: float | None = None
    is_right: bool | None = None
    ended: bool | None = None
    """False if the answer was cut off at the limit."""
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Sample:
    """A prompt and one answer per model, in the order of `Samples.models`."""

    prompt: str
    answers: tuple[Answer, ...]
    reference: str = ""
    label: str = ""
    """Stands before the prompt."""

    @property
    def is_long(self) -> bool:
        """True if the prompt is folded."""
        return _is_long(self.prompt)

    @property
    def ending(self) -> str:
        """The last characters of a folded prompt: after a passage the question comes last."""
        return _ending(self.prompt)


def _is_long(prompt: str) -> bool:
    return len(prompt) > LONG_PROMPT or prompt.count("\n") > 5


def _ending(prompt: str) -> str:
    last = (prompt.strip().splitlines() or [""])[-1]
    return last if len(last) <= LONG_PROMPT else "… " + last[-LONG_PROMPT:].split(" ", 1)[-1]


@dataclass(frozen=True, slots=True)
class Samples:
    """Answers of several models side by side."""

    kind: ClassVar[str] = "samples"
    title: str
    models: tuple[str, ...]
    samples: tuple[Sample, ...]
    remark: str = ""

    def __post_init__(self) -> None:
        for sample in self.samples:
            if len(sample.answers) != len(self.models):
                raise ValueError(
                    f"samples {self.title!r}: {len(sample.answers)} answers to {sample.prompt[:40]!r}, "
                    f"{len(self.models)} wanted"
                )


@dataclass(frozen=True, slots=True)
class Order:
    """A way to sort the entries of a browser: by the measure at a place."""

    name: str
    measure: int
    descending: bool = True


@dataclass(frozen=True, slots=True)
class Entry:
    """A prompt and one answer, with the numbers measured on it, in the order of `Browser.measures`."""

    prompt: str
    text: str
    numbers: tuple[float, ...]
    """Whole numbers are shown as such, others with two decimals."""
    ended: bool = True

    @property
    def is_folded(self) -> bool:
        """True if only the prompt's ending is shown at first."""
        return _is_long(self.prompt) or "\n\n" in self.prompt.strip()

    @property
    def ending(self) -> str:
        """The question."""
        return _ending(self.prompt)


@dataclass(frozen=True, slots=True)
class EntryGroup:
    """Entries that are unfolded together."""

    title: str
    entries: tuple[Entry, ...]
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Browser:
    """Many answers to browse: groups to unfold, sorted and filtered by the reader without any script."""

    kind: ClassVar[str] = "browser"
    title: str
    measures: tuple[str, ...]
    """Names of the numbers; the first one is drawn as a bar as well."""
    orders: tuple[Order, ...]
    groups: tuple[EntryGroup, ...]
    remark: str = ""

    def __post_init__(self) -> None:
        if len(self.orders) > MOST_ORDERS:
            raise ValueError(f"browser {self.title!r} has {len(self.orders)} orders, {MOST_ORDERS} at most")
        for group in self.groups:
            for entry in group.entries:
                if len(entry.numbers) != len(self.measures):
                    raise ValueError(
                        f"browser {self.title!r}: {len(entry.numbers)} numbers for {entry.prompt[:40]!r}, "
                        f"{len(self.measures)} wanted"
                    )

    def ranks(self, group: EntryGroup) -> list[list[int]]:
        """Place of each entry of a group in each of the orders."""
        places: list[list[int]] = [[] for _ in group.entries]
        for order in self.orders:
            numbers = [entry.numbers[order.measure] for entry in group.entries]
            ranked = sorted(range(len(numbers)), key=numbers.__getitem__, reverse=order.descending)
            for place, number in enumerate(ranked):
                places[number].append(place)
        return places

    def level(self, entry: Entry) -> float:
        """Where the entry's first number lies between the lowest and the highest on the page, in percent."""
        numbers = [other.numbers[0] for group in self.groups for other in group.entries]
        low, high = min(numbers), max(numbers)
        return round(100 * (entry.numbers[0] - low) / (high - low), 1) if high > low else 50.0


@dataclass(frozen=True, slots=True)
class Notes:
    """Plain text; a blank line starts a new paragraph."""

    kind: ClassVar[str] = "notes"
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Link:
    """Another page.

    Example:
        Link("reward model", "reward/report.html", "accuracy, calibration, its worst mistakes")
    """

    name: str
    path: str
    """Relative to this page's folder."""
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Links:
    """Pages to go on reading with."""

    kind: ClassVar[str] = "links"
    title: str
    links: tuple[Link, ...]


Section = Links | Figures | Curve | Table | Funnel | Samples | Browser | Notes


@dataclass(frozen=True, slots=True)
class Page:
    """A whole report."""

    title: str
    subtitle: str
    sections: tuple[Section, ...]


def shown(value: Cell) -> str:
    """A cell as text: whole numbers with separators, others to three significant digits, None as a dash."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return value


def render(page: Page) -> str:
    """Return the page as one self-contained HTML file."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shown"] = shown
    template = environment.get_template("report.html")
    return (
        template.render(page=page, blocks=list(_blocks(page)), series_colours=SERIES_COLOURS, most_orders=MOST_ORDERS)
        + "\n"
    )


def write(page: Page, path: str | os.PathLike[str]) -> None:
    """Render the page to `path`; the file is whole or not there."""
    write_text(path, render(page))


@dataclass(frozen=True, slots=True)
class _Grid:
    kind: ClassVar[str] = "grid"
    curves: tuple[tuple[Curve, Markup], ...]


def _blocks(page: Page) -> Iterator[Section | _Grid]:
    """The page's sections, with neighbouring curves drawn and gathered into grids."""
    drawn = 0
    for is_curve, sections in groupby(page.sections, key=lambda section: isinstance(section, Curve)):
        if not is_curve:
            yield from sections
            continue
        curves = []
        for curve in sections:
            assert isinstance(curve, Curve)
            curves.append((curve, _svg(curve, salt=f"finlm-{drawn}")))
            drawn += 1
        yield _Grid(tuple(curves))


# Matplotlib wants real colours, the page wants its style's: each stand-in is replaced by a CSS variable afterwards.
_STAND_INS = {f"#0101{index:02x}": f"var(--series-{index})" for index in range(SERIES_COLOURS)} | {
    "#020201": "var(--soft)",
    "#020202": "var(--line)",
    "#020203": "var(--band)",
}
_RC = {
    "svg.fonttype": "none",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.edgecolor": "#020202",
    "axes.grid": True,
    "axes.formatter.useoffset": False,
    "grid.color": "#020202",
    "xtick.color": "#020202",
    "xtick.labelcolor": "#020201",
    "ytick.color": "#020202",
    "ytick.labelcolor": "#020201",
    "ytick.major.size": 0,
    "lines.linewidth": 1.8,
    "lines.markersize": 4,
}


def _svg(curve: Curve, salt: str) -> Markup:
    """Draw a curve. Only tick labels are text in the drawing: the page sets title, labels and legend itself, so that
    Chinese needs no font here and wraps on a phone. Empty if there is nothing to draw."""
    if not any(series.finite for series in curve.series):
        return Markup()
    out = io.StringIO()
    with mpl.rc_context({**_RC, "svg.hashsalt": salt}):
        canvas = Canvas(figsize=(4.4, 2.5), layout="constrained")
        axes = canvas.add_subplot()
        if curve.band is not None:
            axes.axhspan(*curve.band, color="#020203", linewidth=0)
        below = [0.0] * len(curve.series[0].y)
        for index, series in enumerate(curve.series):
            colour = f"#0101{index % SERIES_COLOURS:02x}"
            if curve.is_stacked:
                top = [low + value for low, value in zip(below, series.y, strict=True)]
                axes.stairs(top[:-1], series.x, baseline=below[:-1], fill=True, color=colour, linewidth=0)
                below = top
                continue
            axes.plot(
                series.x,
                [value if math.isfinite(value) else math.nan for value in series.y],
                color=colour,
                linestyle="-" if index < SERIES_COLOURS else "--",
                marker="o" if len(series.y) <= 16 else "",
            )
        axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=_all_whole(curve)))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.margins(x=0.02)
        FigureCanvasSVG(canvas).print_svg(out, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return Markup(_embedded(out.getvalue()))  # safe: the drawing holds numbers only


def _all_whole(curve: Curve) -> bool:
    return all(float(x).is_integer() for series in curve.series for x in series.x)


def _embedded(svg: str) -> str:
    """The drawing without what a page has already: prolog, name spaces, fixed size, fonts, colours, shared ids."""
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r' id="[a-z0-9.]+(_[a-z0-9]+)*_\d+"', "", svg)
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", svg)
    for stand_in, variable in _STAND_INS.items():
        svg = svg.replace(stand_in, variable)
    return svg.replace("<svg", '<svg aria-hidden="true"', 1)
