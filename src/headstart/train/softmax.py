"""Softmax regression with an L2 penalty over one table of features, for several models (fold, strength) at once.

    objective of a model = sum_i v_i * cross entropy(row i) / sum_i v_i  +  strength / 2 * |W|^2

over the rows i that the model trains on; features are scaled, biases are free. docs/concepts/head.md derives what is done here.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from headstart.train import lbfgs

_KEEP_BYTES = 2**30  # a float32 copy of the features is kept up to this size; beyond it, blocks are converted in every pass
_BLOCK_BYTES = 2**26  # of features, and of logits
_MEMORY_BYTES = 2**28  # what the optimiser may remember; more models than fit are solved one lot after the other
_SAMPLE_PER_FEATURE = 4  # rows per feature that the preconditioner's Gram matrix is estimated from


@dataclass(frozen=True)
class Model:
    """One problem: which fold is held out (None: all rows train), and how strong the penalty is."""

    held_out: int | None
    strength: float


@dataclass(frozen=True)
class Scaling:
    """x -> (x - mean) * factor, where 1 / factor is the geometric mean of the feature's own standard deviation and of the average one.

    Halfway between dividing each feature by its own deviation, which makes the faint ones as loud as the telling ones, and dividing all by
    one number. It did better than either (docs/concepts/head.md). The scaled features' average variance is 1.

    mean, factor: float64 [d]; factor is 0 for a feature that never changes.
    """

    mean: np.ndarray
    factor: np.ndarray

    @classmethod
    def fit(cls, x: np.ndarray, row_weights: np.ndarray) -> "Scaling":
        """From weighted means and standard deviations, in two passes of float32 with float64 sums.

        Everything is measured from the first row, so that a constant feature comes out as exactly constant.
        """
        share, origin = row_weights / row_weights.sum(), x[0].astype(np.float32)
        shift, variance = np.zeros(x.shape[1]), np.zeros(x.shape[1])
        for rows in row_blocks(*x.shape):
            shift += share[rows].astype(np.float32) @ (x[rows].astype(np.float32) - origin)
        mean = origin + shift
        for rows in row_blocks(*x.shape):
            variance += share[rows].astype(np.float32) @ np.square(x[rows].astype(np.float32) - origin - shift.astype(np.float32))
        std = np.sqrt(variance)
        alive = std > 1e-6 * np.abs(mean)  # less is float32's rounding; also false for 0 > 0
        divisor = np.sqrt(std * (std[alive].mean() if alive.any() else 0))
        return cls(mean, np.divide(1, divisor, out=np.zeros_like(std), where=alive))


def row_blocks(n: int, d: int) -> Iterator[slice]:
    """Slices of rows whose features take at most 64 MiB as float32."""
    size = max(1, _BLOCK_BYTES // (4 * max(d, 1)))
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


class Rows:
    """Scaled features in float32, ready for products: kept whole where that is small, else converted block by block.

    With more features than rows the columns are rotated onto the rows' own space first, which loses nothing: what is orthogonal to all
    rows cannot lower the loss, only raise the penalty.
    """

    def __init__(self, x: np.ndarray, scaling: Scaling, device: torch.device) -> None:
        self._x, self.device = x, device
        self._mean = torch.from_numpy(scaling.mean).float().to(device)
        self._factor = torch.from_numpy(scaling.factor).float().to(device)
        self._basis: torch.Tensor | None = None
        self._whole: torch.Tensor | None = None
        self.n, self.d = x.shape
        if self.d > self.n:
            # Z = (QT)' = T'Q'; T' [n, n] takes the place of Z, and weights for Z are Q times weights for T'.
            self._basis, t = torch.linalg.qr(self._convert(slice(None)).T)
            self._whole, self.d = t.T.contiguous(), self.n
        elif 4 * self.n * self.d <= _KEEP_BYTES:
            self._whole = torch.empty(self.n, self.d, device=device)
            for rows in row_blocks(self.n, self.d):
                self._whole[rows] = self._convert(rows)

    def __getitem__(self, rows: slice) -> torch.Tensor:
        return self._convert(rows) if self._whole is None else self._whole[rows]

    def _convert(self, rows: slice) -> torch.Tensor:
        block = torch.from_numpy(np.array(self._x[rows], order="C"))  # a copy: the store's rows may be a read-only memory map
        return (block.to(self.device).float() - self._mean) * self._factor

    def weights_for_features(self, w: torch.Tensor) -> torch.Tensor:
        """[d of these rows, k] -> [d of the scaled features, k]."""
        return w if self._basis is None else self._basis @ w


class SoftmaxProblem:
    """The rows with labels, weights and folds, and the models over them. Parameters are [models, d + 1, k]; the last row is the bias."""

    def __init__(self, rows: Rows, labels: np.ndarray, n_classes: int, row_weights: np.ndarray, fold_of: np.ndarray) -> None:
        self.rows, self.k = rows, n_classes
        self._device = device = rows.device
        self.labels = torch.from_numpy(labels).to(device)
        self.row_weights = torch.from_numpy(row_weights).to(device, torch.float64)
        self.fold_of = torch.from_numpy(fold_of).to(device)
        self._gram = self._estimate_gram()

    def solve(
        self, models: Sequence[Model], start: torch.Tensor | None, *, tolerance: float, max_iterations: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Train the models from `start` [m, d + 1, k] on (None: from the class frequencies alone).

        Returns: parameters [m, d + 1, k], and the evaluations that each model took, int64 [m].
        """
        begin = self._frequencies(models) if start is None else start
        per_model = 4 * begin[0].numel() * 2 * (lbfgs.HISTORY + 5)
        lot = max(1, _MEMORY_BYTES // per_model)
        solved = [self._solve_lot(models[i : i + lot], begin[i : i + lot], tolerance, max_iterations) for i in range(0, len(models), lot)]
        return torch.cat([m.parameters for m in solved]), torch.cat([m.iterations for m in solved])

    def _solve_lot(self, models: Sequence[Model], start: torch.Tensor, tolerance: float, max_iterations: int) -> lbfgs.Minimum:
        strengths = torch.tensor([m.strength for m in models], dtype=torch.float64, device=self._device)
        weights = self._weights_of(models)
        distinct = sorted({m.strength for m in models})
        inverses = torch.stack([self._inverse(s) for s in distinct])
        which = torch.tensor([distinct.index(m.strength) for m in models], device=self._device)

        def evaluate(w: torch.Tensor, running: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self._evaluate(w, weights[running], strengths[running])

        def precondition(gradient: torch.Tensor, running: torch.Tensor) -> torch.Tensor:
            out = gradient / self._curvature
            for i, inverse in enumerate(inverses):
                mine = which[running] == i
                if bool(mine.any()):
                    g = gradient[mine, :-1]
                    out[mine, :-1] = (inverse @ g.transpose(0, 1).reshape(self.rows.d, -1)).view(self.rows.d, -1, self.k).transpose(0, 1)
            return out

        return lbfgs.minimise(evaluate, precondition, start, tolerance=tolerance, max_iterations=max_iterations)

    def logits(self, parameters: torch.Tensor, rows: slice) -> torch.Tensor:
        """float32 [len of rows, models, k]."""
        return self._logits_by_class(parameters, rows).permute(2, 0, 1)

    def _logits_by_class(self, parameters: torch.Tensor, rows: slice) -> torch.Tensor:
        """float32 [models, k, len of rows]. With few columns this order is 2 times, and its gradient 5 times, as fast as rows first."""
        w = parameters.transpose(1, 2).reshape(-1, self.rows.d + 1)
        return torch.addmm(w[:, -1:], w[:, :-1], self.rows[rows].T).view(len(parameters), self.k, -1)

    def held_out_logits(self, parameters: torch.Tensor, folds: Sequence[int]) -> torch.Tensor:
        """What each row's own fold's model says of it.

        Args: parameters: [strengths, folds, d + 1, k], the models that held out `folds`.

        Returns: float32 [n, strengths, k] on the CPU; rows of no such fold get the first model's logits, which means nothing.
        """
        n_strengths, n_folds = parameters.shape[:2]
        own = torch.zeros_like(self.fold_of)
        for i, fold in enumerate(folds):
            own[self.fold_of == fold] = i
        out = torch.empty(self.rows.n, n_strengths, self.k)
        for rows in self.blocks(n_strengths * n_folds):
            logits = self.logits(parameters.flatten(0, 1), rows).view(-1, n_strengths, n_folds, self.k)
            out[rows] = logits[torch.arange(len(logits), device=logits.device), :, own[rows]].cpu()
        return out

    def blocks(self, n_models: int) -> Iterator[slice]:
        """Slices of rows small enough for the features and all models' logits."""
        return row_blocks(self.rows.n, max(self.rows.d, n_models * self.k))

    def _evaluate(self, w: torch.Tensor, weights: torch.Tensor, strengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        m = len(w)
        value = torch.zeros(m, dtype=torch.float64, device=self._device)
        gradient = torch.zeros(m * self.k, self.rows.d + 1, device=self._device)
        for rows in self.blocks(m):
            residual = torch.log_softmax(self._logits_by_class(w, rows), dim=1)
            label = self.labels[rows].expand(m, 1, -1)
            value -= (residual.gather(1, label)[:, 0] * weights[:, rows]).sum(1)
            residual.exp_().scatter_add_(1, label, torch.full_like(label, -1, dtype=residual.dtype))
            residual *= weights[:, None, rows].to(residual.dtype)
            gradient[:, :-1].addmm_(residual.view(m * self.k, -1), self.rows[rows])
            gradient[:, -1] += residual.sum(2).view(-1)
        gradient = gradient.view(m, self.k, -1).transpose(1, 2).contiguous()
        gradient[:, :-1] += strengths[:, None, None].to(w.dtype) * w[:, :-1]
        return value + strengths / 2 * w[:, :-1].to(torch.float64).square().sum((1, 2)), gradient

    def _weights_of(self, models: Sequence[Model]) -> torch.Tensor:
        """What each row counts in each model [m, n]: held-out rows 0, the rest in sum 1."""
        held_out = torch.tensor([-2 if m.held_out is None else m.held_out for m in models], device=self._device)
        weights = self.row_weights * (self.fold_of != held_out[:, None])
        return weights / weights.sum(1, keepdim=True)

    def _frequencies(self, models: Sequence[Model]) -> torch.Tensor:
        """Zero weights, and the bias that gives each class its share of the model's rows."""
        share = torch.zeros(len(models), self.k, dtype=torch.float64, device=self._device)
        share.index_add_(1, self.labels, self._weights_of(models))
        log_share = share.log()
        start = torch.zeros(len(models), self.rows.d + 1, self.k, device=self._device)
        start[:, -1] = (log_share - log_share.mean(1, keepdim=True)).float()
        return start

    @property
    def _curvature(self) -> float:
        """The mean of p (1 - p) over classes when all are equally likely: how curved the loss is at the start, along one logit."""
        return max((1 - 1 / self.k) / self.k, 1e-6)

    def _estimate_gram(self) -> torch.Tensor:
        """Z' V Z / sum v [d, d] in float64, from a spread of rows that is large enough to steer by."""
        n, d = self.rows.n, self.rows.d
        every = max(1, n // max(_SAMPLE_PER_FEATURE * d, 4096))
        gram = torch.zeros(d, d, dtype=torch.float64, device=self._device)
        total = torch.zeros((), dtype=torch.float64, device=self._device)
        for rows in row_blocks(n, d):
            v = self.row_weights[rows][::every]
            z = self.rows[rows][::every] * v[:, None].sqrt().float()
            gram += z.T @ z
            total += v.sum()
        return gram / total

    def _inverse(self, strength: float) -> torch.Tensor:
        """The inverse of the approximate Hessian, curvature * Gram + strength, float32 [d, d]."""
        eye = torch.eye(self.rows.d, dtype=torch.float64, device=self._device)
        return torch.cholesky_inverse(torch.linalg.cholesky(self._curvature * self._gram + strength * eye)).float()
