"""Weights that Keras saved give the features that Keras computes, and layers are counted as Keras counts them."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headstart.backbone import cut, networks, weights
from headstart.backbone.layers import layers
from headstart.backbone.reading import read_tensors
from headstart.errors import WeightsError

h5py = pytest.importorskip("h5py")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras's own

RECORDS = {"ResNet50": "resnet50_keras_v1", "InceptionV3": "inception_v3_keras"}
LAYOUTS = ("new.weights.h5", "nameless.weights.h5", "old_weights.h5", "old_model.h5")


@dataclass(frozen=True)
class Saved:
    """A network made by Keras, what it computes, and the files it was saved to."""

    model: Any
    folder: Path
    photos: np.ndarray
    answers: np.ndarray


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Saved]]:
    """Makes such a network, once for the same arguments."""
    made: dict[tuple, Saved] = {}

    def get(name: str, px: int, classes: int = 0) -> Saved:
        if (name, px, classes) not in made:
            made[name, px, classes] = save(name, px, classes, tmp_path_factory.mktemp("keras"))
        return made[name, px, classes]

    yield get
    made.clear()


def save(name: str, px: int, classes: int, folder: Path) -> Saved:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

    keras.utils.set_random_seed(0)
    top = {"classes": classes, "classifier_activation": None} if classes else {"include_top": False, "pooling": "avg"}
    model = getattr(keras.applications, name)(weights=None, input_shape=(px, px, 3), **top)
    randomise(model, np.random.default_rng(0))
    photos = np.random.default_rng(1).integers(0, 256, (2, px, px, 3), dtype=np.uint8)
    pixels = getattr(keras.applications, {"ResNet50": "resnet50", "InceptionV3": "inception_v3"}[name]).preprocess_input(photos * 1.0)
    answers = keras.ops.convert_to_numpy(model(pixels.astype(np.float32), training=False))
    model.save_weights(folder / "new.weights.h5")
    shutil.copy(folder / "new.weights.h5", folder / "nameless.weights.h5")
    with h5py.File(folder / "nameless.weights.h5", "a") as file:  # as Keras 3 wrote them before it noted names
        file.visititems(lambda _, item: item.attrs.pop("name", None) and None)
    with h5py.File(folder / "old_weights.h5", "w") as file:
        save_weights_to_hdf5_group(file, model)
    model.save(folder / "old_model.h5")
    return Saved(model, folder, photos, answers)


def randomise(model: Any, rng: np.random.Generator) -> None:
    """Give batch norms and biases values that matter."""
    for layer in model.layers:
        values = layer.get_weights()
        if type(layer).__name__ == "BatchNormalization":
            *scale, beta, mean, variance = values
            drawn = [rng.normal(0, 0.2, beta.shape), rng.normal(0, 0.2, mean.shape), rng.uniform(0.5, 1.5, variance.shape)]
            layer.set_weights([*(rng.uniform(0.5, 1.5, beta.shape) for _ in scale), *drawn])
        elif len(values) == 2:
            layer.set_weights([values[0], rng.normal(0, 0.1, values[1].shape)])


@lru_cache(maxsize=2)
def built(path: Path, px: int) -> networks.Network:
    return networks.build(weights.locate(None, path), px=px)


def check_answers(made: Saved, file: str, record: str) -> networks.Network:
    net = built(made.folder / file, made.photos.shape[1])
    assert (net.name, net.origin, net.record.record_source) == (record, "given", "headstart")
    _, tail = cut.split(net, "input")
    with torch.no_grad():
        found = [tail(torch.from_numpy(made.photos)), net.module(cut.Normalise(net.preprocessing)(torch.from_numpy(made.photos)))]
    for answers in found:
        np.testing.assert_allclose(answers.numpy(), made.answers, rtol=0, atol=1e-4 * np.abs(made.answers).max())
    return net


@pytest.mark.parametrize(("name", "px"), [("ResNet50", 64), ("InceptionV3", 96)])
class TestWithoutTop:
    def test_features_are_those_of_keras(self, saved: Callable[..., Saved], name: str, px: int) -> None:
        net = check_answers(saved(name, px), "new.weights.h5", RECORDS[name])
        assert net.n_classes == 0

    def test_every_layout_holds_the_same(self, saved: Callable[..., Saved], name: str, px: int) -> None:
        expected, *others = (read_tensors(saved(name, px).folder / file) for file in LAYOUTS)
        assert len(expected) == {"ResNet50": 53 * 5, "InceptionV3": 94 * 5}[name]
        for tensors in others:
            assert tensors.keys() == expected.keys()
            assert all(torch.equal(tensors[key], tensor) for key, tensor in expected.items())

    def test_layers_are_counted_as_keras_counts_them(self, saved: Callable[..., Saved], name: str, px: int) -> None:
        made = saved(name, px)
        net = built(made.folder / "new.weights.h5", px)
        state = net.module.state_dict()
        ours = [sorted(float(state[key].double().sum()) for key in layer.parameters) for layer in layers(net.layout)]
        skipped = ("InputLayer", "ZeroPadding2D", "GlobalAveragePooling2D")
        theirs = [trained_sums(layer) for layer in made.model.layers if type(layer).__name__ not in skipped]
        assert len(ours) == len(theirs) == {"ResNet50": 172, "InceptionV3": 310}[name]
        for number, (mine, its) in enumerate(zip(ours, theirs, strict=True)):
            assert mine == pytest.approx(its, abs=1e-3), f"layer {number}"


def trained_sums(layer: Any) -> list[float]:
    """The sum of each array that trains, as timm keeps them: a convolution without bias, a batch norm with its scale."""
    values = [array.astype(np.float64) for array in layer.get_weights()]
    if type(layer).__name__ == "BatchNormalization":
        scale = values[0] if len(values) == 4 else np.ones_like(values[0])
        return sorted([float(scale.sum()), float(values[-3].sum())])
    return [float(array.sum()) for array in values[:1]]


@pytest.mark.slow
@pytest.mark.parametrize("file", LAYOUTS)
@pytest.mark.parametrize(("name", "px", "classes"), [("ResNet50", 224, 1000), ("InceptionV3", 299, 1000), ("ResNet50", 96, 5)])
def test_classifiers_answer_as_in_keras(saved: Callable[..., Saved], name: str, px: int, classes: int, file: str) -> None:
    net = check_answers(saved(name, px, classes), file, RECORDS[name])
    assert net.n_classes == classes
    assert (net.classes is None) == (classes != 1000)


Layers = dict[str, list[tuple[str, tuple[int, ...]]]]


def write(path: Path, content: Layers) -> Path:
    """A file as the first versions of Keras wrote them, of zeros (variances too): names as bytes, with `:0` behind."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = np.array([name.encode() for name in content], "S")
        for name, arrays in content.items():
            group = file.create_group(name)
            group.attrs["weight_names"] = np.array([f"{name}/{what}:0".encode() for what, _ in arrays], "S")
            for what, shape in arrays:
                group.create_dataset(f"{name}/{what}:0", data=np.zeros(shape, np.float32))
    return path


