"""The whole exploration: every file, the same again, clear errors; and its abridged form, in which test photos choose nothing."""

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from headstart.data.scan import scan
from headstart.data.split import split_table
from headstart.data.table import Table
from headstart.errors import ConfigError, DataError
from headstart.explore.checks import checks
from headstart.explore.exploration import Exploration
from headstart.explore.explore import explore
from headstart.explore.words import findings
from samples import make_photos


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 photos each of three classes; one is there twice, one lies in the wrong class, one file is no photo."""
    folder = make_photos(tmp_path_factory.mktemp("photos"), n=12)
    shutil.copy(folder / "red" / "photo 1.png", folder / "red" / "copy.png")
    (folder / "red" / "photo 2.jpg").rename(folder / "blue sky" / "wrong.jpg")
    whole = (folder / "red" / "photo 0.jpg").read_bytes()
    (folder / "red" / "broken.jpg").write_bytes(whole[: len(whole) // 2])
    return folder


@pytest.fixture(scope="module")
def found(photos: Path, tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Exploration:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADSTART_CACHE", str(tmp_path_factory.mktemp("cache")))
        return explore(photos, out=tmp_path_factory.mktemp("out"), weights=tiny_weights)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_everything_that_is_there_is_found(found: Exploration) -> None:
    facts = found.to_json()
    assert facts["data"]["n"] == 37
    assert {name: row["all"] for name, row in facts["data"]["classes"].items()} == {"blue sky": 13, "grün": 12, "red": 12}
    assert sum(facts["data"]["splits"].values()) == 37
    assert facts["data"]["omitted"] == {"truncated": 1}
    assert facts["data"]["small_classes"] == ["blue sky", "grün", "red"]
    assert facts["duplicates"]["n_exact"] == 1
    assert facts["suspects"]["photos"][0]["path"] == "blue sky/wrong.jpg"
    assert facts["suspects"]["photos"][0]["likely"] == "red"
    assert facts["suspects"]["n_checked"] == 37
    assert facts["out_of_fold"]["n"] == 37
    assert facts["out_of_fold"]["accuracy"] > 0.8
    assert facts["backbone"] == "test_resnet"
    assert found.looks.mean.shape == (37, 3)
    assert all(len(paths) == 8 for paths in facts["samples"].values())
    assert set(facts["seconds"]) == {"scan", "look", "trunk", "duplicates", "head", "suspects", "shortcuts", "honesty", "growth", "map"}


def test_every_file_is_written_and_says_the_same(found: Exploration) -> None:
    assert json.loads((found.folder / "explore.json").read_text()) == json.loads(json.dumps(found.to_json()))
    assert "<html" in (found.folder / "report.html").read_text(encoding="utf-8")
    assert rows_of(found.folder / "suspects.csv")[0]["path"] == "blue sky/wrong.jpg"
    split = next(photo.split for photo in found.table.photos if photo.path == "blue sky/wrong.jpg")
    assert {"path": "blue sky/wrong.jpg", "label": "red", "split": split} in rows_of(found.folder / "corrections.csv")
    assert {row["path"] for row in rows_of(found.folder / "duplicates.csv")} >= {"red/copy.png", "red/photo 1.png"}
    assert rows_of(found.folder / "omitted.csv") == [{"path": "red/broken.jpg", "reason": "truncated"}]


def test_the_same_photos_give_the_same_again_and_an_exploration_is_replaced(
    found: Exploration, photos: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(found.folder, out)
    again = explore(photos, out=out, weights=tiny_weights)
    drop = {"seconds"}
    assert {k: v for k, v in again.to_json().items() if k not in drop} == {k: v for k, v in found.to_json().items() if k not in drop}
    np.testing.assert_array_equal(again.map.xy, found.map.xy)
    for name in ("suspects.csv", "corrections.csv", "duplicates.csv", "omitted.csv"):
        assert (out / name).read_bytes() == (found.folder / name).read_bytes()


def test_what_is_no_exploration_is_not_overwritten(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="is not empty and holds no exploration\nhint: choose another --out"):
        explore(photos, out=tmp_path)
    with pytest.raises(ConfigError, match="expected a folder for the exploration, found a file"):
        explore(photos, out=tmp_path / "thesis.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_photo_that_vanishes_on_the_way_is_a_clear_error_and_leaves_nothing(
    photos: Path, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "photos"
    shutil.copytree(photos, data)

    def scan_then_remove(*given: object, **named: object) -> Table:
        table = scan(*given, **named)
        (data / "red" / "photo 4.jpg").unlink()
        return table

    monkeypatch.setattr("headstart.explore.explore.scan", scan_then_remove)
    with pytest.raises(
        DataError, match=r"cannot read .*photo 4\.jpg any more: No such file or directory\nhint: run the same command again"
    ):
        explore(data, out=tmp_path / "out", weights=tiny_weights)
    assert not (tmp_path / "out").exists()


def test_photos_too_few_for_a_head_are_still_looked_at(tiny_weights: Path, tmp_path: Path) -> None:
    few = explore(make_photos(tmp_path / "few", n=1), out=tmp_path / "out", weights=tiny_weights)
    assert few.overview.splits["train"] == 3
    assert few.oof is None
    assert few.to_json()["suspects"] is None
    assert not (few.folder / "suspects.csv").exists()
    assert "Too few photos to judge their labels." in [finding.text for finding in findings(few.to_json())]


@pytest.fixture
def split_photos(photos: Path) -> Table:
    return split_table(scan(photos), seed=0)


def answers(table: Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Made-up features that tell the classes apart, and out-of-fold logits for all but the test photos."""
    rng = np.random.default_rng(0)
    rows = (np.eye(3)[table.labels] @ rng.normal(size=(3, 6)) + 0.3 * rng.normal(size=(len(table), 6))).astype(np.float32)
    index = np.flatnonzero([photo.split != "test" for photo in table.photos])
    return rows, (4 * np.eye(3)[table.labels[index]] + rng.normal(size=(len(index), 3))).astype(np.float32), index


