"""The linear head in closed hands: scaled features, strength chosen on out-of-fold log loss, refitted on every row.

Nothing to tune, no epochs: a thousand photos take a second, 50,000 well under a minute. docs/concepts/head.md tells what is solved and why.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from headstart.errors import ConfigError, DataError
from headstart.evaluate.calibrate import calibrate
from headstart.train.folds import assign_folds
from headstart.train.softmax import Model, Rows, Scaling, SoftmaxProblem, row_blocks

STRENGTHS = (0.01, 0.1, 1.0)
"""Where the search begins. It goes on by factors of 10 while the end is the best, then tries the best one's neighbours at sqrt(10)."""

FOLDS = 5
"""Also the share held out, one in five, where only one fold can be afforded."""

_STRENGTH_RANGE = (1e-6, 1e3)
_FALLBACK_STRENGTH = 0.1  # where no row can be held out
_AFFORDABLE_FLOPS = 5e11  # for five folds: about 10 s of one core (bench/head.py)
_EVALUATIONS = 50  # of one fold's models, all strengths together: 30 to 100 were seen (docs/concepts/head.md)
_ABSENT_LOGIT = -20.0  # of a class without a row; the others' logits sum to 0, so it never leads
_NEAR_EQUAL = 0.005  # of the log loss; weaker penalties must gain more than that
_CHOICE_TOLERANCE = 3e-5  # nats
_FINAL_TOLERANCE = 1e-9
_MAX_EVALUATIONS = 300


@dataclass(frozen=True)
class LinearHead:
    """A linear classifier over raw features, and how it did on rows it had not seen."""

    weight: np.ndarray
    "float32 [d, k], the scaling folded in"
    bias: np.ndarray
    "float32 [k]"
    strength: float
    "the L2 penalty chosen, per mean loss, on scaled features (docs/concepts/head.md)"
    oof_index: np.ndarray
    "int64 [m], the rows that were held out once; all n of them as a rule"
    oof_logits: np.ndarray
    "float32 [m, k], what models of the chosen strength that had not seen these rows said of them; not calibrated"
    oof_table: list[dict[str, float]]
    "per strength tried, in rising order: strength, log_loss, calibrated_log_loss (by which the choice is made), accuracy"
    folds: int
    "parts held out, one after the other; 1 where the data is large, 0 where none could be"
    seconds: float
    "wall-clock time of the choice and the fit"

    def logits(self, x: np.ndarray) -> np.ndarray:
        """Raw features [n, d] -> logits float32 [n, k]."""
        out = np.empty((len(x), len(self.bias)), dtype=np.float32)
        for rows in row_blocks(*x.shape):
            out[rows] = x[rows].astype(np.float32) @ self.weight + self.bias
        return out


def balanced_weights(y: np.ndarray, n_classes: int) -> np.ndarray:
    """Class weights that make every class count the same in sum: n / (classes present * rows of the class), float64 [k].

    A class without rows gets 1, which weighs nothing.
    """
    counts = np.bincount(y, minlength=n_classes)
    return np.where(counts > 0, len(y) / (np.maximum(counts, 1) * max(1, np.count_nonzero(counts))), 1.0)


