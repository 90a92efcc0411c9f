"""bundle.json, read with distrust: every field is checked before anything uses it. docs/formats.md describes the file."""

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart.data.pixels import Preprocessing
from headstart.errors import BundleError, ConfigError

FORMAT = 3
NETWORK_FILE = "model.onnx"
IR_FILE, IR_WEIGHTS_FILE = "model.xml", "model.bin"  # the network in OpenVINO's form, in place of model.onnx
TAIL_FILE = "tail.safetensors"

FP32, INT8 = "fp32", "int8"
COMPUTED_IN = ("fp32", "bf16")
"""what a reader may compute a network in; for an int8 network: what is not int8 in it"""

_KEYS_1 = frozenset(
    ("format", "labels", "preprocessing", "decoder", "temperature", "thresholds", "licence", "provenance", "files", "golden", "digest")
)
_KEYS_2 = _KEYS_1 | {"none_of_these", "conformal"}
_KEYS = {1: _KEYS_1, 2: _KEYS_2, 3: _KEYS_2 | {"network"}}
_SCORE = "energy"
_LARGEST_PX = 4096


@dataclass(frozen=True)
class Label:
    """One class, at its place in the network's output."""

    name: str
    id: str | None = None
    """a name that lasts, such as ImageNet's synset `n02123045`"""


@dataclass(frozen=True)
class NoneOfThese:
    """When a photo is none of the labels: where the energy of its logits, -ln(sum of exp(logit)), is above the threshold."""

    threshold: float
    """an energy, so any number"""
    false_alarms: float
    """share of photos of the known classes that this may happen to, over 0 and under 1"""
    detection: float | None = None
    """share of the photos of a class left out that this finds, 0 to 1, where it was tried"""

    def to_json(self) -> dict[str, Any]:
        return {"score": _SCORE, "threshold": self.threshold, "false_alarms": self.false_alarms, "detection": self.detection}

    @classmethod
    def from_json(cls, values: Any) -> "NoneOfThese":
        """Raises: BundleError: a field is missing, unknown or not what it should be; the text names it."""
        kinds: dict[str, tuple[str, Callable[[Any], bool]]] = {
            "score": (f"'{_SCORE}'", lambda value: value == _SCORE),
            "threshold": ("a number", _is_number),
            "false_alarms": ("a number over 0 and under 1", _is_between),
            "detection": ("a number of 0 to 1, or null", lambda value: value is None or _is_share(value)),
        }
        _check_object("none_of_these", values, kinds)
        detection = values["detection"]
        return cls(float(values["threshold"]), float(values["false_alarms"]), None if detection is None else float(detection))


@dataclass(frozen=True)
class LabelSets:
    """Which labels a photo's set holds: the most probable one, and every other whose probability reaches the threshold."""

    coverage: float
    """share of photos whose set holds the right label, over 0 and under 1"""
    threshold: float
    """a probability, 0 to 1"""

    def to_json(self) -> dict[str, Any]:
        return {"coverage": self.coverage, "threshold": self.threshold}

    @classmethod
    def from_json(cls, values: Any) -> "LabelSets":
        """Raises: BundleError: a field is missing, unknown or not what it should be; the text names it."""
        _check_object(
            "conformal", values, {"coverage": ("a number over 0 and under 1", _is_between), "threshold": ("a number of 0 to 1", _is_share)}
        )
        return cls(float(values["coverage"]), float(values["threshold"]))


@dataclass(frozen=True, eq=False)
class Golden:
    """What the model's maker got, for readers to compare with what they get."""

    decoder_digest: str
    """`data.golden.golden_digest()`"""
    logits: np.ndarray
    """float32 [4, k]: for `data.golden.golden_images(px)`, computed by PyTorch in fp32; of an int8 network, by that network"""