def convolution(*shape: int, bias: bool = True) -> list[tuple[str, tuple[int, ...]]]:
    return [("kernel", shape), *([("bias", shape[-1:])] if bias else [])]


def norm(n: int, *, scale: bool = True) -> list[tuple[str, tuple[int, ...]]]:
    return [(what, (n,)) for what in ("gamma", "beta", "moving_mean", "moving_variance")[not scale :]]


STEM: Layers = {"conv1_conv": convolution(7, 7, 3, 64), "conv1_bn": norm(64)}


def refused(path: Path, match: str, name: str | None = None) -> WeightsError:
    with pytest.raises(WeightsError, match=match) as caught:
        networks.build(weights.locate(name, path), px=96)
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message
    return caught.value


def test_the_file_says_which_network_it_is_and_the_name_must_agree(tmp_path: Path) -> None:
    path = write(tmp_path / "w.h5", STEM)
    for name in (None, "resnet50", "resnet50_keras_v1", "resnet50.a1_in1k"):
        assert weights.locate(name, path).record.name == "resnet50_keras_v1"
    assert refused(path, "expected weights of inception_v3, found those of resnet50_keras_v1", "inception_v3").hint == (
        "use --backbone resnet50_keras_v1"
    )


def test_the_classifier_has_another_name_in_the_file_that_keras_downloads(tmp_path: Path) -> None:
    """keras-applications, which the published file is of, called it `probs`; Keras says `predictions` today and reads by order."""
    for name in ("predictions", "probs"):
        path = write(tmp_path / f"{name}.h5", {**STEM, name: [("kernel", (2048, 1000)), ("bias", (1000,))]})
        assert weights.locate(None, path).record.name == "resnet50_keras_v1"
        assert {"fc.weight", "fc.bias"} <= set(read_tensors(path))


