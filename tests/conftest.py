"""Shared by all tests: where real photos and weights lie, a cache of their own for every test, no progress bars."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from headstart import progress

if TYPE_CHECKING:
    from headstart.backbone.networks import Network

hypothesis.settings.register_profile("headstart", deadline=None)  # a busy machine is no bug
hypothesis.settings.load_profile("headstart")

# Started in the background (`make test &`), this process ignores Ctrl-C and so would the commands that tests start and interrupt.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real photos and real weights; tests that need it skip where it is absent."""
    given = os.environ.get("HEADSTART_SHARED")
    folder = Path(given) if given else Path(__file__).resolve().parents[2] / "shared"
    if not (folder / "weights").is_dir():
        pytest.skip(f"no real photos and weights at {folder} (set HEADSTART_SHARED)")
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh, empty cache folder for each test."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("HEADSTART_CACHE", str(folder))
    return folder


@pytest.fixture(autouse=True)
def no_progress() -> Iterator[None]:
    with progress.quiet():
        yield


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a real network of 0.2 million parameters for 32 px photos, seeded, not trained."""
    import json

    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    network = timm.create_model("test_resnet", num_classes=0)
    record = {
        "architecture": "test_resnet",
        "timm_architecture": "test_resnet",
        "model_args": {"num_classes": 0},
        "complete_through": "layer4",
        "input_px": 32,
        "crop": 1.0,
        "interpolation": "bilinear",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
        "bn_folded": False,
        "classes": 0,
        "licence": "MIT",
    }
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(network.state_dict(), path, metadata={"headstart": json.dumps(record)})
    return path


@pytest.fixture(scope="module")
def network(tiny_weights: Path) -> "Network":
    """That network, built."""
    from headstart.backbone import networks, weights

    return networks.build(weights.locate(None, tiny_weights))
