"""The one loop, over real rows of a real store, behind a small real network."""

import contextlib
import itertools
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import PartialState
from tiny_tail import make_examples, make_tail

from headstart import progress
from headstart.backbone import cut, networks
from headstart.config import Phase
from headstart.data.scan import scan
from headstart.data.split import split_table
from headstart.data.table import Table
from headstart.errors import ConfigError
from headstart.features import engine
from headstart.features.extract import extract
from headstart.features.store import Store
from headstart.train import loop
from headstart.train.batches import Feed, passes
from headstart.train.loop import Examples, Tally, Trained, logits_of, train
from headstart.train.processes import Processes
from samples import make_photos


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    folder = tmp_path_factory.mktemp("photos")
    return split_table(scan(make_photos(folder, n=12), cache=tmp_path_factory.mktemp("facts")), seed=0)


def _examples(table: Table, network: networks.Network, place: str, folder: Path) -> tuple[cut.Trunk, cut.Tail, Examples, Examples]:
    trunk, tail = cut.split(network, place)
    rows = extract(trunk, table, Store(folder), choice=engine.choose("torch", "cpu", "fp32")).rows
    splits = np.array([photo.split for photo in table.photos])
    both = []
    for split in ("train", "val"):
        at = np.flatnonzero(splits == split)
        both.append(Examples((rows,), at, table.labels[at], tuple(table.photos[i].sha256 for i in at)))
    torch.manual_seed(0)  # of the new head's weights
    return trunk, tail.with_head(len(table.classes)), *both


@pytest.mark.parametrize("place", ["input", "layer2", "head"])
def test_every_parameter_of_the_tail_is_trained_and_the_trunk_is_not(
    table: Table, network: networks.Network, place: str, tmp_path: Path
) -> None:
    trunk, tail, examples, val = _examples(table, network, place, tmp_path)
    published = {name: tensor.clone() for name, tensor in trunk.state_dict().items()}
    before = {name: tensor.clone() for name, tensor in tail.state_dict().items()}
    recipe = network.preprocessing if place == "input" else None
    trained = train(tail, examples, val, Phase(cut=place, epochs=2, batch_size=8, augment="flip"), preprocessing=recipe)
    assert all(torch.equal(tensor, published[name]) for name, tensor in trunk.state_dict().items())
    assert all(torch.equal(tensor, before[name]) for name, tensor in tail.state_dict().items()), "the tail given was changed"
    for name, parameter in trained.tail.named_parameters():
        assert not torch.equal(parameter, before[name]), f"{name} did not move"
    statistics = [name for name in before if "running_" in name]
    assert all(torch.equal(trained.tail.state_dict()[name], before[name]) for name in statistics), "published statistics changed"
    assert not trained.tail.training


def test_batch_statistics_move_only_when_asked(table: Table, network: networks.Network, tmp_path: Path) -> None:
    _, _, examples, val = _examples(table, network, "layer2", tmp_path)
    tail = cut.split(network, "layer2", batch_statistics=True)[1].with_head(3)
    trained = train(tail, examples, val, Phase(cut="layer2", epochs=1, batch_size=8, norm="batch"))
    moved = [
        not torch.equal(tensor, tail.state_dict()[name]) for name, tensor in trained.tail.state_dict().items() if "running_mean" in name
    ]
    assert moved
    assert all(moved)


def _same(a: Trained, b: Trained) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.tail.state_dict().values(), b.tail.state_dict().values(), strict=True))


@pytest.mark.parametrize("place", ["input", "layer3"])
def test_the_same_seed_gives_the_same_bits_and_another_seed_others(
    table: Table, network: networks.Network, place: str, tmp_path: Path
) -> None:
    _, tail, examples, val = _examples(table, network, place, tmp_path)
    recipe = network.preprocessing if place == "input" else None
    runs = [train(tail, examples, val, Phase(cut=place, epochs=2, batch_size=8), seed=seed, preprocessing=recipe) for seed in (1, 1, 2)]
    assert _same(runs[0], runs[1])
    assert not _same(runs[0], runs[2])


