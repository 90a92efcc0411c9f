"""The page as a browser shows it: nothing sticks out at phone or desktop width, light and dark, readable text on every shade."""

import re
from importlib import resources

import numpy as np
import pytest
from report_tools import Browser, MakeRun

from headstart.report.build import write_report

HOSTILE = ["<script>document.title='owned'</script>", "W" * 300, "عربى " * 30, "new\nline", "a b", '"', "\u202edetrever", "{{ 1 }}"]


@pytest.mark.parametrize("classes", [("daisy", "roses", "tulips"), HOSTILE, [f"some class {'long ' * (i % 9)}{i}" for i in range(24)]])
def test_nothing_sticks_out_at_phone_and_desktop_width(make_run: MakeRun, browser: Browser, classes: list[str]) -> None:
    page = write_report(make_run(classes, 150, photos=True, epochs=3, run={"name": classes[1], "config": {"path": "/very/long" * 40}}))
    assert browser.content_widths(page, [360, 390, 768, 1280]) == {width_px: width_px for width_px in (360, 390, 768, 1280)}


def test_the_page_survives_loading_with_its_sections(make_run: MakeRun, browser: Browser) -> None:
    dom = browser.dom(write_report(make_run(HOSTILE, 80)))
    title = re.search(r"<title>(.*?)</title>", dom)
    assert title is not None
    assert title[1] == "flowers-a · headstart report"
    assert len(re.findall(r"<h1\b", dom)) == 1
    assert {"wrong", "next", "classes", "matrix", "mistakes", "probabilities", "omitted", "again"} <= set(
        re.findall(r'<h2 id="(\w+)"', dom)
    )


@pytest.mark.slow
def test_page_follows_light_and_dark(make_run: MakeRun, browser: Browser) -> None:
    page = write_report(make_run())
    light, dark = browser.picture(page, 1280), browser.picture(page, 1280, dark=True)
    assert light[0, 0].min() > 200
    assert dark[0, 0].max() < 60
    for picture in (light, dark):
        assert picture.shape[:2] == (1000, 1280)
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50, "something is drawn"


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb. Source: WCAG 2.1."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_colour_reads_on_every_ground_it_stands_on(scheme: str) -> None:
    css = resources.files("headstart.report").joinpath("page.css").read_text(encoding="utf-8")
    schemes = re.findall(r":root \{(.*?--on-strong.*?)\}", css, flags=re.DOTALL)
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", schemes[scheme == "dark"]))
    pairs = [(text, ground) for text in ("ink", "muted", "good", "bad") for ground in ("page", "surface")]
    pairs += [("ink", "wash"), ("on-soft", "bad2"), ("muted", "wash")]
    pairs += [("on-soft" if level <= 4 else "on-strong", f"{kind}{level}") for kind in ("good", "bad") for level in range(1, 7)]
    assert len(schemes) == 2
    for text, ground in pairs:
        assert contrast(colours[text], colours[ground]) >= 4.5, f"--{text} on --{ground}"
