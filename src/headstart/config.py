"""What a run can be told: frozen dataclasses, read from a recipe and `key=value` overrides, every check in one place.

Each field's `help` is the one text behind `--help` and docs/reference/config.md. A recipe is a TOML file: one of the package's own
(`recipes/`), by name, or the user's.
"""

import dataclasses
import itertools
import os
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from headstart.data import policy
from headstart.errors import ConfigError, did_you_mean
from headstart.values import build, key, true_of

RECIPES = Path(__file__).parent / "recipes"

PLATEAU_EPOCHS = 3
"""Epochs without a better val loss after which schedule `plateau` lowers the rate."""

_UNIT_S = {"s": 1, "m": 60, "h": 3600}


def seconds_of(text: str) -> float:
    """Seconds (> 0) of a time such as `90s`, `10m`, `1.5h` or `1h30m`. Raises: ConfigError."""
    parts = re.findall(r"(\d+(?:\.\d+)?) *([smh])", text.strip().lower())
    seconds = sum(float(number) * _UNIT_S[unit] for number, unit in parts)
    if not re.fullmatch(r"(?: *\d+(?:\.\d+)? *[smh])+", text.strip().lower()) or seconds <= 0:
        raise ConfigError(f"expected a time with its unit, s, m or h, found '{text}'", hint="for example 90s, 10m or 2h")
    return seconds


_CLASS_WEIGHTS_ELSEWHERE = {"class_weights": "set head.class_weights: the head and all phases follow"}


@dataclass(frozen=True)
class Head:
    """The new classifier on top of the frozen features."""

    elsewhere: ClassVar[Mapping[str, str]] = {}

    kind: Literal["linear", "dense"] = key(
        "linear", "linear: solved to its optimum, L2 strength by cross-validation; dense: hidden layers trained by the loop"
    )
    class_weights: Literal["none", "balanced"] = key("none", "balanced: every class counts the same, however few photos it has")
    hidden: tuple[int, ...] = key((256,), "dense: units of each hidden layer", least=1)
    dropout: float = key(0.3, "dense: share of units dropped while training", least=0, most=0.99)

    def problems(self) -> list[str]:
        """Keys that are in order one by one and do not go together."""
        linear, usual = self.kind == "linear", Head()
        return true_of(
            (linear and self.hidden != usual.hidden, "hidden is of a dense head: set head.kind = dense"),
            (linear and self.dropout != usual.dropout, "dropout is of a dense head: set head.kind = dense"),
        )


