"""From rows to a classifier: which photos train, select, calibrate; what is carried from phase to phase."""

from pathlib import Path

import numpy as np
import pytest
import torch

from headstart.backbone import cut, networks
from headstart.config import Head, Phase
from headstart.data import pixels
from headstart.data.scan import scan
from headstart.data.split import split_table
from headstart.data.table import Table
from headstart.features import engine
from headstart.features.extract import Features, extract
from headstart.features.store import Store
from headstart.train import learn as learning
from headstart.train.learn import Learned, learn
from samples import make_photos

TORCH = engine.Choice("torch", "cpu", "fp32")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    return split_table(scan(make_photos(tmp_path_factory.mktemp("photos"), n=14), cache=tmp_path_factory.mktemp("facts")), seed=0)


@pytest.fixture
def run(network: networks.Network, table: Table, tmp_path: Path):
    def rows_at(trunk: cut.Trunk, view: int, policy: str) -> Features:
        return extract(trunk, table, Store(tmp_path), view=view, policy=policy, choice=TORCH)

    def run(head: Head, *phases: Phase, seed: int = 0) -> Learned:
        return learn(network, table, rows_at, head, phases, seed=seed, device="cpu", precision="fp32")

    return run


def _of(table: Table, *splits: str) -> list[int]:
    return [i for i, photo in enumerate(table.photos) if photo.split in splits]


def _images(table: Table, network: networks.Network) -> torch.Tensor:
    return torch.from_numpy(np.stack([pixels.load(table.file(i), network.preprocessing) for i in range(len(table))]))


def test_a_solved_head_is_calibrated_on_out_of_fold_answers_of_train_and_val(run, table: Table) -> None:
    learned = run(Head())
    assert sorted(learned.held_out) == _of(table, "train", "val")
    assert learned.logits.shape == (len(learned.held_out), 3)
    assert learned.facts["kind"] == "linear"
    assert learned.history == ()


def test_no_test_photo_changes_anything_that_is_learned(run, table: Table, network: networks.Network, tmp_path: Path) -> None:
    """Labels of test photos are turned round: not a bit of the result may change."""
    names = dict(zip(table.classes, [*table.classes[1:], table.classes[0]], strict=True))
    turned = [
        photo if photo.split != "test" else type(photo)(**{f: getattr(photo, f) for f in photo.__slots__} | {"label": names[photo.label]})
        for photo in table.photos
    ]
    other = table.with_photos(turned)
    assert (other.labels != table.labels).sum() == len(_of(table, "test"))

    def rows_at(trunk: cut.Trunk, view: int, policy: str) -> Features:
        return extract(trunk, other, Store(tmp_path), view=view, policy=policy, choice=TORCH)

    for head, phases in ((Head(), ()), (Head(kind="dense", hidden=(8,)), ()), (Head(), (Phase(cut="layer3", epochs=1),))):
        a = run(head, *phases)
        b = learn(network, other, rows_at, head, phases, seed=0, device="cpu", precision="fp32")
        assert all(torch.equal(a.tail_state[name], b.tail_state[name]) for name in a.tail_state)
        np.testing.assert_array_equal(a.logits, b.logits)


def test_a_trained_tail_is_calibrated_on_val_alone(run, table: Table) -> None:
    learned = run(Head(kind="dense", hidden=(8,)))
    assert list(learned.held_out) == _of(table, "val")
    assert "both selected the epoch and calibrated" in learned.notices[0]
    assert {epoch.phase for epoch in learned.history} == {"head"}


def test_from_400_val_photos_on_one_half_selects_and_the_other_calibrates(run, table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "HALVE_VAL_FROM", 4)
    learned = run(Head(kind="dense", hidden=(8,)))
    assert set(learned.calibrate_on) < set(learned.held_out)
    assert 0 < len(learned.calibrate_on) < len(learned.held_out)
    assert learned.notices == ()


GENTLE = {"epochs": 1, "rate": 1e-5}


@pytest.mark.parametrize("phases", [(), (Phase(cut="layer3", **GENTLE),), (Phase(cut="layer3", **GENTLE), Phase(cut="input", **GENTLE))])
def test_the_whole_module_answers_as_trunk_and_tail_did(run, table: Table, network: networks.Network, phases: tuple[Phase, ...]) -> None:
    learned = run(Head(kind="dense", hidden=(8,)), *phases)
    with torch.inference_mode():
        logits = learned.module(_images(table, network))[learned.held_out].numpy()
    # At cut `input` photos over 1.15 times the input were scaled down once before they were stored: a little, and stated.
    assert np.abs(logits - learned.logits).max() < 0.05 * np.abs(logits).max()


def test_a_later_phase_starts_where_the_one_before_ended(run, table: Table, network: networks.Network) -> None:
    """With a rate of 0 the second phase must change nothing, though its tail is cut elsewhere."""
    first = Phase(cut="layer3", epochs=2, rate=0.01)
    one, two = run(Head(), first), run(Head(), first, Phase(cut="layer1", epochs=1, rate=0.0))
    assert set(one.tail_state) < set(two.tail_state)
    assert all(torch.equal(one.tail_state[name], two.tail_state[name]) for name in one.tail_state)


def test_balanced_classes_weigh_the_rare_ones_more(network: networks.Network, table: Table, tmp_path: Path) -> None:
    few = [i for i in range(len(table)) if table.labels[i] != 0 or i % 3 == 0]
    rare = table.subset(few)

    def rows_at(trunk: cut.Trunk, view: int, policy: str) -> Features:
        return extract(trunk, rare, Store(tmp_path), view=view, policy=policy, choice=TORCH)

    heads = [Head(class_weights=weights) for weights in ("none", "balanced")]
    plain, balanced = (learn(network, rare, rows_at, head, (), seed=0, device="cpu", precision="fp32") for head in heads)
    trunk, _ = cut.split(network, "head")
    rows = trunk(_images(rare, network)).numpy()
    shares = []
    for learned in (plain, balanced):
        state = learned.tail_state
        logits = rows @ state["classifier.weight"].numpy().T + state["classifier.bias"].numpy()
        shares.append((np.exp(logits[:, 0]) / np.exp(logits).sum(1)).mean())
    assert shares[1] > shares[0]
