"""The stages of a traced network: which of its layers belong together, what they are called, and stopping after one of them."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from torch import fx, nn

from headstart.backbone.graph import Traced, drop_unused, is_norm
from headstart.errors import ConfigError, did_you_mean

# Containers whose children are the stages: EfficientNet's and ViT's blocks, ConvNeXt's stages, Swin's layers, DenseNet's features.
_OPENED = ("blocks", "stages", "layers", "levels", "features")

# The names timm gives to what turns a map or tokens into one vector.
_POOLING = ("global_pool", "attn_pool")


@dataclass(frozen=True, eq=False)
class Stage:
    """Layers that belong together. `end` is their output: everything after it needs nothing else."""

    name: str
    end: fx.Node


@dataclass(frozen=True, eq=False)
class Layout:
    """A traced network with its stages, in forward order; the last is `head`, which ends with the pooled features."""

    traced: Traced
    stages: tuple[Stage, ...]

    @property
    def names(self) -> list[str]:
        return [stage.name for stage in self.stages]

    def end(self, name: str) -> fx.Node:
        """Where stage `name` ends. Raises: ConfigError: there is no such stage."""
        for stage in self.stages:
            if stage.name == name:
                return stage.end
        raise unknown_stage(name, self.names, "stage")


def unknown_stage(name: str, names: Sequence[str], kind: str) -> ConfigError:
    """The error for a stage's or cut's name that the network does not have."""
    near = did_you_mean(name, names)
    listed = f"{kind}s of this network: {', '.join(names)}"
    return ConfigError(f"this network has no {kind} '{name}'", hint=listed if near is None else f"{near} ({listed})")


def lay_out(traced: Traced, classifier: str | None) -> Layout:
    """Find the stages.

    A stage is a top-level module with weights (a child, for containers like `blocks`) whose output is all that later layers
    need. Modules without weights and batch norms join the module before them; a module that ends where other values are
    still needed joins the next. Pooling, and a final norm before it, belong to `head`.

    Args: classifier: name of the layer that turns features into logits, where the network has one.
    Raises: ConfigError: the classifier's input is not the only thing that the classifier needs.
    """
    waists = traced.waists()
    features = _features(traced, classifier)
    if features not in waists:
        raise ConfigError("this network's classifier needs more than one tensor, so nothing can be cut off before it")
    data = traced.data()[1:]
    before_head = list(itertools.takewhile(lambda node: node is not features and not _in_head(node, classifier), data))
    groups = _groups(traced.root, before_head)
    names = [name for name, _ in groups]
    stages = [Stage(name, end) for i, (name, end) in enumerate(groups) if end in waists and name not in names[i + 1 :]]
    return Layout(traced, (*stages, Stage("head", features)))


def stop(layout: Layout, name: str) -> Layout:
    """The network without the stages after `name`: it ends with that stage's pooled output and has no classifier.

    A map is averaged. Tokens of a network whose width never changes go through its own final norm and pooling.
    The graph of `layout` is changed.

    Raises: ConfigError: there is no such stage.
    """
    traced, end = layout.traced, layout.end(name)
    graph, features = traced.graph, layout.stages[-1].end
    position = layout.names.index(name)
    kept = layout.stages[: position + 1]
    if name != "head" and len(kept) < len(layout.stages) - 1:
        last = layout.stages[-2].end
        if len(end.meta["shape"]) == 3 and end.meta["shape"] == last.meta["shape"]:
            for user in list(last.users):
                user.replace_input_with(last, end)
        else:
            features = _mean(graph, end, channels_last=getattr(traced.root, "output_fmt", None) == "NHWC")
    graph.output_node().args = (features,)
    drop_unused(graph)
    return Layout(traced, (*(stage for stage in kept if stage.name != "head"), Stage("head", features)))


def _features(traced: Traced, classifier: str | None) -> fx.Node:
    """The classifier's input; what the network returns, where it has no classifier."""
    if classifier is not None:
        data = set(traced.data())
        for node in traced.graph.nodes:
            if node.op == "call_module" and _is_within(str(node.target), classifier):
                given: fx.Node = next(given for given in node.all_input_nodes if given in data)
                return given
    return traced.output


def _in_head(node: fx.Node, classifier: str | None) -> bool:
    path = _path(node).split(".")
    return any(part in _POOLING for part in path) or (classifier is not None and path[0] == classifier.split(".")[0])


def _groups(root: nn.Module, nodes: Sequence[fx.Node]) -> list[tuple[str, fx.Node]]:
    """Name and last node of each module that has weights, with what joins it."""
    runs = [(unit, list(some)[-1]) for unit, some in itertools.groupby(nodes, key=lambda node: _unit(root, node))]
    kinds = [_kind(root, unit) for unit, _ in runs]
    # Behind the last module with weights, only what joins it at once counts: a final norm and code that pools are the head's.
    last = max((i for i, kind in enumerate(kinds) if kind == "weights"), default=-1)
    last += sum(1 for _ in itertools.takewhile(lambda kind: kind == "plain", kinds[last + 1 :]))
    groups: list[tuple[str, fx.Node]] = []
    for (unit, end), kind in zip(runs[: last + 1], kinds, strict=False):
        if kind == "weights":
            groups.append((unit, end))
        elif groups:
            groups[-1] = (groups[-1][0], end)
    return groups


def _unit(root: nn.Module, node: fx.Node) -> str:
    """The module a node is counted under: top level, or one below for containers of stages; "" for the network's own code."""
    first, *rest = _path(node).split(".")
    is_container = first in _OPENED and isinstance(getattr(root, first), nn.Sequential | nn.ModuleList)
    return f"{first}.{rest[0]}" if is_container and rest else first


def _kind(root: nn.Module, unit: str) -> str:
    """`weights`, `norm` (nothing but norms that look at one photo), `plain` (joins what is before it) or `code`."""
    if unit == "":
        return "code"
    owners = [module for module in root.get_submodule(unit).modules() if next(module.parameters(recurse=False), None) is not None]
    if all(isinstance(module, nn.modules.batchnorm._NormBase) for module in owners):
        return "plain"
    return "norm" if all(is_norm(module) for module in owners) else "weights"


def _path(node: fx.Node) -> str:
    """Dotted name of the module whose code made this node."""
    if node.op == "call_module":
        return str(node.target)
    stack = list(node.meta.get("nn_module_stack", {}).values())
    return str(stack[-1][0]) if stack else ""


def _is_within(name: str, module: str) -> bool:
    return name == module or name.startswith(f"{module}.")


def _mean(graph: fx.Graph, node: fx.Node, *, channels_last: bool) -> fx.Node:
    shape = node.meta["shape"]
    spatial = tuple(range(1, len(shape) - 1)) if channels_last or len(shape) == 3 else tuple(range(2, len(shape)))
    with graph.inserting_after(node):
        mean = graph.call_method("mean", (node, spatial))
    mean.meta["shape"] = (shape[0], shape[-1] if channels_last or len(shape) == 3 else shape[1])
    return mean
