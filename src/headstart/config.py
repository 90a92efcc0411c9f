"""What a run can be told: frozen dataclasses, read from TOML and `key=value` overrides, every check in one place.

Each field's `help` is the one text behind `--help` and docs/reference/config.md.
"""

import dataclasses
import itertools
import math
import os
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from headstart.errors import ConfigError, did_you_mean

T = TypeVar("T")


def _key(default: Any, help: str, *, least: float | None = None, most: float | None = None) -> Any:
    """A dataclass field with its meaning and, for numbers and lists of them, the range of each."""
    return dataclasses.field(default=default, metadata={"help": help, "least": least, "most": most})


@dataclass(frozen=True)
class Head:
    """The new classifier on top of the frozen features."""

    kind: Literal["linear", "dense"] = _key(
        "linear", "linear: solved to its optimum, L2 strength by cross-validation; dense: hidden layers trained by the loop"
    )
    class_weights: Literal["none", "balanced"] = _key("none", "balanced: every class counts the same, however few photos it has")
    hidden: tuple[int, ...] = _key((256,), "dense: units of each hidden layer", least=1)
    dropout: float = _key(0.3, "dense: share of units dropped while training", least=0, most=0.99)


@dataclass(frozen=True)
class Phase:
    """One call of the training loop: train everything after `cut`, over the store's rows at `cut`."""

    cut: str = _key("head", "where the network is cut: a stage's name, `input` or `head`; what comes after is trained")
    epochs: int = _key(20, "passes over the training rows", least=1)
    rate: float = _key(1e-3, "peak learning rate", least=0)
    optimiser: Literal["adamw", "sgd"] = _key("adamw", "adamw, or sgd with Nesterov momentum 0.9")
    schedule: Literal["cosine", "constant"] = _key("cosine", "cosine: a warm-up over the first 10 % of steps, then down to 0")
    weight_decay: float = _key(0.02, "decoupled decay of matrices and kernels; never of norms and biases", least=0)
    batch_size: int = _key(64, "rows a step", least=1)
    label_smoothing: float = _key(0.0, "share of the target spread over all classes", least=0, most=0.99)
    augment: Literal["none", "flip", "crop-flip"] = _key("crop-flip", "cut `input` only: drawn afresh each epoch")
    views: int = _key(1, "seeded augmented copies of each training photo in the store, for cuts behind `input`", least=1)
    norm: Literal["published", "batch"] = _key(
        "published", "normalisation layers in the tail: keep the published statistics, or use the batch's"
    )
    patience: int = _key(5, "stop after this many epochs without a better val loss; the best epoch's weights are kept", least=1)


@dataclass(frozen=True)
class Config:
    """Everything that decides a run's result, and nothing else."""

    data: str = _key("", "photos: a folder, a .csv, an archive or a data set's name")
    backbone: str | None = _key(
        None, "pretrained network, as `headstart backbones` lists them; default: the embedded one, or what the weights file says"
    )
    weights: str | None = _key(None, "file of pretrained weights (safetensors, or a torch state dict)")
    stop: str | None = _key(None, "last stage of the network to use; later ones are dropped")
    px: int | None = _key(
        None, "side of the square the network sees, in pixels; default: what the weights were trained for", least=16, most=2048
    )
    head: Head = _key(Head(), "the classifier")
    phases: tuple[Phase, ...] = _key((), "training phases after the head; cuts may only move toward `input`")
    seed: int = _key(0, "seeds the split and everything random", least=0, most=2**32 - 1)
    split: str | None = _key(None, "a split.csv to reuse")
    exclude: str | None = _key(None, "a file that lists photos to leave out")
    device: Literal["auto", "cpu", "cuda", "mps"] = _key("auto", "where to compute")
    precision: Literal["auto", "fp32", "bf16"] = _key("auto", "arithmetic of the frozen trunk and of training; auto: bf16 where it is fast")
    engine: Literal["auto", "openvino", "torch"] = _key(
        "auto", "what runs the frozen trunk; auto: OpenVINO on a CPU where it is installed, else PyTorch"
    )

    def to_json(self) -> dict[str, Any]:
        """Plain values, in the order of the fields."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "Config":
        """The configuration that `to_json` wrote; checks every key. Raises: ConfigError."""
        return _build(Config, value, "")


def load(path: str | Path | None, overrides: Iterable[str] = (), **given: Any) -> Config:
    """Defaults, then the TOML file, then `key=value` overrides, then what was given (None means not given).

    Raises: ConfigError: all problems of the file and the overrides in one text, misspelled keys with the nearest name.
    """
    values: dict[str, Any] = {}
    if path is not None:
        values = read_toml(Path(path))
    for text in overrides:
        set_value(values, text)
    values |= {name: value for name, value in given.items() if value is not None}
    return Config.from_json(values)


def check_files(config: Config) -> None:
    """Whether the files that `config` names are there, before anything slow starts. Raises: ConfigError: all that are not."""
    named = {"weights": config.weights, "split": config.split, "exclude": config.exclude}
    absent = [f"no file at {path}, given as --{name}" for name, path in named.items() if path is not None and not os.path.isfile(path)]
    if absent:
        raise ConfigError("; ".join(absent), hint="check the path; it starts from the folder you are in")


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a recipe file. Raises: ConfigError: no such file, not TOML."""
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        raise ConfigError(f"no recipe file at {path}", hint="give the path of a TOML file; `headstart train --help` shows one") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None


