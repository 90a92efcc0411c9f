"""Trained-model folders without training or PyTorch: networks small enough to know what they look at."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
from PIL import Image

from headstart.bundle.format import RECORD_FILE
from headstart.bundle.record import NETWORK_FILE, Golden, Label, Record
from headstart.data.golden import golden_digest, golden_images
from headstart.data.pixels import DECODER, Preprocessing
from headstart.features.runtime import open_session
from headstart.files import write_json

PX = 32
COLOURS = ("red", "grün", "blue")
RED, BLUE = (230, 30, 30), (30, 30, 230)
SURE = 20 * np.eye(3, dtype=np.float32)


def colour_model(folder: Path, head: np.ndarray = SURE, *, crop: float = 1.0, names: Sequence[str] = COLOURS) -> Path:
    """Says which colour there is most of: relu(a channel minus the other two's mean), pooled, then `head` [k, 3]."""
    filters = (1.5 * np.eye(3) - 0.5).astype(np.float32)[..., None, None]
    nodes = [
        helper.make_node("Conv", ["x", "filters"], ["map"]),
        helper.make_node("Relu", ["map"], ["active"]),
        helper.make_node("GlobalAveragePool", ["active"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("Gemm", ["features", "head"], ["logits"], transB=1),
    ]
    return write_model(folder, nodes, {"filters": filters, "head": head}, names, crop)


def linear_model(folder: Path, weights: np.ndarray) -> Path:
    """Two classes: the logit of the first is the sum of `weights` [px, px, 3] times the pixels in 0..1, of the other 0."""
    flat = np.stack([weights.transpose(2, 0, 1).ravel(), np.zeros(weights.size)], axis=1).astype(np.float32)
    nodes = [helper.make_node("Flatten", ["x"], ["flat"]), helper.make_node("MatMul", ["flat", "weights"], ["logits"])]
    return write_model(folder, nodes, {"weights": flat}, ("yes", "no"), 1.0)


def dividing_model(folder: Path) -> Path:
    """Divides each channel's mean by itself: for black photos the answer is not a number."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("Div", ["features", "features"], ["logits"]),
    ]
    return write_model(folder, nodes, {}, COLOURS, 1.0)


def write_model(folder: Path, nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], names: Sequence[str], crop: float) -> Path:
    """A bundle of the nodes between `x`, float [n, 3, px, px] in 0..1, and `logits`."""
    folder.mkdir(parents=True)
    before = [
        helper.make_node("Cast", ["image"], ["float"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Div", ["nchw", "full"], ["x"]),
    ]
    image = helper.make_tensor_value_info("image", onnx.TensorProto.UINT8, ["n", PX, PX, 3])
    logits = helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["n", len(names)])
    constants = [numpy_helper.from_array(value, name) for name, value in {**weights, "full": np.float32(255)}.items()]
    graph = helper.make_graph([*before, *nodes], "g", [image], [logits], initializer=constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    file = folder / NETWORK_FILE
    file.write_bytes(model.SerializeToString())
    record = Record(
        labels=tuple(Label(name, f"n{i}") for i, name in enumerate(names)),
        preprocessing=Preprocessing(PX, crop, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        decoder=DECODER,
        temperature=1.0,
        thresholds={},
        licence=None,
        provenance={},
        files={file.name: hashlib.sha256(file.read_bytes()).hexdigest()},
        golden=Golden(golden_digest(), open_session(file, provider="onnxruntime").run(golden_images(PX))),
    )
    write_json(folder / RECORD_FILE, record.to_json())
    return folder


def two_things(width: int = 64, height: int = 64) -> Image.Image:
    """Grey, with a red thing in the top left and a blue one in the bottom right of the centre square."""
    picture = np.full((height, width, 3), 120, np.uint8)
    side = min(width, height)
    top, left, step = (height - side) // 2, (width - side) // 2, side // 8
    picture[top + step : top + 3 * step, left + step : left + 3 * step] = RED
    picture[top + 5 * step : top + 7 * step, left + 5 * step : left + 7 * step] = BLUE
    return Image.fromarray(picture)
