"""From stored rows to a trained classifier: the head first, then each phase with its cut further toward the input."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from headstart.backbone import cut as cuts
from headstart.backbone.networks import Network
from headstart.config import Head, Phase
from headstart.data.table import Table
from headstart.errors import ConfigError
from headstart.features.extract import Features
from headstart.train.head import LinearHead, balanced_weights, solve_linear
from headstart.train.loop import Epoch, Examples, logits_of, train

# From so many val photos on, one half selects the epoch and the other half calibrates; fewer are needed for both.
HALVE_VAL_FROM = 400

Extract = Callable[[cuts.Trunk, int, str], Features]  # trunk, view, policy -> rows of the whole table


@dataclass(frozen=True)
class Learned:
    """A trained classifier and what it answered on photos its weights were not fitted to.

    module: uint8 [n, px, px, 3] to logits [n, k]: the published trunk and the trained tail, in eval mode.
    tail_state: the trained tensors alone, by name.
    held_out: indices into the table of the photos of `logits` [n, k]; they calibrate. For a solved head these are
        out-of-fold answers for train and val; for a trained tail, val photos (`calibrate_on`).
    facts: what the run's record keeps of it.
    notices: sentences for the report.
    """

    module: nn.Module
    tail_state: dict[str, torch.Tensor]
    held_out: np.ndarray
    logits: np.ndarray
    calibrate_on: np.ndarray
    history: tuple[Epoch, ...]
    facts: dict[str, Any]
    notices: tuple[str, ...] = ()


def learn(
    network: Network, table: Table, extract: Extract, head: Head, phases: Sequence[Phase], *, seed: int, device: str, precision: str
) -> Learned:
    """Train the classifier that `head` and `phases` describe. `table` is split; its test photos are never looked at.

    Photos of one group (`table.groups`: duplicates, bursts) stay on one side of every fold.

    Raises: ConfigError: a cut the network does not have, or one that moves away from `input`.
    """
    check_cuts(network, phases)
    phases = planned(head, phases)
    splits = np.array([photo.split for photo in table.photos])
    if head.kind == "linear" and not phases:
        return _solved(network, table, np.flatnonzero(splits != "test"), extract, head, seed)
    return _trained(network, table, splits, extract, head, phases, seed=seed, device=device, precision=precision)


def planned(head: Head, phases: Sequence[Phase]) -> tuple[Phase, ...]:
    """The phases that are run: dense layers start with one of their own where none is given."""
    if head.kind == "dense" and (not phases or phases[0].cut != "head"):
        return (Phase(cut="head", epochs=60, patience=10), *phases)
    return tuple(phases)


def check_cuts(network: Network, phases: Sequence[Phase]) -> None:
    """Whether the network can be cut there, in that order. Raises: ConfigError: no such cut, or one that moves away from `input`."""
    names = cuts.cut_names(network)
    places = []
    for phase in phases:
        cuts.split(network, phase.cut)  # raises for a name that is no cut
        places.append(names.index(phase.cut))
    if places != sorted(places, reverse=True):
        raise ConfigError(
            f"cuts may only move toward `input` from phase to phase, found {' -> '.join(phase.cut for phase in phases)}",
            hint=f"the network's order is {', '.join(names)}",
        )


def _solved(network: Network, table: Table, fit: np.ndarray, extract: Extract, head: Head, seed: int) -> Learned:
    """The linear head, solved to its optimum over train and val; strength and calibration from out-of-fold answers."""
    trunk, tail = cuts.split(network, "head")
    features = extract(trunk, 0, "none")
    solved = _solve(features, table, fit, head, seed)
    tail = tail.with_head(_linear(solved))
    facts = {
        "kind": "linear",
        "strength": solved.strength,
        "oof_table": solved.oof_table,
        "folds": solved.folds,
        "class_weights": head.class_weights,
    }
    held_out = fit[solved.oof_index]
    return Learned(_whole(trunk, tail), _state(tail), held_out, solved.oof_logits, held_out, (), facts)


def _trained(
    network: Network,
    table: Table,
    splits: np.ndarray,
    extract: Extract,
    head: Head,
    phases: Sequence[Phase],
    *,
    seed: int,
    device: str,
    precision: str,
) -> Learned:
    """A tail trained by the loop, phase after phase; val selects the epoch and calibrates."""
    fit, val = np.flatnonzero(splits == "train"), np.flatnonzero(splits == "val")
    select, calibrate, notices = _halve(val, table)
    weights = _class_weights(head, table.labels[fit], len(table.classes))
    trunk, tail = cuts.split(network, "head")
    features = extract(trunk, 0, "none")
    if head.kind == "linear":
        tail = tail.with_head(_linear(_solve(features, table, fit, head, seed)))
    else:
        tail = tail.with_head(_dense(features.rows[fit].astype(np.float32), len(table.classes), head, seed))
    history: list[Epoch] = []
    for number, phase in enumerate(phases):
        trunk, published = cuts.split(network, phase.cut, batch_statistics=phase.norm == "batch")
        tail = _carry_over(tail, published)
        views = range(1 if phase.cut == "input" else phase.views)
        rows = [extract(trunk, view, "none" if view == 0 else phase.augment).rows for view in views]
        recipe = network.preprocessing if phase.cut == "input" else None
        trained = train(
            tail,
            _examples(table, rows, fit),
            _examples(table, rows[:1], select),
            phase,
            seed=seed + number,
            device=device,
            precision=precision,
            preprocessing=recipe,
            class_weights=weights,
        )
        tail, last = trained.tail, phase
        history += trained.history
    logits = logits_of(tail, _examples(table, rows[:1], val), last, preprocessing=recipe)
    facts = {"kind": head.kind, "class_weights": head.class_weights, "phases": [phase.cut for phase in phases]}
    return Learned(_whole(trunk, tail), _state(tail), val, logits, calibrate, tuple(history), facts, notices)


def _halve(val: np.ndarray, table: Table) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Val photos that select the epoch, and those that calibrate: two halves from 400 on, by group, else the same ones."""
    if len(val) >= HALVE_VAL_FROM:
        # By content: the group's smallest hash decides, so that neither order nor names matter.
        smallest = dict(sorted(((table.groups[i], table.photos[i].sha256) for i in val), reverse=True))
        odd = np.array([int(smallest[table.groups[i]][-1], 16) % 2 == 1 for i in val])
        return val[odd], val[~odd], ()
    if len(val) == 0:
        return val, val, ("no val photos: the last epoch was kept and the probabilities are not calibrated",)
    both = f"{len(val)} val photos both selected the epoch and calibrated the probabilities"
    return val, val, (f"{both}; from {HALVE_VAL_FROM} on, each half does one of the two",)


