"""Weights that Keras saved: ResNet50 and InceptionV3 of keras.applications, read from HDF5 without Keras or TensorFlow.

Two layouts: the older one keeps each layer's weights under the layer's name; `.weights.h5` of Keras 3 under `layers/CLASS_N/vars/I`,
numbered in the order of `model.layers`, and only newer versions note the name as well.
Source: keras/src/legacy/saving/legacy_h5_format.py, keras/src/saving/saving_lib.py, keras/src/applications/{resnet,inception_v3}.py.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.errors import WeightsError

if TYPE_CHECKING:
    import torch

RESNET50 = "resnet50_keras_v1"
INCEPTION_V3 = "inception_v3_keras"

_HINT = "headstart reads ResNet50 and InceptionV3 of keras.applications, with and without top"
_MOST_BYTES = 1_000_000_000  # of all weights; both networks have a tenth of it
_SHOWN = 3  # names in a message

_RESNET_BLOCKS = {"layer1": 3, "layer2": 4, "layer3": 6, "layer4": 3}

# Branches of a block as Keras makes them, layer after layer; `+`: side by side, `.`: joined before the block's end.
_A = "branch1x1 | branch5x5_1 branch5x5_2 | branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3 | branch_pool"
_B = "branch3x3 | branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3"
_C = (
    "branch1x1 | branch7x7_1 branch7x7_2 branch7x7_3 | "
    "branch7x7dbl_1 branch7x7dbl_2 branch7x7dbl_3 branch7x7dbl_4 branch7x7dbl_5 | branch_pool"
)
_D = "branch3x3_1 branch3x3_2 | branch7x7x3_1 branch7x7x3_2 branch7x7x3_3 branch7x7x3_4"
_E = "branch1x1 | branch3x3_1 branch3x3_2a+branch3x3_2b . | branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3a+branch3x3dbl_3b . | branch_pool"
_INCEPTION_STEM = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3")
_INCEPTION_BLOCKS = {"Mixed_5b": _A, "Mixed_5c": _A, "Mixed_5d": _A, "Mixed_6a": _B, "Mixed_6b": _C, "Mixed_6c": _C}
_INCEPTION_BLOCKS |= {"Mixed_6d": _C, "Mixed_6e": _C, "Mixed_7a": _D, "Mixed_7b": _E, "Mixed_7c": _E}


@dataclass(frozen=True)
class _Layer:
    """A layer's name and weights, in Keras's order: kernel, bias; or gamma (not always), beta, mean, variance."""

    name: str
    weights: tuple[Any, ...]  # h5py datasets: read when asked

    @property
    def kind(self) -> str:
        n_axes = [len(array.shape) for array in self.weights]
        if n_axes in ([4], [4, 1]):
            return "convolution"
        if n_axes in ([1, 1, 1], [1, 1, 1, 1]):
            return "batch norm"
        return "dense" if n_axes in ([2], [2, 1]) else "other"


def network_of(path: Path) -> str:
    """Which network a Keras file is of: the name of its record in the catalogue.

    Raises: WeightsError: damaged, of another network, or h5py is not installed.
    """
    with _layers(path) as (layers, in_order):
        return _recognised(layers, in_order, path)[0]


def read(path: Path) -> dict[str, "torch.Tensor"]:
    """All weights of a Keras file under timm's names, float32, for pixels in RGB. What the file lacks is not there.

    timm's ResNet-50 has no bias in its convolutions: the bias is taken off the mean of the batch norm behind, which gives the same.
    Keras's ResNet50 takes pixels in BGR: the channels of its first kernel are turned round.

    Raises: WeightsError: as `network_of`.
    """
    with _layers(path) as (layers, in_order):
        network, places = _recognised(layers, in_order, path)
        tensors = _converted(places)
        if network == RESNET50 and "conv1.weight" in tensors:
            tensors["conv1.weight"] = tensors["conv1.weight"].flip(1)
        return tensors


@contextmanager
def _layers(path: Path) -> Iterator[tuple[list[_Layer], bool]]:
    """The layers that have weights, and whether their names only say their class and place in `model.layers`."""
    try:
        import h5py
    except ImportError as error:
        raise WeightsError(
            f"{path} is an HDF5 file of Keras; reading it needs h5py, which is not installed", hint="pip install 'headstart[keras]'"
        ) from error
    try:
        with h5py.File(path, "r") as file:
            layers, in_order = _older(file) or _newer(file)
            _check(layers, path, file.filename)
            yield layers, in_order
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:  # h5py's, depending on what is broken
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(f"{path} is damaged or incomplete: {reason}", hint="get the file again") from error


def _older(file: Any) -> tuple[list[_Layer], bool] | None:
    """The layers of the older layout; None where the file is not in it."""
    root = file if _listed(file, "layer_names") else file.get("model_weights")
    if root is None:
        return None
    groups = {name: root[name] for name in _listed(root, "layer_names")}
    layers = [_Layer(name, tuple(group[weight] for weight in _listed(group, "weight_names"))) for name, group in groups.items()]
    return [layer for layer in layers if layer.weights], False


def _newer(file: Any) -> tuple[list[_Layer], bool]:
    """The layers of Keras 3's layout."""
    found: dict[str, Any] = {}

    def visit(place: str, item: Any) -> None:
        if re.fullmatch(r"(layers|_layer_checkpoint_dependencies)/[^/]+/vars", place) and len(item):
            found[place] = item

    file.visititems(visit)
    named = all("name" in group.attrs for group in found.values())
    layers = []
    for place, group in found.items():
        name = _text(group.attrs["name"]) if named else place.split("/")[1]
        layers.append(_Layer(name, tuple(group[number] for number in sorted(group, key=int))))
    return layers, not named


