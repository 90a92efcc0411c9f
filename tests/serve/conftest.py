"""A real trained model, a real server."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from serve_tools import Running, Serve

from bundle.tiny import LABELS, PREPROCESSING, TinyNet
from headstart.bundle.export import build_bundle
from headstart.bundle.format import Bundle, load_bundle
from headstart.serve.app import Server
from headstart.serve.models import Models, load
from headstart.serve.settings import Settings


def build(folder: Path, seed: int) -> Path:
    """A bundle with everything a bundle may have."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = TinyNet().eval().requires_grad_(False)
    build_bundle(
        folder,
        module=network,
        labels=LABELS,
        preprocessing=PREPROCESSING,
        temperature=1.0 + seed,
        provenance={"backbone": {"name": "tiny"}, "finished": "2026-11-20T10:00:00+00:00"},
        licence="MIT",
        thresholds={"tabby": 0.5},
        none_of_these={"score": "energy", "threshold": -0.5, "false_alarms": 0.05, "detection": None},
        conformal={"coverage": 0.9, "threshold": 0.05},
    )
    return folder


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("served") / "run" / "model", 0)


@pytest.fixture(scope="session")
def other_built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("served") / "other" / "model", 1)


@pytest.fixture(scope="session")
def bundle(built: Path) -> Bundle:
    return load_bundle(built)


@pytest.fixture
def folder(built: Path, tmp_path: Path) -> Path:
    """The model's folder, this test's own, with a card beside it."""
    (tmp_path / "flowers").mkdir()
    (tmp_path / "flowers" / "MODEL_CARD.md").write_text("---\nlicense: mit\n---\n# Flowers\n\nMade for tests.\n", encoding="utf-8")
    return Path(shutil.copytree(built, tmp_path / "flowers" / "model"))


@pytest.fixture
def serve() -> Iterator[Serve]:
    """`serve({"a": bundle}, queue=2)`: a server that ends with the test."""
    running: list[Running] = []

    def start(
        bundles: dict[str, Bundle], *, watch_s: float = 3600, provider: str = "onnxruntime", head_s: float = 30, **settings: object
    ) -> Running:
        models = Models([load(name, one, provider) for name, one in bundles.items()], provider)
        running.append(Running(Server(models, Settings(**settings), watch_s=watch_s), head_s=head_s))
        return running[-1]

    yield start
    for one in running:
        one.close()


@pytest.fixture(scope="module")
def running(bundle: Bundle) -> Iterator[Running]:
    """One server with default settings for tests that leave it as it is."""
    one = Running(Server(Models([load("tiny", bundle, "onnxruntime")], "onnxruntime"), Settings(), watch_s=3600))
    yield one
    one.close()
