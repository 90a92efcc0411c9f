"""Are the heat maps of `headstart explain` faithful? Against Grad-CAM, attention rollout, plain occlusion, RISE and chance.

    python bench/explain.py RUN [--photos 10] [--mosaics 6] [--root PHOTOS] [--methods NAME...]

RUN: a run of `headstart train` on photos of several classes, such as shared/data/flowers. Of its test photos:
- deletion: the probability of the label while the photo turns into its mean colour, the highest places first; mean over the way, lower is
  better. Insertion: while it appears over its blur; higher is better. Source: Petsiuk et al., 2018 (RISE).
- pointing: four photos of four classes in one picture; how often the highest place, and what share of the map, lies in the right photo
  (chance: 0.25). Source: Boehle et al., 2021 (the grid pointing game).
Grad-CAM is computed from the last map before global pooling, where the weights of a linear classifier are the gradient; rollout from the
attention in the file (Abnar and Zuidema, 2020). Both need the `onnx` package to lay inner values open.
"""

import argparse
import csv
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from PIL import Image, ImageFilter

from headstart.bundle import explain
from headstart.bundle.format import Bundle, load_bundle
from headstart.bundle.predict import open_engine, softmax
from headstart.data.pixels import Preprocessing, decode, load, prepare
from machine import machine

Method = Callable[[np.ndarray, int], np.ndarray]
"""Pixels uint8 [px, px, 3] and a label's index -> how much each place speaks for it, [px, px], cut off at 0 as those shown are."""

STEPS = 14


