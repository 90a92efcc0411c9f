"""The floors that real weights must reach on real photos (make test-slow)."""

import statistics
from pathlib import Path

import pytest

import headstart

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("backbone", "file", "stop", "floor"),
    [
        ("resnet50_keras_v1", "resnet50_keras_v1.to_layer3.safetensors", "layer3", 0.87),
        ("inception_v3", "inception_v3.to_mixed_7a.safetensors", "Mixed_7a", 0.88),
        ("mobilenetv2_100", "mobilenetv2_100.imagenet1001.safetensors", None, 0.87),
        ("vit_tiny_patch16_224", "vit_tiny_patch16_224.imagenet1000.safetensors", None, 0.90),
    ],
)
def test_frozen_features_tell_flowers_apart(shared: Path, tmp_path: Path, backbone: str, file: str, stop: str | None, floor: float) -> None:
    photos, weights = shared / "data" / "flowers", shared / "weights" / file
    runs = [headstart.fit(photos, backbone=backbone, weights=weights, stop=stop, seed=seed, out=tmp_path / str(seed)) for seed in (0, 1, 2)]
    assert statistics.mean(run.accuracy for run in runs) >= floor
    assert [run.record["trunk"]["rows_computed"] for run in runs] == [1000, 0, 0]


@pytest.mark.parametrize(
    ("backbone", "file", "floor"),
    [
        ("mobilenetv2_100", "mobilenetv2_100.imagenet1001.safetensors", 0.87),
        ("vit_tiny_patch16_224", "vit_tiny_patch16_224.imagenet1000.safetensors", 0.83),
    ],
)
def test_pretrained_networks_name_imagenet_photos(shared: Path, backbone: str, file: str, floor: float) -> None:
    photos = sorted((shared / "data" / "imagenet-samples").glob("*.jpg"))
    model = headstart.load(backbone, weights=shared / "weights" / file)
    answers = model.predict(photos, top=3)
    right = [answer.id == photo.name.split("_")[0] for answer, photo in zip(answers, photos, strict=True)]
    assert len(right) == 334
    assert statistics.mean(right) >= floor
