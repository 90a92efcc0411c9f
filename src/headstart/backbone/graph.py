"""A network as a graph of operations: traced once, with every size but the batch's written in as a number.

torch.fx runs the network's Python code on symbols and records what is computed from what. Where a value is used tells where
the network can be cut (`waists`); what an output needs tells which layers a part of the network consists of (`part`).
"""

import copy
import inspect
import operator
from dataclasses import dataclass
from typing import Any

import torch
from timm.layers import get_notrace_functions, get_notrace_modules
from torch import fx, nn

from headstart.errors import ConfigError

# Sizes are read off two dry runs: what is equal in both is a constant, what grows as 2 : 3 is a multiple of the batch size.
FIRST_BATCH, SECOND_BATCH = 2, 3

_ASSERTIONS = ("_assert", "_assert_is_none", "_assert_scalar")


@dataclass(frozen=True, eq=False)
class Traced:
    """A traced network. Nodes that are tensors carry `meta["shape"]`, for a batch of `FIRST_BATCH`.

    image: the input, float [n, 3, px, px].
    batch: n as the network's code reads it off the input, where it does.
    """

    root: nn.Module
    graph: fx.Graph
    image: fx.Node
    batch: fx.Node | None

    @property
    def output(self) -> fx.Node:
        """What the network returns: one tensor."""
        result = self.graph.output_node().args[0]
        if not isinstance(result, fx.Node) or "shape" not in result.meta:
            raise ConfigError(f"this network does not return one tensor but {type(result).__name__}, so it cannot be used here")
        return result

    def data(self) -> list[fx.Node]:
        """Nodes whose value depends on the photo's content, in forward order; the input is the first.

        Everything else (parameters, what is computed from them alone, sizes) can be had on either side of a cut.
        """
        sizes = set() if self.batch is None else {self.batch, *self.batch.all_input_nodes} - {self.image}
        found = {self.image: None}
        for node in self.graph.nodes:
            if node.op != "output" and node not in sizes and any(given in found for given in node.all_input_nodes):
                found[node] = None
        return list(found)

    def waists(self) -> set[fx.Node]:
        """Tensors through which everything flows: once they are there, nothing computed before them is needed any more."""
        order = {node: position for position, node in enumerate(self.data())}
        found, needed_until = set(), -1
        for node, position in order.items():
            if needed_until <= position and node.meta.get("shape", ())[:1] == (FIRST_BATCH,):
                found.add(node)
            needed_until = max([needed_until, *(len(order) if user.op == "output" else order.get(user, 0) for user in node.users)])
        return found

    def part(self, source: fx.Node, target: fx.Node) -> fx.GraphModule:
        """The module that computes `target` from `source`, made of copies of the network's layers, under their own names."""
        graph = self._between(source, target)
        copies: dict[int, Any] = {}  # one memo, so that what is shared stays shared
        places = dict.fromkeys(str(node.target) for node in graph.nodes if node.op in ("call_module", "get_attr"))
        return fx.GraphModule({place: copy.deepcopy(operator.attrgetter(place)(self.root), copies) for place in places}, graph)

    def whole(self) -> fx.GraphModule:
        """The network as the graph has it, made of the network's layers themselves."""
        return fx.GraphModule(self.root, self._between(self.image, self.output))

    def names(self, target: fx.Node) -> set[str]:
        """Names of all tensors that `target` is computed from."""
        return set(fx.GraphModule(self.root, self._between(self.image, target)).state_dict())

    def _between(self, source: fx.Node, target: fx.Node) -> fx.Graph:
        needed = _needed(target, until={source, self.batch})
        graph = fx.Graph()
        new = {source: graph.placeholder("x")}
        if self.batch is not None and self.batch in needed:
            new[self.batch] = graph.call_function(operator.getitem, (graph.call_function(getattr, (new[source], "shape")), 0))
        for node in self.graph.nodes:
            if node in needed and node not in new:
                new[node] = graph.node_copy(node, new.__getitem__)
                new[node].meta.clear()
        graph.output(new[target])
        return graph


def trace(module: nn.Module, px: int) -> Traced:
    """Trace `module`, float [n, 3, px, px] to a tensor, as it is in eval mode.

    Takes 0.05 to 0.5 s. Computes nothing, so that it works on the meta device, too.

    Raises: ConfigError: the network's code cannot be traced, or the network does not take images of `px`.
    """
    parameters = list(inspect.signature(module.forward).parameters.values())[1:]
    options = {parameter.name: parameter.default for parameter in parameters if parameter.default is not parameter.empty}
    try:
        graph = _Tracer().trace(module.eval(), concrete_args=options if options else None)
    except Exception as error:  # whatever the network's own code raises when it meets symbols
        raise ConfigError(f"this network cannot be traced, so it cannot be cut: {_first_line(error)}") from error
    image, *others = (node for node in graph.nodes if node.op == "placeholder")
    first, second = _dry_runs(module, graph, px, [options.get(parameter.name) for parameter in parameters[: len(others)]])
    for node in list(graph.nodes):
        if getattr(node.target, "__name__", "") in _ASSERTIONS:
            graph.erase_node(node)
        elif isinstance(first[node], torch.Tensor):
            node.meta["shape"] = tuple(first[node].shape)
    batch = _write_in_sizes(graph, image, first, second)
    for node in others:
        graph.erase_node(node)
    drop_unused(graph)
    silent = [node for node in graph.nodes if _has_effect(node) and not node.users and node.op not in ("placeholder", "output")]
    if silent:
        raise ConfigError(f"this network changes a tensor in place ({silent[0].name}), so it cannot be cut")
    return Traced(module, graph, image, batch)


