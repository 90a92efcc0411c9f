"""What a network with ImageNet weights answers for fixed views of the training photos: computed once, learned from in every epoch.

A student that sees the very crop its teacher saw learns more than one that is told about the whole photo; so the crops are drawn here,
once, and stored with the answers. Source: Beyer et al. 2022, "Knowledge distillation: A good teacher is patient and consistent".
"""

import dataclasses
import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import timm
import torch
from safetensors import safe_open
from timm.layers import resample_abs_pos_embed

from headstart.features.runtime import import_openvino
from pretrain.augment import crops, draw_boxes
from pretrain.files import replaced
from pretrain.photos import Photos

TEACHER = "vit_tiny_patch16_224"
PX = 160
"""Side at which the teacher reads a view: 160 px keeps 56 of its 60 points on held-out photos at 224 px, at twice the speed."""
MEAN = STD = 0.5
BATCH = 32


@dataclasses.dataclass(frozen=True)
class Lessons:
    """Views of the training photos and the teacher's answers to them.

    Fields: boxes: float32 [views, n, 4], centre x, y and half width, height of each crop, in -1..1 of the photo.
    features: float16 [views, n, d], memory-mapped: what the teacher's classifier reads. Rows follow `Photos.train`.
    weight, bias: that classifier, [classes, d] and [classes].
    """

    boxes: npt.NDArray[np.float32]
    features: npt.NDArray[np.float16]
    weight: torch.Tensor
    bias: torch.Tensor


def teach(photos: Photos, weights: Path, work: Path, *, views: int, smallest_crop: float, seed: int = 0) -> Lessons:
    """The teacher's answers for `views` crops of every training photo; what an earlier call computed under `work` is kept.

    A killed call loses at most the view it was at. Files: `lesson-<key>-<view>.npy`, keyed by everything that changes them.

    Args: weights: safetensors of `TEACHER` with its preprocessing in the header. smallest_crop: least part of the area, 0..1.
        seed: of the crops; not the training's, so that another training learns from the same answers.
    Raises: FileNotFoundError: no weights at hand.
    """
    if not weights.exists():
        raise FileNotFoundError(f"expected the teacher's weights ({TEACHER}) at {weights}; give --teacher FILE")
    network = _network(weights)
    n = len(photos.train)
    boxes = torch.stack([draw_boxes(n, smallest_crop, torch.Generator().manual_seed(seed * 1_000 + view)) for view in range(views)])
    facts = [TEACHER, PX, hashlib.sha256(weights.read_bytes()).hexdigest(), smallest_crop, seed, n]
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]
    answers = []
    for view in range(views):
        file = work / f"lesson-{key}-{view}.npy"
        if not file.exists():
            found = _answers(network, photos, boxes[view], f"teacher, view {view + 1} of {views}")
            with replaced(file) as temporary, temporary.open("wb") as out:
                np.save(out, found)
        answers.append(np.load(file))
    classifier = network.get_classifier()  # type: ignore[operator]
    return Lessons(boxes.numpy(), np.stack(answers), classifier.weight.detach().clone(), classifier.bias.detach().clone())


class _Features(torch.nn.Module):
    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x_nchw: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.network.forward_head(self.network.forward_features(x_nchw), pre_logits=True)  # type: ignore[operator]
        return features


def _network(weights: Path) -> torch.nn.Module:
    network: torch.nn.Module = timm.create_model(TEACHER, pretrained=False, img_size=PX).eval()
    with safe_open(weights, "pt") as file:
        state = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    side = PX // 16
    state["pos_embed"] = resample_abs_pos_embed(state["pos_embed"], [side, side], num_prefix_tokens=1)
    network.load_state_dict(state)
    return network


def _answers(network: torch.nn.Module, photos: Photos, boxes: torch.Tensor, what: str) -> npt.NDArray[np.float16]:
    n, started, told = len(photos.train), time.monotonic(), time.monotonic()
    openvino = import_openvino()
    several = {"x_nchw": {0: torch.export.Dim("n", max=4 * BATCH)}}
    graph = openvino.convert_model(torch.export.export(_Features(network), (torch.zeros(BATCH, 3, PX, PX),), dynamic_shapes=several))
    queue = openvino.AsyncInferQueue(openvino.Core().compile_model(graph, "CPU", {"PERFORMANCE_HINT": "THROUGHPUT"}))
    found = np.empty((n, network.num_features), np.float16)

    def keep(request: Any, start: int) -> None:
        rows = request.get_output_tensor(0).data
        found[start : start + len(rows)] = rows

    queue.set_callback(keep)
    for start in range(0, n, BATCH):
        chosen = photos.train[start : start + BATCH]
        pixels = torch.from_numpy(photos.pixels[chosen])
        x_nchw = crops(pixels, boxes[start : start + BATCH], PX, mode="bicubic")
        queue.start_async({0: x_nchw.div_(255).clamp_(0, 1).sub_(MEAN).div_(STD).numpy()}, start)
        if time.monotonic() - told > 30:
            told = time.monotonic()
            rate = start / (told - started)
            sys.stderr.write(f"{what}: {start} of {n}, {rate:.0f}/s, {(n - start) / rate / 60:.1f} min left\n")
            sys.stderr.flush()
    queue.wait_all()
    return found
