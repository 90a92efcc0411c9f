"""The real weights: each file builds, and two of them classify real photos."""

from pathlib import Path

import numpy as np
import pytest
import torch

from headstart.backbone import cut, networks, weights
from headstart.data import pixels

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("file", "stop", "d_features"),
    [
        ("resnet50_keras_v1.to_layer3.safetensors", "layer3", 1024),
        ("inception_v3.to_mixed_7a.safetensors", "Mixed_7a", 1280),
        ("mobilenetv2_100.imagenet1001.safetensors", None, 1280),
        ("vit_tiny_patch16_224.imagenet1000.safetensors", None, 192),
    ],
)
def test_each_file_builds_with_the_stop_it_needs(shared: Path, file: str, stop: str | None, d_features: int) -> None:
    network = networks.build(weights.locate(None, shared / "weights" / file), stop=stop)
    px = network.preprocessing.input_px
    trunk, tail = cut.split(network, "head")
    assert tail.d_features == d_features
    assert trunk(torch.full((1, px, px, 3), 128, dtype=torch.uint8)).shape == (1, d_features)


@pytest.mark.parametrize(
    ("file", "stop"), [("resnet50_keras_v1.to_layer3.safetensors", "layer3"), ("inception_v3.to_mixed_7a.safetensors", "Mixed_7a")]
)
def test_incomplete_files_say_where_to_stop(shared: Path, file: str, stop: str) -> None:
    with pytest.raises(weights.WeightsError, match=f"--stop {stop}"):
        networks.build(weights.locate(None, shared / "weights" / file))


@pytest.mark.parametrize(
    ("file", "least"), [("mobilenetv2_100.imagenet1001.safetensors", 0.87), ("vit_tiny_patch16_224.imagenet1000.safetensors", 0.83)]
)
def test_real_photos_get_their_own_class(shared: Path, file: str, least: float) -> None:
    network = networks.build(weights.locate(None, shared / "weights" / file))
    assert network.synsets is not None
    trunk, tail = cut.split(network, "head")
    photos = sorted((shared / "data" / "imagenet-samples").iterdir())
    n_right = 0
    for start in range(0, len(photos), 32):
        some = photos[start : start + 32]
        with torch.inference_mode():
            indices = tail(trunk(torch.from_numpy(np.stack([pixels.load(path, network.preprocessing) for path in some])))).argmax(1)
        n_right += sum(path.name.startswith(network.synsets[index]) for path, index in zip(some, indices.tolist(), strict=True))
    assert len(photos) == 334
    assert n_right / len(photos) >= least
