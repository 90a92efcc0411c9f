"""From rows to a classifier: which photos train, select, calibrate; what is carried from phase to phase; what val keeps."""

import contextlib
import dataclasses
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from headstart import progress
from headstart.backbone import cut, networks, weights
from headstart.config import Head, Phase
from headstart.data import pixels
from headstart.data.scan import scan
from headstart.data.split import split_table
from headstart.data.table import Table
from headstart.errors import ConfigError, HeadstartError, StoreError
from headstart.features import engine
from headstart.features.extract import Extractor
from headstart.features.store import Store
from headstart.train import checkpoint, survey
from headstart.train import task as tasks
from headstart.train.classifier import linear
from headstart.train.head import solve_linear
from headstart.train.learn import Asked, Learned, Memory, Task, learn, with_room
from headstart.train.loop import Epoch
from headstart.train.plan import Plan
from samples import make_photos

TORCH = engine.Choice("torch", "cpu", "fp32")
GENTLE = {"epochs": 1, "rate": 1e-5}

Run = Callable[..., Learned]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    return split_table(scan(make_photos(tmp_path_factory.mktemp("photos"), n=14), cache=tmp_path_factory.mktemp("facts")), seed=0)


@pytest.fixture
def run(network: networks.Network, tiny_weights: Path, table: Table, tmp_path: Path) -> Run:
    file = weights.locate(None, tiny_weights)

    def run(*phases: Phase, store: Store | None = None, photos: Table = table, **asked: object) -> Learned:
        extract = Extractor(photos, Store(tmp_path) if store is None else store, TORCH)
        return learn(Task(network, extract, Asked(phases=phases, **asked), network_at=lambda px: networks.build(file, px=px)))

    return run


def _of(table: Table, *splits: str) -> list[int]:
    return [i for i, photo in enumerate(table.photos) if photo.split in splits]


def _images(table: Table, network: networks.Network) -> torch.Tensor:
    return torch.from_numpy(np.stack([pixels.load(table.file(i), network.preprocessing) for i in range(len(table))]))


def _same(a: Learned, b: Learned) -> bool:
    return a.tail_state.keys() == b.tail_state.keys() and all(torch.equal(a.tail_state[name], b.tail_state[name]) for name in a.tail_state)


def _saved_vit(path: Path) -> weights.WeightsFile:
    """A small vision transformer; its position embedding depends on the size of its input."""
    module = timm.create_model("test_vit", num_classes=0)
    record = {
        "architecture": "test_vit",
        "timm_architecture": "test_vit",
        "model_args": {"num_classes": 0},
        "input_px": 160,
        "crop": 1.0,
        "interpolation": "bilinear",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
        "bn_folded": False,
        "classes": 0,
        "licence": "MIT",
    }
    save_file(module.state_dict(), path, metadata={"headstart": json.dumps(record)})
    return weights.locate(None, path)


def _keep(monkeypatch: pytest.MonkeyPatch, alpha: float) -> None:
    """Let val prefer this share of the tuned weights, whatever it says."""
    monkeypatch.setattr("headstart.train.learn.choose", lambda scored: next(one for one in scored if one.alpha == alpha))


def test_a_solved_head_is_calibrated_on_out_of_fold_answers_of_train_and_val(run: Run, table: Table) -> None:
    learned = run()
    assert sorted(learned.held_out) == _of(table, "train", "val")
    assert learned.logits.shape == (len(learned.held_out), 3)
    assert learned.facts["kind"] == "linear"
    assert learned.history == ()
    assert learned.tuning["verdict"] == "not tried"


def test_no_test_photo_changes_anything_that_is_learned(run: Run, table: Table) -> None:
    """Labels of test photos are turned round: not a bit of the result may change."""
    names = dict(zip(table.classes, [*table.classes[1:], table.classes[0]], strict=True))
    turned = [p if p.split != "test" else dataclasses.replace(p, label=names[p.label]) for p in table.photos]
    other = table.with_photos(turned)
    assert (other.labels != table.labels).sum() == len(_of(table, "test"))
    for head, phases in ((Head(), ()), (Head(kind="dense", hidden=(8,)), ()), (Head(), (Phase(cut="layer3", epochs=1),))):
        a, b = run(*phases, head=head), run(*phases, head=head, photos=other)
        assert _same(a, b)
        np.testing.assert_array_equal(a.logits, b.logits)
        assert a.tuning["tuned"] == b.tuning["tuned"]


def test_a_dense_head_is_calibrated_on_val_alone(run: Run, table: Table) -> None:
    learned = run(head=Head(kind="dense", hidden=(8,)), tune="if-it-pays")
    assert list(learned.held_out) == _of(table, "val")
    assert "both selected the weights and calibrated" in learned.notices[0]
    assert {epoch.phase for epoch in learned.history} == {"head"}
    assert learned.facts["kind"] == "dense"
    assert learned.phases[0].hidden == (8,)


