"""Cutting a network in two: the trunk before the cut, frozen; the tail after it, trained.

`tail(trunk(x))` is `network(x)` at every cut.
"""

import copy
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from headstart.backbone.attention import write_out
from headstart.backbone.graph import is_norm
from headstart.backbone.layers import layers, parameters_by_node
from headstart.backbone.networks import Network
from headstart.backbone.stages import unknown_stage
from headstart.data.pixels import Preprocessing
from headstart.errors import ConfigError

INPUT, HEAD = "input", "head"

_TOP = re.compile(r"top (\d+)( stages?| layers?)?")


@dataclass(frozen=True)
class Cut:
    """A place to cut a network.

    Attributes:
        name: `input`, or the stage it lies after.
        frozen: parameters of the tail, by their names there, that stay as published all the same.
    """

    name: str
    frozen: frozenset[str] = frozenset()


def stages(network: Network) -> list[str]:
    """Names of the network's stages, in forward order; the last is `head`, which ends with the pooled features."""
    return network.layout.names


def cut_names(network: Network) -> list[str]:
    """Where the network can be cut: `input`, before everything, and after each stage."""
    return [INPUT, *stages(network)]


def resolve(network: Network, text: str) -> Cut:
    """The cut that `text` means: a cut's name, `top 2` (the last two stages are the tail) or `top 20 layers`.

    Layers are those of `headstart.backbone.layers`. The cut lies as late as it can with all of them that have weights in the tail;
    what else is in the tail is frozen. The classifier counts for none and always trains.

    Raises: ConfigError: no such cut, more stages or layers than there are, or none with weights; the hint says what is possible.
    """
    names = cut_names(network)
    if text in names:
        return Cut(text)
    asked = _TOP.fullmatch(" ".join(text.split()))
    if asked is None:
        raise unknown_stage(text, [*names, "top N", "top N layers"], "cut")
    number = int(asked[1])
    if (asked[2] or "").startswith(" layer"):
        return _top_layers(network, number)
    n_stages = len(names) - 2
    if not 1 <= number <= n_stages:
        raise _out_of_range(network, number, n_stages, "stages")
    return Cut(names[-2 - number])


def split(network: Network, cut: str, *, batch_statistics: bool = False) -> tuple["Trunk", "Tail"]:
    """Cut `network` after the stage `cut` (at `input`: before everything; at `head`: before the classifier), or as `resolve` reads it.

    Both parts are copies: training the tail changes neither the trunk nor the network.

    Args: batch_statistics: whether batch norms in the tail use and update batch statistics in training, instead of keeping the
        published ones.
    Raises: ConfigError: no such cut, with the nearest name; or batch statistics where batch norm was folded into convolutions.
    """
    place = resolve(network, cut)
    if batch_statistics and network.bn_folded:
        raise ConfigError(
            f"batch statistics were asked for, but the batch norms of {network.name} are folded into its convolutions",
            hint="keep the published statistics",
        )
    return Trunk(network, place.name), _tail(network, place, batch_statistics)


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
        stage_of: parameter of the body to the stage it belongs to.
        stages: the stages that the tail has parameters of, in forward order; the last is `head`, to which the classifier belongs.
        frozen: parameters that do not train.
        batch_statistics: whether batch norms use the batch's statistics in train mode; else, and where their own parameters are
            frozen, they keep the published ones.
    """

    def __init__(
        self,
        body: nn.Module,
        classifier: nn.Module,
        *,
        normalise: nn.Module,
        d_features: int,
        stage_of: Mapping[str, str],
        frozen: frozenset[str] = frozenset(),
        batch_statistics: bool = False,
    ) -> None:
        super().__init__()
        self.normalise = normalise
        self.body = body
        self.classifier = classifier
        self.d_features = d_features
        self.batch_statistics = batch_statistics
        self.stage_of = dict(stage_of)
        self.stages = tuple(dict.fromkeys([*(stage for stage in stage_of.values() if stage != HEAD), HEAD]))
        self.frozen = frozen
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name not in frozen)
        self.eval()

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
        for module in self.body.modules():
            if is_norm(module) and not (self.batch_statistics and _trains(module)):
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
            stage_of=self.stage_of,
            frozen=self.frozen,
            batch_statistics=self.batch_statistics,
        )


def _top_layers(network: Network, number: int) -> Cut:
    layout = network.layout
    counted = layers(layout)
    if not 1 <= number <= len(counted):
        raise _out_of_range(network, number, len(counted), "layers")
    top = counted[-number:]
    trained = frozenset().union(*(layer.parameters for layer in top))
    if not trained:
        least = next(n for n, layer in enumerate(reversed(counted), 1) if layer.parameters)
        raise ConfigError(
            f"the last {number} layers of {network.name} have no weights, so nothing would train",
            hint=f"`top {least} layers` is the least that trains; `head` trains the classifier alone",
        )
    order = {node: position for position, node in enumerate(layout.traced.data())}
    first = min(layer.position for layer in top if layer.parameters)  # a stage that only an activation is asked of has nothing to train
    before = [stage.name for stage in layout.stages if order[stage.end] < first]
    name = before[-1] if before else INPUT
    start = order[layout.end(name)] if before else -1
    tail = frozenset().union(*(layer.parameters for layer in counted if layer.position > start))
    return Cut(name, frozenset(f"body.{parameter}" for parameter in tail - trained))


def _out_of_range(network: Network, number: int, most: int, kind: str) -> ConfigError:
    return ConfigError(
        f"asked for the top {number} {kind}, but {network.name} has {most} without the classifier",
        hint=f"give a number from 1 to {most}; `head` trains the classifier alone, `input` everything",
    )


def _tail(network: Network, cut: Cut, batch_statistics: bool) -> Tail:
    layout = network.layout
    start = layout.traced.image if cut.name == INPUT else layout.end(cut.name)
    features, output = layout.end(HEAD), layout.traced.output
    body = layout.traced.part(start, features)
    _keep_input(body)
    write_out(body)
    shape = tuple(features.meta["shape"][1:])
    classifier = nn.Identity() if features is output else _classifier(layout.traced.part(features, output), shape)
    return Tail(
        body,
        classifier,
        normalise=Normalise(network.preprocessing) if cut.name == INPUT else nn.Identity(),
        d_features=math.prod(shape),
        stage_of=_stage_of(network, cut.name),
        frozen=cut.frozen,
        batch_statistics=batch_statistics,
    )


def _stage_of(network: Network, cut: str) -> dict[str, str]:
    """Each parameter of the body behind `cut`, and the stage it belongs to, in forward order."""
    found: dict[str, str] = {}
    owned, place = parameters_by_node(network.layout), iter(network.layout.stages)
    stage, behind = next(place), cut == INPUT
    for node, names in owned.items():
        if behind:
            found |= {f"body.{name}": stage.name for name in sorted(names) if f"body.{name}" not in found}
        if node is stage.end:
            if stage.name == HEAD:
                break
            behind = behind or stage.name == cut
            stage = next(place)
    return found


def _trains(module: nn.Module) -> bool:
    """Whether a parameter of it trains; a module without any does as the rest does."""
    flags = [parameter.requires_grad for parameter in module.parameters()]
    return any(flags) or not flags


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