@dataclass(frozen=True)
class Phase:
    """One call of the training loop: train everything after `cut`, over the store's rows at `cut`."""

    elsewhere: ClassVar[Mapping[str, str]] = _CLASS_WEIGHTS_ELSEWHERE

    cut: str = key(
        "head",
        "where the network is cut, what comes after is trained: a stage's name, `input`, `head`, `top 2` (the last 2 stages) "
        "or `top 20 layers` (as tutorials count them)",
    )
    px: int | None = key(None, "side of the network's input in this phase, in pixels; default: the run's", least=16, most=2048)
    epochs: int = key(20, "passes over the training rows", least=1)
    optimiser: Literal["adamw", "adam", "sgd", "rmsprop"] = key(
        "adamw", "sgd is with Nesterov momentum; adam differs from adamw in name only, since weight decay is decoupled in all"
    )
    rate: float = key(1e-3, "peak learning rate", least=0)
    momentum: float | None = key(None, "of sgd and rmsprop; default: 0.9 for sgd, 0 for rmsprop", least=0, most=0.999)
    schedule: Literal["cosine", "constant", "one-cycle", "plateau"] = key(
        "cosine",
        "cosine: warm-up, then down to 0; one-cycle: up for 30 % of steps while momentum falls, then down; "
        f"plateau: a fifth whenever val loss has not improved for {PLATEAU_EPOCHS} epochs",
    )
    warm_up: float = key(0.1, "share of the steps over which the rate of cosine, constant and plateau rises from 0", least=0, most=1)
    rate_decay: float = key(1.0, "rate of each stage as a share of the next one's: lower for stages farther from the head", least=0, most=1)
    stage_rates: dict[str, float] | None = key(
        None,
        "share of `rate` for each stage named, such as `{layer4 = 1.0, layer3 = 0.3}`; stages not named follow `rate_decay`",
        least=0,
        most=1,
    )
    weight_decay: float = key(0.02, "decoupled decay of matrices and kernels; never of norms and biases", least=0)
    batch_size: int = key(64, "rows a forward pass", least=1)
    accumulate: int = key(1, "forward passes a step: their gradients are averaged", least=1)
    clip: float = key(0.0, "largest norm of a step's gradient; 0: no limit", least=0)
    label_smoothing: float = key(0.0, "share of the target spread over all classes", least=0, most=0.99)
    augment: str = key(
        "crop-flip",
        "how training views are made, such as `flip, rotate 15, zoom 0.2`; drawn afresh each epoch at cut `input`, else `views` times",
        check=policy.check,
    )
    views: int = key(1, "seeded augmented copies of each training photo in the store, for cuts behind `input`", least=1)
    mixup: float = key(0.0, "alpha of mixup (behind `input`: of stored rows, manifold mixup); 0: none", least=0)
    cutmix: float = key(0.0, "alpha of cutmix, at cut `input` only; 0: none", least=0)
    sampling: Literal["all", "balanced"] = key("all", "balanced: every class is drawn equally often")
    hidden: tuple[int, ...] | None = key(
        None,
        "start this phase with a new head of dense layers of so many units (`[]`: a linear one); default: go on with the head there is",
        least=1,
    )
    dropout: float | None = key(None, "share of units dropped in the head from this phase on; default: as before", least=0, most=0.99)
    ema: float = key(0.0, "decay per step of averaged weights, which are the ones kept; 0: none", least=0, most=0.99999)
    precision: Literal["run", "fp32", "bf16"] = key("run", "arithmetic of this phase; run: as the run's")
    norm: Literal["published", "batch"] = key(
        "published", "normalisation layers in the tail: keep the published statistics, or use the batch's"
    )
    patience: int = key(5, "stop after this many epochs without a better val loss; the best epoch's weights are kept", least=1)

    def problems(self) -> list[str]:
        """Keys that are in order one by one and do not go together: something would silently do nothing, or fail after hours."""
        usual = Phase()
        found = true_of(
            (self.rate == 0, "rate = 0 trains nothing"),
            (self.views > 1 and not self._augments, "views that nothing augments are all the same: leave views out, or set augment"),
            (
                self.momentum is not None and self.optimiser in ("adam", "adamw"),
                f"momentum is of sgd and rmsprop, not of {self.optimiser}",
            ),
            (self.warm_up != usual.warm_up and self.schedule == "one-cycle", "warm_up is not of one-cycle, which rises over 30 % of steps"),
            (
                self.schedule == "plateau" and self.patience <= PLATEAU_EPOCHS,
                f"patience = {self.patience} stops before plateau lowers the rate, after {PLATEAU_EPOCHS} epochs",
            ),
            (self.norm == "batch" and self.batch_size == 1, "norm = batch needs a batch_size of 2 or more"),
            (self.mixup > 0 and self.batch_size == 1, "mixup blends rows of one batch, so it needs a batch_size of 2 or more"),
            (self.cutmix > 0 and self.batch_size == 1, "cutmix blends rows of one batch, so it needs a batch_size of 2 or more"),
        )
        # Where `top 3` cuts only the network knows: `train.tune.check_cuts` asks when it is there.
        return found if self.cut.startswith("top ") else [*found, *self.problems_at(self.cut)]

    def problems_at(self, cut: str) -> list[str]:
        """Keys that do not go with the cut of this name, which is what `cut` means in the network at hand."""
        usual, at_input, at_head = Phase(), cut == "input", cut == "head"
        unseen = self._augments and self.augment != usual.augment and self.views == 1 and not at_input
        return true_of(
            (self.cutmix > 0 and not at_input, f"cutmix mixes pixels, so it needs cut = input, found cut = {self.cut}"),
            (self.views > 1 and at_input, "views are copies in the store, and cut = input draws afresh each epoch: leave views out"),
            (unseen, f"augment = {self.augment} does nothing at cut = {self.cut} with one stored view: set views = 4, say"),
            (self.norm == "batch" and at_head, "norm = batch does nothing at cut = head, behind which no normalisation layer lies"),
            (self.rate_decay != usual.rate_decay and at_head, "rate_decay does nothing at cut = head, behind which no other stage lies"),
            (bool(self.stage_rates) and at_head, "stage_rates does nothing at cut = head, behind which no other stage lies: set rate"),
        )

    @property
    def _augments(self) -> bool:
        return policy.canonical(self.augment) != "none"


