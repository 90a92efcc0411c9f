"""Epochs arrive in TensorBoard's and MLflow's own files, and a continued run goes on in the same log."""

import dataclasses
import importlib.util
import json
import sys
from pathlib import Path

import pytest

from headstart.config import Config, Phase
from headstart.errors import ConfigError
from headstart.train import logs
from headstart.train.loop import Epoch

CONFIG = Config(phases=(Phase(), Phase(cut="input")))


def epoch(phase: str, number: int, val_loss: float | None = 0.5) -> Epoch:
    """An epoch in which every other number is 1."""
    values = {field.name: 1.0 for field in dataclasses.fields(Epoch)}
    return Epoch(**{**values, "phase": phase, "epoch": number, "train_loss": 1 / number, "val_loss": val_loss})


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values of each tag, read back from TensorBoard's files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_holds_every_number_over_all_phases(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="headstart[tensorboard] is not installed")
    with logs.open_log("tensorboard", tmp_path, CONFIG) as on_epoch:
        for one in (epoch("head", 1), epoch("head", 2, val_loss=None), epoch("input", 1)):
            on_epoch(one)
    found = scalars(tmp_path / logs.FOLDER)
    assert found["loss/train"] == [(1, 1.0), (2, 0.5), (3, 1.0)]
    assert found["loss/val"] == [(1, 0.5), (3, 0.5)]
    assert {"accuracy/train", "accuracy/val", "rate", "seconds"} <= set(found)


def test_a_continued_run_goes_on_and_what_it_repeats_keeps_its_step(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="headstart[tensorboard] is not installed")
    with logs.open_log("tensorboard", tmp_path, CONFIG) as on_epoch:
        for one in (epoch("head", 1), epoch("input", 1), epoch("input", 2), epoch("input", 3)):
            on_epoch(one)
    with logs.open_log("tensorboard", tmp_path, CONFIG) as on_epoch:  # killed; its last checkpoint is of the first epoch at `input`
        for one in (epoch("input", 2), epoch("input", 3), epoch("input", 4)):
            on_epoch(one)
    found = scalars(tmp_path / logs.FOLDER)["loss/train"]
    assert dict(found) == pytest.approx({1: 1.0, 2: 1.0, 3: 1 / 2, 4: 1 / 3, 5: 1 / 4})


def test_an_epoch_that_was_never_logged_leaves_its_step_free(tmp_path: Path) -> None:
    """A process may be killed after its checkpoint was written and before the epoch was logged."""
    pytest.importorskip("tensorboard", reason="headstart[tensorboard] is not installed")
    for some in ([epoch("head", 1), epoch("input", 1)], [epoch("input", 3)], [epoch("input", 1), epoch("input", 2)]):
        with logs.open_log("tensorboard", tmp_path, CONFIG) as on_epoch:
            for one in some:
                on_epoch(one)
    steps = [step for step, _ in scalars(tmp_path / logs.FOLDER)["loss/train"]]
    assert sorted(set(steps)) == [1, 2, 3, 4]


def test_a_log_that_fails_is_told_once_and_takes_the_epochs_after_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("tensorboard", reason="headstart[tensorboard] is not installed")
    in_the_way = tmp_path / logs.FOLDER / "log.json"
    with logs.open_log("tensorboard", tmp_path, CONFIG) as on_epoch:
        on_epoch(epoch("head", 1))
        in_the_way.unlink()
        in_the_way.mkdir()
        on_epoch(epoch("head", 2))
        on_epoch(epoch("head", 3))
        in_the_way.rmdir()
        on_epoch(epoch("head", 4))
    assert [record.message[:45] for record in caplog.records] == ["tensorboard did not take everything, training"]
    steps = [step for step, _ in scalars(tmp_path / logs.FOLDER)["loss/train"]]
    assert {1, 4} <= set(steps)


def test_what_fails_beside_the_log_still_fails(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="headstart[tensorboard] is not installed")
    with pytest.raises(ZeroDivisionError), logs.open_log("tensorboard", tmp_path, CONFIG):
        _ = 1 / 0


@pytest.mark.slow  # MLflow makes its database: 20 s
@pytest.mark.filterwarnings("default")  # MLflow and SQLAlchemy warn of each other
def test_mlflow_holds_the_configuration_and_every_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", reason="headstart[mlflow] is not installed: 70 packages")
    from mlflow import MlflowClient

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    for one in (epoch("head", 1), epoch("head", 2)):  # the second time as a run that goes on
        with logs.open_log("mlflow", tmp_path / "run", CONFIG) as on_epoch:
            on_epoch(one)
    run_id = json.loads((tmp_path / "run" / logs.FOLDER / "log.json").read_text(encoding="utf-8"))["run_id"]
    run = MlflowClient().get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["phases.1.cut"] == "input"
    assert [(one.step, one.value) for one in MlflowClient().get_metric_history(run_id, "train_loss")] == [(1, 1.0), (2, 0.5)]


def test_no_log_writes_nothing(tmp_path: Path) -> None:
    with logs.open_log("none", tmp_path, CONFIG) as on_epoch:
        on_epoch(epoch("head", 1))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["tensorboard", "mlflow"])
def test_a_log_that_is_not_installed_names_its_extra(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, kind, None)  # as if it were not there
    assert importlib.util.find_spec(kind) is None
    with pytest.raises(ConfigError, match=rf"--log {kind} needs {kind}, which is not installed\nhint: pip install 'headstart\[{kind}\]'"):
        logs.check(kind)


def test_a_misspelled_log_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"expected none, tensorboard, mlflow for --log, found 'tensorbord'\nhint: did you mean 'tensorboard'"
    ):
        logs.check("tensorbord")