def test_a_dense_head_stays_and_the_record_says_how_the_solved_one_did(run: Run) -> None:
    dense = Head(kind="dense", hidden=(8,))
    given = run(Phase(cut="head", epochs=1, rate=1e-9), head=dense)  # where phases are given, val decides
    assert given.tuning["kept"] == "probe"
    assert given.tuning["dense"] is None
    tuning = run(head=dense).tuning
    assert tuning["kept"] == "dense"
    assert tuning["probe"] == given.tuning["probe"]
    assert set(tuning["dense"]) == {"val_accuracy", "val_loss"}
    assert tuning["tuned"] is tuning["averaged"] is None
    assert tuning["hindsight"] in ("paid", "did not pay")


def test_from_400_val_photos_on_one_half_selects_and_the_other_calibrates(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "HALVE_VAL_FROM", 4)
    learned = run(head=Head(kind="dense", hidden=(8,)))
    assert set(learned.calibrate_on) < set(learned.held_out)
    assert 0 < len(learned.calibrate_on) < len(learned.held_out)
    assert learned.tuning["n_val"] == len(learned.held_out) - len(learned.calibrate_on)
    assert learned.notices == ()


@pytest.mark.parametrize("sizes", [[1] * 9, [2] * 8, [1, 2, 3, 4], [9, 4, 1, 1], [5, 5], [6, 2], [8], [7, 1], [20, 1, 1, 1]])
def test_val_is_halved_by_whole_groups_or_not_at_all(
    sizes: list[int], network: networks.Network, table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "HALVE_VAL_FROM", 4)
    rng = np.random.default_rng(len(sizes))
    photos = [
        dataclasses.replace(table.photos[0], path=f"{g} {i}.png", sha256=rng.bytes(32).hex(), split="val", group=str(g))
        for g, size in enumerate(sizes)
        for i in range(size)
    ]

    def dealt(order: list[int]) -> tuple[list[set[str]], Task]:
        some = table.with_photos([photos[i] for i in order])
        task = Task(network, Extractor(some, Store(tmp_path), TORCH))
        return [{some.photos[i].path for i in half} for half in task.halves], task

    (select, calibrate), task = dealt(list(range(len(photos))))
    if max(sizes) > 0.75 * len(photos):
        assert select == calibrate == {photo.path for photo in photos}
        assert "belong to so few groups" in task.about_val()[0]
    else:
        assert min(len(select), len(calibrate)) >= len(photos) / 4
        assert len(select | calibrate) == len(photos)
        assert not {path.split()[0] for path in select} & {path.split()[0] for path in calibrate}
        assert task.about_val() == ()
    assert dealt(list(range(len(photos)))[::-1])[0] == [select, calibrate]