def test_the_best_epoch_on_val_is_kept_and_training_stops_early(table: Table, network: networks.Network, tmp_path: Path) -> None:
    _, tail, examples, val = _examples(table, network, "head", tmp_path)
    phase = Phase(cut="head", epochs=40, rate=0.5, batch_size=8, schedule="constant", patience=3)  # far too fast: val loss jumps about
    trained = train(tail, examples, val, phase)
    losses = [epoch.val_loss for epoch in trained.history]
    assert trained.best_epoch == 1 + int(np.argmin(losses))
    assert len(losses) == min(40, trained.best_epoch + 3)
    logits = torch.from_numpy(logits_of(trained.tail, val, phase))
    tally = Tally()
    tally.add(logits, torch.from_numpy(val.labels))
    assert tally.loss == pytest.approx(min(losses), rel=1e-4)


def test_without_val_photos_the_last_epoch_is_kept(table: Table, network: networks.Network, tmp_path: Path) -> None:
    _, tail, examples, val = _examples(table, network, "head", tmp_path)
    nothing = Examples(val.views, val.at[:0], val.labels[:0], ())
    trained = train(tail, examples, nothing, Phase(cut="head", epochs=7, patience=2))
    assert trained.best_epoch == 7
    assert [(epoch.val_loss, epoch.val_accuracy) for epoch in trained.history] == [(None, None)] * 7


def test_class_weights_change_what_is_learned_and_none_equals_ones(table: Table, network: networks.Network, tmp_path: Path) -> None:
    _, tail, examples, val = _examples(table, network, "head", tmp_path)
    runs = [train(tail, examples, val, Phase(cut="head", epochs=2), class_weights=w) for w in (None, np.ones(3), np.array([9.0, 1, 1]))]
    assert _same(runs[0], runs[1])
    assert not _same(runs[0], runs[2])


def test_an_epoch_draws_one_view_of_every_photo(table: Table, network: networks.Network, tmp_path: Path) -> None:
    trunk, tail, examples, val = _examples(table, network, "head", tmp_path)
    choice = engine.choose("torch", "cpu", "fp32")
    other = extract(trunk, table, Store(tmp_path), view=1, policy="crop-flip", choice=choice).rows
    views = Examples((examples.views[0], other), examples.at, examples.labels, examples.sha256s)
    assert not np.array_equal(other[:3], examples.views[0][:3])
    one = train(tail, examples, val, Phase(cut="head", epochs=1))
    two = train(tail, views, val, Phase(cut="head", epochs=1))
    assert not _same(one, two)


def test_bf16_trains_as_well_as_fp32(table: Table, network: networks.Network, tmp_path: Path) -> None:
    _, tail, examples, val = _examples(table, network, "head", tmp_path)
    losses = [train(tail, examples, val, Phase(cut="head", epochs=5), precision=p).history[-1].train_loss for p in ("fp32", "bf16")]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


def test_training_that_diverges_is_an_error_and_not_a_model(table: Table, network: networks.Network, tmp_path: Path) -> None:
    _, tail, examples, val = _examples(table, network, "layer4", tmp_path)
    phase = Phase(cut="layer4", epochs=9, rate=1e9, batch_size=8, schedule="constant")
    with pytest.raises(ConfigError, match=r"training diverged in epoch \d of phase 'layer4' at rate 1e\+09\nhint: use a lower rate"):
        train(tail, examples, val, phase)


@pytest.mark.parametrize("with_val", [True, False])
def test_a_last_step_that_diverges_is_an_error_too(table: Table, network: networks.Network, with_val: bool, tmp_path: Path) -> None:
    _, tail, examples, val = _examples(table, network, "head", tmp_path)
    val = val if with_val else Examples(val.views, val.at[:0], val.labels[:0], ())
    one_step = Phase(cut="head", epochs=1, rate=float("inf"), batch_size=len(examples), schedule="constant")
    with pytest.raises(ConfigError, match="training diverged in epoch 1 of phase 'head' at rate inf"):
        train(tail, examples, val, one_step)


