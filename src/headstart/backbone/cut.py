"""Cutting a network in two: the trunk before the cut, frozen; the tail after it, trained.

`tail(trunk(x))` is `network(x)` at every cut.
"""

import copy
import math
from typing import Any

import torch
from torch import fx, nn

from headstart.backbone.graph import is_norm
from headstart.backbone.networks import Network
from headstart.backbone.stages import unknown_stage
from headstart.data.pixels import Preprocessing
from headstart.errors import ConfigError

INPUT, HEAD = "input", "head"


def stages(network: Network) -> list[str]:
    """Names of the network's stages, in forward order; the last is `head`, which ends with the pooled features."""
    return network.layout.names


def cut_names(network: Network) -> list[str]:
    """Where the network can be cut: `input`, before everything, and after each stage."""
    return [INPUT, *stages(network)]


def split(network: Network, cut: str, *, batch_statistics: bool = False) -> tuple["Trunk", "Tail"]:
    """Cut `network` after the stage `cut` (at `input`: before everything; at `head`: before the classifier).

    Both parts are copies: training the tail changes neither the trunk nor the network.

    Args: batch_statistics: whether batch norms in the tail use and update batch statistics in training, instead of keeping the
        published ones.
    Raises: ConfigError: no such cut, with the nearest name; or batch statistics where batch norm was folded into convolutions.
    """
    if cut not in cut_names(network):
        raise unknown_stage(cut, cut_names(network), "cut")
    if batch_statistics and network.bn_folded:
        raise ConfigError(
            f"batch statistics were asked for, but the batch norms of {network.name} are folded into its convolutions",
            hint="keep the published statistics",
        )
    return Trunk(network, cut), _tail(network, cut, batch_statistics)


class Normalise(nn.Module):
    """Pixels as the network wants them: uint8 [n, h, w, 3] (RGB) to float [n, 3, h, w], (x / 255 - mean) / std, channels last in memory."""

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        mean, std = (torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
        self.register_buffer("scale", (1 / (255 * std)).float(), persistent=False)
        self.register_buffer("shift", (-mean / std).float(), persistent=False)

    def forward(self, x_nhwc: torch.Tensor) -> torch.Tensor:
        return x_nhwc.permute(0, 3, 1, 2).float() * self.scale + self.shift


class Trunk(nn.Module):
    """The frozen part: uint8 [n, px, px, 3] to the cut's tensor, float [n, *out_shape]. No train mode, no gradients.

    At cut `input` it returns what it is given.
    """

    def __init__(self, network: Network, cut: str) -> None:
        super().__init__()
        self.network = network
        self.cut = cut
        px = network.preprocessing.input_px
        self.out_shape: tuple[int, ...] = (px, px, 3)
        self.normalise: nn.Module = nn.Identity()
        self.body: nn.Module = nn.Identity()
        if cut != INPUT:
            end = network.layout.end(cut)
            self.out_shape = tuple(end.meta["shape"][1:])
            self.normalise = Normalise(network.preprocessing)
            self.body = network.layout.traced.part(network.layout.traced.image, end)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "Trunk":
        """Stays in eval mode: a trunk has no other."""
        return super().train(False)

    def forward(self, x_nhwc: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            rows: torch.Tensor = self.body(self.normalise(x_nhwc))
        return rows


class Tail(nn.Module):
    """The trained part: the cut's tensor [n, ...] to pooled features [n, d] to logits [n, k].

    Parameters keep the network's own names at every cut (`body.layer4.0.conv1.weight`), so a state dict fits a tail cut elsewhere
    as far as the two overlap. At cut `input` it takes uint8 [n, px, px, 3].

    Attributes:
        classifier: features [n, d] to logits [n, k]; the identity where the network has none.
        d_features: d.
        batch_statistics: whether batch norms use the batch's statistics in train mode; else they keep the published ones.
    """

    def __init__(
        self, body: nn.Module, classifier: nn.Module, *, normalise: nn.Module, d_features: int, batch_statistics: bool = False
    ) -> None:
        super().__init__()
        self.normalise = normalise
        self.body = body
        self.classifier = classifier
        self.d_features = d_features
        self.batch_statistics = batch_statistics
        self.requires_grad_(True).eval()

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Pooled features, float [n, d]."""
        pooled: torch.Tensor = self.body(self.normalise(x).float())
        return pooled.flatten(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.classifier(self.features(x))
        return logits

    def train(self, mode: bool = True) -> "Tail":
        """Switch dropout and the like; batch norms only where `batch_statistics` says so."""
        super().train(mode)
        if not self.batch_statistics:
            for module in self.body.modules():
                if is_norm(module):
                    module.eval()
        return self

    def with_head(self, head: int | nn.Module) -> "Tail":
        """A copy with another classifier: a module from [n, d] to [n, k], or a new linear layer for that many classes."""
        if isinstance(head, int):
            if head < 1:
                raise ConfigError(f"expected at least one class for a new classifier, found {head}")
            head = _new_linear(self.d_features, head)
        return Tail(
            copy.deepcopy(self.body),
            copy.deepcopy(head),
            normalise=copy.deepcopy(self.normalise),
            d_features=self.d_features,
            batch_statistics=self.batch_statistics,
        )


def _tail(network: Network, cut: str, batch_statistics: bool) -> Tail:
    layout = network.layout
    start = layout.traced.image if cut == INPUT else layout.end(cut)
    features, output = layout.end(HEAD), layout.traced.output
    body = layout.traced.part(start, features)
    _keep_input(body)
    shape = tuple(features.meta["shape"][1:])
    classifier = nn.Identity() if features is output else _classifier(layout.traced.part(features, output), shape)
    normalise = Normalise(network.preprocessing) if cut == INPUT else nn.Identity()
    return Tail(body, classifier, normalise=normalise, d_features=math.prod(shape), batch_statistics=batch_statistics)


def _classifier(module: fx.GraphModule, shape: tuple[int, ...]) -> nn.Module:
    """The network's own classifier, from flat features: its linear layer as it is, whatever else it may be as a graph."""
    calls = [node for node in module.graph.nodes if node.op not in ("placeholder", "output")]
    if len(calls) == 1 and calls[0].op == "call_module" and len(shape) == 1:
        return module.get_submodule(str(calls[0].target))
    return nn.Sequential(nn.Unflatten(1, shape), module) if len(shape) > 1 else module


def _new_linear(d_features: int, n_classes: int) -> nn.Linear:
    """Small weights, so that the first steps do not tear the features apart. Source: Big Transfer starts its heads at zero."""
    linear = nn.Linear(d_features, n_classes)
    nn.init.normal_(linear.weight, std=0.01)
    nn.init.zeros_(linear.bias)
    return linear


def _keep_input(body: fx.GraphModule) -> None:
    """Keep in-place activations from overwriting the rows that the tail is given.

    What may still be the rows' own memory (layers without weights and views return it) must not be changed.
    """
    modules: dict[str, Any] = dict(body.named_modules())
    same_memory: set[fx.Node] = set()
    for node in body.graph.nodes:
        module = modules[str(node.target)] if node.op == "call_module" else None
        if node.op == "placeholder":
            same_memory.add(node)
        elif any(given in same_memory for given in node.all_input_nodes) and (module is None or next(module.parameters(), None) is None):
            same_memory.add(node)
            if module is not None and getattr(module, "inplace", False):
                module.inplace = False
            if node.kwargs.get("inplace", False):
                node.kwargs = {**node.kwargs, "inplace": False}
    body.recompile()