@dataclass(frozen=True, eq=False)
class Record:
    """The content of bundle.json."""

    labels: tuple[Label, ...]
    """k classes, in the order of the network's output"""
    preprocessing: Preprocessing
    decoder: str
    """what decoded the training photos, for people; `golden` is what is checked"""
    temperature: float
    """probabilities are softmax(logits / temperature)"""
    thresholds: Mapping[str, float]
    """label name -> least probability at which to believe it; only classes that have one"""
    licence: str | None
    """of the backbone's weights"""
    provenance: Mapping[str, Any]
    """how it came to be: backbone, data, versions, seed"""
    files: Mapping[str, str]
    """file name -> sha256, 64 hex digits"""
    golden: Golden
    none_of_these: NoneOfThese | None = None
    """None: the model does not say whether a photo is of a class it knows"""
    conformal: LabelSets | None = None
    """None: the model has no sets of labels"""
    precision: str = FP32
    """`fp32` or `int8`: what the network's large layers hold and compute in"""
    computed_in: tuple[str, ...] = COMPUTED_IN
    """of `COMPUTED_IN`, what its maker found good enough; `fp32` always"""

    @property
    def network_file(self) -> str:
        """Name of the file to open: `model.onnx`, or OpenVINO's `model.xml`."""
        return NETWORK_FILE if NETWORK_FILE in self.files else IR_FILE

    def to_json(self) -> dict[str, Any]:
        """The values of bundle.json, signed with their digest."""
        values = {
            "format": FORMAT,
            "labels": [{"name": label.name, "id": label.id} for label in self.labels],
            "preprocessing": self.preprocessing.to_json(),
            "decoder": self.decoder,
            "temperature": self.temperature,
            "thresholds": dict(self.thresholds),
            "none_of_these": None if self.none_of_these is None else self.none_of_these.to_json(),
            "conformal": None if self.conformal is None else self.conformal.to_json(),
            "network": {"precision": self.precision, "computed_in": list(self.computed_in)},
            "licence": self.licence,
            "provenance": dict(self.provenance),
            "files": dict(self.files),
            # nine digits hold a float32 exactly
            "golden": {
                "decoder_digest": self.golden.decoder_digest,
                "logits": [[float(f"{value:.9g}") for value in row] for row in self.golden.logits],
            },
        }
        return {**values, "digest": digest(values)}