def test_a_keras_file_in_the_cache_folder_is_found_by_its_name(own_cache: Path) -> None:
    (own_cache / "weights").mkdir()
    write(own_cache / "weights" / "resnet50_keras_v1.h5", STEM)
    assert weights.locate("resnet50_keras_v1").origin == "cache"


def test_layers_that_are_missing_are_named_and_stop_is_offered(tmp_path: Path) -> None:
    error = refused(write(tmp_path / "w.h5", STEM), r"does not cover all of resnet50_keras_v1: \d+ tensors are missing, of layer1, layer2")
    assert error.hint == "it is complete up to conv1: use it with --stop conv1"
    net = networks.build(weights.locate(None, tmp_path / "w.h5"), stop="conv1", px=64)
    assert cut.stages(net) == ["conv1", "head"]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (
            {"block1_conv1": convolution(3, 3, 3, 64)},
            r"neither all of InceptionV3 nor a ResNet50, but 1 convolutions and 0 batch norms: block1_",
        ),
        ({**STEM, "conv4_block7_1_conv": convolution(1, 1, 1024, 256)}, "but 2 convolutions and 1 batch norms"),
        ({**STEM, "lstm": [("kernel", (3, 4)), ("recurrent_kernel", (3, 4))]}, "but 1 convolutions and 1 batch norms"),
        (
            {"conv2d_1": convolution(3, 3, 3, 32, bias=False), "batch_normalization_1": norm(32, scale=False)},
            "but 1 convolutions and 1 batch",
        ),
        ({"conv1": convolution(7, 7, 3, 64), "res2a_branch2a": convolution(1, 1, 64, 64)}, r"ResNet50 of an old Keras .*res2a_branch2a"),
        (
            {"conv1_conv": convolution(5, 5, 3, 64), "conv1_bn": norm(64)},
            r"does not hold weights of resnet50_keras_v1.*conv1\.weight 64x3x5x5",
        ),
        ({}, "without a Keras network's weights"),
    ],
    ids=["vgg", "resnet101", "lstm", "few", "old", "shape", "none"],
)
def test_other_networks_are_refused_with_what_was_found(tmp_path: Path, content: Layers, match: str) -> None:
    assert refused(write(tmp_path / "w.h5", content), match).hint is not None


def break_reference(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["conv1_conv"].attrs["weight_names"] = [b"conv1_conv/nowhere:0"]


def point_elsewhere(path: Path) -> None:
    other = write(path.with_name("other.h5"), STEM)
    with h5py.File(path, "a") as file:
        del file["conv1_bn"]
        file["conv1_bn"] = h5py.ExternalLink(other.name, "conv1_bn")


def put(path: Path, *, dtype: str, shape: tuple[int, ...]) -> None:
    """Another array in the kernel's place, not written: it takes no room."""
    with h5py.File(path, "a") as file:
        del file["conv1_conv/conv1_conv/kernel:0"]
        file["conv1_conv"].create_dataset("conv1_conv/kernel:0", shape, dtype, chunks=True if shape else None)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (cut_short, "is damaged or incomplete"),
        (break_reference, "is damaged or incomplete"),
        (point_elsewhere, "refers to other files"),
        (partial(put, dtype="i4", shape=(7, 7, 3, 64)), "holds neither"),
        (partial(put, dtype="f4", shape=(7, 7, 30_000, 64_000)), "holds neither"),
        (partial(put, dtype="f4", shape=()), "holds neither"),
    ],
    ids=["truncated", "reference", "elsewhere", "integers", "huge", "scalar"],
)
def test_damaged_files_are_refused(tmp_path: Path, damage: Callable[[Path], None], match: str) -> None:
    path = write(tmp_path / "w.h5", STEM)
    damage(path)
    refused(path, match)


def test_without_h5py_the_way_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "w.h5", STEM)
    monkeypatch.setitem(sys.modules, "h5py", None)
    assert refused(path, "needs h5py, which is not installed").hint == "pip install 'headstart[keras]'"


def test_long_lists_of_names_are_read_from_their_parts(tmp_path: Path) -> None:
    path = write(tmp_path / "w.h5", STEM)
    whole = read_tensors(path)
    assert len(whole) == 5
    with h5py.File(path, "a") as file:
        names = file.attrs["layer_names"]
        del file.attrs["layer_names"]
        file.attrs["layer_names0"], file.attrs["layer_names1"] = names[:1], names[1:]
    assert read_tensors(path).keys() == whole.keys()
