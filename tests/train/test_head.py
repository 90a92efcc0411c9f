"""The linear head: right, honest about what it has seen, and calm with odd data."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from headstart.errors import ConfigError, DataError
from headstart.train.folds import ALWAYS_TRAINING, assign_folds
from headstart.train.head import LinearHead, balanced_weights, solve_linear
from headstart.train.softmax import Model, Rows, Scaling, SoftmaxProblem

Data = tuple[np.ndarray, np.ndarray]


def blobs(n: int = 240, d: int = 12, k: int = 3, *, seed: int = 0, noise: float = 1.5) -> Data:
    """Overlapping clusters whose features differ in mean and spread."""
    rng = np.random.default_rng(seed)
    y = rng.integers(k, size=n)
    y[:k] = np.arange(k)
    x = rng.normal(size=(k, d))[y] + noise * rng.normal(size=(n, d))
    return (x * np.geomspace(0.1, 10, d) + np.linspace(-3, 3, d)).astype(np.float32), y


def probs(logits: np.ndarray) -> np.ndarray:
    return torch.softmax(torch.from_numpy(np.asarray(logits, dtype=np.float64)), 1).numpy()


def gradient(head: LinearHead, x: np.ndarray, y: np.ndarray, row_weights: np.ndarray) -> float:
    """Largest entry of the objective's gradient at the head, worked out afresh in float64 on the scaled features."""
    scaling = Scaling.fit(x, row_weights)
    z = (x.astype(np.float64) - scaling.mean) * scaling.factor
    w = np.divide(head.weight, scaling.factor[:, None], out=np.zeros(head.weight.shape), where=scaling.factor[:, None] > 0)
    share = row_weights / row_weights.sum()
    residual = (probs(x.astype(np.float64) @ head.weight + head.bias) - np.eye(len(head.bias))[y]) * share[:, None]
    return float(max(np.abs(z.T @ residual + head.strength * w).max(), np.abs(residual.sum(0)).max()))


@pytest.mark.parametrize(("n", "d", "k"), [(240, 12, 3), (60, 90, 4), (150, 5, 2)])
@pytest.mark.parametrize("strength", [1.0, 0.01, 1e-4])
def test_probabilities_equal_scikit_learns_at_the_same_penalty(n: int, d: int, k: int, strength: float) -> None:
    x, y = blobs(n, d, k)
    head = solve_linear(x, y, k, strengths=[strength])
    scaling = Scaling.fit(x, np.ones(n))
    z = (x - scaling.mean) * scaling.factor
    peer = LogisticRegression(C=1 / (strength * n), tol=1e-10, max_iter=20_000).fit(z, y)
    # Of two classes scikit-learn fits the logits' difference alone: the same penalty on both logits is half of it on that.
    if k == 2:
        peer = LogisticRegression(C=2 / (strength * n), tol=1e-10, max_iter=20_000).fit(z, y)
    assert np.abs(probs(head.logits(x)) - peer.predict_proba(z)).max() < 1e-3


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(4, 60),
    d=st.integers(1, 40),
    k=st.integers(2, 5),
    exponent=st.integers(-4, 1),
    half=st.booleans(),
    seed=st.integers(0, 999),
)
def test_gradient_vanishes_at_the_solution(n: int, d: int, k: int, exponent: int, half: bool, seed: int) -> None:
    x, y = blobs(max(n, k), d, k, seed=seed)
    x = x.astype(np.float16) if half else x
    head = solve_linear(x, y, k, strengths=[10.0**exponent])
    assert gradient(head, x, y, np.ones(len(x))) < 2e-4