def digest(values: Mapping[str, Any]) -> str:
    """sha256 over all of bundle.json but its own `digest`: finds damage and edits by hand, not malice."""
    rest = {key: value for key, value in values.items() if key != "digest"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def read_record(text: bytes) -> Record:
    """Read bundle.json from its bytes.

    Raises: BundleError: of a newer format, changed since it was written, or with a field that is none; the text names it.
    """
    values = _parse(text)
    found = values.get("format")
    if type(found) is not int or found < 1:
        raise BundleError(f"bundle.json: expected 'format' to be a whole number from 1 on, found {_shown(found)}")
    if found > FORMAT:
        hint = "pip install --upgrade headstart"
        raise BundleError(f"the model is of format {found}, this headstart reads up to {FORMAT}", hint=hint)
    if values.keys() != (keys := _KEYS[found]):
        absent, unknown = sorted(keys - values.keys()), sorted(values.keys() - keys)
        raise BundleError(f"bundle.json: missing fields {absent}, unknown fields {_shown(unknown)}")
    if values["digest"] != _digest_or_none(values):
        hint = "copy or export the model again; to change a value, set it when exporting"
        raise BundleError("bundle.json was changed or damaged since it was written: its digest does not fit", hint=hint)
    return _record(values)


def _digest_or_none(values: dict[str, Any]) -> str | None:
    try:
        return digest(values)
    except (ValueError, RecursionError):  # 1e999 is read as infinity, which nothing we wrote holds
        return None


def _parse(text: bytes) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON number")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) < len(pairs):
            raise ValueError("a key comes twice")
        return dict(pairs)

    try:
        values = json.loads(text.decode("utf-8"), parse_constant=refuse, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:  # not UTF-8, no JSON, or nested without end
        raise BundleError(f"bundle.json is damaged: {error}", hint="copy or export the model again") from error
    if not isinstance(values, dict):
        raise BundleError(f"bundle.json: expected an object, found {_shown(values)}")
    return values


def _record(values: dict[str, Any]) -> Record:
    labels = _labels(values["labels"])
    thresholds = _of(values, "thresholds", "an object of probabilities by label", _is_thresholds)
    unknown = sorted(thresholds.keys() - {label.name for label in labels})
    if unknown:
        raise BundleError(f"bundle.json: 'thresholds' names unknown labels: {_shown(unknown)}")
    network = _network(values.get("network", {"precision": FP32, "computed_in": list(COMPUTED_IN)}))
    return Record(
        labels=labels,
        preprocessing=_preprocessing(_of(values, "preprocessing", "an object", _is_object)),
        decoder=_of(values, "decoder", "text", _is_text),
        temperature=float(_of(values, "temperature", "a number over 0", lambda value: _is_number(value) and value > 0)),
        thresholds=thresholds,
        licence=_of(values, "licence", "text or null", lambda value: value is None or _is_text(value)),
        provenance=_of(values, "provenance", "an object", _is_object),
        files=_of(
            values, "files", f"an object of sha256 by file, among them {NETWORK_FILE}, or {IR_FILE} and {IR_WEIGHTS_FILE}", _is_files
        ),
        golden=_golden(_of(values, "golden", "an object", _is_object), len(labels)),
        none_of_these=None if values.get("none_of_these") is None else NoneOfThese.from_json(values["none_of_these"]),
        conformal=None if values.get("conformal") is None else LabelSets.from_json(values["conformal"]),
        precision=network["precision"],
        computed_in=tuple(network["computed_in"]),
    )


def _labels(values: Any) -> tuple[Label, ...]:
    if not isinstance(values, list) or not values:
        raise BundleError(f"bundle.json: expected 'labels' to be a list of labels, found {_shown(values)}")
    labels = []
    for index, value in enumerate(values):
        fits = isinstance(value, dict) and value.keys() == {"name", "id"} and _is_text(value["name"]) and value["name"] != ""
        if not fits or not (value["id"] is None or _is_text(value["id"])):
            raise BundleError(f"bundle.json: expected label {index} to have a 'name' and an 'id' (text or null), found {_shown(value)}")
        labels.append(Label(value["name"], value["id"]))
    if len(set(labels)) < len(labels):
        raise BundleError("bundle.json: a label comes twice")
    return tuple(labels)


def _preprocessing(values: dict[str, Any]) -> Preprocessing:
    def triple(value: Any) -> bool:
        return isinstance(value, list) and len(value) == 3 and all(map(_is_number, value))

    kinds: dict[str, tuple[str, Callable[[Any], bool]]] = {
        "input_px": (f"a whole number of 1 to {_LARGEST_PX}", lambda value: type(value) is int and 1 <= value <= _LARGEST_PX),
        "crop": ("a number over 0.01", lambda value: _is_number(value) and value > 0.01),
        "interpolation": ("text", _is_text),
        "mean": ("three numbers", triple),
        "std": ("three numbers", triple),
    }
    _check_object("preprocessing", values, kinds)
    try:
        return Preprocessing.from_json(values)
    except ConfigError as error:
        raise BundleError(f"bundle.json: 'preprocessing' cannot be used: {error.message}") from error


def _network(values: Any) -> dict[str, Any]:
    fitting = f"a list of {', '.join(COMPUTED_IN)}, the first always"
    kinds: dict[str, tuple[str, Callable[[Any], bool]]] = {
        "precision": (f"'{FP32}' or '{INT8}'", lambda value: value in (FP32, INT8)),
        "computed_in": (fitting, lambda value: value in (list(COMPUTED_IN), [FP32])),
    }
    _check_object("network", values, kinds)
    found: dict[str, Any] = values
    return found


def _golden(values: dict[str, Any], n_classes: int) -> Golden:
    if values.keys() != {"decoder_digest", "logits"} or not _is_sha256(values["decoder_digest"]):
        raise BundleError(f"bundle.json: expected 'golden' to have 'decoder_digest' and 'logits', found {_shown(values)}")
    rows = values["logits"]
    fits = isinstance(rows, list) and len(rows) > 0 and all(isinstance(row, list) and len(row) == n_classes for row in rows)
    if not fits or not all(_is_number(value) for row in rows for value in row):
        raise BundleError(f"bundle.json: expected 'golden.logits' to be rows of {n_classes} numbers")
    return Golden(values["decoder_digest"], np.asarray(rows, np.float32))


def _check_object(name: str, values: Any, kinds: Mapping[str, tuple[str, Callable[[Any], bool]]]) -> None:
    """Raises: BundleError: not an object of exactly these keys, or a value that is not of its kind (in words, and as a test)."""
    if not isinstance(values, dict) or values.keys() != kinds.keys():
        found = sorted(values) if isinstance(values, dict) else values
        raise BundleError(f"bundle.json: expected '{name}' to have {', '.join(kinds)}, found {_shown(found)}")
    for key, (expected, fits) in kinds.items():
        _of(values, key, expected, fits, within=f"{name}.")


def _of(values: dict[str, Any], key: str, expected: str, fits: Callable[[Any], bool], *, within: str = "") -> Any:
    if not fits(values[key]):
        raise BundleError(f"bundle.json: expected '{within}{key}' to be {expected}, found {_shown(values[key])}")
    return values[key]


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_text(value: Any) -> bool:
    """Text that can be written out: JSON can also spell halves of characters."""
    return isinstance(value, str) and value.encode("utf-8", "replace").decode() == value


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e30 and math.isfinite(value)


def _is_share(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1


def _is_between(value: Any) -> bool:
    return _is_number(value) and 0 < value < 1


def _is_sha256(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def _is_files(value: Any) -> bool:
    known = isinstance(value, dict) and value.keys() - {TAIL_FILE} in ({NETWORK_FILE}, {IR_FILE, IR_WEIGHTS_FILE})
    return known and all(map(_is_sha256, value.values()))


def _is_thresholds(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_share, value.values()))


def _shown(value: Any) -> str:
    """A value for an error message: escaped, and never longer than a line."""
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