@dataclass(frozen=True)
class Config:
    """Everything that decides a run's result, and nothing else."""

    elsewhere: ClassVar[Mapping[str, str]] = _CLASS_WEIGHTS_ELSEWHERE

    data: str = key("", "photos: a folder, a .csv, an archive or a data set's name")
    backbone: str | None = key(
        None, "pretrained network, as `headstart backbones` lists them; default: the embedded one, or what the weights file says"
    )
    weights: str | None = key(None, "file of pretrained weights (safetensors, a torch state dict, or a Keras .h5)")
    stop: str | None = key(None, "last stage of the network to use; later ones are dropped")
    px: int | None = key(
        None, "side of the square the network sees, in pixels; default: what the weights were trained for", least=16, most=2048
    )
    head: Head = key(Head(), "the classifier")
    phases: tuple[Phase, ...] = key(
        (), "training phases after the head; cuts may only move toward `input`; none given: planned, see `tune`"
    )
    tune: Literal["never", "if-it-pays", "always"] = key(
        "if-it-pays",
        "fine-tune the top stages after the head where no phases are given: in an expected time within `budget`, kept only where val gains",
    )
    budget: str = key(
        "5m",
        "most expected time of planned fine-tuning on this machine, such as 90s, 10m or 2h; nothing stops it when it takes longer",
        check=seconds_of,
    )
    average: bool = key(
        True,
        "also try averages of the weights before and after fine-tuning on val, and keep the best; where a head of new layers was trained, "
        "before and after the last phase",
    )
    test_views: int = key(1, "views of each photo whose answers are averaged in prediction: 1, or 2 with its mirror image", least=1, most=2)
    seed: int = key(0, "seeds the split and everything random", least=0, most=2**32 - 1)
    split: str | None = key(None, "a split.csv to reuse")
    exclude: str | None = key(None, "a file that lists photos to leave out")
    corrections: str | None = key(None, "a CSV with the columns path and label: the classes that photos are of, in place of the given ones")
    device: Literal["auto", "cpu", "cuda", "mps"] = key("auto", "where to compute")
    precision: Literal["auto", "fp32", "bf16"] = key("auto", "arithmetic of the frozen trunk and of training; auto: bf16 where it is fast")
    engine: Literal["auto", "openvino", "torch"] = key(
        "auto", "what runs the frozen trunk; auto: OpenVINO on a CPU where it is installed, else PyTorch"
    )

    def problems(self) -> list[str]:
        """Keys that are in order one by one and do not go together."""
        usual, given = Config(), bool(self.phases)
        balanced = self.head.class_weights == "balanced" and any(phase.sampling == "balanced" for phase in self.phases)
        return true_of(
            (given and self.tune != usual.tune, f"tune = {self.tune} is about planned phases, and phases are given"),
            (given and self.budget != usual.budget, f"budget = {self.budget} bounds planned phases, and phases are given"),
            (
                self.tune == "never" and self.budget != usual.budget,
                f"budget = {self.budget} bounds fine-tuning, and tune = never does none",
            ),
            (
                self.head.kind == "dense" and self.tune == "always" and not given,
                "tune = always goes on from a solved head: leave head.kind = dense out, or give phases",
            ),
            (balanced, "head.class_weights = balanced and sampling = balanced correct for the same twice: one is enough"),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values, in the order of the fields."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "Config":
        """The configuration that `to_json` wrote; checks every key. Raises: ConfigError."""
        return build(Config, value, "")


def load(recipe: str | Path | None, overrides: Iterable[str] = (), **given: Any) -> Config:
    """Defaults, then the recipe, then `key=value` overrides, then what was given (None means not given).

    Args: recipe: the name of one in the package (`recipe_names`), or the path of a TOML file.
    Raises: ConfigError: all problems of the file and the overrides in one text, misspelled keys with the nearest name.
    """
    values: dict[str, Any] = {}
    if recipe is not None:
        values = read_toml(recipe_file(recipe))
    for text in overrides:
        set_value(values, text)
    values |= {name: value for name, value in given.items() if value is not None}
    return Config.from_json(values)


def recipe_names() -> list[str]:
    """The recipes that come with headstart."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def recipe_file(recipe: str | Path) -> Path:
    """The file of a recipe: a name of the package's wins over a file or folder that is called the same; `./photos` says otherwise.

    Raises: ConfigError: neither a recipe's name nor a file.
    """
    names, text = recipe_names(), str(recipe)
    if text in names:
        return RECIPES / f"{text}.toml"
    if not os.path.exists(recipe):
        near = did_you_mean(text, names)
        hint = near if near is not None else f"give the path of a TOML file, or one of {', '.join(names)}"
        raise ConfigError(f"no recipe is called '{text}' (known: {', '.join(names)}), and there is no file of that name", hint=hint)
    return Path(recipe)


def check_files(**named: str | Path | Sequence[Path] | None) -> None:
    """Whether files that were given are there, before anything slow starts. Raises: ConfigError: all that are not.

    Args: named: by its option, a file, several, or None where none was given.
    """
    given = [
        (option, path)
        for option, value in named.items()
        if value is not None
        for path in ([value] if isinstance(value, str | Path) else value)
    ]
    absent = [f"no file at {path}, given as --{option}" for option, path in given if not os.path.isfile(path)]
    if absent:
        raise ConfigError("; ".join(absent), hint="check the path; it starts from the folder you are in")


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a recipe file. Raises: ConfigError: cannot be read, not TOML."""
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None


def set_value(values: dict[str, Any], text: str) -> None:
    """Apply one override such as `head.kind=dense` or `phases.0.stage_rates.blocks.11=0.3` to nested `values`, in place.

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
    if "stage_rates" in parts[:-1]:  # a stage's name may have dots of its own
        start = parts.index("stage_rates") + 1
        parts[start:] = [".".join(parts[start:])]
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
