"""What the exported file is worth: a linear head on its frozen features, on photos that had no part in its training or its choices.

    python -m pretrain.probe --weights src/headstart/backbone/embedded/embedded.safetensors

Run it on a finished file only: nothing may be chosen by what it prints. `--tiny-imagenet` reads the held-out Tiny ImageNet photos
at several sizes instead; that is what the input size was chosen by.
"""

import argparse
import io
import json
import math
import os
import sys
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import timm
import torch
from PIL import Image
from safetensors import safe_open
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from pretrain.augment import normalised
from pretrain.photos import read_photos
from pretrain.train import held_out

CIFAR_TRAIN, CIFAR_TEST = 5_000, 2_000
PROBE_PX = (64, 80, 96, 112, 128, 160)

Features = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


def read_network(weights: Path) -> tuple[torch.nn.Module, dict[str, object]]:
    """The exported network, upcast, and the facts in the file's header."""
    with safe_open(weights, "pt") as file:
        facts = json.loads(file.metadata()["headstart"])
        state = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    network: torch.nn.Module = timm.create_model(facts["timm_architecture"], pretrained=False, **facts["model_args"])
    missing, unexpected = network.load_state_dict(state, strict=False)
    if unexpected or any(not name.endswith("num_batches_tracked") for name in missing):
        raise ValueError(f"{weights}: expected the parameters of {facts['timm_architecture']}, missing {missing}, unexpected {unexpected}")
    return network.eval().to(memory_format=torch.channels_last), facts


@torch.inference_mode()
def features(network: torch.nn.Module, images: Sequence[Image.Image], px: int) -> Features:
    """Pooled features of centre crops: float32 [n, d]. The shorter side is resized to `px`, the middle square is read.

    Args: network: without its classifier.
    """
    rows = []
    for start in range(0, len(images), 64):
        crops = np.stack([_centre(image, px) for image in images[start : start + 64]])
        rows.append(network(normalised(torch.from_numpy(crops))).numpy())
    return np.concatenate(rows)


def wilson(right: int, n: int) -> tuple[float, float]:
    """95 % interval of a share. Source: Wilson 1927."""
    z = 1.959964
    share = right / n
    middle, half = share + z * z / (2 * n), z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


def in_folds(x: Features, y: Labels) -> tuple[int, int]:
    """(right, n) of a linear head over five folds: every photo is predicted once, by a head that never saw it."""
    right = 0
    for train, test in StratifiedKFold(5, shuffle=True, random_state=0).split(x, y):
        right += int((_head().fit(x[train], y[train]).predict(x[test]) == y[test]).sum())
    return right, len(y)


def read_flowers(folder: Path) -> tuple[list[Image.Image], Labels]:
    files = sorted(folder.glob("*/*.jpg"))
    classes = sorted({file.parent.name for file in files})
    return [Image.open(file).convert("RGB") for file in files], np.array([classes.index(file.parent.name) for file in files])


def read_digits() -> tuple[list[Image.Image], Labels]:
    digits = load_digits()
    grey = (digits.images * (255 / 16)).round().astype(np.uint8)
    return [Image.fromarray(image).convert("RGB") for image in grey], digits.target.astype(np.int64)


def read_cifar(archive: Path) -> tuple[list[Image.Image], Labels]:
    """5,000 of the training photos, then 2,000 of the test photos, drawn with seed 0 and balanced over the classes."""
    with tarfile.open(archive) as tar:
        photos = {member.name: file.read() for member in tar if member.isfile() and (file := tar.extractfile(member)) is not None}
    chosen, labels = [], []
    for split, n in (("train", CIFAR_TRAIN), ("test", CIFAR_TEST)):
        names = sorted(name for name in photos if name.split("/")[1] == split)
        classes = sorted({name.split("/")[2] for name in names})
        for label, wanted in enumerate(classes):
            own = [name for name in names if name.split("/")[2] == wanted]
            drawn = np.random.default_rng(label).permutation(len(own))[: n // len(classes)]
            chosen += [own[i] for i in drawn]
            labels += [label] * len(drawn)
    return [Image.open(io.BytesIO(photos[name])).convert("RGB") for name in chosen], np.array(labels)


def main() -> None:
    root = Path(__file__).resolve().parents[1]
    data = Path(os.environ.get("HEADSTART_SHARED", root.parent / "shared")) / "data"
    parser = argparse.ArgumentParser(
        prog="python -m pretrain.probe", description="Linear heads on the frozen features of the exported file."
    )
    parser.add_argument("--weights", type=Path, default=root / "src/headstart/backbone/embedded/embedded.safetensors")
    parser.add_argument("--tiny-imagenet", action="store_true", help="held-out photos of the training set, read at several sizes")
    parser.add_argument("--work", type=Path, default=root / "pretrain" / "work", help="where the cached photos lie (--tiny-imagenet)")
    given = parser.parse_args()
    torch.set_num_threads(1)
    network, facts = read_network(given.weights)
    if given.tiny_imagenet:
        photos = read_photos(data / "tiny-imagenet-200", given.work)
        for px in PROBE_PX:
            started = time.monotonic()
            loss, accuracy = held_out(network, photos, px)
            _show(f"tiny-imagenet held out, {px} px, log loss {loss:.3f}", round(accuracy * len(photos.val)), len(photos.val), started)
        return
    px = int(str(facts["input_px"]))
    network.reset_classifier(0)  # type: ignore[operator]
    for name, (images, y) in (("flowers, five folds", read_flowers(data / "flowers")), ("digits, five folds", read_digits())):
        started = time.monotonic()
        _show(f"{name}, {px} px", *in_folds(features(network, images, px), y), started)
    started = time.monotonic()
    images, y = read_cifar(data / "cifar10.tar.xz")
    x = features(network, images, px)
    guessed = _head().fit(x[:CIFAR_TRAIN], y[:CIFAR_TRAIN]).predict(x[CIFAR_TRAIN:])
    _show(f"CIFAR-10, {CIFAR_TRAIN} training photos, {px} px", int((guessed == y[CIFAR_TRAIN:]).sum()), len(guessed), started)


def _centre(image: Image.Image, px: int) -> npt.NDArray[np.uint8]:
    scale = px / min(image.size)
    w, h = (max(px, round(side * scale)) for side in image.size)
    left, top = (w - px) // 2, (h - px) // 2
    return np.asarray(image.resize((w, h), Image.Resampling.BILINEAR).crop((left, top, left + px, top + px)))


def _head() -> Pipeline:
    """Standardised, L2-penalised, the strength chosen by folds inside the training photos."""
    return make_pipeline(
        StandardScaler(),
        LogisticRegressionCV(
            Cs=(0.001, 0.01, 0.1), cv=3, max_iter=2000, scoring="neg_log_loss", l1_ratios=(0.0,), use_legacy_attributes=False
        ),
    )


def _show(what: str, right: int, n: int, started: float) -> None:
    low, high = wilson(right, n)
    sys.stdout.write(f"{what}: {right / n:.3f} ({low:.3f} to {high:.3f}), n {n}, {time.monotonic() - started:.0f} s\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