def solve_linear(
    x: np.ndarray,
    y: np.ndarray,
    n_classes: int,
    *,
    groups: np.ndarray | None = None,
    class_weights: np.ndarray | None = None,
    seed: int = 0,
    strengths: Sequence[float] | None = None,
    folds: int | None = None,
    device: str | torch.device = "cpu",
) -> LinearHead:
    """Fit a softmax regression whose L2 strength is chosen on rows it has not seen.

    The strength with the lowest out-of-fold log loss *after* temperature scaling wins: how loud the logits are is set by the temperature
    later, so it should not sway the choice. Among near-equals the strongest wins. scikit-learn finds the same solution on features scaled
    as `softmax.Scaling` does, with C = 1 / (strength * n).

    Args:
        x: float16 or float32 [n rows, d features], finite. Kept as it is; at most one float32 copy is made.
        y: int64 [n], 0 to n_classes - 1. Classes without a row are fine: they get a low, constant logit.
        groups: [n]; rows with an equal group are held out together. None: every row for itself.
        class_weights: [k], > 0: a class weight of 2 is the same as every row of the class given twice. None: all 1.
        seed: of the folds. Same seed and rows, in whatever order: same folds.
        strengths: exactly these are tried. None: from STRENGTHS on, as far as needed.
        folds: >= 1; 1 holds out one fifth once. None: 5, or 1 where five would take more than about 5e11 operations.
        device: where to compute: cpu or cuda; any other is answered on the CPU, because float64 is needed.

    Raises:
        DataError: no rows, features that are not finite, labels out of range, shapes that do not fit.
        ConfigError: a strength, class weight or number of folds that is out of range.
    """
    started = time.perf_counter()
    _check(x, y, n_classes, groups, class_weights)
    _check_options(strengths, folds)
    present, labels = np.unique(y, return_inverse=True)
    row_weights = np.ones(len(x)) if class_weights is None else np.asarray(class_weights, dtype=np.float64)[y]
    n_folds = _affordable_folds(x.shape[0], x.shape[1], len(present)) if folds is None else folds
    fold_of = assign_folds(x, labels, n_folds if n_folds > 1 else FOLDS, groups=groups, seed=seed)
    where = torch.device(device) if torch.device(device).type == "cuda" else torch.device("cpu")
    scaling = Scaling.fit(x, row_weights)
    rows = Rows(x, scaling, where)
    search = _Search(SoftmaxProblem(rows, labels, len(present), row_weights, fold_of), range(n_folds))
    search.run(strengths)
    weight, bias = _for_raw_features(search.refit(), rows, scaling)
    return LinearHead(
        _spread(weight, present, n_classes, 0.0),
        _spread(bias, present, n_classes, _ABSENT_LOGIT),
        search.best,
        search.index,
        _spread(search.logits, present, n_classes, _ABSENT_LOGIT),
        [search.table[s] for s in sorted(search.table)],
        len(search.folds),
        time.perf_counter() - started,
    )


