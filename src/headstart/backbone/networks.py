"""Pretrained networks, ready to be cut: built by timm, traced, perhaps stopped early, filled with weights, frozen."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import timm
import torch
from timm.models.inception_v3 import InceptionA, InceptionC, InceptionE
from torch import nn

from headstart.backbone import fit, imagenet
from headstart.backbone.catalog import KERAS_INCEPTION_V3, KERAS_RESNET50, Record, classifier_name, find
from headstart.backbone.graph import trace
from headstart.backbone.stages import Layout, lay_out
from headstart.backbone.stages import stop as stop_after
from headstart.backbone.weights import WeightsFile, load_state
from headstart.data.pixels import Preprocessing
from headstart.errors import ConfigError, WeightsError

log = logging.getLogger("headstart")

_KERAS_BN_EPS = 1.001e-5  # Source: keras/src/applications/resnet.py


@dataclass(frozen=True, eq=False)
class Network:
    """A pretrained network as published; nothing changes it.

    Attributes:
        module: float [n, 3, px, px], normalised by `preprocessing`, to logits [n, k], or to features [n, d] where it has no classifier.
        weights_sha256: of the weights file.
        n_classes: of its own classifier; 0: it has none (or is stopped before it).
        classes: names of these classes, where they are known.
        synsets: their WordNet ids, where they are ImageNet's.
        stop: last stage in use, where later ones were dropped.
        origin: where the weights came from: given, embedded, cache, download, none.
        layout: its stages.
    """

    name: str
    module: nn.Module = field(repr=False)
    preprocessing: Preprocessing
    weights_sha256: str
    licence: str
    bn_folded: bool
    n_classes: int
    classes: tuple[str, ...] | None = field(repr=False)
    synsets: tuple[str, ...] | None = field(repr=False)
    stop: str | None
    record: Record = field(repr=False)
    origin: str
    layout: Layout = field(repr=False)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Network":
        return self

    @property
    def hub_id(self) -> str | None:
        """Hugging Face repository that the weights are those of, as far as that is known: of a file that was given it is not."""
        return self.record.hub_id if self.origin in ("cache", "download") else None


def build(file: WeightsFile, *, stop: str | None = None, px: int | None = None) -> Network:
    """The network a weights file is for, with its weights.

    Args:
        stop: last stage to use; `docs/concepts/cuts.md` and `headstart backbones` list the names.
        px: side of the input in pixels; None: what the weights were trained with.

    Raises:
        ConfigError: unknown stage, or a size the network does not take.
        WeightsError: damaged, of another network, or incomplete.
    """
    state = load_state(file)
    n_classes = fit.n_classes_of(state, classifier_name(file.record.architecture))
    whole, network = _assemble(file.record, n_classes=n_classes, stop=stop, px=px, weights_sha256=file.sha256, origin=file.origin)
    classifier = classifier_name(file.record.architecture)
    fit.load(network.module, state, whole=whole, layout=network.layout, classifier=classifier, record=file.record, path=file.path)
    if file.record.record_source == "timm":
        log.info("%s says nothing about its preprocessing: using timm's record of %s", file.path.name, file.record.name)
    return network


def build_as_far(file: WeightsFile) -> Network:
    """The network, whole where its file is, else stopped where its file ends. Raises: as `build`."""
    try:
        return build(file)
    except WeightsError:
        if file.record.complete_through is None:
            raise
        return build(file, stop=file.record.complete_through)


def untrained(name: str, *, stop: str | None = None, px: int | None = None, n_classes: int | None = None, **model_args: Any) -> Network:
    """The network called `name` with random weights: to train from scratch, and for tests.

    Raises: ConfigError: unknown name or stage, or a size the network does not take.
    """
    record = find(name)
    n_classes = record.n_classes if n_classes is None else n_classes
    return _assemble(record, n_classes=n_classes, stop=stop, px=px, weights_sha256="", origin="none", **model_args)[1]


def _assemble(
    record: Record, *, n_classes: int, stop: str | None, px: int | None, weights_sha256: str, origin: str, **model_args: Any
) -> tuple[nn.Module, Network]:
    preprocessing = record.preprocessing if px is None else record.preprocessing.with_px(px)
    classifier = classifier_name(record.architecture)
    n_classes = 0 if classifier is None else n_classes
    whole = create(record, n_classes=n_classes, px=preprocessing.input_px, **model_args)
    layout = lay_out(trace(whole, preprocessing.input_px), classifier)
    module = whole
    if stop is not None:
        layout = stop_after(layout, stop)
        module = layout.traced.whole()
        n_classes = 0
    synsets, classes = _class_names(record, n_classes)
    network = Network(
        name=record.name,
        module=module.eval().requires_grad_(False),
        preprocessing=preprocessing,
        weights_sha256=weights_sha256,
        licence=record.licence,
        bn_folded=record.bn_folded,
        n_classes=n_classes,
        classes=classes,
        synsets=synsets,
        stop=stop,
        record=record,
        origin=origin,
        layout=layout,
    )
    return whole, network


def create(record: Record, *, n_classes: int, px: int, **model_args: Any) -> nn.Module:
    """The timm module of a record, with random weights, on the current default device.

    Raises: ConfigError: timm does not build it with these arguments or at this size.
    """
    arguments = {**record.model_args, **model_args, "num_classes": n_classes}
    if px != record.preprocessing.input_px and _has_fixed_size(record.architecture):
        arguments.setdefault("img_size", px)
    try:
        module: nn.Module = timm.create_model(record.architecture, pretrained=False, **arguments)
    except Exception as error:  # timm's constructors raise whatever the wrong argument leads to
        raise ConfigError(f"timm cannot build {record.architecture} at {px} px with {arguments}: {error}") from error
    if record.name == KERAS_RESNET50:
        _as_keras_resnet50(module)
    if record.name == KERAS_INCEPTION_V3:
        _as_keras_inception_v3(module)
    return module


def _as_keras_resnet50(resnet50: nn.Module) -> None:
    """Stride 2 sits on the first convolution of a block, not on the 3x3 ("v1"), and batch norm adds another epsilon."""
    for layer in ("layer2", "layer3", "layer4"):
        block = resnet50.get_submodule(f"{layer}.0")
        block.conv1.stride, block.conv2.stride = (2, 2), (1, 1)  # type: ignore[assignment]
    for module in resnet50.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = _KERAS_BN_EPS


def _as_keras_inception_v3(inception_v3: nn.Module) -> None:
    """Average pooling at a map's edge is over the positions that lie inside."""
    for block in inception_v3.children():
        if isinstance(block, InceptionA | InceptionC | InceptionE):
            block.__class__ = type(f"Keras{type(block).__name__}", (_PooledInside, type(block)), {})


class _PooledInside(nn.Module):
    """A block of timm's Inception-v3 with the `same` pooling of Keras, which does not count the padding."""

    _forward: Callable[[torch.Tensor], list[torch.Tensor]]
    branch_pool: nn.Module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        *branches, _ = self._forward(x)  # its own pooled branch, which a traced network drops
        pooled = nn.functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
        return torch.cat([*branches, self.branch_pool(pooled)], 1)


def _has_fixed_size(architecture: str) -> bool:
    known = timm.get_pretrained_cfg(architecture)
    return known is not None and bool(known.fixed_input_size)


def _class_names(record: Record, n_classes: int) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
    """Synset ids and names of the classes, where they are known."""
    if record.class_names is not None and len(record.class_names) == n_classes:
        return record.class_ids, record.class_names
    if n_classes not in (1000, 1001):
        return None, None
    synsets, names = zip(*imagenet.labels(n_classes), strict=True)
    return synsets, names
