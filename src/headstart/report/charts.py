"""Charts as inline SVG: one style, text as text, colours that follow the page's light or dark scheme.

matplotlib draws with stand-in colours, which are then replaced by the page's CSS variables; so one drawing serves both schemes.
`key` names a chart within its page (letters only), `alt` says in words what it shows.
"""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import matplotlib
from markupsafe import Markup, escape
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from headstart.evaluate.calibrate import Bin

INK, MUTED, LINE, FIRST, SECOND, WASH = "#010101", "#020202", "#030303", "#040404", "#050505", "#060606"
PALETTE = tuple(f"#0700{i:02x}" for i in range(10))  # for classes: apart from each other for colour-blind eyes too (page.css)
_VARIABLES = {INK: "--ink", MUTED: "--muted", LINE: "--line", FIRST: "--good", SECOND: "--bad", WASH: "--wash"}
_VARIABLES |= {stand_in: f"--class{i}" for i, stand_in in enumerate(PALETTE)}
SIZE_INCHES = (5.4, 3.5)
PERCENT = FuncFormatter(lambda share, _: f"{100 * share:.4g}%" if -1e-9 < share < 1 + 1e-9 else "")  # beside 0 and 1 there is only margin
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "headstart",  # else every report of the same run would differ
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "lines.linewidth": 2,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 11,
}


@dataclass(frozen=True)
class Line:
    """One curve: `values[i]` belongs to `at[i]`; None leaves a gap."""

    name: str
    at: Sequence[float]
    values: Sequence[float | None]
    colour: str
    dashed: bool = False


def curves(
    lines: Sequence[Line],
    *,
    key: str,
    alt: str,
    x_label: str,
    y_label: str,
    percent: bool = False,
    log: bool = False,
    breaks: Sequence[float] = (),
    reference: tuple[str, float] | None = None,
) -> Markup:
    """Lines over epochs; `breaks` are the places where a new phase begins, `reference` a level to compare with and its name."""
    with drawing() as (figure, axes):
        for line in lines:
            values = [float("nan") if value is None else value for value in line.values]
            marker = "o" if len(values) < 30 else None
            axes.plot(
                line.at, values, color=line.colour, linestyle="--" if line.dashed else "-", marker=marker, markersize=3.5, label=line.name
            )
        if reference is not None:
            axes.axhline(reference[1], color=MUTED, linewidth=1.2, linestyle="-.", label=reference[0])
        if log:
            axes.set_yscale("log")
        end = max(max(line.at) for line in lines) + 0.5
        axes.set_xlim(0.5, end)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
        _mark_phases(axes, breaks, end)
        finish(axes, x_label=x_label, y_label=y_label, percent=percent, legend=len(lines) > 1 or reference is not None)
        return svg(figure, key, alt)


def _mark_phases(axes: Any, breaks: Sequence[float], end: float) -> None:
    """A line where a phase begins, and the number of each at the foot of its part, below the curves."""
    if not breaks:
        return
    axes.margins(y=0.14)
    for place in breaks:
        axes.axvline(place, color=MUTED, linewidth=0.8, linestyle=":")
    for i, (start, stop) in enumerate(pairwise([0.5, *breaks, end]), start=1):
        middle = (start + stop) / 2
        axes.text(middle, 0.02, f"{i}", transform=axes.get_xaxis_transform(), ha="center", va="bottom", color=MUTED)


def strengths(
    at: Sequence[float], values: Sequence[float], chosen: float | None, *, key: str, alt: str, y_label: str, percent: bool = False
) -> Markup:
    """A score over regularisation strengths, with the chosen one marked."""
    with drawing() as (figure, axes):
        axes.plot(at, values, color=FIRST, marker="o", markersize=4)
        if min(at) > 0:
            axes.set_xscale("log")
        nearest = None if chosen is None else min(range(len(at)), key=lambda i: abs(at[i] - chosen))
        if nearest is not None:
            axes.plot([at[nearest]], [values[nearest]], color=SECOND, marker="o", markersize=9, fillstyle="none", markeredgewidth=2)
            axes.annotate("chosen", (at[nearest], values[nearest]), (0, 11), textcoords="offset points", ha="center", color=SECOND)
        axes.margins(y=0.22)
        finish(axes, x_label="Strength of the L2 penalty", y_label=y_label, percent=percent, legend=False)
        return svg(figure, key, alt)


def reliability(bins: Sequence[Bin], *, key: str, alt: str) -> Markup:
    """Share right over claimed probability, with intervals; dots grow with the number of photos; the diagonal is perfect."""
    with drawing() as (figure, axes):
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle="--")
        most = max(each.n for each in bins)
        for each in bins:
            low, high = each.accuracy_ci95
            axes.plot([each.confidence] * 2, [low, high], color=FIRST, linewidth=1.4, alpha=0.55)
        sizes = [18 + 130 * each.n / most for each in bins]
        axes.scatter([each.confidence for each in bins], [each.accuracy for each in bins], s=sizes, color=FIRST, zorder=3)
        axes.set_xlim(0, 1.02)
        axes.set_ylim(0, 1.02)
        axes.xaxis.set_major_formatter(PERCENT)
        finish(axes, x_label="Probability the classifier gave", y_label="Share that was right", percent=True, legend=False)
        return svg(figure, key, alt)


@contextmanager
def drawing(size_inches: tuple[float, float] = SIZE_INCHES) -> Iterator[tuple[Any, Any]]:
    """A figure in the page's style and its axes; draw with the stand-in colours only, then `finish` and `svg`."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=size_inches, layout="constrained")
        FigureCanvasSVG(figure)
        yield figure, figure.add_subplot()


def finish(axes: Any, *, x_label: str, y_label: str, percent: bool, legend: bool) -> None:
    """Labels, grid and legend as all charts have them; `percent` shows shares of 0..1 as percentages."""
    axes.set_xlabel(x_label)
    axes.set_title(y_label, loc="left", fontsize=11, color=MUTED, pad=24 if legend else 8)
    axes.grid(visible=False, axis="x")
    axes.tick_params(which="both", length=0, pad=6)
    axes.spines["left"].set_visible(False)
    if percent:
        axes.yaxis.set_major_formatter(PERCENT)
    if legend:
        shown = axes.legend(
            loc="lower left", bbox_to_anchor=(0, 0.99), ncols=4, borderaxespad=0, handlelength=1.6, columnspacing=1.4, borderpad=0.3
        )
        shown.set_in_layout(False)  # else a legend wider than the axes makes them smaller


def svg(figure: Any, key: str, alt: str) -> Markup:
    """The figure as inline SVG: the page's own colours, `alt` as its words, ids that begin with `key`."""
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # Inside HTML no namespaces are needed; without them the page holds no address of another host at all.
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href", "href")
    opening = f'<svg class="chart" role="img" aria-label="{escape(alt)}" viewBox='
    text = re.sub(r'<svg [^>]*?viewBox=("[^"]*")[^>]*>', lambda found: f"{opening}{found[1]}>", text, count=1)
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)  # it would hold for the whole page; page.css has its rules for charts
    for stand_in, variable in _VARIABLES.items():
        text = text.replace(stand_in, f"var({variable})")
    # Ids must differ across all the charts of one page.
    text = re.sub(r'\bid="([^"]+)"', rf'id="{key}-\1"', text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{key}-\1"', text)
    return Markup(re.sub(r"url\(#([^)]+)\)", rf"url(#{key}-\1)", text))