@pytest.mark.parametrize("phases", [(), (Phase(cut="layer3", **GENTLE),), (Phase(cut="top 1", **GENTLE), Phase(cut="input", **GENTLE))])
def test_the_whole_module_answers_as_trunk_and_tail_did(
    run: Run, table: Table, network: networks.Network, phases: tuple[Phase, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    _keep(monkeypatch, 1.0)
    learned = run(*phases, head=Head(kind="dense", hidden=(8,)))
    with torch.inference_mode():
        logits = learned.module(_images(table, network))[learned.held_out].numpy()
    # At cut `input` photos over 1.15 times the input were scaled down once before they were stored: a little, and stated.
    assert np.abs(logits - learned.logits).max() < 0.05 * np.abs(logits).max()


def test_a_later_phase_starts_where_the_one_before_ended(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a rate of 0 the second phase must change nothing, though its tail is cut elsewhere."""
    _keep(monkeypatch, 1.0)
    first = Phase(cut="layer3", epochs=2, rate=0.01)
    one, two = run(first), run(first, Phase(cut="layer1", epochs=1, rate=0.0))
    assert set(one.tail_state) < set(two.tail_state)
    assert all(torch.equal(one.tail_state[name], two.tail_state[name]) for name in one.tail_state)


def test_phases_at_the_same_cut_go_on_and_new_dense_layers_start_anew(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    _keep(monkeypatch, 1.0)
    first = Phase(cut="layer3", epochs=1, rate=0.01)
    dense = Phase(cut="layer3", epochs=1, rate=0.0, hidden=(6, 5), dropout=0.5)
    one, two = run(first), run(first, dense)
    assert [tuple(tensor.shape) for name, tensor in two.tail_state.items() if name.endswith("weight") and "classifier" in name] == [
        (6, 96),
        (5, 6),
        (3, 5),
    ]
    body = [name for name in one.tail_state if name.startswith("body")]
    assert body
    assert all(torch.equal(one.tail_state[name], two.tail_state[name]) for name in body)
    assert two.facts["kind"] == "dense"
    assert two.tuning["averaged"] is None


def test_a_phase_of_another_size_sees_photos_of_that_size(run: Run, table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    _keep(monkeypatch, 1.0)
    learned = run(Phase(cut="layer3", px=24, **GENTLE), Phase(cut="input", px=48, **GENTLE))
    assert learned.network.preprocessing.input_px == 48
    assert [phase["px"] for phase in learned.tuning["phases"]] == [24, 48]
    with torch.inference_mode():
        logits = learned.module(_images(table, learned.network))[learned.held_out].numpy()
    assert np.abs(logits - learned.logits).max() < 0.05 * np.abs(logits).max()


def test_a_phase_of_another_size_starts_with_a_head_that_was_solved_at_that_size(
    run: Run, table: Table, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _keep(monkeypatch, 1.0)
    learned = run(Phase(cut="layer3", px=24, epochs=1, rate=1e-12))
    small, fit = networks.build(weights.locate(None, tiny_weights), px=24), _of(table, "train")
    features = Extractor(table, Store(tmp_path), TORCH)(cut.Trunk(small, "head")).rows[:]
    solved = solve_linear(features[fit], table.labels[fit], 3, groups=table.groups[fit], seed=0)
    torch.testing.assert_close(learned.tail_state["classifier.weight"], linear(solved).weight.detach())


def test_one_px_and_then_another_where_weights_depend_on_it_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    file = _saved_vit(tmp_path / "vit.safetensors")
    table = split_table(scan(make_photos(tmp_path / "photos", n=4)), seed=0)
    store = Store(tmp_path / "store")
    asked = Asked(phases=(Phase(cut="input", px=32, epochs=1), Phase(cut="input", px=64, epochs=1)))
    task = Task(networks.build(file), Extractor(table, store, TORCH), asked, network_at=lambda px: networks.build(file, px=px))
    with pytest.raises(ConfigError, match=r"pos_embed depends on the network's input.*\nhint: give all phases that train it the same px"):
        learn(task)
    assert store.spaces() == []


def test_a_cut_that_turns_out_to_be_input_or_not_is_held_to_what_goes_there(run: Run) -> None:
    behind, everything = Phase(cut="top 1", cutmix=1.0), Phase(cut="top 5", views=2)
    assert behind.problems() == everything.problems() == []  # the network has to say where they cut
    with pytest.raises(ConfigError, match=r"phases.0: cutmix mixes pixels, .*found cut = top 1; phases.1: .*leave views out"):
        run(behind, everything)


@pytest.mark.parametrize(
    ("stage_rates", "match"),
    [
        (
            {"layer9": 0.3, "layer4": 1.0},
            r"phases.0: stage_rates names layer9, which this network does not have \(its stages: .*layer1, layer2, layer3, layer4, head\)"
            r"\nhint: did you mean 'layer\d'",
        ),
        ({"layer2": 0.3}, r"stage_rates names layer2, before cut = top 2, where nothing trains \(behind it: layer3, layer4, head\)"),
        ({"layer3": 0.0, "layer4": 0.0, "head": 0.0}, "stage_rates leaves every stage a rate of 0, which trains nothing"),
    ],
)
def test_rates_of_stages_that_do_not_train_are_refused(run: Run, stage_rates: dict[str, float], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        run(Phase(cut="top 2", stage_rates=stage_rates))


def test_a_rate_for_a_stage_of_which_top_layers_only_asks_an_activation_is_refused(run: Run) -> None:
    phase = Phase(cut="top 11 layers", stage_rates={"layer3": 0.3})  # layer4 has 10
    with pytest.raises(ConfigError, match=r"stage_rates names layer3, before cut = top 11 layers, where nothing trains"):
        run(phase)


def test_a_stage_at_a_rate_of_0_stays_as_published(run: Run, network: networks.Network, monkeypatch: pytest.MonkeyPatch) -> None:
    _keep(monkeypatch, 1.0)
    state = run(Phase(cut="layer2", epochs=1, rate=0.01, stage_rates={"layer3": 0.0})).tail_state
    published = cut.split(network, "layer2")[1].state_dict()
    stays = {
        stage: torch.equal(state[name], published[name]) for stage in ("layer3", "layer4") for name in [f"body.{stage}.0.conv1.weight"]
    }
    assert stays == {"layer3": True, "layer4": False}


def test_augmented_views_are_of_training_photos_alone(run: Run, table: Table, tmp_path: Path) -> None:
    phase = Phase(cut="layer3", views=3, **GENTLE)
    learned = run(phase)
    held = {info.view: info.rows for info in Store(tmp_path).spaces() if info.cut == "layer3"}
    assert held == {"none": len(table), "crop-flip": 2 * len(_of(table, "train"))}
    assert learned.tuning["phases"][0]["store_bytes"] < 3 * run(dataclasses.replace(phase, views=1)).tuning["phases"][0]["store_bytes"]


def test_cuts_move_toward_input_whatever_they_are_called(run: Run) -> None:
    with pytest.raises(ConfigError, match=r"cuts may only move toward `input` .* found top 2 -> layer3"):
        run(Phase(cut="top 2"), Phase(cut="layer3"))


# -- what val keeps


def test_a_tuned_network_that_does_no_better_leaves_exactly_the_probe(run: Run) -> None:
    tuned, never = run(Phase(cut="layer3", epochs=1, rate=1e-9)), run()
    assert tuned.tuning["kept"] == "probe"
    assert tuned.tuning["hindsight"] == "did not pay"
    assert _same(tuned, never)
    np.testing.assert_array_equal(tuned.logits, never.logits)
    np.testing.assert_array_equal(tuned.held_out, never.held_out)
    assert len(tuned.history) == 1


@pytest.mark.parametrize("seed", [0, 1])
def test_a_run_that_tunes_never_ends_worse_on_val_than_its_own_probe(run: Run, seed: int) -> None:
    for rate, px in ((1e-4, None), (0.03, None), (1e-3, 24)):
        tuning = run(Phase(cut="layer1", px=px, epochs=2, rate=rate, batch_size=8), seed=seed).tuning
        kept = {"probe": "probe", "tuned": "tuned", "average": "averaged"}[tuning["kept"]]
        assert tuning[kept]["val_accuracy"] >= tuning["probe"]["val_accuracy"]
        assert tuning[kept]["val_loss"] <= tuning["probe"]["val_loss"]


def test_an_average_lies_between_the_published_network_and_the_tuned_one(
    run: Run, network: networks.Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    phase = Phase(cut="layer3", epochs=1, rate=0.01)
    _keep(monkeypatch, 1.0)
    tuned = run(phase)
    _keep(monkeypatch, 0.25)
    average = run(phase)
    assert (average.tuning["kept"], average.tuning["average"]) == ("average", 0.25)
    published = cut.split(network, "layer3")[1].state_dict()
    name = "body.layer4.0.conv1.weight"
    torch.testing.assert_close(average.tail_state[name], 0.75 * published[name] + 0.25 * tuned.tail_state[name])


def test_behind_a_dense_head_the_average_is_of_the_weights_before_and_after_the_last_phase(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    head, last = Head(kind="dense", hidden=(8,)), Phase(cut="layer3", epochs=1, rate=0.01)
    phases = Phase(cut="head", epochs=2, rate=0.01), last
    states = []
    for alpha in (1.0, 0.25):
        _keep(monkeypatch, alpha)
        states.append(run(*phases, head=head).tail_state)
    _keep(monkeypatch, 1.0)
    before = run(phases[0], dataclasses.replace(last, rate=0.0), head=head).tail_state
    for name, tuned in states[0].items():
        if tuned.is_floating_point():
            torch.testing.assert_close(states[1][name], before[name].lerp(tuned, 0.25))
    assert not torch.equal(states[0]["classifier.1.weight"], before["classifier.1.weight"])


def test_two_test_views_score_the_probe_and_the_tuned_network_on_the_same_views(run: Run) -> None:
    tuning = run(Phase(cut="layer3", epochs=1, rate=1e-9), test_views=2, precision="fp32").tuning
    assert tuning["tuned"]["val_loss"] == pytest.approx(tuning["probe"]["val_loss"], rel=1e-3)


def test_without_averages_the_probe_and_the_tuned_network_compete_alone(run: Run) -> None:
    tuning = run(Phase(cut="layer3", **GENTLE), average=False).tuning
    assert tuning["averaged"] is None
    assert tuning["probe"] is not None
    assert tuning["tuned"] is not None


# -- planned phases


def test_a_trial_is_expected_to_take_what_opening_the_trunk_takes(
    network: networks.Network, table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, opened = Task(network, Extractor(table, Store(tmp_path), TORCH)), list[float]()

    def slow(*_: object) -> None:
        opened.append(0.2 if not opened else 0.05)  # the first time exports
        time.sleep(opened[-1])

    monkeypatch.setattr(engine, "open_trunk", slow)
    cost = survey.measure(network, "layer4", survey.sample_of(task, network))
    assert len(opened) == 2
    assert cost.export_s >= 0.2
    assert cost.open_s >= 0.05


def test_too_few_photos_are_not_tuned_and_the_record_says_why(run: Run) -> None:
    learned = run(tune="if-it-pays")
    assert learned.tuning["verdict"] == "does not pay"
    assert learned.tuning["why"]
    assert learned.history == ()


def test_a_head_that_fits_its_own_photos_is_told_from_one_that_does_not(network: networks.Network, table: Table, tmp_path: Path) -> None:
    """With labels that say nothing, random features cannot tell the photos apart; with three colours they can."""
    mixed = np.random.default_rng(0).permutation(table.classes * len(table))[: len(table)]
    shuffled = table.with_photos([dataclasses.replace(p, label=str(label)) for p, label in zip(table.photos, mixed, strict=True)])
    for photos, fits in ((table, True), (shuffled, False)):
        task = Task(network, Extractor(photos, Store(tmp_path), TORCH), Asked(tune="if-it-pays"))
        learned = learn(task)
        fit = np.array(_of(photos, "train", "val"))
        x = learned.seen.features[fit] @ learned.tail_state["classifier.weight"].numpy().T + learned.tail_state["classifier.bias"].numpy()
        assert (learned.seen.n_solved, learned.seen.n_missed) == (len(fit), (x.argmax(1) != photos.labels[fit]).sum())
        assert fits == (learned.seen.n_missed == 0)


@pytest.mark.parametrize("px", [None, 192])
def test_small_photos_are_tuned_at_a_smaller_size_unless_one_was_asked_for(
    px: int | None, tiny_weights: Path, table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Photos of 40 px, in a network for 192 px; the phases that the record names give the same once more."""
    _keep(monkeypatch, 1.0)
    small = table.with_photos([dataclasses.replace(photo, width=min(photo.width, 38)) for photo in table.photos])
    file = weights.locate(None, tiny_weights)

    def tuned(**asked: object) -> Learned:
        extract, published = Extractor(small, Store(tmp_path), TORCH), networks.build(file, px=192)
        return learn(Task(published, extract, Asked(px=px, **asked), network_at=lambda px: networks.build(file, px=px)))

    learned = tuned(tune="always")
    size = 128 if px is None else 192
    assert [(phase["px"], phase["recomputed"]) for phase in learned.tuning["phases"]] == [(size, False)]
    assert learned.network.preprocessing.input_px == size
    assert any("so 128 px are enough to tune at, in place of 192" in why for why in learned.tuning["why"]) == (px is None)
    assert _same(learned, tuned(phases=learned.phases))


def test_networks_whose_weights_depend_on_the_size_are_tuned_at_their_own(table: Table, tmp_path: Path) -> None:
    file = _saved_vit(tmp_path / "vit.safetensors")
    vit = networks.build(file, px=192)
    task = Task(vit, Extractor(table, Store(tmp_path), TORCH), network_at=lambda px: networks.build(file, px=px))
    situation = dataclasses.replace(survey.situation_of(task, np.zeros((1, 3)), np.array([0]), (1, 1)), photo_px=32)
    assert situation.enough_px == 128
    assert survey.network_to_tune(task, situation) is vit


def test_a_continued_run_repeats_its_plan(network: networks.Network, table: Table, tmp_path: Path) -> None:
    kept: list[Plan] = []
    first = Plan("pays", ("because",), 1.0, (Phase(cut="layer3", epochs=2),))
    memory = Memory(None, lambda: kept[-1] if kept else None, kept.append)
    asked = Asked(tune="if-it-pays")
    kept.append(first)
    learned = learn(Task(network, Extractor(table, Store(tmp_path), TORCH), asked, memory=memory))
    assert learned.phases == first.phases
    assert len(learned.history) == 2
    assert kept == [first]


def test_a_planned_phase_that_fails_costs_nobody_the_run(network: networks.Network, table: Table, tmp_path: Path) -> None:
    diverges = Plan("pays", (), 1.0, (Phase(cut="layer1", epochs=3, rate=1e30, optimiser="sgd", schedule="constant"),))
    memory = Memory(None, lambda: diverges)
    learned = learn(Task(network, Extractor(table, Store(tmp_path), TORCH), Asked(tune="if-it-pays"), memory=memory))
    assert learned.facts["kind"] == "linear"
    assert "given up" in learned.notices[0]
    assert "diverged" in learned.notices[0]
    assert "diverged" in learned.tuning["given_up"]
    assert learned.tuning["minutes"] > 0
    assert (learned.tuning["kept"], learned.tuning["phases"]) == ("probe", [])


OUT_OF_MEMORY = [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory"), MemoryError()]


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
def test_running_out_of_memory_is_no_traceback(
    error: Exception, run: Run, network: networks.Network, table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr("headstart.train.tune.train", no_memory)
    phase = Phase(cut="layer3", epochs=1)
    with pytest.raises(HeadstartError, match=r"ran out of memory(?s:.)*hint: .*smaller batch_size"):
        run(phase)
    memory = Memory(None, lambda: Plan("pays", (), 1.0, (phase,)))
    task = Task(network, Extractor(table, Store(tmp_path), TORCH), Asked(tune="if-it-pays"), memory=memory)
    learned = learn(task)
    assert "ran out of memory" in learned.tuning["given_up"]
    assert _same(learned, run())
    # Of several processes this may have been the only one: the others would wait for it.
    monkeypatch.setattr("headstart.train.learn.Processes", SimpleNamespace(joined=lambda device: SimpleNamespace(n=2)))
    with pytest.raises(HeadstartError, match="ran out of memory"):
        learn(task)


def test_a_mistake_of_ours_is_not_taken_for_a_lack_of_memory(
    network: networks.Network, table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*args: object, **kwargs: object) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr("headstart.train.tune.train", wrong)
    memory = Memory(None, lambda: Plan("pays", (), 1.0, (Phase(cut="layer3", epochs=1),)))
    with pytest.raises(RuntimeError, match="mat1"):
        learn(Task(network, Extractor(table, Store(tmp_path), TORCH), Asked(tune="if-it-pays"), memory=memory))


def test_a_plan_without_room_in_the_store_is_not_tried(network: networks.Network, table: Table, tmp_path: Path) -> None:
    made = Plan("pays", ("because",), 1.0, (Phase(cut="layer3", epochs=1),))
    store = Store(tmp_path, budget_bytes=1_000)
    found = with_room(Task(network, Extractor(table, store, TORCH)), made, ())
    assert (found.verdict, found.phases, found.why[0]) == ("not tried", (), "because")
    assert "the feature store's budget is 1000 B" in found.why[1]


class StoppedError(Exception):
    pass


def _stop_in(number: int, done: Epoch) -> None:
    if done.epoch == number:
        raise StoppedError


@contextlib.contextmanager
def _threads(n: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    yield
    torch.set_num_threads(before)


def test_a_run_that_goes_on_with_another_number_of_threads_keeps_the_epochs_it_has(
    network: networks.Network, table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The head is solved anew, to other last bits."""
    monkeypatch.setattr(checkpoint, "EVERY_S", 0.0)
    asked = Asked(phases=(Phase(cut="layer3", epochs=3), Phase(cut="layer1", epochs=4)))

    def told(on_epoch: Callable[[Epoch], None]) -> Learned:
        extract = Extractor(table, Store(tmp_path / "store"), TORCH)
        return learn(Task(network, extract, asked, memory=Memory(tmp_path), on_epoch=on_epoch))

    with _threads(1), pytest.raises(StoppedError):
        told(lambda done: _stop_in(2, done) if done.phase == "layer1" else None)
    computed = list[tuple[str, int]]()
    with _threads(2):
        learned = told(lambda done: computed.append((done.phase, done.epoch)))
    assert computed == [("layer1", 3), ("layer1", 4)]
    assert len(learned.history) == 7
    assert "belongs to another training" not in caplog.text


def test_a_checkpoint_of_another_start_is_not_used(
    network: networks.Network, tiny_weights: Path, table: Table, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tensors = load_file(tiny_weights)
    with safe_open(tiny_weights, "pt") as file:
        save_file({name: tensor * 1.01 for name, tensor in tensors.items()}, tmp_path / "other.safetensors", metadata=file.metadata())
    grouped = table.with_photos([dataclasses.replace(photo, group=f"{i % 9}") for i, photo in enumerate(table.photos)])
    first, second = Phase(cut="layer3", epochs=1), Phase(cut="layer1", epochs=1)
    usual = {"network": network, "photos": table, "choice": TORCH, "asked": Asked(phases=(first, second))}
    changes = {
        "network": networks.build(weights.locate(None, tmp_path / "other.safetensors")),
        "photos": grouped,
        "choice": dataclasses.replace(TORCH, precision="bf16"),
        "asked": Asked(phases=(dataclasses.replace(first, rate=1e-4), second)),
    }

    def computed(folder: Path, **changed: Any) -> list[str]:
        told, made = list[str](), usual | changed
        extract = Extractor(made["photos"], Store(tmp_path / "store"), made["choice"])
        learn(Task(made["network"], extract, made["asked"], memory=Memory(folder), on_epoch=lambda done: told.append(done.phase)))
        return told

    assert computed(tmp_path / "left") == ["layer3", "layer1"]
    assert computed(tmp_path / "left") == []
    for name, value in changes.items():
        shutil.copytree(tmp_path / "left", tmp_path / name)
        assert computed(tmp_path / name, **{name: value}) == ["layer3", "layer1"], name
    assert caplog.text.count("belongs to another training") == 2 * len(changes)


# -- the store's room


def test_activations_that_do_not_fit_are_computed_again_and_the_run_says_why(
    run: Run, table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one view, in fp32, the result is the same as with stored activations, up to their rounding to float16."""
    _keep(monkeypatch, 1.0)
    phase = Phase(cut="layer1", px=64, epochs=2, rate=1e-3)
    stored = run(phase)
    small = Store(tmp_path / "small", budget_bytes=len(table) * 9_000)  # pixels take about 5,000 a photo, activations 16,500
    recomputed = run(phase, store=small)
    assert [stored.tuning["phases"][0]["recomputed"], recomputed.tuning["phases"][0]["recomputed"]] == [False, True]
    assert any("computed again in every epoch" in notice for notice in recomputed.notices)
    assert sum(info.bytes for info in small.spaces()) <= small.budget_bytes
    assert {info.cut for info in small.spaces()} == {"head", "input"}
    assert np.abs(stored.logits - recomputed.logits).max() < 0.05 * np.abs(stored.logits).max()


def test_activations_that_overflow_float16_and_do_not_fit_as_float32_are_computed_again(
    tiny_weights: Path, table: Table, tmp_path: Path
) -> None:
    tensors = load_file(tiny_weights)
    tensors |= {name: torch.full_like(tensors[name], 1e3) for name in tensors if re.fullmatch(r"layer1\..*bn\d\.weight", name)}
    with safe_open(tiny_weights, "pt") as whole:
        save_file(tensors, tmp_path / "big.safetensors", metadata=whole.metadata())
    file = weights.locate(None, tmp_path / "big.safetensors")
    network, kept, recomputed = networks.build(file), list[Plan](), list[bool]()
    asked = Asked(phases=(Phase(cut="layer4", epochs=1, rate=1e-9), Phase(cut="layer1", px=64, epochs=1, rate=1e-9)))
    memory = Memory(tmp_path, lambda: kept[-1] if kept else None, kept.append)
    for _ in range(2):  # the second is a run that goes on
        store = Store(tmp_path / "store", budget_bytes=len(table) * 25_000)  # float16 rows take 16,500 a photo, float32 rows 33,000
        extract = Extractor(table, store, TORCH)
        learned = learn(Task(network, extract, asked, network_at=lambda px: networks.build(file, px=px), memory=memory))
        recomputed.append(learned.tuning["phases"][1]["recomputed"])
        assert any("at cut layer1 would take" in notice for notice in learned.notices)
    assert recomputed == [True, True]
    assert [plan.recomputed is not None and [why is None for why in plan.recomputed] for plan in kept] == [[True, True], [True, False]]


@pytest.mark.parametrize(("views", "bytes_a_photo"), [(3, 50_000), (2, 37_000)])
def test_epochs_done_after_an_overflow_are_kept(
    views: int, bytes_a_photo: int, tiny_weights: Path, table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """float16 activations would fit the store, float32 ones do not; what was tried first takes no room and disowns no epochs."""
    monkeypatch.setattr(checkpoint, "EVERY_S", 0.0)
    tensors = load_file(tiny_weights)
    tensors |= {name: torch.full_like(tensors[name], 1e3) for name in tensors if re.fullmatch(r"layer1\..*bn\d\.weight", name)}
    with safe_open(tiny_weights, "pt") as whole:
        save_file(tensors, tmp_path / "big.safetensors", metadata=whole.metadata())
    file = weights.locate(None, tmp_path / "big.safetensors")
    asked = Asked(phases=(Phase(cut="layer1", px=64, epochs=4, views=views, rate=1e-9),))
    kept, told = list[Plan](), list[int]()
    memory = Memory(tmp_path, lambda: kept[-1] if kept else None, kept.append)

    def go_on(on_epoch: Callable[[Epoch], None]) -> None:
        extract = Extractor(table, Store(tmp_path / "store", budget_bytes=len(table) * bytes_a_photo), TORCH)
        networks_at = {"network_at": lambda px: networks.build(file, px=px), "memory": memory, "on_epoch": on_epoch}
        learn(Task(networks.build(file), extract, asked, **networks_at))

    with pytest.raises(StoppedError):
        go_on(lambda done: _stop_in(3, done))
    go_on(lambda done: told.append(done.epoch))
    assert told == [4]
    assert kept[-1].recomputed is not None
    assert kept[-1].recomputed[0] is not None


@pytest.mark.parametrize("planned", [False, True])
@pytest.mark.parametrize("first", ["small", "large"])
def test_a_continued_run_computes_again_what_it_did_before_whatever_room_there_is_now(
    first: str, planned: bool, tiny_weights: Path, table: Table, tmp_path: Path
) -> None:
    file = weights.locate(None, tiny_weights)
    phase, kept, noted = Phase(cut="layer1", px=64, epochs=1), list[Plan](), list[tuple[bool, list[str]]]()
    if planned:
        kept.append(Plan("pays", ("because",), 1.0, (phase,)))
    memory = Memory(None, lambda: kept[-1] if kept else None, kept.append)
    stores = {"small": Store(tmp_path / "small", budget_bytes=len(table) * 9_000), "large": Store(tmp_path / "large")}
    for name in (first, "large"):
        asked = Asked(tune="if-it-pays") if planned else Asked(phases=(phase,))
        extract = Extractor(table, stores[name], TORCH)
        learned = learn(Task(networks.build(file), extract, asked, network_at=lambda px: networks.build(file, px=px), memory=memory))
        (told,) = learned.tuning["phases"]
        noted.append((told["recomputed"], list(learned.notices)))
        if planned:  # as the first of its processes left it
            kept.append(dataclasses.replace(kept[0], recomputed=tuple(learned.notices[-1:]) if told["recomputed"] else (None,)))
    assert noted[0] == noted[1]
    assert noted[0][0] is (first == "small")


def test_the_same_cut_at_two_sizes_needs_room_for_both(run: Run, tmp_path: Path) -> None:
    def pixels_kib(*sizes: int) -> float:
        with pytest.raises(StoreError) as told:
            run(*(Phase(cut="layer3", px=px, epochs=1) for px in sizes), store=Store(tmp_path / "small", budget_bytes=1_000))
        return float(re.search(r"([\d.]+) KiB at cut input", told.value.message)[1])  # type: ignore[index]

    assert pixels_kib(24, 32) == pytest.approx(pixels_kib(24) + pixels_kib(32), abs=1)


def test_a_store_too_small_for_everything_is_told_before_anything_is_written(run: Run, tmp_path: Path) -> None:
    store = Store(tmp_path / "small", budget_bytes=1_000)
    with pytest.raises(StoreError, match=r"this run needs .* at cut head, .* at cut input\), the feature store's budget is 1000 B"):
        run(Phase(cut="layer3", epochs=1), store=store)
    assert store.spaces() == []


# -- two test views


@pytest.mark.parametrize("phases", [(), (Phase(cut="layer3", epochs=1, rate=1e-3),)])
def test_two_test_views_are_the_mean_over_photo_and_mirror_image_and_calibrated_so(
    run: Run, table: Table, network: networks.Network, phases: tuple[Phase, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    _keep(monkeypatch, 1.0)
    learned = run(*phases, test_views=2)
    images = _images(table, network)
    with torch.inference_mode():
        both, mirrored, one = learned.module(images), learned.module(images.flip(2)), learned.module.network(images)
    torch.testing.assert_close(both, mirrored)
    assert not torch.allclose(both, one, atol=1e-3)
    if phases:  # the tail's own answers; a solved head's are out of fold, and so of other weights
        np.testing.assert_allclose(learned.logits, both[learned.held_out].numpy(), atol=1e-4)


def test_balanced_classes_weigh_the_rare_ones_more(run: Run, network: networks.Network, table: Table) -> None:
    few = [i for i in range(len(table)) if table.labels[i] != 0 or i % 3 == 0]
    rare = table.subset(few)
    plain, balanced = (run(photos=rare, head=Head(class_weights=weights)) for weights in ("none", "balanced"))
    trunk, _ = cut.split(network, "head")
    rows = trunk(_images(rare, network)).numpy()
    shares = []
    for learned in (plain, balanced):
        state = learned.tail_state
        logits = rows @ state["classifier.weight"].numpy().T + state["classifier.bias"].numpy()
        shares.append((np.exp(logits[:, 0]) / np.exp(logits).sum(1)).mean())
    assert shares[1] > shares[0]


def test_what_was_decided_is_told_once_before_training(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    token = progress._quiet.set(False)
    try:
        run(Phase(cut="layer3", epochs=1))
    finally:
        progress._quiet.reset(token)
    told = capsys.readouterr().err
    (sentence,) = (line for line in told.splitlines() if line.startswith("Fine-tuning "))
    assert re.match(r"Fine-tuning is unlikely to pay: .* too few .*; it is tried all the same, expected time \d+ s$", sentence)
    assert told.index(sentence) < told.index("Training from layer3")
