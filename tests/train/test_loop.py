"""The one loop, over real rows of a real store, behind a small real network."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState

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
from headstart.train.loop import Examples, Tally, Trained, logits_of, train
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
        return [len(range(n)[places]) for places in loop._slices(n, Phase(batch_size=batch_size, norm=norm))]

    assert sizes(17, 8, "published") == [8, 8, 1]
    assert sizes(17, 8, "batch") == [8, 9]
    assert sizes(18, 8, "batch") == [8, 8, 2]
    assert sizes(1, 8, "batch") == [1]
    assert sizes(0, 8, "batch") == []


def test_batch_statistics_train_whatever_the_last_batch(table: Table, network: networks.Network, tmp_path: Path) -> None:
    _, _, examples, val = _examples(table, network, "layer4", tmp_path)
    body = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.BatchNorm2d(examples.views[0].shape[1]))
    tail = cut.Tail(body, torch.nn.Linear(body[1].num_features, 3), normalise=torch.nn.Identity(), d_features=0, batch_statistics=True)
    phase = Phase(cut="layer4", epochs=1, batch_size=len(examples) - 1, norm="batch")
    assert train(tail, examples, val, phase).best_epoch == 1


class SeenError(Exception):
    pass


class Watched(torch.nn.Module):
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
        train(tail.with_head(Watched()), examples, val, Phase(cut="head", epochs=1), device="meta")
    monkeypatch.setitem(AcceleratorState._shared_state, "device", torch.device("meta"))  # as after a call on a GPU
    train(tail, examples, val, Phase(cut="head", epochs=1), device="cpu")