def test_no_examples_have_no_logits_of_every_class(table: Table, network: networks.Network, tmp_path: Path) -> None:
    _, tail, _, val = _examples(table, network, "layer3", tmp_path)
    nothing = Examples(val.views, val.at[:0], val.labels[:0], ())
    found = logits_of(tail, nothing, Phase(cut="layer3"))
    assert (found.shape, found.dtype) == ((0, 3), np.float32)


def test_a_last_batch_of_one_row_joins_the_one_before_where_batch_statistics_are_used() -> None:
    def sizes(n: int, batch_size: int, norm: str) -> list[int]:
        return [len(range(n)[places]) for places in passes(n, Phase(batch_size=batch_size, norm=norm))]

    assert sizes(17, 8, "published") == [8, 8, 1]
    assert sizes(17, 8, "batch") == [8, 9]
    assert sizes(18, 8, "batch") == [8, 8, 2]
    assert sizes(1, 8, "batch") == [1]
    assert sizes(0, 8, "batch") == []


def test_batch_statistics_train_whatever_the_last_batch(table: Table, network: networks.Network, tmp_path: Path) -> None:
    _, _, examples, val = _examples(table, network, "layer4", tmp_path)
    body = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.BatchNorm2d(examples.views[0].shape[1]))
    tail = cut.Tail(
        body, torch.nn.Linear(body[1].num_features, 3), normalise=torch.nn.Identity(), d_features=0, stage_of={}, batch_statistics=True
    )
    phase = Phase(cut="layer4", epochs=1, batch_size=len(examples) - 1, norm="batch")
    assert train(tail, examples, val, phase).best_epoch == 1


class SeenError(Exception):
    pass