class _Search:
    """The strengths tried so far: how each did on held-out rows, and the models themselves, where the next ones start."""

    def __init__(self, problem: SoftmaxProblem, folds: Sequence[int]) -> None:
        self.problem = problem
        fold_of = problem.fold_of.cpu().numpy()
        self.folds = [fold for fold in folds if (fold_of == fold).any()]
        self.index: np.ndarray = np.flatnonzero(np.isin(fold_of, self.folds))
        self.table: dict[float, dict[str, float]] = {}
        self.best = _FALLBACK_STRENGTH
        self.logits = np.zeros((len(self.index), problem.k), dtype=np.float32)
        self._solved: dict[float, torch.Tensor] = {}
        self._oof: dict[float, np.ndarray] = {}

    def run(self, given: Sequence[float] | None) -> None:
        """Try the given strengths, or search for the best one."""
        if not self.folds:
            self.best = _FALLBACK_STRENGTH if given is None else sorted(given)[len(given) // 2]
            return
        if given is not None:
            self._try(sorted(set(given)))
            return
        self._try(STRENGTHS)
        while (beyond := self._beyond_the_edge()) is not None:
            self._try([beyond])
        self._try([self.best / 10**0.5, self.best * 10**0.5])

    def refit(self) -> torch.Tensor:
        """Parameters [d + 1, k] of the best strength, trained on all rows."""
        start = self._solved[self.best].mean(0, keepdim=True) if self._solved else None
        everything = [Model(None, self.best)]
        return self.problem.solve(everything, start, tolerance=_FINAL_TOLERANCE, max_iterations=_MAX_EVALUATIONS)[0][0]

    def _beyond_the_edge(self) -> float | None:
        if self.best == min(self.table) and self.best / 10 >= _STRENGTH_RANGE[0]:
            return self.best / 10
        if self.best == max(self.table) and self.best * 10 <= _STRENGTH_RANGE[1]:
            return self.best * 10
        return None

    def _try(self, strengths: Sequence[float]) -> None:
        models = [Model(fold, strength) for strength in strengths for fold in self.folds]
        start = torch.cat([self._start_for(strength) for strength in strengths]) if self._solved else None
        solved, _ = self.problem.solve(models, start, tolerance=_CHOICE_TOLERANCE, max_iterations=_MAX_EVALUATIONS)
        per_strength = solved.view(len(strengths), len(self.folds), *solved.shape[1:])
        index = torch.from_numpy(self.index)
        logits = self.problem.held_out_logits(per_strength, self.folds)[index]
        labels, weights = self.problem.labels.cpu()[index], self.problem.row_weights.cpu()[index]
        for i, strength in enumerate(strengths):
            self._solved[strength] = per_strength[i]
            self.table[strength] = _score(logits[:, i], labels, weights, strength)
            self._oof[strength] = logits[:, i].numpy().copy()
        least = min(row["calibrated_log_loss"] for row in self.table.values())
        self.best = max(s for s, row in self.table.items() if row["calibrated_log_loss"] <= (1 + _NEAR_EQUAL) * least)
        self.logits = self._oof[self.best]

    def _start_for(self, strength: float) -> torch.Tensor:
        """The solution [folds, d + 1, k] of the nearest strength."""
        return self._solved[min(self._solved, key=lambda known: abs(np.log(known / strength)))]


def _score(logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor, strength: float) -> dict[str, float]:
    losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none").double()
    return {
        "strength": strength,
        "log_loss": float((losses * weights).sum() / weights.sum()),
        "calibrated_log_loss": calibrate(logits.numpy(), labels.numpy(), weights.numpy()).log_loss,
        "accuracy": float((logits.argmax(1) == labels).double().mean()),
    }


def _for_raw_features(parameters: torch.Tensor, rows: Rows, scaling: Scaling) -> tuple[np.ndarray, np.ndarray]:
    """Weights and bias with (x - mean) * factor folded in: float64 [d, k] and [k]."""
    weight = scaling.factor[:, None] * rows.weights_for_features(parameters[:-1]).cpu().double().numpy()
    return weight, parameters[-1].cpu().double().numpy() - scaling.mean @ weight


def _spread(values: np.ndarray, present: np.ndarray, n_classes: int, absent: float) -> np.ndarray:
    """Values of the classes that have rows [..., present], with `absent` for those that have none: float32 [..., k]."""
    out = np.full((*values.shape[:-1], n_classes), absent, dtype=np.float32)
    out[..., present] = values
    return out


def _affordable_folds(n: int, d: int, k: int) -> int:
    operations = FOLDS * _EVALUATIONS * 4.0 * n * min(n, d) * k
    return FOLDS if operations <= _AFFORDABLE_FLOPS else 1


def _check(x: np.ndarray, y: np.ndarray, n_classes: int, groups: np.ndarray | None, class_weights: np.ndarray | None) -> None:
    if x.ndim != 2 or x.dtype not in (np.float16, np.float32) or 0 in x.shape:
        raise DataError(f"expected features as float16 or float32 [n rows, d features], found {x.dtype} {list(x.shape)}")
    if y.shape != x.shape[:1] or not np.issubdtype(y.dtype, np.integer):
        raise DataError(f"expected one whole number per row as label, [{len(x)}], found {y.dtype} {list(y.shape)}")
    if y.min() < 0 or y.max() >= n_classes:
        raise DataError(f"expected labels from 0 to {n_classes - 1}, found {y.min()} to {y.max()}")
    if groups is not None and groups.shape != y.shape:
        raise DataError(f"expected one group per row, [{len(x)}], found {list(groups.shape)}")
    weights = np.ones(n_classes) if class_weights is None else np.asarray(class_weights)
    if weights.shape != (n_classes,) or not np.all(np.isfinite(weights) & (weights > 0)):
        raise ConfigError(f"expected {n_classes} class weights above 0, found {np.array2string(weights, threshold=8)}")
    broken = sum(int((~np.isfinite(x[rows]).all(1)).sum()) for rows in row_blocks(*x.shape))
    if broken:
        raise DataError(
            f"expected finite features, found NaN or infinity in {broken} of {len(x)} rows",
            hint="float16 overflows beyond 65504: compute these features in float32",
        )


def _check_options(strengths: Sequence[float] | None, folds: int | None) -> None:
    if strengths is not None and (len(strengths) == 0 or not all(np.isfinite(s) and s > 0 for s in strengths)):
        raise ConfigError(f"expected strengths above 0, found {list(strengths)}")
    if folds is not None and folds < 1:
        raise ConfigError(f"expected at least 1 fold, found {folds}")
