"""A training that is stopped, by a real signal or otherwise, ends as it would have without a break: bit by bit."""

import dataclasses
import functools
import json
import logging
import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors.torch
import torch
from tiny_tail import PHASE, train_in_a_process, train_tiny, without_clock

from headstart.config import Phase
from headstart.train import checkpoint
from headstart.train.checkpoint import restore_optimiser
from headstart.train.loop import Epoch, Trained


@pytest.fixture(autouse=True)
def every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "EVERY_S", 0.0)


class StoppedError(Exception):
    pass


def _stop_in(epoch: int):
    def on_epoch(done: Epoch) -> None:
        if done.epoch == epoch:
            raise StoppedError

    return on_epoch


def _same(a: Trained, b: Trained) -> bool:
    states = (a.tail.state_dict(), b.tail.state_dict())
    same_weights = all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    return same_weights and without_clock(a.history) == without_clock(b.history) and a.best_epoch == b.best_epoch


@functools.cache
def _whole(phase: Phase) -> Trained:
    """The training that was never stopped."""
    return train_tiny(phase)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """As in the processes that are killed: more threads may round otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


JUMPY = Phase(cut="a", epochs=8, rate=1.0, batch_size=16, schedule="constant", warm_up=0.0, patience=8, optimiser="sgd")  # far too fast


@pytest.mark.parametrize(
    "phase",
    [
        dataclasses.replace(PHASE, epochs=8),
        dataclasses.replace(JUMPY, schedule="plateau"),
        dataclasses.replace(JUMPY, schedule="one-cycle", optimiser="rmsprop", rate=0.05),
        dataclasses.replace(JUMPY, patience=6, accumulate=2, clip=0.5, sampling="balanced"),
    ],
    ids=["adamw", "plateau", "rmsprop", "patience"],
)
def test_a_stopped_training_goes_on_and_ends_in_the_same_bits(phase: Phase, tmp_path: Path) -> None:
    whole = _whole(phase)
    file, seen = tmp_path / "phase.safetensors", []
    for stop in (1, 3, 6):
        with pytest.raises(StoppedError):
            train_tiny(phase, file, _stop_in(stop))
    ended = train_tiny(phase, file, lambda epoch: seen.append(epoch.epoch))
    assert _same(ended, whole)
    assert seen == list(range(7, len(whole.history) + 1)), "an epoch that was told of is in the checkpoint already"
    again = train_tiny(phase, file, lambda epoch: seen.append(0))
    assert _same(again, whole)
    assert 0 not in seen, "a finished training is not repeated"


def test_the_best_weights_survive_where_they_are_older_than_the_last(tmp_path: Path) -> None:
    whole = _whole(JUMPY)
    assert whole.best_epoch < 6, "else this test shows nothing"
    with pytest.raises(StoppedError):
        train_tiny(JUMPY, tmp_path / "phase", _stop_in(7))
    assert _same(train_tiny(JUMPY, tmp_path / "phase"), whole)


@pytest.mark.parametrize(
    "changes",
    [{"seed": 4}, {"class_weights": None}, {"phase": dataclasses.replace(JUMPY, rate=0.4)}, {"precision": "bf16"}, {"start": "another"}],
    ids=lambda changes: next(iter(changes)),
)
def test_a_checkpoint_of_another_training_is_not_used(changes: dict, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "phase"
    with pytest.raises(StoppedError):
        train_tiny(JUMPY, file, _stop_in(5))
    changes = {"phase": JUMPY, **changes}
    assert _same(train_tiny(file=file, **changes), train_tiny(**changes))
    assert "belongs to another training and is not used" in caplog.text


@pytest.mark.parametrize("left", [0, 5, 0.99])
def test_a_truncated_checkpoint_is_ignored_with_a_notice(left: float, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "phase"
    with pytest.raises(StoppedError):
        train_tiny(JUMPY, file, _stop_in(5))
    content = file.read_bytes()
    file.write_bytes(content[: int(left * len(content)) if left < 1 else int(left)])
    with caplog.at_level(logging.WARNING, "headstart"):
        assert _same(train_tiny(JUMPY, file), _whole(JUMPY))
    assert f"the checkpoint {file} is damaged and is not used" in caplog.text


def test_what_a_killed_write_left_is_removed(tmp_path: Path) -> None:
    left, other = tmp_path / ".phase.abc.part", tmp_path / ".phase-2.abc.part"
    left.touch()
    other.touch()
    train_tiny(JUMPY, tmp_path / "phase")
    assert sorted(path.name for path in tmp_path.iterdir()) == [other.name, "phase"]


def test_a_fused_optimiser_finds_its_steps_where_its_weights_are() -> None:
    """As on a GPU; on the CPU both are in one place. The device `meta` computes nothing, so the optimiser is only told that it is fused."""
    weight = torch.nn.Parameter(torch.zeros(2, device="meta"))
    adam = torch.optim.Adam([weight])
    restore_optimiser(adam, {"0.step": torch.tensor(3.0)})
    assert adam.state[weight]["step"].device.type == "cpu"
    adam.param_groups[0]["fused"] = True
    restore_optimiser(adam, {"0.step": torch.tensor(3.0)})
    assert adam.state[weight]["step"].device.type == "meta"


def test_epochs_of_less_than_a_second_are_not_all_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "EVERY_S", 3600.0)
    with pytest.raises(StoppedError):
        train_tiny(JUMPY, tmp_path / "phase", _stop_in(5))
    assert not list(tmp_path.iterdir())
    whole = train_tiny(JUMPY, tmp_path / "phase")
    assert _same(train_tiny(JUMPY, tmp_path / "phase", _stop_in(1)), whole), "the end is written in any case"


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
@pytest.mark.parametrize("kill", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)], ids=["kill -9", "Ctrl-C"])
def test_a_process_killed_at_random_moments_is_continued_to_the_same_end(kill: signal.Signals, tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["headstart.train.loop"])
    rng, kills, most, epochs = random.Random(int(kill)), 0, 2, tmp_path / "epochs.txt"
    for _ in range(100):
        n_before = len(epochs.read_text().split()) if epochs.exists() else 0
        process = context.Process(target=train_in_a_process, args=(tmp_path,))
        process.start()
        while process.is_alive() and (not epochs.exists() or len(epochs.read_text().split()) == n_before):
            time.sleep(0.005)  # until it is past its imports and trains
        process.join(rng.uniform(0.0, 0.2) if kills < most else None)
        if process.exitcode is None:
            os.kill(process.pid, kill)
            kills += 1
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode in (-kill, 130), "it failed by itself"
    assert kills
    computed = [int(epoch) for epoch in epochs.read_text().split()]
    assert len({*range(1, PHASE.epochs + 1)} - {*computed}) <= kills, "only between checkpoint and telling may an epoch go untold"
    assert len(computed) <= PHASE.epochs + 2 * kills, "more was repeated than the epochs that the kills came in"
    whole = _whole(PHASE)
    found = safetensors.torch.load_file(tmp_path / "tail.safetensors")
    assert all(torch.equal(found[name], tensor) for name, tensor in whole.tail.state_dict().items())
    assert (tmp_path / "history.json").read_text() == json.dumps(without_clock(whole.history))
