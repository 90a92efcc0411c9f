"""A real trained-model folder with a network of three small layers, exported once and copied for each test."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny import LABELS, PREPROCESSING, TinyNet

from headstart.bundle.export import build_bundle
from headstart.bundle.format import Bundle, load_bundle


@pytest.fixture(scope="session")
def tiny_net() -> TinyNet:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return TinyNet().eval().requires_grad_(False)


@pytest.fixture(scope="session")
def _built(tiny_net: TinyNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built") / "model"
    build_bundle(
        folder,
        module=tiny_net,
        labels=LABELS,
        preprocessing=PREPROCESSING,
        temperature=1.5,
        provenance={"backbone": {"name": "tiny"}},
        licence="MIT",
        tail_state={"weight": torch.arange(3.0)},
        thresholds={"tabby": 0.5},
    )
    return folder


@pytest.fixture
def folder(_built: Path, tmp_path: Path) -> Path:
    """The model's folder, this test's own."""
    return Path(shutil.copytree(_built, tmp_path / "model"))


@pytest.fixture
def bundle(folder: Path) -> Bundle:
    return load_bundle(folder)


@pytest.fixture
def photo(tmp_path: Path) -> Callable[..., Path]:
    """Makes a photo of one colour: `photo("a.png", (255, 0, 0))`."""

    def make(name: str, colour: tuple[int, int, int] = (200, 20, 20)) -> Path:
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 36), colour).save(path, "PNG")
        return path

    return make