def _listed(group: Any, key: str) -> list[str]:
    """A list of names among a group's attributes; a long one is kept in several, numbered."""
    if key in group.attrs:
        return [_text(name) for name in group.attrs[key]]
    chunks: list[str] = []
    number = 0
    while f"{key}{number}" in group.attrs:
        chunks += map(_text, group.attrs[f"{key}{number}"])
        number += 1
    return chunks


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _check(layers: Sequence[_Layer], path: Path, filename: str) -> None:
    """Refuse what no file of these networks has, before any of it is read."""
    weights = [array for layer in layers for array in layer.weights]
    if any(array.file.filename != filename or array.external or array.is_virtual for array in weights):
        raise WeightsError(f"{path} refers to other files instead of holding its weights", hint="get the file again")
    if any(array.dtype.kind != "f" for array in weights) or sum(array.nbytes for array in weights) > _MOST_BYTES:
        raise _of_another_network(layers, path)


def _recognised(layers: Sequence[_Layer], in_order: bool, path: Path) -> tuple[str, dict[str, _Layer]]:
    """The network's name, and timm's name of every layer."""
    if not layers or any(layer.kind == "other" for layer in layers):
        raise _of_another_network(layers, path)
    named = {_resnet_place(layer.name): layer for layer in layers}
    if None not in named:
        return RESNET50, {str(place): layer for place, layer in named.items()}
    old = next((layer.name for layer in layers if re.match(r"res\d[a-f]_branch", layer.name)), None)
    if old is not None:  # no padding in front of its first pooling, and batch norms with an epsilon of 1e-3
        raise WeightsError(
            f"{path} holds the ResNet50 of an old Keras (it has a layer {old}), which computes something else than today's",
            hint="get the present file: keras.applications.ResNet50(weights='imagenet') downloads it",
        )
    convolutions, norms, dense = (_numbered(layers, kind) for kind in ("convolution", "batch norm", "dense"))
    has_bias = any(len(layer.weights) > 1 for layer in convolutions)
    units = _resnet_units() if has_bias and in_order else [] if has_bias else _inception_units(in_order)
    if not len(convolutions) == len(norms) == len(units) or len(dense) > 1:
        raise _of_another_network(layers, path)
    places = {name: layer for (name, _), layer in zip(units, convolutions, strict=True)}
    places |= {name: layer for (_, name), layer in zip(units, norms, strict=True)}
    return RESNET50 if has_bias else INCEPTION_V3, places | dict.fromkeys(["fc"] * len(dense), *dense)


def _numbered(layers: Sequence[_Layer], kind: str) -> list[_Layer]:
    """The layers of a kind by the number that ends their names; a name without one comes first."""
    chosen = [layer for layer in layers if layer.kind == kind]
    return sorted(chosen, key=lambda layer: int(found[1]) if (found := re.search(r"_(\d+)$", layer.name)) else 0)


