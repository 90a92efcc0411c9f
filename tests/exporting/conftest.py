"""A finished run on made photos, trained once; each test has its own cache all the same."""

from pathlib import Path

import pytest

import headstart
from headstart import progress
from headstart.runs import Run
from samples import make_photos


@pytest.fixture(scope="session")
def run(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("exporting")
    photos = make_photos(folder / "photos", n=24)
    with pytest.MonkeyPatch.context() as patch, progress.quiet():
        patch.setenv("HEADSTART_CACHE", str(folder / "cache"))
        return headstart.fit(photos, weights=tiny_weights, out=folder / "run", recipe="quick")
