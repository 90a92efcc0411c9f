"""A map of the features: each photo a point in the plane, near those that the network sees as alike."""

from dataclasses import dataclass

import numpy as np

MOST_POINTS = 5000
_KEPT_DIRECTIONS = 50  # of the features, before neighbours are looked for: fewer take less time, and what is lost is mostly noise
_LEAST_FOR_NEIGHBOURS = 30  # photos; of fewer, neighbourhoods say nothing that two directions do not
_PERPLEXITY = 30.0  # how many neighbours count for each photo, about
_ROUNDS = 500  # of descent; twice as many take twice as long and keep no more neighbours together (docs/LOG.md)


@dataclass(frozen=True)
class FeatureMap:
    """Points in the plane.

    photos: int64 [m], indices into the table, ascending, m at most 5,000. xy: float32 [m, 2], each coordinate 0..1.
    method: how the points were placed, in words for the page.
    """

    photos: np.ndarray
    xy: np.ndarray
    method: str


def feature_map(rows: np.ndarray, *, seed: int) -> FeatureMap:
    """Place photos so that those with like features lie together.

    t-SNE keeps neighbours together where a plane cannot keep all distances (of 5,000 photos of CIFAR-10 in vit_tiny's features, 65 %
    of a photo's ten nearest on the map are of its class, 33 % on a map by PCA: docs/LOG.md). Distances between far groups mean
    little on it, so nothing is computed from it. Takes one core: sums over several come out a little different each time.

    Args:
        rows: float [n, d], features of the table's photos in order; n >= 1.
        seed: which photos are drawn where there are more than 5,000.

    Source: van der Maaten and Hinton (2008), "Visualizing data using t-SNE"; begun at the PCA as Kobak and Berens (2019) advise.
    """
    import threadpoolctl  # type: ignore[import-untyped]  # scikit-learn brings it

    n = len(rows)
    photos = np.arange(n, dtype=np.int64)
    if n > MOST_POINTS:
        photos = np.sort(np.random.default_rng(seed).choice(n, MOST_POINTS, replace=False))
    values = np.asarray(rows[photos], dtype=np.float32)
    with threadpoolctl.threadpool_limits(1):
        kept = _principal(values, _KEPT_DIRECTIONS)
        if len(photos) < _LEAST_FOR_NEIGHBOURS or not kept.any():
            return FeatureMap(photos, _fitted(kept[:, :2]), "the two main directions of the features (PCA)")
        return FeatureMap(photos, _fitted(_neighbours(kept, seed)), "t-SNE of the features")


def _principal(values: np.ndarray, most: int) -> np.ndarray:
    """The main directions of `values` [m, d]: float32 [m, c], 2 <= c <= most; zeros stand in where there are fewer than two."""
    from sklearn.decomposition import PCA

    n_directions = min(most, *values.shape)
    # The values of all photos may be the same, and the variance, by which PCA's ratio divides, 0.
    if len(values) < 2 or not np.ptp(values, axis=0).any():
        return np.zeros((len(values), 2), dtype=np.float32)
    found: np.ndarray = PCA(n_directions, random_state=0).fit_transform(values)
    return np.pad(found, ((0, 0), (0, max(0, 2 - n_directions)))).astype(np.float32)


def _neighbours(values: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.manifold import TSNE

    perplexity = min(_PERPLEXITY, (len(values) - 1) / 3)
    placed: np.ndarray = TSNE(2, init="pca", perplexity=perplexity, max_iter=_ROUNDS, random_state=seed % 2**32).fit_transform(values)
    return placed


def _fitted(xy: np.ndarray) -> np.ndarray:
    """`xy` [m, 2] scaled to fill 0..1, the same for both coordinates, with the smaller extent centred."""
    low, high = xy.min(axis=0), xy.max(axis=0)
    extent = float((high - low).max())
    fitted: np.ndarray = (xy - (low + high) / 2) / (extent if extent > 0 else 1.0) + 0.5
    return fitted.astype(np.float32)