def test_the_checks_of_a_run_hold_what_its_file_promises(split_photos: Table) -> None:
    rows, logits, index = answers(split_photos)
    found = json.loads(json.dumps(checks(split_photos, rows, logits, index, seed=0)))
    assert set(found) == {"duplicates", "naive", "suspects", "shortcuts", "learning_curve"}
    assert found["duplicates"]["n_exact"] == 1
    assert found["duplicates"]["across_splits"] == 0
    assert found["suspects"]["n_checked"] == len(index)
    assert {"name", "words", "accuracy", "accuracy_ci95", "baseline", "warning"} <= set(found["shortcuts"][0])


def test_the_labels_of_test_photos_change_no_check(split_photos: Table) -> None:
    rows, logits, index = answers(split_photos)
    flipped = split_photos.with_photos(
        [dataclasses.replace(photo, label="grün") if photo.split == "test" else photo for photo in split_photos.photos]
    )
    assert flipped.photos != split_photos.photos
    before, after = (checks(table, rows, logits, index, seed=0) for table in (split_photos, flipped))
    for part in ("naive", "suspects", "shortcuts", "learning_curve"):
        assert before[part] == after[part]


def test_duplicates_of_a_test_set_that_the_network_never_saw_are_found(split_photos: Table) -> None:
    seen = split_photos.subset([i for i, photo in enumerate(split_photos.photos) if photo.split != "test"])
    first = seen.photos[0]
    copy = dataclasses.replace(first, path="elsewhere.png", split="test")
    whole = split_photos.with_photos([*seen.photos, copy])
    rows, logits, index = answers(seen)
    found = checks(seen, rows, logits, index, seed=0, whole=whole)
    assert found["duplicates"]["across_splits"] == 1


