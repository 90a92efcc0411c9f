"""The map of the features: neighbours stay together, the same map for the same photos, whatever the photos."""

import numpy as np
import pytest

from headstart.explore import map as feature_maps
from headstart.explore.map import feature_map


def share_of_neighbours_alike(xy: np.ndarray, labels: np.ndarray, k: int = 5) -> float:
    """How many of each point's k nearest are of its class."""
    distance = ((xy[:, None] - xy[None]) ** 2).sum(axis=2)
    np.fill_diagonal(distance, np.inf)
    return float((labels[np.argsort(distance, axis=1)[:, :k]] == labels[:, None]).mean())


def test_classes_that_no_plane_through_the_features_tells_apart_lie_apart() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(12), 15)
    rows = 4 * np.eye(12)[labels] + rng.normal(0, 0.5, (180, 12))
    found = feature_map(rows, seed=0)
    centred = rows - rows.mean(axis=0)
    plane = centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T
    assert share_of_neighbours_alike(found.xy, labels) > 0.95
    assert share_of_neighbours_alike(plane, labels) < 0.6
    assert found.method == "t-SNE of the features"


def test_the_same_photos_give_the_same_map() -> None:
    rows = np.random.default_rng(1).normal(size=(60, 20)).astype(np.float16)
    one, same = feature_map(rows, seed=3), feature_map(rows.copy(), seed=3)
    np.testing.assert_array_equal(one.xy, same.xy)


@pytest.mark.parametrize("rows", [np.ones((1, 8)), np.eye(2), np.ones((50, 8)), np.arange(40.0)[:, None], np.zeros((40, 0)), np.eye(7)])
def test_few_or_equal_photos_have_their_place_too(rows: np.ndarray) -> None:
    found = feature_map(rows, seed=0)
    np.testing.assert_array_equal(found.photos, np.arange(len(rows)))
    assert found.xy.shape == (len(rows), 2)
    assert found.xy.dtype == np.float32
    assert np.isfinite(found.xy).all()
    assert ((found.xy >= 0) & (found.xy <= 1)).all()


def test_the_map_fills_its_square_and_keeps_its_shape() -> None:
    rows = np.stack([np.linspace(0, 8, 20), np.linspace(-1, 1, 20) ** 2], axis=1)
    xy = feature_map(rows, seed=0).xy
    extent = np.ptp(xy, axis=0)
    assert extent.max() == pytest.approx(1.0, abs=1e-5)
    assert extent.min() == pytest.approx(1 / 8, rel=0.01)
    assert (xy.min(axis=0) + xy.max(axis=0)) / 2 == pytest.approx([0.5, 0.5], abs=1e-5)


def test_of_too_many_photos_some_are_drawn_by_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_maps, "MOST_POINTS", 20)  # 5,000 take a quarter of a minute
    rows = np.random.default_rng(0).normal(size=(90, 5))
    one, same, other = (feature_map(rows, seed=seed).photos for seed in (0, 0, 1))
    assert len(one) == len(set(one.tolist())) == 20
    assert one.tolist() == sorted(one.tolist())
    np.testing.assert_array_equal(one, same)
    assert one.tolist() != other.tolist()
