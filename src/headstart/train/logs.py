"""Epochs for TensorBoard and MLflow while a run trains. Neither is needed: history.csv and the report hold the same numbers."""

import contextlib
import dataclasses
import importlib.util
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from headstart.config import Config
from headstart.errors import ConfigError, HeadstartError, did_you_mean
from headstart.files import write_json
from headstart.values import flat

if TYPE_CHECKING:
    from headstart.train.loop import Epoch

Kind = Literal["none", "tensorboard", "mlflow"]
KINDS: tuple[str, ...] = get_args(Kind)

FOLDER = "log"
EXPERIMENT = "headstart"

# What every version of MLflow takes: characters of a parameter, parameters of a request.
_MLFLOW_TEXT, _MLFLOW_BATCH = 500, 100

log = logging.getLogger("headstart")

OnEpoch = Callable[["Epoch"], None]
Write = Callable[[int, Mapping[str, float]], None]  # step, numbers by name


def check(kind: str) -> None:
    """Whether this log can be kept; needs no PyTorch. Raises: ConfigError: no such kind, or its package is not installed."""
    if kind not in KINDS:
        raise ConfigError(f"expected {', '.join(KINDS)} for --log, found '{kind}'", hint=did_you_mean(kind, KINDS))
    if kind != "none" and importlib.util.find_spec(kind) is None:
        raise ConfigError(f"--log {kind} needs {kind}, which is not installed", hint=f"pip install 'headstart[{kind}]'")


@contextlib.contextmanager
def open_log(kind: str, folder: Path, config: Config) -> Iterator[OnEpoch]:
    """A function that logs one epoch after the other, while the block lasts.

    TensorBoard's files lie in `folder`/log (`tensorboard --logdir RUN/log`); MLflow's go where MLFLOW_TRACKING_URI says, or where
    MLflow keeps them without it. Steps are epochs, counted through all phases. A run that is continued goes on in the same log.
    Once it is open, a log that fails costs the epochs it could not take and a warning, never the training.

    Args: kind: none, tensorboard or mlflow. folder: of the run. config: logged once, as text or parameters.
    Raises:
        ConfigError: as `check`.
        HeadstartError: MLflow's server or database refuses.
    """
    check(kind)
    if kind == "none":
        yield lambda epoch: None
        return
    place = folder / FOLDER
    place.mkdir(parents=True, exist_ok=True)
    progress = _Progress(place / "log.json")
    harmless = _Harmless(kind)
    opened = _tensorboard(place, config, progress, harmless) if kind == "tensorboard" else _mlflow(folder, config, progress, harmless)
    with opened as write:

        def on_epoch(epoch: "Epoch") -> None:
            with harmless():
                write(progress.step_of(epoch), _numbers(epoch))

        yield on_epoch


class _Harmless:
    """Blocks that may fail: the first failure is told, and none goes further."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._told = False

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # a server's, a database's, a disk's: no list of them would be complete
            if not self._told:
                log.warning("%s did not take everything, training goes on without (history.csv has it all): %s", self._kind, error)
            self._told = True


class _Progress:
    """How far the log has come, in a file beside it, so that a continued run goes on where it ended."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._resumed = path.exists()
        self.state: dict[str, Any] = {"epochs": []}
        if self._resumed:
            self.state |= json.loads(path.read_text(encoding="utf-8"))

    def step_of(self, epoch: "Epoch") -> int:
        """The step of an epoch, from 1. A run that goes on repeats the epochs since its last checkpoint: they keep their steps.

        One that was killed between checkpoint and log left an epoch out: it keeps its step, too.
        """
        name, done = [epoch.phase, epoch.epoch], self.state["epochs"]
        if self._resumed and name in done:
            done = done[: len(done) - 1 - done[::-1].index(name)]
        self._resumed = False
        follows = bool(done) and done[-1][0] == epoch.phase and done[-1][1] < epoch.epoch
        left_out = range(done[-1][1] + 1 if follows else 1, epoch.epoch)
        self.keep(epochs=[*done, *([epoch.phase, i] for i in left_out), name])
        return len(self.state["epochs"])

    def keep(self, **facts: Any) -> None:
        self.state |= facts
        write_json(self._path, self.state)


def _numbers(epoch: "Epoch") -> dict[str, float]:
    """What is plotted: every number of the epoch but its own."""
    found = {name: value for name, value in dataclasses.asdict(epoch).items() if name not in ("phase", "epoch")}
    return {name: float(value) for name, value in found.items() if value is not None}


@contextlib.contextmanager
def _tensorboard(place: Path, config: Config, progress: _Progress, harmless: _Harmless) -> Iterator[Write]:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(place))
    if not progress.state["epochs"]:
        writer.add_text("configuration", f"```json\n{json.dumps(config.to_json(), indent=2)}\n```")

    def write(step: int, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            split, _, what = name.partition("_")
            tag = f"{what}/{split}" if split in ("train", "val") else name
            writer.add_scalar(tag, value, step)
        writer.flush()

    try:
        yield write
    finally:
        with harmless():
            writer.close()


@contextlib.contextmanager
def _mlflow(folder: Path, config: Config, progress: _Progress, harmless: _Harmless) -> Iterator[Write]:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param
    from mlflow.exceptions import MlflowException

    try:
        client = MlflowClient()
        run_id = progress.state.get("run_id")
        if run_id is None:
            found = client.get_experiment_by_name(EXPERIMENT)
            experiment = client.create_experiment(EXPERIMENT) if found is None else found.experiment_id
            run_id = client.create_run(experiment, run_name=folder.name).info.run_id
            progress.keep(run_id=run_id)
            keys = [Param(name, value[:_MLFLOW_TEXT]) for name, value in flat(config.to_json())]
            for start in range(0, len(keys), _MLFLOW_BATCH):
                client.log_batch(run_id, params=keys[start : start + _MLFLOW_BATCH])
        else:
            client.update_run(run_id, status="RUNNING")
    except MlflowException as error:
        raise HeadstartError(f"MLflow refuses: {error.message}", hint="set MLFLOW_TRACKING_URI, or leave --log mlflow out") from error

    def write(step: int, numbers: Mapping[str, float]) -> None:
        now_ms = round(time.time() * 1000)
        client.log_batch(run_id, [Metric(name, value, now_ms, step) for name, value in numbers.items()])

    status = "FAILED"
    try:
        yield write
        status = "FINISHED"
    finally:
        with harmless():
            client.set_terminated(run_id, status=status)