def test_strength_is_chosen_by_calibrated_loss_of_unseen_rows() -> None:
    x, y = blobs(noise=3)
    head = solve_linear(x, y, 3)
    losses = {row["strength"]: row["calibrated_log_loss"] for row in head.oof_table}
    assert losses[head.strength] <= 1.005 * min(losses.values())
    assert min(losses) < head.strength < max(losses), "neighbours on both sides were tried"
    assert all(row["calibrated_log_loss"] <= row["log_loss"] + 1e-9 for row in head.oof_table)
    chosen = next(row for row in head.oof_table if row["strength"] == head.strength)
    assert np.array_equal(head.oof_index, np.arange(len(y)))
    assert chosen["accuracy"] == pytest.approx((head.oof_logits.argmax(1) == y).mean())
    assert chosen["log_loss"] == pytest.approx(-np.log(probs(head.oof_logits)[np.arange(len(y)), y]).mean(), rel=1e-5)


def test_search_goes_beyond_its_first_strengths_where_the_best_is_at_an_end() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 30)).astype(np.float32), rng.integers(3, size=60)
    assert solve_linear(x, y, 3).strength > 1, "noise: nothing to learn but the frequencies"


def test_out_of_fold_logits_come_from_models_that_did_not_see_the_row() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(100, 400)).astype(np.float32), rng.integers(2, size=100)
    head = solve_linear(x, y, 2, strengths=[1e-3])
    assert (head.logits(x).argmax(1) == y).mean() == 1, "learnt by heart"
    assert (head.oof_logits.argmax(1) == y).mean() < 0.7, "labels are noise, so unseen rows are a coin's throw"


def test_groups_are_never_split() -> None:
    x, y = blobs(200, 4, 3)
    groups = np.random.default_rng(1).integers(40, size=200)
    fold_of = assign_folds(x, y, 5, groups=groups, seed=0)
    assert all(len(np.unique(fold_of[groups == g])) == 1 for g in groups)
    assert np.bincount(fold_of, minlength=5).min() >= 25


def test_copies_in_one_group_do_not_leak_into_the_score() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 300)).astype(np.float32), rng.integers(2, size=50)
    copies, labels = np.repeat(x, 4, axis=0), np.repeat(y, 4)
    together = solve_linear(copies, labels, 2, groups=np.repeat(np.arange(50), 4), strengths=[0.01])
    assert (together.oof_logits.argmax(1) == labels).mean() < 0.75


def test_folds_are_stratified_and_independent_of_the_order_of_rows() -> None:
    x, y = blobs(203, 4, 3)
    fold_of = assign_folds(x, y, 5, groups=None, seed=7)
    for c in range(3):
        counts = np.bincount(fold_of[y == c], minlength=5)
        assert counts.max() - counts.min() <= 1
    order = np.random.default_rng(0).permutation(203)
    assert np.array_equal(assign_folds(x[order], y[order], 5, groups=None, seed=7), fold_of[order])
    assert not np.array_equal(assign_folds(x, y, 5, groups=None, seed=8), fold_of)


def test_class_weights_equal_repeated_rows() -> None:
    x, y = blobs()
    weights = np.array([1.0, 3.0, 2.0])
    weighted = solve_linear(x, y, 3, class_weights=weights, strengths=[0.01])
    times = weights[y].astype(int)
    repeated = solve_linear(np.repeat(x, times, axis=0), np.repeat(y, times), 3, strengths=[0.01])
    assert np.abs(probs(weighted.logits(x)) - probs(repeated.logits(x))).max() < 1e-4


def test_balanced_weights_give_every_present_class_the_same_sum() -> None:
    weights = balanced_weights(np.array([0, 0, 0, 1, 3, 3]), 5)
    assert weights.tolist() == [6 / 9, 2, 1, 1, 1]


@pytest.mark.parametrize("shape", [(240, 12), (60, 90)])
def test_same_seed_gives_the_same_bits(shape: tuple[int, int]) -> None:
    x, y = blobs(*shape)
    first, second = (solve_linear(x, y, 3, seed=3) for _ in range(2))
    assert first.strength == second.strength
    assert first.weight.tobytes() == second.weight.tobytes()
    assert first.bias.tobytes() == second.bias.tobytes()
    assert first.oof_logits.tobytes() == second.oof_logits.tobytes()


