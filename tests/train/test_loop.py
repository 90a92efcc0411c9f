"""The one loop, over real rows of a real store, behind a small real network."""

from pathlib import Path

import numpy as np
import pytest
import torch

from headstart.backbone import cut, networks, weights
from headstart.config import Phase
from headstart.data.scan import scan
from headstart.data.split import split_table
from headstart.data.table import Table
from headstart.features import engine
from headstart.features.extract import extract
from headstart.features.store import Store
from headstart.train.loop import Examples, Tally, Trained, logits_of, train
from samples import make_photos


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    folder = tmp_path_factory.mktemp("photos")
    return split_table(scan(make_photos(folder, n=12), cache=tmp_path_factory.mktemp("facts")), seed=0)


@pytest.fixture(scope="module")
def network(tiny_weights: Path) -> networks.Network:
    return networks.build(weights.locate(None, tiny_weights))


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
