"""What a network with ImageNet weights answers for fixed views of the photos: computed once, learned from in every epoch.

A student that sees the very view its teacher saw learns more than one that is told about the whole photo; so the views are drawn here,
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
from pretrain.files import replaced
from pretrain.sources import Source
from pretrain.views import PATCH_SIDES, PATCHED, Views, draw_views, show

TEACHER = "vit_tiny_patch16_224"
PX = 160
"""Side at which the teacher reads a view: 160 px keeps 56 of its 60 points on held-out photos at 224 px, at twice the speed."""
MEAN = STD = 0.5
BATCH = 32


@dataclasses.dataclass(frozen=True)
class Lessons:
    """Views of a source's photos and the teacher's answers to them: `n_views` of each row, all first ones before all second ones.

    Fields: views: of n_views * n rows. features: float16 [n_views * n, 2 d]: what the teacher's
    classifier reads, and the mean of its patches.
    """

    source: Source
    views: Views
    features: npt.NDArray[np.float16]

    @property
    def n_views(self) -> int:
        return len(self.views) // len(self.source)


@dataclasses.dataclass(frozen=True)
class Classifier:
    """The teacher's own: weight [classes, d], bias [classes]."""

    weight: torch.Tensor
    bias: torch.Tensor


def teach(source: Source, name: str, weights: Path, work: Path, *, n_views: int, seed: int = 0) -> Lessons:
    """The teacher's answers for `n_views` views of every row; what an earlier call computed under `work` is kept.

    A killed call loses at most the view it was at. Files: `lesson-<name>-<key>-<view>.npy`, keyed by photos, teacher and what
    views are drawn by.

    Args: weights: safetensors of `TEACHER` with its preprocessing in the header. seed: of the views; not the training's, so that another
        training learns from the same answers.
    Raises: FileNotFoundError: no weights at hand.
    """
    network = read_teacher(weights)
    shown = hashlib.sha256(np.ascontiguousarray(source.photos))
    shown.update(np.ascontiguousarray(source.pixels))
    facts = [TEACHER, PX, hashlib.sha256(weights.read_bytes()).hexdigest(), source.smallest, seed, shown.hexdigest(), PATCHED, PATCH_SIDES]
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]
    views, answers = [], []
    for view in range(n_views):
        views.append(draw_views(source.photos, source.smallest, seed * 1_000 + view))
        file = work / f"lesson-{name}-{key}-{view}.npy"
        if not file.exists():
            found = _answers(network, source, views[-1], f"teacher, {name} photos, view {view + 1} of {n_views}")
            with replaced(file) as temporary, temporary.open("wb") as out:
                np.save(out, found)
        answers.append(np.load(file))
    fields = (field.name for field in dataclasses.fields(Views))
    return Lessons(source, Views(*(np.concatenate([getattr(some, name) for some in views]) for name in fields)), np.concatenate(answers))


def read_teacher(weights: Path) -> torch.nn.Module:
    """The teacher for views of `PX`. Raises: FileNotFoundError: no weights at hand."""
    if not weights.exists():
        raise FileNotFoundError(f"expected the teacher's weights ({TEACHER}) at {weights}; give --teacher FILE")
    network: torch.nn.Module = timm.create_model(TEACHER, pretrained=False, img_size=PX).eval()
    with safe_open(weights, "pt") as file:
        state = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    side = PX // 16
    state["pos_embed"] = resample_abs_pos_embed(state["pos_embed"], [side, side], num_prefix_tokens=1)
    network.load_state_dict(state)
    return network


def classifier_of(network: torch.nn.Module) -> Classifier:
    classifier = network.get_classifier()  # type: ignore[operator]
    return Classifier(classifier.weight.detach().clone(), classifier.bias.detach().clone())


class _Features(torch.nn.Module):
    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x_nchw: torch.Tensor) -> torch.Tensor:
        tokens: torch.Tensor = self.network.forward_features(x_nchw)  # type: ignore[operator]
        return torch.cat([tokens[:, 0], tokens[:, 1:].mean(1)], 1)


def _answers(network: torch.nn.Module, source: Source, views: Views, what: str) -> npt.NDArray[np.float16]:
    n, started, told = len(source), time.monotonic(), time.monotonic()
    openvino = import_openvino()
    several = {"x_nchw": {0: torch.export.Dim("n", max=4 * BATCH)}}
    graph = openvino.convert_model(torch.export.export(_Features(network), (torch.zeros(BATCH, 3, PX, PX),), dynamic_shapes=several))
    queue = openvino.AsyncInferQueue(openvino.Core().compile_model(graph, "CPU", {"PERFORMANCE_HINT": "THROUGHPUT"}))
    found = np.empty((n, 2 * network.num_features), np.float16)  # type: ignore[operator]

    def keep(request: Any, start: int) -> None:
        rows = request.get_output_tensor(0).data
        found[start : start + len(rows)] = rows

    queue.set_callback(keep)
    for start in range(0, n, BATCH):
        x_nchw = show(source.pixels, views[start : start + BATCH], PX, mode="bilinear")
        queue.start_async({0: x_nchw.div_(255).sub_(MEAN).div_(STD).numpy()}, start)
        if time.monotonic() - told > 30:
            told = time.monotonic()
            rate = (start + BATCH) / (told - started)
            sys.stderr.write(f"{what}: {start} of {n}, {rate:.0f}/s, {(n - start) / rate / 60:.1f} min left\n")
            sys.stderr.flush()
    queue.wait_all()
    return found