def set_value(values: dict[str, Any], text: str) -> None:
    """Apply one override such as `head.kind=dense` or `phases.0.cut=layer4` to nested `values`, in place.

    The value is read as TOML where it is TOML (`3`, `true`, `[1, 2]`), else as text.
    """
    name, equals, raw = text.partition("=")
    if not equals or not name:
        raise ConfigError(f"expected key=value, found '{text}'", hint="for example --set head.kind=dense")
    try:
        value = tomllib.loads(f"x = {raw}")["x"]
    except tomllib.TOMLDecodeError:
        value = raw
    parts = name.strip().split(".")
    last = parts[-1]
    place: Any = values
    for part, following in itertools.pairwise(parts):
        place = _descend(place, part, [] if following.isdigit() else {}, text)
    if isinstance(place, list):
        raise ConfigError(f"'{name}' names a whole entry of a list in '{text}'", hint="name one key of it, such as phases.0.cut=layer4")
    if not isinstance(place, dict):
        raise ConfigError(f"'{name}' goes into a plain value in '{text}'")
    place[last] = value


def _descend(place: Any, part: str, empty: Any, text: str) -> Any:
    if isinstance(place, list):
        if not part.isdigit() or int(part) > len(place):
            raise ConfigError(f"expected an index from 0 to {len(place)}, found '{part}' in '{text}'")
        if int(part) == len(place):
            place.append(empty)
        return place[int(part)]
    if isinstance(place, dict):
        return place.setdefault(part, empty)
    raise ConfigError(f"'{part}' goes into a plain value in '{text}'")


def _build(kind: type[T], value: Any, where: str) -> T:
    """Turn plain `value` into the dataclass `kind`, checking names, types and ranges; all problems in one error."""
    if not isinstance(value, Mapping):
        raise ConfigError(f"expected a table of keys for {where or 'the configuration'}, found {value!r}")
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(kind)
    problems: list[str] = []
    hint: str | None = None
    made: dict[str, Any] = {}
    for name, given in value.items():
        if name not in fields:
            hint = hint if hint is not None else did_you_mean(name, fields)
            problems.append(f"unknown key '{where}{name}' (known: {', '.join(fields)})")
            continue
        try:
            made[name] = _convert(hints[name], given, f"{where}{name}")
            _check_range(made[name], fields[name].metadata, f"{where}{name}")
        except ConfigError as error:
            problems.append(error.message)
            hint = hint if hint is not None else error.hint
    if problems:
        raise ConfigError("; ".join(problems), hint=hint)
    return kind(**made)


def _check_range(value: Any, metadata: Mapping[str, Any], where: str) -> None:
    least, most = metadata["least"], metadata["most"]
    if value is None or (least is None and most is None):
        return
    if isinstance(value, tuple):
        for i, item in enumerate(value):
            _check_range(item, metadata, f"{where}.{i}")
        return
    if (least is not None and value < least) or (most is not None and value > most):
        expected = f"at least {least}" if most is None else f"{least} to {most}"
        raise ConfigError(f"expected {expected} for '{where}', found {value}")


def _convert(kind: Any, value: Any, where: str) -> Any:
    """`value` as `kind`: a dataclass, Literal, tuple, union with None, or a plain type."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _build(typing.cast("type[Any]", kind), value, f"{where}.")
    if origin is Literal:
        if value not in arguments:
            raise ConfigError(
                f"expected {' or '.join(map(str, arguments))} for '{where}', found {value!r}", hint=did_you_mean(str(value), arguments)
            )
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"expected a list for '{where}', found {value!r}")
        return tuple(_convert(arguments[0], item, f"{where}.{i}") for i, item in enumerate(value))
    if origin in (types.UnionType, typing.Union):
        return None if value is None else _convert(arguments[0], value, where)
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return _finite(value, where)
    if kind is str and isinstance(value, Path):
        return str(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ConfigError(f"expected {kind.__name__} for '{where}', found {value!r}")
    return value


def _finite(value: float, where: str) -> float:
    """NaN passes every comparison with a range, and nothing here means infinity."""
    try:
        number = float(value)
    except OverflowError:  # a whole number of more than 308 digits
        number = math.inf
    if not math.isfinite(number):
        raise ConfigError(f"expected a finite number for '{where}', found {number}")
    return number
