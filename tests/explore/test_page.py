"""The page of an exploration: what is there, what is wrong, what to do next; self-contained, bounded in size, whatever names say."""

import dataclasses
import html
import re
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from browser import chromium
from headstart.data.scan import scan
from headstart.data.table import Omitted, Photo, Table
from headstart.explore.drawn_map import draw
from headstart.explore.duplicates import Cluster, Duplicates
from headstart.explore.exploration import Exploration, OutOfFold
from headstart.explore.growth import ClassGrowth, Growth
from headstart.explore.honesty import Honesty, Score
from headstart.explore.look import look
from headstart.explore.map import FeatureMap
from headstart.explore.overview import overview, samples
from headstart.explore.page import write_page
from headstart.explore.shortcuts import Shortcut
from headstart.explore.suspects import Suspect, Suspects
from report.report_tools import Browser
from samples import make_photos

CLASSES = ("blue sky", "grün", "red")
HOSTILE = ("<script>alert(1)</script>", "{{ 7 * 7 }}", "\u202edetrever", '"quo\'ted" & co', "W" * 300, "عربى")
Make = Callable[..., Exploration]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Table:
    """12 photos each of three classes, in splits."""
    table = scan(str(make_photos(tmp_path_factory.mktemp("photos"), n=12, classes=CLASSES)))
    splits = ("train", "train", "val", "test")
    return table.with_photos([dataclasses.replace(photo, split=splits[i % 4]) for i, photo in enumerate(table.photos)])


