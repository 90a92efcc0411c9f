"""Putting a file's tensors into a network, and saying plainly what does not fit."""

import contextlib
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from headstart.backbone.catalog import Record
from headstart.backbone.stages import Layout
from headstart.errors import WeightsError

State = Mapping[str, torch.Tensor]

_SHOWN = 3  # names in a message
_EXTRAS = ("AuxLogits.", "head_dist.")  # classifiers that only training used


def n_classes_of(state: State, classifier: str | None) -> int:
    """Classes of the classifier in `state`; 0 where it has none."""
    names = [] if classifier is None else [f"{classifier}.weight", "fc.weight", "head.weight", "classifier.weight"]
    found = next((state[name] for name in names if name in state), None)
    return 0 if found is None or found.dim() < 2 else len(found)


def load(module: nn.Module, state: State, *, whole: nn.Module, layout: Layout, classifier: str | None, record: Record, path: Path) -> None:
    """Copy the tensors of `state` into `module`.

    Args:
        module: the network as it is used, perhaps stopped.
        whole: the network as timm builds it; `module` uses its names.
        classifier: where `whole` has its classifier's layer.

    Raises: WeightsError: of another network (some names and shapes that differ) or incomplete (what is missing; the hint says
        which stage the file covers).
    """
    known = whole.state_dict()
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items() if name in known and _counts(name)}
    without_classifier = layout.traced.output is layout.stages[-1].end
    if _problems(wanted, state, known, None):
        state = _converted(state, whole)
    problems = _problems(wanted, state, known, classifier if without_classifier else None)
    if problems:
        found = "; ".join(f"{what}: {_some(names)}" for what, names in problems.items())
        if set(problems) == {"missing"} and len(problems["missing"]) < len(wanted):
            raise _incomplete(problems["missing"], layout, record, path)
        raise WeightsError(f"{path} does not hold weights of {record.name}: {found}", hint="name the file's network with --backbone")
    module.load_state_dict({name: state[name] for name in wanted}, strict=False)


def _problems(wanted: Mapping[str, Any], state: State, known: State, unused: str | None) -> dict[str, list[str]]:
    """Names that are missing, of another shape, or unknown to the network; `unused`: a layer that may be there or not."""
    ignored = _EXTRAS if unused is None else (*_EXTRAS, f"{unused}.", "fc.", "head.", "classifier.")
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    problems = {
        "missing": [name for name in wanted if name not in shapes],
        "of another shape": [f"{n} {_x(shapes[n])} for {_x(shape)}" for n, shape in wanted.items() if n in shapes and shapes[n] != shape],
        "unknown": [name for name in shapes if name not in known and _counts(name) and not name.startswith(ignored)],
    }
    return {what: names for what, names in problems.items() if names}


def _converted(state: State, whole: nn.Module) -> State:
    """`state` in timm's names and sizes, by timm's own converter for this family of networks, where it has one."""
    convert = getattr(sys.modules[type(whole).__module__], "checkpoint_filter_fn", None)
    if convert is not None:
        with contextlib.suppress(Exception):  # it expects a complete file of a family it knows
            return {name: tensor for name, tensor in convert(dict(state), whole).items() if isinstance(tensor, torch.Tensor)}
    return state


def _incomplete(missing: list[str], layout: Layout, record: Record, path: Path) -> WeightsError:
    gaps = set(missing)
    covered = None
    for stage in layout.stages[:-1]:
        if gaps & layout.traced.names(stage.end):
            break
        covered = stage.name
    units = list(dict.fromkeys(name.split(".")[0] for name in missing))
    text = f"{path} does not cover all of {record.name}: {len(missing)} tensors are missing, of {_some(units)} ({_some(missing)})"
    hint = "get the whole file" if covered is None else f"it is complete up to {covered}: use it with --stop {covered}"
    return WeightsError(text, hint=hint)


def _counts(name: str) -> bool:
    return not name.endswith("num_batches_tracked")


def _some(names: Iterable[str]) -> str:
    first = list(names)
    return ", ".join(first[:_SHOWN]) + (f" and {len(first) - _SHOWN} more" if len(first) > _SHOWN else "")


def _x(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) if shape else "scalar"