def _solve(features: Features, table: Table, fit: np.ndarray, head: Head, seed: int) -> LinearHead:
    labels = table.labels[fit]
    weights = _class_weights(head, labels, len(table.classes))
    return solve_linear(features.rows[fit], labels, len(table.classes), groups=table.groups[fit], class_weights=weights, seed=seed)


def _class_weights(head: Head, labels: np.ndarray, n_classes: int) -> np.ndarray | None:
    return balanced_weights(labels, n_classes) if head.class_weights == "balanced" else None


def _linear(solved: LinearHead) -> nn.Linear:
    layer = nn.Linear(*solved.weight.shape)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(solved.weight.T.copy()))
        layer.bias.copy_(torch.from_numpy(solved.bias))
    return layer


class Standardise(nn.Module):
    """Features less their mean, over their standard deviation: what the training rows showed, fixed."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, rows: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("mean", torch.from_numpy(rows.mean(0)))
        self.register_buffer("std", torch.from_numpy(np.maximum(rows.std(0), 1e-6)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - self.mean) / self.std


def _dense(rows: np.ndarray, n_classes: int, head: Head, seed: int) -> nn.Sequential:
    """Hidden layers with ReLU and dropout over standardised features (rows float32 [n, d] give mean and deviation)."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = [Standardise(rows)]
    width = rows.shape[1]
    for units in head.hidden:
        layers += [nn.Linear(width, units), nn.ReLU(), nn.Dropout(head.dropout)]
        width = units
    return nn.Sequential(*layers, nn.Linear(width, n_classes))


def _carry_over(trained: cuts.Tail, published: cuts.Tail) -> cuts.Tail:
    """The tail of the new cut: what was trained so far, behind the published stages that join it."""
    tail = published.with_head(trained.classifier)
    loaded = tail.load_state_dict(trained.state_dict(), strict=False)
    assert not loaded.unexpected_keys, f"trained tensors without a place at the new cut: {loaded.unexpected_keys}"
    return tail


def _examples(table: Table, rows: Sequence[Any], indices: np.ndarray) -> Examples:
    photos = table.photos
    return Examples(tuple(rows), indices, table.labels[indices], tuple(photos[i].sha256 for i in indices))


def _whole(trunk: cuts.Trunk, tail: nn.Module) -> nn.Module:
    return nn.Sequential(trunk, tail).eval()


def _state(tail: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tail.state_dict().items()}
