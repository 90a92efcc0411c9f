"""Charts as inline SVG: the page's colours, words for those who do not see them, ids that do not meet, no look at another host."""

import re
from collections.abc import Callable

import numpy as np
import pytest
from markupsafe import Markup

from headstart.report import plots
from headstart.report.charts import FIRST, PALETTE, Line

CURVES = [Line("first", [0.0, 0.2, 1.0], [0.0, 0.9, 1.0], PALETTE[0]), Line("second", [0.0, 0.5, 1.0], [0.0, None, 1.0], PALETTE[9])]
DRAWN: dict[str, Callable[[str], Markup]] = {
    "roc": lambda key: plots.roc(CURVES, key=key, alt="two curves"),
    "precision_recall": lambda key: plots.precision_recall(CURVES, key=key, alt="two curves", chance=0.2),
    "learning_curve": lambda key: plots.learning_curve(
        [50, 100, 900], [0.5, 0.6, 0.9], [(0.4, 0.6), (0.5, 0.7), (0.8, 1.0)], key=key, alt="a"
    ),
    "histogram": lambda key: plots.histogram(range(5), [3, 0, 9, 1], key=key, alt="a", x_label="x", y_label="y", mean=2.0, std=0.5),
    "scatter": lambda key: plots.scatter([1, 2, 900], [3, 4, 500], n=[1, 1, 40], key=key, alt="a", x_label="x", y_label="y", log=True),
}


@pytest.mark.parametrize("name", DRAWN)
def test_a_chart_is_inline_svg_in_the_pages_colours(name: str) -> None:
    svg = str(DRAWN[name]("chart"))
    assert re.match(r'<svg class="chart" role="img" aria-label="\w[^"]*" viewBox="0 0 \d', svg)
    assert "http" not in svg
    assert "<style" not in svg
    colours = set(re.findall(r"(?:fill|stroke): ([^;\"]+)", svg)) - {"none"}
    assert colours
    assert all(re.fullmatch(r"var\(--[a-z]+\d?\)", colour) for colour in colours), colours


@pytest.mark.parametrize("name", DRAWN)
def test_two_charts_of_a_page_share_no_ids_and_the_same_chart_is_the_same_text(name: str) -> None:
    one, same, other = (set(re.findall(r'\bid="([^"]+)"', DRAWN[name](key))) for key in ("one", "one", "other"))
    assert one == same
    assert not one & other
    assert DRAWN[name]("one") == DRAWN[name]("one")


def test_words_cannot_leave_the_attribute() -> None:
    svg = plots.histogram([0, 1], [1], key="h", alt='"><script>', x_label="<b>", y_label="x & more")
    assert "<script" not in svg
    assert "<b>" not in svg


def test_each_size_of_a_learning_curve_has_its_tick() -> None:
    svg = plots.learning_curve([50, 100, 1900], [0.5, 0.6, 0.9], [(0.4, 0.6)] * 3, key="g", alt="a")
    shown = re.findall(r"<text[^>]*>([^<]+)</text>", svg)
    assert {"50", "100", "1,900"} <= set(shown)


def test_a_histogram_is_as_high_as_its_counts() -> None:
    counts = np.array([1.0, 4.0, 2.0])
    svg = str(plots.histogram([0, 1, 2, 3], counts, key="h", alt="a", x_label="x", y_label="y", colour=FIRST))
    path = next(text for text in re.findall(r'<path d="([^"]+)"[^>]*style="fill: var\(--good\)', svg))
    heights = [float(y) for _, y in re.findall(r"[ML] ([\d.]+) ([\d.]+)", path)]
    base = max(heights)
    tops = sorted({round(base - y, 2) for y in heights} - {0.0})
    assert tops == pytest.approx([tops[-1] * share for share in (0.25, 0.5, 1.0)], abs=0.02)
