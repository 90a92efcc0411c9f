"""Several backbones on one folder of photos: a pass of each, a head on each, and which is worth its cost.

Test photos are never looked at: accuracy is what heads that had not seen a photo said of it (out of fold), on train and val.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from headstart.backbone import cut, networks
from headstart.backbone.networks import Network
from headstart.backbone.weights import WeightsFile, locate
from headstart.data import sources
from headstart.data.scan import scan
from headstart.data.split import read_split, split_table
from headstart.data.table import Table
from headstart.errors import ConfigError, WeightsError
from headstart.evaluate.intervals import Interval, mcnemar, wilson
from headstart.features import engine
from headstart.features.extract import extract
from headstart.features.store import Store
from headstart.files import cache_folder
from headstart.pipeline import check_enough
from headstart.progress import waiting
from headstart.train.head import FOLDS, solve_linear

NOISE = 0.05  # a difference that chance makes this often, or more often, is noise
FEW_PHOTOS = 300  # of fewer, only large differences can be told from noise


@dataclass(frozen=True)
class Probed:
    """One backbone on one folder.

    options: what `headstart train` needs to use it.
    accuracy: of `n` photos, out of fold, with its 95 % interval.
    p_equal: how often chance alone makes it differ this much or more from the best one, on the same photos; 1 for the best itself.
    seconds: of the pass through the frozen network, over the rows that the store did not have; photos_per_s: None where it had all.
    gflop: operations for one photo; megabytes: of the parameters, as float32; features: numbers that the head sees of a photo.
    """

    backbone: str
    options: tuple[str, ...]
    n: int
    accuracy: float
    accuracy_ci95: Interval
    p_equal: float
    seconds: float
    rows_computed: int
    rows_reused: int
    photos_per_s: float | None
    gflop: float
    megabytes: float
    features: int

    @property
    def within_noise(self) -> bool:
        """Whether these photos cannot tell it from the best one."""
        return self.p_equal >= NOISE


@dataclass(frozen=True)
class Absent:
    """A backbone that was named and could not be tried."""

    backbone: str
    reason: str
    hint: str | None


@dataclass(frozen=True)
class Comparison:
    """Backbones tried on the same photos, the most accurate first; the one that is worth it; why, in sentences."""

    data: str
    n_photos: int
    n_classes: int
    probed: tuple[Probed, ...]
    absent: tuple[Absent, ...]
    worth_it: Probed
    advice: tuple[str, ...]

    @property
    def best(self) -> Probed:
        return self.probed[0]

    def to_json(self) -> dict[str, Any]:
        """Plain values; `best` and `worth_it` by name."""
        return {**dataclasses.asdict(self), "best": self.best.backbone, "worth_it": self.worth_it.backbone}


def probe(
    data: str | Path,
    backbones: Sequence[str] = (),
    *,
    weights: Sequence[str | Path] = (),
    seed: int = 0,
    split: str | Path | None = None,
    exclude: str | Path | None = None,
    corrections: str | Path | None = None,
) -> Comparison:
    """Try several pretrained networks on one folder: each sees every photo once, and a linear head is solved on what it saw.

    Rows go through the feature store, so training with one of them afterwards computes nothing again.

    Args:
        data, seed, split, exclude, corrections: as of `headstart.fit`.
        backbones: names, as `headstart backbones` lists them. Weights that are not at hand are downloaded; where that fails, the others
            go on.
        weights: files whose header names their network. One that ends early is used as far as it goes.

    Raises: HeadstartError: nothing to compare, an unknown name, a file that cannot be used, no weights for any, photos that cannot be.
    """
    if not backbones and not weights:
        raise ConfigError("no backbone to try", hint="name some, such as --backbone embedded --backbone resnet50, or give --weights FILE")
    sources.check(data)
    files, absent = _files(backbones, weights)
    table = scan(str(data), exclude=_path(exclude), corrections=_path(corrections))
    table = split_table(table, seed=seed) if split is None else read_split(table, Path(split))
    check_enough(table)
    table = table.subset([i for i, photo in enumerate(table.photos) if photo.split != "test"])
    store = Store(cache_folder() / "store")
    choice = engine.choose()
    tried = [_try(file, table, store, choice, seed) for file in files]
    ranked = _ranked([one for one, _ in tried], np.stack([right for _, right in tried]))
    worth_it = min((one for one in ranked if one.within_noise), key=lambda one: one.gflop)
    return Comparison(table.name, len(table), len(table.classes), ranked, absent, worth_it, _advice(ranked, worth_it))


def _path(given: str | Path | None) -> Path | None:
    return None if given is None else Path(given)


def _files(backbones: Sequence[str], weights: Sequence[str | Path]) -> tuple[list[WeightsFile], tuple[Absent, ...]]:
    """The weights of each backbone, and those that are not to be had. Raises: HeadstartError: an unusable file, or none at all."""
    found: list[WeightsFile] = []
    absent: list[Absent] = []
    for path in weights:
        try:
            found.append(locate(None, Path(path)))
        except WeightsError as error:
            alone = f"headstart train DATA --weights {path} --backbone NAME"
            raise WeightsError(error.message, hint=f"give files that name their network, or use it alone: {alone}") from error
    for name in dict.fromkeys(backbones):
        try:
            found.append(locate(name, download=True))
        except WeightsError as error:
            absent.append(Absent(name, error.message, error.hint))
    if not found:
        raise WeightsError("; ".join(one.reason for one in absent), hint=absent[0].hint)
    return found, tuple(absent)


def _try(file: WeightsFile, table: Table, store: Store, choice: engine.Choice, seed: int) -> tuple[Probed, np.ndarray]:
    """One backbone's figures, `p_equal` still 1, and its answers: int8 [n], 1 right, 0 wrong, -1 never held out."""
    network = networks.build_as_far(file)
    trunk, _ = cut.split(network, "head")
    passed = extract(trunk, table, store, choice=choice)
    with waiting(f"Solving a head on {network.name}"):
        rows, labels = passed.rows[:], table.labels
        # Always all folds, whatever the size: only answers on the same photos can be compared.
        head = solve_linear(rows, labels, len(table.classes), groups=table.groups, seed=seed, folds=FOLDS)
    right = np.full(len(table), -1, np.int8)
    right[head.oof_index] = head.oof_logits.argmax(1) == labels[head.oof_index]
    n, n_right = int((right >= 0).sum()), int((right == 1).sum())
    probed = Probed(
        backbone=network.name if network.stop is None else f"{network.name} to {network.stop}",
        options=_options(file, network),
        n=n,
        accuracy=n_right / max(1, n),
        accuracy_ci95=wilson(n_right, n),
        p_equal=1.0,
        seconds=round(passed.seconds, 3),
        rows_computed=passed.n_computed,
        rows_reused=passed.n_reused,
        photos_per_s=round(passed.n_computed / passed.seconds, 1) if passed.n_computed else None,
        gflop=round(_gflop(trunk), 3),
        megabytes=round(sum(parameter.numel() for parameter in trunk.parameters()) * 4 / 1e6, 1),
        features=rows.shape[1],
    )
    return probed, right