class Watched(torch.nn.Linear):
    """A classifier that says where it is asked to compute."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise SeenError(x.device.type)


def test_each_call_computes_on_its_own_device(
    table: Table, network: networks.Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, tail, examples, val = _examples(table, network, "head", tmp_path)
    train(tail, examples, val, Phase(cut="head", epochs=1))
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # it does not know the device `meta`
    with pytest.raises(SeenError, match="meta"):
        train(tail.with_head(Watched(1, 1)), examples, val, Phase(cut="head", epochs=1), device="meta")
    monkeypatch.setitem(PartialState._shared_state, "device", torch.device("meta"))  # as after a call on a GPU
    train(tail, examples, val, Phase(cut="head", epochs=1), device="cpu")

    with pytest.raises(SeenError, match="meta"):
        logits_of(tail.with_head(Watched(1, 1)), val, Phase(cut="head"), device="meta")


PLAIN = Phase(cut="a", epochs=2, rate=0.1, batch_size=16, optimiser="sgd", momentum=0.0, weight_decay=0.0, warm_up=0.0, patience=99)
ROWS, VAL = make_examples(50), make_examples(20, seed=1)


def _weights(phase: Phase, **settings) -> torch.Tensor:
    """All weights of a tiny tail after training, one after the other."""
    return _flat(train(make_tail(dropout=0.0), ROWS, VAL, phase, **settings).tail)


def _flat(tail: torch.nn.Module) -> torch.Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tail.parameters()])


@pytest.mark.parametrize("extra", [{}, {"label_smoothing": 0.2, "mixup": 0.4}], ids=["plain", "smooth and mixed"])
@pytest.mark.parametrize("class_weights", [None, np.array([1.0, 2.0, 5.0])], ids=["unweighted", "weighted"])
def test_accumulated_batches_equal_one_large_batch(extra: dict, class_weights: np.ndarray | None) -> None:
    """50 rows: the last step has fewer rows than the others, and its last batch fewer still."""
    large, small = (replace(PLAIN, batch_size=size, accumulate=times, **extra) for size, times in ((24, 1), (8, 3)))
    torch.testing.assert_close(_weights(large, class_weights=class_weights), _weights(small, class_weights=class_weights))
    assert not torch.allclose(_weights(large), _weights(replace(small, accumulate=1)), atol=1e-3)


def test_clipping_limits_the_gradient_of_a_step() -> None:
    one_step = replace(PLAIN, epochs=1, batch_size=50, schedule="constant", rate=2.0)
    moved = (_weights(replace(one_step, clip=0.01)) - _flat(make_tail())).norm()
    assert moved == pytest.approx(2.0 * 0.01, rel=1e-3)
    torch.testing.assert_close(_weights(replace(one_step, clip=1e6)), _weights(one_step))


def test_balanced_sampling_draws_every_class_equally_often_and_all_sampling_every_row_once() -> None:
    def drawn(sampling: str, epoch: int) -> np.ndarray:
        feed = Feed(ROWS, replace(PLAIN, sampling=sampling), Processes("cpu"), seed=1)
        return np.concatenate([batch.x.numpy() for batch in feed.batches(epoch)])

    def counts(rows: np.ndarray) -> list[int]:
        where = {row.tobytes(): label for row, label in zip(ROWS.views[0], ROWS.labels, strict=True)}
        return np.bincount([where[row.tobytes()] for row in rows]).tolist()

    assert sorted(map(bytes, drawn("all", 1))) == sorted(map(bytes, ROWS.views[0]))
    assert counts(drawn("all", 1)) == np.bincount(ROWS.labels).tolist()
    assert sorted(counts(drawn("balanced", 1))) == [16, 17, 17]
    rare = np.flatnonzero(ROWS.labels == 2)
    assert {bytes(row) for row in ROWS.views[0][rare]} <= {bytes(row) for row in drawn("balanced", 1)}
    assert not np.array_equal(drawn("balanced", 1), drawn("balanced", 2))
    assert np.array_equal(drawn("balanced", 2), drawn("balanced", 2))


def test_a_training_that_does_not_move_reports_losses_without_weights_and_smoothing() -> None:
    still = replace(PLAIN, rate=0.0, epochs=1)
    plain = train(make_tail(), ROWS, VAL, still).history[0]
    other = train(make_tail(), ROWS, VAL, replace(still, label_smoothing=0.3), class_weights=np.array([1.0, 9.0, 9.0])).history[0]
    assert (plain.train_loss, plain.val_loss) == pytest.approx((other.train_loss, other.val_loss))
    assert plain.train_accuracy == other.train_accuracy


def test_label_smoothing_and_class_weights_are_what_pytorch_means_by_them() -> None:
    """One step over all rows, against the gradient of PyTorch's own loss."""
    weights = np.array([1.0, 2.0, 5.0])
    tail = make_tail().train()
    loss_of = torch.nn.CrossEntropyLoss(torch.tensor(weights).float(), label_smoothing=0.2)
    loss_of(tail(torch.from_numpy(ROWS.views[0])), torch.from_numpy(ROWS.labels)).backward()
    expected = torch.cat([(parameter - 0.1 * parameter.grad).detach().flatten() for parameter in tail.parameters()])
    one_step = replace(PLAIN, epochs=1, batch_size=50, schedule="constant", label_smoothing=0.2)
    torch.testing.assert_close(_weights(one_step, class_weights=weights), expected)


def test_averaged_weights_are_the_ones_selected_and_kept() -> None:
    jumpy = replace(PLAIN, rate=1.0, epochs=8)
    plain, averaged = (train(make_tail(), ROWS, VAL, phase) for phase in (jumpy, replace(jumpy, ema=0.9)))
    assert [e.train_loss for e in plain.history] == [e.train_loss for e in averaged.history], "the training itself must be the same"
    tally = Tally()
    tally.add(torch.from_numpy(logits_of(averaged.tail, VAL, jumpy)), torch.from_numpy(VAL.labels))
    assert tally.loss == pytest.approx(min(e.val_loss for e in averaged.history))
    assert tally.loss < min(e.val_loss for e in plain.history), "averaging ought to calm such a training"