@pytest.mark.parametrize(("factor", "shift"), [(1000.0, 0.0), (0.001, 0.0), (1.0, 50.0)])
def test_unit_and_origin_of_the_features_change_nothing(factor: float, shift: float) -> None:
    x, y = blobs()
    plain, moved = solve_linear(x, y, 3, strengths=[0.01]), solve_linear(x * np.float32(factor) + np.float32(shift), y, 3, strengths=[0.01])
    assert np.abs(probs(plain.logits(x)) - probs(moved.logits(x * np.float32(factor) + np.float32(shift)))).max() < 2e-3


def test_constant_features_get_no_weight() -> None:
    x, y = blobs()
    x[:, 4], x[:, 7] = 0, 1234.5
    head = solve_linear(x, y, 3)
    assert not head.weight[[4, 7]].any()
    without = solve_linear(np.delete(x, [4, 7], axis=1), y, 3)
    assert np.abs(probs(head.logits(x)) - probs(without.logits(np.delete(x, [4, 7], axis=1)))).max() < 1e-3


def test_features_that_are_all_constant_leave_the_frequencies() -> None:
    y = np.array([0] * 30 + [1] * 10)
    head = solve_linear(np.ones((40, 3), dtype=np.float32), y, 2)
    assert probs(head.logits(np.ones((1, 3), dtype=np.float32)))[0] == pytest.approx([0.75, 0.25], abs=1e-3)


def test_one_feature_is_enough() -> None:
    x = np.linspace(-1, 1, 50, dtype=np.float32)[:, None]
    head = solve_linear(x, (x[:, 0] > 0).astype(np.int64), 2)
    assert (head.logits(x).argmax(1) == (x[:, 0] > 0)).mean() > 0.95


def test_class_with_one_row_is_always_trained_on_and_never_scored() -> None:
    x, y = blobs()
    y[10] = 3
    head = solve_linear(x, y, 4)
    assert 10 not in head.oof_index
    assert len(head.oof_index) == len(head.oof_logits) == len(y) - 1
    assert np.isfinite(head.oof_logits).all()
    assert np.isfinite(head.weight).all()


def test_group_that_holds_all_of_a_class_stays_in_training_as_a_whole() -> None:
    x, y = blobs(60)
    y[10:12] = 3
    groups = np.arange(60)
    groups[8:12] = 8
    fold_of = assign_folds(x, y, 5, groups=groups, seed=0)
    assert (fold_of[8:12] == ALWAYS_TRAINING).all()
    assert (np.delete(fold_of, range(8, 12)) >= 0).all()


def test_class_without_rows_is_finite_and_never_leads() -> None:
    x, y = blobs(k=3)
    head = solve_linear(x, np.array([0, 2, 3])[y], 5)
    logits = head.logits(x * 100)
    assert np.isfinite(logits).all()
    assert not np.isin(logits.argmax(1), [1, 4]).any()
    assert head.oof_logits.shape == (len(y), 5)
    assert not head.weight[:, [1, 4]].any()


@pytest.mark.parametrize("y", [[0, 1], [0, 1, 0], [0, 0, 1, 1], [0, 0, 0]])
def test_fewer_rows_than_folds_still_give_a_head(y: list[int]) -> None:
    x, _ = blobs(len(y), 6, 1)
    head = solve_linear(x, np.array(y), 2)
    assert np.isfinite(head.logits(x)).all()
    assert (head.logits(x).argmax(1) == y).all()


def test_nothing_held_out_means_no_table_and_a_stated_strength() -> None:
    x, _ = blobs(2, 6, 2)
    head = solve_linear(x, np.array([0, 1]), 2)
    assert (head.folds, head.oof_table, head.oof_logits.shape, head.strength) == (0, [], (0, 2), 0.1)


