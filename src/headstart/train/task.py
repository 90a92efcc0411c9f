"""What is to be learned, as every step of learning needs it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from headstart.backbone.networks import Network
from headstart.config import Head, Phase
from headstart.data.table import Table
from headstart.features.extract import Extractor
from headstart.features.store import Rows
from headstart.train.head import balanced_weights
from headstart.train.loop import Epoch, Examples
from headstart.train.plan import Plan

# From so many val photos on, one half selects the epoch and the other half calibrates; fewer are needed for both.
HALVE_VAL_FROM = 400
HALF_AT_LEAST = 0.25  # of the val photos; groups that can only be dealt less evenly are not dealt out


@dataclass(frozen=True)
class Asked:
    """What was asked for; `config.Config` and docs/reference/config.md tell of each."""

    px: int | None = None
    head: Head = field(default_factory=Head)
    phases: tuple[Phase, ...] = ()
    tune: str = "never"
    budget_s: float = 300.0
    average: bool = True
    test_views: int = 1
    seed: int = 0
    device: str = "cpu"
    precision: str = "fp32"


@dataclass(frozen=True)
class Memory:
    """What an interrupted run left, and the place to leave more; nothing is kept without a folder.

    checkpoints: folder for one file a phase.
    recall: the plan made before, if any. note: keep a plan.
    """

    checkpoints: Path | None = None
    recall: Callable[[], Plan | None] = lambda: None
    note: Callable[[Plan], None] = lambda plan: None

    def checkpoint(self, number: int) -> Path | None:
        """The file of phase `number`, from 0 on."""
        return None if self.checkpoints is None else self.checkpoints / f"phase-{number + 1}.safetensors"


@dataclass(frozen=True)
class Task:
    """A network, photos and what to make of them. Photos are named by their index into the table; `extract` is over the same table.

    network_at: the same network, for another size of input.
    on_epoch: told of each epoch.
    """

    network: Network
    extract: Extractor
    asked: Asked = Asked()
    network_at: Callable[[int], Network] | None = None
    memory: Memory = field(default_factory=Memory)
    on_epoch: Callable[[Epoch], None] | None = None

    @property
    def table(self) -> Table:
        """The photos; those of test are never looked at."""
        return self.extract.table

    @cached_property
    def splits(self) -> np.ndarray:
        """[n] names."""
        return np.array([photo.split for photo in self.table.photos])

    @property
    def n_classes(self) -> int:
        """Classes of the table, with or without photos."""
        return len(self.table.classes)

    @cached_property
    def fit(self) -> np.ndarray:
        """The training photos."""
        return np.flatnonzero(self.splits == "train")

    @cached_property
    def val(self) -> np.ndarray:
        """The val photos."""
        return np.flatnonzero(self.splits == "val")

    @cached_property
    def halves(self) -> tuple[np.ndarray, np.ndarray]:
        """Val photos that select, and those that calibrate: two halves from HALVE_VAL_FROM on, by group, else the same ones.

        The same ones, too, where there are so few groups, or one so large, that a half would be nearly empty.
        """
        val = self.val
        if len(val) < HALVE_VAL_FROM:
            return val, val
        groups: dict[int, list[int]] = {}
        for i in val.tolist():
            groups.setdefault(int(self.table.groups[i]), []).append(i)
        # The largest first, each to the half with fewer photos. Equals go by their smallest hash: neither order nor names matter.
        sha256s, dealt = self.table.sha256s, (list[int](), list[int]())
        for group in sorted(groups.values(), key=lambda photos: (-len(photos), min(sha256s[i] for i in photos))):
            min(dealt, key=len).extend(group)
        if min(map(len, dealt)) < HALF_AT_LEAST * len(val):
            return val, val
        return np.array(sorted(dealt[0])), np.array(sorted(dealt[1]))

    def about_val(self) -> tuple[str, ...]:
        """What the reader of a trained network's numbers should know of val."""
        n = len(self.val)
        if n == 0:
            return ("no val photos: the last epoch was kept and the probabilities are not calibrated",)
        both = f"{n} val photos both selected the weights and calibrated the probabilities"
        if n < HALVE_VAL_FROM:
            return (f"{both}; from {HALVE_VAL_FROM} on, each half does one of the two",)
        if self.halves[0] is self.val:
            return (f"{both}: they belong to so few groups that each half could not do one of the two",)
        return ()

    def class_weights(self, photos: np.ndarray) -> np.ndarray | None:
        """Each class's weight in the loss over these photos, float64 [k]; None for 1."""
        return balanced_weights(self.table.labels[photos], self.n_classes) if self.asked.head.class_weights == "balanced" else None

    def examples(self, rows: Sequence[Rows], photos: np.ndarray, at: np.ndarray | None = None) -> Examples:
        """These photos' rows and labels. `rows`: one a view; `at`: where the photos lie in each, by default where they lie in the table."""
        sha256s = self.table.sha256s
        return Examples(tuple(rows), photos if at is None else at, self.table.labels[photos], tuple(sha256s[i] for i in photos))