def drop_unused(graph: fx.Graph) -> None:
    """Remove operations whose result nobody needs."""
    graph.eliminate_dead_code(is_impure_node=_has_effect)


def is_norm(module: nn.Module) -> bool:
    """Whether `module` is a normalisation layer, of PyTorch's or timm's many (some have an activation inside)."""
    named_norm = isinstance(module, nn.modules.batchnorm._NormBase) or "norm" in type(module).__name__.lower()
    return named_norm and all(next(child.parameters(), None) is None for child in module.children())


class _Tracer(fx.Tracer):
    """Stops at timm's own leaf modules, at layers without layers inside, and at normalisation layers.

    Plain tracing would look into the latter two and write their eval mode into the graph for good.
    """

    proxy_buffer_attributes = True  # else what is computed from buffers becomes a nameless constant

    def __init__(self) -> None:
        super().__init__(autowrap_functions=tuple(get_notrace_functions()))
        self._leaves = tuple(get_notrace_modules())

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        is_single = next(m.children(), None) is None
        return is_single or is_norm(m) or isinstance(m, self._leaves) or super().is_leaf_module(m, module_qualified_name)


class _Recorder(fx.Interpreter):
    """Runs a graph and remembers what each node gave."""

    def __init__(self, module: nn.Module, graph: fx.Graph) -> None:
        super().__init__(module, graph=graph)
        self.values: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        self.values[n] = result = super().run_node(n)
        return result


def _dry_runs(module: nn.Module, graph: fx.Graph, px: int, options: list[Any]) -> list[dict[fx.Node, Any]]:
    """Each node's value for two batch sizes, on the meta device, where tensors have shapes only."""
    constants = [operator.attrgetter(str(node.target))(module) for node in graph.nodes if node.op == "get_attr"]
    tensors = [*module.parameters(), *module.buffers(), *(value for value in constants if isinstance(value, torch.Tensor))]
    # Prefilling deepcopy's memo makes the copy refer to empty stand-ins instead of copying the weights.
    skeleton = copy.deepcopy(module, {id(tensor): _empty_like(tensor) for tensor in tensors})
    runs = []
    for n in (FIRST_BATCH, SECOND_BATCH):
        recorder = _Recorder(skeleton, graph)
        try:
            with torch.no_grad():
                recorder.run(torch.empty(n, 3, px, px, device="meta"), *options)
        except Exception as error:  # whatever the network's own code raises for a size it cannot take
            raise ConfigError(f"this network cannot take images of {px} px: {_first_line(error)}", hint="try another px") from error
        runs.append(recorder.values)
    return runs


def _empty_like(tensor: torch.Tensor) -> torch.Tensor:
    empty = torch.empty_like(tensor, device="meta", requires_grad=False)
    return nn.Parameter(empty, requires_grad=False) if isinstance(tensor, nn.Parameter) else empty


def _write_in_sizes(graph: fx.Graph, image: fx.Node, first: dict[fx.Node, Any], second: dict[fx.Node, Any]) -> fx.Node:
    """Replace what computes sizes by numbers and by multiples of the one node that reads the batch size. Returns that node."""
    with graph.inserting_after(image):
        shape = graph.call_function(getattr, (image, "shape"))
    with graph.inserting_after(shape):
        batch = graph.call_function(operator.getitem, (shape, 0))
    multiples = {1: batch}

    def times(factor: int) -> fx.Node:
        if factor not in multiples:
            with graph.inserting_after(batch):
                multiples[factor] = graph.call_function(operator.mul, (batch, factor))
        return multiples[factor]

    for node in list(graph.nodes):
        if node.op in ("output", "get_attr") or node is image or node not in first:
            continue
        known, value = _size(first[node], second[node], times)
        if known:
            _replace(node, value)
    return batch


def _replace(node: fx.Node, value: Any) -> None:
    """Let everything that uses `node` use `value` instead."""

    def instead(given: Any) -> Any:
        return value if given is node else given

    for user in list(node.users):
        user.args = fx.node.map_aggregate(user.args, instead)
        user.kwargs = fx.node.map_aggregate(user.kwargs, instead)


def _size(first: Any, second: Any, times: Any) -> tuple[bool, Any]:
    """What to write for a value seen in both dry runs, and whether that is known."""
    if isinstance(first, bool | float | str | None) and first == second:
        return True, first
    if isinstance(first, int) and isinstance(second, int) and not isinstance(first, bool):
        if first == second:
            return True, first
        if first * SECOND_BATCH == second * FIRST_BATCH:
            return True, times(first // FIRST_BATCH)
    if isinstance(first, tuple | list) and len(first) == len(second):
        parts = [_size(a, b, times) for a, b in zip(first, second, strict=True)]
        return all(known for known, _ in parts), tuple(value for _, value in parts)
    return False, None


def _needed(target: fx.Node, until: set[fx.Node | None]) -> set[fx.Node]:
    """`target` and everything it is computed from, not looking behind `until`."""
    found, waiting = {target}, [target]
    while waiting:
        node = waiting.pop()
        for given in [] if node in until else node.all_input_nodes:
            if given not in found:
                found.add(given)
                waiting.append(given)
    return found


def _has_effect(node: fx.Node) -> bool:
    """Whether a node matters even where nobody uses its result."""
    if node.op in ("placeholder", "output"):
        return True
    name = node.target if node.op == "call_method" else getattr(node.target, "__name__", "")
    return isinstance(name, str) and (name == "setitem" or (name.endswith("_") and not name.endswith("__")))


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else type(error).__name__
