"""More charts in the style of charts.py: curves of detection, learning curves, histograms, scatter plots.

Each returns inline SVG. `key` names a chart within its page (letters only), `alt` says in words what it shows. Colours are the stand-ins
of charts.py (`FIRST`, `SECOND`, `MUTED`, `INK`, and `PALETTE` for classes), which become the page's CSS variables.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import ArrayLike

from headstart.report.charts import FIRST, MUTED, PERCENT, SIZE_INCHES, Line, drawing, finish, svg

_THOUSANDS = FuncFormatter(lambda value, _: f"{value:,.0f}")


def roc(lines: Sequence[Line], *, key: str, alt: str) -> Markup:
    """Receiver operating characteristic: share found (`values`, 0..1) over share of false alarms (`at`, 0..1); the diagonal is chance."""
    with drawing() as (figure, axes):
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle="--")
        _unit_lines(axes, lines)
        finish(axes, x_label="False alarms, of other photos", y_label="Found, of this class", percent=True, legend=len(lines) > 1)
        return svg(figure, key, alt)


def precision_recall(lines: Sequence[Line], *, key: str, alt: str, chance: float | None = None) -> Markup:
    """Precision (`values`, 0..1) over recall (`at`, 0..1); `chance` is the precision of guessing, the share of the class."""
    with drawing() as (figure, axes):
        if chance is not None:
            axes.axhline(chance, color=MUTED, linewidth=1, linestyle="--")
        _unit_lines(axes, lines)
        finish(axes, x_label="Found, of this class", y_label="Right, of those named so", percent=True, legend=len(lines) > 1)
        return svg(figure, key, alt)


def learning_curve(
    sizes: Sequence[float],
    accuracy: Sequence[float],
    intervals: Sequence[tuple[float, float]],
    *,
    key: str,
    alt: str,
    x_label: str = "Photos to learn from",
    y_label: str = "Right, of photos left out",
) -> Markup:
    """Accuracy over the number of photos to learn from, with its 95 % band; sizes on a logarithmic axis, each with its own tick."""
    low, high = np.array(intervals, dtype=float).reshape(-1, 2).T
    with drawing() as (figure, axes):
        axes.fill_between(sizes, low, high, color=FIRST, alpha=0.16, linewidth=0)
        axes.plot(sizes, accuracy, color=FIRST, marker="o", markersize=5)
        axes.set_xscale("log")
        axes.set_xticks(list(sizes), [f"{size:,.0f}" for size in sizes])
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.margins(y=0.08)
        finish(axes, x_label=x_label, y_label=y_label, percent=True, legend=False)
        return svg(figure, key, alt)


def histogram(
    edges: ArrayLike,
    counts: ArrayLike,
    *,
    key: str,
    alt: str,
    x_label: str,
    y_label: str,
    colour: str = FIRST,
    mean: float | None = None,
    std: float | None = None,
    log: bool = False,
    size_inches: tuple[float, float] = SIZE_INCHES,
) -> Markup:
    """Counts [n] between edges [n + 1]; `mean` is marked by a line and, with `std`, by a band from mean - std to mean + std."""
    edges, counts = np.asarray(edges, dtype=float), np.asarray(counts, dtype=float)
    with drawing(size_inches) as (figure, axes):
        axes.stairs(counts, edges, fill=True, color=colour, alpha=0.75)
        if mean is not None:
            axes.axvline(mean, color=MUTED, linewidth=1.6, linestyle="--")
        if mean is not None and std is not None:
            axes.axvspan(mean - std, mean + std, color=MUTED, alpha=0.13, linewidth=0)
        axes.set_xlim(edges[0], edges[-1])
        if log:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(_THOUSANDS)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
        finish(axes, x_label=x_label, y_label=y_label, percent=False, legend=False)
        return svg(figure, key, alt)


def scatter(
    x: ArrayLike,
    y: ArrayLike,
    *,
    key: str,
    alt: str,
    x_label: str,
    y_label: str,
    n: ArrayLike | None = None,
    colour: str = FIRST,
    log: bool = False,
) -> Markup:
    """Dots at x [m], y [m] (a few thousand at most: each is an element of the page); `n` [m] photos at a dot make its area."""
    weight = np.ones(np.shape(x)) if n is None else np.asarray(n, dtype=float)
    with drawing() as (figure, axes):
        axes.scatter(x, y, s=12 + 600 * weight / weight.sum(), color=colour, alpha=0.5, linewidth=0)
        if log:
            for axis, scale in ((axes.xaxis, axes.set_xscale), (axes.yaxis, axes.set_yscale)):
                scale("log")
                axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axis.set_major_formatter(_THOUSANDS)
                axis.set_minor_formatter(NullFormatter())
        axes.margins(0.08)
        finish(axes, x_label=x_label, y_label=y_label, percent=False, legend=False)
        return svg(figure, key, alt)


def _unit_lines(axes: Any, lines: Sequence[Line]) -> None:
    """Steps within the unit square."""
    for line in lines:
        values = [float("nan") if value is None else value for value in line.values]
        axes.plot(line.at, values, color=line.colour, linestyle="--" if line.dashed else "-", label=line.name)
    axes.set_xlim(0, 1.01)
    axes.set_ylim(0, 1.02)
    axes.xaxis.set_major_formatter(PERCENT)