@pytest.fixture(scope="module")
def make(photos: Table, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """A function that makes an exploration with nothing wrong; `troubles=True` puts one of everything into it."""
    looks = look(photos)

    def made(names: tuple[str, ...] = CLASSES, *, troubles: bool = False) -> Exploration:
        table = _renamed(photos, names)
        seen = overview(table, looks)
        found = Exploration(
            folder=tmp_path_factory.mktemp("out"),
            table=table,
            overview=dataclasses.replace(seen, small=()),
            looks=looks,
            samples=samples(table, seed=0),
            duplicates=Duplicates(()),
            shortcuts=(),
            backbone="embedded",
            seed=0,
            oof=OutOfFold(np.arange(36), np.full((36, len(names)), 1 / len(names)), np.arange(36) % 9 > 0, np.arange(36), 5),
            suspects=Suspects((), 36),
            honesty=None,
            growth=None,
            map=_map(table, 36),
            seconds={"scan": 0.5},
            notices=(),
        )
        return _troubled(found, names) if troubles else found

    return made


@pytest.fixture(scope="module")
def troubled(make: Make) -> Exploration:
    return make(troubles=True)


@pytest.fixture(scope="module")
def page(troubled: Exploration) -> Path:
    return write_page(troubled, troubled.folder)


def _renamed(table: Table, names: tuple[str, ...]) -> Table:
    """The same photos, labelled with `names` in turn."""
    photos = [dataclasses.replace(photo, label=names[i % len(names)]) for i, photo in enumerate(table.photos)]
    return dataclasses.replace(table, photos=tuple(photos), classes=tuple(sorted(names)))


def _map(table: Table, n: int) -> FeatureMap:
    return FeatureMap(np.arange(n), np.random.default_rng(0).random((n, 2)).astype(np.float32), "t-SNE of the features")


def _troubled(found: Exploration, names: tuple[str, ...]) -> Exploration:
    def cluster(kind: str, *members: int) -> Cluster:
        photos = [found.table.photos[i] for i in members]
        return Cluster(kind, members, *(tuple(getattr(photo, key) for photo in photos) for key in ("path", "label", "split")))

    first = found.table.photos[0]
    omitted = tuple(Omitted(f"{name}/broken.jpg", "truncated") for name in names)
    table = dataclasses.replace(found.table, omitted=omitted)
    suspects = tuple(Suspect(i, found.table.photos[i].path, first.label, names[1], 0.1, 0.9 - i / 100, 0.9) for i in (0, 4))
    growth = ClassGrowth(12, (0.5, 0.7), 0.2, (0.1, 0.3))
    return dataclasses.replace(
        found,
        table=table,
        overview=overview(table, found.looks),
        duplicates=Duplicates((cluster("near", 0, 2, 3), cluster("exact", 4, 8))),
        suspects=Suspects(suspects, 36),
        shortcuts=(
            Shortcut("size", "width and height", 0.9, (0.8, 0.95), 0.33, warning="The size alone tells the class."),
            Shortcut("name", "file name", 0.3, (0.2, 0.4), 0.33),
        ),
        honesty=Honesty(Score(0.8, (0.7, 0.9), 36), Score(0.95, (0.9, 1.0), 36), 0.001),
        growth=Growth((8, 24), (0.5, 0.8), ((0.4, 0.6), (0.7, 0.9)), dict.fromkeys(names, growth)),
        notices=(f"A notice on {names[0]}.",),
    )


def words_of(page: Path) -> str:
    """The page's words, without tags."""
    body = page.read_text(encoding="utf-8").split("</style>", 1)[1]
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", body))).replace("\u00a0", " ")


def test_the_first_screen_says_what_is_there_what_is_wrong_and_what_to_do(page: Path) -> None:
    words = words_of(page)
    assert words.index("36 photos in 3 classes") < words.index("Five things to look at before you train")
    assert "files that cannot be used, duplicates, suspect labels, shortcuts and small classes." in words
    steps = [
        "Replace or delete 3 files that cannot be used , most often: truncated.",
        "Decide on one label for 2 groups of duplicates",
        "Move 1 group of duplicates to one side of your split",
        "Look at 2 suspect labels",
        "Mind the shortcut",
        "Add photos of",
        "headstart train DATA --out RUN",
    ]
    places = [words.index(step) for step in steps]
    assert places == sorted(places)
    assert "is right for 89 % of photos it had not seen" in words


def test_where_nothing_is_wrong_the_page_says_so(make: Make) -> None:
    words = words_of(write_page(found := make(), found.folder))
    assert "Nothing was found that should keep you from training." in words
    assert re.search(r"What to do next Train, with the same photos for DATA: headstart train DATA --out RUN What is there", words)
    assert "Files that cannot be used none" in words


def test_too_few_photos_to_judge_are_said_to_be_so(make: Make) -> None:
    found = dataclasses.replace(make(), oof=None, suspects=None, map=None)
    words = words_of(write_page(found, found.folder))
    assert "Suspect labels – not checked: too few photos" in words
    assert "There are too few photos to say how well a classifier would do." in words
    assert "The map" not in words


def test_photos_whose_values_are_not_finite_are_named(make: Make) -> None:
    found = make()
    found = dataclasses.replace(found, looks=dataclasses.replace(found.looks, not_finite=np.arange(30)))
    words = words_of(write_page(found, found.folder))
    assert "30 photos hold values that are not finite" in words
    assert all(f" {photo.path} " in words.split("and 10 more")[0] for photo in found.table.photos[:20])


def test_figures_are_those_of_the_exploration(troubled: Exploration, page: Path) -> None:
    found, words = troubled, words_of(page)
    for channel, mean, std in zip(("Red", "Green", "Blue"), found.looks.pixel_mean, found.looks.pixel_std, strict=True):
        assert f"{channel} {mean:.2f} {std:.2f} {mean / 255:.4f} {std / 255:.4f}" in words
    for name, counts in found.overview.classes.items():
        assert f"{name} {counts['all']} few {counts['train']} {counts['val']} {counts['test']}" in words
    assert "honest: photos that belong together stay together 80" in words
    assert "naive: each photo for itself 95" in words
    assert "width and height too much 90" in words


def test_page_names_no_other_host_and_holds_no_script(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not re.search("https?:", text)
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:|#)""", text)
    assert not re.findall(r"url\((?!#)", text)
    assert "@import" not in text
    assert "<script" not in text


def test_ids_are_unique_links_have_targets_pictures_and_charts_have_words(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    links = set(re.findall(r"""href=["']#([^"']+)""", text))
    assert {"omitted", "duplicates", "suspects", "shortcuts", "classes"} <= links <= set(ids)
    assert set(re.findall(r'aria-labelledby="([^"]+)"', text)) <= set(ids)
    pictures = re.findall(r"<img[^>]+>", text)
    assert len(pictures) > 60
    assert all(re.search(r'alt="[^"]+"', tag) for tag in pictures)
    drawings = re.findall(r"<svg[^>]+>", text)
    assert all(re.search(r'aria-label="[^"]{20,}"|aria-hidden="true"', tag) for tag in drawings)
    assert text.count("<table") == text.count("<caption")


def test_hostile_names_are_shown_and_never_obeyed(make: Make) -> None:
    text = write_page(found := make(HOSTILE, troubles=True), found.folder).read_text(encoding="utf-8")
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "{{ 7 * 7 }}" in text
    assert "\u202e" not in text
    assert not re.search(r"<bdi[^>]*>W{61}", text), "very long names are shortened where they are shown"


def test_every_photo_of_the_map_is_a_point_of_its_class_with_its_name(troubled: Exploration, page: Path) -> None:
    found, text = troubled, page.read_text(encoding="utf-8")
    drawn = text.split('<svg class="map"')[1].split("</svg>")[0]
    titles = re.findall(r'<circle class="c(\d)"[^>]*><title>(\S.*?) · (.*?)</title>', drawn)
    assert len(titles) == 36
    styles = {style: label for style, label, _ in titles}
    assert len(styles) == 3
    assert all(styles[style] == label for style, label, _ in titles)
    assert {html.unescape(path) for *_, path in titles} == {photo.path for photo in found.table.photos}


def test_photos_in_question_are_shown_on_the_map_before_others(photos: Table) -> None:
    xy = np.array([[0.5, 0.5], [0.51, 0.51], [0.52, 0.52], [0.1, 0.9], [0.11, 0.9]], dtype=np.float32)
    found = FeatureMap(np.arange(5), xy, "PCA")
    shown = [{peek.photo for peek in draw(found, photos, asked).peeks} for asked in ([], [0], [1, 0, 3])]
    assert shown == [{2, 4}, {0, 4}, {1, 3}], "nearest to the middle; the one asked for; the first that was asked for"
    assert [peek.asked for peek in draw(found, photos, [0]).peeks] == [True, False]


def test_the_page_asks_for_suspects_and_duplicates_on_its_map(page: Path) -> None:
    rings = re.findall(r'<label class="peek [ew] [ns]( asked)?".*?aria-label="(.*?)"', page.read_text(encoding="utf-8"))
    assert sum(bool(asked) for asked, _ in rings) >= 4
    assert "Heavy rings are photos in question" in words_of(page).replace("Heavy rings  are", "Heavy rings are")


def test_every_photo_of_the_map_is_reached_by_keyboard_through_one_stop(page: Path, browser: Browser) -> None:
    script = (
        "const d = this.contentDocument, r = [...d.querySelectorAll('.peek input')], "
        "seen = i => this.contentWindow.getComputedStyle(r[i].nextElementSibling).display; "
        "const before = seen(1); r[1].focus(); "
        "this.title = [new Set(r.map(e => e.name + e.type + e.tabIndex)).size, r[0].tabIndex, before, seen(1), seen(0)].join(' ')"
    )
    assert browser.title_of(page, 1280, script) == "1 0 none block none"


def test_the_chart_of_aspects_says_what_its_outermost_bars_hold(make: Make) -> None:
    found = make()
    photos = [dataclasses.replace(photo, width=100 + i, height=100) for i, photo in enumerate(found.table.photos)]
    photos[-1] = dataclasses.replace(photos[-1], width=900)
    table = found.table.with_photos(photos)
    words = words_of(write_page(dataclasses.replace(found, table=table, overview=overview(table, found.looks)), found.folder))
    assert "The outermost bars also count 2 photos beyond them: all lie between 1.00 and 9.00." in words


def test_photos_that_are_gone_leave_the_rest_of_the_page(troubled: Exploration, tmp_path: Path) -> None:
    gone = dataclasses.replace(troubled, table=dataclasses.replace(troubled.table, root=tmp_path / "elsewhere"))
    page = write_page(gone, tmp_path)
    assert "<img" not in page.read_text(encoding="utf-8")
    assert words_of(page).count("photo not found") >= 2


@pytest.mark.slow
def test_the_page_of_a_thousand_classes_and_sixty_thousand_photos_stays_small(make: Make) -> None:
    small = make()
    names = tuple(f"class number {k:04d}, with a name of some length" for k in range(1000))
    originals = small.table.photos
    photos = tuple(
        dataclasses.replace(originals[i % 36], label=names[i % 1000], width=200 + i % 997, height=200 + i % 641) for i in range(60_000)
    )
    table = dataclasses.replace(small.table, photos=photos, classes=names)
    grown = {name: ClassGrowth(60, (0.5, 0.7), 0.2, (0.1, 0.3)) for name in names}
    found = dataclasses.replace(
        small,
        table=table,
        overview=dataclasses.replace(small.overview, classes=_counts(photos, names), n_sizes=50_000),
        samples={name: (k,) for k, name in enumerate(names)},
        map=FeatureMap(np.arange(0, 60_000, 12), np.random.default_rng(0).random((5000, 2)).astype(np.float32), "t-SNE"),
        growth=Growth((8, 24), (0.5, 0.8), ((0.4, 0.6), (0.7, 0.9)), grown),
    )
    page = write_page(found, found.folder)
    assert page.stat().st_size < 6_000_000
    assert "5,000 of 60,000 photos" in words_of(page)


def _counts(photos: tuple[Photo, ...], names: tuple[str, ...]) -> dict[str, dict[str, int]]:
    return {name: {"train": 30, "val": 15, "test": 15, "all": len(photos) // len(names)} for name in names}


@pytest.fixture
def browser(tmp_path: Path) -> Browser:
    (folder := tmp_path / "browser").mkdir()
    return Browser(chromium(), folder)


def test_every_figure_of_the_tables_is_in_sight_on_a_phone(page: Path, browser: Browser) -> None:
    right = "s => Math.max(...[...d.querySelectorAll(s)].map(e => Math.round(e.getBoundingClientRect().right)))"
    places = [".pixels td:last-child", ".counts td:last-child", ".verdict-cell"]
    script = f"const d = this.contentDocument; this.title = {places}.map({right}).join(' ')"
    assert all(0 < int(edge) <= 390 for edge in browser.title_of(page, 390, script).split())


@pytest.mark.parametrize("names", [CLASSES, HOSTILE])
def test_nothing_sticks_out_at_phone_and_desktop_width(make: Make, browser: Browser, names: tuple[str, ...]) -> None:
    page = write_page(found := make(names, troubles=True), found.folder)
    widths = browser.content_widths(page, [360, 390, 768, 1280])
    assert widths == {width_px: width_px for width_px in (360, 390, 768, 1280)}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_of_classes_stand_out_from_the_card_and_from_each_other(scheme: str) -> None:
    css = resources.files("headstart.report").joinpath("page.css").read_text(encoding="utf-8")
    rules = re.findall(r":root \{(.*?--on-strong.*?)\}", css, flags=re.DOTALL)[scheme == "dark"]
    colours = {
        name: np.array([int(text[i : i + 2], 16) for i in (0, 2, 4)]) / 255 for name, text in re.findall(r"--([\w-]+): #(\w{6})", rules)
    }
    classes = np.array([colours[f"class{i}"] for i in range(10)])
    ground = _luminance(colours["surface"])
    for colour in classes:
        low, high = sorted((_luminance(colour), ground))
        assert (high + 0.05) / (low + 0.05) >= 3.0, "WCAG 2.1, 1.4.11"
    for seen in _SEEN.values():
        apart = np.linalg.norm(
            _oklab(_linear(classes) @ np.array(seen).T)[:, None] - _oklab(_linear(classes) @ np.array(seen).T)[None], axis=2
        )
        assert (apart + np.eye(10)).min() > 0.07  # 0.02 is about the least difference that is seen


# How eyes see linear RGB. Source: Machado, Oliveira and Fernandes (2009), severity 1.0.
_SEEN = {
    "most": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def _linear(rgb: np.ndarray) -> np.ndarray:
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def _luminance(rgb: np.ndarray) -> float:
    return float(_linear(rgb) @ [0.2126, 0.7152, 0.0722])


def _oklab(linear: np.ndarray) -> np.ndarray:
    """Source: Ottosson (2020), "A perceptual color space for image processing"."""
    to_cones = [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
    to_lab = [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
    return np.cbrt(np.clip(linear, 0, 1) @ np.array(to_cones).T) @ np.array(to_lab).T