def test_repeated_rows_change_nothing_but_the_folds() -> None:
    x, y = blobs(80)
    once, twice = (solve_linear(np.tile(x, (r, 1)), np.tile(y, r), 3, strengths=[0.1]) for r in (1, 2))
    assert np.abs(probs(once.logits(x)) - probs(twice.logits(x))).max() < 1e-4


def test_one_fold_holds_out_a_fifth() -> None:
    x, y = blobs(200)
    head = solve_linear(x, y, 3, folds=1)
    assert head.folds == 1
    assert len(head.oof_index) == len(head.oof_logits) == pytest.approx(40, abs=2)
    assert (head.oof_logits.argmax(1) == y[head.oof_index]).mean() == pytest.approx(
        next(row["accuracy"] for row in head.oof_table if row["strength"] == head.strength)
    )


def test_blocks_give_what_the_whole_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = blobs(300, 20, 3)
    whole = solve_linear(x, y, 3, strengths=[0.01])
    for name, value in {"_KEEP_BYTES": 0, "_BLOCK_BYTES": 4 * 20 * 37, "_MEMORY_BYTES": 1}.items():
        monkeypatch.setattr(f"headstart.train.softmax.{name}", value)
    blocks = solve_linear(x, y, 3, strengths=[0.01])
    assert np.abs(probs(whole.logits(x)) - probs(blocks.logits(x))).max() < 1e-4


def test_input_is_left_as_it_was() -> None:
    x, y = blobs()
    before = x.copy()
    x.flags.writeable = False
    solve_linear(x, y, 3, strengths=[0.1])
    assert np.array_equal(x, before)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_counted(value: float) -> None:
    x, y = blobs()
    x[[3, 5, 5], [0, 1, 2]] = value
    with pytest.raises(DataError, match="NaN or infinity in 2 of 240 rows"):
        solve_linear(x, y, 3)


def test_unfit_arguments_are_refused_with_their_values() -> None:
    x, y = blobs()
    with pytest.raises(DataError, match="labels from 0 to 1, found 0 to 2"):
        solve_linear(x, y, 2)
    with pytest.raises(DataError, match=r"found int64 \[240, 12\]"):
        solve_linear(x.astype(np.int64), y, 3)
    with pytest.raises(DataError, match=r"found float32 \[0, 12\]"):
        solve_linear(x[:0], y[:0], 3)
    with pytest.raises(DataError, match=r"one whole number per row as label, \[240\], found int64 \[239\]"):
        solve_linear(x, y[1:], 3)
    with pytest.raises(DataError, match=r"one group per row, \[240\], found \[3\]"):
        solve_linear(x, y, 3, groups=np.zeros(3))
    with pytest.raises(ConfigError, match=r"3 class weights above 0, found \[1. 0. 1.\]"):
        solve_linear(x, y, 3, class_weights=np.array([1.0, 0.0, 1.0]))
    with pytest.raises(ConfigError, match=r"strengths above 0, found \[0.1, -1\]"):
        solve_linear(x, y, 3, strengths=[0.1, -1])
    with pytest.raises(ConfigError, match="at least 1 fold, found 0"):
        solve_linear(x, y, 3, folds=0)


def test_models_solved_together_equal_models_solved_alone() -> None:
    x, y = blobs()
    fold_of = assign_folds(x, y, 3, groups=None, seed=0)
    problem = SoftmaxProblem(Rows(x, Scaling.fit(x, np.ones(240)), torch.device("cpu")), y, 3, np.ones(240), fold_of)
    models = [Model(fold, strength) for strength in (1.0, 1e-3) for fold in (0, 1, 2, None)]
    together, _ = problem.solve(models, None, tolerance=1e-8, max_iterations=200)
    for i, model in enumerate(models):
        alone, _ = problem.solve([model], None, tolerance=1e-8, max_iterations=200)
        assert torch.allclose(problem.logits(together[i : i + 1], slice(None)), problem.logits(alone, slice(None)), atol=5e-3)
