from pathlib import Path

import pytest

from headstart.errors import ConfigError, DataError
from headstart.exporting.photos import choose, run_of
from headstart.runs import Run
from samples import make_photos


def test_a_run_calibrates_on_its_train_photos_and_tests_on_its_test_photos(run: Run) -> None:
    chosen = choose(run.bundle, run.folder, None, int8=True)
    split = {path: row for row in (run.folder / "split.csv").read_text(encoding="utf-8").splitlines()[1:] for path in [row.split(",")[0]]}
    root = Path(run.record["data"]["root"])
    assert {split[path.relative_to(root).as_posix()].split(",")[2] for path in chosen.calibrate} == {"train"}
    assert chosen.test is not None
    assert len(chosen.test) == run.metrics["test"]["n"]
    assert chosen.calibrate == choose(run.bundle, run.folder, None, int8=True).calibrate
    assert chosen.calibrate != sorted(chosen.calibrate)


def test_data_without_splits_is_divided_and_no_copy_straddles(run: Run, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", n=10, seed=5)
    for i in range(5):  # copies of one photo
        (photos / "red" / f"copy {i}.jpg").write_bytes((photos / "red" / "photo 0.jpg").read_bytes())
    chosen = choose(run.bundle, None, str(photos), int8=True)
    assert chosen.test is not None
    tested = [chosen.test.file(i) for i in range(len(chosen.test))]
    assert len(chosen.calibrate) == 35 // 3
    assert not {path.read_bytes() for path in tested} & {path.read_bytes() for path in chosen.calibrate}
    whole = choose(run.bundle, None, str(photos), int8=False)
    assert whole.test is not None
    assert (len(whole.calibrate), len(whole.test)) == (0, 35)


def test_data_that_trained_the_model_is_told(run: Run, tmp_path: Path) -> None:
    own = str(run.record["data"]["root"])
    n_seen = run.record["data"]["n"] - run.metrics["test"]["n"]
    told = f"{n_seen} of these photos trained this model: it knows them, so the numbers are too good"
    assert choose(run.bundle, run.folder, own, int8=False).notices == (told,)
    (apart,) = choose(run.bundle, None, own, int8=False).notices
    assert "cannot be checked" in apart
    assert choose(run.bundle, run.folder, str(make_photos(tmp_path / "others", n=4, seed=5)), int8=False).notices == ()
    assert choose(run.bundle, run.folder, None, int8=False).notices == ()


def test_int8_without_photos_and_photos_of_other_classes_are_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="int8 needs photos to be calibrated and tested on") as caught:
        choose(run.bundle, None, None, int8=True)
    assert caught.value.hint == "give labelled photos of the model's classes with --data"
    photos = make_photos(tmp_path / "photos", n=4, classes=("red", "pink"))
    with pytest.raises(DataError, match="does not know 1 of the data's classes: pink"):
        choose(run.bundle, None, str(photos), int8=True)
    assert choose(run.bundle, None, None, int8=False).test is None


def test_a_run_is_found_by_its_folder_and_by_its_model(run: Run, tmp_path: Path) -> None:
    assert run_of(run.folder) == run_of(run.folder / "model") == run.folder
    assert run_of(tmp_path) is None
    assert run_of("mobilenetv2_100") is None
