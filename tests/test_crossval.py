"""Cross-validated figures of a finished run, from its stored features."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import headstart
from headstart.crossval import cross_validate
from headstart.errors import ConfigError, DataError, WeightsError
from headstart.evaluate.intervals import wilson
from samples import make_photos


def change(run: Path, *keys: str, to: object) -> None:
    """Set a value in run.json."""
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    place = record
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = to
    (run / "run.json").write_text(json.dumps(record), encoding="utf-8")


def test_every_photo_is_held_out_once_and_nothing_is_computed_again(tiny_weights: Path, tmp_path: Path) -> None:
    run = headstart.fit(make_photos(tmp_path / "photos", n=12), weights=tiny_weights, out=tmp_path / "run")
    found = cross_validate(run.folder, folds=4)
    assert found.metrics["n"] == sum(fold.n for fold in found.folds) == 36
    assert len(found.folds) == 4
    assert found.rows_computed == 0
    assert found.metrics["accuracy"] == pytest.approx(sum(fold.n * fold.accuracy for fold in found.folds) / 36)
    assert found.metrics["accuracy"] > 0.8  # colours are easy
    low, high = found.metrics["accuracy_ci95"]
    pooled = wilson(round(36 * found.metrics["accuracy"]), 36)
    assert low < pooled[0]
    assert high >= pooled[1]
    assert found.metrics["ci95"]["accuracy"] == found.metrics["accuracy_ci95"]
    assert found.notices == ()
    again = cross_validate(run.folder, folds=4)
    assert (again.metrics, again.folds) == (found.metrics, found.folds)
    assert set(found.to_json()) == {*found.metrics, "cross_validation"}

    change(run.folder, "tuning", "kept", to="average")
    change(run.folder, "config", "head", "kind", to="dense")
    change(run.folder, "config", "test_views", to=2)
    assert [notice.split(":")[0] for notice in cross_validate(run.folder, folds=2).notices] == [
        "this run has a dense head",
        "this run was fine-tuned",
        "this run answers with the mean over photo and mirror image",
    ]


def test_photos_of_a_group_are_held_out_together(tiny_weights: Path, tmp_path: Path) -> None:
    # Noise in pairs that are nearly equal: who has seen one knows the other, and nothing else can be known.
    rng = np.random.default_rng(0)
    with (tmp_path / "photos.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "group"])
        for i in range(24):
            image = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            for twin in "ab":
                image[0, 0, 0] ^= 1
                Image.fromarray(image).save(tmp_path / f"{i}{twin}.png")
                rows.writerow([f"{i}{twin}.png", ("heads", "tails")[i % 2], f"pair {i}"])
    run = headstart.fit(tmp_path / "photos.csv", weights=tiny_weights, out=tmp_path / "run")
    found = cross_validate(run.folder, folds=4)
    assert found.metrics["accuracy"] < 0.8
    low, high = found.metrics["accuracy_ci95"]
    pooled = wilson(round(48 * found.metrics["accuracy"]), 48)
    assert high - low > 1.8 * (pooled[1] - pooled[0])  # 24 pairs say less than 48 photos, and folds share what they learned from


def test_what_cannot_be_cross_validated_is_refused(tiny_weights: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(tiny_weights.read_bytes())
    run = headstart.fit(make_photos(tmp_path / "photos", n=6), weights=moved, out=tmp_path / "run").folder
    with pytest.raises(ConfigError, match="expected 2 folds or more, found 1"):
        cross_validate(run, folds=1)
    moved.rename(tmp_path / "elsewhere.safetensors")
    with pytest.raises(WeightsError, match=r"no longer at .*moved\.safetensors\nhint: say where they are with --weights FILE"):
        cross_validate(run)
    assert cross_validate(run, weights=tmp_path / "elsewhere.safetensors").metrics["n"] == 18
    change(run, "backbone", "weights_sha256", to="0" * 64)
    with pytest.raises(WeightsError, match="holds other weights than this run used"):
        cross_validate(run, weights=tmp_path / "elsewhere.safetensors")
    with pytest.raises(DataError, match="no run at"):
        cross_validate(tmp_path / "none")
