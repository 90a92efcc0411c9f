"""Finished runs against each other: which photos count, and what is said."""

import json
from pathlib import Path

import pytest

import headstart
from comparing_samples import make_run
from headstart.errors import ConfigError, DataError

LABELS = {f"{i:02}": ("cat", "dog")[i % 2] for i in range(40)}
ALL = dict.fromkeys(LABELS, True)
HALF = {photo: int(photo) < 20 for photo in LABELS}


def test_runs_on_the_same_photos_are_compared_wherever_the_photos_were(tmp_path: Path) -> None:
    first = make_run(tmp_path / "a", LABELS, HALF)
    backwards = dict(reversed(LABELS.items()))
    second = make_run(tmp_path / "b", backwards, ALL, at="elsewhere", classes=("dog", "cat"))
    found = headstart.compare(first, str(second))
    assert found.n == 40
    assert found.notices == ()
    assert [one.accuracy for one in found.runs] == [0.5, 1.0]
    pair = found.against_first[0]
    assert (pair.only_first, pair.only_second, pair.verdict) == (0, 20, "better")
    assert found.words[0].startswith(f"{second} is better than {first}: 20 more of 40 photos right, +50.0 points (95 % interval ")
    assert json.loads(json.dumps(found.to_json()))["against_first"][0]["only_second"] == 20


def test_equal_runs_and_nearly_equal_runs_cannot_be_told_apart(tmp_path: Path) -> None:
    first = make_run(tmp_path / "a", LABELS, HALF)
    same = make_run(tmp_path / "same", LABELS, HALF)
    near = make_run(tmp_path / "near", LABELS, HALF | {"30": True, "31": True, "02": False})
    swapped = make_run(tmp_path / "swapped", LABELS, HALF | {"30": True, "02": False})
    words = headstart.compare(first, same, near, swapped).words
    assert words[0] == f"Cannot tell {same} from {first}: both are right on the same of 40 photos."
    assert words[1].startswith(f"Cannot tell {near} from {first}: 1 more of 40 photos right, +2.5 points")
    assert "test photos would tell a difference as large as this one, four times in five." in words[1]
    assert f"Cannot tell {swapped} from {first}: as many of 40 photos right, +0.0 points" in words[2]
    assert "would tell a difference of one point" in words[2]


def test_with_more_runs_chance_has_more_chances(tmp_path: Path) -> None:
    first = make_run(tmp_path / "a", LABELS, HALF)
    better = make_run(tmp_path / "b", LABELS, HALF | {f"{i}": True for i in range(20, 26)})  # 6 to none: p = 0.031
    alone = headstart.compare(first, better).against_first[0]
    among_two = headstart.compare(first, better, make_run(tmp_path / "c", LABELS, HALF)).against_first[0]
    assert (alone.verdict, among_two.verdict) == ("better", "cannot tell")
    assert among_two.p == pytest.approx(2 * alone.p)


def test_photos_that_another_run_trained_on_are_left_out_and_told(tmp_path: Path) -> None:
    first = make_run(tmp_path / "a", LABELS, ALL)
    known = tuple(LABELS)[:10]
    others = {photo: label for photo, label in LABELS.items() if photo not in known and photo != "39"}
    second = make_run(tmp_path / "b", others, ALL, trained=known)
    found = headstart.compare(first, second)
    assert found.n == 29
    assert [one.n_test for one in found.runs] == [40, 29]
    assert f"10 test photos of {first} trained {second}, which knows them: they are left out" in found.notices
    assert any(f"({first} 40, {second} 29): these figures are of the 29 that all have in common" in notice for notice in found.notices)


def test_copies_on_both_sides_of_a_split_are_left_out_as_the_sentence_says(tmp_path: Path) -> None:
    first = make_run(tmp_path / "a", LABELS, ALL, trained=("00",))  # an exact copy trained it
    second = make_run(tmp_path / "b", LABELS, HALF, trained=("00", "01", "02"))
    found = headstart.compare(first, second)
    assert found.n == found.against_first[0].n == 37
    assert found.notices == (
        f"1 test photo of {first} also trained it, as a copy: it is left out",
        f"3 test photos of {first} trained {second}, which knows them: they are left out",
        f"1 test photo of {second} trained {first}, which knows it: it is left out",
        f"3 test photos of {second} also trained it, as copies: they are left out",
    )
    assert found.runs[1].accuracy == 17 / 37


def test_photos_under_another_label_or_of_a_class_one_run_does_not_know_are_left_out(tmp_path: Path) -> None:
    three = ("cat", "dog", "owl")
    first = make_run(tmp_path / "a", LABELS | {"00": "owl"}, ALL, classes=three)
    second = make_run(tmp_path / "b", LABELS | {"00": "owl", "01": "cat"}, ALL, classes=three)
    third = make_run(tmp_path / "c", LABELS | {"00": "owl", "01": "cat"}, ALL, classes=("cat", "owl", "hen", "dog"))
    found = headstart.compare(first, second, third)
    assert found.n == 39
    assert "1 photo has another label in another run: it is left out" in found.notices
    without = make_run(tmp_path / "d", {photo: label for photo, label in LABELS.items() if photo != "00"}, ALL)
    assert headstart.compare(first, without).n == 39
    fewer = make_run(tmp_path / "e", LABELS | {"00": "owl"}, ALL, classes=three)
    relabelled = make_run(tmp_path / "f", LABELS, ALL)
    assert headstart.compare(fewer, relabelled).n == 39


def test_runs_without_a_common_photo_are_refused_with_a_way_out(tmp_path: Path) -> None:
    photos = list(LABELS)
    halves = [{photo: LABELS[photo] for photo in some} for some in (photos[:20], photos[20:])]
    first = make_run(tmp_path / "a", halves[0], ALL, trained=tuple(halves[1]))
    second = make_run(tmp_path / "b", halves[1], ALL, trained=tuple(halves[0]))
    with pytest.raises(DataError, match=rf"no test photo in common.*20 test photos of {first} trained {second}") as refused:
        headstart.compare(first, second)
    assert refused.value.hint == f"train them on one split: headstart train DATA --split {first}/split.csv"


def test_what_is_no_pair_of_finished_runs_is_refused(tmp_path: Path) -> None:
    first = make_run(tmp_path / "a", LABELS, ALL)
    with pytest.raises(ConfigError, match="two or more different runs"):
        headstart.compare(first)
    with pytest.raises(ConfigError, match="two or more different runs"):
        headstart.compare(first, first.parent / "." / "a")
    with pytest.raises(DataError, match="is unfinished"):
        headstart.compare(first, make_run(tmp_path / "b", LABELS, ALL, status="tested"))
    with pytest.raises(DataError, match="no run at"):
        headstart.compare(first, tmp_path / "none")
    broken = make_run(tmp_path / "c", LABELS, ALL)
    (broken / "predictions.csv").unlink()
    with pytest.raises(DataError, match=r"cannot be read: predictions\.csv is missing"):
        headstart.compare(first, broken)
    mixed = make_run(tmp_path / "d", LABELS, ALL)
    (mixed / "predictions.csv").write_bytes((make_run(tmp_path / "e", LABELS, ALL, at="new") / "predictions.csv").read_bytes())
    with pytest.raises(DataError, match="are of different test photos"):
        headstart.compare(first, mixed)