def test_where_only_one_class_can_be_held_out_no_score_is_told(tiny_weights: Path, tmp_path: Path) -> None:
    folder = make_photos(tmp_path / "photos", n=8, classes=("red", "blue"))
    for photo in sorted((folder / "blue").iterdir())[1:]:
        photo.unlink()
    found = explore(folder, out=tmp_path / "out", weights=tiny_weights)
    assert found.to_json()["out_of_fold"]["only_class"] == "red"
    said = next(finding.text for finding in findings(found.to_json()) if finding.topic == "score")
    assert said.startswith("Only photos of 'red' could be held out, so nothing is known of how well")
    page = (found.folder / "report.html").read_text(encoding="utf-8")
    assert "Only photos of <bdi>red</bdi> could be held out" in page
    assert "of photos it had not seen" not in page


def test_the_score_of_photos_held_out_stands_beside_that_of_always_answering_one_class(found: Exploration) -> None:
    said = next(finding.text for finding in findings(found.to_json()) if finding.topic == "score")
    assert "always answering the most frequent class for 35.1 %" in said  # 13 of 37
    assert found.to_json()["out_of_fold"]["majority"] == pytest.approx(13 / 37)


def test_photos_that_hold_values_that_are_not_finite_are_named(found: Exploration) -> None:
    paths = [f"red/{i}.tif" for i in range(20)]
    facts = facts_with(found, looks={**found.to_json()["looks"], "not_finite": 23, "not_finite_photos": paths})
    said = [finding.text for finding in findings(facts) if finding.topic == "pixels" and finding.warning]
    assert said == [
        "23 photos hold values that are not finite, which are read as black or white: "
        "red/0.tif, red/1.tif, red/2.tif, red/3.tif, red/4.tif and 18 more."
    ]


def facts_with(found: Exploration, **parts: object) -> dict[str, object]:
    return {**found.to_json(), **parts}


def test_findings_tell_what_to_act_on(found: Exploration) -> None:
    said = {finding.topic: finding for finding in findings(found.to_json())}
    assert said["classes"].text.startswith("3 classes have fewer than 30 photos")
    assert said["classes"].warning
    assert said["files"].text == "1 file left out: truncated (1). omitted.csv names each."
    assert "blue sky/wrong.jpg ('blue sky', likely 'red')" in said["labels"].text
    assert said["duplicates"].text.startswith("2 photos in 1 cluster of duplicates (1 of equal files)")
    assert not said["duplicates"].warning  # it lies in one split and in one class


def test_uneven_classes_are_told_in_plain_words(found: Exploration) -> None:
    data = dict(found.to_json()["data"], imbalance=9.0, majority=0.9, small_classes=[])
    data["classes"] = {"cat": {"all": 900}, "dog": {"all": 100}}
    texts = [finding for finding in findings(facts_with(found, data=data)) if finding.topic == "classes"]
    assert [finding.warning for finding in texts] == [True]
    assert "'cat' has 9.0 times as many photos as 'dog' (900 and 100). Always answering 'cat' would be right for 90.0 %" in texts[0].text
    data.update(imbalance=1.0, classes={"cat": {"all": 500}, "dog": {"all": 500}})
    assert findings(facts_with(found, data=data))[0].text == "Classes are even: 500 photos each."


def test_a_leak_a_shortcut_and_a_naive_score_are_warnings(found: Exploration) -> None:
    counts = {"n_exact": 0, "n_near": 2, "n_photos": 5, "across_splits": 2, "across_test": 2, "across_classes": 1}
    duplicates = {**found.to_json()["duplicates"], **counts}
    shortcuts = [{"name": "camera", "warning": "The camera alone tells the class."}, {"name": "size", "warning": None}]
    naive = {"honest": {"accuracy": 0.8}, "naive": {"accuracy": 0.912}, "differ": True}
    facts = facts_with(found, duplicates=duplicates, shortcuts=shortcuts, naive=naive)
    warnings = {finding.topic: finding.text for finding in findings(facts) if finding.warning}
    assert "2 clusters lie in test and outside it" in warnings["duplicates"]
    assert "1 cluster lies in more than one class" in warnings["duplicates"]
    assert warnings["shortcuts"] == "The camera alone tells the class."
    assert "would show 91.2 % instead of 80.0 %" in warnings["score"]