def _of_another_network(layers: Sequence[_Layer], path: Path) -> WeightsError:
    if not layers:
        return WeightsError(f"{path} is an HDF5 file without a Keras network's weights", hint=_HINT)
    kinds = [layer.kind for layer in layers]
    counts = f"{kinds.count('convolution')} convolutions and {kinds.count('batch norm')} batch norms"
    names = ", ".join(layer.name for layer in layers[:_SHOWN])
    return WeightsError(f"{path} holds neither all of InceptionV3 nor a ResNet50, but {counts}: {names}, ...", hint=_HINT)


def _resnet_place(name: str) -> str | None:
    """timm's name of a layer of Keras's ResNet50: `conv3_block1_0_bn` is `layer2.0.downsample.1`."""
    fixed = {"conv1_conv": "conv1", "conv1_bn": "bn1", "predictions": "fc", "probs": "fc"}  # the last two: of Keras, of keras-applications
    if name in fixed:
        return fixed[name]
    parts = re.fullmatch(r"conv([2-5])_block(\d+)_([0-3])_(conv|bn)", name)
    if parts is None:
        return None
    layer, block, number, kind = f"layer{int(parts[1]) - 1}", int(parts[2]) - 1, int(parts[3]), parts[4]
    if block >= _RESNET_BLOCKS[layer]:
        return None
    return f"{layer}.{block}.{kind}{number}" if number else f"{layer}.{block}.downsample.{int(kind == 'bn')}"


def _resnet_units() -> list[tuple[str, str]]:
    """Convolution and batch norm of each unit, in the order of `model.layers`: sorted by the distance from the output."""
    units = [("conv1", "bn1")]
    for layer, n_blocks in _RESNET_BLOCKS.items():
        for block in range(n_blocks):
            inside = [(f"conv{number}", f"bn{number}") for number in (1, 2, 3)]
            inside[2:2] = [("downsample.0", "downsample.1")] if block == 0 else []
            units += [(f"{layer}.{block}.{conv}", f"{layer}.{block}.{norm}") for conv, norm in inside]
    return units


def _inception_units(in_order: bool) -> list[tuple[str, str]]:
    """The same of InceptionV3, as `model.layers` has them (`in_order`) or as they were made."""
    names = list(_INCEPTION_STEM)
    for block, branches in _INCEPTION_BLOCKS.items():
        made = []
        for branch in branches.split(" | "):
            steps = branch.split()
            made += [(len(steps) - i, name) for i, step in enumerate(steps) for name in step.split("+") if name != "."]
        chosen = sorted(made, key=lambda entry: -entry[0]) if in_order else made
        names += [f"{block}.{name}" for _, name in chosen]
    return [(f"{name}.conv", f"{name}.bn") for name in names]


def _converted(places: dict[str, _Layer]) -> dict[str, "torch.Tensor"]:
    """timm's tensors. Kernels [h, w, in, out] become [out, in, h, w], and [in, out] becomes [out, in]."""
    import numpy as np
    import torch

    found: dict[str, Any] = {}
    biases: dict[str, Any] = {}
    for place, layer in places.items():
        weights = [np.asarray(array, np.float64) for array in layer.weights]
        if layer.kind == "batch norm":
            scale = [np.ones_like(weights[0])] if len(weights) == 3 else []
            names = ("weight", "bias", "running_mean", "running_var")
            found |= {f"{place}.{name}": array for name, array in zip(names, scale + weights, strict=True)}
            continue
        kernel, *bias = weights
        found[f"{place}.weight"] = kernel.transpose(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T
        for values in bias:
            if layer.kind == "dense":
                found[f"{place}.bias"] = values
            else:
                biases[_norm_behind(place)] = values
    for norm, values in biases.items():
        if (mean := found.get(f"{norm}.running_mean")) is not None and mean.shape == values.shape:
            found[f"{norm}.running_mean"] = mean - values
    return {name: torch.from_numpy(np.ascontiguousarray(array, np.float32)) for name, array in found.items()}


def _norm_behind(convolution: str) -> str:
    return convolution[:-1] + "1" if convolution.endswith("downsample.0") else convolution.replace("conv", "bn")
