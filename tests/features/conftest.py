"""A store for each test, and a space with twenty rows in it."""

from pathlib import Path

import pytest
from store_samples import SPEC, fill, keys_of

from headstart.features.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", budget_bytes=100 << 20)


@pytest.fixture
def filled(store: Store) -> Path:
    """The folder of a space with rows 0 to 19."""
    with store.space(SPEC) as space:
        fill(space, keys_of(range(20)))
        return space.folder
