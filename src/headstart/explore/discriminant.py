"""Linear discriminant analysis with a shrunken covariance, from sums over photos that can be added up: a linear head in one step.

Source: Hastie, Tibshirani and Friedman (2009), "The elements of statistical learning", section 4.3.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

_MOST_FEATURES = 512  # of more, the leading principal components are kept
_SAMPLE = 8192  # rows that these, means and deviations are found from
_BLOCK = 8192  # rows at a time


@dataclass(frozen=True)
class Sums:
    """Sums over photos: their number [k] and features [k, d] by class, products of features [d, d]."""

    counts: np.ndarray
    sums: np.ndarray
    products: np.ndarray

    @classmethod
    def of(cls, z: np.ndarray, labels: np.ndarray, k: int) -> "Sums":
        """Of the photos with features float32 [n, d]; none is fine."""
        order = np.argsort(labels, kind="stable")
        present, starts = np.unique(labels[order], return_index=True)
        sums, products = np.zeros((k, z.shape[1]), np.float32), np.zeros((z.shape[1], z.shape[1]), np.float32)
        if len(present):
            sums[present] = np.add.reduceat(z[order], starts, axis=0)
        for start in range(0, len(z), _BLOCK):
            block = z[start : start + _BLOCK]
            products += block.T @ block
        return cls(np.bincount(labels, minlength=k).astype(np.float64), sums, products)

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(self.counts + other.counts, self.sums + other.sums, self.products + other.products)

    def heads(self, shrinkages: Sequence[float]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """For each shrinkage, in units of the mean variance, the weights float32 [d, k] and the bias float32 [k].

        Classes without a photo are never answered.
        """
        means = self.sums / np.maximum(self.counts, 1)[:, None]
        present = self.counts > 0
        within = (self.products - (means.T * self.counts) @ means) / max(1.0, float(self.counts.sum() - present.sum()))
        variance = max(float(np.trace(within)) / len(within), 1e-6)
        frequency = np.log(np.maximum(self.counts, 1e-9) / max(1.0, float(self.counts.sum())))
        for shrinkage in shrinkages:
            weight = np.linalg.solve(within + shrinkage * variance * np.eye(len(within)), means.T)
            bias = np.where(present, frequency - 0.5 * (means * weight.T).sum(1), -np.inf)
            yield weight.astype(np.float32), bias.astype(np.float32)


def condensed(rows: np.ndarray) -> np.ndarray:
    """Features [n, d], n >= 1, centred and scaled to a deviation of 1, or their leading components: float32 [n, at most 512]."""
    n, d = rows.shape
    sample = rows[:: max(1, n // _SAMPLE)].astype(np.float64)
    mean, std = sample.mean(0), sample.std(0)
    factor = np.divide(1, std, out=np.zeros_like(std), where=std > 1e-6 * np.abs(mean))
    basis = None
    if d > _MOST_FEATURES:
        scaled = (sample - mean) * factor
        basis = np.linalg.eigh(scaled.T @ scaled)[1][:, -_MOST_FEATURES:].astype(np.float32)
    out = np.empty((n, min(d, _MOST_FEATURES)), np.float32)
    for start in range(0, n, _BLOCK):
        at = slice(start, start + _BLOCK)
        block = (rows[at].astype(np.float32) - mean.astype(np.float32)) * factor.astype(np.float32)
        out[at] = block if basis is None else block @ basis
    return out
