"""Shortcuts: a clue that gives the class away is told, natural ones are not, and file names alarm nobody."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from label_samples import make_table

from headstart.evaluate.intervals import held_out_interval
from headstart.explore import shortcuts
from headstart.explore.shortcuts import Shortcut, check_shortcuts

RNG = np.random.default_rng(0)
LABELS = np.arange(150) % 3
NAMES = ["ant", "bee", "big cat"]


def check(looks: Any = None, labels: np.ndarray = LABELS, **each: Any) -> dict[str, Shortcut]:
    """By name; unless given, photos are all of one size and have the same name but for a number drawn at random."""
    n = len(labels)
    facts: dict[str, Any] = {"path": [f"x/{number}.jpg" for number in np.random.default_rng(1).permutation(n)]}
    facts |= {"width": [300] * n, "height": [200] * n, "n_bytes": [9000] * n}
    table = make_table([NAMES[y] for y in labels], **{**facts, **each})
    return {found.name: found for found in check_shortcuts(table, looks, seed=0)}


def border(x: np.ndarray) -> Any:
    return SimpleNamespace(border=x.astype(np.uint8))


@pytest.mark.parametrize(
    ("clue", "given"),
    [
        ("size", {"width": [300 + 20 * y for y in LABELS]}),
        ("size", {"n_bytes": [9000 + 500 * y + i % 7 for i, y in enumerate(LABELS)]}),
        ("format", {"format": [("JPEG", "PNG", "WEBP")[y] for y in LABELS]}),
        ("format", {"tables": [("a1", "b2", "c3")[y] for y in LABELS]}),
        ("camera", {"camera": [("Canon EOS 5D", "", "NIKON D70")[y] for y in LABELS]}),
        ("time", {"taken": [f"2024-05-0{1 + y}T10:{i % 60:02d}:00" for i, y in enumerate(LABELS)]}),
        ("time", {"taken": [f"2024-05-{1 + i % 28:02d}T{(9, 14, 20)[y]:02d}:10:00" for i, y in enumerate(LABELS)]}),
    ],
)
def test_a_clue_that_gives_the_class_away_is_warned_of(clue: str, given: dict[str, Any]) -> None:
    found = check(**given)[clue]
    assert found.accuracy == 1
    assert found.baseline == pytest.approx(1 / 3)
    assert found.warning is not None
    assert found.warning.startswith(found.words[0].upper() + found.words[1:])
    assert "100 % of the photos" in found.warning


def test_clues_in_which_the_photos_do_not_differ_are_left_out() -> None:
    assert list(check()) == ["file name"]


def test_clues_that_say_nothing_are_no_shortcut() -> None:
    rng = np.random.default_rng(2)
    found = check(
        border(rng.integers(0, 256, (150, 96))),
        width=rng.integers(200, 400, 150).tolist(),
        camera=[f"camera {i}" for i in rng.integers(0, 4, 150)],
        taken=[f"2024-01-{day:02d}T10:00:00" if day < 25 else "no date" for day in rng.integers(1, 29, 150)],
    )
    assert list(found) == ["size", "camera", "time", "file name", "border"]
    for one in found.values():
        assert one.accuracy_ci95[0] < 0.45
        assert one.warning is None
        assert one.note is None


def test_a_background_of_its_own_for_each_class_is_warned_of() -> None:
    x = np.random.default_rng(0).integers(0, 60, (150, 96)) + 60 * LABELS[:, None]
    found = check(border(x))["border"]
    assert found.accuracy > 0.95
    assert found.warning is not None
    assert "background" in found.warning


def test_a_little_above_chance_is_natural() -> None:
    rng = np.random.default_rng(3)
    hint = np.where(rng.random(150) < 0.25, LABELS, rng.integers(0, 3, 150))
    found = check(width=[300 + 20 * int(y) for y in hint])["size"]
    assert found.accuracy_ci95[0] > found.baseline, "clearly above the baseline"
    assert found.warning is None


@pytest.mark.parametrize(
    "names",
    [
        [f"IMG_{1000 * y + i}" for i, y in enumerate(LABELS)],
        [f"{('anna', 'ben', 'carla')[y]}-{i}" for i, y in enumerate(LABELS)],
    ],
)
def test_names_that_tell_the_class_are_a_note_and_no_warning(names: list[str]) -> None:
    found = check(path=[f"x/{name}.jpg" for name in names])["file name"]
    assert found.accuracy > 0.95
    assert found.warning is None
    assert found.note is not None
    assert "never reach the classifier" in found.note


def test_the_name_of_the_class_in_file_names_is_not_counted() -> None:
    numbers = np.random.default_rng(4).permutation(150)
    found = check(
        path=[f"{NAMES[y]}/{NAMES[y].title().replace(' ', '-')}_{number:04d}.jpg" for y, number in zip(LABELS, numbers, strict=True)]
    )
    assert found["file name"].accuracy_ci95[0] < 0.45


def test_groups_are_held_out_together() -> None:
    """Copies share their size, and nothing else does: learning a size by heart must not look like a shortcut."""
    sizes = np.repeat(np.random.default_rng(5).permutation(30) * 10 + 200, 8)
    labels = np.repeat(np.random.default_rng(6).integers(0, 2, 30), 8)
    alone = check(labels=labels, width=sizes.tolist())["size"]
    together = check(labels=labels, width=sizes.tolist(), group=[str(size) for size in sizes])["size"]
    assert alone.accuracy > 0.95
    assert together.accuracy < 0.75
    assert together.warning is None
    low, high = together.accuracy_ci95
    assert high - low > 0.25, "30 groups, not 240 photos"


def test_many_photos_are_drawn_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shortcuts, "MOST_PHOTOS", 60)
    labels = np.arange(400) % 2
    found = check(labels=labels, width=[300 + int(y) for y in labels])["size"]
    assert found.accuracy == 1
    assert found.accuracy_ci95 == pytest.approx(held_out_interval(np.ones(60), np.arange(60), 5))
    assert found.warning is not None


@pytest.mark.parametrize("labels", [np.arange(12) % 3, np.arange(150) * 0, np.array([0] * 149 + [1])])
def test_too_few_photos_or_classes_are_not_checked(labels: np.ndarray) -> None:
    assert check(labels=labels, width=list(range(200, 200 + len(labels)))) == {}


def test_the_record_is_plain_and_the_same_each_time() -> None:
    width = [300 + int(w) for w in RNG.integers(0, 50, 150)]
    (first, second) = (check(width=width)["size"].to_json() for _ in range(2))
    assert first == second
    assert set(first) == {"name", "words", "accuracy", "accuracy_ci95", "baseline", "warning", "note"}


def test_odd_paths_are_no_trouble() -> None:
    odd = ["", "a", "\udcff\udcfe", "9" * 200, "名前 3", "x\ny", "..."] * 20 + ["C:\\photos\\1.jpg"] * 10
    assert "file name" in check(path=odd)