def test_a_phase_may_have_its_own_precision() -> None:
    bf16, fp32 = _weights(PLAIN, precision="bf16"), _weights(PLAIN)
    assert not torch.equal(bf16, fp32)
    assert torch.equal(_weights(replace(PLAIN, precision="bf16")), bf16)
    assert torch.equal(_weights(replace(PLAIN, precision="fp32"), precision="bf16"), fp32)


def test_dropout_is_set_on_the_head_and_stays_there() -> None:
    tail = make_tail(dropout=0.5)
    kept = train(tail, ROWS, VAL, PLAIN).tail.classifier[1]
    changed = train(tail, ROWS, VAL, replace(PLAIN, dropout=0.1)).tail.classifier[1]
    assert (kept.p, changed.p, tail.classifier[1].p) == (0.5, 0.1, 0.5)
    assert torch.equal(_weights(PLAIN), _weights(replace(PLAIN, dropout=0.0)))
    assert not torch.equal(_weights(PLAIN), _weights(replace(PLAIN, dropout=0.5)))
    with pytest.raises(ConfigError, match=r"dropout layers for dropout = 0.3 in phase 'a', found one without\nhint: give the head hidden"):
        train(make_tail(), ROWS, VAL, replace(PLAIN, dropout=0.3))


def test_frozen_parameters_stay_and_a_rate_decay_of_zero_trains_the_head_alone() -> None:
    tail = make_tail()
    tail.body.b.weight.requires_grad_(False)
    trained = train(tail, ROWS, VAL, replace(PLAIN, weight_decay=0.1, ema=0.9)).tail
    same = {name for name, tensor in trained.named_parameters() if torch.equal(tensor, make_tail().get_parameter(name))}
    assert same == {"body.b.weight"}
    trained = train(make_tail(), ROWS, VAL, replace(PLAIN, rate_decay=0.0)).tail
    same = {name for name, tensor in trained.named_parameters() if torch.equal(tensor, make_tail().get_parameter(name))}
    assert same == {name for name in dict(trained.named_parameters()) if name.startswith("body.")}


def test_a_plateau_on_val_lowers_the_rate_that_the_history_tells() -> None:
    history = train(make_tail(), ROWS, VAL, replace(PLAIN, rate=1.0, epochs=8, schedule="plateau")).history
    rates = [epoch.rate for epoch in history]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == 1.0
    assert rates[-1] in (pytest.approx(0.2), pytest.approx(0.04))


def test_each_epoch_is_told_as_it_ends_with_its_speed() -> None:
    told = []
    history = train(make_tail(), ROWS, VAL, PLAIN, on_epoch=told.append).history
    assert tuple(told) == history
    assert all(0 < len(ROWS) / epoch.images_per_s <= epoch.seconds for epoch in history)


def test_rows_computed_anew_train_as_stored_ones_do(table: Table, network: networks.Network, tmp_path: Path) -> None:
    _, _, pixels, pixel_val = _examples(table, network, "input", tmp_path)
    trunk, tail, rows, val = _examples(table, network, "layer3", tmp_path)
    phase = Phase(cut="layer3", epochs=2, batch_size=8, augment="none", mixup=0.3)
    published = {name: tensor.clone() for name, tensor in trunk.state_dict().items()}
    stored = train(tail, rows, val, phase)
    anew = train(tail, pixels, pixel_val, phase, preprocessing=network.preprocessing, front=trunk)
    assert all(torch.equal(tensor, published[name]) for name, tensor in trunk.state_dict().items())
    assert [e.train_loss for e in anew.history] == pytest.approx(
        [e.train_loss for e in stored.history], rel=0.02
    )  # rows are stored in fp16
    logits = logits_of(anew.tail, pixel_val, phase, preprocessing=network.preprocessing, front=trunk)
    np.testing.assert_allclose(logits, logits_of(anew.tail, val, phase), atol=0.05 * np.abs(logits).max())
    augmented = train(tail, pixels, pixel_val, replace(phase, augment="crop-flip"), preprocessing=network.preprocessing, front=trunk)
    assert not _same(augmented, anew)


