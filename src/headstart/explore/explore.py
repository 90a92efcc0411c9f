"""`headstart explore`: photos are looked at, compared and judged by a head on frozen features, before anything is trained."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from headstart.backbone import cut, networks
from headstart.backbone.weights import locate
from headstart.data import sources
from headstart.data.scan import scan
from headstart.data.split import read_split, split_table
from headstart.data.table import Table, write_omitted
from headstart.explore.checks import out_of_fold
from headstart.explore.duplicates import find_duplicates, write_duplicates
from headstart.explore.exploration import FILE, Exploration, OutOfFold, check_folder
from headstart.explore.growth import learning_curve
from headstart.explore.honesty import naive_and_honest
from headstart.explore.look import look
from headstart.explore.map import feature_map
from headstart.explore.overview import overview, samples
from headstart.explore.page import write_page
from headstart.explore.shortcuts import check_shortcuts
from headstart.explore.suspects import find_suspects, write_corrections, write_suspects
from headstart.features.extract import extract
from headstart.features.store import Store
from headstart.files import cache_folder, write_json
from headstart.progress import waiting
from headstart.train.head import FOLDS, solve_linear

SUSPECTS, CORRECTIONS = "suspects.csv", "corrections.csv"

__all__ = ["Exploration", "OutOfFold", "explore"]


def explore(
    data: str | Path,
    *,
    out: str | Path,
    backbone: str | None = None,
    weights: str | Path | None = None,
    seed: int = 0,
    split: str | Path | None = None,
    exclude: str | Path | None = None,
    corrections: str | Path | None = None,
) -> Exploration:
    """Look at labelled photos and check them before training; write what was found to `out`.

    All photos are looked at, those that will test too: nothing is trained here that is kept, and corrections.csv has no test photo in it,
    since a model's word on what is tested would make the score. Features go through the feature store, so that training with the same
    backbone computes none of them again.

    Args:
        data, seed, split, exclude, corrections: as of `headstart.fit`.
        out: folder for explore.json, report.html, suspects.csv, corrections.csv, duplicates.csv and omitted.csv: absent, empty, or of
            an earlier exploration, which is replaced.
        backbone: a pretrained network whose features are used. Default: what `weights` says, else the small one in this package.
        weights: its file of weights; one that ends early is used as far as it goes.

    Raises: HeadstartError: what was expected, what was found and what to do. Features that were computed are kept.
    """
    folder = Path(out)
    check_folder(folder)
    sources.check(str(data))
    network = networks.build_as_far(locate(backbone, _path(weights), download=True))
    seconds: dict[str, float] = {}
    with _timed(seconds, "scan"):
        table = scan(str(data), exclude=_path(exclude), corrections=_path(corrections))
        table = split_table(table, seed=seed) if split is None else read_split(table, Path(split))
    found = _judged(table, network, folder, seed, seconds)
    _write(found)
    return found


def _judged(table: Table, network: networks.Network, folder: Path, seed: int, seconds: dict[str, float]) -> Exploration:
    """Every check on a split table, one after the other; each shows that it goes on (those without `waiting` have bars of their own)."""
    with _timed(seconds, "look"):
        looks = look(table)
    with _timed(seconds, "trunk"):
        features = extract(cut.Trunk(network, "head"), table, Store(cache_folder() / "store"))
        rows = features.rows[:]
    with _timed(seconds, "duplicates"):
        duplicates = find_duplicates(table, rows)
    with _timed(seconds, "head"), waiting("Solving a head"):
        oof = _answers(table, rows, seed)
    with _timed(seconds, "suspects"):
        suspects = None if oof is None else find_suspects(oof.probs, oof.photos, table)
    with _timed(seconds, "shortcuts"):
        shortcuts = check_shortcuts(table, looks, seed=seed)
    with _timed(seconds, "honesty"), waiting("Parting what belongs together"):
        honesty = naive_and_honest(rows, table, seed=seed)
    with _timed(seconds, "growth"):
        growth = learning_curve(rows, table, seed=seed)
    with _timed(seconds, "map"), waiting("Drawing the map"):
        points = feature_map(rows, seed=seed)
    return Exploration(
        folder=folder,
        table=table,
        overview=overview(table, looks),
        looks=looks,
        samples=samples(table, seed=seed),
        duplicates=duplicates,
        shortcuts=shortcuts,
        backbone=network.name if network.stop is None else f"{network.name} to {network.stop}",
        stop=network.stop,
        seed=seed,
        oof=oof,
        suspects=suspects,
        honesty=honesty,
        growth=growth,
        map=points,
        seconds={name: round(value, 3) for name, value in seconds.items()},
        notices=(*table.notices, *([] if features.notice is None else [features.notice])),
    )


def _answers(table: Table, rows: np.ndarray, seed: int) -> OutOfFold | None:
    """What heads say of every photo they were not fitted to; groups stay together. Always all folds: each photo's label is judged."""
    head = solve_linear(rows, table.labels, len(table.classes), groups=table.groups, seed=seed, folds=FOLDS)
    return out_of_fold(head.oof_logits, head.oof_index, table, head.folds)


def _write(found: Exploration) -> None:
    """All files. explore.json comes first: it marks the folder, should the rest be interrupted."""
    write_json(found.folder / FILE, found.to_json())
    write_omitted(found.table, found.folder / "omitted.csv")
    write_duplicates(found.folder / "duplicates.csv", found.duplicates, found.table)
    for name in (SUSPECTS, CORRECTIONS):
        (found.folder / name).unlink(missing_ok=True)  # of an earlier exploration
    if found.suspects is not None:
        write_suspects(found.folder / SUSPECTS, found.suspects)
        write_corrections(found.folder / CORRECTIONS, found.suspects.photos)
    with waiting("Writing the report"):
        write_page(found, found.folder)


def _path(given: str | Path | None) -> Path | None:
    return None if given is None else Path(given)


@contextlib.contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    seconds[stage] = time.monotonic() - started