def _options(file: WeightsFile, network: Network) -> tuple[str, ...]:
    named = ("--weights", str(file.path)) if file.origin == "given" else ("--backbone", network.name)
    return named if network.stop is None else (*named, "--stop", network.stop)


def _gflop(trunk: cut.Trunk) -> float:
    """Operations for one photo, in 1e9; a multiplication and an addition are two."""
    px = trunk.network.preprocessing.input_px
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):  # which has no count for the CPU's fused attention
        trunk(torch.zeros(1, px, px, 3, dtype=torch.uint8))
    return float(counter.get_total_flops()) / 1e9


def _ranked(probed: Sequence[Probed], right: np.ndarray) -> tuple[Probed, ...]:
    """The most accurate first (of equals, the cheapest), each compared with the first on the photos that both answered; right [m, n]."""
    order = sorted(range(len(probed)), key=lambda i: (-probed[i].accuracy, probed[i].gflop))
    first = right[order[0]]
    ranked = []
    for i in order:
        both = (right[i] >= 0) & (first >= 0)
        only_first, only_this = int((both & (first > right[i])).sum()), int((both & (first < right[i])).sum())
        ranked.append(dataclasses.replace(probed[i], p_equal=mcnemar(only_first, only_this)))
    return tuple(ranked)


def _advice(ranked: Sequence[Probed], worth_it: Probed) -> tuple[str, ...]:
    """What the table says, in plain words."""
    best = ranked[0]
    said = [f"{best.backbone} gets the most right, {best.accuracy:.3f} of {best.n} photos."]
    if worth_it is not best:
        said.append(
            f"{worth_it.backbone} is worth it: it takes {worth_it.gflop / best.gflop:.2f} of the computing, and these photos cannot "
            f"tell their accuracy apart (p = {worth_it.p_equal:.2f})."
        )
    elif any(one.gflop < best.gflop for one in ranked):
        said.append("It is worth it: every one that computes less is clearly less accurate.")
    elif len(ranked) > 1:
        said.append("It is worth it: none computes less.")
    if best.n < FEW_PHOTOS and len(ranked) > 1:
        said.append(f"{best.n} photos tell only large differences from chance.")
    return tuple(said)