def test_mixed_photos_train_at_cut_input_and_cutmix_is_refused_elsewhere(table: Table, network: networks.Network, tmp_path: Path) -> None:
    _, tail, examples, val = _examples(table, network, "input", tmp_path)
    runs = [
        train(tail, examples, val, Phase(cut="input", epochs=1, batch_size=8, **mixed), preprocessing=network.preprocessing)
        for mixed in ({}, {"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0})
    ]
    assert not any(_same(a, b) for a, b in itertools.combinations(runs, 2))
    trunk, tail, rows, val = _examples(table, network, "layer3", tmp_path)
    for settings in ({}, {"preprocessing": network.preprocessing, "front": trunk}):
        with pytest.raises(ConfigError, match=r"needs cut `input`, found cut 'layer3'\nhint: use mixup there"):
            train(tail, rows, val, Phase(cut="layer3", cutmix=1.0), **settings)


def test_views_stored_in_different_dtypes_keep_their_values() -> None:
    """A policy whose activations overflow float16 is stored in float32, the centre view beside it is not."""
    large = ROWS.views[0] * np.float32(1e6)
    views = (ROWS.views[0].astype(np.float16), large)
    batch = next(Feed(replace(ROWS, views=views), replace(PLAIN, batch_size=50), Processes("cpu"), seed=1).batches(1)).x.numpy()
    assert batch.dtype == np.float32
    found = {row.tobytes() for row in batch}
    n_of = [len(found & {row.tobytes() for row in view.astype(np.float32)}) for view in views]
    assert sum(n_of) == 50
    assert min(n_of) > 0


def test_answers_are_the_tails_own_bits_and_bf16_only_where_asked_for() -> None:
    tail, phase = make_tail().eval(), replace(PLAIN, batch_size=20)
    with torch.inference_mode():
        expected = tail(torch.from_numpy(VAL.views[0])).numpy()
    assert np.array_equal(logits_of(tail, VAL, phase), expected)
    rounded = logits_of(tail, VAL, phase, precision="bf16")
    assert rounded.dtype == np.float32
    assert not np.array_equal(rounded, expected)
    np.testing.assert_allclose(rounded, expected, atol=0.05)


@contextlib.contextmanager
def _progress_shown() -> Iterator[None]:
    token = progress._quiet.set(False)
    try:
        yield
    finally:
        progress._quiet.reset(token)


def test_answers_show_their_progress_once_they_take_long(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with _progress_shown():
        logits_of(make_tail(), VAL, PLAIN)
        assert capsys.readouterr().err == ""
        monkeypatch.setattr(loop, "LONG_S", 0.0)
        logits_of(make_tail(), VAL, PLAIN)
    assert re.fullmatch(r"Computing answers: 20/20 images, [\d.]+ images/s\n", capsys.readouterr().err)


def test_progress_tells_losses_accuracies_rate_and_speed(capsys: pytest.CaptureFixture[str]) -> None:
    with _progress_shown():
        last = train(make_tail(), ROWS, VAL, replace(PLAIN, schedule="constant")).history[-1]
    means = f"train {last.train_loss:.3f} ({last.train_accuracy:.1%}), val {last.val_loss:.3f} ({last.val_accuracy:.1%})"
    said = capsys.readouterr().err
    assert re.fullmatch(rf"Training from a: 100/100 images, [\d.]+ images/s \(epoch 2/2, {re.escape(means)}, rate 0.1\)\n", said)
