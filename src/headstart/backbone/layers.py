"""A network's layers, counted as tutorials count them: `base_model.layers[-20:]` of Keras are the last 20 of these.

One layer each: a convolution or linear layer, a norm, an activation, a pooling, an addition, multiplication or concatenation
of maps, and whatever else has weights. Reshapes, dropout, the input and padding count as none.
"""

from dataclasses import dataclass

from torch import fx, nn

from headstart.backbone.graph import is_norm
from headstart.backbone.stages import Layout

_MERGING = ("add", "iadd", "add_", "mul", "imul", "mul_", "matmul", "cat", "concat", "stack")
_ADDING = ("add", "iadd", "add_")
_ACTIVATING = ("relu", "relu_", "relu6", "leaky_relu", "elu", "gelu", "silu", "sigmoid", "hardsigmoid", "hardswish", "tanh", "softmax")
_POOLING = ("max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d", "mean", "amax")
_ATTENDING = ("scaled_dot_product_attention",)
_PASSIVE = (nn.Identity, nn.Flatten, nn.Unflatten)


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer. `parameters`: names in the network. `position`: of its node in the order in which the network is run."""

    parameters: frozenset[str]
    position: int


def layers(layout: Layout) -> list[Layer]:
    """The layers between the input and the features, in Keras's order.

    Keras sorts by the longest path to the output, farthest first, so that parallel branches mix; where that is equal, the branch
    named first comes first, in an addition the shorter one. Behind the last stage only what has weights counts: tutorials count
    without the final pooling.

    Source: keras/src/ops/function.py, map_graph.
    """
    data = layout.traced.data()
    positions = {node: position for position, node in enumerate(data)}
    features = layout.stages[-1].end
    body = positions[layout.stages[-2].end] if len(layout.stages) > 1 else len(data)
    owned = parameters_by_node(layout)
    parts = {node: _parts(layout.traced.root, node, owned[node], positions, positions[node] > body) for node in data}
    above = _distances_to(features, parts)
    order = _traversal(features, parts)
    found = [
        (-(above[node] + len(parts[node]) - 1 - i), order[node], Layer(names, positions[node]))
        for node in order
        for i, names in enumerate(parts[node])
    ]
    return [layer for *_, layer in sorted(found, key=lambda entry: entry[:2])]


def parameters_by_node(layout: Layout) -> dict[fx.Node, frozenset[str]]:
    """For every node that depends on the photo: the names of the parameters it uses, also by way of what is computed from them alone."""
    traced = layout.traced
    data = set(traced.data())
    trained = {name for name, _ in traced.root.named_parameters()}
    used: dict[fx.Node, frozenset[str]] = {}
    for node in traced.graph.nodes:
        names = {name for given in node.all_input_nodes if given not in data for name in used[given]}
        if node.op == "get_attr":
            names |= {str(node.target)} & trained
        elif node.op == "call_module":
            names |= {f"{node.target}.{name}" for name, _ in traced.root.get_submodule(str(node.target)).named_parameters()}
        used[node] = frozenset(names)
    return {node: used[node] for node in traced.graph.nodes if node in data}


def _parts(root: nn.Module, node: fx.Node, names: frozenset[str], data: dict[fx.Node, int], weights_only: bool) -> list[frozenset[str]]:
    """The parameters of each layer that a node stands for: none, one, or a norm and the activation inside it."""
    if node.op == "call_module":
        module = root.get_submodule(str(node.target))
        if names and is_norm(module):
            activates = any(not isinstance(child, _PASSIVE) for child in module.children())
            return [names, frozenset()] if activates and not weights_only else [names]
        counts = not isinstance(module, _PASSIVE) and "drop" not in type(module).__name__.lower()
    else:
        name = str(node.target if node.op == "call_method" else getattr(node.target, "__name__", ""))
        n_maps = sum(given in data for given in node.all_input_nodes)
        counts = name in (*_ACTIVATING, *_POOLING, *_ATTENDING) or (name in _MERGING and n_maps > 1)
    return [names] if names or (counts and not weights_only) else []


def _distances_to(target: fx.Node, parts: dict[fx.Node, list[frozenset[str]]]) -> dict[fx.Node, int]:
    """How many layers lie on the longest path from each node to `target`, the node's own not counted."""
    distances = {target: 0}
    for node in reversed(parts):
        for given in node.all_input_nodes if node in distances else []:
            if given in parts:
                distances[given] = max(distances.get(given, 0), distances[node] + len(parts[node]))
    return distances


def _traversal(target: fx.Node, parts: dict[fx.Node, list[frozenset[str]]]) -> dict[fx.Node, int]:
    """When each node is met, coming from `target` and following the first input as far as it goes, then the next."""
    below: dict[fx.Node, int] = {}
    for node in parts:
        below[node] = len(parts[node]) + max((below[given] for given in node.all_input_nodes if given in parts), default=0)
    met: dict[fx.Node, int] = {}
    waiting = [target]
    while waiting:
        node = waiting.pop()
        if node in met:
            continue
        met[node] = len(met)
        given = [other for other in node.all_input_nodes if other in parts]
        if getattr(node.target, "__name__", node.target) in _ADDING:
            given.sort(key=below.__getitem__)
        waiting += reversed(given)
    return met
