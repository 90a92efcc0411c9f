"""What exploring a data set found, in one value: the report, the terminal and explore.json are made from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.data.folders import is_junk
from headstart.data.table import Table
from headstart.errors import ConfigError
from headstart.evaluate.intervals import Interval, held_out_interval
from headstart.files import names_in_out

if TYPE_CHECKING:
    from headstart.explore.duplicates import Duplicates
    from headstart.explore.growth import Growth
    from headstart.explore.honesty import Honesty
    from headstart.explore.look import Looks
    from headstart.explore.map import FeatureMap
    from headstart.explore.overview import Overview
    from headstart.explore.shortcuts import Shortcut
    from headstart.explore.suspects import Suspects

FILE = "explore.json"
FORMAT = 1  # of that file


@dataclass(frozen=True)
class OutOfFold:
    """What heads said of photos they were not fitted to.

    photos: int64 [m], indices into the table. probs: float32 [m, k], calibrated. right: bool [m], whether the likeliest class is the label.
    groups: [m], photos of one group were held out together. n_folds: how many heads answered.
    """

    photos: np.ndarray
    probs: np.ndarray
    right: np.ndarray
    groups: np.ndarray
    n_folds: int

    @property
    def accuracy(self) -> float:
        """Share answered right, 0 to 1."""
        return float(self.right.mean())

    @property
    def accuracy_ci95(self) -> Interval:
        """Its interval, which allows for groups and folds (docs/concepts/honest-numbers.md)."""
        return held_out_interval(self.right, self.groups, self.n_folds)

    def majority(self, table: Table) -> float:
        """Share of its photos that are of their most frequent class: what always answering that one would reach. `table`: of the photos."""
        return float(np.bincount(table.labels[self.photos]).max() / len(self.photos))

    def only_class(self, table: Table) -> str | None:
        """The class that all its photos are of, where it is one: then `accuracy` says nothing."""
        labels = np.unique(table.labels[self.photos])
        return table.classes[labels[0]] if len(labels) == 1 else None

    def to_json(self, table: Table) -> dict[str, Any]:
        """Plain values. `table`: of the photos."""
        return {
            "accuracy": self.accuracy,
            "accuracy_ci95": list(self.accuracy_ci95),
            "majority": self.majority(table),
            "n": len(self.right),
            "only_class": self.only_class(table),
        }


@dataclass(frozen=True)
class Exploration:
    """Everything that was found. Indices of photos are positions in `table.photos`.

    folder: where explore.json, report.html, suspects.csv and duplicates.csv lie.
    table: all photos that can be read, split; what was left out, and why.
    overview: counts, sizes, formats, extremes, photos left out by reason. looks: the same pixel figures for each photo.
    samples: a few photos of each class, for a grid; by class name.
    backbone: whose features were used; stop: the last stage of it that its weights reach, None where it is whole.
    seed: of split, folds and samples.
    oof: of a linear head on those features, over all photos. It and what follows is None where there are too few photos for it.
    seconds: of each stage, by name. notices: sentences that should be read with the rest, the table's own among them.
    """

    folder: Path
    table: Table
    overview: "Overview"
    looks: "Looks"
    samples: Mapping[str, tuple[int, ...]]
    duplicates: "Duplicates"
    shortcuts: "tuple[Shortcut, ...]"
    backbone: str
    seed: int
    oof: OutOfFold | None
    suspects: "Suspects | None"
    honesty: "Honesty | None"
    growth: "Growth | None"
    map: "FeatureMap | None"
    seconds: Mapping[str, float]
    notices: tuple[str, ...]
    stop: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The content of explore.json; duplicates, suspects, shortcuts, naive and learning_curve are as in checks.json."""
        return {
            "exploration": FORMAT,
            "name": self.table.name,
            "root": str(self.table.root.absolute()),
            "backbone": self.backbone,
            "seed": self.seed,
            "data": self.overview.to_json(self.table),
            "looks": self.looks.to_json(self.table),
            "samples": {name: [self.table.photos[i].path for i in photos] for name, photos in self.samples.items()},
            "duplicates": self.duplicates.to_json(),
            "shortcuts": [shortcut.to_json() for shortcut in self.shortcuts],
            "out_of_fold": None if self.oof is None else self.oof.to_json(self.table),
            "suspects": None if self.suspects is None else self.suspects.to_json(),
            "naive": None if self.honesty is None else self.honesty.to_json(),
            "learning_curve": None if self.growth is None else self.growth.to_json(),
            "notices": list(self.notices),
            "seconds": dict(self.seconds),
        }


def check_folder(folder: Path) -> None:
    """Whether `folder` can take an exploration: absent, empty, or one that holds an earlier exploration, which is replaced.

    Raises: ConfigError: it holds anything else, or has a name that cannot be written to files.
    """
    names = [name for name in names_in_out(folder, "the exploration") if not is_junk(name)]
    if names and FILE not in names:
        raise ConfigError(f"{folder} is not empty and holds no exploration", hint="choose another --out, or an empty folder")