class Network:
    """A bundle's network through ONNX Runtime, with its inner values."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle, self.px = bundle, bundle.preprocessing.input_px
        self.session = open_engine(bundle, "onnxruntime", "fp32")
        model = onnx.load(str(bundle.network_file))
        nodes = list(model.graph.node)
        self.pooled = next((node.input[0] for node in nodes if node.op_type == "GlobalAveragePool"), None)
        attention = [node.output[0] for node in nodes if node.op_type == "Softmax"]
        weights = {one.name: one for one in model.graph.initializer}
        last = nodes[-1]
        is_linear = last.op_type == "Gemm" and last.input[1] in weights
        self.classifier = onnx.numpy_helper.to_array(weights[last.input[1]]) if is_linear else None
        self.inner_names = [self.pooled] if self.pooled is not None else attention
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in self.inner_names)
        self._inner = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])

    def probs(self, pictures: np.ndarray, index: int) -> np.ndarray:
        return softmax(self.session.run(pictures) / self.bundle.temperature)[:, index]

    def score(self, pictures: np.ndarray, index: int) -> np.ndarray:
        return explain._evidence(self.session.run(pictures) / self.bundle.temperature, index)

    def inner(self, pixels: np.ndarray) -> list[np.ndarray]:
        return [value[0] for value in self._inner.run(self.inner_names, {"image": pixels[None]})]


def methods(network: Network) -> dict[str, Method]:
    found: dict[str, Method] = {
        "headstart": lambda pixels, index: mapped(network, pixels, index),
        "occlusion": lambda pixels, index: occlusion(network, pixels, index),
        "RISE": lambda pixels, index: rise(network, pixels, index),
        "chance": lambda pixels, index: explain._enlarged(np.random.default_rng(0).random((8, 8)), network.px),
    }
    if network.pooled is not None and network.classifier is not None:
        found["Grad-CAM"] = lambda pixels, index: gradcam(network, pixels, index)
    elif network.pooled is None and network.inner_names:
        found["rollout"] = lambda pixels, index: rollout(network, pixels)
    return found


def mapped(network: Network, pixels: np.ndarray, index: int) -> np.ndarray:
    label = network.bundle.labels[index]
    return explain.heat_map(network.bundle, pixels, label.name, provider="onnxruntime").values


def gradcam(network: Network, pixels: np.ndarray, index: int) -> np.ndarray:
    assert network.classifier is not None
    return explain._enlarged(np.maximum(np.tensordot(network.classifier[index], network.inner(pixels)[0], 1), 0), network.px)


def rollout(network: Network, pixels: np.ndarray) -> np.ndarray:
    """The same for every label; one class token."""
    mixed = None
    for attention in network.inner(pixels):
        step = (attention.mean(0) + np.eye(attention.shape[-1])) / 2
        mixed = step if mixed is None else step @ mixed
    assert mixed is not None
    side = int((len(mixed) - 1) ** 0.5)
    return explain._enlarged(mixed[0, 1:].reshape(side, side), network.px)


def occlusion(network: Network, pixels: np.ndarray, index: int) -> np.ndarray:
    """Drop under a window of a quarter of the side in steps of an eighth, 81 pictures (Zeiler and Fergus, 2014)."""
    px, step = network.px, network.px / 8
    windows = []
    for row in range(-1, 8):
        for column in range(-1, 8):
            window = np.zeros((px, px))
            top, left = (max(0, round(place * step)) for place in (row, column))
            window[top : round((row + 2) * step), left : round((column + 2) * step)] = 1
            windows.append(window)
    hidden = np.stack(windows)
    drop = network.score(pixels[None], index) - network.score(shown(pixels, 1 - hidden, mean_colour(pixels)), index)
    return np.maximum(np.tensordot(drop, hidden, 1) / hidden.sum(0), 0)


def rise(network: Network, pixels: np.ndarray, index: int) -> np.ndarray:
    """128 random masks of 7 x 7 cells, half of them shown (the paper takes 4,000 and more)."""
    rng = np.random.default_rng(0)
    masks = np.stack([explain._enlarged(rng.integers(0, 2, (7, 7)), network.px) for _ in range(128)])
    scores = network.score(shown(pixels, masks, mean_colour(pixels)), index)
    return np.maximum(np.tensordot(scores - scores.mean(), masks, 1), 0)


def mean_colour(pixels: np.ndarray) -> np.ndarray:
    return np.broadcast_to(pixels.mean((0, 1)), pixels.shape)


def blurred(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(len(pixels) / 10)))


def shown(pixels: np.ndarray, masks: np.ndarray, behind: np.ndarray) -> np.ndarray:
    return np.stack([np.rint(behind + mask[..., None] * (pixels - behind)).astype(np.uint8) for mask in masks.astype(np.float32)])


def along_the_way(network: Network, index: int, heat: np.ndarray, start: np.ndarray, end: np.ndarray) -> float:
    """Mean probability while `start` turns into `end`, the hottest places first. Equal values go in a random order."""
    tie = np.random.default_rng(1).random(heat.size)
    order = np.lexsort((tie, -heat.ravel())).argsort().reshape(heat.shape)
    changed = np.stack([order < heat.size * step / STEPS for step in range(STEPS + 1)])
    probs = network.probs(np.where(changed[..., None], end.astype(np.uint8), start.astype(np.uint8)), index)
    return float(np.trapezoid(probs, dx=1 / STEPS))


def faithfulness(network: Network, chosen: dict[str, Method], photos: list[tuple[Path, int]]) -> None:
    print(f"{'':<12}{'deletion':>10}{'insertion':>11}{'difference':>12}{'s a map':>9}   ({len(photos)} photos)")
    for name, method in chosen.items():
        rows = []
        for path, index in photos:
            pixels = load(path, network.bundle.preprocessing)
            started = time.monotonic()
            heat = method(pixels, index)
            seconds = time.monotonic() - started
            deletion = along_the_way(network, index, heat, pixels, mean_colour(pixels))
            rows.append((deletion, along_the_way(network, index, heat, blurred(pixels), pixels), seconds))
        deletion, insertion, seconds = np.mean(rows, axis=0)
        print(f"{name:<12}{deletion:10.3f}{insertion:11.3f}{insertion - deletion:12.3f}{seconds:9.2f}", flush=True)


def pointing(network: Network, chosen: dict[str, Method], mosaics: list[tuple[np.ndarray, list[int]]]) -> None:
    print(f"{'':<12}{'highest in':>11}{'share in':>10}   ({len(mosaics)} mosaics of 4)")
    half = network.px // 2
    for name, method in chosen.items():
        hits, shares = [], []
        for pixels, labels in mosaics:
            for place, index in enumerate(labels):
                heat = method(pixels, index)
                top, left = place // 2 * half, place % 2 * half
                shares.append(heat[top : top + half, left : left + half].sum() / max(heat.sum(), 1e-12))
                row, column = np.unravel_index(int(heat.argmax()), heat.shape)
                hits.append((row // half, column // half) == (place // 2, place % 2))
        print(f"{name:<12}{np.mean(hits):11.2f}{np.mean(shares):10.3f}", flush=True)


def mosaic(paths: list[Path], px: int) -> np.ndarray:
    small = Preprocessing(px // 2, 1.0, "bilinear", (0.5,) * 3, (0.5,) * 3)
    a, b, c, d = (prepare(decode(path), small) for path in paths)
    return np.concatenate([np.concatenate([a, b], axis=1), np.concatenate([c, d], axis=1)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--root", type=Path, help="the photos' folder, where they have moved")
    parser.add_argument("--photos", type=int, default=10)
    parser.add_argument("--mosaics", type=int, default=6)
    parser.add_argument("--methods", nargs="*", help="default: all that fit the network")
    arguments = parser.parse_args()
    network = Network(load_bundle(arguments.run))
    names = [label.name for label in network.bundle.labels]
    rng = np.random.default_rng(0)
    with open(arguments.run / "split.csv", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    root = Path() if arguments.root is None else arguments.root
    photos = [(root / row["path"], names.index(row["label"])) for row in (rows[i] for i in rng.permutation(len(rows)))]
    sure = [one for one in photos[:100] if network.probs(load(one[0], network.bundle.preprocessing)[None], one[1])[0] > 0.6]
    print(f"{machine()}\n{arguments.run.name}: {network.bundle.provenance['backbone']['name']}, {network.px} px")
    chosen = {name: method for name, method in methods(network).items() if arguments.methods is None or name in arguments.methods}
    faithfulness(network, chosen, sure[: arguments.photos])
    by_class = [[path for path, index in sure if index == label] for label in range(len(names))]
    mosaics = []
    for i in range(arguments.mosaics):
        labels = rng.choice([label for label, paths in enumerate(by_class) if paths], 4, replace=False).tolist()
        mosaics.append((mosaic([by_class[label][i % len(by_class[label])] for label in labels], network.px), labels))
    pointing(network, chosen, mosaics)


if __name__ == "__main__":
    main()
